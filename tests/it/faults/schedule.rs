//! Faults at random, of the network and of a process, one of each at a time. A failure names its seed: with `FAULT_SEED=7` the same
//! faults come again, in the same order and for as long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use tokio::task::block_in_place;

use super::ledger::Ledger;
use super::load::Load;
use super::{by_the_deadline, either, recovers, serve, turn, under_load};
use crate::helpers::{Blow, Proxy, Redis, Service, Weather, kill};

/// What the network does.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    None,
    Weather(Weather),
    Blow(Blow),
}

const TROUBLES: [Trouble; 10] = [
    Trouble::None,
    Trouble::Weather(Weather::Slow(Duration::from_millis(50))),
    Trouble::Weather(Weather::Slow(Duration::from_secs(2))),
    Trouble::Weather(Weather::RepliesHeld),
    Trouble::Weather(Weather::RepliesTorn),
    Trouble::Weather(Weather::BlackHole),
    Trouble::Blow(Blow::Cut),
    Trouble::Blow(Blow::Reset),
    Trouble::Blow(Blow::HalfClose),
    Trouble::Blow(Blow::Deaden),
];

/// What a process does.
#[derive(Debug, Clone, Copy)]
enum Fault {
    None,
    RedisKilled,
    RedisFrozen,
    RedisPaused,
    FullMemory,
    NoReplicas,
    BecomesReplica,
    NoPermission,
    ServiceKilled,
    ServiceStopped,
}

const FAULTS: [Fault; 10] = [
    Fault::None,
    Fault::RedisKilled,
    Fault::RedisFrozen,
    Fault::RedisPaused,
    Fault::FullMemory,
    Fault::NoReplicas,
    Fault::BecomesReplica,
    Fault::NoPermission,
    Fault::ServiceKilled,
    Fault::ServiceStopped,
];

/// What the faults meet.
struct Scene {
    folder: TempDir,
    redis: Redis,
    proxy: Proxy,
    service: Service,
    ledger: Arc<Ledger>,
    load: Load,
    seed: u64,
}

impl Scene {
    async fn set(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start();
        let proxy = Proxy::start(&redis).await;
        let service = Self::service(&folder, &proxy);
        let ledger = Arc::default();
        let load = Load::start(service.address, &ledger, seed);
        Self { folder, redis, proxy, service, ledger, load, seed }
    }

    fn service(folder: &TempDir, proxy: &Proxy) -> Service {
        serve(folder, &proxy.url(), &["--prune-schedule", "* * * * * *"])
    }

    fn set_config(&self, name: &str, value: &str) {
        self.redis.call::<()>(&["CONFIG", "SET", name, value]);
    }

    async fn begin(mut self, fault: Fault, millis: u64) -> Self {
        match fault {
            Fault::None => {}
            Fault::RedisKilled => self.redis.stop(),
            Fault::RedisFrozen => kill("-STOP", self.redis.pid()),
            Fault::RedisPaused => self.redis.call(&["CLIENT", "PAUSE", &millis.to_string(), "ALL"]),
            Fault::FullMemory => self.set_config("maxmemory", "1"),
            Fault::NoReplicas => self.set_config("min-replicas-to-write", "1"),
            Fault::BecomesReplica => self.redis.call(&["REPLICAOF", "127.0.0.1", "1"]),
            Fault::NoPermission => self.redis.call(&["ACL", "SETUSER", "default", "-zadd"]),
            Fault::ServiceKilled => return self.renew(|service| service.kill()).await,
            Fault::ServiceStopped => return self.renew(|service| assert!(service.terminate().success())).await,
        }
        self
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::None | Fault::RedisPaused | Fault::ServiceKilled | Fault::ServiceStopped => {}
            Fault::RedisKilled => self.redis.start_again(),
            Fault::RedisFrozen => kill("-CONT", self.redis.pid()),
            Fault::FullMemory => self.set_config("maxmemory", "0"),
            Fault::NoReplicas => self.set_config("min-replicas-to-write", "0"),
            Fault::BecomesReplica => self.redis.call(&["REPLICAOF", "NO", "ONE"]),
            Fault::NoPermission => self.redis.call(&["ACL", "SETUSER", "default", "+zadd"]),
        }
    }

    /// Another service in the place of this one, which ends as `end` says.
    async fn renew(mut self, end: impl FnOnce(Service)) -> Self {
        block_in_place(|| end(self.service));
        by_the_deadline("a service that ends", &self.load.stop().await);
        self.seed += 1;
        self.service = Self::service(&self.folder, &self.proxy);
        self.load = Load::start(self.service.address, &self.ledger, self.seed);
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_lose_nothing() {
    let _turn = turn().await;
    let seed = std::env::var("FAULT_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("random faults: FAULT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut scene = Scene::set(seed).await;
    let end = Instant::now() + either(Duration::from_secs(10), Duration::from_secs(10 * 60));
    let mut faults = 0;
    while Instant::now() < end {
        let (trouble, fault) = (*TROUBLES.choose(&mut random).unwrap(), *FAULTS.choose(&mut random).unwrap());
        let (before, during) = (random.random_range(0..200), random.random_range(0..700));
        let what = format!("FAULT_SEED={seed}, fault {faults}: {trouble:?}, {fault:?} for {during} ms");
        under_load(before).await;
        match trouble {
            Trouble::None => {}
            Trouble::Weather(weather) => scene.proxy.turn(weather),
            Trouble::Blow(blow) => scene.proxy.strike(blow),
        }
        scene = scene.begin(fault, during).await;
        under_load(during).await;
        scene.end(fault);
        scene.proxy.turn(Weather::Fine);
        recovers(&scene.service, &what).await;
        scene.ledger.check(&what, &mut scene.redis.connection());
        faults += 1;
    }
    println!("random faults: {faults} of them");
    by_the_deadline("random faults", &scene.load.stop().await);
    scene.ledger.check("random faults", &mut scene.redis.connection());
    let log = scene.service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
}
