//! A Redis that is flushed, or restored from a backup, while the service runs.

use super::serve;
use crate::helpers::{Proxy, Redis, Service};

/// Returns the count of each segment and the names in the index.
#[track_caller]
fn state(service: &Service, redis: &Redis) -> impl Future<Output = (Vec<u64>, Vec<String>)> {
    let counts = [service.count("sports"), service.count("news")];
    async move {
        let [sports, news] = counts;
        (vec![sports.await, news.await], redis.call(&["ZRANGE", "segments", "0", "-1"]))
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test]
async fn count_is_zero_after_a_flush_and_record_indexes_again() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let service = serve(&folder, &redis.url(), &[]);
    for round in 0..3 {
        for user in ["u1", "u2"] {
            service.record(user, "sports").await;
        }
        service.record("u1", "news").await;
        assert_eq!(state(&service, &redis).await, (vec![2, 1], names(&["news", "sports"])), "round {round}");
        redis.call::<()>(&["FLUSHALL"]);
        assert_eq!(state(&service, &redis).await, (vec![0, 0], vec![]), "round {round}");
    }
    service.record("u1", "sports").await;
    assert_eq!(state(&service, &redis).await, (vec![1, 0], names(&["sports"])));
    assert!(service.terminate().success());
}

/// The backup has another segment, and lacks one that the service has written.
#[tokio::test]
async fn count_is_that_of_the_backup_after_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let (now, backup) = (Redis::start(), Redis::start());
    let proxy = Proxy::start(&now).await;
    let service = serve(&folder, &proxy.url(), &[]);
    service.record("u1", "sports").await;
    service.record("u2", "sports").await;
    assert_eq!(state(&service, &now).await, (vec![2, 0], names(&["sports"])));

    let seen_at = now.call::<String>(&["ZSCORE", "segment:sports", "u1"]);
    backup.call::<()>(&["ZADD", "segment:news", &seen_at, "u7"]);
    backup.call::<()>(&["ZADD", "segments", "0", "news"]);
    // The operator replaces one Redis by the other.
    proxy.redirect_to(&backup);
    now.call::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(state(&service, &backup).await, (vec![0, 1], names(&["news"])));

    service.record("u2", "sports").await;
    assert_eq!(state(&service, &backup).await, (vec![1, 1], names(&["news", "sports"])));
    assert!(service.terminate().success());
}
