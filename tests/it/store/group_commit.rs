//! Single visits and counts that are asked together share round trips, and each caller gets the answer to its own.

use segment_estimator::domain::Visit;
use segment_estimator::estimator::{Estimator, Recorded};
use segment_estimator::redis;
use segment_estimator::store;
use serde_json::json;
use tokio::task::{JoinHandle, yield_now};

use crate::helpers::{NOON, Proxy, Redis, TestApp, eventually, in_time, noon_plus, problem, segment, settings, visit};

type Recording = JoinHandle<Result<Recorded, store::Error>>;

/// Starts recording. In these tests' runtimes of one thread, it waits for Redis by the next [`all_wait`].
fn begin(estimator: &Estimator, visit: Visit<'_>) -> Recording {
    let (estimator, visit) = (estimator.clone(), visit.into_owned());
    tokio::spawn(async move { estimator.record(visit, NOON).await })
}

/// Returns when all that was begun has been polled once, and so waits.
async fn all_wait() {
    // A turn of the scheduler is 61 tasks.
    for _ in 0..10 {
        yield_now().await;
    }
}

fn is_member(redis: &Redis, user: &str, name: &str) -> bool {
    redis.call::<Option<f64>>(&["ZSCORE", &format!("segment:{name}"), user]).is_some()
}

/// A Redis whose replies are held, with one visit written that still waits for its reply.
async fn with_a_write_under_way(waiting: usize) -> (Redis, Proxy, Estimator, Recording) {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let estimator = proxy.estimator(waiting);
    // The connections for visits and for counts are there before replies are held.
    estimator.record(visit("before", "before", NOON), NOON).await.unwrap();
    estimator.ready().await.unwrap();
    proxy.hold_replies();
    let first = begin(&estimator, visit("first", "sports", NOON));
    eventually("the first visit is written", async || is_member(&redis, "first", "sports")).await;
    (redis, proxy, estimator, first)
}

async fn outcome(recording: Recording) -> Result<Recorded, store::Error> {
    in_time("the recording", recording).await.unwrap()
}

#[tokio::test]
async fn a_visit_is_not_acknowledged_before_redis_has_replied() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let patient = settings([("redis_timeout", "30s")]);
    let app = TestApp::spawn_on(proxy.url(), patient).await;
    // The connections to Redis are there before replies are held.
    app.record("u104010", "sports").await;
    assert_eq!(app.post_lines(r#"{"user_id":"u104010","segment":"sports"}"#).await.status(), 200);

    proxy.hold_replies();
    let request = app.request("POST", "/segments").json(&json!({ "user_id": "u104011", "segment": "sports" }));
    let mut posting = tokio::spawn(request.send());
    let mut sending = tokio::spawn(app.lines_request(r#"{"user_id":"u104012","segment":"sports"}"#).send());
    for user in ["u104011", "u104012"] {
        eventually("the visit is written", async || is_member(&redis, user, "sports")).await;
    }
    // Whatever would answer early has had every chance to: others are answered meanwhile.
    for _ in 0..10 {
        assert_eq!(app.status_of("/healthz").await, 200);
    }
    assert!(!posting.is_finished() && !sending.is_finished());

    proxy.release_replies();
    assert_eq!(in_time("the answer", &mut posting).await.unwrap().unwrap().status(), 204);
    assert_eq!(in_time("the answer", &mut sending).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn visits_that_arrive_during_a_write_share_the_next() {
    let (redis, proxy, estimator, first) = with_a_write_under_way(1_000).await;
    let later: Vec<_> =
        (0..100).map(|n| begin(&estimator, visit(&format!("u{n}"), ["sports", "news"][n % 2], NOON))).collect();
    all_wait().await;
    assert!(!is_member(&redis, "u0", "sports"), "it waits for the write that is under way");
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);

    proxy.release_replies();
    assert_eq!(outcome(first).await, Ok(Recorded::Accepted));
    for recording in later {
        assert_eq!(outcome(recording).await, Ok(Recorded::Accepted));
    }
    assert_eq!(redis.calls("zadd"), 3, "one command a segment, and one for their names");
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 51);
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:news"]), 50);
}

#[tokio::test]
async fn a_segment_that_fails_fails_its_own_callers_alone() {
    let (redis, proxy, estimator, first) = with_a_write_under_way(1_000).await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);
    let later: Vec<_> = (0..30)
        .map(|n| (n, begin(&estimator, visit(&format!("u{n}"), ["sports", "broken", "news"][n % 3], NOON))))
        .collect();
    all_wait().await;

    proxy.release_replies();
    assert_eq!(outcome(first).await, Ok(Recorded::Accepted));
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
async fn the_later_of_two_visits_that_share_a_write_stays() {
    let (redis, proxy, estimator, first) = with_a_write_under_way(1_000).await;
    let times = [-5_000, -1_000, -9_000];
    let later: Vec<_> =
        times.map(|millis| begin(&estimator, visit("u1", "sports", noon_plus(millis)))).into_iter().collect();
    all_wait().await;
    proxy.release_replies();
    outcome(first).await.unwrap();
    for recording in later {
        outcome(recording).await.unwrap();
    }
    let score: f64 = redis.call(&["ZSCORE", "segment:sports", "u1"]);
    assert_eq!(score, noon_plus(-1_000).as_score());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_the_others_are_written() {
    let (redis, proxy, estimator, first) = with_a_write_under_way(2).await;
    let waiting = [begin(&estimator, visit("u1", "sports", NOON)), begin(&estimator, visit("u2", "sports", NOON))];
    all_wait().await;
    for _ in 0..3 {
        let refused = estimator.record(visit("u3", "sports", NOON), NOON).await;
        assert_eq!(refused, Err(store::Error::Overloaded(2)));
    }

    proxy.release_replies();
    outcome(first).await.unwrap();
    for recording in waiting {
        assert_eq!(outcome(recording).await, Ok(Recorded::Accepted));
    }
    assert!(!is_member(&redis, "u3", "sports"));
    assert_eq!(estimator.record(visit("u3", "sports", NOON), NOON).await, Ok(Recorded::Accepted));
}

#[tokio::test]
async fn a_full_queue_is_a_503_that_says_when_to_come_again() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let changes = settings([("max_waiting", "1"), ("redis_timeout", "30s")]);
    let app = TestApp::spawn_on(proxy.url(), changes).await;
    app.record("u104010", "sports").await;
    proxy.hold_replies();
    let post =
        |user: &str| app.request("POST", "/segments").json(&json!({ "user_id": user, "segment": "sports" })).send();
    let under_way = tokio::spawn(post("first"));
    eventually("the first visit is written", async || is_member(&redis, "first", "sports")).await;

    // One of the two waits, the other finds the queue full; which of them depends on who came first.
    let (one, other) = (tokio::spawn(post("u1")), tokio::spawn(post("u2")));
    eventually("one is refused", async || one.is_finished() || other.is_finished()).await;
    let (refused, waits) = if one.is_finished() { (one, other) } else { (other, one) };
    let document = problem(refused.await.unwrap().unwrap(), 503, "overloaded").await;
    assert!(document["detail"].as_str().unwrap().contains("1 requests are already waiting for Redis"), "{document}");

    proxy.release_replies();
    for answer in [under_way, waits] {
        assert_eq!(in_time("the answer", answer).await.unwrap().unwrap().status(), 204);
    }
}

#[tokio::test]
async fn who_goes_away_while_waiting_takes_the_visit_back() {
    let (redis, proxy, estimator, first) = with_a_write_under_way(1_000).await;
    let gone = begin(&estimator, visit("gone", "sports", NOON));
    let stays = begin(&estimator, visit("stays", "sports", NOON));
    all_wait().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());

    proxy.release_replies();
    outcome(first).await.unwrap();
    assert_eq!(outcome(stays).await, Ok(Recorded::Accepted));
    assert!(!is_member(&redis, "gone", "sports"));
}

#[tokio::test]
async fn a_single_visit_is_written_without_company() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    for n in 0..3 {
        let recorded = in_time("the recording", estimator.record(visit(&format!("u{n}"), "sports", NOON), NOON)).await;
        assert_eq!(recorded, Ok(Recorded::Accepted));
    }
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 3);
}

#[tokio::test]
async fn counts_that_arrive_together_share_a_round_trip_and_the_same_ones_an_answer() {
    let (redis, proxy, estimator, first) = with_a_write_under_way(1_000).await;
    redis.call::<()>(&["SET", "segment:broken", "not a sorted set"]);
    let ask = |name: &'static str| {
        let estimator = estimator.clone();
        tokio::spawn(async move { estimator.estimate(&segment(name), NOON).await })
    };
    let under_way = ask("news");
    eventually("a count is under way", async || redis.calls("zcount") == 1).await;
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);
    let later: Vec<_> =
        (0..40).map(|n| ["sports", "news", "broken", "nobody"][n % 4]).map(|name| (name, ask(name))).collect();
    all_wait().await;

    proxy.release_replies();
    outcome(first).await.unwrap();
    assert_eq!(under_way.await.unwrap(), Ok(0));
    for (name, count) in later {
        match (name, in_time("the count", count).await.unwrap()) {
            ("sports", count) => assert_eq!(count, Ok(1)),
            ("broken", count) => {
                assert!(matches!(count, Err(store::Error::Redis(redis::Error::WrongType { .. }))), "{count:?}")
            }
            (_, count) => assert_eq!(count, Ok(0)),
        }
    }
    assert_eq!(redis.calls("zcount"), 4, "one for each segment");
}

#[tokio::test]
async fn a_count_sees_what_was_acknowledged_before_it_was_asked() {
    let (redis, proxy, estimator, first) = with_a_write_under_way(1_000).await;
    let ask = || {
        let estimator = estimator.clone();
        tokio::spawn(async move { estimator.estimate(&segment("news"), NOON).await })
    };
    let before = ask();
    eventually("the first count is answered by Redis", async || redis.calls("zcount") == 1).await;
    redis.call::<()>(&["ZADD", "segment:news", &NOON.as_score().to_string(), "u104010"]);
    let after = ask();
    all_wait().await;

    proxy.release_replies();
    outcome(first).await.unwrap();
    assert_eq!((before.await.unwrap(), after.await.unwrap()), (Ok(0), Ok(1)));
}
