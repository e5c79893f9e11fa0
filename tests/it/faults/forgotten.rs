//! A Redis that has forgotten: flushed, or restored from a backup, while the service runs.

use super::serve;
use crate::helpers::{Proxy, Redis, Service};

/// What the service answers of each segment, and what the index has.
async fn state(service: &Service, redis: &Redis) -> (Vec<u64>, Vec<String>) {
    let counts = [service.count("sports").await, service.count("news").await];
    (counts.to_vec(), redis.call(&["ZRANGE", "segments", "0", "-1"]))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test]
async fn after_a_flush_counts_are_zero_and_the_next_visits_are_indexed() {
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

/// The backup has another segment, and lacks one that the service has written meanwhile.
#[tokio::test]
async fn after_a_restore_answers_are_those_of_the_backup() {
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
    // The operator ends one and starts the other in its place.
    proxy.lead_to(&backup);
    now.call::<()>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert_eq!(state(&service, &backup).await, (vec![0, 1], names(&["news"])));

    service.record("u2", "sports").await;
    assert_eq!(state(&service, &backup).await, (vec![1, 1], names(&["news", "sports"])));
    assert!(service.terminate().success());
}
