//! OpenTelemetry's own [variables](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), which
//! set `otlp_endpoint` or unset it. The exporter reads the others.

use super::settings::RawSettings;
use super::source::Source;

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
    let layer = if is("OTEL_TRACES_EXPORTER", "none") { None } else { layer(variable) };
    layer.into_iter().chain(layers).collect()
}

fn layer(variable: impl Fn(&str) -> Option<String>) -> Option<(Source, RawSettings)> {
    const OF_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const OF_ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let set = |name| variable(name).filter(|text| !text.is_empty());
    let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
    // Its port speaks no HTTP/1.1.
    if protocol.is_some_and(|protocol| protocol == "grpc") {
        return None;
    }
    let (name, url) = match set(OF_TRACES) {
        Some(url) => (OF_TRACES, url),
        None => (OF_ALL, format!("{}/v1/traces", set(OF_ALL)?.trim_end_matches('/'))),
    };
    Some((Source::OpenTelemetry(name), raw([(SETTING, url.as_str())].into_iter())))
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
}
