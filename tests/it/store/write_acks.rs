//! Visits that are acknowledged when replicas have them: on a real primary and its replicas, some of which are held up.

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

/// A primary and its replicas, which are in step.
struct Replicated {
    primary: Redis,
    replicas: Vec<Redis>,
}

impl Replicated {
    async fn start(replicas: usize) -> Self {
        let port = free_port();
        let primary = Redis::start_primary(&port);
        let replicas: Vec<_> = (0..replicas).map(|_| Redis::start_replica(&port)).collect();
        eventually("replicas are in step", async || primary.replicas() == replicas.len()).await;
        Self { primary, replicas }
    }

    /// From now on the first replica takes in nothing. Its connection stays.
    fn freeze(&self) {
        kill("-STOP", self.replicas[0].pid());
    }

    fn thaw(&self) {
        kill("-CONT", self.replicas[0].pid());
    }
}

/// So many replicas must have a visit, and Redis may take so long for an answer.
fn acks(replicas: &str, redis_timeout: &str) -> RawSettings {
    settings([("write_acks", replicas), ("redis_timeout", redis_timeout)])
}

/// As `acks`, on disk.
fn acks_on_disk(replicas: &str, redis_timeout: &str) -> RawSettings {
    settings_with(acks(replicas, redis_timeout), [("write_acks_on_disk", "true")])
}

fn sports(user: &str) -> Value {
    json!({ "user_id": user, "segment": "sports" })
}

fn is_member(redis: &Redis, user: &str) -> bool {
    redis.call::<Option<f64>>(&["ZSCORE", "segment:sports", user]).is_some()
}

/// How many visits failed for `reason`.
async fn failed(client: &Client, reason: &str) -> u64 {
    let sample = format!("estimator_visits_failed_total{{reason=\"{reason}\"}} ");
    let text = client.get("/metrics").await.text().await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(&sample)).unwrap().parse().unwrap()
}

/// Asks until the answer is 204: what was held up needs a moment to come back.
async fn eventually_acknowledged(app: &TestApp, user: &str) {
    eventually("visits are acknowledged", async || app.post_visit(&sports(user)).await.status() == 204).await;
}

#[tokio::test]
async fn an_acknowledged_visit_is_on_as_many_replicas_as_asked() {
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
    assert_eq!(names, ["sports"], "what makes Redis wait leaves nothing behind");
}

#[tokio::test]
async fn a_visit_waits_for_its_replica_and_a_count_does_not_wait_for_the_visit() {
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
        assert_eq!(in_time("the count", app.count("sports")).await, 3, "the primary has it");
        assert_eq!(in_time("the probe", app.status_of("/readyz")).await, 200);
    }
    assert!(!single.is_finished() && !batch.is_finished());

    redis.thaw();
    assert_eq!(in_time("the answer", single).await.unwrap().unwrap().status(), 204);
    assert_eq!(in_time("the answer", batch).await.unwrap().unwrap().status(), 200);
    assert!(is_member(&redis.replicas[0], "u2") && is_member(&redis.replicas[0], "u3"));
}

#[tokio::test]
async fn a_replica_that_takes_in_nothing_is_503_until_it_does() {
    let redis = Replicated::start(2).await;
    let app = TestApp::spawn_with(&redis.primary, acks("2", "3s")).await;
    eventually_acknowledged(&app, "u1").await;
    let one = TestApp::spawn_with(&redis.primary, acks("1", "3s")).await;

    let before = failed(&app, "not_replicated").await;
    redis.freeze();
    let document = problem(app.post_visit(&sports("u2")).await, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("too few of Redis's replicas have it"), "{document}");
    assert_eq!(failed(&app, "not_replicated").await, before + 1);
    eventually_acknowledged(&one, "u3").await;
    assert!(is_member(&redis.replicas[1], "u3"), "the other replica is enough for one");
    assert_eq!(app.count("sports").await, 3, "what isn't acknowledged may have been written");

    redis.thaw();
    eventually_acknowledged(&app, "u2").await;
    assert!(redis.replicas.iter().all(|replica| is_member(replica, "u2")));
}

/// A repetition changes nothing in Redis, and must all the same not be acknowledged before the first attempt is replicated.
#[tokio::test]
async fn a_visit_that_is_repeated_waits_for_its_first_attempt() {
    let redis = Replicated::start(1).await;
    let [app, other] = [
        TestApp::spawn_with(&redis.primary, acks("1", "3s")).await,
        TestApp::spawn_with(&redis.primary, acks("1", "3s")).await,
    ];
    eventually_acknowledged(&app, "u2").await;
    // Without its time the repetition would be a later visit, and change something.
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
    eventually("it is acknowledged", async || app.post_visit(&visit).await.status() == 204).await;
    assert!(is_member(&redis.replicas[0], "u1"));
}

#[tokio::test]
async fn a_batch_that_is_not_replicated_says_how_far_it_came() {
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

/// A failover: while visits come, a replica gets nothing more, then the primary ends, and the replica takes its place.
#[tokio::test]
async fn every_acknowledged_visit_survives_the_loss_of_the_primary() {
    let mut primary = Redis::start_with(&["--repl-diskless-sync-delay", "0"]);
    let stream = Proxy::start(&primary).await;
    let replica = Redis::start_replica(&stream.address.port().to_string());
    eventually("the replica is in step", async || primary.replicas() == 1).await;
    let way = Proxy::start(&primary).await;
    let app = Arc::new(TestApp::spawn_on(way.url(), acks("1", "3s")).await);

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
    eventually("visits come", async || primary.call::<u64>(&["ZCARD", "segment:sports"]) > 500).await;
    let before = failed(&app, "not_replicated").await;
    stream.hold_replies();
    eventually("visits are not replicated", async || failed(&app, "not_replicated").await > before).await;
    stop.cancel();
    let acknowledged: BTreeSet<_> = in_time("the senders", senders.join_all()).await.into_iter().flatten().collect();
    let written: BTreeSet<String> =
        primary.call::<Vec<_>>(&["ZRANGE", "segment:sports", "0", "-1"]).into_iter().collect();
    primary.stop();

    way.redirect_to(&replica);
    assert_eq!(app.post_visit(&sports("too-early")).await.status(), 503, "it is still a replica");
    replica.call::<()>(&["REPLICAOF", "NO", "ONE"]);
    let survived: BTreeSet<String> =
        replica.call::<Vec<_>>(&["ZRANGE", "segment:sports", "0", "-1"]).into_iter().collect();
    assert!(acknowledged.len() > 100 && acknowledged.is_subset(&survived), "{:?}", acknowledged.difference(&survived));
    assert!(survived.len() < written.len(), "the failover has lost what was not acknowledged");
    eventually("counts come from the new primary", async || app.status_of("/readyz").await == 200).await;
    assert_eq!(app.count("sports").await, survived.len() as u64);
    assert_eq!(app.post_visit(&sports("alone")).await.status(), 503, "it has no replica");
}

#[tokio::test]
async fn what_redis_refuses_keeps_its_own_reason() {
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
    eventually("Redis notices", async || redis.primary.replicas() == 0).await;
    problem(app.post_visit(&sports("u3")).await, 503, "store-unavailable").await;
    assert!(!is_member(&redis.primary, "u3"), "nothing is written that might be lost");

    redis.primary.call::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    problem(app.post_visit(&sports("u3")).await, 503, "store-unavailable").await;
    for (reason, expected) in [("no_replicas", 1), ("readonly", 1), ("refused", 0), ("not_replicated", 0)] {
        assert_eq!(failed(&app, reason).await, expected, "{reason}");
    }
}

/// A failover that is made by hand: Redis lets go of who waits, as `UNBLOCKED`.
#[tokio::test]
async fn a_visit_that_waits_when_its_redis_becomes_a_replica_is_503_and_so_is_a_count_after_it() {
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
    assert_eq!(app.count("sports").await, 3, "what isn't acknowledged may have been written");
}

#[tokio::test]
async fn visits_wait_for_the_replicas_disk_where_redis_can() {
    let redis = Replicated::start(1).await;
    if !redis.primary.has_wait_aof() {
        return says_that_it_cannot_wait_for_the_disk(&redis).await;
    }
    let app = TestApp::spawn_with(&redis.primary, acks_on_disk("1", "9s")).await;
    // A replica begins its file anew when it has got all data, and tells nothing of its disk before.
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
    assert_eq!(failed(&app, "not_replicated").await, unwritten + 1, "a replica without a file");
    assert!(is_member(&redis.replicas[0], "u4"));
}

/// The arguments for visits that a replica of the Redis at `url` must have on disk.
fn on_disk_of(url: &str) -> [&str; 8] {
    ["--redis-url", url, "--write-acks", "1", "--write-acks-on-disk", "true", "--redis-timeout", "9s"]
}

/// What a service on a Redis before 7.2 tells its callers, its log and its metrics.
async fn says_that_it_cannot_wait_for_the_disk(redis: &Replicated) {
    const WHY: &str = "Redis lacks `WAITAOF`, which write_acks_on_disk requires: upgrade to 7.2 or later, or to Valkey";
    let folder = tempfile::tempdir().unwrap();
    let url = redis.primary.url();
    let arguments = on_disk_of(&url);
    let service = Service::start(folder.path(), &arguments);
    let document = problem(service.post_visit(&sports("u1")).await, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("can't tell whether its replicas have it on disk"));
    assert_eq!(failed(&service, "too_old").await, 1);
    assert_eq!(service.count("sports").await, 1, "counts go on");
    let log = service.terminate_for_log();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains(r#""WARN""#)).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(WHY), "{log:#?}");

    let (content, error) = check(folder.path(), &arguments);
    assert!(!content && error.ends_with(&format!("can't serve: {WHY}\n")), "{error}");
}

/// What `check` with these arguments ends with: whether it is content, and standard error.
fn check(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = run(binary(folder).arg("check").args(arguments));
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_check_counts_the_replicas() {
    let (redis, folder) = (Replicated::start(1).await, tempfile::tempdir().unwrap());
    let url = redis.primary.url();
    let (content, error) = check(folder.path(), &["--redis-url", &url, "--write-acks", "1"]);
    assert!(content, "{error}");
    let (content, error) = check(folder.path(), &["--redis-url", &url, "--write-acks", "2"]);
    let why = "can't serve: it has 1 of the 2 replicas that write_acks requires\n";
    assert!(!content && error.ends_with(why) && error.lines().count() == 1, "{error}");

    assert_eq!(check(folder.path(), &on_disk_of(&url)).0, redis.primary.has_wait_aof());
}

#[rstest]
#[case(&[], true)]
#[case(&["--write-acks", "1"], false)]
#[tokio::test]
async fn a_user_needs_the_command_that_waits_only_where_it_is_sent(#[case] acks: &[&str], #[case] is_content: bool) {
    let (redis, folder) = (Replicated::start(1).await, tempfile::tempdir().unwrap());
    redis.primary.call::<()>(&["ACL", "SETUSER", "me", "reset", "on", ">hunter2", "~*", "+@all", "-wait"]);
    let url = format!("{}?user=me&pass=hunter2", redis.primary.url());
    let (content, error) = check(folder.path(), &[&["--redis-url", &url], acks].concat());
    assert_eq!(content, is_content, "{error}");
    assert_eq!(
        error.contains("its ACL forbids a required command: ") && error.contains("'wait'"),
        !is_content,
        "{error}"
    );

    let service = Service::start(folder.path(), &[&["--redis-url", &url], acks].concat());
    let expected = if is_content { 204 } else { 503 };
    assert_eq!(service.post_visit(&sports("u1")).await.status(), expected);
}
