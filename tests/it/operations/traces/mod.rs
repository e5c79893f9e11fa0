//! Traces of requests, as a collector receives them.

mod environment;

use std::path::Path;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use crate::helpers::{Collector, Proxy, Redis, Service, eventually, problem};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn start(folder: &Path, collector: &Collector, arguments: &[&str]) -> Service {
    let endpoint = format!("http://{}", collector.address);
    let arguments = [&["--otlp-endpoint", &endpoint], arguments].concat();
    Service::start(folder, &arguments)
}

/// Posts a visit as a part of this trace.
async fn post(service: &Service, user: &str, traceparent: &str) -> reqwest::Response {
    let visit = json!({ "user_id": user, "segment": "secret-segment" });
    service.request("POST", "/segments").header("traceparent", traceparent).json(&visit).send().await.unwrap()
}

fn hex(id: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(id)
}

fn text(span: &Span, key: &str) -> String {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    let value = attribute.unwrap_or_else(|| panic!("{key} is not in {span:#?}")).value.clone().unwrap().value.unwrap();
    match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn has(span: &Span, key: &str) -> bool {
    span.attributes.iter().any(|attribute| attribute.key == key)
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

// The collector needs a thread while the test waits for the end of the service.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_of_a_request_includes_group_commit_and_redis() {
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path(), &collector, &[]);
    // The first visit may read the layout of the data set, too.
    assert_eq!(post(&service, "u0", &format!("00-{TRACE}-{CALLER}-00")).await.status(), 204);
    let response = post(&service, "secret-user", &format!("00-{TRACE}-{CALLER}-01")).await;
    assert_eq!(response.status(), 204);
    let answered = response.headers()["traceparent"].to_str().unwrap().to_owned();
    let port = service.address.port().to_string();
    assert!(service.terminate().success());

    let spans: Vec<_> = collector.spans().into_iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let [request] = named(&spans, "POST /segments")[..] else { panic!("{spans:#?}") };
    let [wait] = named(&spans, "wait for batch")[..] else { panic!("{spans:#?}") };
    let [batch] = named(&spans, "batch")[..] else { panic!("{spans:#?}") };
    let [redis] = named(&spans, "PIPELINE")[..] else { panic!("{spans:#?}") };
    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!(wait.parent_span_id, request.span_id);
    assert_eq!(batch.parent_span_id, wait.span_id);
    assert_eq!(redis.parent_span_id, batch.span_id);
    assert_eq!(answered, format!("00-{TRACE}-{}-01", hex(&request.span_id)));

    assert_eq!(request.kind(), SpanKind::Server);
    assert_eq!(text(request, "http.route"), "/segments");
    assert_eq!(text(request, "http.response.status_code"), "204");
    for (key, value) in [
        ("http.request.method", "POST"),
        ("url.scheme", "http"),
        ("url.path", "/segments"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
        ("network.protocol.version", "1.1"),
    ] {
        assert_eq!(text(request, key), value, "{key}");
    }
    assert_eq!(redis.kind(), SpanKind::Client);
    assert_eq!(text(redis, "db.system.name"), "redis");
    assert_eq!(text(redis, "db.operation.name"), "PIPELINE");
    assert_eq!(text(redis, "db.namespace"), "0");
    assert!(text(redis, "db.operation.batch.size").parse::<u32>().unwrap() > 1);
    // It is a private Redis.
    assert!(text(redis, "server.address").ends_with("redis.sock") && !has(redis, "server.port"));
    let all = format!("{spans:?}");
    assert!(!all.contains("secret"), "neither users nor segments are in traces: {all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_of_a_shared_batch_is_linked_to_all_requests() {
    let (collector, redis) = (Collector::start().await, Redis::start());
    let proxy = Proxy::start(&redis).await;
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path(), &collector, &["--redis-url", &proxy.url(), "--redis-timeout", "1h"]);
    assert_eq!(post(&service, "u0", &format!("00-{TRACE}-{CALLER}-00")).await.status(), 204);

    proxy.hold_replies();
    let trace = |number: u8| format!("00-{}-{CALLER}-01", hex(&[number; 16]));
    let is_written = |user: &str| redis.call::<Option<f64>>(&["ZSCORE", "segment:secret-segment", user]).is_some();
    let first = async { post(&service, "u1", &trace(1)).await };
    let second = async {
        eventually("the first visit is written", async || is_written("u1")).await;
        post(&service, "u2", &trace(2)).await
    };
    let shared = async {
        eventually("the second visit is written", async || is_written("u2")).await;
        let (third, fourth) = (trace(3), trace(4));
        let others = async { tokio::join!(post(&service, "u3", &third), post(&service, "u4", &fourth)) };
        let release = async {
            eventually("two requests wait", async || {
                let metrics = service.get("/metrics").await.text().await.unwrap();
                metrics.contains("\nestimator_round_waiting{kind=\"visits\"} 2\n")
            })
            .await;
            proxy.release_replies();
        };
        tokio::join!(others, release).0
    };
    let (first, second, (third, fourth)) = tokio::join!(first, second, shared);
    assert!([first, second, third, fourth].iter().all(|response| response.status() == 204));
    assert!(service.terminate().success());

    let spans = collector.spans();
    let sent = named(&spans, "PIPELINE")[0];
    let address = format!("redis://{}:{}", text(sent, "server.address"), text(sent, "server.port"));
    assert_eq!(address, proxy.url());
    let batches = named(&spans, "batch");
    let [shared] = batches.iter().filter(|batch| !batch.links.is_empty()).collect::<Vec<_>>()[..] else {
        panic!("{batches:#?}")
    };
    let mut traces = vec![hex(&shared.trace_id)];
    traces.extend(shared.links.iter().map(|link| hex(&link.trace_id)));
    traces.sort();
    assert_eq!(traces, [hex(&[3; 16]), hex(&[4; 16])]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_follows_the_callers_decision_and_otherwise_the_ratio() {
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path(), &collector, &["--trace-ratio", "0"]);
    let unsampled = post(&service, "u1", &format!("00-{TRACE}-{CALLER}-00")).await;
    assert_eq!(unsampled.status(), 204);
    assert!(unsampled.headers().get("traceparent").is_none(), "the response names a trace that is not recorded");
    for nonsense in ["", "nonsense", "00-00000000000000000000000000000000-0000000000000000-01"] {
        assert_eq!(post(&service, "u1", nonsense).await.status(), 204);
    }
    let sampled = post(&service, "u1", &format!("00-{}-{CALLER}-01", hex(&[9; 16]))).await;
    assert_eq!(sampled.status(), 204);
    assert!(service.terminate().success());
    let spans = collector.spans();
    assert!(!spans.is_empty() && spans.iter().all(|span| span.trace_id == [9; 16]), "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_names_the_kind_of_a_failure() {
    let (collector, mut redis) = (Collector::start().await, Redis::start());
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path(), &collector, &["--redis-url", &redis.url()]);
    redis.stop();
    let response = post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await;
    problem(response, 503, "store-unavailable").await;
    assert!(service.terminate().success());
    let spans: Vec<_> = collector.spans().into_iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    assert_eq!(text(named(&spans, "POST /segments")[0], "error.type"), "store-unavailable");
    let failed = named(&spans, "PIPELINE")[0];
    assert_eq!(text(failed, "error.type"), "connect");
    assert!(spans.iter().filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2)).count() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_names_the_kind_of_a_refusal() {
    let (collector, redis) = (Collector::start().await, Redis::start());
    redis.record_data_set();
    redis.call::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path(), &collector, &["--redis-url", &redis.url()]);
    let response = post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await;
    problem(response, 503, "store-unavailable").await;
    assert!(service.terminate().success());
    let spans: Vec<_> = collector.spans().into_iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let [.., refused] = named(&spans, "PIPELINE")[..] else { panic!("{spans:#?}") };
    assert_eq!(text(refused, "error.type"), "no_replicas");
    assert_eq!(text(refused, "db.response.status_code"), "NOREPLICAS");
    assert_eq!(refused.status.as_ref().map(|status| status.code), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_is_off_without_a_collector_and_logs_an_unreachable_one_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let response = post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await;
    assert!(response.headers().get("traceparent").is_none());
    assert!(service.terminate().success());

    // Nothing listens on port 9.
    let service = Service::start(folder.path(), &["--otlp-endpoint", "http://127.0.0.1:9"]);
    for _ in 0..10 {
        assert_eq!(post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await.status(), 204);
    }
    let log = service.terminate_for_log();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("failed to send traces")).collect();
    assert_eq!(lines.len(), 1, "{log:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_of_a_request_has_the_conventional_attributes_and_nothing_of_its_path() {
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path(), &collector, &["--admin-listen", "127.0.0.1:0"]);
    let client = reqwest::Client::new();
    let send = async |method: &str, path: &str, host: Option<&str>| {
        let request = client.request(method.parse().unwrap(), format!("http://{}{path}", service.address));
        let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).header("user-agent", "probe/1");
        let request = host.into_iter().fold(request, |request, host| request.header("host", host));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("HEAD", "/segments/secret-name/count?window=7d", None).await, 200);
    assert_eq!(send("GET", "/secret-path?secret=1", Some("localhost")).await, 404);
    assert_eq!(send("BREW", "/segments", None).await, 405);
    assert_eq!(send("GET", "/segments", Some("secret.example:80")).await, 421);
    assert!(service.terminate().success());

    let spans: Vec<_> = collector.spans().into_iter().filter(|span| span.kind() == SpanKind::Server).collect();
    let one = |name: &str, status: &str| {
        let named = named(&spans, name);
        *named
            .iter()
            .find(|span| text(span, "http.response.status_code") == status)
            .unwrap_or_else(|| panic!("{spans:#?}"))
    };
    let matched = one("HEAD /segments/{name}/count", "200");
    for (key, value) in [
        ("http.request.method", "HEAD"),
        ("http.route", "/segments/{name}/count"),
        ("url.path", "/segments/{name}/count"),
        ("url.query", "REDACTED"),
        ("user_agent.original", "probe/1"),
    ] {
        assert_eq!(text(matched, key), value, "{key}");
    }
    assert!(
        !has(matched, "http.request.method_original") && !has(matched, "client.address") && !has(matched, "error.type")
    );
    let unmatched = one("GET", "404");
    assert_eq!((text(unmatched, "url.path"), has(unmatched, "http.route")), ("REDACTED".to_owned(), false));
    assert_eq!(
        (text(unmatched, "server.address"), text(unmatched, "server.port")),
        ("localhost".to_owned(), "80".to_owned())
    );
    let unknown = one("HTTP", "405");
    assert_eq!(text(unknown, "http.request.method"), "_OTHER");
    assert_eq!(text(unknown, "http.request.method_original"), "BREW");
    assert!(!has(unknown, "url.query"));
    one("GET", "421");
    let all = format!("{spans:?}").replace("secret.example", "");
    assert!(!all.contains("secret"), "{all}");
}
