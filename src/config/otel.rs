//! OpenTelemetry's own [variables](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), which
//! set `otlp_endpoint` or unset it. The exporter reads the others.
//!
//! A platform may set them for all its programs, so an invalid one is ignored with a warning.

use super::settings::RawSettings;
use super::source::Source;
use crate::telemetry::{BatchLimits, OtlpEndpoint};

const SETTING: &str = "otlp_endpoint";

/// Adds the endpoint of the variables below all other `layers`, or removes all endpoints if the variables disable traces.
pub(super) fn apply(
    layers: Vec<(Source, RawSettings)>,
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<(Source, RawSettings)> {
    let is = |name, value: &str| variable(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
    if is("OTEL_SDK_DISABLED", "true") {
        return layers.into_iter().map(|(source, raw)| (source, without_endpoint(&raw))).collect();
    }
    let endpoint = endpoint(&variable).filter(|(_, url)| OtlpEndpoint::parse(url).is_ok());
    let layer = endpoint.map(|(name, url)| (Source::OpenTelemetry(name), raw([(SETTING, url.as_str())].into_iter())));
    layer.into_iter().chain(layers).collect()
}

/// Returns the endpoint of the variables, valid or not, with the name of its variable.
fn endpoint(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    const OF_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const OF_ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let set = |name| variable(name).filter(|text| !text.is_empty());
    let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let is_off = |name, value: &str| set(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
    // The port of gRPC speaks no HTTP/1.1.
    if is_off("OTEL_TRACES_EXPORTER", "none") || protocol.is_some_and(|protocol| protocol == "grpc") {
        return None;
    }
    let (name, url) = match set(OF_TRACES) {
        Some(url) => (OF_TRACES, url),
        None => (OF_ALL, format!("{}/v1/traces", set(OF_ALL)?.trim_end_matches('/'))),
    };
    Some((name, url))
}

/// The variables of the environment of this process, as far as traces need them.
#[derive(Debug, PartialEq, Eq)]
pub struct OtelVariables {
    /// One line for each ignored variable.
    pub warnings: Vec<String>,
    /// The limits for the exporter instead of those of the variables, if one of these is invalid.
    pub batch_limits: Option<BatchLimits>,
}

impl OtelVariables {
    /// Reads the variables.
    #[must_use]
    pub fn read() -> Self {
        Self::of(|name| std::env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut warnings = Vec::new();
        let endpoint = endpoint(&variable).and_then(|(name, url)| Some((name, OtlpEndpoint::parse(&url).err()?)));
        warnings.extend(endpoint.map(|(name, why)| format!("{name} is ignored: the value {why}")));
        let mut is_valid = true;
        for (name, max) in BatchLimits::VARIABLES {
            let text = variable(name).filter(|text| !text.is_empty());
            if text.is_some_and(|text| !text.parse().is_ok_and(|number| (1..=max).contains(&number))) {
                is_valid = false;
                warnings.push(format!("{name} is ignored: the value must be a whole number from 1 to {max}"));
            }
        }
        Self { warnings, batch_limits: (!is_valid).then(BatchLimits::default) }
    }
}

fn without_endpoint(layer: &RawSettings) -> RawSettings {
    raw(layer.texts().filter(|(name, _)| *name != SETTING))
}

fn raw<'a>(texts: impl Iterator<Item = (&'static str, &'a str)>) -> RawSettings {
    let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned()));
    envy::from_iter(texts).expect("these are settings")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::Settings;

    const OURS: &str = "http://ours:4318/v1/traces";

    /// Returns the endpoint with these variables, and with `own` as the setting in a file.
    fn endpoint(own: Option<&str>, variables: &[(&str, &str)]) -> Option<String> {
        let own = raw(own.into_iter().map(|url| (SETTING, url)));
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let layers = apply(vec![(Source::DotEnv, own)], variable);
        Settings::from_layers(&layers).unwrap().otlp_endpoint.map(|endpoint| endpoint.to_string())
    }

    #[rstest]
    #[case::nothing(&[], None)]
    #[case::endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], Some("http://c:4318/v1/traces"))]
    #[case::endpoint_with_a_path(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c/otlp/")], Some("http://c/otlp/v1/traces"))]
    #[case::endpoint_of_traces(
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318/in")],
        Some("http://t:4318/in")
    )]
    #[case::empty(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None)]
    #[case::grpc(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], None)]
    #[case::no_scheme(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")], None)]
    #[case::scheme_of_grpc(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://c:4317")], None)]
    #[case::password(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://u:hunter2@c:4318")], None)]
    #[case::space(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], None)]
    #[case::no_exporter(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_TRACES_EXPORTER", "none")], None)]
    #[case::disabled(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "true")], None)]
    fn apply_takes_the_endpoint_of_the_variables(#[case] variables: &[(&str, &str)], #[case] expected: Option<&str>) {
        assert_eq!(endpoint(None, variables).as_deref(), expected);
    }

    #[rstest]
    #[case::endpoint("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318", Some(OURS))]
    #[case::not_disabled("OTEL_SDK_DISABLED", "false", Some(OURS))]
    #[case::not_a_boolean("OTEL_SDK_DISABLED", "1", Some(OURS))]
    #[case::disabled("OTEL_SDK_DISABLED", "TRUE", None)]
    fn apply_lets_the_setting_win_unless_traces_are_disabled(
        #[case] name: &str,
        #[case] value: &str,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(endpoint(Some(OURS), &[(name, value)]).as_deref(), expected);
    }

    #[rstest]
    #[case::nothing(&[], &[])]
    #[case::valid(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_BSP_MAX_QUEUE_SIZE", "4096")], &[])]
    #[case::no_exporter(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c"), ("OTEL_TRACES_EXPORTER", "none")], &[])]
    #[case::endpoint(
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:hunter2@c:4318")],
        &["OTEL_EXPORTER_OTLP_ENDPOINT is ignored: the value must be a URL such as"]
    )]
    #[case::limits(
        &[("OTEL_BSP_MAX_QUEUE_SIZE", "18446744073709551615"), ("OTEL_BSP_SCHEDULE_DELAY", "soon")],
        &["OTEL_BSP_MAX_QUEUE_SIZE is ignored: ", "OTEL_BSP_SCHEDULE_DELAY is ignored: "]
    )]
    #[case::no_batch(&[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0")], &["OTEL_BSP_MAX_EXPORT_BATCH_SIZE is ignored: "])]
    fn variables_have_a_warning_for_each_invalid_one(#[case] variables: &[(&str, &str)], #[case] expected: &[&str]) {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let OtelVariables { warnings, batch_limits } = OtelVariables::of(variable);
        assert_eq!(warnings.len(), expected.len(), "{warnings:?}");
        assert!(warnings.iter().zip(expected).all(|(line, start)| line.starts_with(start)), "{warnings:?}");
        assert!(!warnings.concat().contains("hunter2"));
        assert_eq!(batch_limits.is_some(), expected.iter().any(|line| line.starts_with("OTEL_BSP")));
    }
}
