//! How many users are in a segment right now?
//!
//! An upstream service reports visits: user `u104010` was just tagged `sports`. A user stays in a segment for a window
//! of two weeks after the last visit, and then must no longer count. The estimator keeps one Redis sorted set per segment,
//! with users as members and the time of their last visit as score, so the answer is one `ZCOUNT`, exact at any moment.
//!
//! The crate is a service and a library. Without HTTP:
//!
//! ```no_run
//! use segment_estimator::estimator::Estimator;
//! use segment_estimator::segment::{SegmentName, UserId, Visit};
//! use segment_estimator::store::{Connection, Limits, RedisUrl, Store};
//! use segment_estimator::time::{Timestamp, Window};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(2), waiting: 10_000 };
//! let connection = Connection::new(RedisUrl::parse("redis://localhost")?, limits, Arc::default())?;
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
//! # Layout
//!
//! In reading order; each module may use those behind it in its line of dependencies, `main -> cli -> app -> {http, pruner}
//! -> ingest -> estimator -> {writer, counter, clock} -> rounds -> store -> segment`.
//!
//! * [`segment`] has the nouns: [`SegmentName`](segment::SegmentName), [`UserId`](segment::UserId), [`Visit`](segment::Visit).
//! * [`time`] has points in time and the window.
//! * [`estimator`] has record, estimate, prune: the whole service without HTTP.
//! * [`overlap`] has what segments have in common.
//! * [`concurrency_limit`] limits how many overlaps and lists are made at a time.
//! * [`writer`] and [`counter`] have group commit, for visits and for counts; [`rounds`] has what they share.
//! * [`history`] has the sizes of segments over time, and who samples them.
//! * [`clock`] has the time that the service goes by, which all services on one Redis share.
//! * [`store`] has everything about Redis: keys, commands, the connection, the private server.
//! * [`visit_json`] has the JSON form of a visit.
//! * [`ingest`] has batches: lines in, chunks to Redis, a report.
//! * [`auth`] has who may do what: keys, tokens, scopes.
//! * [`http`] has routes, handlers, problems, and the server.
//! * [`pruner`] has the cron job.
//! * [`crypto`] has the provider of cryptography for TLS, and certificates as files hold them.
//! * [`repartition`] has the move of the data set to another number of partitions; [`progress`] shows how far a long command is.
//! * [`settings`] has defaults, file, environment and flags, made into one checked value.
//! * [`telemetry`] has logs, metrics and traces; [`sampler`] measures what has no event of its own.
//! * [`app`] has what is wired to what, and the order of starting and stopping.
//! * [`import`] has visits out of files, into Redis or into a service; [`export`] has them the other way.
//! * [`demo`] has visits and histories that are made up, for a newcomer to look at.
//! * [`patience`] has how long a command goes on when the other side fails.
//! * [`check`] has a look at the settings and at Redis, without serving.
//! * [`cli`] has the commands of the binary.

pub mod app;
pub mod auth;
pub mod check;
pub mod cli;
pub mod clock;
pub mod concurrency_limit;
pub mod counter;
pub mod crypto;
pub mod demo;
pub mod estimator;
pub mod export;
pub mod history;
pub mod http;
pub mod import;
pub mod ingest;
pub mod overlap;
pub mod patience;
pub mod progress;
pub mod pruner;
pub mod repartition;
pub mod rounds;
pub mod sampler;
pub mod secret_files;
pub mod segment;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod time;
mod toml_text;
pub mod visit_json;
pub mod writer;
