//! A data set that is repartitioned again and again, while two services record and count, and the `repartition` process
//! is killed.

use std::process::Stdio;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rstest::rstest;

use super::ledger::Ledger;
use super::load::Load;
use super::{quick_or_soak, run_load_for, side_by_side};
use crate::helpers::{Redis, RedisCluster, Service, binary, in_time};

/// What the data set is on.
enum Servers {
    One(Redis),
    Cluster(RedisCluster),
}

impl Servers {
    async fn start(is_cluster: bool) -> Self {
        if is_cluster {
            Self::Cluster(RedisCluster::start_without_failover(&[]).await)
        } else {
            Self::One(Redis::start())
        }
    }

    /// Returns the arguments that name the servers.
    fn arguments(&self) -> [String; 2] {
        match self {
            Self::One(redis) => ["--redis-url".to_owned(), redis.url()],
            Self::Cluster(cluster) => ["--redis-cluster".to_owned(), cluster.urls()],
        }
    }

    fn connections(&self) -> Vec<redis::Connection> {
        match self {
            Self::One(redis) => vec![redis.connection()],
            Self::Cluster(cluster) => cluster.connections(),
        }
    }
}

/// Several runs of each move are killed at a random moment before one completes.
#[rstest]
#[case::one_server(
    false,
    quick_or_soak(
        &["--to 8", "--to 2", "--to 1"][..],
        &["--to 8", "--to 64", "--to 2", "--to 1", "--to 1024", "--to 1", "--to 16", "--to 1"],
    )
)]
#[case::samples(
    false,
    quick_or_soak(
        &["--max-members 2048", "--to 4", "--max-members 1024 --to 1"][..],
        &["--max-members 4096 --to 4", "--max-members 1024", "--to 16", "--to 1", "--max-members 2048", "--to 8"],
    )
)]
#[case::cluster(true, quick_or_soak(&["--to 16"][..], &["--to 16", "--to 256", "--to 64"]))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repartition_under_load_keeps_every_count_right(#[case] is_cluster: bool, #[case] moves: &[&str]) {
    let _guard = side_by_side().await;
    let what = if is_cluster { "repartition on a cluster" } else { "repartition" };
    let servers = Servers::start(is_cluster).await;
    let redis = servers.arguments();
    let redis = redis.each_ref().map(String::as_str);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let services = folders.each_ref().map(|folder| {
        Service::start(
            folder.path(),
            &[&redis[..], &["--redis-timeout", "20s", "--prune-schedule", "* * * * * *"]].concat(),
        )
    });
    let ledger = Arc::<Ledger>::default();
    let loads =
        [(0, 41), (1, 42)].map(|(service, seed): (usize, u64)| Load::start(services[service].address, &ledger, seed));
    run_load_for(500).await;
    let mut random = StdRng::seed_from_u64(43);
    let mut kills = 0;
    for to in moves {
        let start = || {
            let mut command = binary(folders[0].path());
            command.arg("repartition").args(to.split(' ')).args(["--yes", "--redis-timeout", "20s"]).args(redis);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        for _ in 0..quick_or_soak(3, 10) {
            let mut running = start();
            run_load_for(random.random_range(5..quick_or_soak(400, 2_000))).await;
            kills += u32::from(running.try_wait().unwrap().is_none());
            ledger.fault_injected("repartition killed");
            running.kill().unwrap();
            running.wait().unwrap();
        }
        let mut running = start();
        let completed = tokio::task::spawn_blocking(move || running.wait().unwrap());
        assert!(in_time("repartition completes", completed).await.unwrap().success());
        run_load_for(200).await;
        ledger.check_all(&format!("{what} {to}"), &mut servers.connections());
    }
    for load in loads {
        let tally = load.stop().await;
        println!("{what}: {tally:?}");
        assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    }
    println!("{what}: killed {kills} times");
    assert!(kills > 0, "every run completed before it was killed");
    ledger.check_all(what, &mut servers.connections());
    for service in services {
        assert!(service.terminate().success());
    }
}
