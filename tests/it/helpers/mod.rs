//! Fixtures: a Redis, the service in this process and the service as a process. Each belongs to one test.

mod app;
mod client;
mod cluster;
mod collector;
mod git;
mod port;
mod process;
mod proxy;
mod redis;
mod sentinel;
mod service;
mod stub_server;
mod tls;
mod upload;

use std::panic::Location;
use std::time::{Duration, Instant};

use segment_estimator::domain::{SegmentName, Timestamp, UserId, Visit};

pub use self::app::{TestApp, settings, settings_with};
pub use self::client::{Client, count_path, encoded, problem, success};
pub use self::cluster::RedisCluster;
pub use self::collector::Collector;
pub use self::git::{apart_from_git, git};
pub use self::port::free_port;
pub use self::process::{is_running, kill, open_descriptors, peak_memory, resident_memory};
pub use self::proxy::{Fault, Proxy, Toxic};
pub use self::redis::Redis;
pub use self::sentinel::Sentinels;
pub use self::service::{Service, binary, private_redis, private_redis_connection, private_redis_pid, refusal, run};
pub use self::stub_server::StubServer;
pub use self::tls::Authority;
pub use self::upload::Upload;

/// The time after which a test fails instead of waiting longer. It says nothing about how fast the service must be.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The present of tests with a clock of their own.
pub const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);

/// Waits until `condition` holds. Panics with the caller's location after [`TIMEOUT`].
#[track_caller]
pub fn eventually(what: &str, condition: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    let (caller, deadline) = (Location::caller(), Instant::now() + TIMEOUT);
    async move {
        while !condition().await {
            assert!(Instant::now() < deadline, "{caller}: not within {TIMEOUT:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Awaits `future`. Panics with the caller's location after [`TIMEOUT`].
#[track_caller]
pub fn in_time<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let result = tokio::time::timeout(TIMEOUT, future).await;
        result.unwrap_or_else(|_| panic!("{caller}: not within {TIMEOUT:?}: {what}"))
    }
}

pub fn segment(name: &str) -> SegmentName<'_> {
    SegmentName::parse(name).unwrap()
}

/// Returns a visit that arrives at the time of its `seen_at`.
pub fn visit<'a>(user: &'a str, name: &'a str, seen_at: Timestamp) -> Visit<'a> {
    Visit::new(UserId::parse(user).unwrap(), segment(name), Some(seen_at), seen_at).unwrap()
}

/// Returns [`NOON`] plus `millis` milliseconds.
pub fn noon_plus(millis: i64) -> Timestamp {
    Timestamp::from_millis(NOON.as_millis() + millis)
}
