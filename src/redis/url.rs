//! The URL of Redis.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, parse_redis_url};

use super::credentials::{Credentials, Login, TlsFiles, read_password};
use super::tls::read_certificates;
use crate::tls;

/// The URL of Redis: `redis://[user:password@]host[:port][/db]`, `rediss://...` with TLS, or
/// `redis+unix:///path/to/socket`. Credentials and certificates may be set beside it.
///
/// `Debug` and `Display` show the address, whether TLS is used, and the database, but never the user or the password.
#[derive(Clone)]
pub struct RedisUrl {
    info: ConnectionInfo,
    credentials: Credentials,
    tls_files: TlsFiles,
}

impl RedisUrl {
    /// Parses a Redis URL. It refuses parts that the library would ignore.
    ///
    /// # Errors
    ///
    /// What is wrong. The text repeats no part of `url`: if a password contains `#`, `?` or `/`, any part may belong to
    /// it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let unusable = || format!("is not a usable Redis URL, such as redis://user:password@host:6379/0; {ESCAPES}");
        let parsed = parse_redis_url(url).ok_or_else(unusable)?;
        match parsed.fragment() {
            None => {}
            Some("insecure") => {
                let why = "must not end in #insecure: a certificate that isn't checked protects nothing; set redis_ca_file \
                           to the CA to trust";
                return Err(why.to_owned());
            }
            Some(_) => return Err(format!("ends in # and more, which a Redis URL doesn't have; {ESCAPES}")),
        }
        let is_socket = parsed.scheme().ends_with("unix");
        let mut names = HashSet::new();
        for (name, value) in parsed.query_pairs() {
            check_parameter(&name, &value, is_socket)?;
            if !names.insert(name) {
                return Err("has a parameter behind ? twice".to_owned());
            }
        }
        let has_login = !parsed.username().is_empty() || parsed.password().is_some();
        if is_socket && (has_login || parsed.port().is_some()) {
            const WHY: &str = "has a user, a password or a port in front of a socket's path; write \
                               redis+unix:///path?user=NAME&pass=PASSWORD";
            return Err(WHY.to_owned());
        }
        let database = parsed.path().trim_matches('/');
        if !is_socket && !database.is_empty() && database.parse::<u32>().is_err() {
            return Err(format!("has a path that is not the number of a database; {ESCAPES}"));
        }
        // The library's errors may repeat a part of the URL.
        let info = parsed.into_connection_info().map_err(|_| unusable())?;
        Ok(Self::new(info))
    }

    /// Returns the URL of the Unix socket at `path`.
    #[must_use]
    pub fn unix(path: PathBuf) -> Self {
        let info = ConnectionAddr::Unix(path).into_connection_info().expect("an address alone is complete");
        Self::new(info)
    }

    fn new(info: ConnectionInfo) -> Self {
        Self { info, credentials: Credentials::default(), tls_files: TlsFiles::default() }
    }

    fn with_info(&self, info: ConnectionInfo) -> Self {
        Self { info, ..self.clone() }
    }

    /// Returns the server at another address, reached in the same way.
    #[must_use]
    pub(crate) fn at(&self, host: &str, port: u16) -> Self {
        let host = host.to_owned();
        let addr = match self.info.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        self.with_info(self.info.clone().set_addr(addr))
    }

    /// Whether both are TCP URLs that differ in the address alone.
    #[must_use]
    pub fn is_reached_like(&self, other: &Self) -> bool {
        let login = |url: &Self| {
            let settings = url.info.redis_settings();
            (settings.username().map(str::to_owned), settings.password().map(str::to_owned), settings.db())
        };
        let is_tcp = |url: &Self| !matches!(url.info.addr(), ConnectionAddr::Unix(_));
        is_tcp(self) && is_tcp(other) && self.is_tls() == other.is_tls() && login(self) == login(other)
    }

    /// Removes the user and the password.
    #[must_use]
    pub fn without_login(&self) -> Self {
        let settings = RedisConnectionInfo::default().set_db(self.info.redis_settings().db());
        self.with_info(self.info.clone().set_redis_settings(settings))
    }

    /// Removes the database.
    #[must_use]
    pub fn without_database(&self) -> Self {
        let settings = self.info.redis_settings().clone().set_db(0);
        self.with_info(self.info.clone().set_redis_settings(settings))
    }

    /// Returns the name or the address of the host; `localhost` for a Unix socket.
    pub(crate) fn host(&self) -> String {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => "localhost".to_owned(),
        }
    }

    /// Returns the host and the port, or the path of a Unix socket.
    pub(crate) fn address_and_port(&self) -> (String, Option<u16>) {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), Some(*port)),
            ConnectionAddr::Unix(path) => (path.display().to_string(), None),
            other => (other.to_string(), None),
        }
    }

    /// Returns the index of the database.
    pub(crate) fn database_index(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// Whether the URL names a database other than the first.
    #[must_use]
    pub fn has_database(&self) -> bool {
        self.info.redis_settings().db() != 0
    }

    /// Returns the database in words; empty for the first.
    pub(super) fn database(&self) -> String {
        match self.info.redis_settings().db() {
            0 => String::new(),
            db => format!(" (database {db})"),
        }
    }

    /// Replaces the credentials of the URL by `credentials`.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// Sets the files with certificates.
    #[must_use]
    pub fn with_tls_files(self, tls_files: TlsFiles) -> Self {
        Self { tls_files, ..self }
    }

    /// Returns the credentials that replace those of the URL.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Returns the files with certificates.
    #[must_use]
    pub fn tls_files(&self) -> &TlsFiles {
        &self.tls_files
    }

    /// Whether the URL has a user.
    #[must_use]
    pub fn has_username(&self) -> bool {
        self.info.redis_settings().username().is_some()
    }

    /// Whether the URL has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.info.redis_settings().password().is_some()
    }

    /// Whether it uses TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    /// Whether it uses TCP without TLS.
    pub(crate) fn is_plain_tcp(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::Tcp(..))
    }

    /// Reads the files, and returns a client for one connection and the login for it.
    ///
    /// # Errors
    ///
    /// A line that names the setting if a file can't be used.
    pub(crate) fn client(&self) -> Result<(Client, Login), String> {
        let mut settings = self.info.redis_settings().clone();
        if let Some(username) = &self.credentials.username {
            settings = settings.set_username(username);
        }
        if let Some(path) = &self.credentials.password_file {
            settings = settings.set_password(read_password(path)?);
        }
        // The kernel detects a vanished peer as well: `Connection` probes only the connections that it keeps.
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        // Without `TCP_NODELAY`, a small command would wait for the acknowledgement of the previous one.
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        // `handshake.rs` logs in. Before that, the library sends its own name to Redis. Redis may refuse that exchange
        // without a password, but it must take place: the TLS handshake may fail as late as that, and only this
        // exchange reports why.
        let info = self.info.clone().set_redis_settings(RedisConnectionInfo::default()).set_tcp_settings(tcp);
        let client = if self.is_tls() {
            tls::use_aws_lc();
            let TlsFiles { ca_file, client_files } = &self.tls_files;
            Client::build_with_tls(info, read_certificates(ca_file.as_deref(), client_files.as_ref())?)
        } else {
            Client::open(info)
        };
        client.map(|client| (client, Login::new(&settings))).map_err(|error| format!("redis_url: {error}"))
    }
}

/// Idle time after which the kernel probes a TCP connection, and the interval between probes. Linux gives up after
/// nine.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Advice for a character that ends a part of a URL too early.
const ESCAPES: &str =
    "in a user or a password, write # as %23, ? as %3F, / as %2F, @ as %40, % as %25, and in a list a comma as %2C";

/// Refuses a parameter that the library would ignore. `is_socket` is true for the URL of a Unix socket.
fn check_parameter(name: &str, value: &str, is_socket: bool) -> Result<(), String> {
    let why = match (name, is_socket) {
        ("db" | "user" | "pass", true) => return Ok(()),
        ("protocol", _) if ["2", "resp2"].contains(&value) => return Ok(()),
        ("protocol", _) => "selects a protocol other than RESP2, the only supported one; remove the parameter",
        ("ssl" | "tls", _) => "enables TLS behind ?; begin the URL with rediss:// instead",
        ("db" | "database", _) => "has a database behind ?; write redis://host:6379/3, or redis+unix:///path?db=3",
        ("user" | "username" | "pass" | "password", _) => {
            "has a user or a password behind ?; write redis://user:password@host:6379, or \
             redis+unix:///path?user=NAME&pass=PASSWORD"
        }
        _ => return Err(format!("has an unknown parameter behind ?; {ESCAPES}")),
    };
    Err(why.to_owned())
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.addr().fmt(f)?;
        match (self.is_tls(), self.info.redis_settings().db()) {
            (false, _) => f.write_str(&self.database()),
            (true, 0) => f.write_str(" (TLS)"),
            (true, db) => write!(f, " (TLS, database {db})"),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::host("redis://h", "h:6379")]
    #[case::port_and_database("redis://h:7000/3", "h:7000 (database 3)")]
    #[case::empty_path("redis://h/", "h:6379")]
    #[case::empty_query("redis://h?", "h:6379")]
    #[case::protocol("redis://h?protocol=2", "h:6379")]
    #[case::tls("valkeys://u:p@h/3?protocol=resp2", "h:6379 (TLS, database 3)")]
    #[case::socket_with_parameters("redis+unix:///s?db=3&user=u&pass=p", "/s (database 3)")]
    #[case::socket("unix:///s", "/s")]
    fn parse_accepts_supported_urls(#[case] url: &str, #[case] shown: &str) {
        assert_eq!(RedisUrl::parse(url).unwrap().to_string(), shown);
    }

    #[rstest]
    #[case::database("redis://h?db=3", "has a database behind ?; write redis://host:6379/3")]
    #[case::database_by_another_name("redis://h?database=3", "has a database behind ?")]
    #[case::database_twice("redis+unix:///s?db=1&db=2", "has a parameter behind ? twice")]
    #[case::database_below_zero("redis://h/-1", "has a path that is not the number of a database")]
    #[case::database_of_words("redis://h/prod", "has a path that is not the number of a database")]
    #[case::database_of_words_of_a_socket("redis+unix:///s?db=prod", "is not a usable Redis URL")]
    #[case::tls("redis://h?ssl=true", "enables TLS behind ?; begin the URL with rediss:// instead")]
    #[case::tls_off("rediss://h?tls=false", "enables TLS behind ?")]
    #[case::password("redis://h?password=x", "has a user or a password behind ?")]
    #[case::password_of_a_socket("redis+unix:///s?password=x", "has a user or a password behind ?")]
    #[case::user_in_front_of_a_socket("redis+unix://u@localhost/s", "has a user, a password or a port in front of")]
    #[case::port_in_front_of_a_socket("redis+unix://localhost:1/s", "has a user, a password or a port in front of")]
    #[case::resp3("redis://h?protocol=resp3", "selects a protocol other than RESP2")]
    #[case::unknown("redis://h?timeout=5", "has an unknown parameter behind ?; in a user or a password")]
    #[case::unknown_of_a_socket("redis+unix:///s?timeout=5", "has an unknown parameter behind ?")]
    #[case::capitals("redis+unix:///s?DB=3", "has an unknown parameter behind ?")]
    #[case::fragment("redis://h#3", "ends in # and more")]
    #[case::empty_fragment("redis://h#", "ends in # and more")]
    #[case::fragment_of_a_socket("redis+unix:///s#3", "ends in # and more")]
    #[case::insecure("redis+unix:///s#insecure", "must not end in #insecure")]
    #[case::no_url("h:6379", "is not a usable Redis URL")]
    fn parse_refuses_parts_that_the_library_ignores(#[case] url: &str, #[case] why: &str) {
        let error = RedisUrl::parse(url).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }

    proptest! {
        #[test]
        fn parse_reads_any_password_that_is_percent_encoded(password in "\\PC{1,20}") {
            let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let url = RedisUrl::parse(&format!("redis://:{encoded}@h/3")).unwrap();
            prop_assert_eq!(url.info.redis_settings().password(), Some(password.as_str()));
            prop_assert_eq!(url.to_string(), "h:6379 (database 3)");
        }

        /// A password with unescaped characters that end a part of a URL. Either it is parsed in full, or the error
        /// shows none of it.
        #[test]
        fn parse_shows_no_part_of_a_password(before in "[a-z]{1,3}", parts in prop::collection::vec("[#?/@:%&=]QZX", 1..4)) {
            let password = format!("{before}{}", parts.concat());
            match RedisUrl::parse(&format!("redis://:{password}@h:7000/3")) {
                Ok(url) => {
                    prop_assert_eq!(url.info.redis_settings().password(), Some(password.as_str()));
                    prop_assert_eq!(url.to_string(), "h:7000 (database 3)");
                }
                Err(error) => prop_assert!(!error.contains("QZX"), "{}", error),
            }
        }
    }
}
