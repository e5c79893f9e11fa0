//! The result of a command.

/// Why a command failed, in one line.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The result of a command.
pub(crate) type Outcome = Result<(), Failure>;
