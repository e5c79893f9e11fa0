//! Commands on data sets whose segments are bounded, so that large ones keep a sample.

mod adopt;
mod check;
mod deletions;
mod export;
mod repartition;
mod resume;
mod settings;

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::Command;

use segment_estimator::domain::{Estimate, Level, Timestamp};
use segment_estimator::estimator::Estimator;
use segment_estimator::store::Batch;
use tempfile::TempDir;

use crate::helpers::{Redis, binary, run, segment, visit};

/// Users of a segment, by id: the level and the score of each.
type Members = BTreeMap<String, (u8, f64)>;

/// Records an empty data set with the keys `keys`, such as `plain@1024`.
fn record(redis: &Redis, keys: &str) {
    redis.call::<()>(&["SET", "layout", &format!(r#"{{"epoch":1,"keys":"{keys}","window_seconds":1209600}}"#)]);
}

/// Lets users visit a segment, each at another time.
async fn fill(estimator: &Estimator, name: &str, users: Range<i64>) {
    let now = Timestamp::now().as_millis();
    for chunk in users.collect::<Vec<_>>().chunks(1_000) {
        let mut batch = Batch::default();
        for user in chunk {
            batch.add(&visit(&format!("u{user}"), name, Timestamp::from_millis(now - user)));
        }
        estimator.acquire_bulk_permit().await.unwrap().write(&batch).await.into_result().unwrap();
    }
}

/// Fills a segment as [`fill`] does, and prunes, so that it keeps a sample of up to `bound` members.
async fn fill_until_sampled(redis: &Redis, name: &str, users: Range<i64>, bound: usize) {
    let estimator = redis.estimator("14d");
    fill(&estimator, name, users).await;
    estimator.prune(Timestamp::now()).await.unwrap();
    let kept = members(redis, name).len();
    assert!(kept <= bound && depth(redis, name) > 0, "{kept} members");
}

/// Returns the members of a segment whatever its keys are, and those of levels that aren't kept left out.
fn members(redis: &Redis, name: &str) -> Members {
    let mut members = Members::new();
    for key in redis.sets() {
        let Some((tag, level)) = key.strip_suffix(&format!(":{name}")).and_then(|kind| kind.split_once("segment"))
        else {
            continue;
        };
        let lowest = depth_in(redis, &format!("{tag}depths"), name);
        let found: Vec<(String, f64)> = redis.call(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]);
        for (user, score) in found {
            let of_user = Level::of(segment_estimator::domain::UserId::parse(user.as_str()).unwrap().as_str()).number();
            assert!(level.is_empty() || level == format!("@{of_user}"), "{key} has {user}");
            if of_user >= lowest {
                assert_eq!(members.insert(user.clone(), (of_user, score)), None, "{user} is in two keys");
            }
        }
    }
    members
}

/// Returns the highest depth of a segment in any partition.
fn depth(redis: &Redis, name: &str) -> u8 {
    let keys: Vec<String> = redis.call(&["KEYS", "*depths"]);
    keys.iter().map(|key| depth_in(redis, key, name)).max().unwrap_or_default()
}

fn depth_in(redis: &Redis, key: &str, name: &str) -> u8 {
    let depth: Option<String> = redis.call(&["HGET", key, name]);
    depth.map_or(0, |depth| depth.split('>').next().unwrap().parse().unwrap())
}

/// Returns the members of the levels from `depth` on.
fn from_level(members: &Members, depth: u8) -> Members {
    members.iter().filter(|(_, (level, _))| *level >= depth).map(|(user, found)| (user.clone(), *found)).collect()
}

async fn estimate(redis: &Redis, name: &str) -> Estimate {
    redis.estimator("14d").estimate(&segment(name), Timestamp::now()).await.unwrap()
}

/// Asserts that a segment is estimated to have about `users`.
#[track_caller]
fn assert_estimates(estimate: Estimate, users: u64) {
    let error = estimate.error_95().unwrap_or_else(|| panic!("{estimate} is exact"));
    // The ids are fixed, and so is the sample of each depth.
    let difference = estimate.count().abs_diff(users) as f64;
    assert!(difference <= 1.5 * error * users as f64, "{estimate} instead of {users}");
}

/// Returns a command on `redis`, and its folder.
fn command(redis: &Redis, arguments: &[&str]) -> (TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.args(arguments).args(["--redis-url", &redis.url()]);
    (folder, command)
}

/// Runs a command, which must succeed. Returns standard output.
#[track_caller]
fn says(redis: &Redis, arguments: &[&str]) -> String {
    let (_folder, mut command) = command(redis, arguments);
    let output = run(&mut command);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command, which must fail. Returns standard error.
#[track_caller]
fn refuses(redis: &Redis, arguments: &[&str]) -> String {
    let (_folder, mut command) = command(redis, arguments);
    let output = run(&mut command);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}
