//! `GET /history`: the histories of several segments in one call.

use std::sync::Arc;

use rstest::rstest;
use segment_estimator::redis::{Client, Deployment, Limits, RedisUrl};
use segment_estimator::store::{NamedSample, Sample, Store};
use serde_json::{Value, json};

use super::segments::record_sizes;
use crate::helpers::{NOON, Redis, RedisCluster, Service, TIMEOUT, TestApp, noon_plus, problem, segment};

async fn get(app: &TestApp, path: &str) -> Value {
    let response = app.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

#[tokio::test]
async fn histories_equal_those_of_each_segment() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("sports", 1)]).await;
    // Noon and one o'clock on 2026-11-22.
    redis.call::<()>(&["RPUSH", "history:sports", "1795348800000", "4", "1795352400000", "5"]);
    redis.call::<()>(&["RPUSH", "history:news", "1795352400000", "7"]);
    redis.call::<()>(&["SET", "history:theirs", "x"]);
    let range = "from=2026-11-22&to=2026-11-23&step=6h";
    let segments = "segment=sports&segment=nwes&segment=theirs&segment=news";
    let all = get(&app, &format!("/history?{segments}&{range}")).await;
    assert_eq!(all["from"], "2026-11-22T00:00:00.000Z");
    assert_eq!((&all["to"], &all["step_seconds"]), (&json!("2026-11-23T00:00:00.000Z"), &json!(21_600)));
    let histories = all["histories"].as_array().unwrap();
    for (at, name, is_known) in [(0, "sports", true), (1, "nwes", false), (3, "news", true)] {
        let one = get(&app, &format!("/segments/{name}/history?{range}")).await;
        assert_eq!(histories[at]["points"], one["points"], "{name}");
        assert_eq!((&histories[at]["known"], &one["known"]), (&json!(is_known), &json!(is_known)), "{name}");
        assert_eq!((&histories[at]["segment"], histories[at].get("error")), (&json!(name), None));
    }
    let error = "the key of the history in Redis belongs to another program";
    assert_eq!(histories[2], json!({ "segment": "theirs", "known": false, "points": null, "error": error }));
    assert_eq!(histories[0]["points"][2]["sampled_at"], "2026-11-22T13:00:00.000Z");
}

#[rstest]
#[case::no_segment("from=-1d", "segment", "must be given 1 to 20 times, as segment=a&segment=b, not 0")]
#[case::same_segment_twice("segment=a&segment=a", "segment", "contains \"a\" more than once")]
#[case::wrong_order("segment=a&from=-1d&to=-2d", "from", "must not be later than to, which is ")]
#[case::unknown_parameter(
    "segment=a&window=1d",
    "window",
    "is not a parameter of this path; the parameters are segment, from, to, step, format"
)]
#[tokio::test]
async fn histories_reject_bad_parameters(#[case] query: &str, #[case] field: &str, #[case] words: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let document = problem(app.get(&format!("/history?{query}")).await, 422, "invalid-request").await;
    let error = &document["errors"][0];
    assert_eq!(error["field"], field);
    assert!(error["detail"].as_str().unwrap().starts_with(words), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_are_read_from_all_servers_of_a_cluster() {
    let (cluster, folder) = (RedisCluster::start().await, tempfile::tempdir().unwrap());
    let urls = cluster.urls();
    let service = Service::start(folder.path(), &["--redis-cluster", &urls]);
    let seeds = urls.split(',').map(|url| RedisUrl::parse(url).unwrap()).collect();
    let limits = Limits { connect: TIMEOUT, answer: TIMEOUT, max_pending: 100 };
    let store = Store::new(Client::new(Deployment::Cluster(seeds), limits, Arc::default()).unwrap());
    let names: Vec<_> = (0..9).map(|n| format!("segment-{n}")).collect();
    let samples = names.iter().zip(1_u64..).flat_map(|(name, count)| {
        let sample = |hours: i64| NamedSample {
            segment: segment(name).into_owned(),
            sample: Sample { at: noon_plus(hours * 3_600_000), count: (count * 10 + hours as u64).into() },
        };
        [sample(0), sample(1)]
    });
    assert_eq!(store.add_samples(&samples.collect::<Vec<_>>()).await, Ok(18));

    let query: String = names.iter().map(|name| format!("&segment={name}")).collect();
    let range = format!("from={}&to={}&step=1h", NOON.as_score(), noon_plus(3_600_000).as_score());
    let answer = service.get(&format!("/history?{range}{query}&segment=nobody")).await;
    assert_eq!(answer.status(), 200);
    let all: Value = answer.json().await.unwrap();
    for (index, name) in names.iter().enumerate() {
        let history = &all["histories"][index];
        assert_eq!((&history["segment"], &history["known"]), (&json!(name), &json!(true)));
        let counts: Vec<_> = history["points"].as_array().unwrap().iter().map(|point| &point["count"]).collect();
        let first = (index + 1) * 10;
        assert_eq!(counts, [&json!(first), &json!(first + 1)], "{name}");
    }
    assert_eq!(all["histories"][9]["known"], false);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn histories_take_twenty_segments() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let query = |count: usize| (0..count).map(|n| format!("&segment=s{n}")).collect::<String>();
    let all = get(&app, &format!("/history?from=-1d{}", query(20))).await;
    assert_eq!(all["histories"].as_array().unwrap().len(), 20);
    problem(app.get(&format!("/history?from=-1d{}", query(21))).await, 422, "invalid-request").await;
}

#[tokio::test]
async fn histories_limit_their_points_together() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let query = |count: usize| (0..count).map(|n| format!("&segment=s{n}")).collect::<String>();
    // 1,001 points of each.
    let range = "from=0&to=3600000&step=1h";
    assert_eq!(get(&app, &format!("/history?{range}{}", query(8))).await["histories"].as_array().unwrap().len(), 8);
    let document = problem(app.get(&format!("/history?{range}{}", query(9))).await, 422, "invalid-request").await;
    let detail = "gives 9009 points in all, and the maximum is 8020; choose a longer step";
    assert_eq!(document["errors"][0], json!({ "field": "step", "detail": detail }));
}
