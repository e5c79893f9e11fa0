//! Answers as CSV, for spreadsheets.

use std::collections::HashMap;
use std::panic::Location;
use std::time::Duration;

use csv::{Reader, ReaderBuilder};
use reqwest::{Response, Url};
use rstest::rstest;
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::store::{NamedSample, Sample};
use serde_json::{Value, json};

use super::api_keys::{Keys, make_key};
use super::segments::record_sizes;
use crate::helpers::{Redis, TestApp, encoded, problem, segment};

/// The rows of a CSV answer, by the names of their columns.
struct Rows {
    columns: Vec<String>,
    rows: Vec<HashMap<String, String>>,
}

impl Rows {
    /// Reads a response. Panics with the caller's location unless it is CSV by RFC 4180.
    #[track_caller]
    fn of(response: Response) -> impl Future<Output = Self> {
        let caller = Location::caller();
        assert_eq!(response.status(), 200, "{caller}");
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/csv; charset=utf-8; header=present", "{caller}");
        assert_eq!(
            (&headers["cache-control"], &headers["vary"]),
            (&"no-store".parse().unwrap(), &"accept".parse().unwrap())
        );
        async move {
            let text = response.text().await.unwrap();
            assert!(text.ends_with("\r\n"), "{caller}: {text}");
            assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "{caller}: {text}");
            let mut reader = Reader::from_reader(text.as_bytes());
            let columns = reader.headers().unwrap().iter().map(str::to_owned).collect();
            Self { columns, rows: reader.deserialize().map(|row| row.unwrap()).collect() }
        }
    }

    /// Returns the cells of a column.
    fn column(&self, name: &str) -> Vec<&str> {
        assert!(self.columns.iter().any(|column| column == name), "{name}: {:?}", self.columns);
        self.rows.iter().map(|row| row[name].as_str()).collect()
    }
}

async fn ask(app: &TestApp, path: &str, accept: &str) -> Response {
    app.request("GET", path).header("accept", accept).send().await.unwrap()
}

async fn rows(app: &TestApp, path: &str) -> Rows {
    Rows::of(ask(app, path, "text/csv").await).await
}

async fn json_of(app: &TestApp, path: &str) -> Value {
    let response = app.get(path).await;
    assert_eq!(response.headers()["content-type"], "application/json");
    response.json().await.unwrap()
}

/// Returns a JSON value as the text of a cell.
fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

const ROUTES: [(&str, &str); 7] = [
    ("/segments", "segments"),
    ("/counts?segment=sports", "counts"),
    ("/segments/sports/histogram", "histogram-sports"),
    ("/segments/sports/history", "history-sports"),
    ("/history?segment=sports", "histories"),
    ("/overlap?segment=sports&segment=news", "overlap"),
    ("/audience/count?all=sports", "audience"),
];

#[tokio::test]
async fn each_route_answers_csv_or_json_with_the_same_status() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("sports", 3), ("news", 1)]).await;
    for (path, name) in ROUTES {
        let response = ask(&app, path, "text/csv").await;
        let today = &Timestamp::now().to_string()[..10];
        let expected = format!("attachment; filename=\"{name}-{today}.csv\"");
        assert_eq!(response.headers()["content-disposition"], expected, "{path}");
        let table = Rows::of(response).await;
        assert_eq!(table.columns.last().unwrap(), "as_of", "{path}");
        let year = &today[..4];
        assert!(!table.rows.is_empty() && table.column("as_of").iter().all(|at| at.starts_with(year)), "{path}");

        let json = app.get(path).await;
        assert_eq!(
            (&json.headers()["vary"], json.headers().get("content-disposition")),
            (&"accept".parse().unwrap(), None)
        );
        assert_eq!(json.headers()["content-type"], "application/json", "{path}");
        let separator = if path.contains('?') { '&' } else { '?' };
        for (query, accept, media_type) in
            [("format=csv", "application/json", "text/csv"), ("format=json", "text/csv", "application/json")]
        {
            let response = ask(&app, &format!("{path}{separator}{query}"), accept).await;
            assert!(response.headers()["content-type"].to_str().unwrap().starts_with(media_type), "{path}");
        }
        for (query, why) in
            [("format=xml", "must be json or csv"), ("format=csv&format=csv", "is given more than once")]
        {
            let refused = problem(app.get(&format!("{path}{separator}{query}")).await, 422, "invalid-request").await;
            assert_eq!(refused["errors"], json!([{ "field": "format", "detail": why }]), "{path}");
        }
        let head = app.request("HEAD", path).header("accept", "text/csv").send().await.unwrap();
        assert_eq!((head.status().as_u16(), &head.headers()["content-disposition"]), (200, &expected.parse().unwrap()));
        assert!(head.text().await.unwrap().is_empty(), "{path}");
    }
    // Other routes have one format.
    assert_eq!(app.status_of("/segments/sports/count?format=csv").await, 422);
}

#[rstest]
#[case::csv("text/csv", true)]
#[case::csv_before_json("application/json;q=0.9, text/csv", true)]
#[case::csv_and_anything("text/csv, */*;q=0.1", true)]
#[case::anything("*/*", false)]
#[case::json_before_csv("application/json, text/csv;q=0.9", false)]
#[case::browser("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false)]
#[case::neither("image/png", false)]
#[tokio::test]
async fn accept_chooses_the_format(#[case] accept: &str, #[case] is_csv: bool) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let response = ask(&app, "/segments", accept).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"].to_str().unwrap().starts_with("text/csv"), is_csv);
}

#[tokio::test]
async fn list_and_counts_have_changes_as_numbers_and_nulls_as_empty_cells() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("news", 1), ("sports", 3)]).await;
    redis.call::<()>(&["ZADD", "segments", "0", "theirs"]);
    redis.call::<()>(&["SET", "segment:theirs", "x"]);
    let (store, now) = (redis.store(), Timestamp::now());
    let samples: Vec<_> = [(86_400, 4), (0, 3)]
        .map(|(seconds, count)| NamedSample {
            segment: segment("sports").into_owned(),
            sample: Sample { at: now - Duration::from_secs(seconds), count: count.into() },
        })
        .into();
    store.add_samples(&samples).await.unwrap();
    store.update_changes(&[(&segment("sports"), now)], Window::parse("14d").unwrap()).await.unwrap();

    let columns = "segment,known,count,exact,error_95,error,change_1d_absolute,change_1d_absolute_error_95,change_1d_relative,\
                   change_1d_from,change_1d_to,change_7d_absolute,change_7d_absolute_error_95,change_7d_relative,\
                   change_7d_from,change_7d_to,window_seconds,as_of";
    let list = rows(&app, "/segments").await;
    assert_eq!(list.columns.join(","), columns);
    assert_eq!(list.column("segment"), ["news", "sports", "theirs"]);
    assert_eq!(list.column("known"), ["true", "true", "true"]);
    assert_eq!(list.column("count"), ["1", "3", ""]);
    assert_eq!(list.column("change_1d_absolute"), ["", "-1", ""]);
    assert_eq!(list.column("change_1d_relative"), ["", "-0.25", ""]);
    assert_eq!(list.column("change_7d_to"), ["", "", ""]);
    assert_eq!(list.column("window_seconds"), ["1209600"; 3]);
    let json = json_of(&app, "/segments").await;
    let errors = json["segments"].as_array().unwrap().iter().map(|counted| cell(&counted["error"]));
    assert_eq!(list.column("error"), errors.collect::<Vec<_>>());
    assert_eq!(list.column("change_1d_from")[1], json["segments"][1]["change_1d"]["from"]);

    let counts = rows(&app, "/counts?segment=nwes&segment=sports&window=7d").await;
    assert_eq!(counts.columns.join(","), columns);
    assert_eq!(counts.column("segment"), ["nwes", "sports"]);
    assert_eq!(counts.column("known"), ["false", "true"]);
    assert_eq!(counts.column("count"), ["0", "3"]);
    assert_eq!(counts.column("window_seconds"), ["604800"; 2]);
}

#[tokio::test]
async fn histogram_has_a_row_for_each_bucket() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("sports", 3)]).await;
    let table = rows(&app, "/segments/sports/histogram?buckets=2&window=2d").await;
    let columns = [
        "segment",
        "known",
        "from",
        "to",
        "leave_from",
        "leave_to",
        "count",
        "exact",
        "error_95",
        "window_seconds",
        "as_of",
    ];
    assert_eq!(table.columns, columns);
    assert_eq!(table.column("count"), ["0", "3"]);
    assert_eq!(table.column("segment"), ["sports", "sports"]);
    assert_eq!(table.column("to")[0], table.column("from")[1]);
    assert_eq!(table.column("to")[1], table.column("as_of")[1]);
    assert_eq!(table.column("leave_from")[0], table.column("as_of")[0]);
}

#[tokio::test]
async fn histories_have_a_row_for_each_point_and_empty_cells_in_gaps() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    redis.record_data_set();
    // Noon on 2026-11-22.
    redis.call::<()>(&["RPUSH", "history:sports", "1795348800000", "4"]);
    redis.call::<()>(&["SET", "history:theirs", "x"]);
    let range = "from=2026-11-22&to=2026-11-23&step=12h";
    let points = json_of(&app, &format!("/segments/sports/history?{range}")).await["points"].clone();
    let one = rows(&app, &format!("/segments/sports/history?{range}")).await;
    assert_eq!(one.columns, ["segment", "known", "from", "to", "sampled_at", "count", "exact", "error_95", "as_of"]);
    assert_eq!(one.column("count"), ["", "4", ""]);
    for column in ["from", "to", "sampled_at", "count"] {
        let expected: Vec<_> = points.as_array().unwrap().iter().map(|point| cell(&point[column])).collect();
        assert_eq!(one.column(column), expected, "{column}");
    }
    let all = rows(&app, &format!("/history?segment=sports&segment=theirs&segment=nwes&{range}")).await;
    assert_eq!(
        all.columns,
        ["segment", "known", "from", "to", "sampled_at", "count", "exact", "error_95", "error", "as_of"]
    );
    assert_eq!(all.column("segment"), ["sports", "sports", "sports", "theirs", "nwes", "nwes", "nwes"]);
    assert_eq!(all.column("known")[2..5], ["true", "false", "false"]);
    assert_eq!(all.column("count"), ["", "4", "", "", "", "", ""]);
    assert_eq!((all.column("from")[3], all.column("error")[3].is_empty()), ("", false));
    assert_eq!(all.column("from")[..3], one.column("from"));
}

#[tokio::test]
async fn overlap_has_a_row_for_each_region_from_which_pairs_can_be_added_up() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("a", 6), ("b", 4), ("count", 2)]).await;
    app.record("u9", "b").await;
    let path = "/overlap?segment=a&segment=b&segment=count&window=7d";
    let table = rows(&app, path).await;
    assert_eq!(
        table.columns,
        ["in:a", "in:b", "in:count", "segments", "count", "exact", "error_95", "unknown", "window_seconds", "as_of"]
    );
    assert_eq!(table.column("unknown"), ["[]"; 4]);
    let regions: Vec<_> = table
        .rows
        .iter()
        .map(|row| ["in:a", "in:b", "in:count", "segments", "count"].map(|column| row[column].parse::<u64>().unwrap()))
        .collect();
    assert_eq!(regions, [[1, 0, 0, 1, 2], [1, 1, 0, 2, 2], [1, 1, 1, 3, 2], [0, 1, 0, 1, 1]]);
    let json = json_of(&app, path).await;
    for pair in json["pairs"].as_array().unwrap() {
        let columns = [0, 1].map(|at| format!("in:{}", pair["segments"][at].as_str().unwrap()));
        let both = table.rows.iter().filter(|row| columns.iter().all(|column| row[column] == "1"));
        assert_eq!(both.map(|row| row["count"].parse::<u64>().unwrap()).sum::<u64>(), pair["count"]);
    }
    let empty = ask(&app, "/overlap?segment=x&segment=y", "text/csv").await.text().await.unwrap();
    assert_eq!(empty, "in:x,in:y,segments,count,exact,error_95,unknown,window_seconds,as_of\r\n");
    // An empty segment is known.
    redis.call::<()>(&["ZADD", "segments", "0", "empty"]);
    let misspelled = rows(&app, "/overlap?segment=a&segment=b%22&segment=empty&segment=%3Dx").await;
    assert_eq!(misspelled.column("unknown"), [r#"["b\"","=x"]"#]);
}

#[tokio::test]
async fn audience_is_one_row_with_lists_of_names() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("a", 6), ("b,\"c\"", 4)]).await;
    let table = rows(&app, "/audience/count?all=a&any=b,%22c%22&any=%3Dx").await;
    assert_eq!(
        table.columns,
        ["all", "any", "none", "count", "exact", "error_95", "unknown", "window_seconds", "as_of"]
    );
    let lists = ["all", "any", "none"].map(|list| serde_json::from_str::<Value>(table.column(list)[0]).unwrap());
    assert_eq!(lists, [json!(["a"]), json!(["b,\"c\"", "=x"]), json!([])]);
    assert_eq!((table.column("count"), table.column("unknown")), (vec!["4"], vec![r#"["=x"]"#]));
    redis.call::<()>(&["ZADD", "segments", "0", "empty"]);
    for (query, unknown) in [("all=a&none=c", r#"["c"]"#), ("all=a&none=empty", "[]")] {
        let table = rows(&app, &format!("/audience/count?{query}")).await;
        assert_eq!((table.column("count"), table.column("unknown")), (vec!["6"], vec![unknown]), "{query}");
    }
}

#[tokio::test]
async fn names_are_quoted_and_formulas_are_disarmed() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    // The name, and its cell.
    let names = [
        ("\"quoted\", with a comma", "\"quoted\", with a comma"),
        ("'single", "''single"),
        ("+1", "'+1"),
        ("-5+3", "'-5+3"),
        ("=SUM(A1:A9)", "'=SUM(A1:A9)"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("a;=1+1", "a;'=1+1"),
        ("größe 😀", "größe 😀"),
        ("two\u{2028}lines", "two\u{2028}lines"),
        ("\u{ff1d}1", "'\u{ff1d}1"),
    ];
    record_sizes(&app, &names.map(|(name, _)| (name, 1))).await;
    let list = rows(&app, "/segments").await;
    assert_eq!(list.column("segment"), names.map(|(_, cell)| cell));
    for (name, cell) in names {
        let encoded = encoded(name);
        for path in ["histogram?buckets=1", "history?from=-1h"] {
            let response = ask(&app, &format!("/segments/{encoded}/{path}"), "text/csv").await;
            let safe = name.replace(|char: char| !char.is_ascii_alphanumeric() && char != '-', "_");
            let file = response.headers()["content-disposition"].to_str().unwrap();
            assert!(file.contains(&format!("-{safe}-2")) && !file.contains("=S"), "{name}: {file}");
            let table = Rows::of(response).await;
            assert_eq!(table.column("segment")[0], cell, "{path}");
        }
        for path in [format!("/counts?segment={encoded}"), format!("/history?segment={encoded}")] {
            assert_eq!(rows(&app, &path).await.column("segment")[0], cell, "{path}");
        }
        let overlap = rows(&app, &format!("/overlap?segment={encoded}&segment=x")).await;
        assert_eq!(overlap.columns[0].trim_start_matches("in:"), cell.strip_prefix('\'').unwrap_or(cell), "{name}");
    }
}

/// Returns the target of a relation in the header `Link`.
fn link(response: &Response, relation: &str) -> Option<Url> {
    let header = response.headers().get("link")?.to_str().unwrap();
    let mut links = header.split(", ").map(|link| link.split_once("; ").unwrap());
    let (target, _) = links.find(|(_, parameter)| *parameter == format!("rel=\"{relation}\""))?;
    let target = target.strip_prefix('<').unwrap().strip_suffix('>').unwrap();
    Some(response.url().join(target).unwrap())
}

#[rstest]
#[case::csv_by_name("format=csv&contains=P&window=7d&limit=2", "")]
#[case::csv_by_count("sort=count&prefix=sp&limit=3&format=csv", "")]
#[case::csv_by_accept("limit=2&prefix=sp", "text/csv")]
#[case::json_by_count("sort=count&contains=P&limit=2", "application/json")]
#[case::json_by_change("limit=4&prefix=sp&sort=-change", "application/json")]
#[tokio::test]
async fn links_lead_through_all_pages_and_back(#[case] query: &str, #[case] accept: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let names: Vec<_> = (0..9).map(|n| format!("sp&{n}")).collect();
    record_sizes(&app, &names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>()).await;
    record_sizes(&app, &[("other", 1)]).await;
    let client = reqwest::Client::new();
    let get = async |url: Url| client.get(url).header("accept", accept).send().await.unwrap();
    let names_of = async |response: Response| -> Vec<String> {
        if response.headers()["content-type"] == "application/json" {
            let list: Value = response.json().await.unwrap();
            return list["segments"].as_array().unwrap().iter().map(|counted| cell(&counted["segment"])).collect();
        }
        Rows::of(response).await.column("segment").into_iter().map(str::to_owned).collect()
    };
    let mut url = Some(Url::parse(&format!("http://{}/segments?{query}", app.address)).unwrap());
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    let mut last = url.clone();
    while let Some(next) = url {
        last = Some(next.clone());
        let response = get(next).await;
        url = link(&response, "next");
        forwards.extend(names_of(response).await);
    }
    assert_eq!(forwards, names);
    while let Some(previous) = last {
        let response = get(previous).await;
        last = link(&response, "prev");
        backwards.splice(..0, names_of(response).await);
    }
    assert_eq!(backwards, names);
}

#[tokio::test]
async fn csv_is_compressed_and_takes_a_password() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let reader = make_key(&keys.path, "analyst", "segments:read");
    let writer = make_key(&keys.path, "uss", "segments:write");
    let app = TestApp::spawn_with(&redis, keys.settings()).await;
    let visits = (0..100).map(|at| json!({ "user_id": "u1", "segment": format!("segment{at}") }));
    let visits = app.request("POST", "/segments/batch").bearer_auth(&writer).json(&visits.collect::<Vec<_>>());
    assert_eq!(visits.send().await.unwrap().status(), 200);

    let list = || app.request("GET", "/segments").header("accept", "text/csv");
    let answer = list().basic_auth("any", Some(&reader)).header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["content-encoding"]), (200, &"gzip".parse().unwrap()));
    let vary: Vec<_> = answer.headers().get_all("vary").into_iter().collect();
    assert_eq!(vary, ["accept", "accept-encoding"]);
    let mut text = String::new();
    let packed = answer.bytes().await.unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(packed.as_ref()), &mut text).unwrap();
    assert_eq!(ReaderBuilder::new().from_reader(text.as_bytes()).records().count(), 100);
    // Errors have the same form for all callers.
    problem(list().send().await.unwrap(), 401, "unauthorized").await;
    problem(list().basic_auth("any", Some("wrong")).send().await.unwrap(), 401, "unauthorized").await;
    problem(list().basic_auth("any", Some(&writer)).send().await.unwrap(), 403, "insufficient-scope").await;
    let invalid = app.request("GET", "/segments?limit=0&format=csv").basic_auth("any", Some(&reader));
    problem(invalid.send().await.unwrap(), 422, "invalid-request").await;
}

#[tokio::test]
async fn csv_asks_for_a_password() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let writer = make_key(&keys.path, "uss", "segments:write");
    let app = TestApp::spawn_with(&redis, keys.settings()).await;
    let scheme = async |path: &str, accept: &str, key: Option<&str>| {
        let request = app.request("GET", path).header("accept", accept);
        let request = if let Some(key) = key { request.bearer_auth(key) } else { request };
        let challenge = request.send().await.unwrap().headers()["www-authenticate"].to_str().unwrap().to_owned();
        challenge.split(' ').next().unwrap().to_owned()
    };
    for (path, _) in ROUTES {
        let separator = if path.contains('?') { '&' } else { '?' };
        let by_parameter = format!("{path}{separator}format=csv");
        for (path, accept) in [(path, "text/csv"), (&by_parameter, "*/*"), (&by_parameter, "application/json")] {
            assert_eq!(scheme(path, accept, None).await, "Basic", "{path}: {accept}");
            assert_eq!(scheme(path, accept, Some("sek_guessed")).await, "Basic", "{path}: {accept}");
            // Another password doesn't add a scope.
            assert_eq!(scheme(path, accept, Some(&writer)).await, "Bearer", "{path}: {accept}");
        }
        for (path, accept) in [(path.to_owned(), "*/*"), (format!("{path}{separator}format=json"), "text/csv")] {
            assert_eq!(scheme(&path, accept, None).await, "Bearer", "{path}: {accept}");
        }
    }
    // Passwords are for reading segments.
    assert_eq!(scheme("/users/u1/segments?format=csv", "text/csv", None).await, "Bearer");
}

#[tokio::test]
async fn csv_is_a_problem_without_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    redis.stop();
    problem(ask(&app, "/segments?format=csv", "text/csv").await, 503, "store-unavailable").await;
}
