//! What `check` says of bounded segments, and of their ACL.

use std::process::Output;

use segment_estimator::store::diagnostics::Permissions;

use super::{depth, fill, fill_until_sampled, record, refuses, says};
use crate::helpers::{Redis, binary, run};

#[tokio::test]
async fn check_describes_the_samples() {
    let redis = Redis::start();
    record(&redis, "p2@1024");
    assert!(says(&redis, &["check"]).contains("\na segment keeps up to 1024 users; no segment has more\n"));
    fill(&redis.estimator("14d"), "news", 0..100).await;
    fill_until_sampled(&redis, "sports", 0..6_000, 1_024).await;
    let weight = 1_u64 << depth(&redis, "sports");
    let table = says(&redis, &["check"]);
    let expected = format!(
        "\na segment keeps up to 1024 users; 1 segment keeps a sample, the coarsest one user in {weight} (sports)\n"
    );
    assert!(table.contains(&expected), "{table}");
    assert!(!table.contains("twice") && table.contains("\nthe users are split into 2 partitions\n"), "{table}");

    // As if no instance had raised the depth.
    for user in 0..1_100 {
        redis.call::<()>(&["ZADD", "{p01}:segment@24:news", "9999999999", &format!("x{user}")]);
    }
    redis.call::<()>(&["ZADD", "{p01}:segments", "0", "news"]);
    let table = says(&redis, &["check"]);
    assert!(
        table.contains("\nsegments that keep more than twice as many: news; see the log of the service"),
        "{table}"
    );
}

#[test]
fn check_names_the_keys_of_bounded_segments_only_if_there_are_some() {
    let redis = Redis::start();
    let exact = "\nthe keys of the data set are layout history:* segments segment:* forgotten\n";
    let bounded = "\nthe keys of the data set are layout history:* segments segment:* forgotten segment@* depths\n";
    // An operator writes the ACL before the data set exists.
    for (arguments, keys) in [(&["check"][..], exact), (&["check", "--max-members", "1024"], bounded)] {
        let table = says(&redis, arguments);
        assert!(table.contains(keys), "{arguments:?}: {table}");
    }
    for (record_of, keys) in [("plain", exact), ("plain@1024", bounded)] {
        record(&redis, record_of);
        let table = says(&redis, &["check"]);
        assert!(table.contains(keys), "{record_of}: {table}");
    }
    // A move of one partition alternates between keys with a tag and without.
    says(&redis, &["repartition", "--yes", "--max-members", "2048"]);
    let table = says(&redis, &["check"]);
    assert!(table.contains("\nthe keys of the data set are layout history:* {p*}:* {q*}:*\n"), "{table}");
}

#[test]
fn check_fails_if_the_depths_belong_to_another_program() {
    let redis = Redis::start();
    record(&redis, "plain@1024");
    redis.call::<()>(&["SET", "depths", "theirs"]);
    let error = refuses(&redis, &["check"]);
    assert!(error.contains("can't serve: `depths` holds a value that this service didn't write"), "{error}");
}

/// Runs `check` on `redis` as the user `me`.
fn check_as_me(redis: &Redis) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "secret").unwrap();
    let access = ["check", "--redis-username", "me", "--redis-password-file", "password", "--redis-url", &redis.url()];
    run(binary(folder.path()).args(access))
}

/// A data set that keeps all members needs none of these commands.
#[test]
fn check_fails_for_each_command_that_bounded_segments_need() {
    let exact = Permissions::needed_commands(false);
    for command in Permissions::needed_commands(true).into_iter().filter(|command| !exact.contains(command)) {
        let (redis, name) = (Redis::start(), command.to_lowercase());
        record(&redis, "plain@1024");
        let rules = Permissions::acl_rules(true);
        let rules: Vec<_> = rules.iter().map(String::as_str).chain(["+acl|whoami", "+acl|dryrun"]).collect();
        redis.call::<()>(&[&["ACL", "SETUSER", "me", "reset", "on", ">secret"], &rules[..]].concat());
        let output = check_as_me(&redis);
        assert!(output.status.success(), "{output:?}");
        redis.call::<()>(&["ACL", "SETUSER", "me", &format!("-{name}")]);
        if redis.has_acl_dry_run() {
            let error = String::from_utf8(check_as_me(&redis).stderr).unwrap();
            assert!(error.contains("can't serve: its ACL forbids a required command: "), "{command}: {error}");
            assert!(error.contains(&format!("'{name}'")), "{command}: {error}");
        }
        record(&redis, "plain");
        assert!(check_as_me(&redis).status.success(), "{command} is needed by a data set that keeps all members");
    }
}
