//! The commands of a data set whose segments keep all members. Bounded segments must not change them.

use std::fs;
use std::time::Duration;

use rstest::rstest;
use segment_estimator::domain::{SegmentName, UserId, Window};
use segment_estimator::estimator::history::{History, HistorySampler, Interval};
use segment_estimator::estimator::overlap::{OverlapLimits, Overlaps};
use segment_estimator::estimator::{Estimator, ListQuery, MembersQuery, Order};
use segment_estimator::store::{Batch, Partitions};

use crate::helpers::{NOON, Redis, TIMEOUT, noon_plus, segment, visit};

/// Does everything that reads or writes members, one after another. Calls `after` with the name of each operation.
async fn do_everything(redis: &Redis, partitions: &str, mut after: impl FnMut(&str)) {
    let store = redis.store().with_partitions(Some(Partitions::parse(partitions).unwrap()));
    let window = Window::parse("14d").unwrap();
    let estimator = Estimator::new(store.clone(), window);
    let [sports, news] = ["sports", "news"].map(segment);
    estimator.ready().await.unwrap();
    after("begin");
    let user = UserId::parse("u2").unwrap();

    estimator.record(visit("u1", "sports", NOON), NOON).await.unwrap();
    after("record");
    let mut batch = Batch::default();
    for (user, name) in [("u1", "news"), ("u2", "sports"), ("u3", "sports"), ("u2", "news"), ("u4", "old")] {
        batch.add(&visit(user, name, if name == "old" { noon_plus(-1_209_590_000) } else { noon_plus(-7_500) }));
    }
    estimator.acquire_bulk_permit().await.unwrap().write(&batch).await.into_result().unwrap();
    after("record a batch");
    estimator.estimate(&sports, NOON).await.unwrap();
    after("count");
    estimator.estimate_each(vec![sports.clone(), news.clone()], window, NOON).await.unwrap();
    after("count several");
    let query =
        |order| ListQuery { prefix: String::new(), contains: String::new(), order, limit: 10, cursor: None, window };
    estimator.list(&query(Order::Name), NOON).await.unwrap();
    after("list by name");
    estimator.list(&query(Order::Count), NOON).await.unwrap();
    after("list by count");
    estimator.histogram(&sports, window, 3, NOON).await.unwrap();
    after("histogram");
    let limits = OverlapLimits { timeout: TIMEOUT, concurrency: 1, wait: TIMEOUT, memory: Overlaps::MAX_MEMORY };
    let segments: Vec<SegmentName<'static>> = vec![sports.clone(), news.clone()];
    Overlaps::new(store.clone(), window, limits).overlap(&segments, window, async { Ok(NOON) }).await.unwrap();
    after("overlap");
    let query = MembersQuery { segment: sports.clone(), window, from: None, limit: None, accepts_sample: false };
    let mut list = estimator.members(query).unwrap();
    while list.next(NOON).await.unwrap().is_some() {}
    after("list members");
    estimator.segments_of(&user, NOON).await.unwrap();
    after("segments of a user");
    estimator.membership(&sports, &user, window, NOON).await.unwrap();
    after("membership");
    let history = History::new(store.clone(), Interval::parse("1h").unwrap());
    HistorySampler::new(estimator.clone(), history.clone()).sample(NOON, NOON).await.unwrap();
    after("sample");
    history.of(&sports, noon_plus(-3_600_000), NOON, Duration::from_secs(3_600)).await.unwrap();
    after("history");
    estimator.prune(noon_plus(60_000)).await.unwrap();
    after("prune");
    estimator.remove_user(&user, &news, Some(NOON)).await.unwrap();
    after("remove a user");
    estimator.delete_user(&user).await.unwrap();
    after("delete a user");
    estimator.delete_segment(&sports, false, NOON).await.unwrap();
    after("delete a segment");
}

/// Returns the commands of a line of `MONITOR` without what differs between runs: the time, the connection, the texts
/// of scripts and random names.
fn command(line: &str) -> Option<String> {
    let (connection, command) = line.split_once("] ")?;
    let is_of_a_script = connection.ends_with("lua");
    let words: Vec<_> = command.strip_prefix('"')?.strip_suffix('"')?.split("\" \"").collect();
    let is_background = ["PING", "TIME", "INFO", "HELLO", "CLIENT", "MONITOR", "ECHO"].contains(&words[0]);
    if is_of_a_script || is_background {
        return None;
    }
    let words = words.iter().enumerate().map(|(at, word)| match *word {
        _ if words[0] == "EVAL" && at == 1 => "<script>".to_owned(),
        word if word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) => "<instance>".to_owned(),
        word => word.to_owned(),
    });
    Some(words.collect::<Vec<_>>().join(" "))
}

/// The expected commands are those of the version before bounded segments.
#[rstest]
#[case::one_partition("1")]
#[case::two_partitions("2")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_an_exact_data_set_are_those_of_the_version_before(#[case] partitions: &str) {
    let redis = Redis::start();
    let mut monitored = redis.monitor();
    let mut found = String::new();
    do_everything(&redis, partitions, |operation| {
        // What was sent before this is in the answer of `MONITOR`.
        redis.call::<()>(&["ECHO", operation]);
        // A new data set looks into all possible partitions.
        let begins = operation == "begin";
        found += &format!("# {operation}\n");
        let end = format!("\"ECHO\" \"{operation}\"");
        let mut commands: Vec<_> = monitored.by_ref().take_while(|line| !line.contains(&end)).collect();
        commands = commands.iter().filter_map(|line| command(line)).filter(|_| !begins).collect();
        if operation == "overlap" {
            // It reads segments concurrently.
            commands.sort();
        }
        found.extend(commands.into_iter().map(|command| command + "\n"));
    })
    .await;
    let path = format!("tests/it/store/exact_commands_{partitions}.txt");
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_same_lines(&expected, &found);
}

/// Asserts that both have the same lines, and names the first that differs.
#[track_caller]
fn assert_same_lines(expected: &str, found: &str) {
    for (number, (expected, found)) in (1..).zip(expected.lines().zip(found.lines())) {
        assert_eq!(found, expected, "line {number}");
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}
