//! The deletion of a large segment.

use std::fmt::Write as _;

use segment_estimator::domain::Timestamp;

use super::delete;
use crate::helpers::{Redis, TestApp, eventually};

/// Adds `members` members to `key`, as a service would have.
fn fill(redis: &Redis, key: &str, members: usize) {
    let mut connection = redis.connection();
    let seen_at = Timestamp::now().as_score();
    for first in (0..members).step_by(10_000) {
        let mut add = ::redis::cmd("ZADD");
        add.arg(key);
        let mut id = String::new();
        for member in first..members.min(first + 10_000) {
            id.clear();
            write!(id, "u{member}").unwrap();
            add.arg(seen_at).arg(&id);
        }
        add.exec(&mut connection).unwrap();
    }
}

/// Returns the number of a line of `INFO`.
fn info(redis: &Redis, section: &str, name: &str) -> u64 {
    let text: String = redis.call(&["INFO", section]);
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().parse().unwrap()
}

/// Returns the microseconds that the commands with `name` took, by the slow log.
fn slow_log(redis: &Redis, name: &str) -> Vec<u64> {
    type Entry = (u64, u64, u64, Vec<String>, ::redis::Value, ::redis::Value);
    let entries: Vec<Entry> = redis.call(&["SLOWLOG", "GET", "1000"]);
    entries.into_iter().filter(|(_, _, _, command, ..)| command[0] == name).map(|(_, _, micros, ..)| micros).collect()
}

/// A part of Redis's time is that of the machine. Therefore it is compared with a blocking deletion of the same size.
#[tokio::test]
async fn delete_of_a_large_segment_holds_redis_for_a_fraction_of_a_blocking_deletion() {
    const MEMBERS: usize = 200_000;
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("visitor", "sports").await;
    for key in ["segment:sports", "other"] {
        fill(&redis, key, MEMBERS);
    }
    // Valkey deletes in the background by default.
    let settings = [["slowlog-log-slower-than", "0"], ["slowlog-max-len", "1000"], ["lazyfree-lazy-user-del", "no"]];
    for setting in settings {
        redis.call::<()>(&[&["CONFIG", "SET"], &setting[..]].concat());
    }
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);
    redis.call::<()>(&["SLOWLOG", "RESET"]);
    redis.call::<()>(&["DEL", "other"]);
    let visit = async { app.record("visitor", "sports").await };
    let ((is_known, count), ()) = tokio::join!(delete(&app, "sports"), visit);
    assert!(is_known);
    assert!([MEMBERS as u64 + 1, MEMBERS as u64].contains(&count), "{count}");

    let blocking = slow_log(&redis, "DEL")[0];
    let slowest = slow_log(&redis, "EVAL").into_iter().max().unwrap();
    assert!(slowest < blocking / 4, "{slowest} us, and {blocking} us for a blocking deletion");
    assert_eq!(redis.calls("unlink"), 3, "of the members, the history and the change record");
    eventually("a thread freed the members", async || info(&redis, "memory", "lazyfreed_objects") == 1).await;
    // The visit was before or after the deletion. A later one creates the segment again.
    let left = app.count("sports").await;
    assert!(left <= 1, "{left}");
    app.record("visitor", "sports").await;
    assert_eq!(app.count("sports").await, 1);
}
