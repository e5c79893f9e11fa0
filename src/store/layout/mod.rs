//! How the data set is laid out: which keys it has, whether it is on its way to others, and how long its members are kept.
//!
//! The record is one text, in the key `layout` and, so that every exchange can look at it where it is, once more in each
//! partition. Whoever writes or counts goes by the layout that he knows, and has the partition's record read *behind* what he
//! does, in the same pipeline. Is it the one that he went by, then it was in force when the server did what was asked, and all
//! is well. Is it another, he reads `layout` again and does his work once more: whatever is written may be written twice.
//!
//! So a step of a move is in force as soon as it stands in every partition: who went by the step before has his answer, or does
//! his work again. `layout` is written first, so that nobody finds a newer record in a partition than there. Steps that follow
//! each other may be in force at the same time, in one service and another; that is what [`Phase`] is made of.

mod adopt;
mod obstacle;
mod recorded;
mod refusal;
mod resharding;
mod unrecorded;
mod window;

use ::redis::Value;
use serde::{Deserialize, Serialize};

pub use self::adopt::{Candidate, Unrecorded};
pub(super) use self::recorded::Attempt;
pub(super) use self::refusal::Refusal;
pub use self::window::WindowChange;
use super::{KeySet, Partitions};
use crate::domain::Window;
use crate::redis;
use crate::store::Error;

/// Which keys the data set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Counts the changes.
    epoch: u64,
    keys: KeySet,
    #[serde(rename = "move", skip_serializing_if = "Option::is_none")]
    resharding: Option<Resharding>,
    /// How long members are kept. A record of an earlier version has none.
    #[serde(rename = "window_seconds", default, skip_serializing_if = "Option::is_none")]
    window: Option<Window>,
    /// A shorter window that is about to replace it, unless an instance that counts over a longer one strikes it out.
    #[serde(rename = "shorter_window_seconds", default, skip_serializing_if = "Option::is_none")]
    shorter: Option<Window>,
}

/// A move to other keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resharding {
    /// To these.
    pub to: KeySet,
    /// How far it is.
    pub phase: Phase,
}

/// How far a move to other keys is. Before the first everybody reads and writes the old keys, after the last the new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Visits are written to both, counts are of the old. What is there already is copied meanwhile.
    #[serde(rename = "copying")]
    Backfill,
    /// Visits are written to both, for those who count the old still; counts are of the new, which have everything.
    #[serde(rename = "switched")]
    Cutover,
    /// Nobody looks at the old any more, and they are deleted.
    #[serde(rename = "cleaning")]
    Cleanup,
}

impl Layout {
    /// The layout of a data set that is made now.
    pub(super) fn first(partitions: Partitions) -> Self {
        Self::of_keys(KeySet::first(partitions))
    }

    /// The first layout of a data set that has `keys`.
    pub(super) fn of_keys(keys: KeySet) -> Self {
        Self { epoch: 1, keys, resharding: None, window: None, shorter: None }
    }

    /// The next step of this one.
    pub(super) fn next(&self, keys: KeySet, resharding: Option<Resharding>) -> Self {
        Self { epoch: self.epoch + 1, keys, resharding, ..*self }
    }

    /// Whether `other` has the same keys and is as far in the same move.
    #[must_use]
    pub fn is_laid_out_as(&self, other: &Self) -> bool {
        (self.keys, self.resharding) == (other.keys, other.resharding)
    }

    /// How long members are kept; not known of a data set that no instance of this version has used.
    #[must_use]
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// The layout that must be recorded before an instance counts over `window`; none if it may as it is. A record of a version that
    /// knew no window is of a data set that may be counted over the default one.
    fn kept_for(&self, window: Window) -> Option<Self> {
        let kept = self.window.unwrap_or(Window::DEFAULT).max(window);
        let shorter = self.shorter.filter(|shorter| *shorter >= window && *shorter < kept);
        let is_enough = (self.window, self.shorter) == (Some(kept), shorter);
        (!is_enough).then(|| Self { epoch: self.epoch + 1, window: Some(kept), shorter, ..*self })
    }

    /// Whether an instance may count over `window` by it.
    fn is_kept_for(&self, window: Option<Window>) -> bool {
        window.is_none_or(|window| self.kept_for(window).is_none())
    }

    /// What decides which of two records is the newer one. After a failover two processes may have taken different steps with the same
    /// number. Which of them counts doesn't matter, as long as everybody takes the same one for the newer: the bytes decide.
    pub(super) fn order(&self) -> (u64, u64, String) {
        (self.epoch, self.window.map_or(0, Window::as_secs), self.record())
    }

    /// The keys that it had before a move, if there is one, and those that it has if not.
    #[must_use]
    pub fn keys(&self) -> KeySet {
        self.keys
    }

    /// The move that is under way.
    #[must_use]
    pub fn resharding(&self) -> Option<Resharding> {
        self.resharding
    }

    /// The keys that counts are of.
    #[must_use]
    pub fn read(&self) -> KeySet {
        match self.resharding {
            Some(Resharding { to, phase: Phase::Cutover | Phase::Cleanup }) => to,
            Some(Resharding { phase: Phase::Backfill, .. }) | None => self.keys,
        }
    }

    /// The keys that visits are written to: one set of them, or two.
    pub fn written(&self) -> impl Iterator<Item = KeySet> {
        let read = self.read();
        let other = match self.resharding {
            Some(Resharding { to, phase: Phase::Backfill }) => Some(to),
            Some(Resharding { phase: Phase::Cutover, .. }) => Some(self.keys),
            Some(Resharding { phase: Phase::Cleanup, .. }) | None => None,
        };
        [read].into_iter().chain(other)
    }

    /// All keys that it has, or is about to have. Those that are being deleted are nobody's.
    pub(super) fn in_use(&self) -> impl Iterator<Item = KeySet> {
        let is_deleted = matches!(self.resharding, Some(Resharding { phase: Phase::Cleanup, .. }));
        self.all().skip(usize::from(is_deleted))
    }

    /// All keys that it has, had until lately, or is about to have: the older first.
    pub(super) fn all(&self) -> impl Iterator<Item = KeySet> {
        [self.keys].into_iter().chain(self.resharding.map(|resharding| resharding.to))
    }

    /// How many changes there were before it.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// As it is recorded.
    pub(super) fn record(&self) -> String {
        serde_json::to_string(self).expect("it is made of numbers and texts")
    }

    fn read_record(record: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(record).map_err(|_| Error::UnknownLayout)
    }

    /// Refuses it if the operator expects another number of partitions.
    fn check(&self, expected: Option<Partitions>) -> Result<(), Error> {
        let is_expected = |expected| self.all().any(|keys| keys.partitions() == expected);
        match expected {
            Some(set) if !is_expected(set) => Err(Error::Partitions { recorded: self.read().partitions(), set }),
            _ => Ok(()),
        }
    }
}

/// A layout, and its record, which is compared at every exchange.
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

    /// Whether `answer`, the value of a partition's record, is this record.
    pub(super) fn is_confirmed_by(&self, answer: &Value) -> bool {
        matches!(answer, Value::BulkString(record) if *record == self.record)
    }

    /// Whether all `answers` are this record.
    ///
    /// # Errors
    ///
    /// The first of the errors among them.
    pub(super) fn are_confirmed_by(&self, answers: Vec<Result<Value, redis::Error>>) -> Result<bool, redis::Error> {
        for answer in answers {
            if !self.is_confirmed_by(&answer?) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
