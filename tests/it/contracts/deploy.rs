//! The files under `deploy/` name existing metrics and settings, and the alerts are explained. `make check-deploy` does
//! the checks that need promtool.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rstest::rstest;
use segment_estimator::config::SETTINGS;
use segment_estimator::domain::Timestamp;
use segment_estimator::estimator::history::Interval;
use segment_estimator::store::{NamedSample, Sample};

use crate::api::api_keys::make_key;
use crate::helpers::{Client, Redis, TestApp, eventually, problem, segment, settings};

const DASHBOARD: &str = "deploy/grafana/segment-estimator.json";
const SEGMENTS_DASHBOARD: &str = "deploy/grafana/segments.json";
const ALERTS: &str = "deploy/prometheus/alerts.yml";
const ALERTS_TEST: &str = "deploy/prometheus/alerts_test.yml";
const SEGMENT_ALERTS: &str = "deploy/prometheus/segment_alerts.yml";
const SEGMENT_ALERTS_TEST: &str = "deploy/prometheus/segment_alerts_test.yml";
const METRICS: &str = "docs/metrics.md";
const PAGE: &str = "docs/alerts.md";
const OPERATING: &str = "docs/operating.md";

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns `/metrics` of a service that has all metrics.
async fn scrape() -> String {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let keys = folder.path().join("keys.toml");
    let key = make_key(&keys, "uss", "segments:write");
    let settings = settings([
        ("admin_listen", "127.0.0.1:0"),
        ("api_keys_file", &keys.display().to_string()),
        ("metered_segments", "sports"),
    ]);
    let app = TestApp::spawn_with(&redis, settings).await;
    problem(app.get("/segments/sports/count").await, 401, "unauthorized").await;
    let refused = app.request("GET", "/segments/sports/count").bearer_auth(key).send().await.unwrap();
    problem(refused, 403, "insufficient-scope").await;
    let operator = Client::new(app.admin_address.unwrap());
    let scrape = async || operator.get("/metrics").await.text().await.unwrap();
    eventually("a segment is sampled", async || scrape().await.contains("\nestimator_segment_users{")).await;
    scrape().await
}

/// Returns the names of all metrics. The name of a histogram is the prefix of its series.
async fn metrics() -> BTreeSet<String> {
    let text = scrape().await;
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).map(str::to_owned).collect()
}

/// Returns the names of the labels of a metric's series, as the page lists them.
fn labels_in(scrape: &str, name: &str) -> String {
    let series = scrape.lines().filter_map(|line| line.strip_prefix(name)?.split_once('{'));
    let series = series.filter(|(suffix, _)| ["", "_bucket", "_sum", "_count"].contains(suffix));
    let names = series.flat_map(|(_, labels)| labels.split("\",").filter_map(|label| label.split_once("=\"")));
    let mut found = Vec::new();
    for (name, _) in names {
        if name != "le" && !found.contains(&name) {
            found.push(name);
        }
    }
    found.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn metrics_page_has_every_metric_with_its_type_labels_and_help() {
    let (text, page) = (scrape().await, read(METRICS));
    let mut expected: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            let help =
                text.lines().find_map(|line| line.strip_prefix("# HELP ")?.strip_prefix(name)?.strip_prefix(' '));
            let help = help.unwrap_or_else(|| panic!("{name} has no help"));
            Some(format!("| `{name}` | {kind} | {} | {help} |", labels_in(&text, name)))
        })
        .collect();
    let mut rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    expected.sort();
    rows.sort();
    assert_eq!(rows, expected, "\n{}", expected.join("\n"));
}

/// Returns the metrics that `text` names. The series of a histogram count as the histogram.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let names = words.filter(|word| word.starts_with("estimator_") || word.starts_with("process_"));
    names
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect()
}

/// Returns the expressions of a dashboard's panels.
fn expressions(dashboard: &serde_json::Value) -> String {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets.map(|target| target["expr"].as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Returns the names that follow `key` in the lines of `text`.
fn alerts_after<'a>(text: &'a str, key: &str) -> BTreeSet<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

#[tokio::test]
async fn dashboard_shows_every_metric_and_alerts_and_pages_name_existing_ones() {
    let metrics = metrics().await;
    let dashboard = expressions(&serde_json::from_str(&read(DASHBOARD)).unwrap());
    let texts = [ALERTS, SEGMENT_ALERTS, PAGE, OPERATING].map(|file| (file, read(file)));
    for (file, text) in [(DASHBOARD, dashboard.clone())].into_iter().chain(texts) {
        let unknown: Vec<_> = metrics_in(&text).into_iter().filter(|name| !metrics.contains(*name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
    let shown = metrics_in(&dashboard);
    let ours = metrics.iter().filter(|name| name.starts_with("estimator_"));
    let hidden: Vec<_> = ours.filter(|name| !shown.contains(name.as_str())).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

/// Returns the queries of a dashboard of Infinity: those of its panels and of its variables.
fn infinity_queries(dashboard: &serde_json::Value) -> Vec<&serde_json::Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    targets.chain(variables.filter_map(|variable| variable["query"].get("infinityQuery"))).collect()
}

#[tokio::test]
async fn segments_dashboard_reads_members_that_the_api_answers() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let (store, tick) = (redis.store(), Interval::DEFAULT.tick(Timestamp::now()));
    let sample = |days: u64| NamedSample {
        segment: segment("sports").into_owned(),
        sample: Sample { at: tick - Duration::from_secs(days * 86_400), count: 1.into() },
    };
    store.add_samples(&[sample(7), sample(1), sample(0)]).await.unwrap();
    store.update_changes(&[(&segment("sports"), tick)], redis.estimator("14d").window()).await.unwrap();

    let dashboard: serde_json::Value = serde_json::from_str(&read(SEGMENTS_DASHBOARD)).unwrap();
    let queries = infinity_queries(&dashboard);
    assert_eq!(queries.len(), 6);
    for query in queries {
        let url = query["url"].as_str().unwrap();
        let filled = url.replace("${segment:percentencode}", "sports");
        let filled = filled.replace("${__from:date:iso}", &sample(14).sample.at.to_string());
        let filled = filled.replace("${__to:date:iso}", &tick.to_string());
        let answer: serde_json::Value = app.get(&filled).await.json().await.unwrap();
        let rows = answer[query["root_selector"].as_str().unwrap()].as_array().unwrap();
        let last = rows.last().unwrap_or_else(|| panic!("{url}: {answer}"));
        for column in query["columns"].as_array().unwrap() {
            let selector = column["selector"].as_str().unwrap();
            let value = selector.split('.').fold(last, |value, member| &value[member]);
            let is_of_type = match column["type"].as_str().unwrap() {
                "string" => value.is_string(),
                "number" => value.is_number(),
                "timestamp" => value.as_str().is_some_and(|time| Timestamp::from_rfc3339(time).is_some()),
                other => panic!("{url}: {other} is no type of a column"),
            };
            assert!(is_of_type, "{url}: {selector} is {value}");
        }
    }
}

#[rstest]
#[case::of_metrics(DASHBOARD)]
#[case::of_segments(SEGMENTS_DASHBOARD)]
fn dashboard_panels_have_distinct_ids_and_places(#[case] file: &str) {
    let dashboard: serde_json::Value = serde_json::from_str(&read(file)).unwrap();
    let (mut cells, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{} has the id of another panel", panel["title"]);
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
        assert!(x + w <= 24, "{} is wider than the page", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{} lies on another panel", panel["title"]);
        }
    }
}

#[rstest]
#[case::of_operators(ALERTS, ALERTS_TEST, "SegmentEstimator", 27)]
#[case::of_analysts(SEGMENT_ALERTS, SEGMENT_ALERTS_TEST, "Segment", 2)]
fn alerts_are_all_tested_and_explained(
    #[case] alerts: &str,
    #[case] tests: &str,
    #[case] prefix: &str,
    #[case] number: usize,
) {
    let (alerts, tests, page) = (read(alerts), read(tests), read(PAGE));
    let names = alerts_after(&alerts, "- alert:");
    assert_eq!(names.len(), number, "{names:?}");

    // A test case has the alert's name, the time, and `exp_alerts: []` or a list.
    // An alias repeats a list.
    let cases: Vec<_> = tests.split("- alertname:").skip(1).map(|case| case.split_once('\n').unwrap()).collect();
    let tested = |is_silent| {
        let cases = cases.iter().filter(|(_, case)| case.contains("exp_alerts: []") == is_silent);
        cases.map(|(name, _)| name.trim()).collect::<BTreeSet<_>>()
    };
    assert_eq!(tested(true), names, "alerts with a test in which they are silent");
    assert_eq!(tested(false), names, "alerts with a test in which they fire");

    for name in names {
        assert!(name.starts_with(prefix), "{name}");
        assert!(page.contains(&format!("\n### {name}\n")), "{PAGE} doesn't explain {name}");
        let page = format!(r#"{{{{ or $externalLabels.segment_estimator_runbook "{PAGE}" }}}}"#);
        let link = format!("runbook_url: '{page}#{}'\n", name.to_lowercase());
        assert_eq!(alerts.matches(&link).count(), 1, "{name} has no link");
    }
}

#[test]
fn page_explains_existing_alerts_only() {
    let (page, all) = (read(PAGE), [ALERTS, SEGMENT_ALERTS].map(read).concat());
    let explained: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix("### Segment")).collect();
    let existing = alerts_after(&all, "- alert: Segment");
    assert_eq!(explained, existing);
}

#[test]
fn manifests_set_existing_settings() {
    let known: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    for file in ["deploy/kubernetes/base/kustomization.yaml", "deploy/kubernetes/example/kustomization.yaml"] {
        let text = read(file);
        let names: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("- ESTIMATOR_")).collect();
        assert!(!names.is_empty(), "{file}");
        for line in names {
            let name = line.split('=').next().unwrap().to_lowercase();
            assert!(known.contains(&&*name), "{file}: {name} is not a setting");
        }
    }
}

#[test]
fn prometheus_discovers_every_instance_of_compose() {
    let config = read("deploy/prometheus/prometheus.yml");
    assert!(
        config.contains("dns_sd_configs:\n      - names: [estimator]\n        type: A\n        port: 8081\n"),
        "{config}"
    );
}

#[test]
fn listen_addresses_of_image_compose_and_manifests_are_dual_stack() {
    let files = ["Dockerfile", "docker-compose.yml", "deploy/kubernetes/base/kustomization.yaml"];
    for file in files {
        let text = read(file);
        let addresses = text
            .split("LISTEN")
            .skip(1)
            .filter_map(|rest| rest.trim_start_matches(['=', ':', ' ', '"']).lines().next());
        let addresses: Vec<_> = addresses.filter(|rest| rest.contains(":808")).collect();
        assert!(!addresses.is_empty(), "{file}");
        assert!(addresses.iter().all(|address| address.starts_with("[::]:")), "{file}: {addresses:?}");
    }
}
