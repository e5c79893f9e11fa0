//! The profile `observability` of compose: its services find each other and their files, and are for this machine alone.

use std::collections::BTreeSet;
use std::path::Path;

use rstest::rstest;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns the definition of a service in a compose file.
fn service(compose: &str, name: &str) -> String {
    let text = read(compose);
    let (_, rest) = text.split_once(&format!("\n  {name}:\n")).unwrap_or_else(|| panic!("{compose} has no {name}"));
    let lines = rest.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the mounts of files of the repository, as pairs of the file and its place in the container.
fn mounts(service: &str) -> Vec<(&str, &str)> {
    let mounts = service.lines().filter_map(|line| line.trim().strip_prefix("- ./")?.strip_suffix(":ro"));
    mounts.map(|mount| mount.split_once(':').unwrap()).collect()
}

#[rstest]
#[case::prometheus("prometheus", "9090")]
#[case::alertmanager("alertmanager", "9093")]
#[case::grafana("grafana", "3000")]
fn service_is_confined_and_published_on_this_machine_alone(#[case] name: &str, #[case] port: &str) {
    let service = service("docker-compose.yml", name);
    let published: Vec<_> =
        service.lines().map(str::trim).filter(|line| line.ends_with(&format!(":{port}\""))).collect();
    let [line] = published[..] else { panic!("{published:?}") };
    assert!(line.starts_with(&format!("- \"127.0.0.1:${{{}_PORT:-", name.to_uppercase())), "{line}");
    for line in [
        "profiles: [observability]",
        "read_only: true",
        "cap_drop: [ALL]",
        "security_opt: [\"no-new-privileges:true\"]",
        "healthcheck:",
        "user: ",
    ] {
        assert!(service.contains(&format!("\n    {line}")) || service.starts_with(&format!("    {line}")), "{line}");
    }
    for (file, _) in mounts(&service) {
        assert!(root().join(file).exists(), "{file}");
    }
}

#[test]
fn images_that_compose_runs_are_documented() {
    let (compose, page) = (read("docker-compose.yml"), read("docs/docker.md"));
    let images = compose.lines().filter_map(|line| line.trim().strip_prefix("image: ${")?.split_once(":-"));
    let names: BTreeSet<_> = images.map(|(name, _)| name).collect();
    assert!(names.len() > 3, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn prometheus_sends_alerts_to_alertmanager_and_links_to_a_page_that_it_serves() {
    let (config, service) = (read("deploy/prometheus/prometheus.yml"), service("docker-compose.yml", "prometheus"));
    assert!(config.contains("targets: [\"alertmanager:9093\"]"), "{config}");
    assert!(config.contains("\n    segment_estimator_runbook: ${RUNBOOK}\n"), "{config}");
    assert!(config.contains("- action: labeldrop\n      regex: segment_estimator_runbook\n"), "{config}");
    assert!(service.contains("RUNBOOK: ${RUNBOOK:-http://localhost:${PROMETHEUS_PORT:-9091}/user/alerts.md}\n"));
    assert!(service.contains("- --web.user-assets=/docs\n"), "{service}");
    assert!(mounts(&service).contains(&("docs", "/docs")), "{service}");
}

/// A file that is provisioned has no dialog in which somebody chooses the data source.
#[rstest]
#[case::of_metrics("docker-compose.yml", "datasources.yml", "deploy/grafana/segment-estimator.json")]
#[case::of_segments("docker-compose-infinity.yml", "infinity.yml", "deploy/grafana/segments.json")]
fn grafana_gets_the_dashboard_and_its_data_source(
    #[case] compose: &str,
    #[case] source: &str,
    #[case] dashboard: &str,
) {
    let folder = "grafana/provisioning";
    let mounted = service(compose, "grafana");
    let mounted = mounts(&mounted);
    let provider = read(&format!("deploy/{folder}/dashboards/dashboards.yml"));
    let path = provider.lines().find_map(|line| line.trim().strip_prefix("path: ")).unwrap();
    let name = dashboard.strip_prefix("deploy/grafana/").unwrap();
    assert!(mounted.contains(&(dashboard, &format!("{path}/{name}"))), "{mounted:?}");
    let file = format!("deploy/{folder}/datasources/{source}");
    assert!(mounted.contains(&(&file, &format!("/etc/{folder}/datasources/{source}"))), "{mounted:?}");

    let (source, text) = (read(&file), read(dashboard));
    assert!(!text.contains("__inputs") && !text.contains("${DS_"), "{dashboard}");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let (variables, panels) = (&dashboard["templating"]["list"], &dashboard["panels"]);
    // Its choices are the data sources of this type.
    let variable = &variables[0];
    assert_eq!((&variable["name"], &variable["type"]), (&"datasource".into(), &"datasource".into()));
    let kind = variable["query"].as_str().unwrap();
    assert!(source.contains(&format!("\n    type: {kind}\n    uid: ")), "{source}");
    let users = panels.as_array().unwrap().iter().chain(&variables.as_array().unwrap()[1..]);
    for user in users.filter(|user| user["type"] != "row") {
        assert_eq!(user["datasource"], serde_json::json!({ "type": kind, "uid": "${datasource}" }), "{user}");
    }
}
