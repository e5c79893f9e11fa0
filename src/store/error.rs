//! Errors of the store.

use super::{MaxMembers, Partitions};
use crate::domain::counted;
use crate::redis::{self, Failure, Reach};

/// An error of a request to the store. A write may have taken effect.
///
/// The texts are for logs. They contain names of commands and keys, and Redis's state, but never a user's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Redis failed or refused a command.
    #[error(transparent)]
    Redis(#[from] redis::Error),
    /// The request was rejected: the maximum number of requests is pending.
    #[error("{} already waiting for Redis", counted(*.0 as u64, "request is", "requests are"))]
    Overloaded(usize),
    /// The number of partitions differs from the setting.
    #[error(
        "the data set has {}, but partitions is {set}: unset it, or move the data with \
         `segment-estimator repartition --to {set}`",
        recorded.in_words()
    )]
    Partitions {
        /// The number in the layout record.
        recorded: Partitions,
        /// The number in the settings.
        set: Partitions,
    },
    /// The maximum number of members of a segment differs from the setting.
    #[error(
        "{}, but max_members is {set}: unset it, or move the data with `segment-estimator repartition --max-members {set}`",
        recorded.map_or_else(
            || "the segments of the data set keep all members".to_owned(),
            |recorded| format!("the segments of the data set keep up to {recorded} members")
        )
    )]
    MaxMembers {
        /// The number in the layout record; `None` if segments keep all members.
        recorded: Option<MaxMembers>,
        /// The number in the settings.
        set: MaxMembers,
    },
    /// Keys of a data set may exist, but there is no layout record.
    #[error(
        "the database has {found} and no data set of this service, whose record is `{record}`: if the data belongs to another \
         program, set redis_key_prefix; if it belongs to this service, run `segment-estimator adopt`"
    )]
    Unrecorded {
        /// The keys, or a pattern of them.
        found: String,
        /// The key of the record.
        record: String,
    },
    /// A key holds a value that this service didn't write.
    #[error("`{0}` holds a value that this service didn't write: rename the key, or set redis_key_prefix")]
    ForeignKey(String),
    /// The layout record can't be read.
    #[error(
        "the key `layout`, with redis_key_prefix in front, holds no record that this version can read: if the key belongs to another \
         program, set redis_key_prefix"
    )]
    UnreadableLayout,
    /// No attempt of a request found a layout that its partitions confirm.
    #[error(
        "the key `layout`, with redis_key_prefix in front, or its copy in a partition, holds no record or changes constantly: if the key \
         belongs to another program, set redis_key_prefix"
    )]
    UnconfirmedLayout,
    /// Another process has changed the layout, so that the one of the caller is no longer in force.
    #[error("another process changed the layout of the data set; try again")]
    LayoutChanged,
    /// The depth of the segment changes faster than it can be deleted.
    #[error("the sample of {0} changes constantly, so that it can't be deleted; try again")]
    UnsettledDepth(String),
    /// The visit is to a new segment, and the maximum number of segments exists. Nothing was written.
    #[error(
        "the segment would be new, and {} already, the maximum that max_segments allows",
        counted(*.0, "segment exists", "segments exist")
    )]
    TooManySegments(u64),
}

impl Error {
    /// Returns the name of this error in the metrics: one of `telemetry::ERROR_KINDS`, or `too_many_segments`, which is
    /// not a failure of Redis.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Redis(error) => error.kind(),
            Self::Overloaded(_) => "overloaded",
            Self::Partitions { .. }
            | Self::MaxMembers { .. }
            | Self::Unrecorded { .. }
            | Self::UnreadableLayout
            | Self::UnconfirmedLayout
            | Self::LayoutChanged
            | Self::UnsettledDepth(_) => "layout",
            Self::ForeignKey(_) => "wrong_type",
            Self::TooManySegments(_) => "too_many_segments",
        }
    }

    /// Whether it affects Redis or the data set, not one segment.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        !matches!(self.reach(), Reach::Key)
    }

    /// Whether a key holds another type.
    #[must_use]
    pub fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_wrong_type())
    }

    /// Whether Redis refused this command alone: it lacks the command, or an ACL forbids it on these keys.
    #[must_use]
    pub fn is_refused_command(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_refused_command())
    }

    /// Whether the layout of the data set is unusable.
    pub(crate) fn is_of_the_layout(&self) -> bool {
        self.reach() == Reach::DataSet
    }

    /// Returns this error as the log and the metrics need it.
    pub(crate) fn as_failure(&self) -> Failure<'_> {
        Failure { error: self, kind: self.kind(), reach: self.reach() }
    }

    fn reach(&self) -> Reach {
        match self {
            Self::Redis(error) => error.as_failure().reach,
            Self::Overloaded(_) => Reach::Redis { writes_alone: false },
            Self::Partitions { .. }
            | Self::MaxMembers { .. }
            | Self::Unrecorded { .. }
            | Self::UnreadableLayout
            | Self::UnconfirmedLayout
            | Self::LayoutChanged => Reach::DataSet,
            Self::ForeignKey(_) | Self::UnsettledDepth(_) | Self::TooManySegments(_) => Reach::Key,
        }
    }
}
