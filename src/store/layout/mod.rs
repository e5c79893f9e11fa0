//! The layout of the data set: its keys, a resharding in progress, and how long members are kept.
//!
//! # The record
//!
//! The layout is recorded as one JSON text, in the key `layout` and in a copy in each partition ([`Layout::record`]).
//! Every change increments the epoch. A change replaces `layout` first, atomically and only if it still holds the
//! previous record, and then every copy. Therefore no partition has a newer record than `layout`, unless a failover
//! lost a write. In that case the newest record wins ([`Layout::order`]).
//!
//! # Confirming the layout
//!
//! An instance caches the layout. Each read or write of a partition also reads the partition's copy of the record,
//! *after* the commands and in the same pipeline. If the copy equals the cached record, the cached layout was in force
//! when the server executed the commands, and the result is [`Attempt::Committed`]. Otherwise the result is
//! [`Attempt::Stale`]: the instance reads `layout` again and repeats the request. Writes are idempotent, so a repeated
//! write does no harm.
//!
//! # Changing the layout
//!
//! A step takes effect once every partition has its record. From then on, a request that used the previous step has its
//! answer already, or is stale and is repeated. Instances may be one step apart while a step is being recorded. Each
//! [`Phase`] is therefore compatible with its neighbours: if instances use adjacent phases at the same time, every key
//! set that one of them reads is written by all of them.

/// Lua that decodes the text `known` into `record`, and decides in `is_record` whether it is a record of any version.
/// Other values belong to other programs.
macro_rules! decode_known {
    () => {
        "\
local is_json, record = pcall(cjson.decode, known)
local is_record = is_json and type(record) == 'table' and type(record.epoch) == 'number' and type(record.keys) == 'string'
"
    };
}

/// Prepends a guard against later layouts to a script. If the record `KEYS[1]` has a later epoch than `ARGV[1]`, the
/// script returns -1 and does nothing. Therefore a process that was suspended and resumes after a later step changes no key
/// that is used differently now. A value that is not a record has no effect.
macro_rules! unless_later {
    ($script:literal) => {
        concat!(
            "\
local known = redis.pcall('GET', KEYS[1])
if type(known) == 'table' then
  if not string.find(known.err, 'WRONGTYPE', 1, true) then return known end
  known = ''
end
known = known or ''
",
            $crate::store::layout::decode_known!(),
            "\
if is_record and record.epoch > tonumber(ARGV[1]) then return -1 end
",
            $script
        )
    };
}

pub(in crate::store) use {decode_known, unless_later};

mod adopt;
mod copying;
mod obstacle;
mod recorded;
mod refusal;
mod resharding;
mod segment_deletion;
mod unrecorded;
mod window;

use ::redis::Value;
use serde::{Deserialize, Serialize};

pub use self::adopt::{Candidate, UnrecordedData};
pub(super) use self::recorded::Attempt;
pub(super) use self::refusal::Refusal;
pub(super) use self::segment_deletion::SegmentDeletion;
pub use self::window::WindowChange;
use super::{KeySet, MaxMembers, Partitions};
use crate::domain::Window;
use crate::redis;
use crate::store::Error;

/// The layout of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// The number of the layout. Each change increments it.
    epoch: u64,
    keys: KeySet,
    #[serde(rename = "move", skip_serializing_if = "Option::is_none")]
    resharding: Option<Resharding>,
    /// How long members are kept. Records of earlier versions lack it.
    #[serde(rename = "window_seconds", default, skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    /// A proposed shorter window. An instance that counts over a longer one withdraws it; otherwise it takes effect.
    #[serde(rename = "shorter_window_seconds", default, skip_serializing_if = "Option::is_none")]
    shorter: Option<Window>,
}

/// A resharding in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resharding {
    /// The new key set.
    pub to: KeySet,
    /// The current step.
    pub phase: Phase,
}

/// The phase of a resharding. Before the first phase, instances read and write the old key set; after the last, the new
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Instances write both key sets and read the old one, whose members are copied to the new one.
    #[serde(rename = "copying")]
    Backfill,
    /// Instances write both key sets and read the new one, which is complete. Others may still read the old one.
    #[serde(rename = "switched")]
    Cutover,
    /// Instances use the new key set alone. The old one is deleted.
    #[serde(rename = "cleaning")]
    Cleanup,
}

impl Layout {
    /// Returns the first layout of a new data set.
    pub(super) fn first(partitions: Partitions, max_members: Option<MaxMembers>) -> Self {
        Self::of_keys(KeySet::first(partitions, max_members))
    }

    /// Returns the first layout of a data set that has `keys`.
    pub(super) fn of_keys(keys: KeySet) -> Self {
        Self { epoch: 1, keys, resharding: None, window: None, shorter: None }
    }

    /// Returns the layout that follows this one.
    pub(super) fn next(&self, keys: KeySet, resharding: Option<Resharding>) -> Self {
        Self { epoch: self.epoch + 1, keys, resharding, ..*self }
    }

    /// Whether `other` has the same keys and the same phase of the same resharding.
    #[must_use]
    pub fn is_laid_out_as(&self, other: &Self) -> bool {
        (self.keys, self.resharding) == (other.keys, other.resharding)
    }

    /// How long members are kept; `None` if no instance of this version has used the data set.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// Returns the layout that must be recorded before an instance counts over `window`; `None` if this one permits it.
    /// A record without a window permits the default one.
    fn kept_for(&self, window: Window) -> Option<Self> {
        let kept = self.window.unwrap_or(Window::DEFAULT).max(window);
        let shorter = self.shorter.filter(|shorter| *shorter >= window && *shorter < kept);
        let is_enough = (self.window, self.shorter) == (Some(kept), shorter);
        (!is_enough).then(|| Self { epoch: self.epoch + 1, window: Some(kept), shorter, ..*self })
    }

    /// Whether this layout permits an instance to count over `window`.
    fn is_kept_for(&self, window: Option<Window>) -> bool {
        window.is_none_or(|window| self.kept_for(window).is_none())
    }

    /// Returns the sort key of records, oldest first. After a failover two processes may have taken different steps
    /// with the same epoch. Either may win, but all instances must agree, so the bytes decide.
    pub(super) fn order(&self) -> (u64, u64, String) {
        (self.epoch, self.window.map_or(0, Window::as_secs), self.record())
    }

    /// Returns the key set; during a resharding, the old one.
    #[must_use]
    pub fn keys(&self) -> KeySet {
        self.keys
    }

    /// Returns the resharding in progress.
    #[must_use]
    pub fn resharding(&self) -> Option<Resharding> {
        self.resharding
    }

    /// Returns the key set that counts read.
    #[must_use]
    pub fn read(&self) -> KeySet {
        match self.resharding {
            Some(Resharding { to, phase: Phase::Cutover | Phase::Cleanup }) => to,
            Some(Resharding { phase: Phase::Backfill, .. }) | None => self.keys,
        }
    }

    /// Returns the key sets that visits are written to.
    pub fn written(&self) -> impl Iterator<Item = KeySet> {
        let read = self.read();
        let other = match self.resharding {
            Some(Resharding { to, phase: Phase::Backfill }) => Some(to),
            Some(Resharding { phase: Phase::Cutover, .. }) => Some(self.keys),
            Some(Resharding { phase: Phase::Cleanup, .. }) | None => None,
        };
        [read].into_iter().chain(other)
    }

    /// Returns the key sets that visits are written to, in the order of deletions. The one that counts read is the last:
    /// a concurrent visit that it keeps was written to the other one after the deletion there, unless it took longer to
    /// write than to delete.
    pub(super) fn deleted_from(&self) -> impl Iterator<Item = KeySet> {
        self.written().collect::<Vec<_>>().into_iter().rev()
    }

    /// Returns all key sets but one that is being deleted.
    pub(super) fn in_use(&self) -> impl Iterator<Item = KeySet> {
        let is_deleted = matches!(self.resharding, Some(Resharding { phase: Phase::Cleanup, .. }));
        self.all().skip(usize::from(is_deleted))
    }

    /// Returns all key sets, the old one first.
    pub(super) fn all(&self) -> impl Iterator<Item = KeySet> {
        [self.keys].into_iter().chain(self.resharding.map(|resharding| resharding.to))
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the text of its record.
    pub(super) fn record(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings serialize")
    }

    fn read_record(record: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(record).map_err(|_| Error::UnreadableLayout)
    }

    /// Refuses the layout if the settings require another number of partitions, or another maximum of members.
    fn check(&self, partitions: Option<Partitions>, max_members: Option<MaxMembers>) -> Result<(), Error> {
        let recorded = self.read();
        match (partitions, max_members) {
            (Some(set), _) if self.all().all(|keys| keys.partitions() != set) => {
                Err(Error::Partitions { recorded: recorded.partitions(), set })
            }
            (_, Some(set)) if self.all().all(|keys| keys.max_members() != Some(set)) => {
                Err(Error::MaxMembers { recorded: recorded.max_members(), set })
            }
            _ => Ok(()),
        }
    }
}

/// A layout with its record, which each reply is compared with.
#[derive(Debug)]
pub(super) struct KnownLayout {
    pub(super) layout: Layout,
    record: Vec<u8>,
}

impl KnownLayout {
    pub(super) fn new(layout: Layout) -> Self {
        let record = layout.record().into_bytes();
        Self { layout, record }
    }

    /// Whether `answer`, a partition's copy of the record, is this record.
    pub(super) fn is_confirmed_by(&self, answer: &Value) -> bool {
        matches!(answer, Value::BulkString(record) if *record == self.record)
    }

    /// Whether all `answers` are this record.
    ///
    /// # Errors
    ///
    /// The first error of `answers`.
    pub(super) fn are_confirmed_by(&self, answers: Vec<Result<Value, redis::Error>>) -> Result<bool, redis::Error> {
        for answer in answers {
            if !self.is_confirmed_by(&answer?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
