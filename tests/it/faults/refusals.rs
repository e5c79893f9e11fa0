//! A Redis that answers, and refuses: 503, a metric of its own, one line in the log, and all is well again by itself.

use std::sync::Arc;

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use super::ledger::Ledger;
use super::load::Load;
use super::{nothing_is_acknowledged, post, recovers, serve, turn, under_load};
use crate::helpers::{Redis, Service, eventually, free_port, problem};

/// What Redis is made to do, and how it shows.
struct Refusal {
    /// The label in `estimator_redis_errors_total`.
    kind: &'static str,
    begin: &'static [&'static str],
    end: &'static [&'static str],
    /// Whether counts are answered meanwhile.
    counts: bool,
}

const READONLY: Refusal = Refusal {
    kind: "readonly",
    begin: &["REPLICAOF", "127.0.0.1", "1"],
    end: &["REPLICAOF", "NO", "ONE"],
    // A replica may be behind.
    counts: false,
};

const NO_REPLICAS: Refusal = Refusal {
    kind: "no_replicas",
    begin: &["CONFIG", "SET", "min-replicas-to-write", "1"],
    end: &["CONFIG", "SET", "min-replicas-to-write", "0"],
    counts: true,
};

const NO_PERMISSION: Refusal = Refusal {
    kind: "no_permission",
    begin: &["ACL", "SETUSER", "default", "-zadd"],
    end: &["ACL", "SETUSER", "default", "+zadd"],
    counts: true,
};

const OUT_OF_MEMORY: Refusal = Refusal {
    kind: "out_of_memory",
    begin: &["CONFIG", "SET", "maxmemory", "1"],
    end: &["CONFIG", "SET", "maxmemory", "0"],
    counts: true,
};

/// How long each state lasts, in milliseconds.
const WHILE: u64 = 300;

#[rstest]
#[case::readonly(READONLY)]
#[case::no_replicas(NO_REPLICAS)]
#[case::no_permission(NO_PERMISSION)]
#[case::out_of_memory(OUT_OF_MEMORY)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_503_and_a_metric_and_one_line(#[case] refusal: Refusal) {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &[]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 6);
    under_load(WHILE).await;

    redis.call::<()>(refusal.begin);
    eventually("a visit is refused", async || post(&service).await == 503).await;
    if refusal.kind == "out_of_memory" {
        let answer = service.post_visit(&json!({ "user_id": "u1", "segment": "sports" })).await;
        let document = problem(answer, 503, "store-unavailable").await;
        assert!(document["detail"].as_str().unwrap().contains("raises its maxmemory"), "{document}");
    }
    nothing_is_acknowledged(&ledger, WHILE).await;
    if refusal.counts {
        assert_eq!(service.status_of("/segments/sports/count").await, 200);
        assert_eq!(service.status_of("/readyz").await, 200);
    } else {
        eventually("counts are refused", async || service.status_of("/segments/sports/count").await == 503).await;
        eventually("not ready", async || service.status_of("/readyz").await == 503).await;
    }
    assert!(failures(&service, refusal.kind).await > 0);

    redis.call::<()>(refusal.end);
    recovers(&service, refusal.kind).await;
    ledger.check(refusal.kind, &mut redis.connection());
    assert_one_line(service, refusal.kind).await;
    load.stop().await;
}

/// The log has one line for the outage, however many requests met it, and one for its end.
async fn assert_one_line(service: Service, kind: &str) {
    // Redis has recovered when nothing failed for a second.
    eventually("the end is logged", async || {
        post(&service).await;
        service.has_logged("Redis answers again")
    })
    .await;
    let log = service.terminate_for_log();
    let lines = |text| log.iter().filter(|line| line.contains(text)).count();
    // A Redis that is started again is gone before, and may be slow after: those are failures of other kinds.
    let most = if kind == "loading" { 4 } else { 1 };
    assert!((1..=most).contains(&lines("Redis unavailable")), "{kind}: {log:#?}");
    assert_eq!(lines("Redis answers again"), 1, "{kind}: {log:#?}");
}

/// What `/metrics` counts of this kind.
async fn failures(service: &Service, kind: &str) -> u64 {
    service.metric(&format!(r#"estimator_redis_errors_total{{kind="{kind}"}}"#)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_is_503_until_it_is_up() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let redis = Redis::start_with(&["--port", &port, "--cluster-enabled", "yes", "--cluster-port", &free_port()]);
    let service = serve(&folder, &redis.url(), &[]);
    eventually("a visit is refused", async || post(&service).await == 503).await;
    assert_eq!(service.status_of("/segments/sports/count").await, 503);
    assert!(failures(&service, "cluster_down").await > 0);

    redis.call::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    recovers(&service, "cluster_down").await;
    assert_one_line(service, "cluster_down").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loads_its_data_is_503_until_it_has() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--rdbcompression", "no"]);
    let service = serve(&folder, &redis.url(), &[]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 7);
    under_load(WHILE).await;
    load.stop().await;
    let fill = "for i = 1, 1000 do redis.call('SET', 'filler-' .. i, string.rep('x', 1024)) end";
    redis.call::<()>(&["EVAL", fill, "0"]);
    // Nothing but the beginning of a file is left then, which is read key by key, here with a pause after each. Redis looks for
    // requests after every kilobyte.
    redis.call::<()>(&["BGREWRITEAOF"]);
    eventually("rewritten", async || {
        let info: String = redis.call(&["INFO", "persistence"]);
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
    })
    .await;
    redis.stop();
    redis.start_again_with(&["--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"]);
    let load = Load::start(service.address, &ledger, 7);
    // What is answered between two looks at a Redis that loads was answered while it did.
    eventually("a visit and a probe are refused while it loads", async || {
        let was_loading = redis.is_loading();
        let answers = [post(&service).await, service.status_of("/readyz").await];
        was_loading && redis.is_loading() && answers == [StatusCode::SERVICE_UNAVAILABLE; 2]
    })
    .await;
    assert!(failures(&service, "loading").await > 0);
    redis.wait_until_it_serves();
    recovers(&service, "loading").await;
    ledger.check("loading", &mut redis.connection());
    assert_one_line(service, "loading").await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_type_is_503_for_its_segment_alone() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    redis.record_data_set();
    redis.call::<()>(&["SET", "segment:taken", "x"]);
    let service = serve(&folder, &redis.url(), &[]);
    for _ in 0..20 {
        let taken = json!({ "user_id": "u1", "segment": "taken" });
        let (taken, other) = tokio::join!(service.post_visit(&taken), post(&service));
        assert_eq!((taken.status().as_u16(), other.as_u16()), (503, 204));
        assert_eq!(service.status_of("/segments/taken/count").await, 503);
        assert_eq!(service.status_of("/segments/probes/count").await, 200);
    }
    assert_eq!(service.status_of("/readyz").await, 200);
    assert!(failures(&service, "wrong_type").await >= 40);
    let log = service.terminate_for_log();
    assert_eq!(log.iter().filter(|line| line.contains("a key of another type")).count(), 1, "{log:#?}");
}
