//! Acknowledgements by replicas: on a primary and its replicas, some of which are frozen.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use reqwest::StatusCode;
use rstest::rstest;
use segment_estimator::config::RawSettings;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::helpers::{
    Client, Proxy, Redis, Service, TestApp, binary, eventually, free_port, in_time, kill, problem, run, settings,
    settings_with,
};

/// A primary with replicas that are online.
struct Replicated {
    primary: Redis,
    replicas: Vec<Redis>,
}

impl Replicated {
    async fn start(replicas: usize) -> Self {
        let port = free_port();
        let primary = Redis::start_primary(&port);
        let replicas: Vec<_> = (0..replicas).map(|_| Redis::start_replica(&port)).collect();
        eventually("the replicas are online", async || primary.replicas() == replicas.len()).await;
        Self { primary, replicas }
    }

    /// Suspends the first replica. Its connection stays.
    fn freeze(&self) {
        kill("-STOP", self.replicas[0].pid());
    }

    fn thaw(&self) {
        kill("-CONT", self.replicas[0].pid());
    }
}

/// Returns settings that require acknowledgements by `replicas`.
fn acks(replicas: &str, redis_timeout: &str) -> RawSettings {
    settings([("write_acks", replicas), ("redis_timeout", redis_timeout)])
}

/// Returns settings that require acknowledgements by `replicas` on disk.
fn acks_on_disk(replicas: &str, redis_timeout: &str) -> RawSettings {
    settings_with(acks(replicas, redis_timeout), [("write_acks_on_disk", "true")])
}

fn sports(user: &str) -> Value {
    json!({ "user_id": user, "segment": "sports" })
}

fn is_member(redis: &Redis, user: &str) -> bool {
    redis.call::<Option<f64>>(&["ZSCORE", "segment:sports", user]).is_some()
}

/// Returns the number of visits that failed for `reason`.
async fn failed(client: &Client, reason: &str) -> u64 {
    let sample = format!("estimator_visits_failed_total{{reason=\"{reason}\"}} ");
    let text = client.get("/metrics").await.text().await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(&sample)).unwrap().parse().unwrap()
}

/// Repeats a visit until it is acknowledged. A replica needs a moment after it was frozen.
async fn eventually_acknowledged(app: &TestApp, user: &str) {
    eventually("visits are acknowledged", async || app.post_visit(&sports(user)).await.status() == 204).await;
}

#[tokio::test]
async fn record_answers_when_the_required_replicas_have_the_visit() {
    let redis = Replicated::start(2).await;
    let app = TestApp::spawn_with(&redis.primary, acks("2", "30s")).await;
    for n in 0..50 {
        let (single, batched) = (format!("s{n}"), format!("b{n}"));
        app.record(&single, "sports").await;
        assert_eq!(app.post_array(&json!([sports(&batched)])).await.status(), 200);
        for replica in &redis.replicas {
            assert!(is_member(replica, &single) && is_member(replica, &batched), "{n}");
        }
    }
    let names: Vec<String> = redis.replicas[0].call(&["ZRANGE", "segments", "0", "-1"]);
    assert_eq!(names, ["sports"], "the wait leaves no keys or members");
}

#[tokio::test]
async fn record_waits_for_the_replica_and_counts_do_not() {
    let redis = Replicated::start(1).await;
    let app = TestApp::spawn_with(&redis.primary, acks("1", "1h")).await;
    app.record("u1", "sports").await;

    redis.freeze();
    let post = |path: &str, body: &Value| tokio::spawn(app.request("POST", path).json(body).send());
    let single = post("/segments", &sports("u2"));
    let batch = post("/segments/batch", &json!([sports("u3")]));
    for user in ["u2", "u3"] {
        eventually("the visit is written", async || is_member(&redis.primary, user)).await;
    }
    for _ in 0..10 {
        assert_eq!(in_time("the count", app.count("sports")).await, 3, "the primary has the visit");
        assert_eq!(in_time("the probe", app.status_of("/readyz")).await, 200);
    }
    assert!(!single.is_finished() && !batch.is_finished());

    redis.thaw();
    assert_eq!(in_time("the answer", single).await.unwrap().unwrap().status(), 204);
    assert_eq!(in_time("the answer", batch).await.unwrap().unwrap().status(), 200);
    assert!(is_member(&redis.replicas[0], "u2") && is_member(&redis.replicas[0], "u3"));
}

/// A second batch would use up the time in which the first one must be replicated.
#[tokio::test]
async fn record_sends_no_second_batch_while_it_waits_for_the_replica() {
    let redis = Replicated::start(1).await;
    let app = TestApp::spawn_with(&redis.primary, acks("1", "30s")).await;
    eventually_acknowledged(&app, "u1").await;
    redis.freeze();
    let first = tokio::spawn(app.request("POST", "/segments").json(&sports("u2")).send());
    eventually("the first visit is written", async || is_member(&redis.primary, "u2")).await;
    let second = tokio::spawn(app.request("POST", "/segments").json(&sports("u3")).send());
    eventually("the second visit waits", async || {
        app.get("/metrics").await.text().await.unwrap().contains("\nestimator_round_waiting{kind=\"visits\"} 1\n")
    })
    .await;
    assert!(!is_member(&redis.primary, "u3"));

    redis.thaw();
    for answer in [first, second] {
        assert_eq!(in_time("the answer", answer).await.unwrap().unwrap().status(), 204);
    }
}

#[tokio::test]
async fn record_is_503_while_a_replica_is_frozen() {
    let redis = Replicated::start(2).await;
    let app = TestApp::spawn_with(&redis.primary, acks("2", "3s")).await;
    eventually_acknowledged(&app, "u1").await;
    let one = TestApp::spawn_with(&redis.primary, acks("1", "3s")).await;

    let before = failed(&app, "not_replicated").await;
    redis.freeze();
    let document = problem(app.post_visit(&sports("u2")).await, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("too few of its replicas have it"), "{document}");
    assert_eq!(failed(&app, "not_replicated").await, before + 1);
    eventually_acknowledged(&one, "u3").await;
    assert!(is_member(&redis.replicas[1], "u3"), "the other replica is enough for write_acks 1");
    assert_eq!(app.count("sports").await, 3, "an unacknowledged visit may be written");

    redis.thaw();
    eventually_acknowledged(&app, "u2").await;
    assert!(redis.replicas.iter().all(|replica| is_member(replica, "u2")));
}

/// A repetition changes nothing in Redis, but must not be acknowledged before the first attempt is replicated.
#[tokio::test]
async fn record_waits_for_the_first_attempt_of_a_repeated_visit() {
    let redis = Replicated::start(1).await;
    let [app, other] = [
        TestApp::spawn_with(&redis.primary, acks("1", "3s")).await,
        TestApp::spawn_with(&redis.primary, acks("1", "3s")).await,
    ];
    eventually_acknowledged(&app, "u2").await;
    // Without `seen_at`, the repetition would be a later visit and change the score.
    let seen_at = Timestamp::now().as_millis() / 1_000;
    let visit = json!({ "user_id": "u1", "segment": "sports", "seen_at": seen_at });

    let failures = async || failed(&app, "not_replicated").await + failed(&other, "not_replicated").await;
    let before = failures().await;
    redis.freeze();
    assert_eq!(app.post_visit(&visit).await.status(), 503);
    assert_eq!(app.post_visit(&visit).await.status(), 503, "on the same connection");
    redis.primary.call::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!(app.post_visit(&visit).await.status(), 503, "on another connection");
    assert_eq!(other.post_visit(&visit).await.status(), 503, "by another instance");
    assert_eq!(other.post_array(&json!([visit])).await.status(), 503, "in a batch");
    assert_eq!(failures().await, before + 5);

    redis.thaw();
    eventually("the visit is acknowledged", async || app.post_visit(&visit).await.status() == 204).await;
    assert!(is_member(&redis.replicas[0], "u1"));
}

#[tokio::test]
async fn batch_that_is_not_replicated_reports_its_progress() {
    let redis = Replicated::start(1).await;
    let app = TestApp::spawn_with(&redis.primary, acks("1", "3s")).await;
    eventually_acknowledged(&app, "u1").await;

    let before = failed(&app, "not_replicated").await;
    redis.freeze();
    let lines = "{\"user_id\":\"u2\",\"segment\":\"sports\"}\n{\"user_id\":\"u3\",\"segment\":\"news\"}\n";
    let document = problem(app.post_lines(lines).await, 503, "store-unavailable").await;
    assert_eq!((&document["accepted"], &document["done_through_line"]), (&json!(0), &json!(0)), "{document}");
    assert_eq!(failed(&app, "not_replicated").await, before + 2);

    redis.thaw();
    eventually("the batch is acknowledged", async || app.post_lines(lines).await.status() == 200).await;
    assert!(is_member(&redis.replicas[0], "u2"));
}

/// A failover under load: the replication stream stops, then the primary stops, and the replica is promoted.
#[tokio::test]
async fn failover_keeps_every_acknowledged_visit() {
    let mut primary = Redis::start_with(&["--repl-diskless-sync-delay", "0"]);
    let stream = Proxy::start(&primary).await;
    let replica = Redis::start_replica(&stream.address.port().to_string());
    eventually("the replica is online", async || primary.replicas() == 1).await;
    let address = Proxy::start(&primary).await;
    let app = Arc::new(TestApp::spawn_on(address.url(), acks("1", "3s")).await);

    let (mut senders, stop) = (JoinSet::new(), CancellationToken::new());
    for sender in 0..8 {
        let (app, stop) = (Arc::clone(&app), stop.clone());
        senders.spawn(async move {
            let mut acknowledged = Vec::new();
            for n in (0..).take_while(|_| !stop.is_cancelled()) {
                let user = format!("u{sender}-{n}");
                if app.post_visit(&sports(&user)).await.status() == StatusCode::NO_CONTENT {
                    acknowledged.push(user);
                }
            }
            acknowledged
        });
    }
    eventually("visits arrive", async || primary.call::<u64>(&["ZCARD", "segment:sports"]) > 500).await;
    let before = failed(&app, "not_replicated").await;
    stream.hold_replies();
    eventually("visits are not replicated", async || failed(&app, "not_replicated").await > before).await;
    stop.cancel();
    let acknowledged: BTreeSet<_> = in_time("the senders", senders.join_all()).await.into_iter().flatten().collect();
    let written: BTreeSet<String> =
        primary.call::<Vec<_>>(&["ZRANGE", "segment:sports", "0", "-1"]).into_iter().collect();
    primary.stop();

    address.redirect_to(&replica);
    assert_eq!(app.post_visit(&sports("too-early")).await.status(), 503, "the server is still a replica");
    replica.call::<()>(&["REPLICAOF", "NO", "ONE"]);
    let survived: BTreeSet<String> =
        replica.call::<Vec<_>>(&["ZRANGE", "segment:sports", "0", "-1"]).into_iter().collect();
    assert!(acknowledged.len() > 100 && acknowledged.is_subset(&survived), "{:?}", acknowledged.difference(&survived));
    assert!(survived.len() < written.len(), "the failover loses visits that were not acknowledged");
    eventually("counts come from the new primary", async || app.status_of("/readyz").await == 200).await;
    assert_eq!(app.count("sports").await, survived.len() as u64);
    assert_eq!(app.post_visit(&sports("alone")).await.status(), 503, "the new primary has no replica");
}

#[tokio::test]
async fn record_keeps_the_reason_of_a_refusal() {
    let mut redis = Replicated::start(1).await;
    let app = TestApp::spawn_with(&redis.primary, acks("1", "3s")).await;
    app.record("u1", "sports").await;
    redis.primary.call::<()>(&["SET", "segment:string", "not a sorted set"]);
    let wrong = app.post_visit(&json!({ "user_id": "u1", "segment": "string" })).await;
    problem(wrong, 503, "store-unavailable").await;
    assert_eq!(failed(&app, "wrong_type").await, 1);

    redis.primary.call::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    app.record("u2", "sports").await;
    redis.replicas[0].stop();
    eventually("Redis has noticed", async || redis.primary.replicas() == 0).await;
    problem(app.post_visit(&sports("u3")).await, 503, "store-unavailable").await;
    assert!(!is_member(&redis.primary, "u3"), "Redis refuses the write");

    redis.primary.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    problem(app.post_visit(&sports("u3")).await, 503, "store-unavailable").await;
    for (reason, expected) in [("no_replicas", 1), ("readonly", 1), ("refused", 0), ("not_replicated", 0)] {
        assert_eq!(failed(&app, reason).await, expected, "{reason}");
    }
}

/// As in a manual failover: Redis ends the wait of clients with `UNBLOCKED`.
#[tokio::test]
async fn demotion_of_the_primary_is_503_for_waiting_visits_and_counts() {
    let redis = Replicated::start(1).await;
    let app = TestApp::spawn_with(&redis.primary, acks("1", "1h")).await;
    app.record("u1", "sports").await;
    assert_eq!(app.count("sports").await, 1);

    redis.freeze();
    let post = |path: &str, body: &Value| tokio::spawn(app.request("POST", path).json(body).send());
    let single = post("/segments", &sports("u2"));
    let batch = post("/segments/batch", &json!([sports("u3")]));
    eventually("both wait for the replica", async || redis.primary.blocked_clients() == 2).await;
    redis.primary.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    for answer in [single, batch] {
        let answer = in_time("the answer", answer).await.unwrap().unwrap();
        problem(answer, 503, "store-unavailable").await;
    }
    problem(app.get("/segments/sports/count").await, 503, "store-unavailable").await;
    for (reason, expected) in [("readonly", 2), ("refused", 0), ("lost", 0), ("not_replicated", 0)] {
        assert_eq!(failed(&app, reason).await, expected, "{reason}");
    }

    redis.primary.call::<()>(&["REPLICAOF", "NO", "ONE"]);
    redis.thaw();
    eventually("counts are answered", async || app.status_of("/segments/sports/count").await == 200).await;
    assert_eq!(app.count("sports").await, 3, "an unacknowledged visit may be written");
}

#[tokio::test]
async fn record_waits_for_the_disk_of_the_replica_if_redis_supports_it() {
    let redis = Replicated::start(1).await;
    if !redis.primary.has_wait_aof() {
        return assert_reports_missing_waitaof(&redis).await;
    }
    let app = TestApp::spawn_with(&redis.primary, acks_on_disk("1", "9s")).await;
    // After the initial synchronization, a replica rewrites its file, and reports no sync until then.
    eventually_acknowledged(&app, "u1").await;
    assert_eq!(app.post_array(&json!([sports("u2")])).await.status(), 200);
    assert!(is_member(&redis.replicas[0], "u2"));

    redis.freeze();
    problem(app.post_visit(&sports("u3")).await, 503, "store-unavailable").await;
    redis.thaw();
    eventually_acknowledged(&app, "u3").await;

    redis.replicas[0].call::<()>(&["CONFIG", "SET", "appendonly", "no"]);
    let unwritten = failed(&app, "not_replicated").await;
    problem(app.post_visit(&sports("u4")).await, 503, "store-unavailable").await;
    assert_eq!(failed(&app, "not_replicated").await, unwritten + 1, "the replica has no file");
    assert!(is_member(&redis.replicas[0], "u4"));
}

/// Returns arguments that require an acknowledgement on disk by one replica of the Redis at `url`.
fn on_disk_of(url: &str) -> [&str; 8] {
    ["--redis-url", url, "--write-acks", "1", "--write-acks-on-disk", "true", "--redis-timeout", "9s"]
}

/// Asserts that on a Redis before 7.2 the answer, the log and the metrics report the missing `WAITAOF`.
async fn assert_reports_missing_waitaof(redis: &Replicated) {
    const WHY: &str = "Redis lacks `WAITAOF`, which write_acks_on_disk requires: upgrade to 7.2 or later, or to Valkey";
    let folder = tempfile::tempdir().unwrap();
    let url = redis.primary.url();
    let arguments = on_disk_of(&url);
    let service = Service::start(folder.path(), &arguments);
    let document = problem(service.post_visit(&sports("u1")).await, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("can't report whether its replicas have it on disk"));
    assert_eq!(failed(&service, "too_old").await, 1);
    assert_eq!(service.count("sports").await, 1, "counts succeed");
    let log = service.terminate_for_log();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains(r#""WARN""#)).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(WHY), "{log:#?}");

    let (succeeded, error) = check(folder.path(), &arguments);
    assert!(!succeeded && error.ends_with(&format!("can't serve: {WHY}\n")), "{error}");
}

/// Runs `check`, and returns whether it succeeded and its standard error.
fn check(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = run(binary(folder).arg("check").args(arguments));
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn check_counts_the_replicas() {
    let (redis, folder) = (Replicated::start(1).await, tempfile::tempdir().unwrap());
    let url = redis.primary.url();
    let (succeeded, error) = check(folder.path(), &["--redis-url", &url, "--write-acks", "1"]);
    assert!(succeeded, "{error}");
    let (succeeded, error) = check(folder.path(), &["--redis-url", &url, "--write-acks", "2"]);
    let why = "can't serve: it has 1 of the 2 replicas that write_acks requires\n";
    assert!(!succeeded && error.ends_with(why) && error.lines().count() == 1, "{error}");

    assert_eq!(check(folder.path(), &on_disk_of(&url)).0, redis.primary.has_wait_aof());
}

#[rstest]
#[case::without_acks(&[], true)]
#[case::with_acks(&["--write-acks", "1"], false)]
#[tokio::test]
async fn acl_must_permit_wait_if_write_acks_are_set(#[case] acks: &[&str], #[case] is_allowed: bool) {
    let (redis, folder) = (Replicated::start(1).await, tempfile::tempdir().unwrap());
    redis.primary.call::<()>(&["ACL", "SETUSER", "me", "reset", "on", ">hunter2", "~*", "+@all", "-wait"]);
    let url = format!("{}?user=me&pass=hunter2", redis.primary.url());
    let (succeeded, error) = check(folder.path(), &[&["--redis-url", &url], acks].concat());
    // Without the dry run, which is of 7.0, `check` can't know.
    let passes = is_allowed || !redis.primary.has_acl_dry_run();
    assert_eq!(succeeded, passes, "{error}");
    assert_eq!(error.contains("its ACL forbids a required command: ") && error.contains("'wait'"), !passes, "{error}");

    let service = Service::start(folder.path(), &[&["--redis-url", &url], acks].concat());
    let expected = if is_allowed { 204 } else { 503 };
    assert_eq!(service.post_visit(&sports("u1")).await.status(), expected);
}
