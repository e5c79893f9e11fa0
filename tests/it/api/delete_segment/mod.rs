//! `DELETE /segments/{name}`.

mod large;
mod resharding;

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Response, StatusCode};
use rstest::rstest;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use super::audit_log::KeyedService;
use crate::helpers::{
    Client, Fault, Proxy, Redis, RedisCluster, Sentinels, Service, TestApp, encoded, eventually, problem, settings,
    success,
};

async fn delete_response(app: &Client, segment: &str, query: &str) -> Response {
    app.request("DELETE", &format!("/segments/{}{query}", encoded(segment))).send().await.unwrap()
}

/// Deletes a segment, and returns whether it was known and its count.
async fn delete(app: &Client, segment: &str) -> (bool, u64) {
    delete_with(app, segment, "").await
}

async fn delete_with(app: &Client, segment: &str, query: &str) -> (bool, u64) {
    let response = delete_response(app, segment, query).await;
    assert_eq!(response.status(), StatusCode::OK);
    let document: Value = response.json().await.unwrap();
    assert_eq!((&document["segment"], &document["window_seconds"]), (&json!(segment), &json!(1_209_600)), "{document}");
    (document["known"].as_bool().unwrap(), document["count"].as_u64().unwrap())
}

async fn listed(app: &Client) -> Vec<String> {
    let list: Value = app.get("/segments").await.json().await.unwrap();
    list["segments"].as_array().unwrap().iter().map(|one| one["segment"].as_str().unwrap().to_owned()).collect()
}

#[rstest]
#[case::one_partition("1")]
#[case::eight_partitions("8")]
#[case::two_hundred_and_fifty_six_partitions("256")]
#[tokio::test]
async fn delete_removes_members_and_name_and_counts_the_users_of_the_window(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
    let visits: Vec<_> = (0..500).map(|n| format!(r#"{{"user_id":"u{n}","segment":"sports"}}"#)).collect();
    success(app.lines_request(visits.join("\n")).send().await.unwrap()).await;
    app.record("u1", "news").await;
    // An expired member that isn't pruned yet doesn't count.
    let key = redis.sets().into_iter().find(|key| key.ends_with("segment:sports")).unwrap();
    redis.call::<()>(&["ZADD", &key, "1000", "expired"]);

    assert_eq!(delete(&app, "sports").await, (true, 500));
    assert!(redis.sets().iter().all(|key| !key.contains("sports")), "{:?}", redis.sets());
    assert_eq!(listed(&app).await, ["news"]);
    let count: Value = app.get("/segments/sports/count").await.json().await.unwrap();
    assert_eq!((&count["known"], &count["count"]), (&json!(false), &json!(0)));
    assert_eq!(delete(&app, "sports").await, (false, 0), "a repetition finds nothing");
    assert_eq!(app.count("news").await, 1);

    app.record("u1", "sports").await;
    assert_eq!(listed(&app).await, ["news", "sports"]);
    assert_eq!(delete(&app, "sports").await, (true, 1));
}

/// A visit that arrives at the same time is deleted, or stays together with the name.
#[rstest]
#[case::one_partition("1")]
#[case::eight_partitions("8")]
#[tokio::test]
async fn delete_beside_visits_keeps_later_visits_and_their_name(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
    for round in 0..100 {
        let visits = async {
            for pair in 0..6 {
                let users = [0, 1].map(|n| format!("u{round}-{pair}-{n}"));
                join_all(users.iter().map(|user| app.record(user, "sports"))).await;
            }
        };
        let deletion = async {
            tokio::time::sleep(Duration::from_micros(100 * (round % 20))).await;
            delete(&app, "sports").await
        };
        let ((_, deleted), ()) = tokio::join!(deletion, visits);
        let left = app.count("sports").await;
        assert_eq!(deleted + left, 12, "each visit was before or after the deletion");
        assert!(left == 0 || listed(&app).await == ["sports"], "{left} users have no name");
        assert_eq!(delete(&app, "sports").await.1, left);
        app.record("later", "sports").await;
        assert_eq!((app.count("sports").await, listed(&app).await), (1, vec!["sports".to_owned()]));
        delete(&app, "sports").await;
    }
}

#[tokio::test]
async fn delete_takes_any_name_and_reports_an_unknown_one() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for name in ["a/b", "{p01}:x", "größe", "50% & more?", "a:b", "segments"] {
        app.record("u1", name).await;
        assert_eq!(delete(&app, name).await, (true, 1), "{name}");
    }
    assert_eq!(delete(&app, "nowhere").await, (false, 0));
    assert_eq!(listed(&app).await, [""; 0]);
}

/// The members have expired, and pruning has dropped the name.
#[tokio::test]
async fn delete_removes_the_history_unless_it_is_kept() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let sample = || {
        redis.call::<()>(&["RPUSH", "history:sports", "1795341600000", "7"]);
        redis.call::<()>(&["SET", "history: sports", "1795341600 7 1795341600 - - 1209600"]);
    };
    let left = || redis.call::<Vec<String>>(&["KEYS", "history:*sports"]).len();
    sample();
    app.record("u1", "sports").await;
    assert_eq!(delete_with(&app, "sports", "?keep_history=true").await, (true, 1));
    assert_eq!((left(), delete_with(&app, "sports", "?keep_history=true").await), (2, (true, 0)));
    assert_eq!((delete_with(&app, "sports", "?keep_history=false").await, left()), ((true, 0), 0));
    assert_eq!(delete(&app, "sports").await, (false, 0));
    // A stream.
    redis.call::<()>(&["XADD", "history:sports", "1-0", "n", "1"]);
    assert_eq!((delete(&app, "sports").await, left()), ((true, 0), 0));
}

#[rstest]
#[case::text(["SET|history:sports|theirs", "SET|history: sports|theirs"])]
#[case::other_types(["RPUSH|history:sports|theirs", "HSET|history: sports|u1|theirs"])]
#[case::stream(["XADD|history:sports|1-0|their|1", "ZADD|history: sports|1|theirs"])]
#[tokio::test]
async fn delete_keeps_histories_of_other_programs(#[case] theirs: [&str; 2]) {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    theirs.iter().for_each(|command| redis.call::<()>(&command.split('|').collect::<Vec<_>>()));
    assert_eq!(delete(&app, "sports").await, (true, 1));
    assert_eq!(redis.call::<usize>(&["EXISTS", "history:sports", "history: sports"]), 2);
}

#[tokio::test]
async fn delete_keeps_a_key_of_another_program_and_names_the_problem() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "news").await;
    redis.call::<()>(&["SET", "segment:sports", "theirs"]);
    let document = problem(delete_response(&app, "sports", "").await, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("a value of another program"), "{document}");
    assert_eq!(redis.call::<String>(&["GET", "segment:sports"]), "theirs");
    assert_eq!(app.count("news").await, 1);
}

#[tokio::test]
async fn delete_keeps_the_users_if_the_index_belongs_to_another_program() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    redis.call::<u64>(&["DEL", "segments"]);
    redis.call::<String>(&["SET", "segments", "theirs"]);
    problem(delete_response(&app, "sports", "").await, 503, "store-unavailable").await;
    assert_eq!(app.count("sports").await, 1);
    assert_eq!(redis.call::<String>(&["GET", "segments"]), "theirs");
}

#[tokio::test]
async fn delete_rejects_bad_parameters_and_is_503_without_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    for (path, field) in [
        ("/segments/%20s", "segment"),
        ("/segments/%FF", "segment"),
        ("/segments/sports?keep_history=yes", "keep_history"),
        ("/segments/sports?keep_history=", "keep_history"),
        ("/segments/sports?keep_history=true&keep_history=true", "keep_history"),
        ("/segments/sports?window=1d", "window"),
    ] {
        let document = problem(app.request("DELETE", path).send().await.unwrap(), 422, "invalid-request").await;
        assert_eq!(document["errors"][0]["field"], field, "{path}: {document}");
    }
    assert_eq!(app.count("sports").await, 1);
    redis.stop();
    problem(delete_response(&app, "sports", "").await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn delete_is_503_when_too_few_replicas_acknowledge() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let strict = TestApp::spawn_with(&redis, settings([("write_acks", "1"), ("redis_timeout", "300ms")])).await;
    let document = problem(delete_response(&strict, "sports", "").await, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("too few of its replicas have it"), "{document}");
}

/// A repetition of the request would count nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_is_503_if_the_connection_breaks_and_never_reports_too_few_users() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let app = TestApp::spawn_on(proxy.url(), settings([])).await;
    app.record("u1", "sports").await;
    // A request that connects is not in flight when the connection breaks.
    assert_eq!(delete(&app, "other").await, (false, 0));
    let clients = || {
        let list: String = redis.call(&["CLIENT", "LIST"]);
        list.lines().map(|client| client.split(' ').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    proxy.hold_replies();
    let deletion = async {
        problem(delete_response(&app, "sports", "").await, 503, "store-unavailable").await;
    };
    let breaking = async {
        eventually("the segment is deleted", async || redis.call::<usize>(&["EXISTS", "segment:sports"]) == 0).await;
        let before = clients();
        proxy.inject(Fault::Close);
        eventually("the connections are closed", async || clients().is_disjoint(&before)).await;
        proxy.release_replies();
    };
    tokio::join!(deletion, breaking);
}

#[tokio::test]
async fn delete_needs_segments_delete_and_logs_the_caller_and_the_segment() {
    let other_scopes = "segments:write,segments:read,users:read,users:delete";
    let service = KeyedService::start([("owner", "segments:delete"), ("other", other_scopes)]);
    service.delete("/segments/sports", "?force=1", 200).await;
    let log = service.terminate_for_log();
    let events = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = events.filter(|event| event["message"].as_str().unwrap().contains("a segment"));
    let found: Vec<_> = events
        .map(|event| ["message", "request_id", "by", "segment", "status", "count"].map(|member| event[member].clone()))
        .collect();
    let line = |message: &str, id: &str, by: &str, status: u16, count: Value| {
        [json!(message), json!(id), json!(by), json!("sports"), json!(status), count]
    };
    let expected = [
        line("deleted a segment", "first", "owner", 200, json!(0)),
        line("refused to delete a segment", "second", "owner", 422, Value::Null),
        line("refused to delete a segment", "third", "other", 403, Value::Null),
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn delete_makes_room_for_another_segment_at_once() {
    for partitions in ["1", "8"] {
        let redis = Redis::start();
        let app = TestApp::spawn_with(&redis, settings([("partitions", partitions), ("max_segments", "2")])).await;
        app.record("u1", "sports").await;
        app.record("u1", "news").await;
        let third = json!({ "user_id": "u1", "segment": "third" });
        problem(app.post_visit(&third).await, 422, "too-many-segments").await;
        assert_eq!(delete(&app, "sports").await, (true, 1));
        app.record("u1", "third").await;
        let again = json!({ "user_id": "u1", "segment": "sports" });
        problem(app.post_visit(&again).await, 422, "too-many-segments").await;
    }
}

/// The log tells the operator which command the ACL lacks.
#[tokio::test]
async fn delete_without_permission_for_unlink_changes_nothing_and_logs_the_command() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-url", &redis.url()]);
    service.record("u1", "sports").await;
    redis.call::<()>(&["ACL", "SETUSER", "default", "-unlink"]);
    problem(delete_response(&service, "sports", "").await, 503, "store-unavailable").await;
    assert_eq!(service.count("sports").await, 1);
    let log = service.terminate_for_log();
    assert!(log.iter().any(|line| line.contains("NOPERM") && line.contains("UNLINK")), "{log:#?}");
}

/// Each of these reads a part of the segment and continues after the deletion.
#[tokio::test]
async fn pages_of_a_deleted_segment_end() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let store = redis.store();
    let visits: Vec<_> = (0..3_000).map(|n| format!(r#"{{"user_id":"u{n}","segment":"sports"}}"#)).collect();
    success(app.lines_request(visits.join("\n")).send().await.unwrap()).await;
    let key = store.layout().await.unwrap().read().segment_keys().next().unwrap();
    let sports = crate::helpers::segment("sports");
    let first = store.members(key, &sports, None).await.unwrap();
    let cutoff = Timestamp::from_millis(0);
    let start = store.members_after(key, &sports, cutoff).await.unwrap();
    let (names, second) = store.member_names(key, &sports, cutoff, &start).await.unwrap();
    assert_eq!((first.members.len(), names.len()), (1_000, 500));
    assert_eq!(delete(&app, "sports").await, (true, 3_000));
    let rest = store.members(key, &sports, first.next.as_ref()).await.unwrap();
    assert!(rest.members.is_empty() && rest.next.is_none());
    let (names, next) = store.member_names(key, &sports, cutoff, &second.unwrap()).await.unwrap();
    assert!(names.is_empty() && next.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_works_on_a_cluster() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    for n in 0..60 {
        service.record(&format!("u{n}"), "sports").await;
        service.record(&format!("u{n}"), "news").await;
    }
    assert_eq!(delete(&service, "sports").await, (true, 60));
    assert!(cluster.keys().iter().all(|key| !key.contains("sports")), "{:?}", cluster.keys());
    assert_eq!((service.count("sports").await, service.count("news").await), (0, 60));
    assert!(service.terminate().success());
}

/// The keys of a partition are on two masters. The deletion waits until they are on one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_on_a_cluster_completes_after_a_slot_has_migrated() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    let visits: Vec<_> = (0..3_000).map(|n| format!(r#"{{"user_id":"u{n}","segment":"sports"}}"#)).collect();
    success(service.lines_request(visits.join("\n")).send().await.unwrap()).await;
    let slot = cluster.slot_of("{p03}");
    let from = cluster.owner_of(slot);
    let to = cluster.masters().into_iter().find(|&node| node != from).unwrap();
    let (started, deletion) = (AtomicBool::new(false), OnceLock::new());
    let (started, deletion) = (&started, &deletion);
    let deleting = async {
        eventually("a key has moved", async || started.load(Ordering::Relaxed)).await;
        deletion.set(delete(&service, "sports").await).unwrap();
    };
    let migrating = cluster.migrate_slot(slot, to, async |moved| {
        if moved == 1 {
            started.store(true, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    tokio::join!(deleting, migrating);
    assert_eq!(deletion.get(), Some(&(true, 3_000)));
    assert!(cluster.keys().iter().all(|key| !key.contains("sports")), "{:?}", cluster.keys());
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delete_works_with_sentinels_and_survives_a_failover() {
    let (mut sentinels, folder) = (Sentinels::start().await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-sentinel", &sentinels.urls(), "--write-acks", "2"]);
    for n in 0..20 {
        service.record(&format!("u{n}"), "sports").await;
    }
    service.record("u0", "news").await;
    let removal = service.request("DELETE", "/segments/news/users/u0").send().await.unwrap();
    assert_eq!((removal.status(), delete(&service, "sports").await), (StatusCode::NO_CONTENT, (true, 20)));
    let killed = sentinels.kill_primary();
    sentinels.wait_until_failed_over(killed).await;
    eventually("counts are answered again", async || service.status_of("/segments/sports/count").await == 200).await;
    assert_eq!((service.count("sports").await, service.count("news").await), (0, 0));
    assert!(service.terminate().success());
}
