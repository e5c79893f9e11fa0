//! `GET /livez`, `GET /healthz`, `GET /readyz` and the command `healthcheck`.

use std::net::SocketAddr;

use serde_json::{Value, json};
use socket2::{Domain, Type};

use crate::helpers::{Client, Redis, Service, TestApp, binary, eventually, in_time, kill, problem, run, settings};

#[tokio::test]
async fn livez_healthz_and_readyz_are_200_with_redis() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (path, status) in [("/livez", "ok"), ("/healthz", "ok"), ("/readyz", "ready")] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({ "status": status }));
    }
}

#[tokio::test]
async fn livez_and_healthz_do_not_wait_for_redis() {
    let mut redis = Redis::start();
    let settings = settings([("redis_timeout", "1h")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    // A request to Redis would wait now.
    kill("-STOP", redis.pid());
    for _ in 0..5 {
        assert_eq!(in_time("livez answers", app.status_of("/livez")).await, 200);
        assert_eq!(in_time("healthz answers", app.status_of("/healthz")).await, 200);
    }
    kill("-CONT", redis.pid());

    redis.stop();
    assert_eq!(app.status_of("/livez").await, 200);
    assert_eq!(app.status_of("/healthz").await, 200);
    eventually("readyz is 503", async || app.status_of("/readyz").await == 503).await;
    problem(app.get("/readyz").await, 503, "store-unavailable").await;
}

#[tokio::test]
async fn healthcheck_exits_0_if_the_service_answers_and_1_if_not() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let address = service.address.to_string();

    let healthy = run(binary(folder.path()).args(["healthcheck", "--listen", &address]));
    assert!(healthy.status.success(), "{healthy:?}");
    for all in ["0.0.0.0", "[::]"] {
        let port_of_all = format!("{all}:{}", service.address.port());
        assert!(run(binary(folder.path()).args(["healthcheck", "--listen", &port_of_all])).status.success(), "{all}");
    }

    assert!(service.terminate().success());
    // A socket that is bound but does not listen keeps the port from other tests, and refuses connections.
    let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let refused = run(binary(folder.path()).args(["healthcheck", "--listen", &address.to_string()]));
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.starts_with(&format!("segment-estimator: no answer from {address}: ")), "{message}");
}

#[tokio::test]
async fn listen_on_every_address_answers_by_ipv4_and_by_ipv6() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--listen", "[::]:0", "--admin-listen", "[::]:0"]);
    // A machine may lack IPv6.
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    let families = ["127.0.0.1", "[::1]"].into_iter().take(if has_ipv6 { 2 } else { 1 });
    for family in families {
        for (port, path) in [(service.address.port(), "/segments"), (service.admin_address.unwrap().port(), "/readyz")]
        {
            let client = Client::new(format!("{family}:{port}").parse().unwrap());
            assert_eq!(client.status_of(path).await, 200, "{family} {path}");
        }
    }
    assert!(service.terminate().success());
}
