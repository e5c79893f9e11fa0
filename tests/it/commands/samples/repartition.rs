//! `repartition --max-members`: from exact to bounded segments, and to another maximum.

use rstest::rstest;
use segment_estimator::domain::Estimate;

use super::{
    Members, assert_estimates, depth, estimate, fill, fill_until_sampled, from_level, members, record, refuses, says,
};
use crate::helpers::{Redis, RedisCluster, TestApp, binary, refusal, run};

fn recorded_keys(redis: &Redis) -> String {
    let record: serde_json::Value = serde_json::from_str(&redis.call::<String>(&["GET", "layout"])).unwrap();
    assert_eq!(record["move"], serde_json::Value::Null);
    record["keys"].as_str().unwrap().to_owned()
}

/// Asserts that a segment keeps up to `bound` members: exactly those of `before` from its depth on.
#[track_caller]
fn assert_keeps_sample(redis: &Redis, name: &str, before: &Members, bound: usize) {
    let (kept, depth) = (members(redis, name), depth(redis, name));
    assert_eq!(kept, from_level(before, depth), "depth {depth}");
    assert!(kept.len() <= bound + bound / 8 && kept.len() > bound / 4, "{} members, depth {depth}", kept.len());
}

#[rstest]
#[case::one_partition("1", "p1@1024")]
#[case::several_partitions("4", "q4@1024")]
#[tokio::test(flavor = "multi_thread")]
async fn repartition_bounds_exact_segments(#[case] partitions: &str, #[case] keys: &str) {
    let redis = Redis::start();
    says(&redis, &["repartition", "--to", partitions]);
    let app = TestApp::spawn(&redis).await;
    fill(&redis.estimator("14d"), "sports", 0..6_000).await;
    fill(&redis.estimator("14d"), "news", 0..100).await;
    let [sports, news] = ["sports", "news"].map(|name| members(&redis, name));

    let said = says(&redis, &["repartition", "--yes", "--max-members", "1024"]);
    let there = if partitions == "1" { "there is 1 partition" } else { "there are 4 partitions" };
    let expected =
        format!("{there} and up to 1024 members in a segment now: 6100 members copied and 2 counts compared in ");
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(recorded_keys(&redis), keys);
    assert_keeps_sample(&redis, "sports", &sports, 1_024);
    assert_eq!(members(&redis, "news"), news);
    assert_estimates(estimate(&redis, "sports").await, 6_000);
    assert_eq!((app.count("news").await, estimate(&redis, "news").await.is_exact()), (100, true));
    assert!(redis.sets().iter().all(|key| !key.contains("segment:")), "{:?}", redis.sets());

    let said = says(&redis, &["repartition", "--yes", "--max-members", "1024", "--to", partitions]);
    assert_eq!(said, format!("nothing to do: {there} and up to 1024 members in a segment\n"));
}

#[rstest]
#[case::up("1024", "4096", "p1@4096")]
#[case::down("4096", "1024", "p1@1024")]
#[tokio::test]
async fn repartition_changes_the_maximum(#[case] from: &str, #[case] to: &str, #[case] keys: &str) {
    let redis = Redis::start();
    record(&redis, &format!("plain@{from}"));
    let bound: usize = from.parse().unwrap();
    fill_until_sampled(&redis, "sports", 0..9_000, bound).await;
    fill(&redis.estimator("14d"), "news", 0..300).await;
    let [sports, news] = ["sports", "news"].map(|name| members(&redis, name));
    says(&redis, &["repartition", "--yes", "--max-members", to]);
    assert_eq!(recorded_keys(&redis), keys);
    // A larger maximum brings nobody back.
    assert_keeps_sample(&redis, "sports", &sports, bound.min(to.parse().unwrap()));
    assert_eq!(members(&redis, "news"), news);
    assert_estimates(estimate(&redis, "sports").await, 9_000);
    assert_eq!(estimate(&redis, "news").await, Estimate::exact(300));
}

#[tokio::test]
async fn repartition_to_other_partitions_keeps_the_maximum() {
    let redis = Redis::start();
    record(&redis, "plain@4096");
    fill_until_sampled(&redis, "sports", 0..9_000, 4_096).await;
    let sports = members(&redis, "sports");
    for (to, keys) in [("4", "p4@4096"), ("2", "q2@4096"), ("1", "plain@4096")] {
        says(&redis, &["repartition", "--to", to]);
        assert_eq!(recorded_keys(&redis), keys);
        assert_keeps_sample(&redis, "sports", &sports, 4_096);
        assert_estimates(estimate(&redis, "sports").await, 9_000);
    }
    assert_eq!(redis.call::<Vec<String>>(&["KEYS", "{*"]), [""; 0]);
}

#[tokio::test]
async fn repartition_asks_before_it_drops_users() {
    let redis = Redis::start();
    record(&redis, "plain@2048");
    fill(&redis.estimator("14d"), "sports", 0..2_000).await;
    let error = refuses(&redis, &["repartition", "--max-members", "1024"]);
    assert_eq!(error, "segment-estimator: nothing was changed: there is no terminal to ask on; add --yes\n");
    assert_eq!((recorded_keys(&redis), members(&redis, "sports").len()), ("plain@2048".to_owned(), 2_000));
    // These keep all of them.
    says(&redis, &["repartition", "--max-members", "4096"]);
    says(&redis, &["repartition", "--to", "2"]);
    assert_eq!(members(&redis, "sports").len(), 2_000);
}

#[test]
fn repartition_refuses_to_keep_all_users_again() {
    let redis = Redis::start();
    record(&redis, "plain@1024");
    let error = refuses(&redis, &["repartition", "--max-members", "off"]);
    let expected = "segment-estimator: --max-members off: users that weren't kept can't be brought back; to keep more from now on, move \
                    to a larger maximum; to keep all, load the visits into a new data set; nothing was moved\n";
    assert_eq!(error, expected);
    assert_eq!(refuses(&redis, &["repartition", "--to", "4", "--max-members", "off"]), expected);
    assert_eq!(recorded_keys(&redis), "plain@1024");
    let exact = Redis::start();
    assert_eq!(says(&exact, &["repartition", "--max-members", "off"]), "nothing to do: there is 1 partition\n");
}

#[rstest]
#[case::nothing(&[], "--to, --max-members or both are required; see --help")]
#[case::not_a_power_of_two(&["--max-members", "1000"], "must be a power of two from 1024 to 16777216")]
#[case::too_small(&["--max-members", "512"], "must be a power of two from 1024 to 16777216")]
fn repartition_refuses_other_arguments(#[case] arguments: &[&str], #[case] message: &str) {
    let redis = Redis::start();
    let error = refuses(&redis, &[&["repartition"], arguments].concat());
    assert!(error.contains(message) && error.lines().count() == 1, "{error}");
    assert_eq!(redis.call::<u64>(&["DBSIZE"]), 0);
}

/// The setting says what the data set must have, and not where to move.
#[test]
fn repartition_ignores_the_setting_of_the_service() {
    let redis = Redis::start();
    record(&redis, "plain@1024");
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["repartition", "--to", "2", "--redis-url", &redis.url()];
    assert!(run(binary(folder.path()).args(arguments).env("ESTIMATOR_MAX_MEMBERS", "2048")).status.success());
    assert_eq!(recorded_keys(&redis), "p2@1024");
    let before_the_command = ["--max-members", "2048", "repartition", "--redis-url", &redis.url()];
    assert!(run(binary(folder.path()).args(before_the_command)).status.success());
    assert_eq!(recorded_keys(&redis), "q2@2048");
}

#[rstest]
#[case::list(&["RPUSH", "{p00}:depths", "theirs"], true)]
#[case::other_hash(&["HSET", "{p00}:depths", "sports", "theirs"], true)]
#[case::depths_before_the_first_move(&["HSET", "{p00}:depths", "sports", "7"], true)]
#[case::depths_that_a_move_left(&["HSET", "{p00}:depths", "sports", "7", "news", "7>5@1795341600"], false)]
#[tokio::test]
async fn repartition_refuses_depths_of_another_program(#[case] key: &[&str], #[case] is_foreign: bool) {
    let redis = Redis::start();
    let epoch = if key.len() > 4 { 9 } else { 1 };
    redis.call::<()>(&["SET", "layout", &format!(r#"{{"epoch":{epoch},"keys":"plain"}}"#)]);
    fill(&redis.estimator("14d"), "sports", 0..100).await;
    redis.call::<()>(key);
    let arguments = ["repartition", "--yes", "--max-members", "1024"];
    if is_foreign {
        let error = refuses(&redis, &arguments);
        assert!(
            error.starts_with("segment-estimator: `{p00}:depths` holds data that no move of this data set wrote"),
            "{error}"
        );
        assert_eq!(recorded_keys(&redis), "plain");
        return;
    }
    says(&redis, &arguments);
    assert_eq!(estimate(&redis, "sports").await, Estimate::exact(100));
    assert_eq!(redis.call::<u64>(&["EXISTS", "{p00}:depths"]), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repartition_bounds_segments_on_a_cluster() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let urls = cluster.urls();
    let repartition = |arguments: &[&str]| {
        let mut command = binary(folder.path());
        command.args(["repartition", "--redis-cluster", &urls]).args(arguments);
        command
    };
    let error = refusal(&mut repartition(&["--yes", "--to", "1", "--max-members", "1024"]));
    assert!(error.contains("--to: a cluster needs at least 2 partitions"), "{error}");
    let lines: String =
        (0..3_000).map(|user| format!("{{\"user_id\":\"u{user}\",\"segment\":\"sports\"}}\n")).collect();
    std::fs::write(folder.path().join("visits"), lines).unwrap();
    let mut import = binary(folder.path());
    assert!(run(import.args(["import", "visits", "--partitions", "4", "--redis-cluster", &urls])).status.success());
    let output = run(&mut repartition(&["--yes", "--max-members", "1024"]));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("there are 4 partitions and up to 1024 members in a segment now: 3000 members"), "{said}");
    let mut export = binary(folder.path());
    let output = run(export.args(["export", "--sample", "--redis-cluster", &urls]));
    let lines = String::from_utf8(output.stdout).unwrap();
    let kept = lines.lines().count();
    assert!((256..=1_152).contains(&kept) && !lines.contains(r#""weight":1}"#), "{kept}");
}
