//! Why Redis did not do what was asked.

use std::fmt;
use std::time::Duration;

use redis::{Arg, ErrorKind, Pipeline, RedisError, ServerError};

use super::outage_log::{Failure, Reach};
use super::tls;

/// Why Redis did not do what was asked. Whether a write took effect is then unknown.
///
/// The texts are for logs: they hold names of commands, keys and what Redis says of itself, never a user's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("can't connect to Redis: {0}")]
    Connect(String),
    /// No connection could be made because TLS could not be agreed on: one side doesn't trust the other, or speaks no TLS.
    #[error("can't connect to Redis: {0}")]
    Tls(String),
    /// Redis doesn't accept the user or the password that we sent.
    #[error("can't connect to Redis: it doesn't accept this user or password")]
    WrongPassword,
    /// It is a replica, of the given primary. What it has may be old, and it takes no visits.
    #[error("it is a replica, of {0}; a primary is needed")]
    Replica(String),
    /// The connection broke, and so did the one made after it.
    #[error("lost the connection to Redis: {0}")]
    Lost(String),
    /// No answer came in time.
    #[error("no answer from Redis within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// No answer came in time from one of several servers.
    #[error("no answer from {} within {}", .0, humantime::format_duration(*.1))]
    TimeoutAt(String, Duration),
    /// The server lacks commands that we need.
    #[error("Redis {0} is too old: 6.2 or later is needed, or Valkey")]
    TooOld(String),
    /// Fewer replicas have the write than must. It was made, and may be lost when the primary is.
    #[error("only {reached} of {needed} replicas have acknowledged the write in time")]
    NotReplicated {
        /// Replicas that have it.
        reached: usize,
        /// Replicas that must.
        needed: usize,
    },
    /// The server can't tell what its replicas have on disk.
    #[error("Redis has no `WAITAOF`, which write_acks_on_disk needs: 7.2 or later has it, and Valkey")]
    NoWaitAof,
    /// A key of ours holds another type: another program writes to this Redis.
    #[error("`{command}` met a key of another type: another program writes to this Redis")]
    WrongType {
        /// The command's name and its key.
        command: String,
    },
    /// Redis answered with any other error, such as `READONLY`, `MISCONF` or `NOPERM`.
    #[error("Redis refused `{command}`: {}", format!("{code} {detail}").trim_end())]
    Refused {
        /// The command's name and its key.
        command: String,
        /// Redis's error code.
        code: String,
        /// What Redis says of its own state; may be empty.
        detail: String,
    },
}

/// The code of a command on a key of another type.
const WRONG_TYPE: &str = "WRONGTYPE";

/// The code of a command on several keys whose slot is on its way.
pub(crate) const TRY_AGAIN: &str = "TRYAGAIN";

/// The code of a wait for replicas that ended because the server became a replica itself.
const UNBLOCKED: &str = "UNBLOCKED";

/// Codes of errors that tell of Redis's state, and what we call them. Others, such as `ERR unknown command`, repeat what they
/// were sent.
const ABOUT_REDIS: [(&str, &str); 11] = [
    ("BUSY", "busy"),
    ("CLUSTERDOWN", "cluster_down"),
    ("LOADING", "loading"),
    ("MASTERDOWN", "master_down"),
    ("MISCONF", "misconf"),
    ("NOAUTH", "no_auth"),
    ("NOPERM", "no_permission"),
    ("NOREPLICAS", "no_replicas"),
    ("OOM", "out_of_memory"),
    ("READONLY", "readonly"),
    (UNBLOCKED, "readonly"),
];

/// What we call the error `code`, if it tells of Redis's state.
fn state_of_redis(code: &str) -> Option<&'static str> {
    ABOUT_REDIS.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

impl Error {
    /// The name of this failure in logs and metrics: one of `telemetry::ERROR_KINDS`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::WrongPassword => "wrong_password",
            Self::Replica(_) => "readonly",
            Self::Lost(_) => "lost",
            Self::Timeout(_) | Self::TimeoutAt(..) => "timeout",
            Self::TooOld(_) | Self::NoWaitAof => "too_old",
            Self::NotReplicated { .. } => "not_replicated",
            Self::WrongType { .. } => "wrong_type",
            Self::Refused { code, .. } => state_of_redis(code).unwrap_or("refused"),
        }
    }

    /// This error as the log and the metrics see it.
    pub(crate) fn as_failure(&self) -> Failure<'_> {
        let reach = match self {
            Self::WrongType { .. } => Reach::Key,
            _ => Reach::Redis { writes_alone: self.is_of_writes() },
        };
        Failure { error: self, kind: self.kind(), reach }
    }

    /// Whether Redis failed, and not one segment.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        !self.is_wrong_type()
    }

    /// Whether a key holds another type.
    #[must_use]
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::WrongType { .. })
    }

    /// Whether Redis refused this command and may run others: it doesn't have the command, or an ACL forbids it on these keys.
    #[must_use]
    pub fn is_refused_command(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "NOPERM" || !Self::is_about_redis(code))
    }

    /// Codes of errors that mean that the server is a replica.
    pub(crate) const REPLICA_CODES: [&str; 3] = ["READONLY", "MASTERDOWN", UNBLOCKED];

    /// Whether an ACL forbids a command or a key, which then doesn't exist for this user.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "NOPERM")
    }

    /// Whether Redis refused `command`, given by its name.
    pub(crate) fn is_refusal_of(&self, name: &str) -> bool {
        matches!(self, Self::Refused { command, .. } if command.split(' ').next() == Some(name))
    }

    /// Whether the server doesn't know a command. Its word for that is one for many other mistakes, none of which we make.
    pub(crate) fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "ERR")
    }

    /// Whether it tells of writes alone, so that what isn't one may succeed meanwhile.
    pub(crate) fn is_of_writes(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::NotReplicated { .. } | Self::NoWaitAof)
    }

    /// Why no connection could be made.
    pub(crate) fn from_connecting(error: &RedisError) -> Self {
        if let Some(why) = tls::explain(error) {
            return Self::Tls(why);
        }
        // What isn't Redis at all is told in several lines by the library.
        Self::Connect(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The same, with the address of the one of several servers that it was met at.
    pub(crate) fn at(self, address: impl fmt::Display) -> Self {
        match self {
            Self::Connect(why) => Self::Connect(format!("{address}: {why}")),
            Self::Tls(why) => Self::Tls(format!("{address}: {why}")),
            Self::Timeout(limit) => Self::TimeoutAt(address.to_string(), limit),
            other => other,
        }
    }

    /// Why `pipeline` failed.
    pub(crate) fn from_answer(error: RedisError, pipeline: &Pipeline) -> Self {
        // After a reply that is not Redis's protocol nothing that follows can be trusted.
        if error.is_io_error() || error.kind() == ErrorKind::Parse {
            return Self::Lost(error.to_string());
        }
        let failed = error.clone().into_server_errors().unwrap_or_default();
        // A wrong type is one key's fault; anything else is about Redis and matters more.
        let of_redis = failed.iter().find(|(_, error)| error.code() != WRONG_TYPE);
        match of_redis.or(failed.first()) {
            Some((index, error)) => Self::from_server(error, command_and_key(pipeline, *index)),
            None => Self::without_answer(&error, command_and_key(pipeline, 0)),
        }
    }

    /// Why the command of `pipeline` at `index` failed, while others may have succeeded.
    pub(crate) fn from_command(error: RedisError, pipeline: &Pipeline, index: usize) -> Self {
        let command = command_and_key(pipeline, index);
        match error.clone().into_server_errors().as_deref() {
            Some([(_, error), ..]) => Self::from_server(error, command),
            _ => Self::without_answer(&error, command),
        }
    }

    fn from_server(error: &ServerError, command: String) -> Self {
        if error.code() == WRONG_TYPE {
            return Self::WrongType { command };
        }
        Self::refused(command, error.code(), error.details().unwrap_or_default())
    }

    /// Redis refused `command` with `code`. What it says besides is kept where it is about itself; where it is another kind of
    /// server than it was taken for, that is told instead.
    pub(crate) fn refused(command: String, code: &str, detail: &str) -> Self {
        let detail = match (command.as_str(), code) {
            (_, "MOVED") => "(it is a server of a cluster, which redis_cluster is for)",
            ("CLUSTER SLOTS", "ERR") => "(it is in no cluster: redis_url is for one server)",
            (command, "ERR") if command.starts_with("GET ") && command.ends_with("layout") => {
                "(a sentinel has no data: redis_sentinel is for sentinels)"
            }
            (command, "ERR") if command.starts_with("SENTINEL ") => "(it is no sentinel)",
            (_, "ERR") if is_about_a_missing_command(detail) => {
                "(it doesn't have this command, or one of this script: renamed, switched off, or not supported)"
            }
            // Redis 7 says so of a script; before, it is NOPERM.
            (_, "ERR") if detail.contains("The user executing the script can't") => {
                "(an ACL forbids a command or a key of this script)"
            }
            _ if Self::is_about_redis(code) => detail,
            _ => "",
        };
        Self::Refused { command, code: code.to_owned(), detail: detail.to_owned() }
    }

    /// Whether `code` tells of Redis's state, and not of what it was sent.
    pub(crate) fn is_about_redis(code: &str) -> bool {
        state_of_redis(code).is_some()
    }

    /// An error of the library's own.
    fn without_answer(error: &RedisError, command: String) -> Self {
        Self::Refused { command, code: error.category().to_owned(), detail: String::new() }
    }

    /// Whether another server may serve what this one doesn't: it is away, or no primary.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Lost(_) | Self::Replica(_))
    }

    /// Whether the keys of one command are not all at one server at the moment.
    pub(crate) fn is_try_again(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == TRY_AGAIN)
    }
}

/// Whether `detail`, which stands behind `ERR`, is what Redis says of a command that it doesn't have. It repeats the arguments, so
/// the text itself is not kept.
fn is_about_a_missing_command(detail: &str) -> bool {
    detail.starts_with("unknown command") || detail.contains("Unknown Redis command called from")
}

/// The name and the first argument of a command, such as `ZADD segment:sports`. Of a script, the name alone.
fn command_and_key(pipeline: &Pipeline, index: usize) -> String {
    let command = pipeline.cmd_iter().nth(index);
    let words = command.iter().flat_map(|command| command.args_iter()).filter_map(|arg| match arg {
        Arg::Simple(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    });
    let words: Vec<_> = words.take(2).collect();
    match words.first().map(String::as_str) {
        Some("EVAL") => "EVAL".to_owned(),
        _ => words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ERROR_KINDS;

    #[test]
    fn every_state_of_redis_has_a_metric() {
        for (code, name) in ABOUT_REDIS {
            let error = Error::Refused { command: "PING".to_owned(), code: code.to_owned(), detail: String::new() };
            assert_eq!(error.kind(), name);
            assert!(ERROR_KINDS.contains(&name), "{name}");
        }
    }
}
