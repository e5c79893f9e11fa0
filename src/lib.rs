//! Counts how many users are in a segment right now.
//!
//! An upstream service reports visits: user `u104010` was just tagged `sports`. A user stays in a segment for a window
//! of two weeks after the last visit. The estimator keeps one Redis sorted set per segment, with users as members and
//! the time of their last visit as score. So a count is one `ZCOUNT`, exact at any moment.
//!
//! The crate is a service and a library. Without HTTP:
//!
//! ```no_run
//! use segment_estimator::estimator::Estimator;
//! use segment_estimator::domain::{SegmentName, Timestamp, UserId, Visit, Window};
//! use segment_estimator::redis::{Client, Limits, RedisUrl};
//! use segment_estimator::store::Store;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(2), max_pending: 10_000 };
//! let connection = Client::new(RedisUrl::parse("redis://localhost")?, limits, Arc::default())?;
//! let estimator = Estimator::new(Store::new(connection), Window::parse("14d")?);
//!
//! let now = Timestamp::now();
//! let sports = SegmentName::parse("sports")?;
//! let visit = Visit::new(UserId::parse("u104010")?, sports.clone(), None, now)?;
//! estimator.record(visit, now).await?;
//! assert_eq!(estimator.estimate(&sports, now).await?, 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Rooms
//!
//! Each may use those before it. `telemetry`, `auth` and `tls` are leaves that all may use.
//!
//! * `small_file`: reading files of keys, certificates and passwords.
//! * [`domain`]: segments, users, visits, time and the window, without I/O.
//! * [`redis`]: a Redis client for one server, sentinels or a cluster. It has no notion of segments.
//! * [`store`]: the data model on Redis: keys, commands, partitions and their layout.
//! * [`embedded_redis`]: a private `redis-server` that starts and stops with the service.
//! * [`estimator`]: the service without HTTP: record visits, count, list, overlap, history, prune.
//! * [`ingest`]: many visits in one request.
//! * [`http`]: routes, handlers, pages, errors and the server.
//! * [`jobs`]: background jobs: pruning, recording history, monitoring health.
//! * [`config`]: settings from defaults, file, environment and flags, checked once.
//! * [`commands`]: the commands of the binary; `serve` wires everything.
//! * [`auth`]: API keys, JSON Web Tokens and scopes.
//! * `telemetry`: logs, metrics and traces.
//! * `tls`: the TLS provider, and certificates in PEM.

pub mod auth;
pub mod commands;
pub mod config;
pub mod domain;
pub mod embedded_redis;
pub mod estimator;
pub mod http;
pub mod ingest;
pub mod jobs;
pub mod redis;
mod small_file;
pub mod store;
mod telemetry;
mod tls;

/// The commit that the crate was built from, if `build.rs` found it.
pub const COMMIT: Option<&str> = {
    let commit = env!("BUILD_COMMIT");
    if commit.is_empty() { None } else { Some(commit) }
};

/// The version of the crate with the commit, such as `1.0.0 (dbf40a1)`.
pub const VERSION: &str = env!("BUILD_VERSION");
