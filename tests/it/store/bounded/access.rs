//! An ACL user that has just the rules of bounded segments does everything that a service and the commands do.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use segment_estimator::store::diagnostics::Permissions;

use crate::helpers::{Redis, Service, binary, eventually, run, success};

/// What a move needs beside the rules for one server: docs/scaling.md.
const OF_A_MOVE: [&str; 3] = ["~{p*}:*", "~{q*}:*", "+ttl"];

fn create_user(redis: &Redis) {
    let rules = Permissions::acl_rules(true);
    let rules: Vec<_> = rules.iter().map(String::as_str).chain(OF_A_MOVE).collect();
    redis.call::<()>(
        &[&["ACL", "SETUSER", "me", "on", ">secret"], &rules[..], &redis.acl_rules_of_the_version()].concat(),
    );
}

/// Returns the commands and keys in `ACL LOG`, without subcommands.
fn refused(redis: &Redis) -> BTreeSet<String> {
    let log: Vec<HashMap<String, redis::Value>> = redis.call(&["ACL", "LOG", "128"]);
    let objects = log.into_iter().map(|entry| redis::from_redis_value::<String>(entry["object"].clone()).unwrap());
    objects.map(|object| object.split('|').next().unwrap().to_owned()).collect()
}

fn depth(redis: &Redis, name: &str) -> Option<String> {
    redis.call(&["HGET", "depths", name])
}

fn lines(name: &str, users: u32) -> String {
    (0..users).map(|user| format!("{{\"user_id\":\"u{user}\",\"segment\":\"{name}\"}}\n")).collect()
}

fn stdout_of(folder: &Path, command: &[&str], access: &[&str]) -> String {
    let output = run(binary(folder).args(command).args(access));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_with_the_rules_of_bounded_segments_does_everything() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    create_user(&redis);
    fs::write(folder.path().join("password"), "secret").unwrap();
    let url = redis.url();
    let access = ["--redis-url", &url, "--redis-username", "me", "--redis-password-file", "password"];
    let often = ["--prune-schedule", "* * * * * *", "--history-interval", "1s", "--max-members", "1024"];
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);
    let service = Service::start(folder.path(), &[&access[..], &often].concat());
    for name in ["sports", "news"] {
        success(service.post_lines(lines(name, 6_000)).await).await;
        eventually("the depth is raised", async || depth(&redis, name).is_some()).await;
    }
    service.record("u1", "small").await;
    assert_eq!(service.count("small").await, 1);
    for path in [
        "/readyz",
        "/segments?sort=count",
        "/segments/sports/count",
        "/segments/sports/histogram",
        "/segments/sports/history",
        "/segments/sports/users?sample=true",
        "/counts?segment=sports",
        "/overlap?segment=sports&segment=news",
        "/audience/count?all=sports&none=news",
        "/users/u1/segments",
    ] {
        assert_eq!(service.status_of(path).await, 200, "{path}");
    }

    redis.call::<()>(&["ZADD", "segment@24:sports", "1", "expired"]);
    let is_pruned = async || redis.call::<Option<String>>(&["ZSCORE", "segment@24:sports", "expired"]).is_none();
    eventually("the member is pruned", is_pruned).await;
    // Most of the sample is gone, so that lower levels are kept again.
    let lowest: u8 = depth(&redis, "sports").unwrap().parse().unwrap();
    for level in lowest..lowest + 3 {
        redis.call::<()>(&["DEL", &format!("segment@{level}:sports")]);
    }
    eventually("the depth falls", async || depth(&redis, "sports").is_some_and(|depth| depth.contains('>'))).await;
    success(service.request("DELETE", "/segments/sports").send().await.unwrap()).await;
    assert_eq!((service.count("sports").await, depth(&redis, "sports")), (0, None));
    success(service.request("DELETE", "/users/u1").send().await.unwrap()).await;
    assert_eq!(service.count("small").await, 0);
    assert!(service.terminate().success());

    let run = |command: &[&str]| stdout_of(folder.path(), command, &access);
    run(&["check"]);
    assert!(run(&["export", "--sample"]).contains(r#""segment":"news","#));
    fs::write(folder.path().join("visits"), lines("imported", 2_000)).unwrap();
    run(&["import", "visits"]);
    run(&["repartition", "--yes", "--max-members", "2048"]);
    run(&["repartition", "--to", "2"]);
    run(&["window", "set", "15d"]);
    let service = Service::start(folder.path(), &access);
    assert_eq!(service.count("imported").await, 2_000);
    assert!(service.terminate().success());

    for command in ["hgetall", "hkeys", "hlen", "hset", "hdel", "unlink", "time"] {
        assert!(redis.calls(command) > 0, "{command} is not needed");
    }
    // `check` reports what it can't see.
    assert_eq!(refused(&redis), ["acl", "command", "config"].map(str::to_owned).into());
}
