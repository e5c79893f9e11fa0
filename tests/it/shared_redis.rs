//! A Redis that others use, too: keys of its own for each data set.

use std::process::{Command, Output};

use rstest::rstest;

use crate::helpers::{Redis, RedisCluster, Service, binary, eventually, refusal, run};

/// What the documents say that the service needs, beside the keys.
const COMMANDS: [&str; 18] = [
    "+ping",
    "+info",
    "+time",
    "+get",
    "+set",
    "+zadd",
    "+zcard",
    "+zcount",
    "+zrange",
    "+zscore",
    "+zremrangebyscore",
    "+eval",
    "+exists",
    "+zrem",
    "+xadd",
    "+xrange",
    "+expire",
    "+unlink",
];

/// Lets a user of this name in, who may reach the keys of `pattern` alone, and gives its URL.
fn let_in(redis: &Redis, user: &str, pattern: &str) -> String {
    redis.call::<()>(&[&["ACL", "SETUSER", user, "reset", "on", ">secret", pattern][..], &COMMANDS].concat());
    format!("{}?user={user}&pass=secret", redis.url())
}

fn succeeds(command: &mut Command) -> String {
    let output @ Output { status, .. } = &run(command);
    assert!(status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[rstest]
#[case::of_one_partition("1")]
#[case::of_several_partitions("8")]
#[tokio::test]
async fn prefix_keeps_data_sets_apart_and_needs_one_pattern_of_an_acl(#[case] partitions: &str) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let mut services = Vec::new();
    for name in ["prod", "test*"] {
        let prefix = format!("{name}:");
        let url = let_in(&redis, name.trim_end_matches('*'), &format!("~{}:*", name.replace('*', "\\*")));
        let arguments = ["--redis-url", &url, "--redis-key-prefix", &prefix, "--partitions", partitions];
        let often = ["--window", "3s", "--prune-schedule", "* * * * * *", "--history-interval", "1s"];
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
        eventually("there is a history", async || {
            redis.call::<u64>(&["EXISTS", &format!("{prefix}history:sports")]) == 1
        })
        .await;
    }
    let is_gone = async || redis.sets().is_empty();
    eventually("both are pruned", is_gone).await;
    let keys: Vec<String> = redis.call(&["KEYS", "*"]);
    assert!(keys.iter().all(|key| services.iter().any(|(prefix, _)| key.starts_with(prefix))), "{keys:?}");
    let denied: Vec<Vec<redis::Value>> = redis.call(&["ACL", "LOG"]);
    assert!(denied.is_empty(), "{denied:?}");
    for (_, service) in services {
        assert!(service.terminate().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefix_moves_no_partition_of_a_cluster() {
    let cluster = RedisCluster::start_patient(&[]).await;
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
    succeeds(binary(folder.path()).args(["repartition", "--to", "8"]).args(&arguments[..4]));
    let service = Service::start(folder.path(), &arguments[..4]);
    assert_eq!(service.count("sports").await, 20);
    assert!(service.terminate().success());
}

#[rstest]
#[case("a{b}", "must not contain braces")]
#[case("segment:", "must not begin with segment:")]
#[case(&"x".repeat(65), "must not be longer than 64 bytes")]
fn prefix_that_will_not_do_is_named(#[case] prefix: &str, #[case] why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let message = refusal(binary(folder.path()).args(["check", "--redis-key-prefix", prefix]));
    assert!(message.contains("redis_key_prefix: ") && message.contains(why), "{message}");
}
