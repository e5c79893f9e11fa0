//! Taking over a data set without a record: which keys it has, and what they hold.

use std::collections::{BTreeMap, BTreeSet};

use redis::cmd;

use super::Layout;
use crate::domain::{SegmentName, Timestamp, Window};
use crate::redis::Request;
use crate::store::diagnostics::Survey;
use crate::store::keys::{KeyKind, KeySet, Partition, Partitions, hash};
use crate::store::own_keys::OwnKeys;
use crate::store::{Coverage, Error, Store};

/// What a database without a record has that may be a data set.
#[derive(Debug)]
pub struct Unrecorded {
    /// The sets of keys that it may have.
    pub candidates: Vec<Candidate>,
    /// Keys that are of none of them: a pattern, and what they hold.
    pub unfit: BTreeMap<String, Survey>,
    /// How long its visits will be kept.
    pub window: Window,
    /// Whether all keys were looked at. If not, there may be others.
    pub coverage: Coverage,
    /// The partitions that have a key.
    partitions: BTreeSet<Partition>,
}

/// A set of keys that a data set may have.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The keys.
    pub keys: KeySet,
    /// A pattern of the keys.
    pub pattern: String,
    /// Whether each user that was looked at is in the right partition. If not, most of them are.
    pub fits: bool,
    /// What the keys hold.
    pub survey: Survey,
    /// The keys that would be hidden: a pattern, and how many unexpired members they have.
    pub hidden: BTreeMap<String, u64>,
}

impl Unrecorded {
    /// Whether there is no key that a data set may have.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.unfit.is_empty()
    }

    /// Returns a partition that proves that there are more than `partitions`.
    #[must_use]
    pub fn beyond(&self, partitions: Partitions) -> Option<Partition> {
        let last = self.partitions.iter().max_by_key(|partition| partition.number());
        last.copied().filter(|last| !last.is_below(partitions))
    }
}

impl Store {
    /// Members of a partition that tell how many partitions there are.
    const WITNESSES: usize = 100;
    /// How many of a hundred witnesses may be in a wrong partition, if an operator names the number of partitions: with twice as many
    /// partitions as there are, it is fifty.
    const STRAYS: usize = 20;

    /// Returns what a database without a record has that may be a data set, and how much of it will have expired at `now`.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn unrecorded(&self, now: Timestamp) -> Result<Unrecorded, Error> {
        let traces = self.traces().await?;
        let plain = KeySet::first(Partitions::ONE);
        let mut partitions: BTreeSet<_> = traces.partitions.iter().copied().collect();
        partitions.extend(traces.is_plain.then(|| plain.of(0)));
        let mut segments = BTreeMap::<_, BTreeSet<_>>::new();
        // An operator waits, and a key that isn't seen would be hidden.
        let OwnKeys { keys, coverage } = self.own_keys(usize::MAX, |_| false).await?;
        for own in keys {
            // A cluster keeps no data set in plain keys.
            if self.is_cluster() && plain.has(own.partition) {
                continue;
            }
            match own.kind {
                KeyKind::Index => {
                    partitions.insert(own.partition);
                }
                KeyKind::Segment(name) => {
                    if let Ok(name) = SegmentName::parse(name) {
                        partitions.insert(own.partition);
                        segments.entry(own.partition).or_default().insert(name);
                    }
                }
                KeyKind::History | KeyKind::Layout | KeyKind::Tombstones => {}
            }
        }

        let keysets = self.keysets(traces.layout.as_ref(), &partitions, &segments).await?;
        let keysets = if keysets.is_empty() && partitions.is_empty() && traces.has_other() {
            vec![(KeySet::first(self.partitions_of_a_new_set().await?), true)]
        } else {
            keysets
        };
        let kept = self.latest_layout_in(Partition::every()).await.and_then(|layout| layout.window);
        let window = [self.window, kept].into_iter().flatten().fold(Window::DEFAULT, Window::max);

        let surveys = self.survey_found(&partitions, segments, window.cutoff(now)).await?;
        let of = |has: &dyn Fn(Partition) -> bool| {
            let surveys = surveys.iter().filter(|(partition, _)| has(*partition));
            surveys.map(|(_, survey)| survey.clone()).fold(Survey::default(), Survey::and)
        };
        let candidate = |(keys, fits): (KeySet, bool)| {
            let mut hidden = BTreeMap::new();
            for (partition, survey) in surveys.iter().filter(|(partition, _)| !keys.has(*partition)) {
                *hidden.entry(self.names.pattern_like(*partition)).or_default() += survey.unexpired();
            }
            let pattern = self.names.pattern_like(keys.of(0));
            Candidate { keys, pattern, fits, survey: of(&|partition| keys.has(partition)), hidden }
        };
        let is_unfit = |partition: Partition| !keysets.iter().any(|(keys, _)| keys.has(partition));
        let pattern_like = |partition| self.names.pattern_like(partition);
        let unfit: BTreeSet<_> =
            partitions.iter().copied().filter(|partition| is_unfit(*partition)).map(pattern_like).collect();
        let unfit = unfit.into_iter().map(|pattern| {
            let survey = of(&|partition| is_unfit(partition) && pattern_like(partition) == pattern);
            (pattern, survey)
        });
        let unfit = unfit.collect();
        Ok(Unrecorded { candidates: keysets.into_iter().map(candidate).collect(), unfit, window, coverage, partitions })
    }

    /// Returns the sets of keys that may be those of a data set, and whether all users that were looked at fit. Plain keys, `p` and `q`
    /// are looked at separately: one of them may be a leftover of a move, or another program's.
    async fn keysets(
        &self,
        layout: Option<&Layout>,
        partitions: &BTreeSet<Partition>,
        segments: &BTreeMap<Partition, BTreeSet<SegmentName<'static>>>,
    ) -> Result<Vec<(KeySet, bool)>, Error> {
        let plain = KeySet::first(Partitions::ONE);
        let mut keysets: Vec<_> = layout.map(|layout| (layout.read(), true)).into_iter().collect();
        if partitions.contains(&plain.of(0)) && !keysets.contains(&(plain, true)) {
            keysets.insert(0, (plain, true));
        }
        // What a record tells of need not be found out.
        let is_known =
            |partition: &Partition| layout.is_some_and(|layout| layout.all().any(|keys| keys.is_tagged_as(*partition)));
        let unknown: Vec<_> =
            partitions.iter().copied().filter(|partition| !plain.has(*partition) && !is_known(partition)).collect();
        let mut witnesses = Vec::new();
        for partition in &unknown {
            let users = self.witnesses(*partition, segments.get(partition)).await?;
            witnesses.extend(users.into_iter().map(|user_id| (*partition, hash(&user_id))));
        }
        let fitting: Vec<_> = KeySet::fitting(&unknown, &witnesses, 0).collect();
        let is_fit = |keys: &KeySet| fitting.iter().any(|fitting| fitting.is_tagged_as(keys.of(0)));
        let nearly = KeySet::fitting(&unknown, &witnesses, Self::STRAYS).filter(|keys| !is_fit(keys));
        keysets.extend(nearly.map(|keys| (keys, false)));
        keysets.extend(fitting.iter().map(|keys| (*keys, true)));
        Ok(keysets)
    }

    /// Some users of a partition, whatever it holds: of segments that its index names, and of others that were `found`.
    async fn witnesses(
        &self,
        partition: Partition,
        found: Option<&BTreeSet<SegmentName<'static>>>,
    ) -> Result<Vec<String>, Error> {
        let index = match self.index_of(partition, None, Self::WITNESSES).await {
            Err(error) if error.is_wrong_type() => Vec::new(),
            index => index?.segments,
        };
        let mut users = Vec::new();
        let unindexed = found.into_iter().flatten().filter(|segment| !index.contains(segment));
        for segment in index.iter().chain(unindexed.take(Self::WITNESSES)) {
            let page = match self.members(partition, segment, None).await {
                Err(error) if error.is_wrong_type() => continue,
                page => page?,
            };
            users.extend(page.members.into_iter().map(|(user_id, _)| user_id.as_str().to_owned()));
            if users.len() >= Self::WITNESSES {
                break;
            }
        }
        users.truncate(Self::WITNESSES);
        Ok(users)
    }

    /// Records that the data set without a record has `keys` and keeps visits for `window`, and gives the layout that counts. Before,
    /// the indexes get the names of the segments in `unindexed`: what no index names is in no list, and is never pruned or moved.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn adopt(
        &self,
        keys: KeySet,
        window: Window,
        unindexed: &[(Partition, SegmentName<'static>)],
    ) -> Result<Layout, Error> {
        const AT_ONCE: usize = 1_000;
        for some in unindexed.chunks(AT_ONCE) {
            for at_a_server in self.client.by_server(some.to_vec(), |(partition, _)| partition.slot()).await? {
                let commands = at_a_server.iter().map(|(partition, segment)| {
                    let mut add = cmd("ZADD");
                    add.arg(self.names.index(*partition)).arg(0).arg(segment.as_str());
                    (partition.slot(), add)
                });
                let commands = Request::each(commands);
                for answer in self.client.send(commands).await?.each::<u64>() {
                    answer?;
                }
            }
        }
        let epoch = self.latest_layout_in(Partition::every()).await.map_or(0, |layout| layout.epoch) + 1;
        let adopted = Layout { epoch, window: Some(window), ..Layout::of_keys(keys) };
        self.record_first(&adopted).await?;
        self.read_layout().await.map(|known| known.layout)
    }
}
