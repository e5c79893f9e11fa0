//! Instances with wrong clocks on one Redis: their counts agree, and none prunes a member that counts.

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

/// Returns the time of Redis, which instances with a wrong clock use.
fn redis_time(redis: &Redis) -> Timestamp {
    let (seconds, micros): (i64, i64) = redis.call(&["TIME"]);
    Timestamp::from_millis(seconds * 1_000 + micros / 1_000)
}

fn plus(time: Timestamp, millis: i64) -> Timestamp {
    Timestamp::from_millis(time.as_millis() + millis)
}

/// Returns the time of the last visit of `user` to `sports`.
fn seen_at(redis: &Redis, user: &str) -> Timestamp {
    Timestamp::from_unix_seconds(redis.call(&["ZSCORE", "segment:sports", user]))
}

/// Adds a member that was seen at `time` to `sports`, past the service.
fn add(redis: &Redis, user: &str, time: Timestamp) {
    redis.record_data_set();
    redis.call::<()>(&["ZADD", "segment:sports", &time.as_score().to_string(), user]);
    redis.call::<()>(&["ZADD", "segments", "0", "sports"]);
}

/// Starts two instances on `redis`, with clocks an hour ahead and an hour behind.
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
async fn record_uses_the_time_of_redis_and_counts_at_once_on_both_instances() {
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
async fn count_uses_the_same_cutoff_on_both_instances() {
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
async fn record_caps_or_refuses_times_ahead_of_redis() {
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

/// The name of a member is the time until it expires in milliseconds; negative since it expired.
#[rstest]
#[case::ahead(HOUR, &[MINUTE, HOUR / 2, HOUR - MINUTE, 2 * HOUR], &[-MINUTE, -2 * HOUR])]
// The instance can't tell this from a Redis that is an hour ahead, so it prunes a member only an hour after its expiry.
#[case::behind(-HOUR, &[MINUTE - HOUR, -MINUTE, MINUTE, 2 * HOUR], &[-HOUR - MINUTE, -2 * HOUR])]
#[tokio::test]
async fn prune_by_a_wrong_clock_keeps_members_that_count(
    #[case] ahead_by: i64,
    #[case] kept: &[i64],
    #[case] pruned: &[i64],
) {
    let redis = Redis::start();
    let edge = Window::parse("14d").unwrap().cutoff(redis_time(&redis));
    for millis in kept.iter().chain(pruned) {
        add(&redis, &millis.to_string(), plus(edge, *millis));
    }
    let right = TestApp::spawn(&redis).await;
    let counted = right.count("sports").await;

    let every_second = settings([("prune_schedule", "* * * * * *")]);
    let wrong = TestApp::spawn_ahead_by(ahead_by, &redis, every_second).await;
    let members = || redis.call::<Vec<String>>(&["ZRANGE", "segment:sports", "0", "-1"]);
    eventually("the expired are pruned", async || !members().contains(&pruned[0].to_string())).await;

    assert_eq!(members(), kept.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!((right.count("sports").await, wrong.count("sports").await), (counted, counted));
}

#[tokio::test]
async fn sync_measures_the_skew_before_the_first_request() {
    let redis = Redis::start();
    for (app, expected) in ahead_and_behind(&redis).await.iter().zip([3_600.0, -3_600.0]) {
        let skew = skew_of(app).await;
        assert!((skew - expected).abs() < 1.0, "{skew}");
    }
    let right = TestApp::spawn(&redis).await;
    assert!(skew_of(&right).await.abs() < 1.0);
}

#[tokio::test]
async fn sync_runs_when_redis_returns_after_the_start() {
    let mut redis = Redis::start();
    redis.stop();
    let app = TestApp::spawn_ahead_by(HOUR, &redis, settings([])).await;
    assert!(skew_of(&app).await.is_nan());
    let visit = json!({ "user_id": "u1", "segment": "sports" });
    problem(app.post_visit(&visit).await, 503, "store-unavailable").await;
    redis.start_again();
    // The first accepted visit has the right time.
    eventually("a visit is accepted", async || app.post_visit(&visit).await.status() == 204).await;
    assert!((skew_of(&app).await - 3_600.0).abs() < 1.0);
    assert!(seen_at(&redis, "u1") <= redis_time(&redis) + Skew::TOLERANCE);

    // The metric is NaN while Redis is down, but the last skew still corrects the clock.
    redis.stop();
    eventually("the skew is unknown", async || skew_of(&app).await.is_nan()).await;
    let in_six_minutes = plus(Timestamp::now(), 6 * MINUTE).to_string();
    let visit = json!({ "user_id": "u1", "segment": "sports", "seen_at": in_six_minutes });
    problem(app.post_visit(&visit).await, 422, "invalid-request").await;
}

#[tokio::test]
async fn sync_with_a_redis_that_cannot_serve_logs_no_recovery() {
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
async fn sync_uses_the_clock_of_the_machine_if_an_acl_forbids_time() {
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
async fn sync_logs_a_wrong_clock_once() {
    let redis = Redis::start();
    let log = Log::default();
    let guard = tracing::subscriber::set_default(log.subscriber());
    let every_second = settings([("prune_schedule", "* * * * * *")]);
    let _app = TestApp::spawn_ahead_by(-HOUR, &redis, every_second).await;
    eventually("the clock is synchronized a few times", async || redis.calls("time") >= 4).await;
    drop(guard);
    let lines = log.lines_with("clock");
    assert_eq!(lines.len(), 1, "{log:?}");
    let expected = "this machine's clock is 1h behind Redis's; using Redis's clock";
    assert!(lines[0].contains("WARN") && lines[0].contains(expected), "{lines:?}");
}

#[rstest]
#[case::ahead(HOUR, "\nthis machine's clock is 1h ahead of Redis's, so the service uses Redis's clock\n")]
#[case::right(0, "; set zset-max-listpack-entries to 16\n")]
#[tokio::test]
async fn check_reports_a_wrong_clock_and_succeeds(#[case] ahead_by: i64, #[case] end: &str) {
    let redis = Redis::start();
    let url = settings([("redis_url", &redis.url())]);
    let settings = Settings::from_layers(&[(Source::Flags, url)]).unwrap();
    let mut out = Vec::new();
    check(&settings, &[], &Clock::ahead_by(ahead_by), &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    // Without the dry run, which is of 7.0, the line about Redis ends with another clause.
    let unknown = "; whether its ACL permits all required commands is unknown\n";
    let text = if redis.has_acl_dry_run() { text } else { text.replacen(unknown, "\n", 1) };
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn service_reads_no_other_clock() {
    // The last one creates tokens on the command line.
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

/// The log of the services on the thread of a test.
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
