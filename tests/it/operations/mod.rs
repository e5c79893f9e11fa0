//! Running the service: its private Redis, its metrics and traces, its certificates, and how it stops.

mod embedded;
mod metrics;
mod shutdown;
mod tls;
mod traces;
