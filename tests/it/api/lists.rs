//! Lists of segments with their counts, and counts of several segments.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::helpers::{Redis, TestApp, problem, settings};

/// A segment for each name, with so many users.
async fn fill(app: &TestApp, sizes: &[(&str, usize)]) {
    let visits: Vec<_> = sizes
        .iter()
        .flat_map(|(segment, size)| (0..*size).map(move |n| json!({ "user_id": format!("u{n}"), "segment": segment })))
        .collect();
    assert_eq!(app.post_array(&json!(visits)).await.status(), StatusCode::OK);
}

async fn page(app: &TestApp, query: &str) -> Value {
    let response = app.get(&format!("/segments{query}")).await;
    assert_eq!(response.status(), StatusCode::OK, "{query}");
    assert_eq!(response.headers()["cache-control"], "no-store");
    response.json().await.unwrap()
}

fn pairs(counts: &Value) -> Vec<(String, u64)> {
    let counts = counts.as_array().unwrap().iter();
    counts.map(|one| (one["segment"].as_str().unwrap().to_owned(), one["count"].as_u64().unwrap())).collect()
}

/// All pages of a list, which must each have `limit` segments but for the last.
async fn all_pages(app: &TestApp, limit: usize, rest: &str) -> Vec<(String, u64)> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = page(app, &format!("?limit={limit}{rest}{cursor}")).await;
        let segments = pairs(&answer["segments"]);
        let size = segments.len();
        all.extend(segments);
        match answer["next_cursor"].as_str() {
            Some(next) => {
                assert_eq!(size, limit);
                cursor = format!("&cursor={next}");
            }
            None => return all,
        }
    }
}

const SIZES: [(&str, usize); 6] =
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
async fn segments_are_listed_by_name_or_by_count_in_pages_of_any_size_and_any_number_of_partitions() {
    for partitions in ["1", "16"] {
        let redis = Redis::start();
        let settings = settings([("partitions", partitions)]);
        let app = TestApp::spawn_with(&redis, settings).await;
        assert_eq!(page(&app, "").await["segments"], json!([]));
        fill(&app, &SIZES).await;
        for limit in 1..=7 {
            assert_eq!(all_pages(&app, limit, "").await, by_name(), "{limit}");
            assert_eq!(all_pages(&app, limit, "&sort=count").await, by_count(), "{limit}");
        }
    }
}

#[tokio::test]
async fn a_prefix_lists_the_names_that_begin_with_it() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    fill(&app, &SIZES).await;
    for limit in 1..=3 {
        for (prefix, sort) in
            [("news", "name"), ("news", "count"), ("gr%C3%B6", "name"), ("x", "name"), ("a%20b%26", "count")]
        {
            let decoded = percent(prefix);
            let expected = if sort == "name" { by_name() } else { by_count() };
            let expected: Vec<_> = expected.into_iter().filter(|(name, _)| name.starts_with(&decoded)).collect();
            let listed = all_pages(&app, limit, &format!("&prefix={prefix}&sort={sort}")).await;
            assert_eq!(listed, expected, "{prefix}");
        }
    }
}

fn percent(text: &str) -> String {
    text.replace("%C3%B6", "ö").replace("%20", " ").replace("%26", "&")
}

#[tokio::test]
async fn who_has_expired_is_neither_counted_nor_makes_a_segment_listed() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    fill(&app, &[("sports", 2)]).await;
    // In the index still, as before a pruning.
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
async fn a_list_may_have_a_shorter_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    fill(&app, &[("news", 1), ("sports", 2)]).await;
    let two_days_ago = (segment_estimator::domain::Timestamp::now().as_millis() / 1000 - 2 * 86_400).to_string();
    redis.call::<()>(&["ZADD", "segment:sports", &two_days_ago, "u0"]);
    redis.call::<()>(&["ZADD", "segment:news", &two_days_ago, "u0"]);
    let answer = page(&app, "?window=1d").await;
    assert_eq!(pairs(&answer["segments"]), [("sports".to_owned(), 1)]);
    assert_eq!(answer["window_seconds"], 86_400);
    let counts: Value = app.get("/counts?segment=news&segment=sports&window=1d").await.json().await.unwrap();
    assert_eq!(pairs(&counts["counts"]), [("news".to_owned(), 0), ("sports".to_owned(), 1)]);
}

#[tokio::test]
async fn counts_of_several_segments_are_in_the_order_of_the_question() {
    let redis = Redis::start();
    let settings = settings([("partitions", "16")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    fill(&app, &SIZES).await;
    let answer: Value =
        app.get("/counts?segment=sports&segment=nobody&segment=gr%C3%B6%C3%9Fe").await.json().await.unwrap();
    let expected = [("sports".to_owned(), 3), ("nobody".to_owned(), 0), ("größe".to_owned(), 2)];
    assert_eq!(pairs(&answer["counts"]), expected);
    assert!(answer["as_of"].is_string());
}

#[tokio::test]
async fn many_segments_in_many_partitions_are_counted_in_several_round_trips() {
    let redis = Redis::start();
    let settings = settings([("partitions", "1024")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let names: Vec<_> = (0..40).map(|n| format!("s{n:02}")).collect();
    let sizes: Vec<_> = names.iter().map(|name| (name.as_str(), 3)).collect();
    fill(&app, &sizes).await;
    let expected: Vec<_> = names.iter().map(|name| (name.clone(), 3)).collect();
    assert_eq!(all_pages(&app, 100, "").await, expected);
}

#[tokio::test]
async fn a_bad_parameter_is_named() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    fill(&app, &SIZES).await;
    let next = page(&app, "?limit=1&prefix=news").await["next_cursor"].as_str().unwrap().to_owned();
    let other_order = format!("/segments?sort=count&cursor={next}");
    let other_prefix = format!("/segments?prefix=sports&cursor={next}");
    let many = (0..=100).map(|n| format!("&segment=s{n}")).collect::<String>();
    let many = format!("/counts?{}", &many[1..]);
    for (path, field, words) in [
        ("/segments?limit=0", "limit", "must be a number from 1 to 1000"),
        ("/segments?limit=1001", "limit", "must be a number from 1 to 1000"),
        ("/segments?limit=ten", "limit", "must be a number from 1 to 1000"),
        ("/segments?sort=size", "sort", "must be name or count"),
        ("/segments?cursor=sports", "cursor", "is not the next_cursor of a page"),
        (&other_order, "cursor", "belongs to a list with another prefix or sort; start the new list without a cursor"),
        (&other_prefix, "cursor", "belongs to a list with another prefix or sort; start the new list without a cursor"),
        ("/segments?window=15d", "window", "must not be longer than the configured window of 14d"),
        (
            "/segments?limits=1",
            "limits",
            "is not a parameter of this path; the parameters are limit, cursor, prefix, sort, window",
        ),
        ("/counts", "segment", "must be given 1 to 100 times, and is given 0 times"),
        (&many, "segment", "must be given 1 to 100 times, and is given 101 times"),
        ("/counts?segment=a&segment=a", "segment", "contains \"a\" more than once"),
        ("/counts?segment=a&segment=", "segment", "must not be empty"),
    ] {
        let document = problem(app.get(path).await, 422, "invalid-request").await;
        assert_eq!(document["errors"], json!([{ "field": field, "detail": words }]), "{path}");
    }
}

#[tokio::test]
async fn without_redis_there_is_no_list() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    fill(&app, &SIZES).await;
    redis.stop();
    for path in ["/segments", "/segments?sort=count", "/counts?segment=sports"] {
        problem(app.get(path).await, 503, "store-unavailable").await;
    }
}

/// What a key of another type may be made with.
const OTHER_TYPES: [&[&str]; 4] = [&["SET", "x"], &["RPUSH", "x"], &["SADD", "x"], &["HSET", "x", "y"]];

/// Puts a key of another type in the place of `key`.
fn take(redis: &Redis, key: &str, command: &[&str]) {
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
    fill(&app, &SIZES).await;
    for command in OTHER_TYPES {
        take(&redis, key, command);
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
async fn page_shows_all_other_lines_if_a_history_is_of_another_type() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    fill(&app, &SIZES).await;
    let hour_ago = (segment_estimator::domain::Timestamp::now().as_millis() - 3_600_000).to_string();
    redis.call::<()>(&["RPUSH", "history:Zoo", &hour_ago, "7"]);
    let foreign_stream: &[&str] = &["XADD", "*", "temperature", "20"];
    for command in OTHER_TYPES.into_iter().chain([&["RPUSH", "1", "x"], foreign_stream]) {
        take(&redis, "history:news", command);
        let start = app.get("/").await;
        assert_eq!(start.status(), StatusCode::OK, "{command:?}");
        let start = start.text().await.unwrap();
        assert!(start.contains("aria-label=\"14 days: between 7 and 7\""), "{command:?}: {start}");
        assert_eq!(app.status_of("/pages/segment?name=Zoo").await, StatusCode::OK);
        let own = app.get("/pages/segment?name=news").await;
        assert_eq!(own.status(), StatusCode::OK, "{command:?}");
        let is_told = own.text().await.unwrap().contains("key in Redis holds something else");
        // Samples can be told from what else stands in a stream, one by one.
        assert_eq!(is_told, command != foreign_stream, "{command:?}");
        if is_told {
            problem(app.get("/segments/news/history").await, 503, "store-unavailable").await;
        }
    }
}

#[rstest]
#[case::one_partition("1", "")]
#[case::sixteen_partitions("16", "{p03}:")]
#[tokio::test]
async fn visit_that_a_key_of_another_type_refuses_leaves_no_name_in_the_index(
    #[case] partitions: &str,
    #[case] tag: &str,
) {
    let redis = Redis::start();
    let settings = settings([("partitions", partitions)]);
    let app = TestApp::spawn_with(&redis, settings).await;
    for n in 0..64 {
        app.record(&format!("u{n}"), "sports").await;
        take(&redis, &format!("{tag}segment:taken"), OTHER_TYPES[n % 4]);
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
