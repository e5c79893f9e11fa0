//! Probes, as an orchestrator uses them.

use serde_json::{Value, json};

use crate::helpers::{Redis, Service, TestApp, binary, eventually, problem, run};

#[tokio::test]
async fn a_healthy_service_is_live_and_ready() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (path, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({ "status": status }));
    }
}

#[tokio::test]
async fn liveness_never_asks_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u104010", "sports").await;
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);
    for _ in 0..5 {
        assert_eq!(app.status_of("/healthz").await, 200);
    }
    let stats: String = redis.call(&["INFO", "commandstats"]);
    let of_the_test = ["cmdstat_config", "cmdstat_info", "cmdstat_client"];
    let others = stats.lines().filter(|line| line.starts_with("cmdstat_"));
    let others: Vec<_> = others.filter(|line| !of_the_test.iter().any(|own| line.starts_with(own))).collect();
    assert_eq!(others, Vec::<&str>::new());

    redis.stop();
    assert_eq!(app.status_of("/healthz").await, 200);
    eventually("not ready", async || app.status_of("/readyz").await == 503).await;
    problem(app.get("/readyz").await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn the_healthcheck_command_tells_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let address = service.address.to_string();

    let healthy = run(binary(folder.path()).args(["healthcheck", "--listen", &address]));
    assert!(healthy.status.success(), "{healthy:?}");
    let port_of_all = format!("0.0.0.0:{}", service.address.port());
    assert!(run(binary(folder.path()).args(["healthcheck", "--listen", &port_of_all])).status.success());

    assert!(service.terminate().success());
    let gone = run(binary(folder.path()).args(["healthcheck", "--listen", &address]));
    assert_eq!(gone.status.code(), Some(1));
    let message = String::from_utf8(gone.stderr).unwrap();
    assert!(message.starts_with(&format!("segment-estimator: no answer from {address}: ")), "{message}");
}
