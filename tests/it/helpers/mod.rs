//! What the tests share: a Redis, a service in this process, and one in a process of its own, for one test each.

mod app;
mod client;
mod cluster;
mod collector;
mod port;
mod process;
mod proxy;
mod redis;
mod sentinel;
mod service;
mod site;
mod tls;
mod upload;

use std::time::{Duration, Instant};

use segment_estimator::domain::{SegmentName, Timestamp, UserId, Visit};

pub use self::app::TestApp;
pub use self::client::{Client, count_path, problem};
pub use self::cluster::RedisCluster;
pub use self::collector::Collector;
pub use self::port::free_port;
pub use self::process::{descriptors, is_running, kill, peak_memory, resident};
pub use self::proxy::{Blow, Proxy, Weather};
pub use self::redis::Redis;
pub use self::sentinel::Sentinels;
pub use self::service::{Service, binary, private_redis, private_redis_connection, private_redis_pid, refusal, run};
pub use self::site::Site;
pub use self::tls::Authority;
pub use self::upload::Upload;

/// How long anything may take before a test gives up on it. Nothing is asserted about how long it does take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The moment that tests with a clock of their own start from.
pub const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

/// Waits until `check` holds.
pub async fn eventually(what: &str, check: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for what must end.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("still not done: {what}"))
}

pub fn segment(name: &str) -> SegmentName<'_> {
    SegmentName::parse(name).unwrap()
}

/// A visit that is taken in at the time it was seen at.
pub fn visit<'a>(user: &'a str, name: &'a str, seen_at: Timestamp) -> Visit<'a> {
    Visit::new(UserId::parse(user).unwrap(), segment(name), Some(seen_at), seen_at).unwrap()
}

/// `NOON` and `millis` milliseconds.
pub fn noon_plus(millis: i64) -> Timestamp {
    Timestamp::from_millis(NOON.as_millis() + millis)
}
