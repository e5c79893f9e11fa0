//! Where Redis is.

use std::fmt;
use std::path::PathBuf;

use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use super::access::{Access, read_password};

/// Where Redis is, `redis://[user:password@]host[:port][/db]` or `redis+unix:///path/to/socket`, and what is needed
/// beside that to be let in.
///
/// `Debug` and `Display` show the address and the database alone, not the user and the password.
#[derive(Clone)]
pub struct RedisUrl {
    info: ConnectionInfo,
    access: Access,
}

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
        let info = url.into_connection_info().map_err(|error| match error.detail() {
            Some(detail) => format!("is not a usable Redis URL: {detail}"),
            None => "is not a usable Redis URL; it looks like redis://host:6379".to_owned(),
        })?;
        Ok(Self { info, access: Access::default() })
    }

    /// The Redis that listens on the Unix socket at `path`.
    #[must_use]
    pub fn unix(path: PathBuf) -> Self {
        let info = ConnectionAddr::Unix(path).into_connection_info().expect("an address alone is complete");
        Self { info, access: Access::default() }
    }

    /// The same Redis, reached with `access`, which goes before what the URL says.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// What stands beside the URL.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether a user stands in the URL.
    #[must_use]
    pub fn has_username(&self) -> bool {
        self.info.redis_settings().username().is_some()
    }

    /// Whether a password stands in the URL.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.info.redis_settings().password().is_some()
    }

    /// A client for one connection, with what the files hold now.
    ///
    /// # Errors
    ///
    /// A line that names the setting when a file can't be used.
    pub(super) fn client(&self) -> Result<Client, String> {
        let mut settings = self.info.redis_settings().clone();
        if let Some(username) = &self.access.username {
            settings = settings.set_username(username);
        }
        if let Some(path) = &self.access.password_file {
            settings = settings.set_password(read_password(path)?);
        }
        // Without `TCP_NODELAY` a small command would wait for the acknowledgement of the one before it.
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = self.info.clone().set_redis_settings(settings).set_tcp_settings(tcp);
        Client::open(info).map_err(|error| format!("redis_url: {error}"))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.addr().fmt(f)?;
        match self.info.redis_settings().db() {
            0 => Ok(()),
            db => write!(f, " (database {db})"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
