//! The span of a request. It continues the caller's trace, if there is one, and returns its id to the caller
//! ([W3C Trace Context](https://www.w3.org/TR/trace-context/)). Without an exporter it costs nothing.

use axum::http::header::{HOST, USER_AGENT};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Version};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::http::public_url::scheme;
use crate::telemetry::{TRACE_ROOT, TRACED};

/// A request, as its span describes it.
pub struct TracedRequest<'a, B> {
    /// The request itself.
    pub request: &'a Request<B>,
    /// The route. `None` if none matches.
    pub route: Option<&'static str>,
    /// Whether its connection has TLS.
    pub is_tls: bool,
}

/// Returns the span of a request. The caller's sampling decision takes precedence over `ratio`. Without a ratio, no
/// request is traced. Attributes follow the
/// [conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/), except where these would reveal a person:
/// `url.path` is the route, since paths have names of segments and ids of users, the query is redacted, and
/// `client.address` is omitted.
pub fn span<B>(ratio: Option<f64>, TracedRequest { request, route, is_tls }: TracedRequest<'_, B>) -> Span {
    const REDACTED: &str = "REDACTED";
    let Some(ratio) = ratio else { return Span::none() };
    let headers = request.headers();
    let caller = TraceContextPropagator::new().extract(&Headers(headers));
    let context = caller.span().span_context().clone();
    let is_sampled = if context.is_valid() { context.is_sampled() } else { rand::random_bool(ratio) };
    if !is_sampled {
        return Span::none();
    }
    let method = KNOWN_METHODS.into_iter().find(|known| *known == request.method().as_str());
    let (name, space) = (method.unwrap_or("HTTP"), if route.is_some() { " " } else { "" });
    let scheme = scheme(headers, is_tls);
    let host = headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let host = host.filter(|host| !host.host().is_empty());
    let default_port = if scheme == "https" { 443 } else { 80 };
    let span = tracing::info_span!(
        target: TRACED,
        TRACE_ROOT,
        otel.name = format_args!("{name}{space}{}", route.unwrap_or_default()),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method.unwrap_or("_OTHER"),
        http.request.method_original = method.is_none().then(|| shortened(request.method().as_str())),
        http.route = route,
        http.response.status_code = Empty,
        url.scheme = scheme,
        url.path = route.unwrap_or(REDACTED),
        url.query = request.uri().query().map(|_| REDACTED),
        server.address = host.as_ref().map(Authority::host),
        server.port = host.as_ref().map(|host| host.port_u16().unwrap_or(default_port)),
        network.protocol.version = protocol_version(request.version()),
        user_agent.original = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).map(shortened),
        error.type = Empty,
    );
    // Fails only for a span that was entered before.
    let _ = span.set_parent(caller);
    span
}

/// The methods that the conventions know. Callers can make up others.
const KNOWN_METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

fn protocol_version(version: Version) -> &'static str {
    if version == Version::HTTP_10 { "1.0" } else { "1.1" }
}

/// Returns the beginning of a text of the caller, which is as long as its head may be.
fn shortened(text: &str) -> &str {
    const MAX_BYTES: usize = 200;
    &text[..text.floor_char_boundary(MAX_BYTES)]
}

/// Records in `span` that the client disconnected before the response.
pub fn abandon(span: &Span) {
    span.record("error.type", "client_disconnected");
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
