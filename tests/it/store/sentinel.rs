//! Redis Sentinel: the helpers that other tests rely on, and how the service finds the primary. `faults/sentinel.rs`
//! tests it under load.

use crate::helpers::{Redis, Sentinels, Service, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_primary_promotes_a_replica_and_the_old_one_returns_as_a_replica() {
    let mut sentinels = Sentinels::start().await;
    sentinels[sentinels.primary()].call::<()>(&["SET", "key", "value"]);
    let has_key = |replica: &Redis| replica.call::<Option<String>>(&["GET", "key"]).as_deref() == Some("value");
    eventually("the replicas have the key", async || sentinels.replicas().all(has_key)).await;
    let killed = sentinels.kill_primary();
    sentinels.wait_until_failed_over(killed).await;
    assert_ne!(sentinels.primary(), killed);
    assert_eq!(sentinels[sentinels.primary()].call::<String>(&["GET", "key"]), "value");
    sentinels.start_again(killed);
    sentinels.wait_until_ok().await;
}

/// A lost machine doesn't refuse connections. It doesn't answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_sentinel_delays_neither_the_start_nor_a_failover() {
    let (mut sentinels, folder) = (Sentinels::start().await, tempfile::tempdir().unwrap());
    sentinels.freeze_one();
    // A request that waited for the frozen sentinel would take an hour.
    let limits = ["--redis-connect-timeout", "1h", "--redis-timeout", "1h"];
    let service = Service::start(folder.path(), &[&["--redis-sentinel", &sentinels.urls()], &limits[..]].concat());
    service.record("u1", "sports").await;
    eventually("both replicas have the visit", async || {
        sentinels.replicas().all(|replica| replica.call::<usize>(&["EXISTS", "segment:sports"]) == 1)
    })
    .await;

    let killed = sentinels.kill_primary();
    sentinels.wait_until_failed_over(killed).await;
    eventually("visits are accepted again", async || {
        let visit = serde_json::json!({ "user_id": "u2", "segment": "sports" });
        service.post_visit(&visit).await.status() == 204
    })
    .await;
    assert_eq!(service.count("sports").await, 2);
    assert!(service.terminate().success());
}
