//! Where Redis is.

use std::fmt;
use std::path::PathBuf;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// Where Redis is: `redis://[user:password@]host[:port][/db]` or `redis+unix:///path/to/socket`.
///
/// `Debug` and `Display` show the address alone, not the user and the password.
#[derive(Clone)]
pub struct RedisUrl(ConnectionInfo);

impl RedisUrl {
    /// Reads a Redis URL.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong; it never repeats `url`, which may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.starts_with("rediss://") {
            return Err("asks for TLS, which is not supported yet".to_owned());
        }
        url.into_connection_info().map(Self).map_err(|error| match error.detail() {
            Some(detail) => format!("is not a usable Redis URL: {detail}"),
            None => "is not a usable Redis URL; it looks like redis://host:6379".to_owned(),
        })
    }

    /// The Redis that listens on the Unix socket at `path`.
    #[must_use]
    pub fn unix(path: PathBuf) -> Self {
        Self(ConnectionAddr::Unix(path).into_connection_info().expect("an address alone is complete"))
    }

    pub(super) fn connection_info(&self) -> ConnectionInfo {
        self.0.clone()
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.addr().fmt(f)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
