//! Counters of keys, which come and go with the file of API keys.

use ::metrics::{counter, describe_counter, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

/// The counters of a key.
#[derive(Debug, Clone)]
pub struct KeyCounters<'a> {
    /// `api` or `jwt`.
    pub kind: &'static str,
    /// The name of an API key.
    pub key: &'a str,
    /// Requests with the key.
    pub requests: u64,
    /// Visits of these requests that Redis acknowledged.
    pub visits: u64,
    /// Error responses to these requests, by type.
    pub problems: &'a [(&'static str, u64)],
}

/// Renders the counters of `keys` in Prometheus's text format. A recorder keeps each series that it has once seen, so each
/// call has one of its own: a removed key has no series.
pub fn render_keys<'a>(keys: impl IntoIterator<Item = KeyCounters<'a>>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        describe_counter!("estimator_key_requests_total", "Requests with a valid token, by API key.");
        describe_counter!("estimator_key_visits_total", "Visits that Redis acknowledged, by API key.");
        describe_counter!(
            "estimator_key_problems_total",
            "Error responses to a valid token, by API key and problem type."
        );
        for KeyCounters { kind, key, requests, visits, problems } in keys {
            let key = || key.to_owned();
            counter!("estimator_key_requests_total", "kind" => kind, "key" => key()).absolute(requests);
            counter!("estimator_key_visits_total", "kind" => kind, "key" => key()).absolute(visits);
            for (slug, count) in problems {
                let name = "estimator_key_problems_total";
                counter!(name, "kind" => kind, "key" => key(), "type" => *slug).absolute(*count);
            }
        }
    });
    recorder.handle().render()
}
