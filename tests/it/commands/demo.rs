//! `segment-estimator demo`: fills an empty data set with a generated population.

use std::collections::HashSet;
use std::path::Path;
use std::process::Output;

use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::history::{History, Interval};
use segment_estimator::estimator::{ListQuery, Order};

use crate::helpers::{Redis, Service, binary, refusal, run, segment};

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
        let count = estimator.estimate(&segment(name), now).await.unwrap().count();
        assert_eq!(count, members(&redis, name).len() as u64, "{name}");
        let known = history.of(&segment(name), now - 14 * day + hour, now, hour).await.unwrap();
        // The new segment has no samples of the time before it.
        let known = known.iter().skip_while(|point| name == "podcasts" && point.count.is_none());
        let counts: Vec<_> = known.map(|point| point.count.unwrap().count()).collect();
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

/// Returns the users of a segment.
fn users(redis: &Redis, name: &str) -> HashSet<String> {
    members(redis, name).into_iter().map(|(user, _)| user).collect()
}

#[tokio::test]
async fn demo_tells_of_a_new_segment_one_that_ended_and_related_ones() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let arguments = ["--segments", "60", "--users", "4000", "--public-url", "https://example.com/team/"];
    let said = demo(folder.path(), &redis, &arguments);
    assert!(said.contains("same settings and open https://example.com/team/\n"), "{said}");
    for page in ["/?sort=change", "/pages/segment?name=podcasts", "/pages/segment?name=radio"] {
        assert!(said.contains(&format!("\n- {page}: ")), "{said}");
    }

    let (estimator, now) = (redis.estimator("14d"), Timestamp::now());
    let list = async |order| {
        let (prefix, contains, window) = (String::new(), String::new(), estimator.window());
        let query = ListQuery { prefix, contains, order, limit: 100, cursor: None, window };
        estimator.list(&query, now).await.unwrap().segments
    };
    // The new segment has grown today, and has no change in a week.
    let newest = &list(Order::Newest).await[0];
    assert_eq!((newest.segment.as_str(), newest.changes.week), ("podcasts", None));
    assert!(newest.changes.day.unwrap().absolute() > 0);
    // The one that ended has lost the most, and nobody was seen there lately.
    let shrinking = list(Order::Decline).await;
    let radio = shrinking.iter().find(|counted| counted.segment.as_str() == "radio").unwrap();
    assert!(radio.changes.week.unwrap().relative().unwrap() < -0.25, "{radio:?}");
    assert!(shrinking.iter().take(3).any(|counted| counted.segment.as_str() == "radio"), "{:?}", &shrinking[..3]);
    let histogram = estimator.histogram(&segment("radio"), estimator.window(), 14, now).await.unwrap();
    let counts: Vec<_> = histogram.buckets.iter().map(|bucket| bucket.count.count()).collect();
    assert!(counts[..4].iter().sum::<u64>() > 0 && counts[5..] == [0; 9], "{counts:?}");

    // The last two lines name related topics, and a sub-segment and its topic.
    let named: Vec<_> = said.lines().rev().take(2).map(|line| line.split([':', '&']).collect::<Vec<_>>()).collect();
    // The line of related topics begins with the segment of all users.
    let segments =
        |line: &[&str], first: usize| [0, 1].map(|index| line[first + index].rsplit('=').next().unwrap().to_owned());
    let [outer, inner] = segments(&named[0], 0).map(|name| users(&redis, &name));
    let inside = inner.intersection(&outer).count();
    assert!(inside * 10 >= inner.len() * 8, "{inside} of {}", inner.len());
    let [one, other] = segments(&named[1], 1).map(|name| users(&redis, &name));
    let by_chance = one.len() * other.len() / 4_000;
    let common = one.intersection(&other).count();
    assert!(common > by_chance * 3 / 2, "{common} in common, {by_chance} by chance");
    // Beside the segment of all users, the page shows the lift.
    assert!(said.contains("/pages/overlap?segment=visitors&segment="), "{said}");
    assert_eq!(users(&redis, "visitors").len(), 4_000);
}

#[test]
fn demo_names_no_address_of_a_service_that_runs_on_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let output = run(binary(folder.path()).args(["demo", "--segments", "1", "--users", "10"]));
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\nopen the running service in a browser\n") && !said.contains("http://"), "{said}");
    assert!(service.terminate().success());
}

#[tokio::test]
async fn demo_fills_a_data_set_with_a_shorter_window() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    demo(folder.path(), &redis, &["--segments", "30", "--users", "500", "--window", "3d"]);
    let (estimator, now) = (redis.estimator("3d"), Timestamp::now());
    let history = History::new(redis.store(), Interval::parse("1h").unwrap());
    let hour = std::time::Duration::from_secs(60 * 60);
    for name in redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]) {
        let count = estimator.estimate(&segment(&name), now).await.unwrap().count();
        assert_eq!(count, members(&redis, &name).len() as u64, "{name}");
        let known = history.of(&segment(&name), now - 2 * hour, now, hour).await.unwrap();
        let last = known.iter().rev().find_map(|point| point.count).unwrap().count();
        assert!(last.abs_diff(count) <= 2 + count / 5, "{name}: {count} after {last}");
    }
    assert_eq!(redis.store().layout().await.unwrap().window(), Some(Window::parse("3d").unwrap()));
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
