//! Why the store didn't do what was asked.

use super::Partitions;
use crate::redis::{self, Failure, Reach};

/// Why the store didn't do what was asked. It is unknown whether a write took effect.
///
/// The texts are for logs. They hold names of commands and keys and what Redis says of itself, never a user's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Redis failed or refused a command.
    #[error(transparent)]
    Redis(#[from] redis::Error),
    /// Redis was not asked: as many as may wait for it already do.
    #[error("{0} already wait for Redis")]
    Overloaded(usize),
    /// The data set has another number of partitions than the setting says.
    #[error(
        "the data set has {}, and partitions is {set}: leave it unset, or move the data with \
         `segment-estimator repartition --to {set}`",
        recorded.in_words()
    )]
    Partitions {
        /// As recorded in Redis.
        recorded: Partitions,
        /// As set.
        set: Partitions,
    },
    /// There are keys that a data set of ours may have, and no record of one.
    #[error(
        "the database has {found} and no data set of this service, whose record is `{record}`: if the data is another program's, \
         set redis_key_prefix; if it is this service's, take it over with `segment-estimator adopt`"
    )]
    Unrecorded {
        /// The keys, or a pattern of them.
        found: String,
        /// The key of the record.
        record: String,
    },
    /// A key of ours holds what this service has not written.
    #[error("`{0}` holds what this service has not written: rename that key, or set redis_key_prefix")]
    ForeignKey(String),
    /// What is recorded of the data set can't be read, or changes all the time.
    #[error(
        "the key `layout`, with redis_key_prefix in front, holds no record that this version knows, or another one at each look; if it is \
         another program's, set redis_key_prefix"
    )]
    UnknownLayout,
    /// The visit is to a new segment, and there are as many as there may be. Nothing was written.
    #[error("there are {0} segments, as many as max_segments allows, and this one would be new")]
    TooManySegments(u64),
}

impl Error {
    /// The name of this failure in logs and metrics: one of `telemetry::FAILURES`, or `too_many_segments`, which is no failure of Redis.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Redis(error) => error.kind(),
            Self::Overloaded(_) => "overloaded",
            Self::Partitions { .. } | Self::Unrecorded { .. } | Self::UnknownLayout => "layout",
            Self::ForeignKey(_) => "wrong_type",
            Self::TooManySegments(_) => "too_many_segments",
        }
    }

    /// Whether Redis or the data set failed, and not one segment.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        !matches!(self.reach(), Reach::Key)
    }

    /// Whether a key holds another type.
    #[must_use]
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_wrong_type())
    }

    /// Whether Redis refused this command and may run others: it doesn't have the command, or an ACL forbids it on these keys.
    #[must_use]
    pub fn is_refused_command(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_refused_command())
    }

    /// Whether the layout of the data set is unusable.
    pub(crate) fn is_of_the_layout(&self) -> bool {
        self.reach() == Reach::DataSet
    }

    /// This error as the log and the metrics see it.
    pub(crate) fn as_failure(&self) -> Failure<'_> {
        Failure { error: self, kind: self.kind(), reach: self.reach() }
    }

    fn reach(&self) -> Reach {
        match self {
            Self::Redis(error) => error.as_failure().reach,
            Self::Overloaded(_) => Reach::Redis { writes_alone: false },
            Self::Partitions { .. } | Self::Unrecorded { .. } | Self::UnknownLayout => Reach::DataSet,
            Self::ForeignKey(_) | Self::TooManySegments(_) => Reach::Key,
        }
    }
}
