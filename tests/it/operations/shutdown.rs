//! Shutdown: `/readyz` fails first, then the service accepts no connections, completes requests in flight and exits.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::panic::Location;
use std::time::Duration;

use crate::helpers::{
    Client, Proxy, Redis, Service, TestApp, eventually, in_time, kill, private_redis_pid, problem, settings,
};

/// Sends a visit but for its last byte.
fn begin_post(address: SocketAddr) -> TcpStream {
    let body = r#"{"user_id":"u104010","segment":"sports"}"#;
    let head = format!(
        "POST /segments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body.as_bytes()[..body.len() - 1]).unwrap();
    stream
}

/// Waits until the service has accepted all earlier connections.
#[track_caller]
fn wait_until_accepted(client: &Client) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move { assert_eq!(client.status_of("/healthz").await, 200, "{caller}") }
}

fn read_to_end(mut stream: TcpStream) -> tokio::task::JoinHandle<String> {
    tokio::task::spawn_blocking(move || {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    })
}

#[tokio::test]
async fn shutdown_ends_an_idle_service() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u104010", "sports").await;
    // An idle connection must not delay the shutdown.
    let _silent = TcpStream::connect(app.address).unwrap();
    wait_until_accepted(&app).await;
    app.begin_stop();
    app.ended().await.unwrap();
}

#[tokio::test]
async fn shutdown_fails_readyz_while_requests_are_still_served() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("shutdown_delay", "1s")])).await;
    assert_eq!(app.status_of("/readyz").await, 200);

    app.begin_stop();
    eventually("readyz is 503", async || app.status_of("/readyz").await == 503).await;
    problem(app.get("/readyz").await, 503, "stopping").await;
    // Probes and new callers use new connections.
    let probe = reqwest::get(format!("http://{}/readyz", app.address)).await.unwrap();
    problem(probe, 503, "stopping").await;
    let live = reqwest::get(format!("http://{}/healthz", app.address)).await.unwrap();
    assert_eq!(live.status(), 200);
    let live = reqwest::get(format!("http://{}/livez", app.address)).await.unwrap();
    assert_eq!(live.status(), 200);
    app.record("u104010", "sports").await;
    app.ended().await.unwrap();
}

#[tokio::test]
async fn shutdown_closes_each_connection_after_its_next_answer() {
    let redis = Redis::start();
    let settings = settings([("shutdown_delay", "1s"), ("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let admin = Client::new(app.admin_address.unwrap());
    let closes = async |client: &Client, path: &str| {
        let response = client.get(path).await;
        response.headers().get("connection").is_some_and(|value| value == "close")
    };
    assert!(!closes(&app, "/segments/sports/count").await && !closes(&admin, "/healthz").await, "before");
    // An idle connection stays open until its next answer.
    let kept = begin_post(app.address);
    wait_until_accepted(&admin).await;

    app.begin_stop();
    eventually("readyz is 503", async || admin.status_of("/readyz").await == 503).await;
    assert!(closes(&app, "/segments/sports/count").await && closes(&app, "/nowhere").await);
    assert!(closes(&admin, "/healthz").await);
    let mut answered = kept.try_clone().unwrap();
    answered.write_all(b"}").unwrap();
    let answer = in_time("the response", read_to_end(kept)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("\r\nconnection: close\r\n"), "{answer}");
    app.ended().await.unwrap();
}

#[tokio::test]
async fn shutdown_completes_a_request_in_flight_and_refuses_new_connections() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let mut stream = begin_post(app.address);
    wait_until_accepted(&app).await;

    app.begin_stop();
    let address = app.address;
    eventually("connections are refused", async || TcpStream::connect(address).is_err()).await;
    stream.write_all(b"}").unwrap();

    let answer = in_time("the response", read_to_end(stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    app.ended().await.unwrap();
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), 1);
}

#[tokio::test]
async fn shutdown_refuses_overlaps_that_wait_and_completes_the_one_that_runs() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("max_overlaps", "1"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "a").await;

    proxy.hold_replies();
    let begin = |path: &str| tokio::spawn(app.request("GET", path).send());
    let running = begin("/overlap?segment=a&segment=b");
    app.eventually_in_flight(1).await;
    let waiting = begin("/overlap?segment=a&segment=c");
    app.eventually_in_flight(2).await;

    app.begin_stop();
    problem(in_time("the refusal", waiting).await.unwrap().unwrap(), 503, "stopping").await;
    proxy.release_replies();
    assert_eq!(in_time("the answer", running).await.unwrap().unwrap().status(), 200);
    app.ended().await.unwrap();
}

#[tokio::test]
async fn shutdown_aborts_a_request_at_the_drain_timeout() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("drain_timeout", "200ms")])).await;
    let stream = begin_post(app.address);
    wait_until_accepted(&app).await;

    app.begin_stop();
    app.ended().await.unwrap();
    let answer = in_time("the connection ends", read_to_end(stream)).await.unwrap();
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    assert!(redis.sets().is_empty());
}

#[tokio::test]
async fn shutdown_stops_the_private_redis_after_the_requests_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let address = service.address;
    let mut stream = begin_post(address);
    wait_until_accepted(&service).await;

    kill("-TERM", service.pid());
    eventually("connections are refused", async || TcpStream::connect(address).is_err()).await;
    stream.write_all(b"}").unwrap();
    let answer = in_time("the response", read_to_end(stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert!(service.ended().success());

    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 1);
    // Ctrl-C stops it as well.
    kill("-INT", service.pid());
    assert!(service.ended().success());
}

/// The private Redis is frozen at first, so it ends late.
#[tokio::test]
async fn shutdown_logs_no_failure_while_the_private_redis_stops() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--redis-timeout", "200ms", "--prune-schedule", "* * * * * *"]);
    service.record("u1", "sports").await;
    let redis = private_redis_pid(folder.path());
    kill("-STOP", redis);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1_500));
        kill("-KILL", redis);
    });
    let log = service.terminate_for_log();
    killer.join().unwrap();
    assert!(log.iter().any(|line| line.contains("private Redis stopped")), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("WARN") || line.contains("ERROR")), "{log:#?}");
}

#[tokio::test]
async fn second_signal_ends_the_service_immediately() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--shutdown-delay", "1h"]);
    kill("-INT", service.pid());
    eventually("readyz is 503", async || service.status_of("/readyz").await == 503).await;

    kill("-INT", service.pid());
    assert_eq!(service.ended().code(), Some(1));
}
