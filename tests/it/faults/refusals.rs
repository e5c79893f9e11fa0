//! A Redis that answers with an error: the service responds 503, counts the error by kind, logs one line, and recovers
//! by itself.

use std::panic::Location;
use std::sync::Arc;

use reqwest::StatusCode;
use rstest::rstest;
use serde_json::json;

use super::ledger::Ledger;
use super::load::Load;
use super::{exclusive, post_probe, run_load_for, serve, side_by_side, wait_for_recovery, wait_for_silence};
use crate::helpers::{Redis, Service, eventually, free_port, problem};

/// An error of Redis, the commands that cause and end it, and its effects.
struct Refusal {
    /// The label in `estimator_redis_errors_total`.
    kind: &'static str,
    begin: &'static [&'static str],
    end: &'static [&'static str],
    /// Whether counts are still answered.
    counts: bool,
}

const READONLY: Refusal = Refusal {
    kind: "readonly",
    begin: &["REPLICAOF", "127.0.0.1", "1"],
    end: &["REPLICAOF", "NO", "ONE"],
    // A replica may lag behind.
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

/// Time of each state in milliseconds.
const STATE_MILLIS: u64 = 300;

#[rstest]
#[case::readonly(READONLY)]
#[case::no_replicas(NO_REPLICAS)]
#[case::no_permission(NO_PERMISSION)]
#[case::out_of_memory(OUT_OF_MEMORY)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_is_503_with_a_metric_and_one_log_line_when_redis_refuses(#[case] refusal: Refusal) {
    // A timeout beside other load would be a failure of another kind, with a log line of its own.
    let _guard = exclusive().await;
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &[]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 6);
    run_load_for(STATE_MILLIS).await;

    ledger.fault_injected(refusal.kind);
    redis.call::<()>(refusal.begin);
    eventually("a visit is refused", async || post_probe(&service).await == 503).await;
    if refusal.kind == "out_of_memory" {
        let answer = service.post_visit(&json!({ "user_id": "u1", "segment": "sports" })).await;
        let document = problem(answer, 503, "store-unavailable").await;
        assert!(document["detail"].as_str().unwrap().contains("raises its maxmemory"), "{document}");
    }
    wait_for_silence(&ledger, STATE_MILLIS).await;
    if refusal.counts {
        assert_eq!(service.status_of("/segments/sports/count").await, 200);
        assert_eq!(service.status_of("/readyz").await, 200);
    } else {
        eventually("counts are refused", async || service.status_of("/segments/sports/count").await == 503).await;
        eventually("readyz is 503", async || service.status_of("/readyz").await == 503).await;
    }
    assert!(error_count(&service, refusal.kind).await > 0);

    redis.call::<()>(refusal.end);
    ledger.fault_healed(refusal.kind);
    wait_for_recovery(&service, refusal.kind).await;
    ledger.check(refusal.kind, &mut redis.connection());
    assert_one_line(&log_of_outage(service).await, refusal.kind, 1);
    load.stop().await;
}

/// Waits until the service logs the end of the outage, stops it and returns its log.
#[track_caller]
fn log_of_outage(service: Service) -> impl Future<Output = Vec<String>> {
    let caller = Location::caller();
    async move {
        // The service logs it when no request to Redis failed for a second.
        eventually(&format!("{caller}: the end of the outage is logged"), async || {
            post_probe(&service).await;
            service.has_logged("Redis answers again")
        })
        .await;
        service.terminate_for_log()
    }
}

/// Asserts that the log has one line for the outage, however many requests failed, and one for its end. `max` allows
/// for more lines about failures of other kinds.
#[track_caller]
fn assert_one_line(log: &[String], kind: &str, max: usize) {
    let lines = |text| log.iter().filter(|line| line.contains(text)).count();
    assert!((1..=max).contains(&lines("Redis unavailable")), "{kind}: {log:#?}");
    assert_eq!(lines("Redis answers again"), 1, "{kind}: {log:#?}");
}

/// Returns the number of errors of this kind in `/metrics`.
async fn error_count(service: &Service, kind: &str) -> u64 {
    service.metric(&format!(r#"estimator_redis_errors_total{{kind="{kind}"}}"#)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_and_count_are_503_while_the_cluster_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let redis = Redis::start_with(&["--port", &port, "--cluster-enabled", "yes", "--cluster-port", &free_port()]);
    let service = serve(&folder, &redis.url(), &[]);
    eventually("a visit is refused", async || post_probe(&service).await == 503).await;
    assert_eq!(service.status_of("/segments/sports/count").await, 503);
    assert!(error_count(&service, "cluster_down").await > 0);

    redis.call::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_for_recovery(&service, "cluster_down").await;
    assert_one_line(&log_of_outage(service).await, "cluster_down", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_is_503_while_redis_loads_its_data() {
    let _guard = side_by_side().await;
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--rdbcompression", "no"]);
    let service = serve(&folder, &redis.url(), &[]);
    let ledger = Arc::<Ledger>::default();
    let load = Load::start(service.address, &ledger, 7);
    run_load_for(STATE_MILLIS).await;
    load.stop().await;
    let fill = "for i = 1, 1000 do redis.call('SET', 'filler-' .. i, string.rep('x', 1024)) end";
    redis.call::<()>(&["EVAL", fill, "0"]);
    // The rewritten file has keys alone. Redis loads them one by one, here with a pause after each, and handles
    // requests after every kilobyte.
    redis.call::<()>(&["BGREWRITEAOF"]);
    eventually("the file is rewritten", async || {
        let info: String = redis.call(&["INFO", "persistence"]);
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
    })
    .await;
    ledger.fault_injected("Redis restarted");
    redis.stop();
    redis.start_again_with(&["--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024"]);
    let load = Load::start(service.address, &ledger, 7);
    // An answer between two checks that Redis loads is an answer while it loads.
    eventually("a visit and a probe are refused while it loads", async || {
        let was_loading = redis.is_loading();
        let answers = [post_probe(&service).await, service.status_of("/readyz").await];
        was_loading && redis.is_loading() && answers == [StatusCode::SERVICE_UNAVAILABLE; 2]
    })
    .await;
    assert!(error_count(&service, "loading").await > 0);
    redis.wait_until_loaded();
    wait_for_recovery(&service, "loading").await;
    ledger.check("loading", &mut redis.connection());
    // The restart before and a slow Redis after are failures of other kinds.
    assert_one_line(&log_of_outage(service).await, "loading", 4);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_is_503_only_for_the_segment_whose_key_is_of_another_type() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    redis.record_data_set();
    redis.call::<()>(&["SET", "segment:taken", "x"]);
    let service = serve(&folder, &redis.url(), &[]);
    for _ in 0..20 {
        let taken = json!({ "user_id": "u1", "segment": "taken" });
        let (taken, other) = tokio::join!(service.post_visit(&taken), post_probe(&service));
        assert_eq!((taken.status().as_u16(), other.as_u16()), (503, 204));
        assert_eq!(service.status_of("/segments/taken/count").await, 503);
        assert_eq!(service.status_of("/segments/probes/count").await, 200);
    }
    assert_eq!(service.status_of("/readyz").await, 200);
    assert!(error_count(&service, "wrong_type").await >= 40);
    let log = service.terminate_for_log();
    assert_eq!(log.iter().filter(|line| line.contains("a key of another type")).count(), 1, "{log:#?}");
}
