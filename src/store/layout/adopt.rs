//! Adopting a data set without a record: the key sets that it may have, and their content.

use std::collections::{BTreeMap, BTreeSet};

use ::redis::cmd;

use super::Layout;
use crate::domain::{SegmentName, Timestamp, Window};
use crate::redis::Request;
use crate::store::diagnostics::Survey;
use crate::store::keys::KeyKind;
use crate::store::own_keys::OwnKeys;
use crate::store::partition::{Partition, Partitions, hash};
use crate::store::{Coverage, Error, KeySet, SegmentKey, Store};

/// The keys of a database without a record that may be a data set.
#[derive(Debug)]
pub struct UnrecordedData {
    /// The key sets that the data set may have.
    pub candidates: Vec<Candidate>,
    /// The content of keys that belong to no candidate, by pattern.
    pub unfit: BTreeMap<String, Survey>,
    /// A key of bounded segments whose maximum number of members is unknown. Then there is nothing to adopt.
    pub bounded: Option<String>,
    /// The window that the data set will get.
    pub window: Window,
    /// Whether all keys were scanned. Otherwise there may be others.
    pub coverage: Coverage,
    /// The partitions that have a key.
    partitions: BTreeSet<Partition>,
}

/// A key set that a data set may have.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The key set.
    pub keys: KeySet,
    /// A pattern of the keys.
    pub pattern: String,
    /// Whether every sampled user is in the right partition. Otherwise most of them are.
    pub fits: bool,
    /// The content of the keys.
    pub survey: Survey,
    /// The number of unexpired members in keys outside of this set, by pattern. Adopting the set would hide them.
    pub hidden: BTreeMap<String, u64>,
}

impl UnrecordedData {
    /// Whether no key may belong to a data set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.unfit.is_empty() && self.bounded.is_none()
    }

    /// Returns the last partition with a key if its number is too high for `partitions`.
    #[must_use]
    pub fn beyond(&self, partitions: Partitions) -> Option<Partition> {
        let last = self.partitions.iter().max_by_key(|partition| partition.number());
        last.copied().filter(|last| !last.is_below(partitions))
    }
}

impl Store {
    /// Maximum number of users that are sampled in a partition to derive the number of partitions.
    const MAX_WITNESSES: usize = 100;
    /// Maximum percentage of witnesses in a wrong partition for a candidate that an operator must confirm. With twice
    /// the right number of partitions, it would be 50.
    const MAX_STRAY_PERCENT: usize = 20;

    /// Searches a database without a record for keys that may be a data set, and counts the members that have expired
    /// at `now`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn survey_unrecorded(&self, now: Timestamp) -> Result<UnrecordedData, Error> {
        let evidence = self.find_evidence().await?;
        let plain = KeySet::plain();
        // Only a record has the bound of a partition.
        let recorded = |partition: Partition| {
            let mut keysets = evidence.layout.iter().flat_map(Layout::all);
            keysets.find(|keys| keys.has(partition)).map_or(partition, |keys| keys.own(partition))
        };
        let mut partitions: BTreeSet<_> = evidence.partitions.iter().copied().map(recorded).collect();
        partitions.extend(evidence.is_plain.then(|| recorded(plain.of(0))));
        let mut bounded = BTreeSet::new();
        let mut segments = BTreeMap::<_, BTreeSet<_>>::new();
        // The scan is complete, because adopting would hide a key that it misses.
        let OwnKeys { keys, coverage } = self.own_keys(usize::MAX, |_| false).await?;
        for own in keys {
            // On a cluster, a data set has no plain keys.
            if self.is_cluster() && plain.has(own.partition) {
                continue;
            }
            let partition = recorded(own.partition);
            if own.kind.is_of_bounded_segments() && partition.bound().is_none() {
                bounded.insert(own.key);
                continue;
            }
            match own.kind {
                KeyKind::Index => {
                    partitions.insert(partition);
                }
                KeyKind::Segment(name) | KeyKind::SegmentLevel(_, name) => {
                    if let Ok(name) = SegmentName::parse(name) {
                        partitions.insert(partition);
                        segments.entry(partition).or_default().insert(name);
                    }
                }
                KeyKind::Depths | KeyKind::History | KeyKind::Change | KeyKind::Layout | KeyKind::Tombstones => {}
            }
        }

        let keysets = self.keysets(evidence.layout.as_ref(), &partitions, &segments).await?;
        let keysets = if keysets.is_empty() && partitions.is_empty() && evidence.has_other() {
            vec![(KeySet::first(self.partitions_for_new_set().await?, None), true)]
        } else {
            keysets
        };
        let kept = self.latest_layout_in(Partition::every()).await.and_then(|layout| layout.window);
        let window = [self.window, kept].into_iter().flatten().fold(Window::DEFAULT, Window::max);

        let surveys = self.survey_found(&partitions, segments, window.cutoff(now)).await?;
        let of = |has: &dyn Fn(Partition) -> bool| {
            let surveys = surveys.iter().filter(|(partition, _)| has(*partition));
            surveys.map(|(_, survey)| survey.clone()).fold(Survey::default(), Survey::merge)
        };
        let candidate = |(keys, fits): (KeySet, bool)| {
            let mut hidden = BTreeMap::new();
            for (partition, survey) in surveys.iter().filter(|(partition, _)| !keys.has(*partition)) {
                *hidden.entry(self.key_names.pattern_like(*partition)).or_default() += survey.unexpired();
            }
            let pattern = self.key_names.pattern_like(keys.of(0));
            Candidate { keys, pattern, fits, survey: of(&|partition| keys.has(partition)), hidden }
        };
        let is_unfit = |partition: Partition| !keysets.iter().any(|(keys, _)| keys.has(partition));
        let pattern_like = |partition| self.key_names.pattern_like(partition);
        let unfit: BTreeSet<_> =
            partitions.iter().copied().filter(|partition| is_unfit(*partition)).map(pattern_like).collect();
        let unfit = unfit.into_iter().map(|pattern| {
            let survey = of(&|partition| is_unfit(partition) && pattern_like(partition) == pattern);
            (pattern, survey)
        });
        let unfit = unfit.collect();
        Ok(UnrecordedData {
            candidates: keysets.into_iter().map(candidate).collect(),
            unfit,
            bounded: bounded.pop_first(),
            window,
            coverage,
            partitions,
        })
    }

    /// Returns the key sets that a data set may have, and whether every sampled user is in the right partition of each.
    /// Plain keys and those with the letters `p` and `q` are checked separately, because some may be left from a
    /// resharding or belong to another program.
    async fn keysets(
        &self,
        layout: Option<&Layout>,
        partitions: &BTreeSet<Partition>,
        segments: &BTreeMap<Partition, BTreeSet<SegmentName<'static>>>,
    ) -> Result<Vec<(KeySet, bool)>, Error> {
        let plain = KeySet::plain();
        let mut keysets: Vec<_> = layout.map(|layout| (layout.read(), true)).into_iter().collect();
        if partitions.contains(&plain.of(0)) && !keysets.contains(&(plain, true)) {
            keysets.insert(0, (plain, true));
        }
        // The key sets of a record need no check.
        let is_recorded =
            |partition: &Partition| layout.is_some_and(|layout| layout.all().any(|keys| keys.is_tagged_as(*partition)));
        let unrecorded: Vec<_> =
            partitions.iter().copied().filter(|partition| !plain.has(*partition) && !is_recorded(partition)).collect();
        let mut witnesses = Vec::new();
        for partition in &unrecorded {
            let users = self.witnesses(*partition, segments.get(partition)).await?;
            witnesses.extend(users.into_iter().map(|user_id| (*partition, hash(&user_id))));
        }
        let fitting: Vec<_> = KeySet::fitting(&unrecorded, &witnesses, 0).collect();
        let is_fit = |keys: &KeySet| fitting.iter().any(|fitting| fitting.is_tagged_as(keys.of(0)));
        let nearly_fitting =
            KeySet::fitting(&unrecorded, &witnesses, Self::MAX_STRAY_PERCENT).filter(|keys| !is_fit(keys));
        keysets.extend(nearly_fitting.map(|keys| (keys, false)));
        keysets.extend(fitting.iter().map(|keys| (*keys, true)));
        Ok(keysets)
    }

    /// Samples users of `partition` from the segments in its index and from the segments `found` by the scan. Skips
    /// keys of another type.
    async fn witnesses(
        &self,
        partition: Partition,
        found: Option<&BTreeSet<SegmentName<'static>>>,
    ) -> Result<Vec<String>, Error> {
        let index = match self.index_of(partition, None, Self::MAX_WITNESSES).await {
            Err(error) if error.is_wrong_type() => Vec::new(),
            index => index?.segments,
        };
        let mut users = Vec::new();
        let unindexed = found.into_iter().flatten().filter(|segment| !index.contains(segment));
        for segment in index.iter().chain(unindexed.take(Self::MAX_WITNESSES)) {
            let page = match self.members(SegmentKey { partition, level: None }, segment, None).await {
                Err(error) if error.is_wrong_type() => continue,
                page => page?,
            };
            users.extend(page.members.into_iter().map(|(user_id, _)| user_id.as_str().to_owned()));
            if users.len() >= Self::MAX_WITNESSES {
                break;
            }
        }
        users.truncate(Self::MAX_WITNESSES);
        Ok(users)
    }

    /// Records the layout of a data set without a record: `keys`, whose members are kept for `window`. Returns the
    /// layout in force.
    ///
    /// Before that, adds the segments `unindexed` to the indexes. A segment that is missing from its index is never
    /// listed, pruned or moved.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn adopt(
        &self,
        keys: KeySet,
        window: Window,
        unindexed: &[(Partition, SegmentName<'static>)],
    ) -> Result<Layout, Error> {
        const NAMES_PER_REQUEST: usize = 1_000;
        for chunk in unindexed.chunks(NAMES_PER_REQUEST) {
            let additions = chunk.iter().map(|(partition, segment)| {
                let mut add = cmd("ZADD");
                add.arg(self.key_names.index(*partition)).arg(0).arg(segment.as_str());
                (partition.slot(), add)
            });
            for answer in self.client.send_by_server::<u64>(additions, Request::each).await? {
                answer?;
            }
        }
        let epoch = self.latest_layout_in(Partition::every()).await.map_or(0, |layout| layout.epoch) + 1;
        let adopted = Layout { epoch, window: Some(window), ..Layout::of_keys(keys) };
        self.record_first(&adopted).await?;
        self.read_layout().await.map(|known| known.layout)
    }
}
