//! A data set that moves to another number of partitions, again and again, while two services write and count, and whoever moves
//! it is killed.

use std::process::Stdio;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::ledger::Ledger;
use super::load::Load;
use super::{either, turn, under_load};
use crate::helpers::{Redis, RedisCluster, Service, binary, in_time};

/// Moves the data set to each of `numbers`, of which the last is that at the beginning. The first run for each is killed at any
/// moment.
async fn move_under_load(
    what: &str,
    place: &[&str],
    numbers: &[&str],
    connections: impl Fn() -> Vec<redis::Connection>,
) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let services = folders.each_ref().map(|folder| {
        Service::start(folder.path(), &[place, &["--redis-timeout", "20s", "--prune-schedule", "* * * * * *"]].concat())
    });
    let ledger = Arc::<Ledger>::default();
    let loads =
        [(0, 41), (1, 42)].map(|(service, seed): (usize, u64)| Load::start(services[service].address, &ledger, seed));
    under_load(500).await;
    let mut random = StdRng::seed_from_u64(43);
    let mut kills = 0;
    for to in numbers {
        let begin = || {
            let mut command = binary(folders[0].path());
            command.args(["repartition", "--to", to, "--redis-timeout", "20s"]).args(place);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        for _ in 0..either(3, 10) {
            let mut moving = begin();
            under_load(random.random_range(5..either(400, 2_000))).await;
            kills += u32::from(moving.try_wait().unwrap().is_none());
            moving.kill().unwrap();
            moving.wait().unwrap();
        }
        let mut moving = begin();
        let moved = tokio::task::spawn_blocking(move || moving.wait().unwrap());
        assert!(in_time("the data set is moved", moved).await.unwrap().success());
        under_load(200).await;
        ledger.check_all(&format!("{what}, moved to {to}"), &mut connections());
    }
    for load in loads {
        let tally = load.stop().await;
        println!("{what}: {tally:?}");
        assert_eq!((tally.refused, tally.broken), (0, 0), "{tally:?}");
    }
    println!("{what}: killed {kills} times");
    assert!(kills > 0, "every move was over before it was killed");
    ledger.check_all(what, &mut connections());
    for service in services {
        assert!(service.terminate().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_set_that_moves_is_counted_right_all_the_while() {
    let _turn = turn().await;
    let redis = Redis::start();
    let numbers = either(&["8", "2", "1"][..], &["8", "64", "2", "1", "1024", "1", "16", "1"]);
    let url = redis.url();
    move_under_load("moves", &["--redis-url", &url], numbers, || vec![redis.connection()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_set_moves_on_a_cluster_as_well() {
    let _turn = turn().await;
    let cluster = RedisCluster::start_patient(&[]).await;
    let urls = cluster.urls();
    let numbers = either(&["16"][..], &["16", "256", "64"]);
    move_under_load("moves on a cluster", &["--redis-cluster", &urls], numbers, || cluster.connections()).await;
}
