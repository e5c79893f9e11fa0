//! A Redis that is shared with other programs: data sets have separate keys, and foreign keys stay as they are.

use std::path::Path;
use std::process::{Command, Output};

use rstest::rstest;
use segment_estimator::domain::{Timestamp, UserId, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::estimator::history::{History, HistorySampler, Interval};
use segment_estimator::store::diagnostics::Permissions;
use segment_estimator::store::{Error, Partitions, Phase, Resharding, Store, shard_of};
use serde_json::json;

use crate::helpers::{
    NOON, Redis, RedisCluster, Service, TestApp, binary, eventually, noon_plus, refusal, run, segment, settings,
    success, visit,
};

/// Creates an ACL user for the keys of `pattern`, and returns its URL.
fn create_user(redis: &Redis, user: &str, pattern: &str) -> String {
    let needed = Permissions::acl_rules(false);
    let commands: Vec<_> = needed.iter().map(String::as_str).filter(|rule| rule.starts_with('+')).collect();
    let rules = ["ACL", "SETUSER", user, "reset", "on", ">secret", pattern, "+unlink"];
    redis.call::<()>(&[&rules[..], &commands, &redis.acl_rules_of_the_version()].concat());
    format!("{}?user={user}&pass=secret", redis.url())
}

/// As after another program flushed the database, or the host name resolves to another server.
#[rstest]
#[case::index_with_scores(&["ZADD", "segments", "1", "theirs"])]
#[case::another_type(&["SET", "segments", "x"])]
#[tokio::test]
async fn running_service_refuses_a_foreign_index(#[case] foreign: &[&str]) {
    let redis = Redis::start();
    let estimator = redis.estimator("1s");
    estimator.record(visit("u1", "sports", NOON), NOON).await.unwrap();
    redis.call::<()>(&["FLUSHALL"]);
    redis.call::<()>(foreign);
    redis.call::<()>(&["ZADD", "segment:theirs", "1", "a", "2", "b"]);
    let theirs = contents(&redis);
    for _ in 0..2 {
        assert!(estimator.prune(noon_plus(10_000)).await.is_err());
        assert!(matches!(estimator.ready().await, Err(Error::Unrecorded { .. })));
    }
    assert_eq!(contents(&redis), theirs);
}

/// Returns all keys with their values and times to live.
fn contents(redis: &Redis) -> Vec<(String, Vec<u8>, i64)> {
    let mut keys: Vec<String> = redis.call(&["KEYS", "*"]);
    keys.sort();
    let of = |key: String| {
        let (dump, ttl) = (redis.call(&["DUMP", &key]), redis.call(&["TTL", &key]));
        (key, dump, ttl)
    };
    keys.into_iter().map(of).collect()
}

fn command(folder: &Path, arguments: &[&str], url: &str) -> Command {
    let mut command = binary(folder);
    command.args(arguments).args(["--redis-url", url]);
    command
}

fn stdout_of(command: &mut Command) -> String {
    let output @ Output { status, .. } = &run(command);
    assert!(status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn user(id: &str) -> UserId<'_> {
    UserId::parse(id).unwrap()
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn prefix_separates_data_sets_and_needs_one_acl_pattern(#[case] partitions: &str) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let mut services = Vec::new();
    for name in ["prod", "test*"] {
        let prefix = format!("{name}:");
        let url = create_user(&redis, name.trim_end_matches('*'), &format!("~{}:*", name.replace('*', "\\*")));
        let arguments = ["--redis-url", &url, "--redis-key-prefix", &prefix, "--partitions", partitions];
        let often = ["--prune-schedule", "* * * * * *", "--history-interval", "1s"];
        services.push((prefix.clone(), Service::start(folder.path(), &[&arguments[..], &often].concat())));
    }
    for (users, (_, service)) in (1..).zip(&services) {
        for n in 0..users {
            service.record(&format!("u{n}"), "sports").await;
        }
        assert_eq!(service.request("DELETE", "/users/u0").send().await.unwrap().status(), 200);
        service.record("u0", "sports").await;
    }
    for (users, (prefix, service)) in (1..).zip(&services) {
        assert_eq!(service.count("sports").await, users, "{prefix}");
        eventually("a history exists", async || {
            redis.call::<u64>(&["EXISTS", &format!("{prefix}history:sports")]) == 1
        })
        .await;
    }
    let segments = redis.sets().into_iter().filter(|key| key.ends_with("segment:sports"));
    for key in segments {
        redis.call::<()>(&["ZADD", &key, "1", "expired"]);
        let is_pruned = async || redis.call::<Option<String>>(&["ZSCORE", &key, "expired"]).is_none();
        eventually("the member is pruned", is_pruned).await;
    }
    let keys: Vec<String> = redis.call(&["KEYS", "*"]);
    assert!(keys.iter().all(|key| services.iter().any(|(prefix, _)| key.starts_with(prefix))), "{keys:?}");
    let denied: Vec<Vec<redis::Value>> = redis.call(&["ACL", "LOG"]);
    assert!(denied.is_empty(), "{denied:?}");
    for (_, service) in services {
        assert!(service.terminate().success());
    }
}

#[test]
fn commands_use_the_prefix() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    // Keys of another program, with the names of a data set without a prefix.
    redis.call::<()>(&["ZADD", "segments", "3", "gamma"]);
    redis.call::<()>(&["SET", "history:", "theirs"]);
    let before = contents(&redis);
    let url = create_user(&redis, "estimator", "~prod:*");
    std::fs::write(folder.path().join("visits.ndjson"), r#"{"user_id":"u1","segment":"sports"}"#).unwrap();
    let run =
        |arguments: &[&str]| stdout_of(command(folder.path(), arguments, &url).args(["--redis-key-prefix", "prod:"]));
    let table = run(&["check"]);
    assert!(table.contains("\nthe keys of the data set are prod:*\n"), "{table}");
    run(&["demo", "--segments", "3", "--users", "50"]);
    // Records of changes are ours, and a text in their place isn't.
    let records: Vec<String> = redis.call(&["KEYS", "prod:history: *"]);
    assert_eq!(records.len(), 3, "{records:?}");
    let table = run(&["check"]);
    assert!(!table.contains("another program"), "{table}");
    let record: Vec<u8> = redis.call(&["DUMP", &records[0]]);
    redis.call::<()>(&["SET", &records[0], "theirs"]);
    let table = run(&["check"]);
    assert!(table.contains(&records[0]) && !table.contains(&records[1]), "{table}");
    redis::cmd("RESTORE").arg(&records[0]).arg(0).arg(record).arg("REPLACE").exec(&mut redis.connection()).unwrap();
    run(&["import", "visits.ndjson"]);
    run(&["repartition", "--to", "4"]);
    assert_eq!(run(&["window"]), "14d\n");
    run(&["window", "set", "15d"]);
    assert!(run(&["export"]).contains(r#""segment":"sports""#));
    assert!(run(&["adopt"]).starts_with("nothing to do: the data set has a record"));
    let theirs: Vec<_> = contents(&redis).into_iter().filter(|(key, ..)| !key.starts_with("prod:")).collect();
    assert_eq!(theirs, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefix_keeps_the_slots_of_partitions() {
    let cluster = RedisCluster::start_without_failover(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let urls = cluster.urls();
    let arguments = ["--redis-cluster", &urls, "--redis-key-prefix", "prod:", "--partitions", "4"];
    let service = Service::start(folder.path(), &arguments);
    for n in 0..20 {
        service.record(&format!("u{n}"), "sports").await;
    }
    assert_eq!(service.count("sports").await, 20);
    assert!(service.terminate().success());
    assert!(cluster.keys().iter().all(|key| key.starts_with("prod:")), "{:?}", cluster.keys());
    stdout_of(binary(folder.path()).args(["repartition", "--to", "8"]).args(&arguments[..4]));
    let service = Service::start(folder.path(), &arguments[..4]);
    assert_eq!(service.count("sports").await, 20);
    assert!(service.terminate().success());
}

#[rstest]
#[case::index(&["ZADD", "segments", "10", "alpha"], "`segments`")]
#[case::index_of_another_type(&["SET", "segments", "x"], "`segments`")]
#[case::segment(&["ZADD", "segment:5", "1", "a"], "`segment:*`")]
#[case::segment_of_another_type(&["RPUSH", "segment:5", "a"], "`segment:*`")]
#[case::lease(&["SET", "history:", "x"], "`history:*`")]
#[case::history(&["RPUSH", "history:x", "a"], "`history:*`")]
#[case::index_of_a_partition(&["ZADD", "{p03}:segments", "0", "sports"], "`{p03}:segments`")]
#[case::segment_of_a_partition(&["ZADD", "{p03}:segment:sports", "1", "a"], "`{p03}:segment:*`")]
#[case::segment_of_the_last_partition(&["ZADD", "{q1023}:segment:sports", "1", "a"], "`{q1023}:segment:*`")]
#[case::index_of_the_last_partition(&["ZADD", "{q1023}:segments", "0", "sports"], "`{q1023}:segments`")]
fn commands_refuse_and_keep_keys_without_a_record(#[case] foreign: &[&str], #[case] found: &str) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.call::<()>(foreign);
    redis.call::<()>(&["MSET", "a", "1", "history", "2", "segmentation", "3"]);
    let before = contents(&redis);
    std::fs::write(folder.path().join("visits.ndjson"), r#"{"user_id":"u1","segment":"sports"}"#).unwrap();
    let all = [
        &["serve", "--listen", "127.0.0.1:0", "--log-filter", "off"][..],
        &["import", "visits.ndjson"],
        &["export"],
        &["demo"],
        &["repartition", "--to", "4"],
        &["window", "set", "7d", "--yes"],
        &["check"],
    ];
    for arguments in all {
        let output = run(&mut command(folder.path(), arguments, &redis.url()));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(message.contains(&format!("the database has {found} and no data set of this service")), "{message}");
        assert!(message.contains("redis_key_prefix") && message.contains("segment-estimator adopt"), "{message}");
        assert_eq!(contents(&redis), before, "{arguments:?}");
    }
    // With a prefix, the service starts.
    let service = Service::start(folder.path(), &["--redis-url", &redis.url(), "--redis-key-prefix", "prod:"]);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn service_refuses_an_unrecorded_data_set_until_it_is_adopted() {
    let (mut redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.call::<()>(&["ZADD", "segments", "0", "sports"]);
    redis.call::<()>(&["ZADD", "segment:sports", &Timestamp::now().as_score().to_string(), "u1"]);
    redis.stop();
    let url = redis.url();
    let service = Service::start(folder.path(), &["--redis-url", &url]);
    redis.start_again();
    eventually("the data set is refused", async || service.has_logged("the database has `segments`")).await;
    for _ in 0..3 {
        let visit = json!({ "user_id": "u2", "segment": "sports" });
        assert_eq!(service.post_visit(&visit).await.status(), 503);
        assert_eq!(service.status_of("/segments/sports/count").await, 503);
        assert_eq!(service.status_of("/readyz").await, 503);
    }
    assert_eq!(redis.call::<u64>(&["EXISTS", "layout"]), 0);

    let refused = refusal(&mut command(folder.path(), &["adopt"], &url));
    assert!(refused.contains("nothing was changed: there is no terminal to ask on; add --yes"), "{refused}");
    let printed = stdout_of(&mut command(folder.path(), &["adopt", "--yes"], &url));
    assert!(
        printed.starts_with(
            "1 partition: 1 segment with 1 member; the next prune removes 0, which are older than the window of 14d"
        ),
        "{printed}"
    );
    eventually("the service is ready", async || service.status_of("/readyz").await == 200).await;
    service.record("u2", "sports").await;
    assert_eq!(service.count("sports").await, 2);
    let log = service.terminate_for_log();
    let lines = log.iter().filter(|line| line.contains("the database has `segments`")).count();
    assert_eq!(lines, 1, "{log:#?}");
}

#[rstest]
#[case::one("1")]
#[case::two("2")]
#[case::eight("8")]
#[case::many("256")]
#[tokio::test]
async fn adopt_finds_the_number_of_partitions_of_a_lost_layout(#[case] partitions: &str) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let url = redis.url();
    let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
    let visits: Vec<_> = (0..300).map(|n| json!({ "user_id": format!("u{n}"), "segment": "sports" })).collect();
    success(app.post_array(&json!(visits)).await).await;
    app.begin_stop();
    app.ended().await.unwrap();
    for key in redis.call::<Vec<String>>(&["KEYS", "*layout"]) {
        redis.call::<()>(&["DEL", &key]);
    }
    let message =
        refusal(command(folder.path(), &["serve", "--log-filter", "off"], &url).args(["--listen", "127.0.0.1:0"]));
    assert!(message.contains("segment-estimator adopt"), "{message}");

    let other = refusal(command(folder.path(), &["adopt", "--yes"], &url).args(["--partitions", "512"]));
    assert!(other.contains("nothing was changed: no keys fit 512 partitions"), "{other}");
    let printed = stdout_of(&mut command(folder.path(), &["adopt", "--yes"], &url));
    assert!(printed.contains(&format!("adopted: the data set has {partitions} partition")), "{printed}");
    assert_eq!(TestApp::spawn(&redis).await.count("sports").await, 300);
}

#[tokio::test]
async fn adopt_requires_the_number_of_partitions_if_users_fit_several_or_none() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let [four_partitions, eight] = ["4", "8"].map(|partitions| Partitions::parse(partitions).unwrap());
    let store = redis.store().with_partitions(Some(four_partitions));
    let estimator = Estimator::new(store, Window::parse("14d").unwrap());
    let fits_both = |id: &String| shard_of(&user(id), four_partitions) == shard_of(&user(id), eight);
    let first = (50..).map(|n| format!("u{n}")).find(fits_both).unwrap();
    estimator.record(visit(&first, "sports", NOON), NOON).await.unwrap();
    let delete_records = || {
        for key in redis.call::<Vec<String>>(&["KEYS", "*layout"]) {
            redis.call::<()>(&["DEL", &key]);
        }
    };
    delete_records();
    let url = redis.url();
    let output = run(&mut command(folder.path(), &["adopt", "--yes"], &url));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("fit several numbers of partitions (4, 8"), "{message}");
    stdout_of(command(folder.path(), &["adopt", "--yes"], &url).args(["--partitions", "4"]));
    assert_eq!(redis.estimator("14d").estimate(&segment("sports"), NOON).await, Ok(1.into()));

    // A key left over from more partitions, in a partition that its user doesn't belong to.
    for n in 1..49 {
        estimator.record(visit(&format!("u{n}"), "sports", NOON), NOON).await.unwrap();
    }
    redis.call::<()>(&["ZADD", "{p09}:segment:sports", "1", "u1"]);
    redis.call::<()>(&["ZADD", "{p09}:segments", "0", "sports"]);
    delete_records();
    let four = ["--partitions", "4"];
    let leftover = refusal(command(folder.path(), &["adopt", "--yes"], &url).args(four));
    assert!(leftover.contains("there are keys of the partition {p09}, and so more than 4 partitions"), "{leftover}");
    redis.call::<()>(&["DEL", "{p09}:segment:sports", "{p09}:segments"]);

    // A user in a wrong partition.
    let stray = (1..49).map(|n| format!("u{n}")).find(|id| shard_of(&user(id), four_partitions) != 3).unwrap();
    redis.call::<()>(&["ZADD", "{p03}:segment:sports", &NOON.as_score().to_string(), &stray]);
    let message = refusal(&mut command(folder.path(), &["adopt", "--yes"], &url));
    assert!(message.contains("fit no number of partitions; if it is known, name it with --partitions"), "{message}");
    for other in ["2", "8"] {
        let message = refusal(command(folder.path(), &["adopt", "--yes"], &url).args(["--partitions", other]));
        assert!(message.contains("nothing was changed: "), "{message}");
    }
    stdout_of(command(folder.path(), &["adopt", "--yes"], &url).args(four));
    assert_eq!(redis.estimator("14d").estimate(&segment("sports"), NOON).await, Ok(50.into()));
}

#[rstest]
#[case::records(&["layout"], ":segments")]
#[case::records_and_indexes(&["layout", "segments"], ":segment:*")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopt_recovers_a_lost_layout_of_a_cluster(#[case] lost: &[&str], #[case] found: &str) {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let urls = cluster.urls();
    let arguments = ["--redis-cluster", &urls];
    let service = Service::start(folder.path(), &[&arguments[..], &["--partitions", "8"]].concat());
    let visits: Vec<_> = (0..200).map(|n| json!({ "user_id": format!("u{n}"), "segment": "sports" })).collect();
    success(service.post_array(&json!(visits)).await).await;
    assert!(service.terminate().success());
    for key in cluster.keys().into_iter().filter(|key| lost.iter().any(|name| key.ends_with(name))) {
        cluster.call_where::<u64>(&key, &["DEL", &key]);
    }
    let message =
        refusal(binary(folder.path()).args(["--log-filter", "off", "--listen", "127.0.0.1:0"]).args(arguments));
    assert!(message.contains(&format!("{found}` and no data set of this service")), "{message}");
    let printed = stdout_of(binary(folder.path()).args(["adopt", "--yes"]).args(arguments));
    assert!(printed.contains("adopted: the data set has 8 partitions"), "{printed}");
    let service = Service::start(folder.path(), &arguments);
    assert_eq!(service.count("sports").await, 200);
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_by_concurrent_instances_creates_one_data_set() {
    for partitions in ["1", "8"] {
        let redis = Redis::start();
        let starting = (0..20).map(|n| {
            let store = redis.store().with_partitions(Some(Partitions::parse(partitions).unwrap()));
            let estimator = Estimator::new(store, Window::parse("14d").unwrap());
            tokio::spawn(async move { estimator.record(visit(&format!("u{n}"), "sports", NOON), NOON).await })
        });
        for recorded in futures_util::future::join_all(starting.collect::<Vec<_>>()).await {
            recorded.unwrap().unwrap();
        }
        assert_eq!(redis.estimator("14d").estimate(&segment("sports"), NOON).await, Ok(20.into()));
    }
}

#[rstest]
#[case::hash(&["HSET", "layout", "a", "b"])]
#[case::text(&["SET", "layout", "theirs"])]
#[case::sorted_set(&["ZADD", "layout", "1", "a"])]
fn commands_refuse_and_keep_a_foreign_record(#[case] foreign: &[&str]) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.call::<()>(foreign);
    let before = contents(&redis);
    for arguments in [&["check"][..], &["demo"], &["repartition", "--to", "4"], &["adopt", "--yes"], &["window"]] {
        let output = run(&mut command(folder.path(), arguments, &redis.url()));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && message.contains("set redis_key_prefix"), "{arguments:?}: {message}");
        assert_eq!(contents(&redis), before, "{arguments:?}");
    }
}

#[rstest]
#[case::table_without_an_epoch(r#"{"theirs":1}"#)]
#[case::table_without_keys(r#"{"epoch":0}"#)]
#[case::list("[1]")]
#[case::string(r#""hello""#)]
#[case::number("1")]
#[case::null("null")]
#[case::not_json("theirs")]
#[case::empty("")]
#[tokio::test]
async fn requests_refuse_and_keep_a_foreign_copy_of_the_record(#[case] theirs: &str) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let estimator = || {
        let store = redis.store().with_partitions(Some(Partitions::parse("2").unwrap()));
        Estimator::new(store, Window::parse("14d").unwrap())
    };
    estimator().record(visit("u1", "sports", NOON), NOON).await.unwrap();
    redis.call::<()>(&["SET", "{p01}:layout", theirs]);
    let before = contents(&redis);
    for _ in 0..2 {
        assert!(matches!(estimator().estimate(&segment("sports"), NOON).await, Err(Error::UnconfirmedLayout)));
    }
    let output = run(&mut command(folder.path(), &["repartition", "--to", "4"], &redis.url()));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("`{p01}:layout` holds a value that this service didn't write: rename the key"),
        "{message}"
    );
    assert_eq!(contents(&redis), before);
    redis.call::<()>(&["DEL", "{p01}:layout"]);
    assert_eq!(estimator().estimate(&segment("sports"), NOON).await, Ok(1.into()));
}

#[rstest]
#[case::record(&["layout"])]
#[case::record_and_first_copies(&["layout", "{p00}:layout", "{p01}:layout"])]
#[tokio::test]
async fn count_restores_a_lost_layout_from_the_partitions_of_one_server(#[case] lost: &[&str]) {
    let redis = Redis::start();
    let four = Some(Partitions::parse("4").unwrap());
    let before = Estimator::new(redis.store().with_partitions(four), Window::parse("14d").unwrap());
    for n in 0..50 {
        before.record(visit(&format!("u{n}"), "sports", NOON), NOON).await.unwrap();
    }
    let record: String = redis.call(&["GET", "layout"]);
    redis.call::<()>(&[&["DEL"], lost].concat());
    let after = redis.estimator("14d");
    assert_eq!(after.estimate(&segment("sports"), NOON).await.unwrap(), 50);
    for key in ["layout", "{p00}:layout", "{p03}:layout"] {
        assert_eq!(redis.call::<String>(&["GET", key]), record, "{key}");
    }
}

#[tokio::test]
async fn private_redis_needs_no_adoption() {
    let redis = Redis::start();
    redis.call::<()>(&["ZADD", "segments", "0", "sports"]);
    redis.call::<()>(&["ZADD", "segment:sports", &NOON.as_score().to_string(), "u1"]);
    let of = |store: Store| Estimator::new(store, Window::parse("14d").unwrap());
    let refused = of(redis.store()).estimate(&segment("sports"), NOON).await;
    assert!(matches!(refused, Err(Error::Unrecorded { .. })), "{refused:?}");
    assert_eq!(of(redis.store().on_private_redis()).estimate(&segment("sports"), NOON).await, Ok(1.into()));
    // The number of partitions is ambiguous.
    let redis = Redis::start();
    redis.call::<()>(&["ZADD", "{p01}:segments", "0", "sports"]);
    let refused = of(redis.store().on_private_redis()).estimate(&segment("sports"), NOON).await;
    assert!(matches!(refused, Err(Error::Unrecorded { .. })), "{refused:?}");
}

#[rstest]
#[case::text(&["SET", "history:", "theirs"])]
#[case::text_that_begins_with_numbers(&["SET", "history:", "1795348800000 0 but theirs"])]
#[case::empty_text(&["SET", "history:", ""])]
#[case::list(&["RPUSH", "history:", "theirs"])]
#[case::hash(&["HSET", "history:", "a", "b"])]
#[tokio::test]
async fn sample_names_and_keeps_a_foreign_lease_key(#[case] foreign: &[&str]) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.record_data_set();
    redis.call::<()>(foreign);
    let store = redis.store();
    let estimator = redis.estimator("14d");
    estimator.record(visit("u1", "sports", NOON), NOON).await.unwrap();
    let before = contents(&redis);
    let sampler = HistorySampler::new(estimator, History::new(store.clone(), Interval::parse("1h").unwrap()));
    let failed = sampler.sample(NOON, NOON).await.unwrap_err();
    assert_eq!(failed, Error::ForeignKey("history:".to_owned()));
    assert!(failed.to_string().contains("redis_key_prefix"), "{failed}");
    store.complete_tick(NOON).await.unwrap();
    assert_eq!(contents(&redis), before);
    let table = stdout_of(&mut command(folder.path(), &["check"], &redis.url()));
    assert!(
        table.contains("1 of them holds data that this service did not write, and will be left alone: history:"),
        "{table}"
    );
}

#[rstest]
#[case::another_type(|key| vec!["SET", key, "theirs"])]
#[case::scores(|key| vec!["ZADD", key, "7", "theirs"])]
#[tokio::test]
async fn delete_user_fails_on_and_keeps_a_foreign_tombstone_key(
    #[case] foreign: fn(&'static str) -> Vec<&'static str>,
) {
    let redis = Redis::start();
    let (store, estimator) = (redis.store(), redis.estimator("14d"));
    estimator.record(visit("u1", "sports", NOON), NOON).await.unwrap();
    let before = store.propagate_layout().await.unwrap();
    let to = before.keys().sibling(Partitions::parse("2").unwrap(), None);
    store.change_layout(&before, before.keys(), Some(Resharding { to, phase: Phase::Backfill })).await.unwrap();
    for key in ["{p00}:forgotten", "{p01}:forgotten"] {
        redis.call::<()>(&foreign(key));
    }
    let theirs = || contents(&redis).into_iter().filter(|(key, ..)| key.ends_with("forgotten")).collect::<Vec<_>>();
    let before_deletion = theirs();
    let failed = estimator.delete_user(&user("u1")).await.unwrap_err();
    assert!(matches!(failed, Error::ForeignKey(_)), "{failed:?}");
    assert_eq!(theirs(), before_deletion);
    redis.call::<()>(&["DEL", "{p00}:forgotten", "{p01}:forgotten"]);
    assert!(estimator.delete_user(&user("u1")).await.is_ok());
    assert_eq!(estimator.estimate(&segment("sports"), NOON).await, Ok(0.into()));
}

#[tokio::test]
async fn repartition_prune_and_deletion_keep_keys_of_other_types() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let estimator = redis.estimator("14d");
    estimator.record(visit("u1", "sports", NOON), NOON).await.unwrap();
    redis.call::<()>(&["ZADD", "segments", "0", "text", "0", "list", "0", "hash"]);
    redis.call::<()>(&["SET", "segment:text", "theirs"]);
    redis.call::<()>(&["RPUSH", "segment:list", "u1"]);
    redis.call::<()>(&["HSET", "segment:hash", "u1", "theirs"]);
    redis.call::<()>(&["SET", "forgotten", "theirs"]);
    let theirs = |redis: &Redis| {
        let is_theirs = |key: &str| ["segment:text", "segment:list", "segment:hash", "forgotten"].contains(&key);
        contents(redis).into_iter().filter(|(key, ..)| is_theirs(key)).collect::<Vec<_>>()
    };
    let before = theirs(&redis);
    assert_eq!(before.len(), 4);
    assert_eq!(estimator.prune(noon_plus(1)).await.unwrap().segments_of_wrong_type, 3);
    assert_eq!(estimator.delete_user(&user("u1")).await, Ok(1));
    estimator.record(visit("u1", "sports", NOON), NOON).await.unwrap();
    // A key of another type can't be copied.
    redis.call::<()>(&["ZREM", "segments", "text", "list", "hash"]);
    stdout_of(&mut command(folder.path(), &["repartition", "--to", "2"], &redis.url()));
    assert_eq!(theirs(&redis), before);
    // A resharding deletes what a stray write left in its new keys.
    redis.call::<()>(&["ZADD", "segments", "0", "text", "0", "list", "0", "hash", "0", "stray"]);
    redis.call::<()>(&["ZADD", "segment:stray", "1", "u1"]);
    let stopped = run(&mut command(folder.path(), &["repartition", "--to", "1"], &redis.url()));
    assert!(
        String::from_utf8_lossy(&stopped.stderr)
            .contains(": `forgotten` holds data that no move of this data set wrote, and")
    );
    assert_eq!(theirs(&redis), before);
    redis.call::<()>(&["DEL", "forgotten"]);
    stdout_of(&mut command(folder.path(), &["repartition", "--to", "1"], &redis.url()));
    assert_eq!(theirs(&redis), before[1..]);
    let mut sets = redis.sets();
    sets.sort();
    assert_eq!(sets, ["segment:sports", "segments"]);
}

#[rstest]
#[case::braces("a{b}", "must not contain braces")]
#[case::prefix_of_segments("segment:", "must not begin with segment:")]
#[case::too_long(&"x".repeat(65), "must not be longer than 64 bytes")]
fn check_refuses_an_invalid_prefix(#[case] prefix: &str, #[case] why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let message = refusal(binary(folder.path()).args(["check", "--redis-key-prefix", prefix]));
    assert!(message.contains("redis_key_prefix: ") && message.contains(why), "{message}");
}
