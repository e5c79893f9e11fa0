//! `GET /metrics`: requests, visits, Redis and pruning.

use std::panic::Location;
use std::time::Duration;

use segment_estimator::domain::{Timestamp, Window};
use serde_json::json;
use tokio::net::TcpStream;

use crate::helpers::{Client, Proxy, Redis, Service, TestApp, Upload, eventually, problem, settings, visit};

/// Samples of a scrape.
struct Scrape(String);

impl Scrape {
    /// Scrapes the service. Panics with the caller's location if the response is not 200.
    #[track_caller]
    fn of(client: &Client) -> impl Future<Output = Self> {
        let caller = Location::caller();
        async move {
            let response = client.get("/metrics").await;
            assert_eq!(response.status(), 200, "{caller}");
            let content_type = &response.headers()["content-type"];
            assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8", "{caller}");
            Self(response.text().await.unwrap())
        }
    }

    /// Returns the value of a sample, if it is there. `sample` includes the labels.
    fn find(&self, sample: &str) -> Option<f64> {
        let line = self.0.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    /// Returns the value of a sample. `sample` includes the labels.
    #[track_caller]
    fn value(&self, sample: &str) -> f64 {
        self.find(sample).unwrap_or_else(|| panic!("{sample} is not in\n{}", self.0))
    }
}

#[tokio::test]
async fn metrics_count_requests_by_route_method_and_status() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    app.record("u2", "sports").await;
    app.count("sports").await;
    problem(app.get("/segments/%ff/count").await, 422, "invalid-request").await;
    problem(app.get("/secret-name").await, 404, "not-found").await;
    problem(app.request("BREW", "/segments").send().await.unwrap(), 405, "method-not-allowed").await;

    let scrape = Scrape::of(&app).await;
    for (labels, expected) in [
        (r#"route="/segments",method="POST",status="204""#, 2.0),
        (r#"route="/segments/{name}/count",method="GET",status="200""#, 1.0),
        (r#"route="/segments/{name}/count",method="GET",status="422""#, 1.0),
        (r#"route="unmatched",method="any",status="404""#, 1.0),
        (r#"route="unmatched",method="any",status="405""#, 1.0),
    ] {
        assert_eq!(scrape.value(&format!("estimator_http_requests_total{{{labels}}}")), expected, "{labels}");
    }
    let timed = r#"estimator_http_request_duration_seconds_count{route="/segments",method="POST"}"#;
    assert_eq!(scrape.value(timed), 2.0);
    assert_eq!(scrape.value(r#"estimator_http_problems_total{type="invalid-request"}"#), 1.0);
    for (connection, is_used) in [("visits", true), ("batches", false), ("other", true)] {
        let sample = format!(r#"estimator_redis_duration_seconds_count{{connection="{connection}"}}"#);
        assert_eq!(scrape.value(&sample) > 0.0, is_used, "{connection}");
    }
    assert!(scrape.value(r#"estimator_round_size_count{kind="visits"}"#) >= 1.0);
    assert_eq!(scrape.value(r#"estimator_round_size_sum{kind="visits"}"#), 2.0);
    assert_eq!(scrape.value(r#"estimator_round_waiting{kind="visits"}"#), 0.0);
    let commit = segment_estimator::COMMIT.unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    let build = format!(r#"estimator_build_info{{version="{version}",commit="{commit}"}}"#);
    assert_eq!(scrape.value(&build), 1.0);
    assert!(scrape.value("process_resident_memory_bytes") > 1e6);
    assert!(scrape.value("process_cpu_seconds_total") >= 0.0);
    assert!(scrape.value("process_open_fds") > 3.0);
}

#[tokio::test]
async fn metrics_have_no_label_from_a_request() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("user-of-mine", "segment-of-mine").await;
    app.get("/path-of-mine").await;
    app.request("METHODOFMINE", "/segments").header("x-request-id", "id-of-mine").send().await.unwrap();
    app.post_lines("{\"user_id\":\"\",\"segment\":\"segment-of-mine\",\"field-of-mine\":1}\n").await;
    let text = Scrape::of(&app).await.0.to_lowercase();
    assert!(!text.contains("mine"), "{text}");
}

#[tokio::test]
async fn metrics_count_visits_by_result() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let long = "x".repeat(20_000);
    let lines = [
        r#"{"user_id":"u1","segment":"news"}"#,
        r#"{"user_id":"u2","segment":"news"}"#,
        r#"{"user_id":"u3","segment":"news","seen_at":1}"#,
        r#"{"user_id":"","segment":"news"}"#,
        "[]",
        "no json",
        &long,
    ];
    assert_eq!(app.post_lines(lines.join("\n")).await.status(), 200);
    app.record("u4", "news").await;
    app.post_visit(&json!({ "user_id": "u5", "segment": "news", "seen_at": 1 })).await;
    problem(app.post_visit(&json!({ "user_id": "u6" })).await, 422, "invalid-request").await;
    redis.call::<()>(&["SET", "segment:string", "not a sorted set"]);
    problem(app.post_visit(&json!({ "user_id": "u7", "segment": "string" })).await, 503, "store-unavailable").await;

    let scrape = Scrape::of(&app).await;
    assert_eq!(scrape.value("estimator_visits_accepted_total"), 3.0);
    assert_eq!(scrape.value("estimator_visits_expired_total"), 2.0);
    for (reason, expected) in [("fields", 2.0), ("not_an_object", 1.0), ("not_json", 1.0), ("too_long", 1.0)] {
        let sample = format!(r#"estimator_visits_rejected_total{{reason="{reason}"}}"#);
        assert_eq!(scrape.value(&sample), expected, "{reason}");
    }
    assert_eq!(scrape.value(r#"estimator_visits_failed_total{reason="wrong_type"}"#), 1.0);
    assert_eq!(scrape.value(r#"estimator_redis_errors_total{kind="wrong_type"}"#), 1.0);
    assert_eq!(scrape.value(r#"estimator_visits_failed_total{reason="timeout"}"#), 0.0);
}

#[tokio::test]
async fn metrics_count_callers_that_disconnect() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;
    proxy.hold_replies();
    let visit = json!({ "user_id": "u2", "segment": "sports" });
    let disconnected = app.request("POST", "/segments").json(&visit).timeout(Duration::from_millis(100)).send().await;
    assert!(disconnected.unwrap_err().is_timeout());
    let abandoned = r#"estimator_http_requests_total{route="/segments",method="POST",status="499"}"#;
    eventually("the request is counted", async || Scrape::of(&app).await.find(abandoned) == Some(1.0)).await;
    let scrape = Scrape::of(&app).await;
    assert_eq!(scrape.value(r#"estimator_visits_failed_total{reason="abandoned"}"#), 1.0);
    assert_eq!(scrape.value("estimator_visits_accepted_total"), 1.0);
    assert_eq!(scrape.value("estimator_http_requests_in_flight"), 0.0);
    proxy.release_replies();
}

#[tokio::test]
async fn metrics_count_visits_of_a_stream_whose_sender_disconnects() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let mut upload = Upload::begin(app.address).await;
    upload.send(b"{\"user_id\":\"u1\",\"segment\":\"news\"}\n{\"user_id\":\"u2\",\"segment\":\"news\"}\n").await;
    eventually("the visits are written", async || redis.call::<u64>(&["ZCARD", "segment:news"]) == 2).await;
    drop(upload);
    eventually("the visits are counted", async || {
        Scrape::of(&app).await.value("estimator_visits_accepted_total") == 2.0
    })
    .await;
}

#[tokio::test]
async fn metrics_count_open_connections() {
    let redis = Redis::start();
    let admin = settings([("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, admin).await;
    let operator = Client::new(app.admin_address.unwrap());
    let open = async || Scrape::of(&operator).await.value("estimator_http_connections");
    let before = open().await;
    let connections = [TcpStream::connect(app.address).await.unwrap(), TcpStream::connect(app.address).await.unwrap()];
    eventually("two more connections are counted", async || open().await == before + 2.0).await;
    drop(connections);
    eventually("the closed connections are not counted", async || open().await == before).await;
}

#[tokio::test]
async fn metrics_show_an_outage_in_errors_and_reconnects() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let before = Scrape::of(&app).await;
    redis.stop();
    problem(app.post_visit(&json!({ "user_id": "u1", "segment": "sports" })).await, 503, "store-unavailable").await;
    problem(app.post_lines("{\"user_id\":\"u1\",\"segment\":\"sports\"}\n".repeat(3)).await, 503, "store-unavailable")
        .await;
    let during = Scrape::of(&app).await;
    let failed = r#"estimator_visits_failed_total{reason="connect"}"#;
    assert_eq!(during.value(failed) - before.value(failed), 4.0);
    redis.start_again();
    eventually("a visit is recorded again", async || {
        app.post_visit(&json!({ "user_id": "u1", "segment": "sports" })).await.status() == 204
    })
    .await;

    let after = Scrape::of(&app).await;
    let rise = |sample: &str| after.value(sample) - before.value(sample);
    assert!(rise(r#"estimator_redis_errors_total{kind="connect"}"#) >= 1.0);
    assert!(rise(r#"estimator_visits_failed_total{reason="connect"}"#) >= 1.0);
    assert!(rise(r#"estimator_redis_connects_total{outcome="failed"}"#) >= 1.0);
    assert!(rise(r#"estimator_redis_connects_total{outcome="done"}"#) >= 1.0);
}

#[tokio::test]
async fn metrics_sample_segments_and_the_users_of_metered_ones() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d");
    for (user, segment) in [("u1", "sports"), ("u2", "sports"), ("u1", "news"), ("u1", "weather")] {
        let now = Timestamp::now();
        estimator.record(visit(user, segment, now), now).await.unwrap();
    }
    let metered = settings([("metered_segments", "sports, nobody")]);
    let app = TestApp::spawn_with(&redis, metered).await;
    // The first sample is taken when the service starts.
    eventually("the first sample is taken", async || Scrape::of(&app).await.find("estimator_redis_up") == Some(1.0))
        .await;
    eventually("its last count is taken", async || {
        Scrape::of(&app).await.find(r#"estimator_segment_users{segment="nobody"}"#) == Some(0.0)
    })
    .await;
    let scrape = Scrape::of(&app).await;
    assert_eq!(scrape.value("estimator_segments"), 3.0);
    assert_eq!(scrape.value(r#"estimator_segment_users{segment="sports"}"#), 2.0);
    assert_eq!(scrape.find(r#"estimator_segment_users{segment="news"}"#), None);
}

#[tokio::test]
async fn metrics_are_nan_without_redis() {
    let mut redis = Redis::start();
    redis.stop();
    let metered = settings([("metered_segments", "sports")]);
    let app = TestApp::spawn_with(&redis, metered).await;
    eventually("the first sample is taken", async || {
        Scrape::of(&app).await.find(r#"estimator_segment_users{segment="sports"}"#).is_some_and(f64::is_nan)
    })
    .await;
    let scrape = Scrape::of(&app).await;
    assert_eq!(scrape.value("estimator_redis_up"), 0.0);
    assert!(scrape.value("estimator_segments").is_nan());
}

#[tokio::test]
async fn metrics_count_prune_runs() {
    let redis = Redis::start();
    let settings = settings([("window", "1s"), ("prune_schedule", "* * * * * *")]);
    let started = Timestamp::now();
    let app = TestApp::spawn_with(&redis, settings).await;
    app.record("u1", "sports").await;
    eventually("the member is pruned", async || {
        Scrape::of(&app).await.value("estimator_prune_members_removed_total") == 1.0
    })
    .await;
    let scrape = Scrape::of(&app).await;
    assert!(scrape.value(r#"estimator_prune_runs_total{outcome="done"}"#) >= 1.0);
    assert!(scrape.value("estimator_prune_duration_seconds_count") >= 1.0);
    let last = scrape.value("estimator_prune_last_success_timestamp_seconds");
    assert!(started.as_score() <= last && last <= Timestamp::now().as_score(), "{last}");
}

/// An ACL forbids one segment, so the run fails after it has removed the members of another.
#[tokio::test]
async fn metrics_and_log_count_members_that_a_failed_prune_run_removed() {
    // More than a slice, so that the segment's removal is not shared with others.
    const MEMBERS: usize = 1_001;
    let redis = Redis::start();
    redis.record_data_set();
    for segment in ["permitted", "zone"] {
        let key = format!("segment:{segment}");
        let mut command = redis::cmd("ZADD");
        command.arg(&key);
        for n in 0..MEMBERS {
            command.arg(n).arg(format!("u{n}"));
        }
        command.exec(&mut redis.connection()).unwrap();
        redis.call::<()>(&["ZADD", "segments", "0", segment]);
    }
    let keys = ["~segment:permitted", "~segments", "~layout"];
    redis.call::<()>(&[&["ACL", "SETUSER", "me", "on", ">hunter2", "+@all"], &keys[..]].concat());
    let url = format!("{}?user=me&pass=hunter2", redis.url());
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--redis-url", &url, "--prune-schedule", "* * * * * *"]);

    eventually("a run has failed", async || {
        Scrape::of(&service).await.value(r#"estimator_prune_runs_total{outcome="failed"}"#) >= 1.0
    })
    .await;
    let removed = Scrape::of(&service).await.value("estimator_prune_members_removed_total");
    assert_eq!(removed, MEMBERS as f64);

    let log = service.terminate_for_log();
    let lines = log.iter().filter(|line| line.contains(r#""message":"pruned""#));
    let lines: Vec<serde_json::Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let [pruned] = &lines[..] else { panic!("{log:#?}") };
    assert_eq!((&pruned["members_removed"], &pruned["window"]), (&json!(MEMBERS), &json!("14d")));
    let time = |field: &str| Timestamp::from_rfc3339(pruned[field].as_str().unwrap()).unwrap();
    assert_eq!(time("cutoff"), Window::parse("14d").unwrap().cutoff(time("safe_now")));
}

#[tokio::test]
async fn metrics_show_the_memory_and_the_disk_of_redis() {
    let redis = Redis::start_with(&["--maxmemory", "100mb", "--appendonly", "yes", "--dbfilename", "blocked"]);
    // A snapshot can't replace a folder.
    let folder: (String, String) = redis.call(&["CONFIG", "GET", "dir"]);
    std::fs::create_dir(std::path::Path::new(&folder.1).join("blocked")).unwrap();
    redis.call::<()>(&["BGSAVE"]);
    eventually("the snapshot failed", async || {
        redis.call::<String>(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err")
    })
    .await;
    let app = TestApp::spawn(&redis).await;
    eventually("Redis is sampled", async || {
        Scrape::of(&app).await.value("estimator_redis_used_memory_bytes").is_finite()
    })
    .await;
    let scrape = Scrape::of(&app).await;
    assert!(scrape.value("estimator_redis_used_memory_bytes") > 100_000.0);
    assert_eq!(scrape.value("estimator_redis_max_memory_bytes"), 104_857_600.0);
    let ratio = scrape.value("estimator_redis_memory_ratio");
    assert!(0.001 < ratio && ratio < 0.5, "{ratio}");
    assert!(scrape.value("estimator_redis_append_only_file_bytes") >= 0.0);
    for (operation, expected) in [("append", 1.0), ("rewrite", 1.0), ("snapshot", 0.0)] {
        let name = format!("estimator_redis_persistence_ok{{operation=\"{operation}\"}}");
        assert_eq!(scrape.value(&name), expected, "{operation}");
    }
}

#[tokio::test]
async fn metrics_of_a_redis_without_limits_or_files_are_unknown() {
    let redis = Redis::start_with(&["--maxmemory", "0", "--appendonly", "no"]);
    let app = TestApp::spawn(&redis).await;
    eventually("Redis is sampled", async || {
        Scrape::of(&app).await.value("estimator_redis_used_memory_bytes").is_finite()
    })
    .await;
    let scrape = Scrape::of(&app).await;
    for name in ["max_memory_bytes", "memory_ratio", "append_only_file_bytes"] {
        assert!(scrape.value(&format!("estimator_redis_{name}")).is_nan(), "{name}");
    }
}

#[tokio::test]
async fn admin_listen_serves_probes_and_metrics_alone() {
    let redis = Redis::start();
    let admin = settings([("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, admin).await;
    let operator = Client::new(app.admin_address.unwrap());
    app.record("u1", "sports").await;
    for path in ["/livez", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(operator.status_of(path).await, 200, "{path}");
        problem(app.get(path).await, 404, "not-found").await;
    }
    problem(operator.get("/segments/sports/count").await, 404, "not-found").await;
    // It has no pages, also for a browser.
    let browser = operator.request("GET", "/nowhere").header("accept", "text/html,application/xhtml+xml");
    problem(browser.send().await.unwrap(), 404, "not-found").await;

    // The admin listener still answers while the API drains.
    let mut upload = Upload::begin(app.address).await;
    upload.send(b"{\"user_id\":\"u2\",\"segment\":\"sports\"}\n").await;
    eventually("the line is written", async || redis.call::<u64>(&["ZCARD", "segment:sports"]) == 2).await;
    app.begin_stop();
    eventually("readyz is 503", async || operator.status_of("/readyz").await == 503).await;
    assert_eq!(operator.status_of("/livez").await, 200);
    assert_eq!(operator.status_of("/healthz").await, 200);
    assert_eq!(upload.end().await.0, 200);
    app.ended().await.unwrap();
}
