//! Taking over a data set without a record: which keys it has, and what they hold.

use std::collections::{BTreeMap, BTreeSet};

use redis::cmd;

use super::Layout;
use crate::domain::{SegmentName, Window};
use crate::redis::Request;
use crate::store::keys::{KeyKind, KeySet, Partition, Partitions, hash};
use crate::store::{Error, Store};

/// What a database without a record has that may be a data set.
#[derive(Debug)]
pub struct Unrecorded {
    /// The sets of keys that it may have.
    pub keysets: Vec<KeySet>,
    /// How long its visits will be kept.
    pub window: Window,
    /// The last partition, of one set of keys or the other.
    last: Option<Partition>,
    /// The segments that have a key, whether an index names them or not.
    segments: BTreeMap<Partition, BTreeSet<SegmentName<'static>>>,
}

impl Unrecorded {
    /// The segments of `partition` that have a key, as far as `SCAN` found them.
    pub(in crate::store) fn segments_of(&self, partition: Partition) -> BTreeSet<SegmentName<'static>> {
        self.segments.get(&partition).cloned().unwrap_or_default()
    }

    /// The partition that proves that there are more than `partitions`.
    #[must_use]
    pub fn beyond(&self, partitions: Partitions) -> Option<Partition> {
        self.last.filter(|last| !last.is_below(partitions))
    }
}

impl Store {
    /// Members of a partition that tell how many partitions there are.
    const WITNESSES: usize = 100;
    /// How many of a hundred witnesses may be in a wrong partition, if an operator names the number of partitions: with twice as many
    /// partitions as there are, it is fifty.
    const STRAYS: usize = 20;

    /// What a database without a record has that may be a data set. If its users fit no number of partitions, they may fit a `known` one
    /// but for some.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn unrecorded(&self, known: Option<Partitions>) -> Result<Unrecorded, Error> {
        let traces = self.traces().await?;
        let mut segments = BTreeMap::<_, BTreeSet<_>>::new();
        let plain = KeySet::first(Partitions::ONE);
        for own in self.own_keys(|_| false).await? {
            if let KeyKind::Segment(name) = own.kind
                && let Ok(name) = SegmentName::parse(name)
            {
                segments.entry(own.partition).or_default().insert(name);
            }
        }
        let mut partitions: BTreeSet<_> = segments.keys().copied().chain(traces.partitions.iter().copied()).collect();
        let has_plain_segments = partitions.remove(&plain.of(0)) && !self.is_cluster();

        let mut witnesses = Vec::new();
        for partition in &partitions {
            let users = self.witnesses(*partition, segments.get(partition)).await?;
            witnesses.extend(users.into_iter().map(|user_id| (*partition, hash(&user_id))));
        }
        let partitions: Vec<_> = partitions.into_iter().collect();
        let mut keysets = Vec::new();
        keysets.extend(traces.is_plain.then_some(plain));
        match traces.layout {
            Some(layout) => keysets.push(layout.read()),
            None => keysets.extend(KeySet::fitting(&partitions, &witnesses, 0)),
        }
        if keysets.is_empty() {
            let nearly = KeySet::fitting(&partitions, &witnesses, Self::STRAYS);
            keysets.extend(nearly.filter(|keys| Some(keys.partitions()) == known));
        }
        if partitions.is_empty() && keysets.is_empty() {
            if has_plain_segments {
                keysets.push(plain);
            } else if traces.has_other() {
                keysets.push(KeySet::first(self.partitions_of_a_new_set().await?));
            }
        }
        let kept = self.latest_layout_in(Partition::every()).await.and_then(|layout| layout.window);
        let window = [self.window, kept].into_iter().flatten().fold(Window::DEFAULT, Window::max);
        let last = partitions.into_iter().max_by_key(|partition| partition.number());
        Ok(Unrecorded { keysets, window, last, segments })
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
        for segment in index.iter().chain(found.into_iter().flatten().take(Self::WITNESSES)) {
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

    /// Records that the data set without a record has `keys` and keeps visits as long as `found` says, and gives the layout that counts.
    /// Before, the indexes get the names of the segments in `unindexed`: what no index names is in no list, and is never pruned or moved.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn adopt(
        &self,
        keys: KeySet,
        found: &Unrecorded,
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
        let adopted = Layout { epoch, window: Some(found.window), ..Layout::of_keys(keys) };
        self.record_first(&adopted).await?;
        self.read_layout().await.map(|known| known.layout)
    }
}
