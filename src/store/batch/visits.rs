//! Visits that are written together.

use std::fmt;
use std::hash::BuildHasher as _;
use std::ops::Range;

use ::redis::{Arg, Cmd};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::domain::{SegmentName, Timestamp, UserId, Visit, Visits};
use crate::store::partition::hash;

/// Visits that are written together, in any order and with any repetition.
#[derive(Default)]
pub struct Batch {
    pub(super) visits: Vec<BatchEntry>,
    /// The names of the segments, in order of their first visit. Elsewhere, an index of this list stands for a segment.
    pub(super) segment_names: Vec<Box<str>>,
    segments_by_name: HashTable<usize>,
    hasher: RandomState,
    /// The ids of the users, concatenated.
    pub(super) user_ids: String,
}

/// A visit of a batch.
pub(super) struct BatchEntry {
    pub(super) segment: usize,
    /// The range of the id in [`Batch::user_ids`].
    pub(super) user_id: Range<usize>,
    /// The hash of the user's id, which decides the partition.
    pub(super) hash: u64,
    pub(super) seen_at: Timestamp,
}

impl Batch {
    /// Maximum number of segments that [`Self::with_capacity`] allocates memory for.
    const MAX_SEGMENTS_AT_FIRST: usize = 64;

    /// Returns an empty batch that has allocated memory for `visits`.
    #[must_use]
    pub fn with_capacity(visits: usize) -> Self {
        let segments = visits.min(Self::MAX_SEGMENTS_AT_FIRST);
        Self {
            visits: Vec::with_capacity(visits),
            segment_names: Vec::with_capacity(segments),
            segments_by_name: HashTable::with_capacity(segments),
            ..Self::default()
        }
    }

    /// Adds a copy of `visit`.
    pub fn add(&mut self, visit: &Visit<'_>) {
        self.add_each(&visit.user_id, std::slice::from_ref(&visit.segment), visit.seen_at);
    }

    /// Adds a copy of each of `visits`, in the order of their segments.
    pub fn add_all(&mut self, visits: &Visits<'_>) {
        self.add_each(&visits.user_id, visits.segments.as_slice(), visits.seen_at);
    }

    /// Adds a visit of `user_id` to each of `segments`. The visits share the copy of the id.
    fn add_each(&mut self, user_id: &UserId<'_>, segments: &[SegmentName<'_>], seen_at: Timestamp) {
        let (user_id, start) = (user_id.as_str(), self.user_ids.len());
        self.user_ids.push_str(user_id);
        let (range, hash) = (start..self.user_ids.len(), hash(user_id));
        for segment in segments {
            let segment = self.index_of_segment(segment.as_str());
            self.visits.push(BatchEntry { segment, user_id: range.clone(), hash, seen_at });
        }
    }

    /// Returns the index of the segment `name`, which becomes a segment of the batch.
    fn index_of_segment(&mut self, name: &str) -> usize {
        let Self { segment_names, segments_by_name, hasher, .. } = self;
        let known = segments_by_name.find(hasher.hash_one(name), |index| &*segment_names[*index] == name);
        known.copied().unwrap_or_else(|| {
            let index = segment_names.len();
            segment_names.push(name.into());
            segments_by_name
                .insert_unique(hasher.hash_one(name), index, |index| hasher.hash_one(&*segment_names[*index]));
            index
        })
    }

    /// Returns the number of visits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.visits.len()
    }

    /// Whether there are no visits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.visits.is_empty()
    }

    /// Returns the names of the segments, in order of their first visit.
    pub(in crate::store) fn segment_names(&self) -> &[Box<str>] {
        &self.segment_names
    }

    /// Returns the indices of the visits to `segments`, which ascend.
    pub(in crate::store) fn visits_to(&self, segments: &[usize]) -> impl Iterator<Item = usize> {
        let visits = self.visits.iter().enumerate();
        visits.filter(|(_, visit)| segments.binary_search(&visit.segment).is_ok()).map(|(index, _)| index)
    }

    /// Returns the arguments of `command`, one of [`Self::partition_batches`], from the first score on.
    pub(in crate::store) fn members_of(command: &Cmd) -> impl Iterator<Item = &[u8]> {
        let words = command.args_iter().filter_map(|word| if let Arg::Simple(word) = word { Some(word) } else { None });
        words.skip("ZADD key GT".split(' ').count())
    }
}

impl fmt::Debug for Batch {
    /// Shows sizes alone, since no user's id may reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("segments", &self.segment_names.len())
            .field("visits", &self.len())
            .finish_non_exhaustive()
    }
}
