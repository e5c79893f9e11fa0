//! Slots that migrate while the service writes, counts and deletes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::json;

use crate::helpers::{RedisCluster, Service, success};

/// Rounds of requests that must begin and end between the start of the first migration and the end of the last one.
const ROUNDS: u64 = 20;
/// Requests that must meet a slot that migrates or has migrated.
const REDIRECTIONS: u64 = 20;
/// Migrations there and back after which requests would have met one.
const MAX_MIGRATIONS: u64 = 300;

/// A client of the service in a task of its own: the migration of slots blocks its thread.
struct Rounds {
    begun: AtomicU64,
    ended: AtomicU64,
    is_over: AtomicBool,
}

impl Rounds {
    /// Records, counts and deletes until the end. Each answer must be right.
    async fn run(&self, service: &Service) {
        while !self.is_over.load(Ordering::SeqCst) {
            let round = self.begun.fetch_add(1, Ordering::SeqCst);
            use_the_service(service, round).await;
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn use_the_service(service: &Service, round: u64) {
    service.record(&format!("u{round}"), "sports").await;
    let lines: String =
        (0..50).map(|n| format!("{{\"user_id\":\"b{round}-{n}\",\"segments\":[\"bulk\",\"brief\"]}}\n")).collect();
    success(service.post_lines(lines).await).await;
    assert_eq!((service.count("sports").await, service.count("bulk").await), (round + 1, 50 * (round + 1)));
    assert_eq!(service.count("brief").await, 50);
    service.record("leaves", "news").await;
    for path in ["/users/leaves", "/segments/brief"] {
        success(service.request("DELETE", path).send().await.unwrap()).await;
    }
    assert_eq!((service.count("news").await, service.count("brief").await), (0, 0));
}

/// All partitions of a master move to another one, and back, as when a cluster shrinks and grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_every_request_succeeds_while_slots_migrate() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let urls = cluster.urls();
    let arguments = ["--redis-cluster", &urls, "--partitions", "16", "--redis-timeout", "20s"];
    let service = Arc::new(Service::start(folder.path(), &arguments));
    // Enough for the migration of a slot to take a moment.
    let visits: Vec<_> = (0..8_000).map(|n| json!({ "user_id": format!("m{n}"), "segment": "many" })).collect();
    for chunk in visits.chunks(1_000) {
        success(service.post_array(&json!(chunk)).await).await;
    }
    let from = cluster.master_of("{p00}");
    let to = cluster.masters().into_iter().find(|&node| node != from).unwrap();
    let slots: Vec<_> = (0..16).map(|partition| cluster.slot_of(&format!("{{p{partition:02}}}"))).collect();
    let slots: Vec<_> = slots.into_iter().filter(|&slot| cluster.owner_of(slot) == from).collect();

    let rounds = Arc::new(Rounds { begun: 0.into(), ended: 0.into(), is_over: false.into() });
    let client = tokio::spawn({
        let (rounds, service) = (Arc::clone(&rounds), Arc::clone(&service));
        async move { rounds.run(&service).await }
    });
    // An atomic migration has no half migrated slots: a request waits, or is sent to the new owner.
    let codes = if cluster.migrates_atomically() { &["MOVED"][..] } else { &["ASK", "TRYAGAIN"] };
    let redirections = || codes.iter().map(|code| cluster.errors(code)).sum::<u64>();
    let (met_before, begun_before) = (redirections(), rounds.begun.load(Ordering::SeqCst));
    let (mut met, mut within, mut migrations) = (0, 0, 0);
    while (met < REDIRECTIONS || within < ROUNDS) && migrations < MAX_MIGRATIONS && !client.is_finished() {
        for node in [to, from] {
            cluster.migrate_slots(&slots, node).await;
            within = rounds.ended.load(Ordering::SeqCst).saturating_sub(begun_before);
            assert!(slots.iter().all(|&slot| cluster.owner_of(slot) == node));
        }
        met = redirections() - met_before;
        migrations += 1;
    }
    rounds.is_over.store(true, Ordering::SeqCst);
    client.await.unwrap();
    assert!(met >= REDIRECTIONS && within >= ROUNDS, "{met} redirections, {within} rounds, {migrations} migrations");

    assert_eq!(service.count("sports").await, rounds.ended.load(Ordering::SeqCst));
    assert_eq!(service.count("many").await, 8_000);
    let service = Arc::into_inner(service).expect("the client's task is over");
    let log = service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains(r#""WARN""#)), "{log:#?}");
}
