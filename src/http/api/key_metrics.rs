//! Counters of keys, which come and go with the file of API keys.

use ::metrics::{counter, describe_counter, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::auth::KeySample;

/// Renders the counters of `keys` in Prometheus's text format. A recorder keeps each series that it has once seen, so each
/// call has one of its own: a removed key has no series.
pub fn render_keys(keys: Vec<KeySample>) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        describe_counter!("estimator_key_requests_total", "Requests with a valid token, by API key.");
        describe_counter!("estimator_key_visits_total", "Visits that Redis acknowledged, by API key.");
        describe_counter!(
            "estimator_key_problems_total",
            "Error responses to a valid token, by API key and problem type."
        );
        for KeySample { kind, name, requests, visits, problems } in keys {
            let key = || name.clone();
            counter!("estimator_key_requests_total", "kind" => kind, "key" => key()).absolute(requests);
            counter!("estimator_key_visits_total", "kind" => kind, "key" => key()).absolute(visits);
            for (slug, count) in problems {
                let metric = "estimator_key_problems_total";
                counter!(metric, "kind" => kind, "key" => key(), "type" => slug).absolute(count);
            }
        }
    });
    recorder.handle().render()
}
