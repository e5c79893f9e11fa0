//! The OpenAPI document agrees with the service: methods, statuses, headers, scopes and examples.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::io::Write as _;
use std::panic::Location;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{RequestBuilder, Response};
use segment_estimator::config::SETTINGS;
use segment_estimator::domain::Level;
use segment_estimator::store::MaxMembers;
use serde_json::{Map, Value, json};

use crate::helpers::{Redis, TestApp, Upload, binary, eventually, run, settings};

/// The OpenAPI document of a service.
struct Document(Value);

impl Document {
    async fn of(app: &TestApp) -> Self {
        Self(app.get("/openapi.json").await.json().await.unwrap())
    }

    /// Returns `value`, or the target of its `$ref`.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).unwrap(),
            None => value,
        }
    }

    /// Returns the path, the method in upper case and the description of each operation.
    fn operations(&self) -> Vec<(&str, String, &Value)> {
        let paths = self.0["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (path.as_str(), method.to_uppercase(), operation))
        });
        operations.collect()
    }

    #[track_caller]
    fn operation(&self, method: &str, path: &str) -> &Value {
        let operation = &self.0["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not documented");
        operation
    }

    /// Asserts that `value` matches a schema of the document.
    #[track_caller]
    fn check(&self, what: &str, schema: &Value, value: &Value) {
        let schema = json!({ "allOf": [schema], "components": self.0["components"] });
        let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
        let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{what}: {errors:#?} in {value:#}");
    }

    /// Asserts that a response of this operation is documented, and returns its body.
    #[track_caller]
    fn check_response(&self, method: &str, path: &str, response: Response) -> impl Future<Output = Value> {
        let status = response.status().as_u16();
        let what = format!("{method} {path}: {status}");
        let documented = &self.operation(method, path)["responses"][status.to_string()];
        assert!(documented.is_object(), "{what} is not documented");
        let documented = self.resolved(documented);

        for (name, header) in documented["headers"].as_object().unwrap() {
            // A response may have several media types, of which only CSV is a file.
            let is_file = response
                .headers()
                .get("content-type")
                .is_some_and(|media_type| media_type.as_bytes().starts_with(b"text/csv"));
            if name == "content-disposition" && !is_file {
                assert!(!response.headers().contains_key(name), "{what}: {name}");
                continue;
            }
            let value = response.headers().get(name).unwrap_or_else(|| panic!("{what}: no header {name}"));
            let schema = &self.resolved(header)["schema"];
            let text = value.to_str().unwrap();
            let value = if schema["type"] == "integer" { json!(text.parse::<u64>().unwrap()) } else { json!(text) };
            self.check(&format!("{what}: {name}"), schema, &value);
        }
        let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
        let what = format!("{}: {what}", Location::caller());
        async move {
            let body = response.bytes().await.unwrap();
            let Some(content_type) = content_type else {
                assert!(body.is_empty() && documented["content"].is_null(), "{what}: {body:?}");
                return Value::Null;
            };
            let content = &documented["content"][content_type.split(';').next().unwrap()];
            assert!(content.is_object(), "{what}: {content_type} is not documented");
            if content_type == "application/x-ndjson" {
                for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    let line: Value = serde_json::from_slice(line).unwrap();
                    self.check(&what, &self.resolved(&content["schema"])["contentSchema"], &line);
                }
                return Value::Null;
            }
            if !content_type.ends_with("json") {
                return Value::Null;
            }
            let body: Value = serde_json::from_slice(&body).unwrap();
            self.check(&what, &content["schema"], &body);
            if status >= 400 {
                let examples: Vec<_> = examples_of(content).into_iter().map(|(_, example)| &example["type"]).collect();
                assert!(examples.contains(&&body["type"]), "{what}: no example of {}", body["type"]);
            }
            body
        }
    }

    /// Returns the media types of every request and response, each with a name.
    fn contents(&self) -> Vec<(String, &Map<String, Value>)> {
        let mut contents = Vec::new();
        for (path, method, operation) in self.operations() {
            if let Some(content) = operation["requestBody"]["content"].as_object() {
                contents.push((format!("{method} {path}"), content));
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                if let Some(content) = self.resolved(response)["content"].as_object() {
                    contents.push((format!("{method} {path}: {status}"), content));
                }
            }
        }
        for (name, response) in self.0["components"]["responses"].as_object().unwrap() {
            contents.push((name.clone(), response["content"].as_object().unwrap()));
        }
        contents
    }
}

/// Returns the names and values of the examples of a media type.
fn examples_of(content: &Value) -> Vec<(&str, &Value)> {
    let several = content["examples"].as_object().into_iter().flatten();
    let several = several.map(|(name, example)| (name.as_str(), &example["value"]));
    several.chain(content.get("example").map(|example| ("the example", example))).collect()
}

/// Returns the path with the examples of its path and query parameters.
fn example_path(path: &str, operation: &Value) -> String {
    let mut path = path.to_owned();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let example = &parameter["example"];
        for example in example.as_array().map_or(std::slice::from_ref(example), Vec::as_slice) {
            let example = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            match parameter["in"].as_str().unwrap() {
                "path" => path = path.replace(&format!("{{{name}}}"), &example),
                "query" => {
                    path.push(if path.contains('?') { '&' } else { '?' });
                    path.push_str(&format!("{name}={example}"));
                }
                "header" => {}
                other => panic!("a parameter in {other}"),
            }
        }
    }
    path
}

fn post(app: &TestApp, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    app.request("POST", path).header("content-type", content_type).body(body)
}

async fn app() -> (Redis, TestApp, Document) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let document = Document::of(&app).await;
    (redis, app, document)
}

#[tokio::test]
async fn openapi_is_the_same_served_and_printed() {
    let (_redis, app, document) = app().await;
    let folder = tempfile::tempdir().unwrap();
    // The command needs neither Redis nor valid settings.
    let printed = run(binary(folder.path()).arg("openapi").env("ESTIMATOR_WINDOW", "never"));
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    let served = app.get("/openapi.json").await;
    assert_eq!(served.headers()["content-type"], "application/json");
    assert_eq!(served.headers()["cache-control"], "no-cache");
    assert_eq!(served.bytes().await.unwrap(), printed.stdout);
    assert!(document.0["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document.0["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn openapi_operations_are_all_in_the_api_page() {
    let (_redis, _app, document) = app().await;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    // Files of the pages are no operations of the API.
    let is_page_file = |path: &str| path.starts_with("/docs/") || path.starts_with("/pages/");
    for (path, method, _) in document.operations().into_iter().filter(|(path, ..)| !is_page_file(path)) {
        assert!(page.contains(&format!("| `{method} {path}`")), "{method} {path}");
    }
}

#[tokio::test]
async fn openapi_methods_exist_and_others_are_405() {
    let (_redis, app, document) = app().await;
    for (path, item) in document.0["paths"].as_object().unwrap() {
        let mut allowed: BTreeSet<_> = item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        if allowed.contains("GET") {
            allowed.insert("HEAD".to_owned());
        }
        let filled = example_path(path, item.as_object().unwrap().values().next().unwrap());
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"] {
            let response = app.request(method, &filled).send().await.unwrap();
            let exists = ![404, 405].contains(&response.status().as_u16());
            assert_eq!(exists, allowed.contains(method), "{method} {path}: {}", response.status());
            if !exists {
                let allow = response.headers()["allow"].to_str().unwrap().split(',').map(str::to_owned);
                assert_eq!(allow.collect::<BTreeSet<_>>(), allowed, "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn openapi_operations_have_distinct_names_and_documented_headers() {
    let (_redis, _app, document) = app().await;
    let mut names = BTreeSet::new();
    for (path, method, operation) in document.operations() {
        assert!(names.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
        assert!(operation["summary"].as_str().unwrap().ends_with('.'), "{method} {path}");
        let tags = document.0["tags"].as_array().unwrap();
        assert!(tags.iter().any(|tag| tag["name"] == operation["tags"][0]), "{method} {path}");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let is_required =
                parameter["in"] == "path" || ["segment", "name"].iter().any(|name| parameter["name"] == *name);
            assert_eq!(parameter["required"], is_required, "{method} {path}: {parameter}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = document.resolved(response);
            assert!(response["headers"]["x-request-id"].is_object(), "{method} {path}: {status}");
            let has_retry_after = ["429", "503"].contains(&status.as_str());
            assert_eq!(response["headers"]["retry-after"].is_object(), has_retry_after, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn openapi_scopes_are_those_that_the_service_requires() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let keys = folder.path().join("keys.toml");
    // The digest of `test`, as `printf test | sha256sum` prints it.
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    std::fs::write(&keys, format!("[[key]]\nname = \"nobody\"\nsha256 = {digest:?}\nscopes = []\n")).unwrap();
    let settings = settings([("api_keys_file", &keys.display().to_string())]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let document = Document::of(&app).await;

    let mut protected = 0;
    for (path, method, operation) in document.operations() {
        let filled = example_path(path, operation);
        let answer = app.request(&method, &filled).send().await.unwrap();
        let Some(security) = operation["security"].as_array() else {
            assert_ne!(answer.status(), 401, "{method} {path}");
            assert!(operation["responses"]["401"].is_null(), "{method} {path}");
            continue;
        };
        assert_eq!(answer.status(), 401, "{method} {path}");
        document.check_response(&method, path, answer).await;
        assert_eq!(security[0], json!({}), "{method} {path}: a token is not always needed");
        let answer = app.request(&method, &filled).bearer_auth("test").send().await.unwrap();
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let scope = security[1]["bearer"][0].as_str().unwrap();
        assert!(challenge.ends_with(&format!("scope=\"{scope}\"")), "{method} {path}: {challenge}");
        assert_eq!(answer.status(), 403, "{method} {path}");
        document.check_response(&method, path, answer).await;
        protected += 1;
    }
    assert_eq!(protected, 24);
}

#[tokio::test]
async fn openapi_tables_have_the_headers_of_their_format() {
    let (_redis, app, document) = app().await;
    let mut tables = 0;
    for (path, method, operation) in document.operations() {
        let headers = &operation["responses"]["200"]["headers"];
        let is_table = operation["responses"]["200"]["content"]["text/csv"].is_object();
        assert_eq!(headers["content-disposition"].is_object(), is_table, "{method} {path}");
        if is_table {
            assert!(headers["vary"].is_object(), "{method} {path}");
            let filled = example_path(path, operation).replace("format=json", "format=csv");
            let answer = app.request(&method, &filled).send().await.unwrap();
            assert_eq!(answer.headers()["vary"], "accept", "{method} {path}");
            assert!(answer.headers()["content-disposition"].as_bytes().starts_with(b"attachment; "), "{method} {path}");
            tables += 1;
        }
    }
    assert_eq!(tables, 8);
}

#[tokio::test]
async fn openapi_examples_match_their_schemas() {
    let (_redis, _app, document) = app().await;
    let mut examples = 0;
    for (what, content) in document.contents() {
        for (media_type, content) in content {
            for (name, example) in examples_of(content) {
                document.check(&format!("{what}: {media_type}: {name}"), &content["schema"], example);
                examples += 1;
            }
            // Problems have examples.
            assert!(media_type != "application/problem+json" || !examples_of(content).is_empty(), "{what}");
        }
    }
    assert!(examples > 40, "{examples}");
}

#[tokio::test]
async fn openapi_examples_of_problems_have_the_defaults_of_the_settings() {
    let (_redis, _app, document) = app().await;
    let example = |response: &str, slug: &str| {
        let examples =
            &document.0["components"]["responses"][response]["content"]["application/problem+json"]["examples"];
        examples[slug]["value"].to_string()
    };
    for (response, slug, setting) in [
        ("BodyTimeout", "body-timeout", "body_timeout"),
        ("Unavailable", "request-timeout", "request_timeout"),
        ("Unavailable", "overloaded", "max_waiting"),
        ("TooMany", "too-many-overlaps", "max_overlaps"),
        ("TooManyLists", "too-many-lists", "max_lists"),
        ("TooManyMemberLists", "too-many-member-lists", "max_member_lists"),
        ("InvalidVisit", "too-many-segments", "max_segments"),
    ] {
        let setting = SETTINGS.iter().find(|known| known.name == setting).unwrap();
        let default = setting.default.unwrap();
        let example = example(response, slug);
        assert!(example.split([' ', '.', ',', ':']).any(|word| word == default), "{slug}: no {default} in {example}");
    }
}

#[tokio::test]
async fn openapi_query_parameters_are_those_that_the_service_accepts() {
    let (_redis, app, document) = app().await;
    let mut checked = 0;
    for (path, method, operation) in document.operations() {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let queries = parameters.filter(|parameter| parameter["in"] == "query");
        let names: Vec<_> = queries.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let accepted = match names[..] {
            [] => continue,
            [only] => format!("the only one is {only}"),
            _ => format!("the parameters are {}", names.join(", ")),
        };
        let path = path.replace("{name}", "sports");
        checked += 1;
        if path == "/" || path.starts_with("/pages/") {
            check_page_parameters(&app, &path, &names).await;
            continue;
        }
        let refused = app.request(&method, &format!("{path}?unknown=1")).send().await.unwrap();
        assert_eq!(refused.status(), 422, "{method} {path}");
        let text = refused.text().await.unwrap();
        // No other name follows.
        assert!(text.contains(&format!("{accepted}\"")), "{path}: {text}");
    }
    assert!(checked > 8, "{checked}");
}

/// Asserts that a page reads its parameters and ignores unknown ones.
async fn check_page_parameters(app: &TestApp, path: &str, names: &[&str]) {
    let required = if path == "/pages/segment" { "name=sports" } else { "" };
    assert_eq!(app.status_of(&format!("{path}?{required}&utm_source=chat")).await, 200, "{path}");
    let lists = ["name", "segment", "all", "any", "none"];
    for name in names.iter().filter(|name| !lists.contains(name)) {
        let twice = app.get(&format!("{path}?{required}&{name}=a&{name}=a")).await;
        assert_eq!(twice.status(), 422, "{path}: {name}");
        assert!(twice.text().await.unwrap().contains(&format!("{name} is given more than once")), "{path}: {name}");
    }
}

#[tokio::test]
async fn openapi_request_examples_succeed() {
    let (_redis, app, document) = app().await;
    let mut was_recorded = false;
    // A preference changes the response.
    let visit =
        examples_of(&document.operation("POST", "/segments")["requestBody"]["content"]["application/json"])[0].1;
    let preferring = app.request("POST", "/segments").header("prefer", "return=representation").json(visit);
    let recorded = document.check_response("POST", "/segments", preferring.send().await.unwrap()).await;
    assert_eq!(recorded["result"], "accepted", "{recorded}");
    for (path, method, operation) in document.operations() {
        let filled = example_path(path, operation);
        // One example deletes what another one records.
        was_recorded |= app.count("sports").await > 0;
        let success: Vec<_> =
            operation["responses"].as_object().unwrap().keys().filter(|status| status.starts_with('2')).collect();
        let mut requests = Vec::new();
        match operation["requestBody"]["content"].as_object() {
            None => requests.push(app.request(&method, &filled)),
            Some(content) => {
                for (media_type, content) in content {
                    for (_, example) in examples_of(content) {
                        let body = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
                        requests.push(post(&app, &filled, media_type, body));
                    }
                }
            }
        }
        assert!(!requests.is_empty(), "{method} {path}");
        for request in requests {
            let response = request.send().await.unwrap();
            assert!(
                success.contains(&&response.status().as_str().to_owned()),
                "{method} {path}: {}",
                response.status()
            );
            document.check_response(&method, path, response).await;
        }
    }
    assert!(was_recorded);
}

#[tokio::test]
async fn openapi_examples_of_csv_have_the_columns_of_the_answers() {
    let (_redis, app, document) = app().await;
    let mut checked = 0;
    for (path, method, operation) in document.operations() {
        let content = &operation["responses"]["200"]["content"]["text/csv"];
        if content.is_null() {
            continue;
        }
        let filled = example_path(path, operation).replace("format=json", "format=csv");
        let response = app.get(&filled).await;
        let served = response.text().await.unwrap();
        let columns = |text: &str| text.split_once("\r\n").unwrap().0.to_owned();
        let (_, example) = examples_of(content)[0];
        assert_eq!(columns(example.as_str().unwrap()), columns(&served), "{method} {path}");
        document.check_response(&method, path, app.get(&filled).await).await;
        checked += 1;
    }
    assert_eq!(checked, 8);
}

#[tokio::test]
async fn openapi_has_the_responses_about_samples() {
    let redis = Redis::start();
    let max_members = MaxMembers::parse("1024").unwrap();
    redis.store().with_max_members(Some(max_members)).layout().await.unwrap();
    let app = TestApp::spawn(&redis).await;
    let document = Document::of(&app).await;
    let mut users = (0..100).map(|n| format!("u{n}"));
    for user in users.clone() {
        app.record(&user, "sports").await;
        app.record(&user, "news").await;
    }
    redis.call::<()>(&["HSET", "depths", "sports", "1"]);
    let left_out = users.find(|user| Level::of(user).number() == 0).unwrap();
    for (path, filled) in [
        ("/segments/{name}/count", "/segments/sports/count".to_owned()),
        ("/segments/{name}", "/segments/sports".to_owned()),
        ("/segments/{name}/histogram", "/segments/sports/histogram".to_owned()),
        // With a link to the next page.
        ("/segments", "/segments?limit=1".to_owned()),
        ("/counts", "/counts?segment=sports&segment=news".to_owned()),
        ("/overlap", "/overlap?segment=sports&segment=news".to_owned()),
        ("/audience/count", "/audience/count?all=sports".to_owned()),
        ("/segments/{name}/users/{user_id}", format!("/segments/sports/users/{left_out}")),
        ("/users/{user_id}/segments", format!("/users/{left_out}/segments")),
        ("/segments/{name}/users", "/segments/sports/users".to_owned()),
        ("/segments/{name}/users", "/segments/sports/users?sample=true".to_owned()),
    ] {
        let response = app.get(&filled).await;
        let is_refused = filled == "/segments/sports/users";
        assert_eq!(response.status(), if is_refused { 422 } else { 200 }, "{filled}");
        document.check_response("GET", path, response).await;
    }
}

#[tokio::test]
async fn openapi_has_the_responses_of_failed_requests() {
    let (mut redis, app, document) = app().await;
    let (json, lines) = ("application/json", "application/x-ndjson");
    let visit = r#"{"user_id":"u1","segment":"sports"}"#;
    let array = |visits| format!("[{}]", vec![visit; visits].join(","));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(format!("{visit}\n").repeat(20_000).as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();

    for (status, path, content_type, body) in [
        (400, "/segments", json, "user_id=u1".to_owned()),
        (413, "/segments", json, " ".repeat(17 * 1024)),
        (415, "/segments", "text/plain", visit.to_owned()),
        (422, "/segments", json, "{}".to_owned()),
        (422, "/segments", json, "[]".to_owned()),
        (400, "/segments/batch", json, String::new()),
        (413, "/segments/batch", json, array(1_001)),
        (415, "/segments/batch", "text/plain", array(1)),
        (422, "/segments/batch", json, visit.to_owned()),
        (422, "/segments/batch", json, "[{}]".to_owned()),
        (422, "/segments/batch", lines, "{}\nx\n".to_owned()),
    ] {
        let response = post(&app, path, content_type, body).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        document.check_response("POST", path, response).await;
    }
    let broken =
        post(&app, "/segments/batch", lines, gzip[..gzip.len() / 2].to_vec()).header("content-encoding", "gzip");
    let report = document.check_response("POST", "/segments/batch", broken.send().await.unwrap()).await;
    assert!(report["done_through_line"].is_u64(), "{report}");
    for path in ["/segments//count", "/segments/sports/count?window=1y"] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 422);
        document.check_response("GET", "/segments/{name}/count", response).await;
    }
    let response = app.get("/segments/sports/history?step=0s").await;
    assert_eq!(response.status(), 422);
    document.check_response("GET", "/segments/{name}/history", response).await;
    for (status, path, route) in [
        (404, "/docs/nothing", "/docs/{file}"),
        (404, "/pages/nothing", "/pages/{file}"),
        (422, "/overlap?segment=sports", "/overlap"),
        (422, "/audience/count?none=sports", "/audience/count"),
        (422, "/segments?limit=0", "/segments"),
        (422, "/counts", "/counts"),
        (422, "/segments/sports/histogram?buckets=0", "/segments/{name}/histogram"),
        (422, "/segments/sports/users?from=u1", "/segments/{name}/users"),
        (422, "/segments/sports/users/%20u", "/segments/{name}/users/{user_id}"),
        (422, "/users/%20u/segments", "/users/{user_id}/segments"),
        (422, "/?sort=size", "/"),
        (422, "/pages/segment", "/pages/segment"),
    ] {
        let response = app.get(path).await;
        assert_eq!(response.status(), status);
        document.check_response("GET", route, response).await;
    }

    redis.stop();
    for (method, path) in [
        ("POST", "/segments"),
        ("POST", "/segments/batch"),
        ("GET", "/segments/{name}/count"),
        ("GET", "/segments/{name}/histogram"),
        ("GET", "/segments/{name}/history"),
        ("GET", "/overlap"),
        ("GET", "/audience/count"),
        ("GET", "/segments"),
        ("GET", "/counts"),
        ("GET", "/segments/{name}/users"),
        ("GET", "/segments/{name}/users/{user_id}"),
        ("GET", "/users/{user_id}/segments"),
        ("DELETE", "/users/{user_id}"),
        ("DELETE", "/segments/{name}"),
        ("DELETE", "/segments/{name}/users/{user_id}"),
        ("GET", "/readyz"),
        ("GET", "/"),
    ] {
        let filled = example_path(path, document.operation(method, path));
        let body = if path.ends_with("batch") { array(1) } else { visit.to_owned() };
        let response = app.request(method, &filled).header("content-type", json).body(body).send().await.unwrap();
        assert_eq!(response.status(), 503);
        document.check_response(method, path, response).await;
    }
}

#[tokio::test]
async fn openapi_has_the_responses_of_timeouts_and_shutdown() {
    let redis = Redis::start();
    let settings = settings([("body_timeout", "200ms"), ("drain_timeout", "1s"), ("shutdown_delay", "1s")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let document = Document::of(&app).await;
    let schema = |path: &str, status: &str| {
        let response = document.resolved(&document.operation("POST", path)["responses"][status]);
        response["content"]["application/problem+json"]["schema"].clone()
    };
    let (status, late) = Upload::begin(app.address).await.answer().await;
    assert_eq!(status, 408);
    document.check("a late batch", &schema("/segments/batch", "408"), &late);

    let mut stream = std::net::TcpStream::connect(app.address).unwrap();
    let head = "POST /segments HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
                content-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let late = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    document.check("a late visit", &schema("/segments", "408"), &late);

    app.begin_stop();
    eventually("readyz is 503", async || app.status_of("/readyz").await == 503).await;
    document.check_response("GET", "/readyz", app.get("/readyz").await).await;
}
