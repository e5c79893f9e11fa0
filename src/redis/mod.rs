//! A Redis client: one server, a primary behind sentinels, or a cluster. It handles servers, slots and pipelines, and
//! has no notion of segments.

mod by_server;
mod client;
mod cluster;
mod connection;
mod credentials;
mod deadline;
mod deployment;
mod error;
mod handshake;
mod info;
mod limits;
mod outage_log;
mod replication;
mod reply;
mod request;
mod resolver;
mod sentinel;
mod slot;
mod tls;
mod topology;
mod url;

pub use self::client::Client;
pub use self::credentials::{ClientFiles, Credentials, TlsFiles};
pub use self::deployment::Deployment;
pub use self::error::Error;
pub(crate) use self::handshake::probe;
pub(crate) use self::info::info_field;
pub use self::limits::Limits;
pub(crate) use self::outage_log::{Failure, Reach};
pub use self::replication::WriteAcks;
pub(crate) use self::reply::parse;
pub(crate) use self::request::Request;
pub use self::slot::Slot;
pub use self::url::RedisUrl;

/// The recommended `zset-max-listpack-entries`: the number of members up to which Redis keeps a sorted set as a listpack.
/// A write to a listpack takes time in proportion to its length, since Redis parses the score of each member on the way.
/// docs/benchmarks.md has figures.
pub const MAX_LISTPACK_ENTRIES: u32 = 16;
