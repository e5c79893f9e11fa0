//! A Redis Cluster: the helpers that other tests rely on, and how the service finds the masters. `faults/cluster.rs`
//! tests it under load.

use reqwest::StatusCode;
use segment_estimator::domain::UserId;
use segment_estimator::store::{Partitions, shard_of};
use serde_json::json;

use crate::helpers::{RedisCluster, Service, binary, eventually, refusal, run, success};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_slot_splits_its_keys_between_two_masters_until_it_ends() {
    let cluster = RedisCluster::start_without_failover(&[]).await;
    let slot = cluster.slot_of("{p03}");
    let (from, key) = (cluster.owner_of(slot), |name: &str| format!("{{p03}}:segment:{name}"));
    let names = ["a", "b", "c"].map(key);
    for name in &names {
        cluster[from].call::<()>(&["ZADD", name, "1", "u1"]);
    }
    let to = cluster.masters().into_iter().find(|&node| node != from).unwrap();
    let in_slot = |node: usize| cluster[node].call::<usize>(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
    cluster.migrate_slot(slot, to, async |moved| assert_eq!((in_slot(from), in_slot(to)), (3 - moved, moved))).await;
    assert_eq!(cluster.owner_of(slot), to);
    assert_eq!(cluster.members(&names[0]), [("u1".to_owned(), 1.0)]);
    assert_eq!(cluster.keys(), names);
    cluster.wait_until_ok().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_promotes_a_replica_and_fail_over_demotes_it() {
    let mut cluster = RedisCluster::start().await;
    let master = cluster.master_of("key");
    cluster[master].call::<()>(&["SET", "key", "value"]);
    eventually("the replica has the key", async || cluster[master].replicas() == 1).await;
    cluster.kill(master);
    cluster.wait_until_promoted(master).await;
    let other = cluster.master_of("key");
    assert_ne!(other, master);
    cluster.start_again(master);
    cluster.wait_until_ok().await;
    assert_eq!(cluster.call_where::<String>("key", &["GET", "key"]), "value");
    assert_eq!(cluster.fail_over_by_hand(other).await, master);
    assert_eq!(cluster.master_of("key"), master);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeat_pings_the_idle_connections_to_each_master() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    let visit = |user: usize| json!({ "user_id": format!("u{user}"), "segment": "sports" });
    for user in 0..100 {
        assert_eq!(service.post_visit(&visit(user)).await.status(), 204);
    }
    let batch = (100..200).map(visit).collect::<Vec<_>>();
    assert_eq!(service.post_array(&json!(batch)).await.status(), 200);

    let pinged = |node: usize| {
        let clients: String = cluster[node].call(&["CLIENT", "LIST"]);
        clients.lines().filter(|client| client.contains(" cmd=ping ")).count()
    };
    // The connections for visits and for batches are idle. The one for counts is in use.
    eventually("two are pinged", async || cluster.masters().into_iter().all(|node| pinged(node) >= 2)).await;
    assert!(service.terminate().success());
}

/// The service gets one URL, that of a replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_finds_all_masters_from_one_replica_and_check_lists_them() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let urls = cluster.urls();
    let last = urls.rsplit(',').next().unwrap();
    let service = Service::start(folder.path(), &["--redis-cluster", last]);
    for user in 0..100 {
        service.record(&format!("u{user}"), "sports").await;
    }
    assert_eq!(service.count("sports").await, 100);
    assert!(cluster.keys().iter().all(|key| key == "layout" || key.starts_with("{p")), "{:?}", cluster.keys());

    let output = run(binary(folder.path()).args(["check", "--redis-cluster", last]));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    let servers = table.lines().filter(|line| line.contains(" is Redis ") || line.contains(" is Valkey ")).count();
    assert_eq!((servers, table.lines().last()), (3, Some("the users are split into 64 partitions")), "{table}");
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_of_a_master_affects_its_own_users_alone() {
    const PARTITIONS: &str = "16";
    let arguments = ["--cluster-require-full-coverage", "no", "--cluster-node-timeout", "1000"];
    let mut cluster = RedisCluster::start_with(3, 0, &arguments).await;
    let folder = tempfile::tempdir().unwrap();
    let urls = cluster.urls();
    let service = Service::start(folder.path(), &["--redis-cluster", &urls, "--partitions", PARTITIONS]);
    service.record("u0", "sports").await;

    let killed = cluster.master_of("{p00}:segments");
    let is_down = |user: &str| {
        let shard = shard_of(&UserId::parse(user).unwrap(), Partitions::parse(PARTITIONS).unwrap());
        cluster.master_of(&format!("{{p{shard:02}}}:segments")) == killed
    };
    let users: Vec<_> = (0..64).map(|user| format!("u{user}")).map(|user| (is_down(&user), user)).collect();
    assert!(users.iter().any(|(is_down, _)| *is_down) && users.iter().any(|(is_down, _)| !is_down));
    cluster.kill(killed);
    let other = (killed + 1) % 3;
    let nodes = || cluster[other].call::<String>(&["CLUSTER", "NODES"]);
    eventually("the others have marked it as failed", async || {
        nodes().lines().any(|node| node.contains(" master,fail "))
    })
    .await;
    for (is_down, user) in &users {
        let status = service.post_visit(&json!({ "user_id": user, "segment": "sports" })).await.status();
        let expected = if *is_down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT };
        assert_eq!(status, expected, "{user}");
    }
    assert_eq!(service.status_of("/segments/sports/count").await, 503, "a partial sum would be wrong");
    assert_eq!(service.status_of("/readyz").await, 503);
    let address = urls.split(',').nth(killed).unwrap().trim_start_matches("redis://");
    assert!(service.has_logged(address), "the log names the master");

    // The report of a batch contains its progress. The rest is repeated.
    let lines: String =
        users.iter().map(|(_, user)| format!("{{\"user_id\":\"{user}\",\"segment\":\"news\"}}\n")).collect();
    let report: serde_json::Value = service.post_lines(lines.clone()).await.json().await.unwrap();
    let first_down = users.iter().position(|(is_down, _)| *is_down).unwrap();
    assert_eq!((&report["status"], &report["done_through_line"]), (&json!(503), &json!(first_down)), "{report}");

    cluster.start_again(killed);
    cluster.wait_until_ok().await;
    eventually("counts succeed again", async || service.status_of("/segments/sports/count").await == 200).await;
    success(service.post_lines(lines).await).await;
    assert_eq!(service.count("news").await, 64);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn check_reports_an_unreachable_cluster_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["check", "--redis-cluster", "redis://:hunter2@127.0.0.1:1,redis://:hunter2@127.0.0.1:2"];
    let message = refusal(binary(folder.path()).args(arguments));
    let expected =
        "segment-estimator: redis_cluster: the Redis at the cluster of 127.0.0.1:1, 127.0.0.1:2 can't serve: ";
    assert!(message.starts_with(expected) && !message.contains("hunter2"), "{message}");
}

/// As after a failover to a replica that lagged behind or had no data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn count_restores_a_lost_layout_record_from_the_partitions() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let urls = cluster.urls();
    let service = Service::start(folder.path(), &["--redis-cluster", &urls, "--partitions", "4"]);
    service.record("u1", "sports").await;
    let old: String = cluster.call_where("layout", &["GET", "layout"]);
    let moving = run(binary(folder.path()).args(["repartition", "--to", "8", "--redis-cluster", &urls]));
    assert!(moving.status.success(), "{moving:?}");
    let new: String = cluster.call_where("layout", &["GET", "layout"]);

    for (users, lost) in (1..).zip([&["SET", "layout", &old][..], &["DEL", "layout"]]) {
        cluster.call_where::<::redis::Value>("layout", lost);
        let another = Service::start(folder.path(), &["--redis-cluster", &urls]);
        assert_eq!((service.count("sports").await, another.count("sports").await), (users, users), "{lost:?}");
        another.record(&format!("u{users}0"), "sports").await;
        assert_eq!(service.count("sports").await, users + 1, "{lost:?}");
        assert_eq!(cluster.call_where::<String>("layout", &["GET", "layout"]), new, "{lost:?}");
        assert!(another.terminate().success());
    }
    assert!(service.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acl_of_the_documentation_permits_all_commands() {
    let page = include_str!("../../../docs/scaling.md");
    let (_, rules) = page.split_once("redis-cli ACL SETUSER estimator").unwrap();
    let (rules, _) = rules.split_once("\nOK\n").unwrap();
    let rules: Vec<_> = rules.split_whitespace().map(|rule| rule.trim_matches('\'').replace("\\|", "|")).collect();
    let rules: Vec<_> = rules.iter().map(String::as_str).filter(|rule| *rule != "\\").collect();

    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    for node in 0..6 {
        cluster[node].call::<()>(&[&["ACL", "SETUSER", "estimator"], &rules[..], &["+acl"]].concat());
    }
    let urls = cluster.urls().replace("redis://", "redis://estimator:secret@");
    let service = Service::start(folder.path(), &["--redis-cluster", &urls]);
    service.record("u1", "sports").await;
    assert_eq!(service.count("sports").await, 1);
    for command in [&["check"][..], &["repartition", "--to", "4"]] {
        let output = run(binary(folder.path()).args(command).args(["--redis-cluster", &urls]));
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(service.count("sports").await, 1);
    let message = refusal(binary(folder.path()).args(["repartition", "--to", "1", "--redis-cluster", &urls]));
    assert!(message.contains("a cluster needs at least 2 partitions"), "{message}");
    assert!(service.terminate().success());
}
