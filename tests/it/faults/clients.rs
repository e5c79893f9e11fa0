//! Clients that keep their connections and hardly send anything.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{either, is_soak, post, serve, turn};
use crate::helpers::{Redis, Service, eventually, in_time};

/// Sends a byte of a head or of a body now and then until the service has had enough. Says what it was told, if anything.
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

/// The time within which 99 of 100 single visits are answered, one after the other for a while.
async fn p99(service: &Service) -> Duration {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < either(Duration::from_millis(200), Duration::from_secs(4)) {
        let since = Instant::now();
        assert_eq!(post(service).await, 204);
        times.push(since.elapsed());
    }
    times.sort();
    times[times.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_drip_are_cut_off_and_others_are_served() {
    let _turn = turn().await;
    let count = either(500, 5_000);
    let wanted = count + 500;
    assert!(rlimit::increase_nofile_limit(wanted).unwrap() >= wanted, "this test needs {wanted} descriptors");
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let patience = either("2s", "10s");
    let service = serve(&folder, &redis.url(), &["--header-timeout", patience, "--body-timeout", patience]);
    assert_eq!(post(&service).await, 204);
    let usual = p99(&service).await;

    let mut clients = JoinSet::new();
    for number in 0..count {
        clients.spawn(drip(service.address, number % 2 == 0));
    }
    // So many at once may have to knock again, a second later or three, and the first are cut off before the last have come.
    eventually("they are connected", async || service.metric("estimator_http_connections").await > count / 2).await;
    let among_them = p99(&service).await;
    println!("slow clients: p99 of others {among_them:?}, {usual:?} without them");
    assert!(!is_soak() || among_them <= usual * 2, "p99 {among_them:?}, {usual:?} without them");

    let told = in_time("they are cut off", clients.join_all()).await;
    let late = told.iter().filter(|answer| answer.starts_with("HTTP/1.1 408 ")).count();
    let silent = told.iter().filter(|answer| answer.is_empty()).count();
    assert_eq!((late + silent) as u64, count, "others were told something else");
    assert!(late > 0 && silent > 0, "{late} were told that their body is late, {silent} were cut off in their head");
    eventually("their connections are gone", async || service.metric("estimator_http_connections").await < 10).await;
    assert!(service.terminate().success());
}
