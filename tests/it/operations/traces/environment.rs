//! Traces with OpenTelemetry's variables in the environment.

use rstest::rstest;

use super::{CALLER, TRACE, post};
use crate::helpers::{Collector, Service, binary, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_is_off_if_the_environment_disables_it_and_its_endpoint_is_taken() {
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", collector.address);
    let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_SDK_DISABLED", "true")];
    let service = Service::start_with_environment(folder.path(), &["--otlp-endpoint", &endpoint], &disabled);
    let response = post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await;
    assert!(response.headers().get("traceparent").is_none());
    assert!(service.terminate().success());
    assert!(collector.spans().is_empty());

    let service = Service::start_with_environment(folder.path(), &[], &disabled[..1]);
    assert_eq!(post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await.status(), 204);
    assert!(service.terminate().success());
    assert!(!collector.spans().is_empty());
}

#[rstest]
#[case::nothing_is_set(&[], "segment-estimator", None)]
#[case::service_name(&[("OTEL_SERVICE_NAME", "counts")], "counts", None)]
#[case::name_among_attributes(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=counts,team=ads")], "counts", None)]
#[case::both_names(
    &[("OTEL_SERVICE_NAME", "counts"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,service.instance.id=pod-7")],
    "counts",
    Some("pod-7")
)]
#[case::empty(&[("OTEL_SERVICE_NAME", ""), ("OTEL_RESOURCE_ATTRIBUTES", "")], "segment-estimator", None)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trace_has_the_service_name_and_the_instance_of_the_environment(
    #[case] environment: &[(&str, &str)],
    #[case] name: &str,
    #[case] instance: Option<&str>,
) {
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", collector.address);
    let service = Service::start_with_environment(folder.path(), &["--otlp-endpoint", &endpoint], environment);
    assert_eq!(post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await.status(), 204);
    assert!(service.terminate().success());

    assert_eq!(collector.attribute("service.name").as_deref(), Some(name));
    assert_eq!(collector.attribute("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
    let found = collector.attribute("service.instance.id").unwrap();
    assert!(instance.map_or(found.len() == 36, |instance| found == instance), "{found}");
    let is_given = environment.iter().any(|(_, value)| value.contains("team=ads"));
    assert_eq!(collector.attribute("team").is_some(), is_given);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn invalid_variables_are_ignored_with_a_warning() {
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", collector.address);
    // Other commands don't mind.
    let invalid = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@collector:4318")];
    let output = run(binary(folder.path()).envs(invalid).args(["token", "--name", "uss", "--scope", "segments:read"]));
    assert!(output.status.success(), "{output:?}");

    let service = Service::start_with_environment(folder.path(), &[], &invalid);
    assert_eq!(post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await.status(), 204);
    let log = service.terminate_for_log();
    let lines: Vec<_> = log.iter().filter(|line| line.contains("OTEL_EXPORTER_OTLP_ENDPOINT is ignored")).collect();
    assert!(lines.len() == 1 && lines[0].contains("\"WARN\"") && !lines[0].contains("hunter2"), "{log:#?}");

    let invalid = [("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615"), ("OTEL_BSP_SCHEDULE_DELAY", "never")];
    let service = Service::start_with_environment(folder.path(), &["--otlp-endpoint", &endpoint], &invalid);
    assert_eq!(post(&service, "u1", &format!("00-{TRACE}-{CALLER}-01")).await.status(), 204);
    let log = service.terminate_for_log();
    for (name, _) in invalid {
        assert!(log.iter().any(|line| line.contains(&format!("{name} is ignored"))), "{name}: {log:#?}");
    }
    assert!(!collector.spans().is_empty(), "the others stay in force");
}
