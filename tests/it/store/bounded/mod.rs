//! Bounded segments: what they keep, and what their estimates are.

mod access;
mod deletion;
mod depth;
mod model;
mod sample;
mod under_load;

use std::collections::{BTreeMap, BTreeSet};

use redis::ConnectionLike;
use segment_estimator::domain::{Depth, Estimate, Level, Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::store::{Batch, MaxMembers, Partitions, Store};

use crate::helpers::{Redis, eventually, visit};

/// The bound of these tests, which is the smallest one.
const BOUND: u64 = 1_024;

/// Returns the window of these tests.
fn window() -> Window {
    Window::parse("14d").unwrap()
}

/// Returns a store of bounded segments in so many partitions.
fn bounded_store(redis: &Redis, partitions: &str) -> Store {
    let partitions = Partitions::parse(partitions).unwrap();
    let max_members = MaxMembers::parse(&BOUND.to_string()).unwrap();
    redis.store().with_partitions(Some(partitions)).with_max_members(Some(max_members))
}

/// Returns an estimator of bounded segments in so many partitions. Users leave after 14 days.
fn bounded(redis: &Redis, partitions: &str) -> Estimator {
    Estimator::new(bounded_store(redis, partitions), window())
}

/// Records visits of the users `u<number>` to the segment `name` at `seen_at`.
async fn record(estimator: &Estimator, name: &str, users: impl IntoIterator<Item = u32>, seen_at: Timestamp) {
    let users: Vec<_> = users.into_iter().collect();
    for users in users.chunks(1_000) {
        let mut batch = Batch::default();
        users.iter().for_each(|user| batch.add(&visit(&format!("u{user}"), name, seen_at)));
        estimator.acquire_bulk_permit().await.unwrap().write(&batch).await.into_result().unwrap();
    }
}

/// Returns the recorded depths of the segment `name` by partition, and an empty text where it keeps all users.
fn depths(redis: &Redis, name: &str) -> BTreeMap<String, String> {
    let tags: Vec<String> = redis.call(&["KEYS", "*segments"]);
    let tags = tags.into_iter().map(|key| key.trim_end_matches("segments").to_owned());
    tags.map(|tag| {
        let depth: Option<String> = redis.call(&["HGET", &format!("{tag}depths"), name]);
        (tag, depth.unwrap_or_default())
    })
    .collect()
}

/// Returns the recorded depth of the segment `name` in the only partition.
fn depth(redis: &Redis, name: &str) -> String {
    redis.call::<Option<String>>(&["HGET", "depths", name]).unwrap_or_default()
}

/// Returns the number of a recorded depth.
fn number(depth: &str) -> u8 {
    depth.split('>').next().unwrap().parse().unwrap_or_default()
}

/// Returns the members of the segment `name` in all partitions, with their scores, that have the level of their key and
/// are kept by the recorded depth.
fn kept(redis: &Redis, name: &str) -> BTreeMap<String, f64> {
    let mut members = BTreeMap::new();
    for (tag, depth) in depths(redis, name) {
        for level in Depth::from_number(number(&depth)).unwrap().levels() {
            let key = format!("{tag}segment@{}:{name}", level.number());
            for (user, score) in redis.call::<Vec<(String, f64)>>(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]) {
                assert_eq!(Level::of(&user), level, "{user} is in {key}");
                assert!(members.insert(user, score).is_none(), "two keys have a user of {name}");
            }
        }
    }
    members
}

/// Returns those of the users `u<number>` that are of the level `depth` or a higher one.
fn users_from(depth: u8, users: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    let names = users.into_iter().map(|user| format!("u{user}"));
    names.filter(|user| Level::of(user).number() >= depth).collect()
}

/// Asserts that `estimate` is within five standard errors of the `users`, or equal to them if it is exact.
#[track_caller]
fn assert_near(estimate: Estimate, users: u64) {
    let difference = estimate.count().abs_diff(users) as f64;
    let allowed = if estimate.is_exact() { 0.0 } else { 5.0 * estimate.variance().sqrt() };
    assert!(difference <= allowed, "{estimate} of {users} users");
}

/// Waits until no segment in a partition has more members than its bound, in levels that are kept.
async fn wait_until_within_bound(redis: &Redis, name: &str, bound: u64) {
    let sizes = || {
        let mut sizes = BTreeMap::<_, u64>::new();
        for (tag, depth) in depths(redis, name) {
            let keys = (number(&depth)..=Level::MAX.number()).map(|level| format!("{tag}segment@{level}:{name}"));
            let cards = keys.map(|key| redis.call::<u64>(&["ZCARD", &key]));
            *sizes.entry(tag.clone()).or_default() += cards.sum::<u64>();
        }
        sizes
    };
    // A check begins when a sixteenth of the bound is new.
    let slack = bound / 16;
    eventually("the segment is within its bound", async || sizes().values().all(|size| *size <= bound + slack)).await;
}

/// Returns the commands that Redis has run so far, without those that read the statistics.
fn calls(connection: &mut impl ConnectionLike) -> BTreeMap<String, u64> {
    let stats: String = redis::cmd("INFO").arg("commandstats").query(connection).unwrap();
    let lines = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
    let calls = lines.map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap()));
    calls.filter(|(name, _)| name != "info").collect()
}
