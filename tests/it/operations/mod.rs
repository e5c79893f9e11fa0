//! Operation of the service: private Redis, metrics, traces, TLS, reloading and shutdown.

mod embedded;
mod engine;
mod key_metrics;
mod metered_segments;
mod metrics;
mod reload;
mod shutdown;
mod tls;
mod traces;
