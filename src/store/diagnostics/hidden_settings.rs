//! Settings that a server doesn't show.

use std::fmt;

use crate::redis;

/// Why the settings of a server are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenSettings {
    /// An ACL forbids `CONFIG GET`.
    Forbidden,
    /// The server has no `CONFIG`, as most managed services.
    NoCommand,
}

impl HiddenSettings {
    /// Returns what the answer to `CONFIG GET` says; `None` if it has a value or another error.
    pub(super) fn from_refusal(error: &redis::Error) -> Option<Self> {
        match error {
            error if error.is_forbidden() => Some(Self::Forbidden),
            error if error.is_unknown_command() => Some(Self::NoCommand),
            _ => None,
        }
    }
}

/// Formats the consequence as a predicate: `Redis ...`.
impl fmt::Display for HiddenSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forbidden => "doesn't show its settings, since its ACL forbids `CONFIG GET`",
            Self::NoCommand => "doesn't show its settings, since it has no `CONFIG`, as most managed services",
        })?;
        f.write_str(": check appendfsync and zset-max-listpack-entries where it is configured")
    }
}
