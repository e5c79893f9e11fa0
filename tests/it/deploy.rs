//! What is under `deploy/` asks for metrics and settings that there are, and explains its alerts. `make check-deploy` does what needs
//! promtool.

use std::collections::BTreeSet;
use std::path::Path;

use segment_estimator::settings::Layer;

const DASHBOARD: &str = "deploy/grafana/segment-estimator.json";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
const ALERTS_TEST: &str = "deploy/prometheus/alerts_test.yml";
const PAGE: &str = "docs/operating.md";

/// What `/metrics` gives. Histograms are listed by the name that their series begin with.
const METRICS: [&str; 29] = [
    "estimator_auth_failures_total",
    "estimator_build_info",
    "estimator_http_connections",
    "estimator_http_problems_total",
    "estimator_http_request_duration_seconds",
    "estimator_http_requests_in_flight",
    "estimator_http_requests_total",
    "estimator_prune_duration_seconds",
    "estimator_prune_last_success_timestamp_seconds",
    "estimator_prune_members_removed_total",
    "estimator_prune_runs_total",
    "estimator_redis_connects_total",
    "estimator_redis_duration_seconds",
    "estimator_redis_errors_total",
    "estimator_redis_up",
    "estimator_round_size",
    "estimator_round_waiting",
    "estimator_segment_users",
    "estimator_segments",
    "estimator_visits_accepted_total",
    "estimator_visits_expired_total",
    "estimator_visits_failed_total",
    "estimator_visits_rejected_total",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
];

/// Settings that the manifests set and that are still to come.
const COMING: [&str; 3] = ["admin_listen", "api_keys_file", "redis_password_file"];

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics that `text` names. The series of a histogram are its own.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let names = words.filter(|word| word.starts_with("estimator_") || word.starts_with("process_"));
    names
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect()
}

/// The questions of a dashboard's panels.
fn questions(dashboard: &serde_json::Value) -> String {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The alerts that `text`, which is YAML, has after `key`.
fn alerts_after<'a>(text: &'a str, key: &str) -> BTreeSet<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    assert_eq!(metrics_in(&questions(&dashboard)), BTreeSet::from(METRICS));
}

#[test]
fn the_alerts_and_their_page_name_metrics_that_there_are() {
    for file in [ALERTS, PAGE] {
        let text = read(file);
        let unknown: Vec<_> = metrics_in(&text).into_iter().filter(|name| !METRICS.contains(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

#[test]
fn no_two_panels_of_the_dashboard_overlap() {
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{} is wider than the page", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{} lies on another panel", panel["title"]);
        }
    }
}

#[test]
fn every_alert_is_tested_and_explained() {
    let (alerts, tests, page) = (read(ALERTS), read(ALERTS_TEST), read(PAGE));
    let names = alerts_after(&alerts, "- alert:");
    assert!(names.len() > 10, "{names:?}");

    // A case of a test is the alert's name, the time, and `exp_alerts: []` or a list.
    let cases: Vec<_> = tests.split("- alertname:").skip(1).map(|case| case.split_once('\n').unwrap()).collect();
    let tested = |is_silent| {
        let cases = cases.iter().filter(|(_, case)| case.contains("exp_alerts: []") == is_silent);
        cases.map(|(name, _)| name.trim()).collect::<BTreeSet<_>>()
    };
    assert_eq!(tested(true), names, "kept silent");
    assert_eq!(tested(false), names, "fired");

    assert_eq!(alerts_after(&page, "### SegmentEstimator").len(), names.len());
    for name in names {
        assert!(page.contains(&format!("\n### {name}\n")), "{PAGE} doesn't explain {name}");
        let link = format!("runbook_url: {PAGE}#{}\n", name.to_lowercase());
        assert_eq!(alerts.matches(&link).count(), 1, "{name} has no link");
    }
}

#[test]
fn the_manifests_set_settings_that_there_are() {
    let known = Layer::names();
    for file in ["deploy/kubernetes/base/kustomization.yaml", "deploy/kubernetes/example/kustomization.yaml"] {
        let text = read(file);
        let names: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("- ESTIMATOR_")).collect();
        assert!(!names.is_empty(), "{file}");
        for line in names {
            let name = line.split('=').next().unwrap().to_lowercase();
            assert!(known.contains(&name) || COMING.contains(&name.as_str()), "{file}: {name} is no setting");
        }
    }
}
