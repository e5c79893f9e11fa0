//! The span of a request. It continues the caller's trace, if there is one, and returns its id to the caller
//! ([W3C Trace Context](https://www.w3.org/TR/trace-context/)). Without an exporter it costs nothing.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::telemetry::{TRACE_ROOT, TRACED};

/// Returns the span of a request to the route `path`. The caller's sampling decision takes precedence over `ratio`.
/// Without a ratio, no request is traced. Names follow the
/// [conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/); the actual path is omitted because it
/// may contain a segment's name.
pub fn span(ratio: Option<f64>, method: &'static str, path: &'static str, headers: &HeaderMap) -> Span {
    let Some(ratio) = ratio else { return Span::none() };
    let caller = TraceContextPropagator::new().extract(&Headers(headers));
    let context = caller.span().span_context().clone();
    let is_sampled = if context.is_valid() { context.is_sampled() } else { rand::random_bool(ratio) };
    if !is_sampled {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: TRACED,
        TRACE_ROOT,
        otel.name = format_args!("{method} {path}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = path,
        http.response.status_code = Empty,
        error.type = Empty,
    );
    // Fails only for a span that was entered before.
    let _ = span.set_parent(caller);
    span
}

/// Records the response in `span` and adds the trace's id to its headers.
pub fn finish(span: &Span, status: u16, problem: Option<&'static str>, headers: &mut HeaderMap) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status);
    if let Some(problem) = problem {
        span.record("error.type", problem);
    }
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    TraceContextPropagator::new().inject_context(&span.context(), &mut HeadersMut(headers));
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty tracestate is omitted.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}
