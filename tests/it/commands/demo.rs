//! `segment-estimator demo`: fills an empty data set with a generated population.

use std::path::Path;
use std::process::Output;

use segment_estimator::domain::Timestamp;
use segment_estimator::estimator::history::{History, Interval};

use crate::helpers::{Redis, binary, refusal, run, segment};

fn demo(folder: &Path, redis: &Redis, arguments: &[&str]) -> String {
    let output = run(binary(folder).args(["demo", "--redis-url", &redis.url()]).args(arguments));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the members of a segment with the times of their last visits.
fn members(redis: &Redis, name: &str) -> Vec<(String, f64)> {
    redis.call(&["ZRANGE", &format!("segment:{name}"), "0", "-1", "WITHSCORES"])
}

#[tokio::test]
async fn demo_fills_an_empty_data_set_with_histories_that_end_in_the_counts() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let said = demo(folder.path(), &redis, &["--segments", "40", "--users", "2000", "--listen", "0.0.0.0:1"]);
    assert!(said.starts_with("40 segments with ") && said.contains("open http://127.0.0.1:1/\n"), "{said}");

    let names: Vec<String> = redis.call(&["ZRANGE", "segments", "0", "-1"]);
    assert_eq!(names.len(), 40);
    let (estimator, now) = (redis.estimator("14d"), Timestamp::now());
    let history = History::new(redis.store(), Interval::parse("1h").unwrap());
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let hour = std::time::Duration::from_secs(60 * 60);
    let (mut total, mut points, mut changing) = (0, 0, 0);
    for name in &names {
        let count = estimator.estimate(&segment(name), now).await.unwrap();
        assert_eq!(count, members(&redis, name).len() as u64, "{name}");
        let known = history.of(&segment(name), now - 14 * day + hour, now, hour).await.unwrap();
        let counts: Vec<_> = known.iter().map(|point| point.count.unwrap()).collect();
        // Users may join and leave after the last point, which is up to two hours ago if an hour begins during the
        // test.
        assert!(counts.last().unwrap().abs_diff(count) <= 2 + count / 5, "{name}: {count} after {:?}", counts.last());
        changing += usize::from(counts.iter().any(|other| *other != counts[0]));
        total += count;
        // The list alternates times and counts.
        points += redis.call::<u64>(&["LLEN", &format!("history:{name}")]) / 2;
        assert_eq!(redis.call::<u64>(&["EXISTS", &format!("history: {name}")]), 1, "{name} has a change record");
    }
    // The history of a small segment may be constant.
    assert!(changing > 30, "{changing} of 40 histories change");
    assert!(said.starts_with(&format!("40 segments with {total} members, and {points} points")), "{said}");
}

#[test]
fn demo_refuses_a_data_set_with_segments() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.record_data_set();
    redis.call::<()>(&["ZADD", "segments", "0", "sports"]);
    let message = refusal(binary(folder.path()).args(["demo", "--redis-url", &redis.url()]));
    assert!(message.contains("already has segments (1)") && message.contains("--data-dir data/made-up"), "{message}");
    assert_eq!(redis.sets(), ["segments"]);
}

#[test]
fn demo_writes_the_same_members_for_the_same_seed_only() {
    let folder = tempfile::tempdir().unwrap();
    let members_of = |seed: &str| {
        let redis = Redis::start();
        demo(folder.path(), &redis, &["--segments", "30", "--users", "1000", "--seed", seed, "--partitions", "1"]);
        let mut names: Vec<String> = redis.call(&["ZRANGE", "segments", "0", "-1"]);
        names.truncate(10);
        names
            .into_iter()
            .map(|name| {
                let mut users: Vec<_> = members(&redis, &name).into_iter().map(|(user, _)| user).collect();
                users.sort();
                (name, users)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(members_of("7"), members_of("7"));
    assert_ne!(members_of("7"), members_of("8"));
}

#[test]
fn demo_refuses_invalid_arguments() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, why) in [
        (["--segments", "0"], "must be a whole number from 1 to 10000"),
        (["--users", "9"], "must be a whole number from 10 to 10000000"),
        (["--seed", "x"], "invalid digit"),
    ] {
        let Output { status, stderr, .. } = run(binary(folder.path()).arg("demo").args(arguments));
        let error = String::from_utf8(stderr).unwrap();
        assert!(!status.success() && error.contains(why), "{error}");
    }
}
