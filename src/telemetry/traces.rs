//! Traces: spans of requests, batches and Redis, sent to a collector as OTLP over HTTP.
//!
//! These are spans of `tracing` with the target [`TARGET`]. Only the exporter is interested in this target, so without
//! an exporter a span costs an untaken branch. Only [`ROOT`] starts a trace, for the sampled requests. Other requests,
//! and background jobs, create no spans.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{ResourceDetector as _, SdkProvidedResourceDetector};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
};
use opentelemetry_sdk::{Resource, trace};
use tracing::Metadata;
use tracing::subscriber::Interest;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The target of traced spans.
pub const TARGET: &str = "segment_estimator::trace";

/// The name of the root span of a trace.
pub const ROOT: &str = "request";

/// The settings of traces.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// The collector.
    pub endpoint: OtlpEndpoint,
    /// The ratio of traced requests, 0 to 1, among those without a `traceparent` header.
    pub ratio: f64,
}

/// The limits of the batches of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    queue: usize,
    batch: usize,
    delay: Duration,
}

impl BatchLimits {
    /// The variables that the exporter reads the limits from, each with its maximum. The exporter allocates the queue at
    /// the start, and panics if it is too large.
    pub const VARIABLES: [(&'static str, u64); 3] = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", 100_000),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 100_000),
        ("OTEL_BSP_SCHEDULE_DELAY", 86_400_000),
    ];
}

impl Default for BatchLimits {
    /// Returns the limits that OpenTelemetry prescribes.
    fn default() -> Self {
        Self { queue: 2_048, batch: 512, delay: Duration::from_secs(5) }
    }
}

/// The URL of the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

impl OtlpEndpoint {
    /// Parses `http://host:4318` or `https://host/path`. The default path is `/v1/traces`
    /// ([the specification](https://opentelemetry.io/docs/specs/otlp/#otlphttp-request)).
    ///
    /// # Errors
    ///
    /// The predicate of a sentence about the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = || {
            "must be a URL such as http://collector:4318, without a user, a password or a query; credentials go into \
             OTEL_EXPORTER_OTLP_HEADERS"
                .to_owned()
        };
        let uri: hyper::Uri = text.parse().map_err(|_| wanted())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        // A password or a key in the URL would appear in logs.
        let is_plain =
            uri.authority().is_some_and(|authority| !authority.as_str().contains('@')) && uri.query().is_none();
        if !is_http || !is_plain {
            return Err(wanted());
        }
        let base = text.trim_end_matches('/');
        Ok(Self(if uri.path() == "/" { format!("{base}/v1/traces") } else { text.to_owned() }))
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses a ratio from 0 to 1.
///
/// # Errors
///
/// The predicate of a sentence about the setting.
pub fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// The exporter. A thread of its own sends spans in batches.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts the exporter. The collector need not be running. Without `limits`, the variables have them.
    ///
    /// # Errors
    ///
    /// One line, if the HTTP client can't be created or a variable of the exporter is invalid.
    pub fn start(config: &TraceConfig, limits: Option<BatchLimits>) -> Result<Self, String> {
        let exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&config.endpoint.0)
            .build()
            .map_err(|error| error.to_string())?;
        let mut batches = BatchConfigBuilder::default();
        if let Some(BatchLimits { queue, batch, delay }) = limits {
            batches = batches.with_max_queue_size(queue).with_max_export_batch_size(batch).with_scheduled_delay(delay);
        }
        let exporter = LoggingExporter { exporter, is_failing: AtomicBool::new(false) };
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            // Sampling happens before a span is created.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource());
        Ok(Self(provider.build()))
    }

    /// Returns the layer that turns spans into traces.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    {
        let layer: OpenTelemetryLayer<S, SdkTracer> = tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(env!("CARGO_PKG_NAME")))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_level(false);
        let is_wanted = |span: &Metadata<'_>, context: &Context<'_, S>| {
            is_traced(span) && (span.name() == ROOT || context.lookup_current().is_some())
        };
        let by_callsite = |metadata: &'static Metadata<'static>| {
            if is_traced(metadata) { Interest::sometimes() } else { Interest::never() }
        };
        layer.with_filter(dynamic_filter_fn(is_wanted).with_callsite_filter(by_callsite))
    }

    /// Sends the remaining spans, for up to five seconds.
    pub fn shut_down(&self) {
        const TIMEOUT: Duration = Duration::from_secs(5);
        if let Err(error) = self.0.shutdown_with_timeout(TIMEOUT) {
            tracing::debug!(%error, "failed to send the remaining traces");
        }
    }
}

/// Returns the attributes of the service: those in OpenTelemetry's environment variables, and defaults for the rest.
fn resource() -> Resource {
    const NAME: &str = "service.name";
    /// The library's name for a service that no variable names.
    const UNNAMED: &str = "unknown_service";
    let given = Resource::builder().build();
    // OTEL_SERVICE_NAME takes precedence over OTEL_RESOURCE_ATTRIBUTES. `given` has it the other way round.
    let name = SdkProvidedResourceDetector.detect().get(&NAME.into());
    let name = name.filter(|name| !name.as_str().starts_with(UNNAMED));
    // A restart is a new instance.
    let instance = uuid::Uuid::new_v4().to_string();
    let others = [("service.version", env!("CARGO_PKG_VERSION").to_owned()), ("service.instance.id", instance)];
    let missing = others.into_iter().filter(|(key, _)| given.get(&(*key).into()).is_none());
    Resource::builder()
        .with_attributes(missing.map(|(key, value)| KeyValue::new(key, value)))
        .with_service_name(name.unwrap_or_else(|| env!("CARGO_PKG_NAME").into()))
        .build()
}

fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// An exporter that logs when it begins and ceases to fail.
#[derive(Debug)]
struct LoggingExporter {
    exporter: OtlpExporter,
    is_failing: AtomicBool,
}

impl SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = SpanExporter::export(&self.exporter, batch).await;
        match &outcome {
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => tracing::info!("sending traces again"),
            Err(error) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "failed to send traces; dropping them until the collector answers");
            }
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        trace::SpanExporter::set_resource(&mut self.exporter, resource);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::no_path("http://collector:4318", "http://collector:4318/v1/traces")]
    #[case::slash("http://collector:4318/", "http://collector:4318/v1/traces")]
    #[case::path("https://collector.example/otlp/v1/traces", "https://collector.example/otlp/v1/traces")]
    fn endpoint_parse_completes_the_path(#[case] text: &str, #[case] url: &str) {
        assert_eq!(OtlpEndpoint::parse(text).unwrap().to_string(), url);
    }

    #[rstest]
    #[case::no_scheme("collector:4318")]
    #[case::grpc("grpc://collector:4317")]
    #[case::password("http://user:hunter2@collector")]
    #[case::query("http://collector?key=hunter2")]
    #[case::empty("")]
    fn endpoint_parse_explains_a_rejection(#[case] text: &str) {
        let error = OtlpEndpoint::parse(text).unwrap_err();
        assert!(error.starts_with("must be a URL") && !error.contains("hunter2"), "{error}");
    }
}
