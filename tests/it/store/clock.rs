//! Services on machines whose clocks are wrong, on one Redis: they agree on who counts, and none prunes anybody who does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rstest::rstest;
use segment_estimator::commands::check::check;
use segment_estimator::config::{Settings, Source};
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::clock::{Clock, Skew};
use serde_json::json;

use crate::helpers::{Client, Redis, TestApp, eventually, problem, settings};

const HOUR: i64 = 3_600_000;
const MINUTE: i64 = 60_000;

/// Redis's time, by which those who disagree go.
fn redis_time(redis: &Redis) -> Timestamp {
    let (seconds, micros): (i64, i64) = redis.call(&["TIME"]);
    Timestamp::from_millis(seconds * 1_000 + micros / 1_000)
}

fn plus(time: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis() + millis)
}

/// When `user` was last seen in `sports`.
fn seen_at(redis: &Redis, user: &str) -> Timestamp {
    Timestamp::from_unix_seconds(redis.call(&["ZSCORE", "segment:sports", user]))
}

/// Puts a member that was seen at `time` into `sports` straight away.
fn add(redis: &Redis, user: &str, time: Timestamp) {
    redis.record_data_set();
    redis.call::<()>(&["ZADD", "segment:sports", &time.as_score().to_string(), user]);
    redis.call::<()>(&["ZADD", "segments", "0", "sports"]);
}

/// Two services on `redis`: one's clock is an hour ahead, the other's an hour behind.
async fn ahead_and_behind(redis: &Redis) -> [TestApp; 2] {
    let spawn = async |millis| TestApp::spawn_ahead_by(millis, redis, settings([])).await;
    [spawn(HOUR).await, spawn(-HOUR).await]
}

async fn skew_of(client: &Client) -> f64 {
    let text = client.get("/metrics").await.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("estimator_clock_skew_seconds "));
    value.unwrap_or_else(|| panic!("not in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn a_visit_that_either_takes_is_of_now_and_counts_in_both_at_once() {
    let redis = Redis::start();
    let apps = ahead_and_behind(&redis).await;
    for (number, app) in (1..).zip(&apps) {
        let (alone, listed) = (format!("alone{number}"), format!("listed{number}"));
        let before = redis_time(&redis);
        app.record(&alone, "sports").await;
        assert_eq!(app.post_lines(json!({ "user_id": listed, "segment": "sports" }).to_string()).await.status(), 200);
        let array = json!([{ "user_id": format!("array{number}"), "segment": "sports" }]);
        assert_eq!(app.post_array(&array).await.status(), 200);
        let after = redis_time(&redis);
        for user in [alone, listed, format!("array{number}")] {
            let score = seen_at(&redis, &user);
            let expected = before - Skew::TOLERANCE..=after + Skew::TOLERANCE;
            assert!(expected.contains(&score), "{user}: {score} is not in {expected:?}");
        }
        for other in &apps {
            assert_eq!(other.count("sports").await, number * 3);
        }
    }
}

#[tokio::test]
async fn a_window_ends_for_both_at_the_same_time() {
    let redis = Redis::start();
    let apps = ahead_and_behind(&redis).await;
    let edge = Window::parse("14d").unwrap().cutoff(redis_time(&redis));
    add(&redis, "in", plus(edge, MINUTE));
    add(&redis, "out", plus(edge, -MINUTE));
    for app in &apps {
        assert_eq!(app.count("sports").await, 1);
    }
}

#[tokio::test]
async fn what_is_ahead_of_the_true_time_is_held_at_it_or_refused() {
    let redis = Redis::start();
    for app in ahead_and_behind(&redis).await {
        let visit = |minutes| {
            let seen_at = plus(redis_time(&redis), minutes * MINUTE).to_string();
            json!({ "user_id": "u1", "segment": "sports", "seen_at": seen_at })
        };
        assert_eq!(app.post_visit(&visit(4)).await.status(), 204);
        assert!(seen_at(&redis, "u1") <= redis_time(&redis) + Skew::TOLERANCE);
        problem(app.post_visit(&visit(6)).await, 422, "invalid-request").await;
    }
}

/// Members are named by how long they count yet, in milliseconds; below zero by how long they don't.
#[rstest]
#[case::ahead(HOUR, &[MINUTE, HOUR / 2, HOUR - MINUTE, 2 * HOUR], &[-MINUTE, -2 * HOUR])]
// Were it Redis that is an hour ahead, it would look the same: nobody is pruned before the hour is over.
#[case::behind(-HOUR, &[MINUTE - HOUR, -MINUTE, MINUTE, 2 * HOUR], &[-HOUR - MINUTE, -2 * HOUR])]
#[tokio::test]
async fn pruning_by_a_wrong_clock_removes_nobody_who_counts(
    #[case] ahead_by: i64,
    #[case] stay: &[i64],
    #[case] go: &[i64],
) {
    let redis = Redis::start();
    let edge = Window::parse("14d").unwrap().cutoff(redis_time(&redis));
    for millis in stay.iter().chain(go) {
        add(&redis, &millis.to_string(), plus(edge, *millis));
    }
    let right = TestApp::spawn(&redis).await;
    let counted = right.count("sports").await;

    let every_second = settings([("prune_schedule", "* * * * * *")]);
    let wrong = TestApp::spawn_ahead_by(ahead_by, &redis, every_second).await;
    let members = || redis.call::<Vec<String>>(&["ZRANGE", "segment:sports", "0", "-1"]);
    eventually("the expired are pruned", async || !members().contains(&go[0].to_string())).await;

    assert_eq!(members(), stay.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!((right.count("sports").await, wrong.count("sports").await), (counted, counted));
}

#[tokio::test]
async fn the_skew_is_measured_before_the_first_request() {
    let redis = Redis::start();
    for (app, expected) in ahead_and_behind(&redis).await.iter().zip([3_600.0, -3_600.0]) {
        let skew = skew_of(app).await;
        assert!((skew - expected).abs() < 1.0, "{skew}");
    }
    let right = TestApp::spawn(&redis).await;
    assert!(skew_of(&right).await.abs() < 1.0);
}

#[tokio::test]
async fn a_redis_that_is_away_at_the_start_is_compared_with_when_it_is_back() {
    let mut redis = Redis::start();
    redis.stop();
    let app = TestApp::spawn_ahead_by(HOUR, &redis, settings([])).await;
    assert!(skew_of(&app).await.is_nan());
    let visit = json!({ "user_id": "u1", "segment": "sports" });
    problem(app.post_visit(&visit).await, 503, "store-unavailable").await;
    redis.start_again();
    // The first visit that is taken has the right time already.
    eventually("a visit is taken", async || app.post_visit(&visit).await.status() == 204).await;
    assert!((skew_of(&app).await - 3_600.0).abs() < 1.0);
    assert!(seen_at(&redis, "u1") <= redis_time(&redis) + Skew::TOLERANCE);

    // What is not known any more is not a number. The clock is as wrong as it was, and goes on to be corrected.
    redis.stop();
    eventually("it is not known", async || skew_of(&app).await.is_nan()).await;
    let in_six_minutes = plus(Timestamp::now(), 6 * MINUTE).to_string();
    let visit = json!({ "user_id": "u1", "segment": "sports", "seen_at": in_six_minutes });
    problem(app.post_visit(&visit).await, 422, "invalid-request").await;
}

#[tokio::test]
async fn a_redis_that_tells_its_time_and_does_not_serve_is_not_taken_for_well() {
    let redis = Redis::start();
    let every_second = settings([("prune_schedule", "* * * * * *")]);
    let app = TestApp::spawn_with(&redis, every_second).await;
    eventually("the first sample is taken", async || redis.calls("zcard") == 1).await;
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.subscriber());
    redis.call::<()>(&["CONFIG", "SET", "replica-serve-stale-data", "no"]);
    redis.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    problem(app.get("/readyz").await, 503, "store-unavailable").await;
    eventually("a few runs of pruning have failed", async || log.lines_with("pruning failed").len() >= 4).await;
    drop(guard);
    assert!(log.lines_with("answers again").is_empty(), "{log:?}");
}

#[tokio::test]
async fn a_redis_that_may_not_be_asked_for_its_time_is_served_by_the_clock_of_the_machine() {
    let redis = Redis::start();
    redis.call::<()>(&["ACL", "SETUSER", "estimator", "on", ">hunter2", "~*", "+@all", "-time"]);
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.subscriber());
    let settings = settings([
        ("window", "1s"),
        ("prune_schedule", "* * * * * *"),
        ("redis_url", &format!("{}?user=estimator&pass=hunter2", redis.url())),
    ]);
    let app = TestApp::spawn_ahead_by(-HOUR, &redis, settings).await;
    assert!(skew_of(&app).await.is_nan());
    app.record("u1", "sports").await;
    assert_eq!(app.count("sports").await, 1);
    assert!(seen_at(&redis, "u1") < plus(redis_time(&redis), MINUTE - HOUR));
    eventually("it is pruned", async || redis.sets().is_empty()).await;
    drop(guard);
    assert!(log.lines_with("WARN").is_empty(), "{log:?}");
    assert_eq!(log.lines_with("Redis doesn't report its time (its ACL may forbid it)").len(), 1, "{log:?}");
}

#[tokio::test]
async fn a_wrong_clock_is_a_single_line_however_often_it_is_compared() {
    let redis = Redis::start();
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.subscriber());
    let every_second = settings([("prune_schedule", "* * * * * *")]);
    let _app = TestApp::spawn_ahead_by(-HOUR, &redis, every_second).await;
    eventually("they are compared a few times", async || redis.calls("time") >= 4).await;
    drop(guard);
    let lines = log.lines_with("clock");
    assert_eq!(lines.len(), 1, "{log:?}");
    let expected = "this machine's clock is 1h behind Redis's; using Redis's clock";
    assert!(lines[0].contains("WARN") && lines[0].contains(expected), "{lines:?}");
}

#[rstest]
#[case::ahead(HOUR, "\nthis machine's clock is 1h ahead of Redis's, so the service uses Redis's clock\n")]
#[case::right(0, "it refuses writes when its memory is full\n")]
#[tokio::test]
async fn the_check_tells_of_a_wrong_clock_and_is_content(#[case] ahead_by: i64, #[case] end: &str) {
    let redis = Redis::start();
    let url = settings([("redis_url", &redis.url())]);
    let settings = Settings::from_layers(&[(Source::Flags, url)]).unwrap();
    let mut out = Vec::new();
    check(&settings, &[], &Clock::ahead_by(ahead_by), &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn what_serves_looks_at_no_other_clock() {
    // The last makes tokens on a command line.
    let allowed = ["src/estimator/clock.rs", "src/lib.rs", "src/domain/time.rs", "src/commands/token.rs"];
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if path.extension().is_none() {
                folders.push(path);
            } else if !allowed.iter().any(|file| path == Path::new(file)) {
                let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&path)).unwrap();
                for now in ["Timestamp::now", "Utc::now", "SystemTime::now"] {
                    assert!(!source.contains(now), "{} reads {now}", path.display());
                }
            }
        }
    }
}

/// The log of the services in a test's own thread.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let log = self.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish()
    }

    fn lines_with(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
