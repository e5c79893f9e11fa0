//! `segment-estimator repartition`: moves the data set to another number of partitions.

use std::process::Command;

use rstest::rstest;
use segment_estimator::domain::Timestamp;
use segment_estimator::store::{Batch, Error, Partitions, Phase, Resharding};
use tempfile::TempDir;

use crate::helpers::{Redis, Service, TestApp, binary, refusal, run, success, visit};

/// Runs the command, which must succeed. Returns standard output.
fn repartition(folder: &TempDir, redis: &Redis, to: &str) -> String {
    let output = run(binary(folder.path()).args(["repartition", "--to", to, "--redis-url", &redis.url()]));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a service that fails to start. Returns its last line.
fn last_line(command: &mut Command) -> String {
    let output = run(command.env("ESTIMATOR_LISTEN", "127.0.0.1:0"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap().lines().last().unwrap().to_owned()
}

/// Returns the distinct prefixes of the members' keys, and the number of members.
fn layout(redis: &Redis) -> (Vec<String>, u64) {
    let (mut prefixes, mut members) = (Vec::new(), 0);
    for key in redis.sets() {
        if let Some((prefix, _)) = key.split_once("segment:") {
            prefixes.push(prefix.to_owned());
            members += redis.call::<u64>(&["ZCARD", &key]);
        }
    }
    prefixes.sort();
    prefixes.dedup();
    (prefixes, members)
}

#[tokio::test(flavor = "multi_thread")]
async fn repartition_moves_a_data_set_there_and_back_with_exact_counts() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    // More than two pages of one segment, and a few members of others, with names that look like keys.
    let visits: Vec<_> = (0..2_500).map(|n| format!(r#"{{"user_id":"u{n}","segment":"sports"}}"#)).collect();
    success(app.lines_request(visits.join("\n")).send().await.unwrap()).await;
    for segment in ["{p01}:segment:sports", "segments", "layout"] {
        app.record("u1", segment).await;
    }
    let seen_at: f64 = redis.call(&["ZSCORE", "segment:sports", "u7"]);

    let said = repartition(&folder, &redis, "8");
    assert!(said.starts_with("there are 8 partitions now: 2503 members copied and 4 counts compared in "), "{said}");
    assert_eq!(app.count("sports").await, 2_500);
    assert_eq!(app.count("layout").await, 1);
    let (prefixes, members) = layout(&redis);
    assert_eq!((prefixes.len(), members), (8, 2_503), "{prefixes:?}");
    assert!(prefixes.iter().all(|prefix| prefix.starts_with("{p0")), "{prefixes:?}");

    app.record("u2500", "sports").await;
    repartition(&folder, &redis, "2");
    assert_eq!(app.count("sports").await, 2_501);
    let (prefixes, members) = layout(&redis);
    assert_eq!((prefixes, members), (vec!["{q00}:".to_owned(), "{q01}:".to_owned()], 2_504));

    repartition(&folder, &redis, "1");
    assert_eq!(app.count("sports").await, 2_501);
    assert_eq!(layout(&redis), (vec![String::new()], 2_504));
    assert_eq!(redis.call::<f64>(&["ZSCORE", "segment:sports", "u7"]), seen_at);
    assert_eq!(redis.call::<Vec<String>>(&["KEYS", "{*}:layout"]), [""; 0]);

    let said = repartition(&folder, &redis, "1");
    assert_eq!(said, "nothing to do: there is 1 partition\n");
}

#[test]
fn repartition_refuses_a_redis_that_may_evict_keys() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.call::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    let command = ["repartition", "--to", "8", "--redis-url", &redis.url()];
    let error = refusal(binary(folder.path()).args(command));
    let expected = "segment-estimator: Redis evicts histories, and tombstones of deleted users during a move, when its memory is full \
                    (volatile-lru); set maxmemory-policy to noeviction, and then run the same command again";
    assert!(error.starts_with(expected), "{error}");
    assert!(redis.call::<Option<String>>(&["GET", "layout"]).is_none(), "nothing was begun");

    redis.call::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    repartition(&folder, &redis, "8");
}

#[test]
fn start_refuses_another_number_of_partitions() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    repartition(&folder, &redis, "8");
    let url = redis.url();
    let message = last_line(binary(folder.path()).args(["--redis-url", &url, "--partitions", "4"]));
    let expected = "segment-estimator: partitions: the data set has 8 partitions, but partitions is 4: unset it, or move the \
                    data with `segment-estimator repartition --to 4`";
    assert_eq!(message, expected);
    for arguments in [&["--redis-url", &url, "--partitions", "8"][..], &["--redis-url", &url]] {
        assert!(Service::start(folder.path(), arguments).terminate().success());
    }
}

#[tokio::test]
async fn adopt_records_one_partition_for_a_data_set_of_an_early_version() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.call::<()>(&["ZADD", "segment:sports", "1", "u1"]);
    redis.call::<()>(&["ZADD", "segments", "0", "sports"]);
    let url = redis.url();
    let adopted = run(binary(folder.path()).args(["adopt", "--yes", "--redis-url", &url]));
    assert!(adopted.status.success(), "{adopted:?}");
    let message = last_line(binary(folder.path()).args(["--redis-url", &url, "--partitions", "8"]));
    assert!(message.contains("the data set has 1 partition, but partitions is 8"), "{message}");
    let app = TestApp::spawn(&redis).await;
    assert_eq!(app.count("sports").await, 0);
    let record = r#"{"epoch":1,"keys":"plain","window_seconds":1209600}"#;
    assert_eq!(redis.call::<String>(&["GET", "layout"]), record);
}

#[test]
fn repartition_refuses_another_number_during_a_move() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.call::<()>(&["SET", "layout", r#"{"epoch":2,"keys":"p8","move":{"to":"plain","phase":"copying"}}"#]);
    let message = refusal(binary(folder.path()).args(["repartition", "--to", "4", "--redis-url", &redis.url()]));
    assert!(message.contains("a move to 1 partition is in progress; finish it first with `"), "{message}");
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.call::<()>(&["SET", "layout", r#"{"epoch":2,"keys":"plain","move":{"to":"p8","phase":"copying"}}"#]);
    let url = redis.url();
    let message = refusal(binary(folder.path()).args(["repartition", "--to", "4", "--redis-url", &url]));
    assert!(message.contains("a move to 8 partitions is in progress; finish it first"), "{message}");
    repartition(&folder, &redis, "8");
    assert_eq!(redis.call::<String>(&["GET", "layout"]), r#"{"epoch":5,"keys":"p8"}"#);
}

#[test]
fn repartition_refuses_a_record_of_a_later_version() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.call::<()>(&["SET", "layout", r#"{"epoch":2,"keys":"r8"}"#]);
    let message = refusal(binary(folder.path()).args(["repartition", "--to", "4", "--redis-url", &redis.url()]));
    assert!(
        message
            .contains("the key `layout`, with redis_key_prefix in front, holds no record that this version can read"),
        "{message}"
    );
    assert_eq!(redis.call::<Vec<String>>(&["KEYS", "*"]), ["layout"]);
}

#[test]
fn repartition_refuses_an_invalid_number() {
    let folder = tempfile::tempdir().unwrap();
    let message = refusal(binary(folder.path()).args(["repartition", "--to", "6"]));
    assert!(message.contains("'6'") && message.contains("must be a power of two from 1 to 1024"), "{message}");
}

/// As if the machine of the first run was suspended while another run completed the move.
#[tokio::test(flavor = "multi_thread")]
async fn delete_keys_and_change_layout_refuse_an_outdated_layout() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let store = redis.store();
    let before = store.propagate_layout().await.unwrap();
    let target = before.keys().sibling(Partitions::parse("8").unwrap(), None);
    repartition(&folder, &redis, "8");

    assert_eq!(store.delete_keys(&before, target).await, Err(Error::LayoutChanged));
    assert_eq!(app.count("sports").await, 1);
    let step =
        store.change_layout(&before, before.keys(), Some(Resharding { to: target, phase: Phase::Backfill })).await;
    assert_eq!(step, Err(Error::LayoutChanged));
    assert_eq!(app.count("sports").await, 1);
}

/// As if the first run was suspended with a page in its hands while another run completed the move, and a user and a
/// segment were deleted then.
#[rstest]
#[case::one_partition("1", "8")]
#[case::to_one_partition("8", "1")]
#[tokio::test(flavor = "multi_thread")]
async fn copy_with_an_outdated_layout_brings_nothing_back(#[case] from: &str, #[case] to: &str) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    repartition(&folder, &redis, from);
    let app = TestApp::spawn(&redis).await;
    let mut page = Batch::default();
    for (user, name) in [("u1", "sports"), ("u2", "sports"), ("u2", "news")] {
        app.record(user, name).await;
        page.add(&visit(user, name, Timestamp::now()));
    }
    let store = redis.store();
    let before = store.propagate_layout().await.unwrap();
    let target = before.keys().sibling(Partitions::parse(to).unwrap(), None);
    let resharding = Some(Resharding { to: target, phase: Phase::Backfill });
    let backfill = store.change_layout(&before, before.keys(), resharding).await.unwrap();
    store.copy(&backfill, target, &page).await.unwrap();
    repartition(&folder, &redis, to);
    assert_eq!(app.request("DELETE", "/users/u1").send().await.unwrap().status(), 200);
    assert_eq!(app.request("DELETE", "/segments/news").send().await.unwrap().status(), 200);

    assert_eq!(store.copy(&backfill, target, &page).await, Err(Error::LayoutChanged));
    assert_eq!((app.count("sports").await, app.count("news").await), (1, 0));
    assert!(redis.sets().iter().all(|key| !key.ends_with("segment:news")), "{:?}", redis.sets());

    // After a second move, the key set of the copy has no record any more.
    repartition(&folder, &redis, "16");
    let before = redis.sets();
    assert_eq!(store.copy(&backfill, target, &page).await, Err(Error::LayoutChanged));
    assert_eq!(redis.sets(), before);
}

#[rstest]
#[case::other_type(&["RPUSH", "{p03}:layout", "theirs"])]
#[case::not_json(&["SET", "{p03}:layout", "theirs"])]
#[case::other_json(&["SET", "{p03}:layout", r#"{"epoch":99}"#])]
#[tokio::test]
async fn delete_keys_leaves_a_foreign_value_of_a_record_key(#[case] foreign: &[&str]) {
    let redis = Redis::start();
    let store = redis.store();
    let before = store.propagate_layout().await.unwrap();
    let target = before.keys().sibling(Partitions::parse("8").unwrap(), None);
    redis.call::<()>(&["ZADD", "{p03}:segments", "0", "sports"]);
    redis.call::<()>(&["ZADD", "{p03}:segment:sports", "1", "u1"]);
    redis.call::<()>(foreign);
    let theirs: Vec<u8> = redis.call(&["DUMP", "{p03}:layout"]);
    assert_eq!(store.delete_keys(&before, target).await, Ok(1));
    assert_eq!(redis.call::<Vec<u8>>(&["DUMP", "{p03}:layout"]), theirs);
    assert_eq!(redis.call::<u64>(&["EXISTS", "{p03}:segments", "{p03}:segment:sports"]), 0);
}
