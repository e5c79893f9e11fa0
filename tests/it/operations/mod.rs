//! Operation of the service: private Redis, metrics, traces, TLS and shutdown.

mod embedded;
mod engine;
mod metered_segments;
mod metrics;
mod shutdown;
mod tls;
mod traces;
