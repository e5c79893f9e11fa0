//! Logs, metrics and traces: their setup, and the handles that the rest of the service uses.

mod logs;
mod metrics;
mod traces;

#[cfg(test)]
pub(crate) use self::logs::tests;
pub use self::logs::{LogFilter, LogFormat, init};
#[cfg(test)]
pub use self::metrics::ERROR_KINDS;
pub use self::metrics::{
    BatchMetrics, Metrics, OverlapMetrics, Persistence, RedisMetrics, RouteMetrics, SegmentUsers, Traffic, VisitMetrics,
};
pub use self::traces::{
    BatchLimits, OtlpEndpoint, ROOT as TRACE_ROOT, TARGET as TRACED, TraceConfig, Traces, parse_ratio,
};
