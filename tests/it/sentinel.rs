//! The sentinels that tests have: that they do what they take for granted.

use crate::helpers::{Sentinels, eventually};

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
