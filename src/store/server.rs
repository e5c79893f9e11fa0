//! What Redis says of itself.

use std::fmt;

use redis::pipe;

use super::{Error, Store};

/// The server that a [`Store`] leads to, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `Redis 7.0.15` or `Valkey 9.1.2`; `None` when an ACL forbids `INFO`.
    pub version: Option<String>,
    /// Whether writes go to an append-only file.
    pub append_only_file: Option<bool>,
    /// What becomes of keys when memory is full (`maxmemory-policy`). With anything but `noeviction` whole segments may be
    /// dropped.
    pub eviction: Option<String>,
}

impl Server {
    /// Reads the answers to `INFO server`, `INFO memory` and `INFO persistence`, one after the other.
    fn from_info(info: &str) -> Self {
        let field = |name| info_field(info, name).map(str::to_owned);
        // Valkey gives the version of Redis that it is compatible with, beside its own.
        let valkey = field("valkey_version").map(|version| format!("Valkey {version}"));
        Self {
            version: valkey.or_else(|| field("redis_version").map(|version| format!("Redis {version}"))),
            append_only_file: field("aof_enabled").map(|enabled| enabled == "1"),
            eviction: field("maxmemory_policy"),
        }
    }
}

/// The value of the field `name` in an answer to `INFO`.
pub(super) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version.as_deref().unwrap_or("a Redis that doesn't tell its version"))?;
        match self.append_only_file {
            Some(true) => f.write_str("; it has an append-only file")?,
            Some(false) => f.write_str("; it has no append-only file, and forgets at a crash what it has not saved")?,
            None => {}
        }
        match self.eviction.as_deref() {
            Some("noeviction") => f.write_str("; it refuses writes when its memory is full"),
            Some(policy) => write!(f, "; it may drop whole segments when its memory is full ({policy})"),
            None => Ok(()),
        }
    }
}

impl Store {
    /// Asks Redis whether it can serve, as [`Store::ping`], and what it is.
    ///
    /// # Errors
    ///
    /// An [`Error`] when it can't serve. What an ACL doesn't let it tell is no error.
    pub async fn server(&self) -> Result<Server, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("PING");
        for section in ["server", "memory", "persistence"] {
            pipeline.cmd("INFO").arg(section);
        }
        let mut answers = self.connection.query_each::<String>(&mut pipeline).await?.into_iter();
        answers.next().transpose()?;
        Ok(Server::from_info(&answers.flatten().collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_described() {
        let info = "# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n";
        let expected = "Redis 7.0.15; it has no append-only file, and forgets at a crash what it has not saved; it may \
                        drop whole segments when its memory is full (allkeys-lru)";
        assert_eq!(Server::from_info(info).to_string(), expected);
    }

    #[test]
    fn valkey_is_named_by_its_own_version() {
        let info = "redis_version:7.2.4\r\nvalkey_version:9.1.2\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        let expected = "Valkey 9.1.2; it has an append-only file; it refuses writes when its memory is full";
        assert_eq!(Server::from_info(info).to_string(), expected);
    }

    #[test]
    fn a_server_that_tells_nothing_is_described_too() {
        assert_eq!(Server::from_info("").to_string(), "a Redis that doesn't tell its version");
    }
}
