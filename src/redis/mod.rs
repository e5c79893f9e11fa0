//! A Redis client: one server, a primary behind sentinels, or a cluster. It knows servers, slots and pipelines, and nothing of segments.

mod client;
mod cluster;
mod connection;
mod credentials;
mod deployment;
mod error;
mod handshake;
mod info;
mod outage_log;
mod replication;
mod request;
mod sentinel;
mod slot;
mod tls;
mod url;

pub(crate) use self::client::read;
pub use self::client::{Connection, Limits};
pub use self::credentials::{Access, ClientFiles};
pub use self::deployment::Servers;
pub use self::error::Error;
pub(crate) use self::handshake::probe;
pub(crate) use self::info::{info_field, primary_of};
pub use self::replication::WriteAcks;
pub(crate) use self::request::Commands;
pub use self::slot::Slot;
pub use self::url::RedisUrl;
