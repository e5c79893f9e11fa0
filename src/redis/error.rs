//! Errors of Redis and of the connection to it.

use std::fmt;
use std::time::Duration;

use redis::{Arg, ErrorKind, Pipeline, RedisError, RedisResult, ServerError, Value};

use super::outage_log::{Failure, Reach};
use super::tls;

/// An error of a request. A write may have taken effect.
///
/// The texts are for logs. They contain names of commands, keys, and Redis's state, but never a user's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("failed to connect to Redis: {0}")]
    Connect(String),
    /// The TLS handshake failed.
    #[error("failed to connect to Redis: {0}")]
    Tls(String),
    /// Redis refused the user or the password.
    #[error("failed to connect to Redis: it refused this user or password")]
    WrongPassword,
    /// The server is a replica of the given primary. Its data may be stale, and it refuses writes.
    #[error("it is a replica of {0}; the service needs a primary")]
    Replica(String),
    /// The connection broke, and so did a second one.
    #[error("lost the connection to Redis: {0}")]
    Lost(String),
    /// Redis didn't answer in time.
    #[error("no answer from Redis within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// One of several servers didn't answer in time.
    #[error("no answer from {} within {}", .0, humantime::format_duration(*.1))]
    TimeoutAt(String, Duration),
    /// The server lacks required commands.
    #[error("Redis {0} is too old: upgrade to 6.2 or later, or to Valkey")]
    TooOld(String),
    /// Too few replicas have the write. It is lost if the primary is lost.
    #[error("only {reached} of {needed} replicas have acknowledged the write in time")]
    NotReplicated {
        /// The number of replicas that have it.
        reached: usize,
        /// The number of replicas that must have it.
        needed: usize,
    },
    /// The server doesn't support `WAITAOF`.
    #[error("Redis lacks `WAITAOF`, which write_acks_on_disk requires: upgrade to 7.2 or later, or to Valkey")]
    NoWaitAof,
    /// A key holds another type. Another program writes to this Redis.
    #[error("`{command}` found a key of another type: another program writes to this Redis")]
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
        /// The message, if it describes Redis's state; otherwise empty.
        detail: String,
    },
}

/// Error code for a key of another type.
const WRONG_TYPE: &str = "WRONGTYPE";

/// Error code of a command on several keys while their slot migrates.
pub(crate) const TRY_AGAIN: &str = "TRYAGAIN";

/// Error code of a wait for replicas if the server becomes a replica.
const UNBLOCKED: &str = "UNBLOCKED";

/// Error code of a server of a cluster that is isolated, or whose cluster lacks slots.
const CLUSTER_DOWN: &str = "CLUSTERDOWN";

/// What a server refuses in a state that its error codes describe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuses {
    /// All commands, or all on keys.
    Everything,
    /// Writes or all commands, because it is a replica. A connection that is made later finds that out, too.
    AsReplica,
    /// Some commands, above all writes, while others succeed.
    Some,
}

/// Error codes that describe Redis's state, with their names in the metrics and what Redis refuses then. Messages of
/// other codes, such as `ERR unknown command`, may repeat arguments.
const ABOUT_REDIS: [(&str, &str, Refuses); 11] = [
    ("BUSY", "busy", Refuses::Everything),
    (CLUSTER_DOWN, "cluster_down", Refuses::Everything),
    ("LOADING", "loading", Refuses::Everything),
    ("MASTERDOWN", "master_down", Refuses::AsReplica),
    ("MISCONF", "misconf", Refuses::Some),
    ("NOAUTH", "no_auth", Refuses::Everything),
    ("NOPERM", "no_permission", Refuses::Some),
    ("NOREPLICAS", "no_replicas", Refuses::Some),
    ("OOM", "out_of_memory", Refuses::Some),
    ("READONLY", "readonly", Refuses::AsReplica),
    (UNBLOCKED, "readonly", Refuses::AsReplica),
];

/// Returns the name in the metrics of the state that the error `code` describes, and what Redis refuses in it.
fn state_of_redis(code: &str) -> Option<(&'static str, Refuses)> {
    ABOUT_REDIS.iter().find(|(known, ..)| *known == code).map(|(_, name, refuses)| (*name, *refuses))
}

/// Whether a server answers that it is a replica. A new connection may find the new primary.
pub(crate) fn is_of_a_replica(answer: &RedisResult<Value>) -> bool {
    code_of(answer).and_then(state_of_redis).is_some_and(|(_, refuses)| refuses == Refuses::AsReplica)
}

/// Whether a server of a cluster answers that it is isolated, or no longer a primary.
pub(crate) fn is_of_a_lost_primary(answer: &RedisResult<Value>) -> bool {
    code_of(answer) == Some(CLUSTER_DOWN) || is_of_a_replica(answer)
}

fn code_of(answer: &RedisResult<Value>) -> Option<&str> {
    answer.as_ref().err().and_then(RedisError::code)
}

impl Error {
    /// Returns the name of this error in the metrics, one of `telemetry::ERROR_KINDS`.
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
            Self::Refused { code, .. } => state_of_redis(code).map_or("refused", |(name, _)| name),
        }
    }

    /// Returns this error as the log and the metrics need it.
    pub(crate) fn as_failure(&self) -> Failure<'_> {
        let reach = match self {
            Self::WrongType { .. } => Reach::Key,
            _ => Reach::Redis { writes_alone: self.is_of_writes() },
        };
        Failure { error: self, kind: self.kind(), reach }
    }

    /// Returns the code of Redis's answer, if it is one.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::WrongType { .. } => Some(WRONG_TYPE),
            _ => None,
        }
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

    /// Whether Redis refused this command alone: it lacks the command, or an ACL forbids it on these keys.
    #[must_use]
    pub fn is_refused_command(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "NOPERM" || !Self::is_about_redis(code))
    }

    /// Whether an ACL forbids the command or the key.
    pub(crate) fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "NOPERM")
    }

    /// Whether Redis refused the command `name`.
    pub(crate) fn is_refusal_of(&self, name: &str) -> bool {
        matches!(self, Self::Refused { command, .. } if command.split(' ').next() == Some(name))
    }

    /// Whether the server lacks a command. Redis uses this code for other mistakes as well, none of which the service
    /// makes.
    pub(crate) fn is_unknown_command(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "ERR")
    }

    /// Whether it affects writes alone, so that a read doesn't prove that they succeed again.
    pub(crate) fn is_of_writes(&self) -> bool {
        match self {
            Self::NotReplicated { .. } | Self::NoWaitAof => true,
            // A code that isn't known is about the command.
            Self::Refused { code, .. } => state_of_redis(code).is_none_or(|(_, refuses)| refuses == Refuses::Some),
            _ => false,
        }
    }

    /// Whether the server is a replica and executed nothing.
    pub(crate) fn is_refusal_of_a_replica(&self) -> bool {
        match self {
            Self::Replica(_) => true,
            // A wait for replicas was interrupted after the write.
            Self::Refused { code, .. } if code == UNBLOCKED => false,
            Self::Refused { code, .. } => {
                state_of_redis(code).is_some_and(|(_, refuses)| refuses == Refuses::AsReplica)
            }
            _ => false,
        }
    }

    /// Classifies an error of connecting.
    pub(crate) fn from_connecting(error: &RedisError) -> Self {
        if let Some(why) = tls::explain(error) {
            return Self::Tls(why);
        }
        // If the server is not Redis, the library's message has several lines.
        Self::Connect(error.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Adds the address of one of several servers.
    pub(crate) fn at(self, address: impl fmt::Display) -> Self {
        match self {
            Self::Connect(why) => Self::Connect(format!("{address}: {why}")),
            Self::Tls(why) => Self::Tls(format!("{address}: {why}")),
            Self::Timeout(limit) => Self::TimeoutAt(address.to_string(), limit),
            other => other,
        }
    }

    /// Classifies the failure of `pipeline`.
    pub(crate) fn from_answer(error: RedisError, pipeline: &Pipeline) -> Self {
        // After a reply that violates the protocol, no later reply can be trusted.
        if error.is_io_error() || error.kind() == ErrorKind::Parse {
            return Self::Lost(error.to_string());
        }
        let failed = error.clone().into_server_errors().unwrap_or_default();
        // A wrong type affects one key. Any other error affects Redis and takes precedence.
        let of_redis = failed.iter().find(|(_, error)| error.code() != WRONG_TYPE);
        match of_redis.or(failed.first()) {
            Some((index, error)) => Self::from_server(error, command_and_key(pipeline, *index)),
            None => Self::without_answer(&error, command_and_key(pipeline, 0)),
        }
    }

    /// Classifies the failure of the command of `pipeline` at `index`. Others may have succeeded.
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

    /// Returns the error of `command`, which Redis refused with `code`. It keeps `detail` if that describes Redis's
    /// state. If the server is of another kind than the setting says, the error explains that.
    pub(crate) fn refused(command: String, code: &str, detail: &str) -> Self {
        let detail = match (command.as_str(), code) {
            (_, "MOVED") => "(it is a server of a cluster: set redis_cluster)",
            ("CLUSTER SLOTS", "ERR") => "(it is in no cluster: redis_url is for one server)",
            (command, "ERR") if command.starts_with("GET ") && command.ends_with("layout") => {
                "(a sentinel has no data: redis_sentinel is for sentinels)"
            }
            (command, "ERR") if command.starts_with("SENTINEL ") => "(it is no sentinel)",
            (_, "ERR") if is_about_a_missing_command(detail) => {
                "(it doesn't have this command, or one of this script: renamed, switched off, or not supported)"
            }
            // Redis answers so for a script; the second text is that of 7.2 and later, and of Valkey.
            (_, "ERR")
                if detail.contains("The user executing the script can't")
                    || detail.contains("ACL failure in script") =>
            {
                "(an ACL forbids a command or a key of this script)"
            }
            _ if Self::is_about_redis(code) => detail,
            _ => "",
        };
        Self::Refused { command, code: code.to_owned(), detail: detail.to_owned() }
    }

    /// Whether `code` describes Redis's state, not the command.
    pub(crate) fn is_about_redis(code: &str) -> bool {
        state_of_redis(code).is_some()
    }

    /// Returns the error for one of the library.
    fn without_answer(error: &RedisError, command: String) -> Self {
        Self::Refused { command, code: error.category().to_owned(), detail: String::new() }
    }

    /// Whether another server may execute the request: this one is unreachable or not a primary.
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Lost(_) | Self::Replica(_))
    }

    /// Whether the slot of the command's keys is migrating.
    pub(crate) fn is_try_again(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == TRY_AGAIN)
    }
}

/// Whether `detail`, the message of an `ERR`, reports a command that the server lacks. The message repeats arguments,
/// so it is not kept.
fn is_about_a_missing_command(detail: &str) -> bool {
    detail.starts_with("unknown command") || detail.contains("Unknown Redis command called from")
}

/// Returns the name and the key of a command, such as `ZADD segment:sports`. For a script, the name alone.
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
    fn kind_of_every_state_of_redis_is_a_label_of_the_metrics() {
        for (code, name, _) in ABOUT_REDIS {
            let error = Error::Refused { command: "PING".to_owned(), code: code.to_owned(), detail: String::new() };
            assert_eq!(error.kind(), name);
            assert!(ERROR_KINDS.contains(&name), "{name}");
        }
    }
}
