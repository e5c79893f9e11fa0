//! A database without the record of a data set: whether it is empty, has lost the record, or belongs to another program.
//!
//! Only an empty one gets a new data set by itself. Keys of another program may have the same names, and pruning them would destroy
//! them. A data set that lost its record would be counted by the wrong keys.

use std::collections::BTreeSet;

use ::redis::{cmd, pipe};
use futures_util::future::try_join_all;

use crate::domain::SegmentName;
use crate::redis::{self, Request, Slot};
use crate::store::keys::{KeyKind, OwnKey};
use crate::store::{Error, KeySet, Layout, Partition, Partitions, Store};

/// What a database without a record holds.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// A record that partitions have kept.
    pub(super) layout: Option<Layout>,
    /// Whether there is an index outside of partitions.
    pub(super) is_plain: bool,
    /// The partitions that have an index.
    pub(super) partitions: Vec<Partition>,
    /// If there is no index: a key that a data set may have all the same.
    other: Option<OwnKey>,
}

impl Traces {
    /// Whether there is a key that a data set may have, and no index.
    pub(super) fn has_other(&self) -> bool {
        self.other.is_some()
    }
}

impl Store {
    /// The layout of a data set that has lost its record, or whose private Redis proves that it is ours; none if there is no data.
    ///
    /// # Errors
    ///
    /// [`Error::Unrecorded`] when there are keys that may be another's, or that don't tell how they are laid out. Another [`Error`]
    /// when Redis didn't answer.
    pub(super) async fn unrecorded_layout(&self) -> Result<Option<Layout>, Error> {
        let traces = self.traces().await?;
        let plain = KeySet::first(Partitions::ONE).of(0);
        let first = self.names.index(plain);
        let found = match &traces {
            Traces { layout: Some(layout), is_plain, .. } => {
                let is_of_the_layout = layout.all().any(|keys| keys.partitions() == Partitions::ONE);
                if !is_plain || is_of_the_layout {
                    return Ok(Some(*layout));
                }
                format!("`{first}` beside partitions")
            }
            Traces { partitions, .. } if !partitions.is_empty() => format!("`{}`", self.names.index(partitions[0])),
            Traces { other: Some(OwnKey { partition, .. }), .. } if *partition != plain => {
                format!("`{}`", self.names.segment(*partition, "*"))
            }
            Traces { is_plain: false, other: None, .. } => return Ok(None),
            Traces { is_plain, .. } if self.is_private => match self.unindexed_segment(plain).await? {
                Some(key) => format!("`{key}`, a segment that `{first}` doesn't name,"),
                None => {
                    let partitions = if *is_plain { Partitions::ONE } else { self.partitions_of_a_new_set().await? };
                    return Ok(Some(Layout::first(partitions)));
                }
            },
            Traces { other: Some(OwnKey { kind: KeyKind::Segment(_), .. }), .. } => {
                format!("`{}`", self.names.segment(plain, "*"))
            }
            Traces { other: Some(_), .. } => format!("`{}`", self.names.history("*")),
            Traces { other: None, .. } => format!("`{first}`"),
        };
        // Another instance may have made a data set in the meantime.
        match self.recorded_layout().await? {
            Some(layout) => Ok(Some(layout)),
            None => Err(Error::Unrecorded { found, record: self.names.layout() }),
        }
    }

    /// Refuses a database whose index can't be ours. What a running service finds in the place of its own may be another program's:
    /// the database was flushed and filled by that, or a name leads to another server.
    ///
    /// # Errors
    ///
    /// [`Error::Unrecorded`] then. Another [`Error`] when Redis didn't answer.
    pub(super) async fn refuse_foreign_index(&self, layout: &Layout) -> Result<(), Error> {
        let plain = KeySet::first(Partitions::ONE);
        if self.is_private || !layout.in_use().any(|keys| keys == plain) {
            return Ok(());
        }
        let index = self.names.index(plain.of(0));
        let mut pipeline = pipe();
        // All scores of ours are 0.
        pipeline.cmd("ZCOUNT").arg(&index).arg("-inf").arg("(0");
        pipeline.cmd("ZCOUNT").arg(&index).arg("(0").arg("+inf");
        let is_foreign =
            match self.client.send(Request::new(Slot::of_any_key(&index), pipeline)).await?.all::<(u64, u64)>() {
                Ok(counts) => counts != (0, 0),
                Err(error) if error.is_wrong_type() => true,
                Err(error) => return Err(error.into()),
            };
        if is_foreign {
            return Err(Error::Unrecorded { found: format!("`{index}`"), record: self.names.layout() });
        }
        Ok(())
    }

    /// What a database without a record holds. The cheap looks come first.
    pub(super) async fn traces(&self) -> Result<Traces, Error> {
        let mut traces = Traces { layout: self.layout_in_partitions().await, ..Traces::default() };
        traces.is_plain = self.has_plain_keys().await?;
        if traces.layout.is_some() {
            return Ok(traces);
        }
        traces.partitions = self.partitions_with_index().await?;
        traces.layout = self.latest_layout_in(traces.partitions.iter().copied()).await;
        if !traces.is_plain && traces.partitions.is_empty() {
            traces.other = self.other_key().await?;
        }
        Ok(traces)
    }

    /// The partitions that have an index, whatever the number of partitions is.
    async fn partitions_with_index(&self) -> Result<Vec<Partition>, Error> {
        let exists = |partition: &Partition| {
            let mut command = cmd("EXISTS");
            command.arg(self.names.index(*partition));
            (partition.slot(), command)
        };
        let servers = self.client.by_server(Partition::every().collect(), |partition| partition.slot()).await?;
        let asking = servers.into_iter().map(|partitions| async move {
            let commands = Request::each(partitions.iter().map(exists));
            // An ACL that forbids these keys says that they aren't ours.
            let answers = self.client.send(commands.nil_for(redis::Error::is_forbidden)).await?.each::<Option<u64>>();
            let found: Vec<(Partition, u64)> = partitions
                .into_iter()
                .zip(answers)
                .map(|(partition, answer)| Ok((partition, answer?.unwrap_or_default())))
                .collect::<Result<_, Error>>()?;
            Ok::<_, Error>(found.into_iter().filter(|(_, exists)| *exists > 0).map(|(partition, _)| partition))
        });
        Ok(try_join_all(asking).await?.into_iter().flatten().collect())
    }

    /// A segment of `partition` that its index doesn't name: it would be counted, but never listed, pruned, moved or rid of a user.
    async fn unindexed_segment(&self, partition: Partition) -> Result<Option<String>, Error> {
        let indexed: BTreeSet<_> = match self.names_of(partition).await {
            Err(error) if error.is_wrong_type() => BTreeSet::new(),
            names => names?.into_iter().collect(),
        };
        let is_unindexed = |own: &OwnKey| match &own.kind {
            KeyKind::Segment(name) if own.partition == partition => {
                SegmentName::parse(name.as_str()).is_ok_and(|name| !indexed.contains(&name))
            }
            _ => false,
        };
        let found = self.own_keys(usize::MAX, is_unindexed).await?.keys.pop();
        Ok(found.filter(is_unindexed).map(|own| own.key))
    }

    /// A key of a segment or of a history, if there is one: that of a segment rather, since it says whether there are partitions. Where an
    /// ACL forbids `SCAN`, only the key of the turns is looked for.
    async fn other_key(&self) -> Result<Option<OwnKey>, Error> {
        let is_segment = |own: &OwnKey| matches!(own.kind, KeyKind::Segment(_));
        // What is refused for any of them need not be known better.
        let is_enough = |own: &OwnKey| is_segment(own) || (own.kind == KeyKind::History && !self.is_private);
        let mut found = self.own_keys(Self::SCAN_STEPS, is_enough).await?.keys;
        found.retain(|own| is_segment(own) || own.kind == KeyKind::History);
        if let Some(own) = found.pop() {
            return Ok(Some(own));
        }
        let turn = self.names.lease();
        let mut pipeline = pipe();
        pipeline.cmd("EXISTS").arg(&turn);
        let request = Request::new(Slot::of_any_key(&turn), pipeline).nil_for(redis::Error::is_forbidden);
        let (exists,) = self.client.send(request).await?.all::<(Option<u64>,)>()?;
        Ok(if exists == Some(1) { self.names.read(turn) } else { None })
    }
}
