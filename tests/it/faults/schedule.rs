//! Random faults of the network and of a process, one of each at a time. A failure names its seed. `FAULT_SEED=7`
//! repeats the same faults in the same order and for the same time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use tokio::task::block_in_place;

use super::ledger::Ledger;
use super::load::Load;
use super::{assert_deadlines, quick_or_soak, run_load_for, serve, side_by_side, wait_for_recovery};
use crate::helpers::{Fault, Proxy, Redis, Service, Toxic, kill};

/// Fault of the network.
#[derive(Debug, Clone, Copy)]
enum NetworkFault {
    None,
    Toxic(Toxic),
    Once(Fault),
}

const NETWORK_FAULTS: [NetworkFault; 10] = [
    NetworkFault::None,
    NetworkFault::Toxic(Toxic::Latency(Duration::from_millis(50))),
    NetworkFault::Toxic(Toxic::Latency(Duration::from_secs(2))),
    NetworkFault::Toxic(Toxic::TimeoutDownstream),
    NetworkFault::Toxic(Toxic::LimitData),
    NetworkFault::Toxic(Toxic::Timeout),
    NetworkFault::Once(Fault::Close),
    NetworkFault::Once(Fault::ResetPeer),
    NetworkFault::Once(Fault::HalfClose),
    NetworkFault::Once(Fault::HalfOpen),
];

/// Fault of a process.
#[derive(Debug, Clone, Copy)]
enum ProcessFault {
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

const PROCESS_FAULTS: [ProcessFault; 10] = [
    ProcessFault::None,
    ProcessFault::RedisKilled,
    ProcessFault::RedisFrozen,
    ProcessFault::RedisPaused,
    ProcessFault::FullMemory,
    ProcessFault::NoReplicas,
    ProcessFault::BecomesReplica,
    ProcessFault::NoPermission,
    ProcessFault::ServiceKilled,
    ProcessFault::ServiceStopped,
];

/// The processes under test, and their load.
struct Harness {
    folder: TempDir,
    redis: Redis,
    proxy: Proxy,
    service: Service,
    ledger: Arc<Ledger>,
    load: Load,
    seed: u64,
}

impl Harness {
    async fn start(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let redis = Redis::start();
        let proxy = Proxy::start(&redis).await;
        let service = Self::start_service(&folder, &proxy);
        let ledger = Arc::default();
        let load = Load::start(service.address, &ledger, seed);
        Self { folder, redis, proxy, service, ledger, load, seed }
    }

    fn start_service(folder: &TempDir, proxy: &Proxy) -> Service {
        serve(folder, &proxy.url(), &["--prune-schedule", "* * * * * *"])
    }

    fn set_config(&self, name: &str, value: &str) {
        self.redis.call::<()>(&["CONFIG", "SET", name, value]);
    }

    async fn inject(mut self, fault: ProcessFault, millis: u64) -> Self {
        match fault {
            ProcessFault::None => {}
            ProcessFault::RedisKilled => self.redis.stop(),
            ProcessFault::RedisFrozen => kill("-STOP", self.redis.pid()),
            ProcessFault::RedisPaused => self.redis.call(&["CLIENT", "PAUSE", &millis.to_string(), "ALL"]),
            ProcessFault::FullMemory => self.set_config("maxmemory", "1"),
            ProcessFault::NoReplicas => self.set_config("min-replicas-to-write", "1"),
            ProcessFault::BecomesReplica => self.redis.call(&["REPLICAOF", "127.0.0.1", "1"]),
            ProcessFault::NoPermission => self.redis.call(&["ACL", "SETUSER", "default", "-zadd"]),
            ProcessFault::ServiceKilled => return self.replace_service(|service| service.kill()).await,
            ProcessFault::ServiceStopped => {
                return self.replace_service(|service| assert!(service.terminate().success())).await;
            }
        }
        self
    }

    fn heal(&mut self, fault: ProcessFault) {
        match fault {
            ProcessFault::None
            | ProcessFault::RedisPaused
            | ProcessFault::ServiceKilled
            | ProcessFault::ServiceStopped => {}
            ProcessFault::RedisKilled => self.redis.start_again(),
            ProcessFault::RedisFrozen => kill("-CONT", self.redis.pid()),
            ProcessFault::FullMemory => self.set_config("maxmemory", "0"),
            ProcessFault::NoReplicas => self.set_config("min-replicas-to-write", "0"),
            ProcessFault::BecomesReplica => self.redis.call(&["REPLICAOF", "NO", "ONE"]),
            ProcessFault::NoPermission => self.redis.call(&["ACL", "SETUSER", "default", "+zadd"]),
        }
    }

    /// Ends the service with `end` and starts another one.
    async fn replace_service(mut self, end: impl FnOnce(Service)) -> Self {
        block_in_place(|| end(self.service));
        assert_deadlines("a service that ends", &self.load.stop().await);
        self.seed += 1;
        self.service = Self::start_service(&self.folder, &self.proxy);
        self.load = Load::start(self.service.address, &self.ledger, self.seed);
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_loses_nothing_under_random_faults() {
    let _guard = side_by_side().await;
    let seed = std::env::var("FAULT_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("random faults: FAULT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut harness = Harness::start(seed).await;
    let end = Instant::now() + quick_or_soak(Duration::from_secs(10), Duration::from_secs(10 * 60));
    let mut faults = 0;
    while Instant::now() < end {
        let (network, process) =
            (*NETWORK_FAULTS.choose(&mut random).unwrap(), *PROCESS_FAULTS.choose(&mut random).unwrap());
        let (before, during) = (random.random_range(0..200), random.random_range(0..700));
        let what = format!("FAULT_SEED={seed}, fault {faults}: {network:?}, {process:?} for {during} ms");
        run_load_for(before).await;
        harness.ledger.fault_injected(format_args!("{network:?}, {process:?} for {during} ms"));
        match network {
            NetworkFault::None => {}
            NetworkFault::Toxic(toxic) => harness.proxy.set_toxic(toxic),
            NetworkFault::Once(fault) => harness.proxy.inject(fault),
        }
        harness = harness.inject(process, during).await;
        run_load_for(during).await;
        harness.heal(process);
        harness.proxy.remove_toxic();
        harness.ledger.fault_healed(format_args!("{network:?}, {process:?}"));
        wait_for_recovery(&harness.service, &what).await;
        harness.ledger.check(&what, &mut harness.redis.connection());
        faults += 1;
    }
    println!("random faults: {faults} of them");
    assert_deadlines("random faults", &harness.load.stop().await);
    harness.ledger.check("random faults", &mut harness.redis.connection());
    let log = harness.service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains("panic")), "{log:#?}");
}
