//! `GET /segments`, and rules that it shares with `GET /counts`.

use std::collections::BTreeMap;
use std::panic::Location;

use reqwest::StatusCode;
use rstest::rstest;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use crate::helpers::{Redis, TestApp, problem, settings};

/// Records users in segments: the number of users for each name.
#[track_caller]
pub fn record_sizes(app: &TestApp, sizes: &[(&str, usize)]) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let visits: Vec<_> = sizes
            .iter()
            .flat_map(|(name, size)| (0..*size).map(move |n| json!({ "user_id": format!("u{n}"), "segment": name })))
            .collect();
        assert_eq!(app.post_array(&json!(visits)).await.status(), StatusCode::OK, "{caller}");
    }
}

/// Returns a page of the list. Panics with the caller's location if the response is not 200.
#[track_caller]
fn page(app: &TestApp, query: &str) -> impl Future<Output = Value> {
    let caller = Location::caller();
    async move {
        let response = app.get(&format!("/segments{query}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{caller}: {query}");
        assert_eq!(response.headers()["cache-control"], "no-store", "{caller}");
        response.json().await.unwrap()
    }
}

/// Returns the names and counts of a list.
pub fn pairs(counts: &Value) -> Vec<(String, u64)> {
    let counts = counts.as_array().unwrap().iter();
    counts.map(|one| (one["segment"].as_str().unwrap().to_owned(), one["count"].as_u64().unwrap())).collect()
}

/// Returns the segments of all pages. Panics if a page but the last has fewer than `limit` segments.
#[track_caller]
fn all_pages(app: &TestApp, limit: usize, rest: &str) -> impl Future<Output = Vec<(String, u64)>> {
    let caller = Location::caller();
    async move {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let answer = page(app, &format!("?limit={limit}{rest}{cursor}")).await;
            let segments = pairs(&answer["segments"]);
            let size = segments.len();
            all.extend(segments);
            let Some(next) = answer["next_cursor"].as_str() else { return all };
            assert_eq!(size, limit, "{caller}");
            cursor = format!("&cursor={next}");
        }
    }
}

pub const SIZES: [(&str, usize); 6] =
    [("sports", 3), ("news", 1), ("news/politics", 3), ("Zoo", 2), ("größe", 2), ("a b&c", 5)];

fn by_name() -> Vec<(String, u64)> {
    let sizes: BTreeMap<_, _> = SIZES.into_iter().collect();
    sizes.into_iter().map(|(segment, size)| (segment.to_owned(), size as u64)).collect()
}

fn by_count() -> Vec<(String, u64)> {
    let mut sizes = by_name();
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    sizes
}

#[tokio::test]
async fn list_sorts_by_name_or_count_in_pages_of_any_size() {
    for partitions in ["1", "16"] {
        let redis = Redis::start();
        let settings = settings([("partitions", partitions)]);
        let app = TestApp::spawn_with(&redis, settings).await;
        assert_eq!(page(&app, "").await["segments"], json!([]));
        record_sizes(&app, &SIZES).await;
        for limit in 1..=7 {
            assert_eq!(all_pages(&app, limit, "").await, by_name(), "{limit}");
            assert_eq!(all_pages(&app, limit, "&sort=count").await, by_count(), "{limit}");
        }
    }
}

#[tokio::test]
async fn list_by_prefix_returns_the_names_that_begin_with_it() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &SIZES).await;
    for limit in 1..=3 {
        for (prefix, sort) in
            [("news", "name"), ("news", "count"), ("gr%C3%B6", "name"), ("x", "name"), ("a%20b%26", "count")]
        {
            let decoded = percent_decoded(prefix);
            let expected = if sort == "name" { by_name() } else { by_count() };
            let expected: Vec<_> = expected.into_iter().filter(|(name, _)| name.starts_with(&decoded)).collect();
            let listed = all_pages(&app, limit, &format!("&prefix={prefix}&sort={sort}")).await;
            assert_eq!(listed, expected, "{prefix}");
        }
    }
}

fn percent_decoded(text: &str) -> String {
    text.replace("%C3%B6", "ö").replace("%20", " ").replace("%26", "&")
}

#[tokio::test]
async fn list_omits_expired_users_and_segments() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("sports", 2)]).await;
    // The segment is still in the index, as before pruning.
    redis.call::<()>(&["ZADD", "segment:old", "1000", "u1"]);
    redis.call::<()>(&["ZADD", "segment:sports", "1000", "u9"]);
    redis.call::<()>(&["ZADD", "segments", "0", "old"]);
    for query in ["?limit=1", "?limit=1&sort=count"] {
        let answer = page(&app, query).await;
        assert_eq!(pairs(&answer["segments"]), [("sports".to_owned(), 2)]);
        assert_eq!(answer["next_cursor"], Value::Null);
        assert_eq!(answer["window_seconds"], 1_209_600);
    }
}

#[tokio::test]
async fn list_and_counts_take_a_shorter_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("news", 1), ("sports", 2)]).await;
    let two_days_ago = (Timestamp::now().as_millis() / 1000 - 2 * 86_400).to_string();
    redis.call::<()>(&["ZADD", "segment:sports", &two_days_ago, "u0"]);
    redis.call::<()>(&["ZADD", "segment:news", &two_days_ago, "u0"]);
    let answer = page(&app, "?window=1d").await;
    assert_eq!(pairs(&answer["segments"]), [("sports".to_owned(), 1)]);
    assert_eq!(answer["window_seconds"], 86_400);
    let counts: Value = app.get("/counts?segment=news&segment=sports&window=1d").await.json().await.unwrap();
    assert_eq!(pairs(&counts["counts"]), [("news".to_owned(), 0), ("sports".to_owned(), 1)]);
}

#[tokio::test]
async fn list_counts_many_segments_in_many_partitions() {
    let redis = Redis::start();
    let settings = settings([("partitions", "1024")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let names: Vec<_> = (0..40).map(|n| format!("s{n:02}")).collect();
    let sizes: Vec<_> = names.iter().map(|name| (name.as_str(), 3)).collect();
    record_sizes(&app, &sizes).await;
    let expected: Vec<_> = names.iter().map(|name| (name.clone(), 3)).collect();
    assert_eq!(all_pages(&app, 100, "").await, expected);
}

#[tokio::test]
async fn list_and_counts_reject_bad_parameters() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &SIZES).await;
    let next = page(&app, "?limit=1&prefix=news").await["next_cursor"].as_str().unwrap().to_owned();
    let other_order = format!("/segments?sort=count&cursor={next}");
    let other_prefix = format!("/segments?prefix=sports&cursor={next}");
    let many = (0..=100).map(|n| format!("&segment=s{n}")).collect::<String>();
    let many = format!("/counts?{}", &many[1..]);
    for (path, field, words) in [
        ("/segments?limit=0", "limit", "must be a number from 1 to 1000"),
        ("/segments?limit=1001", "limit", "must be a number from 1 to 1000"),
        ("/segments?limit=ten", "limit", "must be a number from 1 to 1000"),
        ("/segments?sort=size", "sort", "must be name, count, change, -change or new"),
        ("/segments?cursor=sports", "cursor", "is not the next_cursor or previous_cursor of a page"),
        (
            &other_order,
            "cursor",
            "belongs to a list with another prefix, contains or sort; start the new list without a cursor",
        ),
        (
            &other_prefix,
            "cursor",
            "belongs to a list with another prefix, contains or sort; start the new list without a cursor",
        ),
        ("/segments?window=15d", "window", "must not be longer than the configured window of 14d"),
        (
            "/segments?limits=1",
            "limits",
            "is not a parameter of this path; the parameters are limit, window, prefix, contains, sort, cursor, format",
        ),
        ("/counts", "segment", "must be given 1 to 100 times, as segment=a&segment=b, not 0"),
        (&many, "segment", "must be given 1 to 100 times, as segment=a&segment=b, not 101"),
        ("/counts?segment=a&segment=a", "segment", "contains \"a\" more than once"),
        ("/counts?segment=a&segment=", "segment", "must not be empty"),
    ] {
        let document = problem(app.get(path).await, 422, "invalid-request").await;
        assert_eq!(document["errors"], json!([{ "field": field, "detail": words }]), "{path}");
    }
}

#[tokio::test]
async fn list_and_counts_are_503_without_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &SIZES).await;
    redis.stop();
    for path in ["/segments", "/segments?sort=count", "/counts?segment=sports"] {
        problem(app.get(path).await, 503, "store-unavailable").await;
    }
}

/// Commands that create a key of another type, without the key.
const OTHER_TYPES: [&[&str]; 4] = [&["SET", "x"], &["RPUSH", "x"], &["SADD", "x"], &["HSET", "x", "y"]];

/// Replaces `key` by a key of another type.
fn replace(redis: &Redis, key: &str, command: &[&str]) {
    redis.call::<()>(&["DEL", key]);
    redis.call::<()>(&[&command[..1], &[key], &command[1..]].concat());
}

#[rstest]
#[case::one_partition("1", "segment:news")]
#[case::one_of_sixteen_partitions("16", "{p03}:segment:news")]
#[tokio::test]
async fn list_gives_a_segment_whose_key_is_of_another_type_a_null_count(#[case] partitions: &str, #[case] key: &str) {
    let redis = Redis::start();
    let settings = settings([("partitions", partitions)]);
    let app = TestApp::spawn_with(&redis, settings).await;
    record_sizes(&app, &SIZES).await;
    for command in OTHER_TYPES {
        replace(&redis, key, command);
        for (sort, is_last) in [("name", false), ("count", true)] {
            let (mut listed, mut cursor) = (Vec::new(), String::new());
            loop {
                let answer = page(&app, &format!("?limit=1&sort={sort}{cursor}")).await;
                listed.extend(answer["segments"].as_array().unwrap().iter().cloned());
                let Some(next) = answer["next_cursor"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            let at = listed.iter().position(|one| one["segment"] == "news").unwrap();
            let news = listed.remove(at);
            assert_eq!(news["count"], Value::Null, "{command:?}");
            assert!(news["error"].as_str().unwrap().contains("not a sorted set"), "{news}");
            assert_eq!(at == listed.len(), is_last, "{sort}");
            let mut expected = if sort == "name" { by_name() } else { by_count() };
            expected.retain(|(name, _)| name != "news");
            assert_eq!(pairs(&json!(listed)), expected, "{command:?}");
            assert!(listed.iter().all(|one| one.get("error").is_none()), "{listed:?}");
        }
        let counts: Value = app.get("/counts?segment=news&segment=sports").await.json().await.unwrap();
        assert_eq!((&counts["counts"][0]["count"], &counts["counts"][1]["count"]), (&Value::Null, &json!(3)));
        let start = app.get("/").await.text().await.unwrap();
        assert!(start.contains(">no count</td>") && start.contains("pages/segment?name=sports"), "{start}");
        let comparing = app.get("/pages/overlap").await.text().await.unwrap();
        assert!(
            comparing.contains("<option value=\"sports\">") && !comparing.contains("value=\"news\""),
            "{comparing}"
        );
        problem(app.get("/segments/news/count").await, 503, "store-unavailable").await;
    }
}

#[tokio::test]
async fn list_page_shows_the_other_lines_if_a_history_is_of_another_type() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &SIZES).await;
    let hour_ago = (Timestamp::now().as_millis() - 3_600_000).to_string();
    redis.call::<()>(&["RPUSH", "history:Zoo", &hour_ago, "7"]);
    let foreign_stream: &[&str] = &["XADD", "*", "temperature", "20"];
    for command in OTHER_TYPES.into_iter().chain([&["RPUSH", "1", "x"], foreign_stream]) {
        replace(&redis, "history:news", command);
        let start = app.get("/").await;
        assert_eq!(start.status(), StatusCode::OK, "{command:?}");
        let start = start.text().await.unwrap();
        assert!(
            start.contains("aria-label=\"14 days: from 7 to 7, unchanged, between 7 and 7\""),
            "{command:?}: {start}"
        );
        assert_eq!(app.status_of("/pages/segment?name=Zoo").await, StatusCode::OK);
        let own = app.get("/pages/segment?name=news").await;
        assert_eq!(own.status(), StatusCode::OK, "{command:?}");
        let is_reported = own.text().await.unwrap().contains("key in Redis holds something else");
        // In a stream, entries that are no samples are skipped one by one.
        assert_eq!(is_reported, command != foreign_stream, "{command:?}");
        if is_reported {
            problem(app.get("/segments/news/history").await, 503, "store-unavailable").await;
        }
    }
}

#[rstest]
#[case::one_partition("1", "")]
#[case::sixteen_partitions("16", "{p03}:")]
#[tokio::test]
async fn record_to_a_key_of_another_type_leaves_no_name_in_the_index(#[case] partitions: &str, #[case] tag: &str) {
    let redis = Redis::start();
    let settings = settings([("partitions", partitions)]);
    let app = TestApp::spawn_with(&redis, settings).await;
    for n in 0..64 {
        app.record(&format!("u{n}"), "sports").await;
        replace(&redis, &format!("{tag}segment:taken"), OTHER_TYPES[n % 4]);
        let visit = json!({ "user_id": format!("u{n}"), "segment": "taken" });
        let index = format!("{tag}segments");
        let single = app.post_visit(&visit).await.status().as_u16();
        assert!(!redis.call::<Vec<String>>(&["ZRANGE", &index, "0", "-1"]).contains(&"taken".to_owned()));
        let other = json!({ "user_id": format!("u{n}"), "segment": "sports" });
        let batch = app.post_array(&json!([visit, other])).await.status().as_u16();
        assert!(!redis.call::<Vec<String>>(&["ZRANGE", &index, "0", "-1"]).contains(&"taken".to_owned()));
        assert_eq!(single == 503, batch == 503);
        assert!([503, 204].contains(&single) && (single == 503 || partitions == "16"));
    }
    assert_eq!(app.count("sports").await, 64);
}
