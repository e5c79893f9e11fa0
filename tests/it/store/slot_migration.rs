//! Slots that migrate while the service writes, counts and deletes.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::helpers::{RedisCluster, Service};

/// Records, counts and deletes until `is_over`, at least once. Each answer must be right. Returns the number of rounds.
async fn use_the_service(service: &Service, is_over: &AtomicBool) -> u64 {
    let mut round = 0;
    while round == 0 || !is_over.load(Ordering::Relaxed) {
        service.record(&format!("u{round}"), "sports").await;
        let lines: String =
            (0..50).map(|n| format!("{{\"user_id\":\"b{round}-{n}\",\"segments\":[\"bulk\",\"brief\"]}}\n")).collect();
        service.post_lines(lines).await.error_for_status().unwrap();
        round += 1;
        assert_eq!((service.count("sports").await, service.count("bulk").await), (round, 50 * round));
        assert_eq!(service.count("brief").await, 50);
        service.record("leaves", "news").await;
        for path in ["/users/leaves", "/segments/brief"] {
            service.request("DELETE", path).send().await.unwrap().error_for_status().unwrap();
        }
        assert_eq!((service.count("news").await, service.count("brief").await), (0, 0));
    }
    round
}

/// All partitions of a master move to another one, and back, as when a cluster shrinks and grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_every_request_succeeds_while_slots_migrate() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let urls = cluster.urls();
    let arguments = ["--redis-cluster", &urls, "--partitions", "16", "--redis-timeout", "20s"];
    let service = Service::start(folder.path(), &arguments);
    // Enough for the migration of a slot to take a moment.
    let visits: Vec<_> = (0..8_000).map(|n| json!({ "user_id": format!("m{n}"), "segment": "many" })).collect();
    for chunk in visits.chunks(1_000) {
        service.post_array(&json!(chunk)).await.error_for_status().unwrap();
    }
    let from = cluster.master_of("{p00}");
    let to = cluster.masters().into_iter().find(|&node| node != from).unwrap();
    let slots: Vec<_> = (0..16).map(|partition| cluster.slot_of(&format!("{{p{partition:02}}}"))).collect();
    let slots: Vec<_> = slots.into_iter().filter(|&slot| cluster.owner_of(slot) == from).collect();
    let is_over = AtomicBool::new(false);
    let migrate = async {
        for node in [to, from] {
            cluster.migrate_slots(&slots, node).await;
            assert!(slots.iter().all(|&slot| cluster.owner_of(slot) == node));
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (rounds, ()) = tokio::join!(use_the_service(&service, &is_over), migrate);
    assert_eq!(service.count("sports").await, rounds);
    assert_eq!(service.count("many").await, 8_000);
    let log = service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains(r#""WARN""#)), "{log:#?}");
}
