//! The sentinels that tests have: that they do what they take for granted, and that the service finds the primary by them. What
//! happens under load stands in `faults/sentinel.rs`.

use crate::helpers::{Sentinels, Service, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_killed_is_replaced_and_comes_back_as_a_replica() {
    let mut sentinels = Sentinels::start().await;
    sentinels[sentinels.primary()].call::<()>(&["SET", "key", "value"]);
    eventually("the replicas have it", async || sentinels[sentinels.primary()].replicas() == 2).await;
    let gone = sentinels.kill_primary();
    sentinels.wait_until_failed_over(gone).await;
    assert_ne!(sentinels.primary(), gone);
    assert_eq!(sentinels[sentinels.primary()].call::<String>(&["GET", "key"]), "value");
    sentinels.start_again(gone);
    sentinels.wait_until_ok().await;
}

/// A machine that is lost with its sentinel doesn't refuse connections: it says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_says_nothing_holds_up_neither_the_start_nor_a_failover() {
    let (mut sentinels, folder) = (Sentinels::start().await, tempfile::tempdir().unwrap());
    sentinels.freeze_one();
    // Whoever waited for it would wait for an hour.
    let limits = ["--redis-connect-timeout", "1h", "--redis-timeout", "1h"];
    let service = Service::start(folder.path(), &[&["--redis-sentinel", &sentinels.urls()], &limits[..]].concat());
    service.record("u1", "sports").await;
    eventually("both replicas have it", async || {
        sentinels.replicas().all(|replica| replica.call::<usize>(&["EXISTS", "segment:sports"]) == 1)
    })
    .await;

    let gone = sentinels.kill_primary();
    sentinels.wait_until_failed_over(gone).await;
    eventually("visits are taken again", async || {
        let visit = serde_json::json!({ "user_id": "u2", "segment": "sports" });
        service.post_visit(&visit).await.status() == 204
    })
    .await;
    assert_eq!(service.count("sports").await, 2);
    assert!(service.terminate().success());
}
