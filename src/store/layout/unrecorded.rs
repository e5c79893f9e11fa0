//! A database without the record of a data set: whether it is empty, has lost the record, or belongs to another program.
//!
//! Only an empty one gets a new data set by itself. Keys of another program may have the same names, and pruning them would destroy
//! them. A data set that lost its record would be counted by the wrong keys.

use crate::store::Error;
use std::time::{Duration, Instant};

use ::redis::{cmd, pipe};
use arc_swap::ArcSwapOption;
use futures_util::future::try_join_all;

use crate::redis::Slot;
use crate::redis::{self, Request};
use crate::store::keys::hash;
use crate::store::{Keyspace, Layout, Partition, Partitions, Store};

/// The refusal of a database that holds keys of ours, or of another program, and no record. Looking for these keys costs Redis
/// milliseconds, so requests share what was found for a second.
#[derive(Debug, Default)]
pub(in crate::store) struct Refusal(ArcSwapOption<(Instant, Error)>);

impl Refusal {
    const SHARED_FOR: Duration = Duration::from_secs(1);

    /// Refuses if that was found within the last second.
    pub(super) fn recent(&self) -> Result<(), Error> {
        match self.0.load().as_deref() {
            Some((at, error)) if at.elapsed() < Self::SHARED_FOR => Err(error.clone()),
            _ => Ok(()),
        }
    }

    pub(super) fn remember(&self, error: &Error) {
        if matches!(error, Error::Unrecorded { .. }) {
            self.0.store(Some((Instant::now(), error.clone()).into()));
        }
    }
}

/// What a database without a record holds.
#[derive(Debug, Default)]
struct Traces {
    /// A record that partitions have kept.
    layout: Option<Layout>,
    /// Whether there is an index outside of partitions.
    is_plain: bool,
    /// The partitions that have an index.
    partitions: Vec<Partition>,
    /// Keys of other kinds, as a pattern.
    others: Option<String>,
}

impl Store {
    /// Steps of `SCAN` that look for keys of segments and histories, at each server. It happens until a data set is made.
    const SCAN_STEPS: usize = 1_000;
    /// Keys that a step looks at.
    const SCAN_STEP: usize = 1_000;
    /// Members of a partition that tell how many partitions there are.
    const WITNESSES: usize = 100;

    /// The layout of a data set that has lost its record, or whose private Redis proves that it is ours; none if there is no data.
    ///
    /// # Errors
    ///
    /// [`Error::Unrecorded`] when there are keys that may be another's, or that don't tell how they are laid out. Another [`Error`]
    /// when Redis didn't answer.
    pub(super) async fn unrecorded_layout(&self) -> Result<Option<Layout>, Error> {
        let traces = self.traces().await?;
        let first = self.names.index(Keyspace::first(Partitions::ONE).of(0));
        let found = match &traces {
            Traces { layout: Some(layout), is_plain, .. } => {
                let is_of_the_layout = layout.all().any(|keys| keys.partitions() == Partitions::ONE);
                if !is_plain || is_of_the_layout {
                    return Ok(Some(*layout));
                }
                format!("`{first}` beside partitions")
            }
            Traces { partitions, .. } if !partitions.is_empty() => format!("`{}`", self.names.index(partitions[0])),
            Traces { is_plain: false, others: None, .. } => return Ok(None),
            Traces { is_plain, .. } if self.is_private => {
                let partitions = if *is_plain { Partitions::ONE } else { self.partitions_of_a_new_set().await? };
                return Ok(Some(Layout::first(partitions)));
            }
            Traces { is_plain: true, .. } => format!("`{first}`"),
            Traces { others, .. } => format!("`{}`", others.as_deref().unwrap_or_default()),
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
        let plain = Keyspace::first(Partitions::ONE);
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

    /// The sets of keys that a data set without a record may have, if the number of partitions isn't `known`.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn unrecorded_keys(&self, known: Option<Partitions>) -> Result<Vec<Keyspace>, Error> {
        let traces = self.traces().await?;
        let mut found = Vec::new();
        if traces.is_plain {
            found.push(Keyspace::first(Partitions::ONE));
        }
        found.extend(traces.layout.map(|layout| layout.read()));
        let mut witnesses = Vec::new();
        for &partition in &traces.partitions {
            for user_id in self.witnesses(partition).await? {
                witnesses.push((partition, hash(&user_id)));
            }
        }
        found.extend(Keyspace::fitting(known, &traces.partitions, &witnesses));
        found.dedup();
        if found.is_empty() && traces.others.is_some() {
            found.push(Keyspace::first(self.partitions_of_a_new_set().await?));
        }
        Ok(found)
    }

    /// Some users of a partition, whatever it holds.
    async fn witnesses(&self, partition: Partition) -> Result<Vec<String>, Error> {
        let index = match self.index_of(partition, None, 1).await {
            Err(error) if error.is_wrong_type() => return Ok(Vec::new()),
            index => index?,
        };
        let Some(segment) = index.segments.first() else { return Ok(Vec::new()) };
        let page = match self.members(partition, segment, None).await {
            Err(error) if error.is_wrong_type() => return Ok(Vec::new()),
            page => page?,
        };
        Ok(page.members.into_iter().take(Self::WITNESSES).map(|(user_id, _)| user_id.as_str().to_owned()).collect())
    }

    /// Records that the data set without a record has `keys`, and gives the layout that counts.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn adopt(&self, keys: Keyspace) -> Result<Layout, Error> {
        let epoch = self.latest_layout_in(Partition::every()).await.map_or(0, |layout| layout.epoch) + 1;
        let adopted = Layout { epoch, window: self.window, ..Layout::of_keys(keys) };
        self.record_first(&adopted).await?;
        self.read_layout().await.map(|known| known.layout)
    }

    /// What a database without a record holds. The cheap looks come first.
    async fn traces(&self) -> Result<Traces, Error> {
        let mut traces = Traces { layout: self.layout_in_partitions().await, ..Traces::default() };
        traces.is_plain = self.has_plain_keys().await?;
        if traces.layout.is_some() {
            return Ok(traces);
        }
        traces.partitions = self.partitions_with_index().await?;
        traces.layout = self.latest_layout_in(traces.partitions.iter().copied()).await;
        if !traces.is_plain && traces.partitions.is_empty() {
            traces.others = self.other_keys().await?;
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
        if !self.client.is_cluster() {
            let mut any = pipe();
            let command = any.cmd("EXISTS");
            Partition::every().for_each(|partition| {
                command.arg(self.names.index(partition));
            });
            // An ACL that forbids these keys says that they aren't ours.
            let mut any = self
                .client
                .send(Request::new(Slot::of_any_key(&self.names.layout()), any).probe())
                .await?
                .each::<u64>();
            if !matches!(any.next(), Some(Ok(1..))) {
                return Ok(Vec::new());
            }
        }
        let servers = self.client.by_server(Partition::every().collect(), |partition| partition.slot()).await?;
        let asking = servers.into_iter().map(|partitions| async move {
            let commands = Request::each(partitions.iter().map(exists));
            let answers = self.client.send(commands.nil_for(is_forbidden)).await?.each::<Option<u64>>();
            let found: Vec<(Partition, u64)> = partitions
                .into_iter()
                .zip(answers)
                .map(|(partition, answer)| Ok((partition, answer?.unwrap_or_default())))
                .collect::<Result<_, Error>>()?;
            Ok::<_, Error>(found.into_iter().filter(|(_, exists)| *exists > 0).map(|(partition, _)| partition))
        });
        Ok(try_join_all(asking).await?.into_iter().flatten().collect())
    }

    /// A pattern of keys that look like those of segments or histories, if there are any. Where an ACL forbids `SCAN`, only the key of
    /// the turns is looked for.
    async fn other_keys(&self) -> Result<Option<String>, Error> {
        let turn = self.names.turn();
        let mut pipeline = pipe();
        pipeline.cmd("EXISTS").arg(&turn);
        let mut exists = self.client.send(Request::new(Slot::of_any_key(&turn), pipeline).probe()).await?.each::<u64>();
        if let Some(Ok(1..)) = exists.next() {
            return Ok(Some(self.names.pattern("history:*")));
        }
        let kinds = ["segment:", "history:"];
        let begins = kinds.map(|kind| [self.names.prefix().as_str(), kind].concat());
        for (slot, _) in self.client.masters().await? {
            let mut cursor = "0".to_owned();
            for _ in 0..Self::SCAN_STEPS {
                let mut pipeline = pipe();
                let scan = pipeline.cmd("SCAN").arg(&cursor);
                // The first letters of both kinds: one pattern is one look at each key.
                scan.arg("MATCH").arg(self.names.pattern("[sh][ei][gs]*")).arg("COUNT").arg(Self::SCAN_STEP);
                let page = self
                    .client
                    .send(Request::new(slot, pipeline).probe())
                    .await?
                    .each::<(String, Vec<Vec<u8>>)>()
                    .next();
                let Some(Ok((next, keys))) = page else { break };
                let is_of = |begin: &&String| keys.iter().any(|key| key.starts_with(begin.as_bytes()));
                if let Some(begin) = begins.iter().find(is_of) {
                    return Ok(Some(format!("{begin}*")));
                }
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(None)
    }
}

/// Whether an ACL forbids the key, which then doesn't exist for this user.
fn is_forbidden(error: &redis::Error) -> bool {
    matches!(error, redis::Error::Refused { code, .. } if code == "NOPERM")
}
