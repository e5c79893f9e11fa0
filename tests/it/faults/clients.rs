//! Clients that keep connections open and send a byte now and then.

use std::net::SocketAddr;
use std::panic::Location;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{is_soak, post_probe, quick_or_soak, serve, side_by_side};
use crate::helpers::{Redis, Service, eventually, in_time};

/// Sends the bytes of a head or of a body one by one, with pauses, until the service closes the connection. Returns its
/// response.
async fn drip(address: SocketAddr, is_body: bool) -> String {
    const PAUSE: Duration = Duration::from_secs(3);
    let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
    let head =
        "POST /segments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    if is_body {
        to.write_all(head.as_bytes()).await.unwrap();
    }
    let mut answer = Vec::new();
    let dripping = async {
        let mut bytes = head.bytes().cycle();
        while to.write_all(&[bytes.next().unwrap()]).await.is_ok() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = dripping => {}
        _ = from.read_to_end(&mut answer) => {}
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Returns the 99th percentile of the response times of single visits, sent one after the other.
#[track_caller]
fn p99(service: &Service) -> impl Future<Output = Duration> {
    let caller = Location::caller();
    async move {
        let (start, mut times) = (Instant::now(), Vec::new());
        while start.elapsed() < quick_or_soak(Duration::from_millis(200), Duration::from_secs(4)) {
            let since = Instant::now();
            assert_eq!(post_probe(service).await, 204, "{caller}");
            times.push(since.elapsed());
        }
        times.sort();
        times[times.len() * 99 / 100]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_cuts_off_slow_clients_and_keeps_the_latency_of_others() {
    let _guard = side_by_side().await;
    let count = quick_or_soak(500, 5_000);
    let wanted = count + 500;
    assert!(rlimit::increase_nofile_limit(wanted).unwrap() >= wanted, "this test needs {wanted} descriptors");
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let timeout = quick_or_soak("2s", "10s");
    let service = serve(&folder, &redis.url(), &["--header-timeout", timeout, "--body-timeout", timeout]);
    assert_eq!(post_probe(&service).await, 204);
    let before = p99(&service).await;

    let mut clients = JoinSet::new();
    for number in 0..count {
        clients.spawn(drip(service.address, number % 2 == 0));
    }
    // The listen queue may overflow, so that clients retry after one second or three. The first ones are cut off by
    // then.
    eventually("half of the clients are connected", async || {
        service.metric("estimator_http_connections").await > count / 2
    })
    .await;
    let beside_them = p99(&service).await;
    println!("slow clients: p99 of others {beside_them:?}, {before:?} without slow clients");
    assert!(!is_soak() || beside_them <= before * 2, "p99 {beside_them:?}, {before:?} without slow clients");

    let responses = in_time("all clients are cut off", clients.join_all()).await;
    let late = responses.iter().filter(|answer| answer.starts_with("HTTP/1.1 408 ")).count();
    let silent = responses.iter().filter(|answer| answer.is_empty()).count();
    assert_eq!((late + silent) as u64, count, "the others got another response");
    assert!(late > 0 && silent > 0, "{late} got 408 in their body, {silent} were closed in their head");
    eventually("the connections of the clients are closed", async || {
        service.metric("estimator_http_connections").await < 10
    })
    .await;
    assert!(service.terminate().success());
}
