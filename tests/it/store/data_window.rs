//! The window of the data set: pruning keeps every member that any instance counts.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use rstest::rstest;
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::redis::{Client, Deployment, Limits, RedisUrl};
use segment_estimator::store::WindowChange;
use segment_estimator::store::{Error, Layout, Partitions, Phase, Resharding, Store};

use crate::helpers::{
    NOON, Redis, RedisCluster, Service, TIMEOUT, TestApp, binary, noon_plus, refusal, run, segment, settings, visit,
};

fn window(text: &str) -> Window {
    Window::parse(text).unwrap()
}

/// Returns a store of a data set with `partitions`.
fn store(redis: &Redis, partitions: &str) -> Store {
    redis.store().with_partitions(Some(Partitions::parse(partitions).unwrap()))
}

fn estimator(redis: &Redis, partitions: &str, text: &str) -> Estimator {
    Estimator::new(store(redis, partitions), window(text))
}

/// Returns the different records of all partitions.
fn records(redis: &Redis) -> Vec<String> {
    let keys: Vec<String> = redis.call(&["KEYS", "*layout"]);
    let mut records: Vec<String> = keys.iter().map(|key| redis.call(&["GET", key])).collect();
    records.sort();
    records.dedup();
    records
}

/// Records visits of `users` to `sports`. User `n` was seen `n` seconds before noon.
async fn fill(estimator: &Estimator, users: i64) {
    for n in 0..users {
        let seen_at = noon_plus(-1_000 * n);
        estimator.record(visit(&format!("u{n}"), "sports", seen_at), seen_at).await.unwrap();
    }
}

async fn count(estimator: &Estimator) -> u64 {
    estimator.estimate(&segment("sports"), NOON).await.unwrap().count()
}

fn command(redis: &Redis, arguments: &[&str]) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.args(arguments).args(["--redis-url", &redis.url()]);
    (folder, command)
}

fn stdout_of(redis: &Redis, arguments: &[&str]) -> String {
    let (_folder, mut command) = command(redis, arguments);
    let output = run(&mut command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn prune_by_a_shorter_window_keeps_members_that_another_instance_counts(#[case] partitions: &str) {
    let redis = Redis::start();
    let long = estimator(&redis, partitions, "100s");
    fill(&long, 150).await;
    let short = estimator(&redis, partitions, "5s");
    assert_eq!((count(&long).await, count(&short).await), (100, 5));
    assert_eq!(short.prune(NOON).await.unwrap().members_removed, 50);
    assert_eq!((count(&long).await, count(&short).await), (100, 5));

    // An instance with a longer window counts the members that are left, and later prunes keep them.
    let longer = estimator(&redis, partitions, "200s");
    assert_eq!(count(&longer).await, 100);
    assert_eq!(short.prune(noon_plus(50_000)).await.unwrap().members_removed, 0);
    let record = records(&redis);
    assert!(record.len() == 1 && record[0].contains(r#""window_seconds":200"#), "{record:?}");
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("8")]
#[tokio::test]
async fn prune_that_began_before_the_window_was_extended_removes_nothing(#[case] partitions: &str) {
    let redis = Redis::start();
    let (store, short) = (store(&redis, partitions), estimator(&redis, partitions, "5s"));
    // The segments have few members, more than a slice, and more than a slice with one score: pruning removes each
    // differently.
    for (name, users) in [("few", 10), ("many", 3_000), ("plateau", 3_000)] {
        let mut batch = segment_estimator::store::Batch::default();
        for n in 0..users {
            let at = if name == "plateau" { 0 } else { n };
            batch.add(&visit(&format!("u{n}"), name, noon_plus(-50_000 + at)));
        }
        short.acquire_bulk_permit().await.unwrap().write(&batch).await.into_result().unwrap();
    }
    let before = short_layout(&short, &store).await;
    assert_eq!(count_of(&estimator(&redis, partitions, "100s"), "many").await, 3_000);

    let cutoff = window("5s").cutoff(NOON);
    for key in before.read().segment_keys() {
        let partition = key.partition;
        for name in ["few", "many", "plateau"] {
            let slice = store.remove_expired_slice(&before, key, &segment(name), cutoff).await;
            assert_eq!(slice, Err(Error::LayoutChanged), "{name}");
            let removed = store.remove_all_expired(&before, partition, &[(key, &segment(name))], cutoff).await;
            assert_eq!(removed, Err(Error::LayoutChanged), "{name}");
        }
    }
    // A whole run restarts with the window in force.
    assert_eq!(short.prune(NOON).await.unwrap().members_removed, 0);
    assert_eq!(count_of(&estimator(&redis, partitions, "100s"), "many").await, 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prune_by_a_shorter_window_keeps_members_that_count_on_a_cluster() {
    let cluster = RedisCluster::start_without_failover(&[]).await;
    let of = |text: &str| {
        let seeds = cluster.urls().split(',').map(|url| RedisUrl::parse(url).unwrap()).collect();
        let limits = Limits { connect: TIMEOUT, answer: TIMEOUT, max_pending: 10_000 };
        let store = Store::new(Client::new(Deployment::Cluster(seeds), limits, Arc::default()).unwrap());
        Estimator::new(store.with_partitions(Some(Partitions::parse("16").unwrap())), window(text))
    };
    let (short, users) = (of("5s"), 150);
    fill(&short, users).await;
    let long = of("100s");
    assert_eq!((count(&long).await, count(&short).await), (100, 5));
    assert_eq!(short.prune(NOON).await.unwrap().members_removed, 50);
    assert_eq!((count(&long).await, count(&short).await), (100, 5));
    let records: BTreeSet<String> = cluster
        .keys()
        .iter()
        .filter(|key| key.ends_with("layout"))
        .map(|key| cluster.call_where(key, &["GET", key]))
        .collect();
    assert!(
        records.len() == 1 && records.iter().all(|record| record.contains(r#""window_seconds":100"#)),
        "{records:?}"
    );
}

async fn short_layout(short: &Estimator, store: &Store) -> Layout {
    short.ready().await.unwrap();
    store.propagate_layout().await.unwrap()
}

async fn count_of(estimator: &Estimator, name: &str) -> u64 {
    estimator.estimate(&segment(name), NOON).await.unwrap().count()
}

#[rstest]
#[case::one_partition("1")]
#[case::several_partitions("4")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn count_loses_nothing_to_concurrent_prunes_by_a_shorter_window(#[case] partitions: &str) {
    for round in 0..30 {
        let redis = Redis::start();
        let filling = estimator(&redis, partitions, "5s");
        fill(&filling, 90).await;
        let pruning = tokio::spawn(async move {
            for _ in 0..20 {
                filling.prune(NOON).await.unwrap();
            }
        });
        let long = estimator(&redis, partitions, "100s");
        let first = count(&long).await;
        pruning.await.unwrap();
        assert_eq!(count(&long).await, first, "round {round}");
    }
}

/// A wrong setting must not delete data at an update.
#[rstest]
#[case::shorter_than_the_default("14m", 1_209_600, "14d\n")]
#[case::longer_than_the_default("30d", 2_592_000, "30d\n")]
#[tokio::test]
async fn ready_adds_a_window_to_the_record_of_an_earlier_version(
    #[case] own: &str,
    #[case] seconds: u64,
    #[case] printed: &str,
) {
    let redis = Redis::start();
    redis.call::<()>(&["SET", "layout", r#"{"epoch":1,"keys":"plain"}"#]);
    let unknown = "not recorded yet: the first instance of this version records its own, or 14d if that is longer\n";
    assert_eq!(stdout_of(&redis, &["window"]), unknown);
    redis.estimator(own).ready().await.unwrap();
    assert_eq!(records(&redis), [format!(r#"{{"epoch":2,"keys":"plain","window_seconds":{seconds}}}"#)]);
    assert_eq!(stdout_of(&redis, &["window"]), printed);
}

/// As after a failover to a replica that lacked the last record, while another instance counts over the longer window.
#[tokio::test]
async fn ready_restores_the_window_that_a_failover_lost() {
    let redis = Redis::start();
    let short = redis.estimator("60s");
    short.ready().await.unwrap();
    let before: String = redis.call(&["GET", "layout"]);
    redis.estimator("14d").ready().await.unwrap();
    short.ready().await.unwrap();
    redis.call::<()>(&["SET", "layout", &before]);
    short.ready().await.unwrap();
    let record: String = redis.call(&["GET", "layout"]);
    assert!(record.contains(r#""window_seconds":1209600"#), "{record}");
}

/// As after a failover during a move, when another process has taken a different step with the same epoch.
#[rstest]
#[case::window_in_the_key_layout(0)]
#[case::move_in_the_key_layout(1)]
#[tokio::test]
async fn count_unifies_different_records_of_one_epoch(#[case] at_layout: usize) {
    let redis = Redis::start();
    let estimator = estimator(&redis, "2", "14d");
    fill(&estimator, 20).await;
    let records_of_one_epoch = [
        r#"{"epoch":2,"keys":"p2","window_seconds":1209600,"shorter_window_seconds":600}"#,
        r#"{"epoch":2,"keys":"p2","move":{"to":"q4","phase":"copying"},"window_seconds":1209600}"#,
    ];
    let other = records_of_one_epoch[1 - at_layout];
    redis.call::<()>(&[
        "MSET",
        "layout",
        records_of_one_epoch[at_layout],
        "{p00}:layout",
        other,
        "{p01}:layout",
        other,
    ]);
    let instances = [estimator, redis.estimator("14d"), redis.estimator("7d")];
    for instance in instances.iter().chain(&instances) {
        assert_eq!(instance.estimate(&segment("sports"), NOON).await, Ok(20.into()));
        instance.record(visit("u1", "sports", NOON), NOON).await.unwrap();
    }
    let [first, rest @ ..] = ["layout", "{p00}:layout", "{p01}:layout"].map(|key| redis.call::<String>(&["GET", key]));
    assert_eq!([first.clone(), first], rest);
    stdout_of(&redis, &["repartition", "--to", "4"]);
    assert_eq!(count(&instances[0]).await, 20);
}

#[tokio::test]
async fn window_set_reports_what_expires_and_requires_yes() {
    let redis = Redis::start();
    let now = Timestamp::now();
    let estimator = redis.estimator("14d");
    for (user, hours) in [("u1", 0), ("u2", 30), ("u3", 200)] {
        let seen_at = Timestamp::from_millis(now.as_millis() - hours * 3_600_000);
        estimator.record(visit(user, "sports", seen_at), seen_at).await.unwrap();
    }
    let (_folder, mut set) = command(&redis, &["window", "set", "1d"]);
    let output = run(&mut set);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected = "by 1d, the next prune removes 2 of 3 visits, for good\n\
                    an instance that counts over more objects within 5s, if it runs and reaches Redis: start all of them first\n";
    assert_eq!(printed, expected);
    assert!(String::from_utf8(output.stderr).unwrap().contains("add --yes"));
    assert_eq!(stdout_of(&redis, &["window"]), "14d\n");

    let printed = stdout_of(&redis, &["window", "set", "1d", "--yes"]);
    assert!(printed.ends_with("the window of the data set is 1d\n"), "{printed}");
    assert_eq!(redis.estimator("1h").prune(now).await.unwrap().members_removed, 2);
    // A longer window needs no confirmation.
    assert_eq!(stdout_of(&redis, &["window", "set", "2d"]), "the window of the data set is 2d\n");
    assert_eq!(stdout_of(&redis, &["window", "set", "2d"]), "nothing to do: the window is 2d\n");
}

#[rstest]
#[case::backfill(Phase::Backfill)]
#[case::cutover(Phase::Cutover)]
#[case::cleanup(Phase::Cleanup)]
#[tokio::test]
async fn window_set_extends_but_does_not_shorten_during_a_move(#[case] phase: Phase) {
    let redis = Redis::start();
    fill(&redis.estimator("14d"), 20).await;
    let store = redis.store();
    let before = store.propagate_layout().await.unwrap();
    let to = before.keys().sibling(Partitions::parse("4").unwrap(), None);
    store.change_layout(&before, before.keys(), Some(Resharding { to, phase })).await.unwrap();
    let record: String = redis.call(&["GET", "layout"]);
    let (_folder, mut set) = command(&redis, &["window", "set", "1d", "--yes"]);
    let message = refusal(&mut set);
    let why = "nothing was changed: the data is moving to 4 partitions; finish that first, with \
               `segment-estimator repartition --to 4`";
    assert!(message.contains(why), "{message}");
    assert_eq!(store.set_window(window("1d")).await, Ok(WindowChange::Moving(to)));
    assert_eq!(redis.call::<String>(&["GET", "layout"]), record);
    assert_eq!(stdout_of(&redis, &["window", "set", "15d"]), "the window of the data set is 15d\n");
    assert!(redis.call::<String>(&["GET", "layout"]).contains(r#""move":{"to":"p4""#));
}

#[test]
fn messages_have_the_singular_for_one_partition() {
    let redis = Redis::start();
    let record = r#"{"epoch":2,"keys":"p2","move":{"to":"plain","phase":"copying"},"window_seconds":1209600}"#;
    redis.call::<()>(&["SET", "layout", record]);
    let (_folder, mut set) = command(&redis, &["window", "set", "1d", "--yes"]);
    let message = refusal(&mut set);
    assert!(message.contains("the data is moving to 1 partition; finish that first, with `"), "{message}");
    let table = stdout_of(&redis, &["check"]);
    assert!(table.contains("\na move to 1 partition is in progress: `repartition --to 1` resumes it\n"), "{table}");
    assert!(table.contains("\nthe users are split into 2 partitions\n"), "{table}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_set_is_refused_while_an_instance_counts_over_a_longer_one() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let (_folder, mut set) = command(&redis, &["window", "set", "4s", "--yes"]);
    let message = refusal(&mut set);
    assert!(message.contains("a running instance counts over more than 4s"), "{message}");
    assert_eq!(stdout_of(&redis, &["window"]), "14d\n");
    app.begin_stop();
    app.ended().await.unwrap();
    assert_eq!(redis.store().set_window(window("4s")).await, Ok(WindowChange::Done));
}

#[tokio::test]
async fn start_with_a_shorter_window_warns_once_and_serves() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.estimator("14d").ready().await.unwrap();
    let url = redis.url();
    let service = Service::start(folder.path(), &["--redis-url", &url, "--window", "14m"]);
    for _ in 0..3 {
        service.record("u1", "sports").await;
        assert_eq!(service.status_of("/readyz").await, 200);
    }
    assert_eq!(service.metric("estimator_window_seconds").await, 840);
    assert_eq!(service.metric("estimator_data_window_seconds").await, 1_209_600);
    let log = service.terminate_for_log();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains(r#""WARN""#)).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("segment-estimator window set 14m"), "{log:#?}");

    let table = stdout_of(&redis, &["check", "--window", "14m"]);
    assert!(
        table.contains("the data set keeps visits for 14d, and window is 14m: counts use 14m, and pruning uses 14d"),
        "{table}"
    );
    let table = stdout_of(&redis, &["check", "--window", "30d"]);
    assert!(table.contains("the data set keeps visits for 14d; the service will extend that to 30d"), "{table}");
    assert_eq!(stdout_of(&redis, &["window"]), "14d\n", "check writes nothing");
}

#[tokio::test]
async fn start_with_a_longer_window_logs_both_lengths_once() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    redis.estimator("14d").ready().await.unwrap();
    let message = refusal(binary(folder.path()).args(["check", "--redis-url", &redis.url(), "--window", "14M"]));
    assert!(message.contains("is in months or years") && message.contains("minutes are m"), "{message}");
    let table = stdout_of(&redis, &["check", "--window", "36820224s"]);
    assert!(table.contains("keeps visits for 14d; the service will extend that to 426d3h50m24s"), "{table}");
    let service = Service::start(folder.path(), &["--redis-url", &redis.url(), "--window", "36820224s"]);
    service.record("u1", "sports").await;
    let log = service.terminate_for_log();
    let lines =
        log.iter().filter(|line| line.contains("extending the window of the data set from 14d to 426d3h50m24s"));
    assert_eq!(lines.count(), 1, "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repartition_keeps_the_window_and_resumes_after_an_extension() {
    let redis = Redis::start();
    let seven = redis.estimator("7d");
    fill(&seven, 20).await;
    stdout_of(&redis, &["repartition", "--to", "4"]);
    assert_eq!(records(&redis), [r#"{"epoch":5,"keys":"p4","window_seconds":604800}"#]);

    let store = redis.store();
    let before = store.propagate_layout().await.unwrap();
    let to = before.keys().sibling(Partitions::parse("2").unwrap(), None);
    store.change_layout(&before, before.keys(), Some(Resharding { to, phase: Phase::Backfill })).await.unwrap();
    let eight = redis.estimator("8d");
    assert_eq!(count(&eight).await, 20);
    assert_eq!(store.change_layout(&before, before.keys(), None).await, Err(Error::LayoutChanged));
    stdout_of(&redis, &["repartition", "--to", "2"]);
    assert_eq!((count(&seven).await, count(&eight).await), (20, 20));
    assert_eq!(records(&redis), [r#"{"epoch":10,"keys":"q2","window_seconds":691200}"#]);
}

#[tokio::test]
async fn delete_user_keeps_the_tombstone_for_the_window_of_the_data_set() {
    let redis = Redis::start();
    let (long, short) = (redis.estimator("14d"), redis.estimator("1h"));
    fill(&long, 1).await;
    let store = redis.store();
    let before = store.propagate_layout().await.unwrap();
    let to = before.keys().sibling(Partitions::parse("2").unwrap(), None);
    store.change_layout(&before, before.keys(), Some(Resharding { to, phase: Phase::Backfill })).await.unwrap();
    short.delete_user(&segment_estimator::domain::UserId::parse("u0").unwrap()).await.unwrap();
    let tombstones: Vec<String> = redis.call(&["KEYS", "*forgotten"]);
    let ttl: u64 = redis.call(&["TTL", &tombstones[0]]);
    assert!(ttl > 13 * 86_400, "{ttl}");
}

#[tokio::test]
async fn start_with_a_longer_window_extends_that_of_a_running_instance() {
    let redis = Redis::start();
    let every_second = |text: &str| settings([("window", text), ("prune_schedule", "* * * * * *")]);
    let short = TestApp::spawn_with(&redis, every_second("1h")).await;
    let long = TestApp::spawn_with(&redis, every_second("2d")).await;
    let line = format!(r#"{{"user_id":"u1","segment":"sports","seen_at":"{}"}}"#, {
        let yesterday = Timestamp::now().as_millis() - 86_400_000;
        Timestamp::from_millis(yesterday)
    });
    assert_eq!(long.post_lines(line).await.status(), 200);
    for _ in 0..3 {
        // Every instance has pruned in the meantime.
        let runs = prune_runs(&short).await;
        crate::helpers::eventually("the instance prunes", async || prune_runs(&short).await > runs + 1).await;
        assert_eq!((long.count("sports").await, short.count("sports").await), (1, 0));
    }
}

async fn prune_runs(app: &TestApp) -> u64 {
    let text = app.get("/metrics").await.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(r#"estimator_prune_runs_total{outcome="done"} "#));
    line.unwrap().parse().unwrap()
}
