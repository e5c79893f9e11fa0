//! Where Redis is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

use super::access::{Access, read_password};
use super::greeting::Login;
use super::tls::read_certificates;
use crate::crypto;

/// Where Redis is, `redis://[user:password@]host[:port][/db]`, the same with TLS as `rediss://...`, or
/// `redis+unix:///path/to/socket`, and what is needed beside that to be let in.
///
/// `Debug` and `Display` show the address, whether TLS is used, and the database, but not the user and the password.
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
        let info = url.into_connection_info().map_err(|error| match error.detail() {
            Some(detail) => format!("is not a usable Redis URL: {detail}"),
            None => "is not a usable Redis URL; it looks like redis://host:6379".to_owned(),
        })?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
            let why = "must not end in #insecure: a certificate that nobody checks protects nothing; name whom to trust \
                       in redis_ca_file";
            return Err(why.to_owned());
        }
        Ok(Self { info, access: Access::default() })
    }

    /// The Redis that listens on the Unix socket at `path`.
    #[must_use]
    pub fn unix(path: PathBuf) -> Self {
        let info = ConnectionAddr::Unix(path).into_connection_info().expect("an address alone is complete");
        Self { info, access: Access::default() }
    }

    /// The server at another address, reached in the same way.
    #[must_use]
    pub(super) fn at(&self, host: &str, port: u16) -> Self {
        let host = host.to_owned();
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        Self { info: self.info.clone().set_addr(addr), access: self.access.clone() }
    }

    /// Whether another URL differs in the address alone, which is one of TCP.
    #[must_use]
    pub fn is_reached_like(&self, other: &Self) -> bool {
        let login = |url: &Self| {
            let settings = url.info.redis_settings();
            (settings.username().map(str::to_owned), settings.password().map(str::to_owned), settings.db())
        };
        let is_tcp = |url: &Self| !matches!(url.info.addr(), ConnectionAddr::Unix(_));
        is_tcp(self) && is_tcp(other) && self.is_tls() == other.is_tls() && login(self) == login(other)
    }

    /// The same without user and password.
    #[must_use]
    pub fn without_login(&self) -> Self {
        let settings = RedisConnectionInfo::default().set_db(self.info.redis_settings().db());
        Self { info: self.info.clone().set_redis_settings(settings), access: self.access.clone() }
    }

    /// The same without a database.
    #[must_use]
    pub fn without_database(&self) -> Self {
        let settings = self.info.redis_settings().clone().set_db(0);
        Self { info: self.info.clone().set_redis_settings(settings), access: self.access.clone() }
    }

    /// The host's name or address; of a Unix socket, the host that it is on.
    pub(super) fn host(&self) -> String {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => "localhost".to_owned(),
        }
    }

    /// Whether a database other than the first stands in the URL.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.info.redis_settings().db() != 0
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

    /// Whether Redis is reached by TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// A client for one connection, and what is to be said on it, with what the files hold now.
    ///
    /// # Errors
    ///
    /// A line that names the setting when a file can't be used.
    pub(super) fn client(&self) -> Result<(Client, Login), String> {
        let mut settings = self.info.redis_settings().clone();
        if let Some(username) = &self.access.username {
            settings = settings.set_username(username);
        }
        if let Some(path) = &self.access.password_file {
            settings = settings.set_password(read_password(path)?);
        }
        // A peer that is gone without a word is found by the kernel, too: `Node` asks only on connections that it keeps.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        // Without `TCP_NODELAY` a small command would wait for the acknowledgement of the one before it.
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        // Who we are is for us to say: see `greeting.rs`. The library still names itself to Redis before that. Its first exchange
        // may be refused for want of a password, and must take place: TLS may fail as late as that, and only there is it told why.
        let info = self.info.clone().set_redis_settings(RedisConnectionInfo::default()).set_tcp_settings(tcp);
        let client = if self.is_tls() {
            crypto::use_aws_lc();
            let Access { ca_file, client_files, .. } = &self.access;
            Client::build_with_tls(info, read_certificates(ca_file.as_deref(), client_files.as_ref())?)
        } else {
            Client::open(info)
        };
        client.map(|client| (client, Login::new(&settings))).map_err(|error| format!("redis_url: {error}"))
    }
}

/// How long a TCP connection is idle before the kernel probes it, and the pause between probes. Linux gives up after nine.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.addr().fmt(f)?;
        match (self.is_tls(), self.info.redis_settings().db()) {
            (false, 0) => Ok(()),
            (true, 0) => f.write_str(" (TLS)"),
            (false, db) => write!(f, " (database {db})"),
            (true, db) => write!(f, " (TLS, database {db})"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
