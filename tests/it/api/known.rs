//! Unknown segments: `known` in answers, `GET /segments/{name}`, and similar names.

use futures_util::future::poll_immediate;
use rstest::rstest;
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::estimator::history::{History, HistorySampler, Interval};
use segment_estimator::store::Partitions;
use serde_json::{Value, json};

use super::segments::record_sizes;
use crate::helpers::{NOON, Redis, TestApp, segment, settings, visit};

async fn get(app: &TestApp, path: &str) -> Value {
    let response = app.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

#[rstest]
#[case::with_users("sports", true)]
#[case::expired_in_the_index("expired", true)]
#[case::with_a_history_alone("past", true)]
#[case::misspelt("sprots", false)]
#[tokio::test]
async fn answers_say_whether_a_segment_is_known(
    #[case] name: &str,
    #[case] is_known: bool,
    #[values("1", "8")] partitions: &str,
) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
    record_sizes(&app, &[("sports", 2)]).await;
    let tag = if partitions == "1" { "" } else { "{p03}:" };
    redis.call::<()>(&["ZADD", &format!("{tag}segments"), "0", "expired"]);
    redis.call::<()>(&["RPUSH", "history:past", "1795348800000", "7"]);
    for path in ["", "/count", "/histogram", "/history"] {
        assert_eq!(get(&app, &format!("/segments/{name}{path}")).await["known"], is_known, "{path}");
    }
    let counts = get(&app, &format!("/counts?segment=zzz&segment={name}&segment=sports2")).await;
    let known = |segments: &Value| -> Vec<_> {
        segments.as_array().unwrap().iter().map(|segment| segment["known"].clone()).collect()
    };
    assert_eq!(known(&counts["counts"]), [json!(false), json!(is_known), json!(false)]);
    for path in [format!("/overlap?segment=zzz&segment={name}"), format!("/audience/count?any=zzz&none={name}")] {
        assert_eq!(known(&get(&app, &path).await["segments"]), [json!(false), json!(is_known)], "{path}");
    }
}

#[tokio::test]
async fn keys_of_other_programs_make_no_segment_known() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("sports", 1)]).await;
    redis.call::<()>(&["SET", "segment:theirs", "x"]);
    redis.call::<()>(&["SET", "history:other", "x"]);
    let counts = get(&app, "/counts?segment=theirs&segment=other").await;
    for at in [0, 1] {
        assert_eq!(counts["counts"][at]["known"], false, "{counts}");
    }
    assert_eq!(get(&app, "/segments/other").await["known"], false);
}

#[tokio::test]
async fn count_of_users_asks_redis_for_nothing_else() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("sports", 2)]).await;
    let asked = || redis.calls("zmscore") + redis.calls("type");
    let before = asked();
    assert_eq!(app.count("sports").await, 2);
    get(&app, "/counts?segment=sports").await;
    assert_eq!(asked(), before);
    assert_eq!(app.count("sprots").await, 0);
    assert_eq!(asked(), before + 2);
}

#[tokio::test]
async fn summary_has_count_changes_last_sample_and_links() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("a/b", 3)]).await;
    let tick = Interval::DEFAULT.tick(Timestamp::now());
    let day = 86_400_000;
    redis.call::<()>(&["RPUSH", "history:a/b", &(tick.as_millis() - day).to_string(), "4"]);
    let store = redis.store();
    let estimator = Estimator::new(store.clone(), Window::parse("14d").unwrap());
    let history = History::new(store, Interval::parse("1h").unwrap());
    HistorySampler::new(estimator, history).sample(tick, tick).await.unwrap();

    let mut summary = get(&app, "/segments/a%2Fb?window=7d").await;
    assert!(summary["as_of"].take().is_string());
    let expected = json!({
        "segment": "a/b", "known": true, "count": 3, "exact": true, "change_1d": {
            "absolute": -1, "relative": -0.25, "from": Timestamp::from_millis(tick.as_millis() - day).to_string(),
            "to": tick.to_string(),
        },
        "change_7d": null, "first_sampled_at": Timestamp::from_millis(tick.as_millis() - day).to_string(),
        "last_sample": { "sampled_at": tick.to_string(), "count": 3, "exact": true },
        "links": {
            "count": "./a%2Fb/count", "histogram": "./a%2Fb/histogram", "history": "./a%2Fb/history",
            "page": "../pages/segment?name=a%2Fb",
        },
        "window_seconds": 604_800, "as_of": null,
    });
    assert_eq!(summary, expected);
    // The links are relative to the path of the summary.
    let base = reqwest::Url::parse(&format!("http://{}/segments/a%2Fb", app.address)).unwrap();
    for link in expected["links"].as_object().unwrap().values() {
        let linked = base.join(link.as_str().unwrap()).unwrap();
        let path = linked.as_str().split_once(&app.address.to_string()).unwrap().1.to_owned();
        assert_eq!(app.get(&path).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn summary_of_an_unknown_segment_suggests_names() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("max_lists", "1")])).await;
    record_sizes(&app, &[("news", 1), ("news2", 1), ("sports", 1)]).await;
    let unknown = get(&app, "/segments/nwes").await;
    assert_eq!((&unknown["known"], &unknown["count"]), (&json!(false), &json!(0)));
    assert_eq!(unknown["did_you_mean"], json!(["news"]));
    assert!(unknown["last_sample"].is_null() && unknown["first_sampled_at"].is_null());
    assert_eq!(get(&app, "/segments/weather").await.get("did_you_mean"), None);
    // The path of batches belongs to visits.
    assert_eq!(app.get("/segments/batch").await.status(), 405);
    assert_eq!(get(&app, "/segments/%62atch").await["segment"], "batch");
}

#[tokio::test]
async fn similar_names_are_empty_while_another_search_runs_and_take_no_permit_of_lists() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("sports", 1)]).await;
    let estimator = Estimator::new(redis.store(), Window::parse("14d").unwrap()).with_max_lists(1);
    let _list = estimator.acquire_list_permit().unwrap();
    let (name, other) = (segment("sprots"), segment("sprtos"));
    let names = [&name];
    let mut first = Box::pin(estimator.similar_names(&names, 1));
    assert!(poll_immediate(&mut first).await.is_none(), "the first search runs");
    assert_eq!(estimator.similar_names(&[&other, &name], 1).await.unwrap(), [vec![], vec![]]);
    assert_eq!(first.await.unwrap(), [[segment("sports")]]);
    assert_eq!(estimator.similar_names(&[&other], 1).await.unwrap(), [[segment("sports")]]);
}

#[tokio::test]
async fn similar_names_are_the_closest_first_in_all_partitions() {
    let redis = Redis::start();
    let store = redis.store().with_partitions(Some(Partitions::parse("8").unwrap()));
    let estimator = Estimator::new(store, Window::parse("14d").unwrap());
    for (user, name) in [("u1", "sports"), ("u2", "Sport"), ("u3", "spots"), ("u4", "spouts"), ("u5", "news")] {
        estimator.record(visit(user, name, NOON), NOON).await.unwrap();
    }
    let similar = async |name: &str, max| -> Vec<String> {
        let names = estimator.similar_names(&[&segment(name)], max).await.unwrap().concat();
        names.iter().map(ToString::to_string).collect()
    };
    assert_eq!(similar("sprots", 10).await, ["sports", "spots", "Sport", "spouts"]);
    assert_eq!(similar("sprots", 2).await, ["sports", "spots"]);
    assert_eq!(similar("sports", 1).await, ["Sport"], "not the name itself");
    assert_eq!(similar("weather", 10).await, Vec::<String>::new());
}
