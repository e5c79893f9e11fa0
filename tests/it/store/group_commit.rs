//! Group commit: concurrent visits and counts share batches, and each caller gets its own result.

use segment_estimator::domain::Visit;
use segment_estimator::estimator::{Estimator, Recorded};
use segment_estimator::redis;
use segment_estimator::store;
use serde_json::json;
use tokio::task::{JoinHandle, yield_now};

use crate::helpers::{NOON, Proxy, Redis, TestApp, eventually, in_time, noon_plus, problem, segment, settings, visit};

type Recording = JoinHandle<Result<Recorded, store::Error>>;

/// Starts recording `visit`. On the single thread of these tests, the visit is pending after the next [`poll_all`].
fn begin(estimator: &Estimator, visit: Visit<'_>) -> Recording {
    let (estimator, visit) = (estimator.clone(), visit.into_owned());
    tokio::spawn(async move { estimator.record(visit, NOON).await })
}

/// Returns when all spawned tasks have been polled once, and their requests are pending.
async fn poll_all() {
    // The scheduler runs 61 tasks between two polls of this one.
    for _ in 0..10 {
        yield_now().await;
    }
}

fn is_member(redis: &Redis, user: &str, name: &str) -> bool {
    redis.call::<Option<f64>>(&["ZSCORE", &format!("segment:{name}"), user]).is_some()
}

/// Returns a Redis whose replies are held, and two recordings that are written but have no reply. As many batches may
/// be in flight, so further recordings are pending. `max_pending` limits the queue.
async fn with_writes_in_flight(max_pending: usize) -> (Redis, Proxy, Estimator, [Recording; 2]) {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let estimator = proxy.estimator(max_pending);
    // Connect for visits and counts before replies are held.
    estimator.record(visit("before", "before", NOON), NOON).await.unwrap();
    estimator.ready().await.unwrap();
    proxy.hold_replies();
    let first = begin(&estimator, visit("first", "sports", NOON));
    eventually("the first visit is written", async || is_member(&redis, "first", "sports")).await;
    let second = begin(&estimator, visit("second", "before", NOON));
    eventually("the second visit is written", async || is_member(&redis, "second", "before")).await;
    (redis, proxy, estimator, [first, second])
}

async fn outcome(recording: Recording) -> Result<Recorded, store::Error> {
    in_time("the recording", recording).await.unwrap()
}

#[tokio::test]
async fn record_answers_after_the_reply_of_redis() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let long_timeout = settings([("redis_timeout", "30s")]);
    let app = TestApp::spawn_on(proxy.url(), long_timeout).await;
    // Connect before replies are held.
    app.record("u104010", "sports").await;
    assert_eq!(app.post_lines(r#"{"user_id":"u104010","segment":"sports"}"#).await.status(), 200);

    proxy.hold_replies();
    let request = app.request("POST", "/segments").json(&json!({ "user_id": "u104011", "segment": "sports" }));
    let mut posting = tokio::spawn(request.send());
    let mut sending = tokio::spawn(app.lines_request(r#"{"user_id":"u104012","segment":"sports"}"#).send());
    for user in ["u104011", "u104012"] {
        eventually("the visit is written", async || is_member(&redis, user, "sports")).await;
    }
    // A premature answer would arrive in the meantime.
    for _ in 0..10 {
        assert_eq!(app.status_of("/healthz").await, 200);
    }
    assert!(!posting.is_finished() && !sending.is_finished());

    proxy.release_replies();
    assert_eq!(in_time("the answer", &mut posting).await.unwrap().unwrap().status(), 204);
    assert_eq!(in_time("the answer", &mut sending).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn record_batches_visits_that_arrive_during_a_write() {
    let (redis, proxy, estimator, in_flight) = with_writes_in_flight(1_000).await;
    let later: Vec<_> =
        (0..100).map(|n| begin(&estimator, visit(&format!("u{n}"), ["sports", "news"][n % 2], NOON))).collect();
    poll_all().await;
    assert!(!is_member(&redis, "u0", "sports"), "it waits for a write in flight");
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);

    proxy.release_replies();
    for recording in in_flight {
        assert_eq!(outcome(recording).await, Ok(Recorded::Accepted));
    }
    for recording in later {
        assert_eq!(outcome(recording).await, Ok(Recorded::Accepted));
    }
    assert_eq!(redis.calls("zadd"), 3, "one command a segment, and one for their names");
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 51);
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:news"]), 50);
}

#[tokio::test]
async fn record_fails_for_the_callers_of_a_broken_segment_alone() {
    let (redis, proxy, estimator, in_flight) = with_writes_in_flight(1_000).await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);
    let later: Vec<_> = (0..30)
        .map(|n| (n, begin(&estimator, visit(&format!("u{n}"), ["sports", "broken", "news"][n % 3], NOON))))
        .collect();
    poll_all().await;

    proxy.release_replies();
    for recording in in_flight {
        assert_eq!(outcome(recording).await, Ok(Recorded::Accepted));
    }
    for (n, recording) in later {
        match outcome(recording).await {
            Ok(Recorded::Accepted) => assert_ne!(n % 3, 1),
            Err(store::Error::Redis(redis::Error::WrongType { command })) => {
                assert_eq!((n % 3, command.as_str()), (1, "ZADD segment:broken"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:news"]), 10);
}

#[tokio::test]
async fn record_keeps_the_latest_visit_of_a_batch() {
    let (redis, proxy, estimator, in_flight) = with_writes_in_flight(1_000).await;
    let times = [-5_000, -1_000, -9_000];
    let later: Vec<_> =
        times.map(|millis| begin(&estimator, visit("u1", "sports", noon_plus(millis)))).into_iter().collect();
    poll_all().await;
    proxy.release_replies();
    for recording in in_flight {
        outcome(recording).await.unwrap();
    }
    for recording in later {
        outcome(recording).await.unwrap();
    }
    let score: f64 = redis.call(&["ZSCORE", "segment:sports", "u1"]);
    assert_eq!(score, noon_plus(-1_000).as_score());
}

#[tokio::test]
async fn record_fails_at_once_if_the_queue_is_full() {
    let (redis, proxy, estimator, in_flight) = with_writes_in_flight(2).await;
    let waiting = [begin(&estimator, visit("u1", "sports", NOON)), begin(&estimator, visit("u2", "sports", NOON))];
    poll_all().await;
    for _ in 0..3 {
        let refused = estimator.record(visit("u3", "sports", NOON), NOON).await;
        assert_eq!(refused, Err(store::Error::Overloaded(2)));
    }

    proxy.release_replies();
    for recording in in_flight {
        outcome(recording).await.unwrap();
    }
    for recording in waiting {
        assert_eq!(outcome(recording).await, Ok(Recorded::Accepted));
    }
    assert!(!is_member(&redis, "u3", "sports"));
    assert_eq!(estimator.record(visit("u3", "sports", NOON), NOON).await, Ok(Recorded::Accepted));
}

#[tokio::test]
async fn post_is_503_overloaded_if_the_queue_is_full() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let changes = settings([("max_waiting", "1"), ("redis_timeout", "30s")]);
    let app = TestApp::spawn_on(proxy.url(), changes).await;
    app.record("u104010", "sports").await;
    proxy.hold_replies();
    let post =
        |user: &str| app.request("POST", "/segments").json(&json!({ "user_id": user, "segment": "sports" })).send();
    // Two batches may be in flight.
    let first = tokio::spawn(post("first"));
    eventually("the first visit is written", async || is_member(&redis, "first", "sports")).await;
    let second = tokio::spawn(post("second"));
    eventually("the second visit is written", async || is_member(&redis, "second", "sports")).await;

    // The first of the two requests to arrive is pending; the other one finds the queue full.
    let (one, other) = (tokio::spawn(post("u1")), tokio::spawn(post("u2")));
    eventually("one is refused", async || one.is_finished() || other.is_finished()).await;
    let (refused, pending) = if one.is_finished() { (one, other) } else { (other, one) };
    let document = problem(refused.await.unwrap().unwrap(), 503, "overloaded").await;
    assert!(document["detail"].as_str().unwrap().contains("1 request is already waiting for Redis"), "{document}");

    proxy.release_replies();
    for answer in [first, second, pending] {
        assert_eq!(in_time("the answer", answer).await.unwrap().unwrap().status(), 204);
    }
}

#[tokio::test]
async fn record_withdraws_the_visit_if_it_is_dropped_before_the_write() {
    let (redis, proxy, estimator, in_flight) = with_writes_in_flight(1_000).await;
    let dropped = begin(&estimator, visit("dropped", "sports", NOON));
    let kept = begin(&estimator, visit("kept", "sports", NOON));
    poll_all().await;
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());

    proxy.release_replies();
    for recording in in_flight {
        outcome(recording).await.unwrap();
    }
    assert_eq!(outcome(kept).await, Ok(Recorded::Accepted));
    assert!(!is_member(&redis, "dropped", "sports"));
}

#[tokio::test]
async fn record_writes_a_single_visit_at_once() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    for n in 0..3 {
        let recorded = in_time("the recording", estimator.record(visit(&format!("u{n}"), "sports", NOON), NOON)).await;
        assert_eq!(recorded, Ok(Recorded::Accepted));
    }
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 3);
}

#[tokio::test]
async fn estimate_batches_counts_and_deduplicates_them() {
    let (redis, proxy, estimator, writes) = with_writes_in_flight(1_000).await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);
    let count = |name: &'static str| {
        let estimator = estimator.clone();
        tokio::spawn(async move { estimator.estimate(&segment(name), NOON).await })
    };
    let first = count("news");
    eventually("a count is in flight", async || redis.calls("zcount") == 1).await;
    let second = count("news");
    eventually("two counts are in flight", async || redis.calls("zcount") == 2).await;
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);
    let later: Vec<_> =
        (0..40).map(|n| ["sports", "news", "broken", "empty"][n % 4]).map(|name| (name, count(name))).collect();
    poll_all().await;

    proxy.release_replies();
    for recording in writes {
        outcome(recording).await.unwrap();
    }
    for count in [first, second] {
        assert_eq!(count.await.unwrap(), Ok(0.into()));
    }
    for (name, count) in later {
        match (name, in_time("the count", count).await.unwrap()) {
            ("sports", count) => assert_eq!(count, Ok(1.into())),
            ("broken", count) => {
                assert!(matches!(count, Err(store::Error::Redis(redis::Error::WrongType { .. }))), "{count:?}")
            }
            (_, count) => assert_eq!(count, Ok(0.into())),
        }
    }
    assert_eq!(redis.calls("zcount"), 4, "one for each segment");
}

#[tokio::test]
async fn estimate_includes_visits_acknowledged_before_the_call() {
    let (redis, proxy, estimator, in_flight) = with_writes_in_flight(1_000).await;
    let count = || {
        let estimator = estimator.clone();
        tokio::spawn(async move { estimator.estimate(&segment("news"), NOON).await })
    };
    let before = count();
    eventually("the first count is answered by Redis", async || redis.calls("zcount") == 1).await;
    redis.call::<()>(&["ZADD", "segment:news", &NOON.as_score().to_string(), "u104010"]);
    let after = count();
    poll_all().await;

    proxy.release_replies();
    for recording in in_flight {
        outcome(recording).await.unwrap();
    }
    assert_eq!((before.await.unwrap(), after.await.unwrap()), (Ok(0.into()), Ok(1.into())));
}
