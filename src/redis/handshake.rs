//! Connecting and the handshake: authentication, the database, and checks of the server's version and role.
//!
//! The handshake of the `redis` crate turns every answer to `AUTH` into "authentication failed", even that there are
//! too many clients, and drops the error code of an answer to `SELECT`.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisError, RedisResult};

use super::credentials::Login;
use super::deadline::Deadline;
use super::info::{info_field, primary_of};
use super::{Error, RedisUrl};

/// A step of the handshake, in the order in which they are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandshakeStep {
    Auth,
    Select,
    Info,
    /// Sets the name in `CLIENT LIST`, because Redis may have refused the library's attempt. Redis supports it since
    /// 7.2.
    Name,
}

/// Returns the commands of the handshake, and the step of each.
fn commands_of(login: &Login) -> (Pipeline, Vec<HandshakeStep>) {
    let (mut pipeline, mut steps) = (redis::pipe(), Vec::new());
    if let Some(password) = &login.password {
        pipeline.cmd("AUTH").arg(&login.username).arg(password);
        steps.push(HandshakeStep::Auth);
    }
    if login.db != 0 {
        pipeline.cmd("SELECT").arg(login.db);
        steps.push(HandshakeStep::Select);
    }
    // Before 7.0, Redis accepts one section for each `INFO`.
    pipeline.cmd("INFO").arg("server").cmd("INFO").arg("replication");
    steps.extend([HandshakeStep::Info; 2]);
    pipeline.cmd("CLIENT").arg("SETINFO").arg("LIB-NAME").arg(env!("CARGO_PKG_NAME"));
    pipeline.cmd("CLIENT").arg("SETINFO").arg("LIB-VER").arg(env!("CARGO_PKG_VERSION"));
    steps.extend([HandshakeStep::Name; 2]);
    (pipeline, steps)
}

/// The role that a server must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A primary. A replica may have stale data, and its next synchronization would discard a visit that was written to
    /// it.
    Primary,
    /// Any role.
    Any,
}

/// Connects to the server at `url`.
///
/// # Errors
///
/// An [`Error`] if the server isn't connected by `deadline`, refuses the login, has another role than `role` or is too
/// old.
pub(crate) async fn connect(
    url: &RedisUrl,
    config: &AsyncConnectionConfig,
    role: Role,
    deadline: Deadline,
) -> Result<MultiplexedConnection, Error> {
    let connecting = async {
        let (client, login) = url.client().map_err(Error::Connect)?;
        let connection = client.get_multiplexed_async_connection_with_config(config).await;
        let mut connection = connection.map_err(|error| connect_error(&error, url, "the first command"))?;
        let info = shake_hands(&mut connection, url, &login).await?;
        Ok((connection, info))
    };
    let (connection, info) = deadline.bound(connecting).await.map_err(|error| {
        let Error::Timeout(timeout) = error else { return error };
        // Without TLS, Redis takes the handshake for a command and waits for its end.
        let hint = if url.is_tls() { "; it may speak no TLS on this port" } else { "" };
        Error::Connect(format!("not connected within {}{hint}", humantime::format_duration(timeout)))
    })?;
    if let (Role::Primary, Some(primary)) = (role, primary_of(&info)) {
        return Err(Error::Replica(primary));
    }
    // An old server would serve counts but refuse every write.
    match info_field(&info, "redis_version") {
        Some(version) if is_too_old(version) => Err(Error::TooOld(version.to_owned())),
        _ => Ok(connection),
    }
}

/// Connects to the Redis at `url`, checks that it can serve, and disconnects.
pub(crate) async fn probe(url: &RedisUrl, limit: Duration) -> Result<(), Error> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(limit));
    let mut connection = connect(url, &config, Role::Primary, Deadline::after(limit)).await?;
    let mut ping = redis::pipe();
    ping.cmd("PING").ignore();
    ping.exec_async(&mut connection).await.map_err(|error| Error::from_answer(error, &ping))
}

/// Runs the handshake, and returns the answers to `INFO`, which may be empty.
async fn shake_hands(connection: &mut MultiplexedConnection, url: &RedisUrl, login: &Login) -> Result<String, Error> {
    let (mut pipeline, steps) = commands_of(login);
    let answers = pipeline.ignore_errors().query_async::<Vec<RedisResult<String>>>(connection).await;
    let answers = answers.map_err(|error| connect_error(&error, url, "AUTH, SELECT, INFO or CLIENT"))?;
    let mut info = String::new();
    for (step, answer) in steps.into_iter().zip(answers) {
        match answer {
            Ok(answer) if step == HandshakeStep::Info => info += &answer,
            Ok(_) => {}
            Err(error) => refusal(step, login, &error).map_or(Ok(()), Err)?,
        }
    }
    Ok(info)
}

/// Returns the error of a connection to `url` that failed. `sent` names the commands that the server hung up at.
fn connect_error(error: &RedisError, url: &RedisUrl, sent: &str) -> Error {
    let reason = match Error::from_connecting(error) {
        Error::Connect(text) if error.is_connection_dropped() && !error.is_connection_refusal() => text,
        other => return other,
    };
    let tls = if url.is_plain_tcp() { "it may require TLS on this port (set rediss://), or " } else { "it may " };
    Error::Connect(format!("it hung up at {sent} ({reason}); {tls}be a proxy that refuses these commands"))
}

/// Returns the error of a refused `step`; `None` if the step may be refused.
fn refusal(step: HandshakeStep, login: &Login, error: &RedisError) -> Option<Error> {
    let code = error.code().unwrap_or_default();
    let detail = error.detail().unwrap_or_default();
    if code == "DENIED" || detail.starts_with("max number of clients") {
        // Protected mode has a long explanation.
        let reason = detail.split(". ").next().unwrap_or_default();
        return Some(Error::Connect(format!("it refuses all clients: {reason}")));
    }
    match step {
        // The text may repeat the password.
        HandshakeStep::Auth if code == "WRONGPASS" || code == "ERR" => Some(Error::WrongPassword),
        HandshakeStep::Auth => Some(Error::refused("AUTH".to_owned(), code, detail)),
        HandshakeStep::Select if code == "ERR" => Some(Error::Connect(format!("no database {}: {detail}", login.db))),
        HandshakeStep::Select => Some(Error::refused(format!("SELECT {}", login.db), code, detail)),
        // An ACL may forbid `INFO`. Such a server is used without knowing its version and role.
        HandshakeStep::Info if code == "NOPERM" || !Error::is_about_redis(code) => None,
        HandshakeStep::Info => Some(Error::refused("INFO".to_owned(), code, detail)),
        HandshakeStep::Name => None,
    }
}

/// Whether a server of this version lacks `ZADD GT` and `ZRANGE BYLEX`, which came with Redis 6.2. Valkey reports
/// 7.2.4.
fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), minor) if (major, minor.unwrap_or(0)) < (6, 2))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::minor_too_old("6.0.16", true)]
    #[case::major_too_old("5.0.14", true)]
    #[case::oldest("6.2.0", false)]
    #[case::newer("7.0.15", false)]
    #[case::two_numbers("8.0", false)]
    #[case::two_digits("10.1.2", false)]
    #[case::no_number("unstable", false)]
    fn is_too_old_before_6_2(#[case] version: &str, #[case] expected: bool) {
        assert_eq!(is_too_old(version), expected);
    }

    /// Returns the error of `step` if Redis answers it with `answer`.
    fn refusal_of(step: HandshakeStep, answer: &str) -> Option<Error> {
        let login = Login { username: None, password: Some("secret".to_owned()), db: 3 };
        let answer = redis::parse_redis_value(format!("-{answer}\r\n").as_bytes()).unwrap();
        refusal(step, &login, &answer.extract_error().unwrap_err())
    }

    #[rstest]
    #[case::readonly("READONLY You can't write against a read only replica.", "readonly")]
    #[case::loading("LOADING Redis is loading the dataset in memory", "loading")]
    #[case::no_replicas("NOREPLICAS Not enough good replicas to write.", "no_replicas")]
    #[case::cluster_down("CLUSTERDOWN The cluster is down", "cluster_down")]
    #[case::misconf("MISCONF Errors writing to the AOF file", "misconf")]
    #[case::out_of_memory("OOM command not allowed when used memory > 'maxmemory'.", "out_of_memory")]
    #[case::master_down("MASTERDOWN Link with MASTER is down", "master_down")]
    #[case::busy("BUSY Redis is busy running a script.", "busy")]
    #[case::no_auth("NOAUTH Authentication required.", "no_auth")]
    fn refusal_keeps_the_message_about_a_state_of_redis(#[case] answer: &str, #[case] kind: &str) {
        for step in [HandshakeStep::Auth, HandshakeStep::Select, HandshakeStep::Info] {
            let error = refusal_of(step, answer).unwrap();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().ends_with(answer), "{error}");
        }
        assert_eq!(refusal_of(HandshakeStep::Name, answer), None);
    }

    #[test]
    fn refusal_of_info_alone_is_accepted() {
        let forbidden = "NOPERM User me has no permissions to run the 'info' command";
        assert_eq!(refusal_of(HandshakeStep::Info, forbidden), None);
        assert_eq!(refusal_of(HandshakeStep::Info, "ERR unknown command 'INFO'"), None);
        assert_eq!(refusal_of(HandshakeStep::Select, forbidden).unwrap().kind(), "no_permission");
    }

    #[rstest]
    #[case::wrong("WRONGPASS invalid username-password pair or user is disabled.")]
    #[case::none_required("ERR AUTH <password> called without any password configured for the default user.")]
    #[case::no_auth_command("ERR unknown command 'AUTH', with args beginning with: 'secret'")]
    fn refusal_of_a_password_does_not_show_it(#[case] answer: &str) {
        let error = refusal_of(HandshakeStep::Auth, answer).unwrap();
        assert_eq!(error, Error::WrongPassword);
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[rstest]
    #[case::max_clients("ERR max number of clients reached", "max number of clients reached")]
    #[case::protected_mode(
        "DENIED Redis is running in protected mode because of this. In this mode",
        "Redis is running in protected mode"
    )]
    fn refusal_of_every_client_names_the_reason(#[case] answer: &str, #[case] why: &str) {
        for step in [HandshakeStep::Auth, HandshakeStep::Select, HandshakeStep::Info] {
            let error = refusal_of(step, answer).unwrap();
            assert_eq!(error.kind(), "connect");
            assert!(error.to_string().contains(why) && !error.to_string().contains("In this mode"), "{error}");
        }
    }
}
