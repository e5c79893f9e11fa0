//! The pages: they show what the API returns, to callers with the scope.

use std::panic::Location;

use reqwest::Response;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use super::api_keys::make_key;
use crate::helpers::{Redis, TestApp, encoded, eventually, problem, settings};

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

/// Asserts that `response` is a page of this status whose policy and links allow no other host, and returns it.
#[track_caller]
fn page(response: Response, status: u16) -> impl Future<Output = String> {
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (status, "text/html; charset=utf-8"));
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(response.headers().contains_key("retry-after"), status == 503 || status == 429);
    let policy = header(&response, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    for directive in policy.split("; ") {
        assert!(directive.ends_with(" 'none'") || directive.ends_with(" 'self'"), "{directive}");
    }
    let (caller, id) = (Location::caller(), header(&response, "x-request-id").to_owned());
    async move {
        let page = response.text().await.unwrap();
        assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{caller}: {page}");
        for link in page.split([' ', '<']).filter_map(|part| part.strip_prefix("href=").or(part.strip_prefix("src="))) {
            assert!(!link.contains("//"), "{caller}: another host: {link}");
        }
        for inline in [" style=", "<style", " onclick=", "javascript:"] {
            assert!(!page.contains(inline), "{caller}: the policy forbids {inline}");
        }
        assert_eq!(page.matches("<h1>").count(), 1, "{caller}: {page}");
        assert_eq!(page.contains("id=\"error\""), status != 200, "{caller}: {page}");
        assert!(status == 200 || page.contains(&id), "{caller}: the request's id is not on the page: {page}");
        page
    }
}

#[tokio::test]
async fn page_files_come_from_the_service_alone() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (file, content_type) in [
        ("style.css", "text/css"),
        ("pages.js", "text/javascript"),
        ("back.js", "text/javascript"),
        ("charts.js", "text/javascript"),
        ("refresh.js", "text/javascript"),
        ("selection.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let response = app.get(&format!("/pages/{file}")).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, content_type));
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "cache-control"), "no-cache");
        let tag = header(&response, "etag").to_owned();
        let known = app.request("GET", &format!("/pages/{file}")).header("if-none-match", tag).send().await.unwrap();
        assert_eq!((known.status().as_u16(), known.content_length()), (304, Some(0)), "{file}");
        let text = response.text().await.unwrap();
        assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("://"), "{file} names another host");
    }
    let missing = page(app.get("/pages/nothing").await, 404).await;
    assert!(missing.contains("Page not found") && missing.contains("href=\"../\""), "{missing}");
    // A client that posts is a program, so it gets a problem document.
    let wrong = app.request("POST", "/pages/style.css").send().await.unwrap();
    assert_eq!(header(&wrong, "allow"), "GET,HEAD");
    problem(wrong, 405, "method-not-allowed").await;
}

/// Returns the text of the first element that begins with `opening`, up to the next `<`.
fn text<'a>(page: &'a str, opening: &str) -> &'a str {
    let behind = page.split_once(opening).unwrap_or_else(|| panic!("no {opening} in {page}")).1;
    behind.split('>').nth(1).unwrap().split('<').next().unwrap()
}

/// Returns the names and counts that a list page shows.
fn rows(page: &str) -> Vec<(&str, &str)> {
    let rows = page.split("<th class=\"name\" scope=\"row\"").skip(1);
    rows.map(|row| (text(row, "<bdi"), text(row, "<td class=\"number\""))).collect()
}

#[tokio::test]
async fn list_page_shows_a_curl_that_creates_the_first_segment() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let empty = page(app.get("/").await, 200).await;
    assert!(empty.contains("No segments yet") && !empty.contains("<table"), "{empty}");
    let curl = text(&empty, "<pre").to_owned() + text(empty.split_once("<pre").unwrap().1, "<code");
    let address = format!("curl -i -X POST 'http://{}/segments'", app.address);
    assert!(curl.starts_with(&address), "{curl}");
    let body = curl.split("-d '").nth(1).unwrap().trim_end_matches('\'').replace("&quot;", "\"");
    app.request("POST", "/segments").header("content-type", "application/json").body(body).send().await.unwrap();
    let one = page(app.get("/").await, 200).await;
    assert_eq!(rows(&one), [("sports", "1")]);
}

#[tokio::test]
async fn list_page_has_the_counts_of_the_api_in_the_chosen_order() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (segment, users) in [("sports", 3), ("news", 1), ("spa", 2)] {
        for user in 0..users {
            app.record(&format!("u{user}"), segment).await;
        }
    }
    assert_eq!(rows(&page(app.get("/").await, 200).await), [("sports", "3"), ("spa", "2"), ("news", "1")]);
    let by_name = page(app.get("/?sort=name").await, 200).await;
    assert_eq!(rows(&by_name), [("news", "1"), ("spa", "2"), ("sports", "3")]);
    assert_eq!(by_name.matches("aria-sort").count(), 1);
    assert_eq!(rows(&page(app.get("/?prefix=sp").await, 200).await), [("sports", "3"), ("spa", "2")]);
    let found = page(app.get("/?contains=PO").await, 200).await;
    assert!(rows(&found) == [("sports", "3")] && found.contains("1 segment containing “<bdi>PO</bdi>”"), "{found}");
    // The bar of a segment compares with the largest of all.
    let found = page(app.get("/?contains=news").await, 200).await;
    assert!(found.contains("class=\"fill\" width=\"33.333%\""), "{found}");
    let none = page(app.get("/?prefix=x").await, 200).await;
    assert!(none.contains("starts with “<bdi>x</bdi>”") && rows(&none).is_empty(), "{none}");
    let long = format!("/?contains={}", "x".repeat(129));
    for wrong in ["/?sort=size", "/?cursor=x", "/?prefix=a&prefix=b", &long] {
        let error = page(app.get(wrong).await, 422).await;
        assert!(rows(&error).is_empty() && !error.contains("data-refresh"), "{error}");
    }
}

#[tokio::test]
async fn list_page_shows_each_segment_of_a_long_list_once() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let visits: String = (0..230)
        .flat_map(|at| (0..=at % 3).map(move |user| format!("{{\"user_id\":\"u{user}\",\"segment\":\"s&{at:03}\"}}\n")))
        .collect();
    assert_eq!(app.post_lines(visits).await.status(), 200);
    for sort in ["count", "name"] {
        let (mut path, mut names, mut counts) = (format!("/?sort={sort}"), Vec::new(), Vec::new());
        loop {
            let page = page(app.get(&path).await, 200).await;
            let shown = rows(&page);
            assert!(shown.len() == 100 || shown.len() == 30, "{}", shown.len());
            names.extend(shown.iter().map(|(name, _)| (*name).to_owned()));
            counts.extend(shown.iter().map(|(_, count)| count.parse::<u64>().unwrap()));
            let Some(next) = page.split("rel=\"next\" href=\".").nth(1) else { break };
            path = next.split('"').next().unwrap().replace("&amp;", "&");
        }
        let order_of_names = names.is_sorted();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 230, "{sort}");
        assert_eq!(order_of_names, sort == "name");
        assert!(sort == "name" || counts.is_sorted_by(|one, next| one >= next), "{counts:?}");
    }
}

#[tokio::test]
async fn segment_page_has_the_count_of_the_api_and_bars_that_add_up_to_it() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let now = chrono::Utc::now().timestamp();
    let visits: String = (0..200)
        .map(|user| format!("{{\"user_id\":\"u{user}\",\"segment\":\"a/b\",\"seen_at\":{}}}\n", now - user * 7_000))
        .collect();
    assert_eq!(app.post_lines(visits).await.status(), 200);
    let count = app.count("a/b").await;
    let shown = page(app.get("/pages/segment?name=a%2Fb").await, 200).await;
    assert_eq!(text(&shown, "id=\"count\""), count.to_string());
    let users = |page: &str| -> Vec<u64> {
        let titles = page.split("<title>Last seen ").skip(1);
        titles.map(|title| title.split(" UTC: ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()).collect()
    };
    let bars = users(&shown);
    assert_eq!((bars.len(), bars.iter().sum::<u64>()), (14, count));
    assert!(bars.iter().all(|bar| (11..=13).contains(bar)), "{bars:?}");
    let day = page(app.get("/pages/segment?name=a%2Fb&window=1d").await, 200).await;
    assert_eq!(text(&day, "id=\"count\""), users(&day).iter().sum::<u64>().to_string());
    assert_eq!((users(&day).len(), users(&day).iter().sum::<u64>()), (12, 13));
    for wrong in ["", "?name=", "?name=%20a", "?name=a&window=15d", "?name=a&days=2", "?nam=a"] {
        page(app.get(&format!("/pages/segment{wrong}")).await, 422).await;
    }
    let earlier = format!("{{\"user_id\":\"u1\",\"segment\":\"c\",\"seen_at\":{}}}\n", now - 7_200);
    assert_eq!(app.post_lines(earlier).await.status(), 200);
    let hour = page(app.get("/pages/segment?name=c&window=1h").await, 200).await;
    assert!(hour.contains("No user was seen in the last hour") && !hour.contains("No users in this segment"), "{hour}");
    assert!([&day, &hour].iter().all(|page| page.contains("Users drop out 14 days")), "for each window");
    let nobody = page(app.get("/pages/segment?name=nobody").await, 200).await;
    assert!(nobody.contains("No segment called “<bdi>nobody</bdi>”") && !nobody.contains("id=\"count\""), "{nobody}");
    let typo = page(app.get("/pages/segment?name=aa%2Fb").await, 200).await;
    assert!(typo.contains("Did you mean <a href=\"segment?name=a%2Fb\">"), "{typo}");
    // The oldest users were seen 13.5 days ago, and one each 7,000 seconds.
    let leaving: u64 = text(&shown, "id=\"trend\"").split(' ').nth(1).unwrap().parse().unwrap();
    assert!((11..=13).contains(&leaving), "{leaving}");
    assert!(shown.contains(&format!("<title>{count} · a/b – ")), "{shown}");
}

#[tokio::test]
async fn page_escapes_a_hostile_name() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let name = "\"'><script>alert(1)</script><!--&amp;{{}}";
    app.record("u1", name).await;
    let query = encoded(name);
    for path in [
        "/".to_owned(),
        format!("/?prefix={query}"),
        format!("/pages/segment?name={query}"),
        format!("/pages/overlap?segment={query}&segment=a"),
        format!("/pages/audience?any={query}&none=a"),
    ] {
        let page = page(app.get(&path).await, 200).await;
        assert_eq!(page.matches("<script").count(), 1, "only the script of the page: {page}");
        assert!(!page.contains("<!--") && page.contains("&lt;script&gt;alert(1)"), "{page}");
    }
    let invalid = page(app.get(&format!("/pages/overlap?segment=a&segment=%07{query}")).await, 422).await;
    assert_eq!(invalid.matches("<script").count(), 1, "{invalid}");
    let unknown = page(app.get(&format!("/pages/segment?name=a&{query}=1")).await, 200).await;
    assert_eq!(unknown.matches("<script").count(), 1, "{unknown}");
}

#[tokio::test]
async fn page_shows_invisible_characters_of_a_name_as_escapes_and_links_the_name() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (name, shown) in [
        ("news\u{202e}stropS", "news\\u{202E}stropS"),
        ("spo\u{200b}rts", "spo\\u{200B}rts"),
        ("sports\u{2066}", "sports\\u{2066}"),
        ("sports\u{200d}", "sports\\u{200D}"),
    ] {
        app.record("u1", name).await;
        let query = encoded(name);
        let link = segment_link(name);
        for path in [
            format!("/?prefix={query}"),
            format!("/pages/segment?name={query}"),
            format!("/pages/overlap?segment={query}&segment=a"),
            format!("/pages/audience?any={query}&none=a"),
        ] {
            let page = page(app.get(&path).await, 200).await;
            assert!(page.contains(&format!("<bdi>{shown}</bdi>")), "{path}: {page}");
            // Form fields have the name itself.
            let elsewhere = page.replace(&format!("value=\"{name}\""), "");
            assert!(!elsewhere.contains(name), "{path}: {elsewhere}");
            assert!(path.contains("pages/segment?") || page.contains(&link), "{path}: {page}");
        }
        let nine = format!("segment={query}&").repeat(9);
        let refused = page(app.get(&format!("/pages/overlap?{nine}")).await, 422).await;
        let refused = refused.replace(&format!("value=\"{name}\""), "");
        assert!(refused.contains(&format!("“{shown}”")) && !refused.contains(name), "{refused}");
        app.request("DELETE", "/users/u1").send().await.unwrap();
    }
}

/// Returns the end of a link to the page of a segment.
fn segment_link(name: &str) -> String {
    let encoded: String = name
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("segment?name={encoded}\"")
}

#[tokio::test]
async fn page_without_redis_says_so_and_shows_no_numbers() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let paths = [
        "/",
        "/pages/segment?name=sports",
        "/pages/overlap",
        "/pages/overlap?segment=sports&segment=news",
        "/pages/audience",
        "/pages/audience?all=sports&none=news",
    ];
    redis.stop();
    for path in paths {
        let away = page(app.get(path).await, 503).await;
        assert!(away.contains("Counts are unavailable right now"), "{away}");
        assert!(!away.contains("as-of") && !away.contains("<table") && !away.contains("<svg"), "{away}");
        assert!(away.contains("data-refresh"), "{away}");
        assert_eq!(away.contains("value=\"news\""), path.contains("news"), "a form keeps the segments: {away}");
    }
    redis.start_again();
    eventually("the list page is 200 again", async || app.status_of("/").await == 200).await;
    assert_eq!(rows(&page(app.get("/").await, 200).await), [("sports", "1")]);
}

#[tokio::test]
async fn page_takes_a_token_as_the_password_and_the_api_does_not() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let keys = folder.path().join("keys.toml");
    let make = |name: &str, scope: &str| make_key(&keys, name, scope);
    let (reader, writer) = (make("analyst", "segments:read"), make("uss", "segments:write"));
    let eraser = make("privacy", "users:read,users:delete");
    let settings = settings([("api_keys_file", &keys.display().to_string())]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let signed =
        async |path: &str, key: &str| app.request("GET", path).basic_auth("any", Some(key)).send().await.unwrap();
    for path in
        ["/", "/pages/segment?name=sports", "/pages/overlap?segment=sports&segment=news", "/pages/audience?all=sports"]
    {
        for response in [app.get(path).await, signed(path, "sek_guessed").await] {
            let challenge = r#"Basic realm="segment-estimator", charset="UTF-8""#;
            assert_eq!(header(&response, "www-authenticate"), challenge);
            let closed = page(response, 401).await;
            assert!(closed.contains("<h1>Sign in</h1>") && !closed.contains("data-refresh"), "{closed}");
        }
        page(signed(path, &reader).await, 200).await;
        page(app.request("GET", path).bearer_auth(&reader).send().await.unwrap(), 200).await;
        let forbidden = page(signed(path, &writer).await, 403).await;
        assert!(forbidden.contains("doesn’t have the scope") || forbidden.contains("segments:read"), "{forbidden}");
    }
    let empty = page(signed("/", &reader).await, 200).await;
    assert!(empty.contains("-H 'authorization: Bearer TOKEN'"), "the curl has a token: {empty}");
    // The files need no token. The API takes a password for reading, and asks for it only where a link leads to it.
    assert_eq!(app.status_of("/pages/style.css").await, 200);
    for path in ["/segments", "/segments/sports/count", "/overlap?segment=sports&segment=news", "/metrics"] {
        assert_eq!(signed(path, &reader).await.status(), 200, "{path}");
        problem(signed(path, &writer).await, 403, "insufficient-scope").await;
        for response in [app.get(path).await, signed(path, "sek_guessed").await] {
            assert!(header(&response, "www-authenticate").starts_with("Bearer "), "{path}");
            assert_eq!(response.headers().get_all("www-authenticate").iter().count(), 1, "{path}");
            problem(response, 401, "unauthorized").await;
        }
    }
    let follow = async |path: &str| {
        let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        app.request("GET", path).header("accept", accept).send().await.unwrap()
    };
    let followed = follow("/segments/sports/history.svg").await;
    assert!(header(&followed, "www-authenticate").starts_with("Basic "));
    problem(followed, 401, "unauthorized").await;
    let image = app.request("GET", "/segments/sports/history.svg").header("accept", "image/avif,image/webp,*/*;q=0.8");
    assert!(header(&image.send().await.unwrap(), "www-authenticate").starts_with("Bearer "));
    assert!(header(&follow("/users/u1/segments").await, "www-authenticate").starts_with("Bearer "));
    let delete = app.request("DELETE", "/users/u1").basic_auth("any", Some(&eraser)).send().await.unwrap();
    for refused in [signed("/users/u1/segments", &eraser).await, delete] {
        let document = problem(refused, 401, "unauthorized").await;
        assert!(document["detail"].as_str().unwrap().contains("accepts no name and password"), "{document}");
    }
    let visit = json!({ "user_id": "u1", "segment": "sports" });
    let post = app.request("POST", "/segments").basic_auth("any", Some(&writer)).json(&visit);
    problem(post.send().await.unwrap(), 401, "unauthorized").await;
}

#[tokio::test]
async fn unknown_path_is_a_page_for_a_browser_and_a_problem_for_others() {
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let get = async |path: &str, accept: &str| app.request("GET", path).header("accept", accept).send().await.unwrap();
    for (path, link) in [
        ("/nowhere", None),
        ("/segment", Some("./")),
        ("/segments/a%26b/coutn", Some("../../pages/segment?name=a%26b")),
        ("/overlaps", Some("./pages/overlap")),
        ("/pages/nothing", None),
    ] {
        let shown = page(get(path, BROWSER).await, 404).await;
        assert!(shown.contains("<h1>Page not found</h1>"), "{shown}");
        match link {
            Some(link) => assert!(shown.contains(&format!("Did you mean <a href=\"{link}\">")), "{shown}"),
            None => assert!(!shown.contains("Did you mean"), "{shown}"),
        }
    }
    // The second is that of Java's HttpURLConnection.
    for accept in ["*/*", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "application/xhtml+xml;q=0"] {
        problem(get("/nowhere", accept).await, 404, "not-found").await;
    }
    // The errors of the API stay problems.
    problem(get("/segments?limit=0", BROWSER).await, 422, "invalid-request").await;
    let post = app.request("POST", "/nowhere").header("accept", BROWSER).send().await.unwrap();
    problem(post, 404, "not-found").await;
}

#[tokio::test]
async fn overlap_page_shows_what_the_api_returns() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (segment, users) in [("a", 0..6), ("b & c", 4..9), ("d", 5..7)] {
        for user in users {
            app.record(&format!("u{user}"), segment).await;
        }
    }
    let figures = |page: &str| -> Vec<String> {
        page.split("data-count=\"").skip(1).map(|part| part.split('"').next().unwrap().to_owned()).collect()
    };
    let query = "segment=a&segment=b%20%26%20c&segment=d";
    let api: Value = app.get(&format!("/overlap?{query}")).await.json().await.unwrap();
    let shown = page(app.get(&format!("/pages/overlap?{query}")).await, 200).await;
    assert_eq!((api["all"].as_u64(), api["any"].as_u64()), (Some(1), Some(9)));
    assert_eq!(figures(&shown), ["1", "9", "4", "2", "1", "1", "1", "6", "2", "1", "2", "5", "2", "1", "2", "2"]);
    assert_eq!(shown.matches("<option").count(), 3, "{shown}");
    // A form sends empty fields, too. The checkboxes of the list send the same parameters.
    let two = page(app.get("/pages/overlap?segment=a&segment=&segment=d&segment=").await, 200).await;
    assert_eq!(figures(&two), ["1", "7", "5", "1", "1", "6", "1", "1", "2"]);
    let none = page(app.get("/pages/overlap").await, 200).await;
    assert!(figures(&none).is_empty() && none.contains("id=\"segment-3\""), "{none}");
    let one = page(app.get("/pages/overlap?segment=a").await, 200).await;
    assert!(
        figures(&one).is_empty() && one.contains("Choose at least one more segment") && one.contains("value=\"a\""),
        "{one}"
    );
}

#[tokio::test]
async fn overlap_page_counts_over_a_shorter_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let long_ago = Timestamp::now().as_millis() / 1_000 - 9 * 86_400;
    let visits =
        [json!({ "user_id": "u1", "segment": "a" }), json!({ "user_id": "u2", "segment": "a", "seen_at": long_ago })];
    app.post_array(&json!(visits)).await;
    app.record("u1", "b").await;
    let any = async |query: &str| {
        let shown = page(app.get(&format!("/pages/overlap?segment=a&segment=b{query}")).await, 200).await;
        text(&shown, "id=\"any\"").to_owned()
    };
    assert_eq!((any("").await, any("&window=7d").await), ("2".to_owned(), "1".to_owned()));
    let refused = page(app.get("/pages/overlap?segment=a&segment=b&window=15d").await, 422).await;
    assert!(refused.contains("must not be longer than the configured window of 14d"), "{refused}");
}

#[tokio::test]
async fn overlap_and_audience_pages_offer_similar_names_for_unknown_ones() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    app.record("u1", "news").await;
    for (path, link) in [
        ("/pages/overlap?segment=sports&segment=nwes", "overlap?segment=sports&amp;segment=news"),
        ("/pages/audience?all=sports&none=nwes", "audience?all=sports&amp;none=news"),
    ] {
        let shown = page(app.get(path).await, 200).await;
        assert!(shown.contains("No segment is called “<bdi>nwes</bdi>”. Did you mean"), "{shown}");
        assert!(shown.contains(&format!("<a href=\"{link}\"><bdi>news</bdi></a>?")), "{shown}");
        // A name that is chosen already is no suggestion.
        let chosen = page(
            app.get(&format!("{path}&{}=news", if path.contains("segment=") { "segment" } else { "any" })).await,
            200,
        )
        .await;
        assert!(chosen.contains("No segment is called “<bdi>nwes</bdi>”. It counts as empty."), "{chosen}");
        let known = page(app.get(&path.replace("nwes", "news")).await, 200).await;
        assert!(!known.contains("id=\"unknown\""), "{known}");
    }
}

#[tokio::test]
async fn audience_page_shows_what_the_api_returns() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (segment, users) in [("a", 0..6), ("b & c", 4..9), ("d", 5..7)] {
        for user in users {
            app.record(&format!("u{user}"), segment).await;
        }
    }
    for (query, count) in [
        ("all=a", "6"),
        ("all=a&none=d", "5"),
        ("any=a&any=d&none=b%20%26%20c", "4"),
        ("all=b%20%26%20c&any=a&any=d", "3"),
        // A form sends empty fields, too.
        ("all=&all=d&any=&none=&none=a", "1"),
    ] {
        let shown = page(app.get(&format!("/pages/audience?{query}")).await, 200).await;
        assert_eq!(text(&shown, "id=\"count\""), count, "{query}");
        let api: Value = app
            .get(&format!("/audience/count?{}", query.replace("all=&", "").replace("any=&none=&", "")))
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(api["count"].to_string(), count, "{query}");
    }
    for (query, says) in [
        ("all=a&none=a", "contains &quot;a&quot;, which all contains too"),
        ("all=1&all=2&all=3&any=4&any=5&any=6&none=7&none=8&none=9", "Choose at most 8 segments (you chose 9)"),
        ("all=1&all=2&all=3&all=4&all=5&all=6&all=7&all=8&all=9", "Choose at most 8 segments (you chose 9)"),
    ] {
        let refused = page(app.get(&format!("/pages/audience?{query}")).await, 422).await;
        assert!(refused.contains(says), "{refused}");
        assert!(refused.contains("id=\"none-1\""), "the form is kept: {refused}");
        let names = query.split('&').map(|parameter| parameter.split_once('=').unwrap().1);
        for name in names {
            assert!(refused.contains(&format!("value=\"{name}\"")), "every name is kept: {refused}");
        }
    }
    let form = page(app.get("/pages/audience?none=a").await, 200).await;
    assert!(form.contains("id=\"one-more\"") && form.contains("value=\"a\""), "{form}");
}

#[tokio::test]
async fn overlap_page_keeps_rejected_segments_in_the_form() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let nine: String = (0..9).map(|at| format!("segment=s{at}&")).collect();
    for (query, says) in [
        ("segment=a&segment=a", "contains &quot;a&quot; more than once"),
        ("segment=a&segment=b%07", "must not contain control characters"),
        (nine.trim_end_matches('&'), "Choose at most 8 segments (you chose 9)"),
    ] {
        let error = page(app.get(&format!("/pages/overlap?{query}")).await, 422).await;
        assert!(error.contains(says), "{error}");
        let first = query.split('&').next().unwrap().replace("segment=", "");
        assert!(error.contains(&format!("value=\"{first}\"")), "{error}");
    }
    let error = page(app.get(&format!("/pages/overlap?{nine}")).await, 422).await;
    assert!(error.contains("Remove “s8”."), "{error}");
    assert!((0..9).all(|at| error.contains(&format!("value=\"s{at}\""))), "every name is kept: {error}");
}

#[tokio::test]
async fn overlap_page_of_far_too_many_segments_is_short() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let many: Vec<_> = (0..300).map(|at| format!("segment=s{at}")).collect();
    let error = page(app.get(&format!("/pages/overlap?{}", many.join("&"))).await, 422).await;
    assert_eq!(error.matches("name=\"segment\"").count(), 16, "{error}");
    assert!(error.contains("“s14”, “s15” and 284 more."), "{error}");
}

#[tokio::test]
async fn commands_on_pages_keep_the_prefix_of_a_proxy() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let behind = |prefix: &str| {
        let request = app.request("GET", "/pages/segment?name=sports").header("host", "localhost");
        request.header("x-forwarded-prefix", prefix).send()
    };
    let shown = page(behind("/team/seg").await.unwrap(), 200).await;
    assert!(shown.contains("curl 'http://localhost/team/seg/segments/sports/count'"), "{shown}");
    let forged = page(behind("//evil.example").await.unwrap(), 200).await;
    assert!(forged.contains("curl 'http://localhost/segments/sports/count'"), "{forged}");

    let app = TestApp::spawn_with(&redis, settings([("public_url", "https://seg.example/team/")])).await;
    let shown = page(app.get("/pages/segment?name=sports").await, 200).await;
    assert!(shown.contains("curl 'https://seg.example/team/segments/sports/count'"), "{shown}");
    let document: Value = app.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(document["servers"], json!([{ "url": "./" }]), "relative to the document");
}

#[tokio::test]
async fn page_ignores_unknown_parameters() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    for path in ["/?utm_source=chat", "/pages/segment?name=sports&utm_source=chat", "/pages/overlap?utm_source=chat"] {
        page(app.get(path).await, 200).await;
    }
    assert_eq!(app.status_of("/segments?utm_source=chat").await, 422, "the API is strict");
}

#[tokio::test]
async fn segment_page_draws_the_history_with_its_gaps() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let hour = 3_600_000;
    let begin = chrono::Utc::now().timestamp_millis() / hour * hour - 10 * hour;
    for (at, count) in [(0, 1_000), (1, 2_000), (5, 1_500)] {
        let id = format!("{}-0", begin + at * hour);
        redis.call::<String>(&["XADD", "history:sports", &id, "n", &count.to_string()]);
    }
    let shown = page(app.get("/pages/segment?name=sports&days=1").await, 200).await;
    let known = [
        " UTC: 1,000 users</title>",
        " UTC: 2,000 users, up 1,000 (+100.0%) since ",
        " UTC: 1,500 users, down 500 (-25.0%) since ",
        " UTC: 1 user, down 1,499 (-99.9%) since ",
    ];
    assert!(known.iter().all(|title| shown.contains(title)), "{shown}");
    // Between samples, and between the last one and the count of this moment.
    assert_eq!(shown.matches("class=\"gap\"").count(), 2, "{shown}");
    assert!(shown.matches(": no data</title>").count() >= 3, "{shown}");
    let list = page(app.get("/").await, 200).await;
    assert!(list.contains("class=\"spark\"") && list.contains("between 1"), "{list}");
}

#[tokio::test]
async fn list_page_counts_over_a_shorter_window_and_keeps_it_in_its_links() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let long_ago = Timestamp::now().as_millis() / 1_000 - 9 * 86_400;
    let visits = json!([
        { "user_id": "u1", "segment": "a" }, { "user_id": "u2", "segment": "a", "seen_at": long_ago },
        { "user_id": "u2", "segment": "old", "seen_at": long_ago },
    ]);
    app.post_array(&visits).await;
    assert_eq!(rows(&page(app.get("/").await, 200).await), [("a", "2"), ("old", "1")]);
    let week = page(app.get("/?window=7d").await, 200).await;
    assert_eq!(rows(&week), [("a", "1")]);
    for link in [
        "href=\"./\">14 days</a>",
        "href=\"./?window=7d\" aria-current=\"true\">7 days</a>",
        "href=\"./?sort=change&amp;window=7d\">Largest gain</a>",
        "href=\"pages/segment?name=a&amp;window=7d\"",
        "href=\"./segments?sort=count&amp;window=7d&amp;limit=1000&amp;format=csv\"",
        "<input type=\"hidden\" name=\"window\" value=\"7d\">",
    ] {
        assert!(week.contains(link), "{link} is not in {week}");
    }
    // Changes are of the count over the configured window.
    let at = Timestamp::now().as_millis() / 1_000;
    redis.call::<()>(&["SET", "history: a", &format!("{at} 2 {} - 5", at - 8 * 86_400)]);
    assert!(page(app.get("/").await, 200).await.contains("<td class=\"change\">"));
    assert!(!page(app.get("/?window=7d").await, 200).await.contains("<td class=\"change\">"));
    let by_change = page(app.get("/?window=7d&sort=change").await, 200).await;
    assert!(by_change.contains("Changes are of the users in the last 14 days."), "{by_change}");
    assert!(by_change.contains("<td class=\"change\">"), "{by_change}");

    let refused = page(app.get("/?window=15d").await, 422).await;
    assert!(refused.contains("must not be longer than the configured window of 14d"), "{refused}");
}

#[tokio::test]
async fn search_ignores_white_space_around_it_and_offers_similar_names() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let padded = page(app.get("/?contains=%20SPORT%20").await, 200).await;
    assert_eq!(rows(&padded), [("sports", "1")]);
    let typo = page(app.get("/?contains=sprots").await, 200).await;
    assert!(typo.contains("Did you mean <a href=\"./?contains=sports\"><bdi>sports</bdi></a>?"), "{typo}");
    let far = page(app.get("/?contains=xyz").await, 200).await;
    assert!(!far.contains("Did you mean"), "{far}");
    let compared = page(app.get("/pages/overlap?segment=%20sports&segment=news%20").await, 200).await;
    assert!(compared.contains("href=\"segment?name=sports\""), "{compared}");
}

#[tokio::test]
async fn list_page_in_the_order_of_age_says_since_when_segments_are_recorded() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "old").await;
    app.record("u1", "new").await;
    let at = Timestamp::now().as_millis() / 1_000;
    redis.call::<()>(&["SET", "history: old", &format!("{at} 1 1795348800 - -")]);
    let newest = page(app.get("/?sort=new").await, 200).await;
    assert_eq!(rows(&newest), [("new", "1"), ("old", "1")]);
    assert!(newest.contains("<td class=\"number since\">not yet</td>"), "{newest}");
    assert!(newest.contains("<td class=\"number since\">22 Nov 2026</td>"), "{newest}");
}
