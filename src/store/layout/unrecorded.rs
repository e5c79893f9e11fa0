//! A database without a layout record: it is empty, has lost the record, or belongs to another program.
//!
//! Only an empty database gets a new data set automatically. Keys of another program may have the same names, and
//! pruning would destroy them. If a data set lost its record, a new record could name the wrong keys, and counts would
//! be wrong.

use std::collections::BTreeSet;

use ::redis::{cmd, pipe};

use crate::domain::SegmentName;
use crate::redis::{self, Request, Slot};
use crate::store::keys::{KeyKind, OwnKey};
use crate::store::{Error, KeySet, Layout, Partition, Store};

/// Evidence of a data set in a database without a record.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// The latest copy of the record in a partition.
    pub(super) layout: Option<Layout>,
    /// Whether there is an index outside of partitions.
    pub(super) is_plain: bool,
    /// The partitions that have an index.
    pub(super) partitions: Vec<Partition>,
    /// If there is no index: the key of a segment, of depths or of a history.
    other: Option<OwnKey>,
}

impl Evidence {
    /// Whether there is no index, but the key of a segment, of depths or of a history.
    pub(super) fn has_other(&self) -> bool {
        self.other.is_some()
    }
}

impl Store {
    /// Returns the layout of a data set without a record, if a partition has a copy or if Redis is private; `None` if
    /// there is no data.
    ///
    /// # Errors
    ///
    /// [`Error::Unrecorded`] if the keys may belong to another program, or if their layout is ambiguous. Another
    /// [`Error`] if Redis didn't answer.
    pub(super) async fn unrecorded_layout(&self) -> Result<Option<Layout>, Error> {
        let evidence = self.find_evidence().await?;
        let plain = KeySet::plain().of(0);
        let first = self.key_names.index(plain);
        let found = match &evidence {
            Evidence { layout: Some(layout), is_plain, .. } => {
                let is_of_the_layout = layout.all().any(KeySet::is_plain);
                if !is_plain || is_of_the_layout {
                    return Ok(Some(*layout));
                }
                format!("`{first}` beside partitions")
            }
            Evidence { partitions, .. } if !partitions.is_empty() => {
                format!("`{}`", self.key_names.index(partitions[0]))
            }
            Evidence { other: Some(own), .. } if own.kind.is_of_bounded_segments() => format!("`{}`", own.key),
            Evidence { other: Some(OwnKey { partition, .. }), .. } if *partition != plain => {
                format!("`{}`", self.key_names.segments_like(*partition, "*"))
            }
            Evidence { is_plain: false, other: None, .. } => return Ok(None),
            Evidence { is_plain, .. } if self.is_private => match self.unfit_key(plain).await? {
                Some(own) if own.kind.is_of_bounded_segments() => format!("`{}`", own.key),
                Some(own) => format!("`{}`, a segment that is missing from `{first}`,", own.key),
                None => {
                    return Ok(Some(self.first_layout().await?));
                }
            },
            Evidence { other: Some(OwnKey { kind: KeyKind::Segment(_), .. }), .. } => {
                format!("`{}`", self.key_names.segments_like(plain, "*"))
            }
            Evidence { other: Some(_), .. } => format!("`{}`", self.key_names.history("*")),
            Evidence { other: None, .. } => format!("`{first}`"),
        };
        // Another instance may have created a data set in the meantime.
        match self.recorded_layout().await? {
            Some(layout) => Ok(Some(layout)),
            None => Err(Error::Unrecorded { found, record: self.key_names.layout() }),
        }
    }

    /// Refuses a database whose index belongs to another program. A running service finds such an index if another
    /// program flushed and filled the database, or if the host name now resolves to another server.
    ///
    /// # Errors
    ///
    /// [`Error::Unrecorded`] if the index is foreign. Another [`Error`] if Redis didn't answer.
    pub(super) async fn refuse_foreign_index(&self, layout: &Layout) -> Result<(), Error> {
        let plain = KeySet::plain();
        if self.is_private || !layout.in_use().any(KeySet::is_plain) {
            return Ok(());
        }
        let index = self.key_names.index(plain.of(0));
        let mut pipeline = pipe();
        // All scores of this service's index are 0.
        pipeline.cmd("ZCOUNT").arg(&index).arg("-inf").arg("(0");
        pipeline.cmd("ZCOUNT").arg(&index).arg("(0").arg("+inf");
        let is_foreign =
            match self.client.send(Request::new(Slot::of_any_key(&index), pipeline)).await?.all::<(u64, u64)>() {
                Ok(counts) => counts != (0, 0),
                Err(error) if error.is_wrong_type() => true,
                Err(error) => return Err(error.into()),
            };
        if is_foreign {
            return Err(Error::Unrecorded { found: format!("`{index}`"), record: self.key_names.layout() });
        }
        Ok(())
    }

    /// Searches a database without a record for evidence of a data set. The cheap checks come first.
    pub(super) async fn find_evidence(&self) -> Result<Evidence, Error> {
        let mut evidence = Evidence { layout: self.layout_in_partitions().await, ..Evidence::default() };
        evidence.is_plain = self.has_plain_keys().await?;
        if evidence.layout.is_some() {
            return Ok(evidence);
        }
        evidence.partitions = self.partitions_with_index().await?;
        evidence.layout = self.latest_layout_in(evidence.partitions.iter().copied()).await;
        if !evidence.is_plain && evidence.partitions.is_empty() {
            evidence.other = self.other_key().await?;
        }
        Ok(evidence)
    }

    /// Returns the partitions that have an index, among those of all possible key sets.
    async fn partitions_with_index(&self) -> Result<Vec<Partition>, Error> {
        let exists = |partition: Partition| {
            let mut command = cmd("EXISTS");
            command.arg(self.key_names.index(partition));
            (partition.slot(), command)
        };
        let lookups = Partition::every().map(exists);
        // Keys that an ACL forbids don't belong to this service.
        let request_of = |lookups| Request::each(lookups).nil_for(redis::Error::is_forbidden);
        let mut found = Vec::new();
        let answers = self.client.send_by_server::<Option<u64>>(lookups, request_of).await?;
        for (partition, answer) in Partition::every().zip(answers) {
            found.extend((answer? == Some(1)).then_some(partition));
        }
        Ok(found)
    }

    /// Returns a key of `partition` that a record of exact segments doesn't fit. It may belong to bounded segments,
    /// whose maximum is unknown without a record. Or it belongs to a segment that is missing from the index. Such a
    /// segment would be counted, but not be listed, pruned or moved, and deleting a user would miss it.
    async fn unfit_key(&self, partition: Partition) -> Result<Option<OwnKey>, Error> {
        let indexed: BTreeSet<_> = match self.names_of(partition).await {
            Err(error) if error.is_wrong_type() => BTreeSet::new(),
            names => names?.into_iter().collect(),
        };
        let is_unfit = |own: &OwnKey| match &own.kind {
            KeyKind::Segment(name) if own.partition == partition => {
                SegmentName::parse(name.as_str()).is_ok_and(|name| !indexed.contains(&name))
            }
            kind => own.partition == partition && kind.is_of_bounded_segments(),
        };
        let found = self.own_keys(usize::MAX, is_unfit).await?.keys.pop();
        Ok(found.filter(is_unfit))
    }

    /// Returns the key of a segment, of depths or of a history, if there is one. Prefers one of segments, which shows
    /// whether there are partitions. If an ACL forbids `SCAN`, checks for the key of the lease alone.
    async fn other_key(&self) -> Result<Option<OwnKey>, Error> {
        let is_segment = |own: &OwnKey| matches!(own.kind, KeyKind::Segment(_)) || own.kind.is_of_bounded_segments();
        // Unless Redis is private, any such key is refused.
        let is_enough = |own: &OwnKey| is_segment(own) || (own.kind == KeyKind::History && !self.is_private);
        let mut found = self.own_keys(Self::SCAN_STEPS, is_enough).await?.keys;
        found.retain(|own| is_segment(own) || own.kind == KeyKind::History);
        if let Some(own) = found.pop() {
            return Ok(Some(own));
        }
        let lease = self.key_names.lease();
        let mut pipeline = pipe();
        pipeline.cmd("EXISTS").arg(&lease);
        let request = Request::new(Slot::of_any_key(&lease), pipeline).nil_for(redis::Error::is_forbidden);
        let (exists,) = self.client.send(request).await?.all::<(Option<u64>,)>()?;
        Ok(if exists == Some(1) { self.key_names.read(lease) } else { None })
    }
}
