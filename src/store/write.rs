//! Writing visits: for each server one pipeline with a variadic `ZADD GT` for each segment and partition, then the names in the index,
//! then the wait for replicas, then the layout record.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ::redis::{Cmd, Value};
use foldhash::fast::RandomState;
use futures_util::future::join_all;

use super::Error;
use super::keys::KeyNames;
use super::layout::{Attempt, KnownLayout};
use super::partition::hash;
use super::{KeySet, Partition, Store};
use crate::domain::{Timestamp, Visit};
use crate::redis::Request;
use crate::redis::{self, Client, Slot};

/// Visits that are written together, in any order and with any repetition.
#[derive(Default)]
pub struct Batch {
    /// The names of the segments, in order of their first visit.
    segments: Vec<Box<str>>,
    indices: HashMap<Box<str>, usize, RandomState>,
    visits: Vec<BatchEntry>,
    /// The ids of the users, concatenated.
    user_ids: String,
}

/// A visit of a batch.
struct BatchEntry {
    /// The index of the segment.
    segment: usize,
    user_id: Range<usize>,
    /// The hash of the user's id, which decides the partition.
    hash: u64,
    seen_at: Timestamp,
}

/// The result of each visit of a batch.
#[derive(Debug, Default)]
pub struct WriteOutcome {
    /// The errors of the visits that failed, by index.
    failures: HashMap<usize, Error, RandomState>,
    /// The number of names that are new in an index.
    names_added: u64,
}

impl WriteOutcome {
    /// Returns the result of the visit at `index`, in order of [`Batch::add`].
    ///
    /// # Errors
    ///
    /// Why it is not acknowledged. It may be written all the same.
    pub fn result(&self, index: usize) -> Result<(), &Error> {
        self.failures.get(&index).map_or(Ok(()), Err)
    }

    /// Returns one result for all visits.
    ///
    /// # Errors
    ///
    /// The most severe error, if one is not acknowledged.
    pub fn into_result(self) -> Result<(), Error> {
        let failures = self.failures.into_values();
        let worst = failures.reduce(|worst, next| if worst.is_outage() { worst } else { next });
        worst.map_or(Ok(()), Err)
    }

    fn all_failed(visits: usize, error: &Error) -> Self {
        let mut written = Self::default();
        written.fail(0..visits, error);
        written
    }

    fn fail(&mut self, indices: impl IntoIterator<Item = usize>, error: &Error) {
        for index in indices {
            // A failure of Redis is more severe than one of a key.
            if self.failures.get(&index).is_none_or(|before| !before.is_outage()) {
                self.failures.insert(index, error.clone());
            }
        }
    }
}

/// The visits of a batch that belong to one partition.
struct PartitionBatch {
    partition: Partition,
    /// A `ZADD GT` for each segment and every [`Batch::MAX_VISITS_PER_COMMAND`] of its visits.
    commands: Vec<Cmd>,
    /// The index of each segment's last command, and its number of visits.
    open: HashMap<usize, (usize, usize), RandomState>,
    /// The indices of each command's visits.
    visits: Vec<Vec<usize>>,
    /// The segment of each command.
    segments: Vec<usize>,
}

impl Batch {
    /// Redis finishes a command before it serves another connection, and takes 2 to 5 us for a visit.
    const MAX_VISITS_PER_COMMAND: usize = 1_000;

    /// Adds a copy of `visit`.
    pub fn add(&mut self, visit: &Visit<'_>) {
        let segment = visit.segment.as_str();
        let segment = self.indices.get(segment).copied().unwrap_or_else(|| {
            self.segments.push(segment.into());
            self.indices.insert(segment.into(), self.segments.len() - 1);
            self.segments.len() - 1
        });
        let (user_id, start) = (visit.user_id.as_str(), self.user_ids.len());
        self.user_ids.push_str(user_id);
        let entry =
            BatchEntry { segment, user_id: start..self.user_ids.len(), hash: hash(user_id), seen_at: visit.seen_at };
        self.visits.push(entry);
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

    /// Splits the visits by partition of `key_set`, without the segments at the indices `refused`, which ascend.
    fn partition_batches(&self, names: &KeyNames, key_set: KeySet, refused: &[usize]) -> Vec<PartitionBatch> {
        let mut batches: Vec<PartitionBatch> = Vec::new();
        let mut positions: HashMap<Partition, usize, RandomState> = HashMap::default();
        // The score of the last visit as text: most visits of a batch have the same time.
        let mut score: Option<(Timestamp, String)> = None;
        let visits = self.visits.iter().enumerate();
        for (index, visit) in visits.filter(|(_, visit)| refused.binary_search(&visit.segment).is_err()) {
            let partition = key_set.of(visit.hash);
            let position = *positions.entry(partition).or_insert_with(|| {
                batches.push(PartitionBatch::new(partition));
                batches.len() - 1
            });
            let score = match &score {
                Some((at, score)) if *at == visit.seen_at => score,
                _ => &score.insert((visit.seen_at, visit.seen_at.as_score().to_string())).1,
            };
            let command = batches[position].command_for(names, visit.segment, &self.segments[visit.segment]);
            batches[position].commands[command].arg(score.as_str()).arg(&self.user_ids[visit.user_id.clone()]);
            batches[position].visits[command].push(index);
        }
        batches
    }

    /// Writes the batch to each of `key_sets` over `client`, and confirms that the layout is `known`. Segments at the indices `refused`,
    /// which ascend, are left out.
    pub(super) async fn write_to(
        &self,
        key_sets: impl IntoIterator<Item = KeySet>,
        refused: &[usize],
        known: &KnownLayout,
        store: &Store,
        client: &Client,
    ) -> Attempt<WriteOutcome> {
        let batches =
            key_sets.into_iter().flat_map(|key_set| self.partition_batches(&store.names, key_set, refused)).collect();
        let servers = match client.group_by_server(batches, |batch: &PartitionBatch| batch.partition.slot()).await {
            Ok(servers) => servers,
            Err(error) => return Attempt::Committed(WriteOutcome::all_failed(self.len(), &error.into())),
        };
        let writing = servers.into_iter().map(|batches| write_batches(batches, &self.segments, known, store, client));
        let mut written = WriteOutcome::default();
        for attempt in join_all(writing).await {
            match attempt {
                Attempt::Committed((failures, names_added)) => {
                    written.names_added += names_added;
                    for (indices, error) in failures {
                        written.fail(indices, &error);
                    }
                }
                Attempt::Stale => return Attempt::Stale,
            }
        }
        Attempt::Committed(written)
    }
}

impl PartitionBatch {
    fn new(partition: Partition) -> Self {
        Self { partition, commands: Vec::new(), open: HashMap::default(), visits: Vec::new(), segments: Vec::new() }
    }

    /// Returns the index of the command for the next visit of `segment`, called `name`.
    fn command_for(&mut self, names: &KeyNames, segment: usize, name: &str) -> usize {
        if let Some((command, visits)) = self.open.get_mut(&segment)
            && *visits < Batch::MAX_VISITS_PER_COMMAND
        {
            *visits += 1;
            return *command;
        }
        let key = names.segment(self.partition, name);
        // Capacity for one visit: few single visits of a batch share a segment.
        let mut command = Cmd::with_capacity(5, key.len() + 64);
        command.arg("ZADD").arg(key).arg("GT");
        self.commands.push(command);
        self.visits.push(Vec::new());
        self.segments.push(segment);
        self.open.insert(segment, (self.commands.len() - 1, 1));
        self.commands.len() - 1
    }

    /// Takes the commands, with their slots.
    fn take_commands(&mut self) -> impl Iterator<Item = (Slot, Cmd)> {
        let slot = self.partition.slot();
        std::mem::take(&mut self.commands).into_iter().map(move |command| (slot, command))
    }

    /// Returns the command that adds the segments to the partition's index.
    fn names(&self, keys: &KeyNames, segments: &[Box<str>]) -> (Slot, Cmd) {
        let mut names = Cmd::new();
        names.arg("ZADD").arg(keys.index(self.partition));
        for &segment in self.open.keys() {
            names.arg(0).arg(&*segments[segment]);
        }
        (self.partition.slot(), names)
    }
}

/// Writes `batches`, which are on one server. Returns the visits that are not acknowledged with their errors, and the number of new names.
async fn write_batches(
    mut batches: Vec<PartitionBatch>,
    segments: &[Box<str>],
    known: &KnownLayout,
    store: &Store,
    client: &Client,
) -> Attempt<(Vec<(Vec<usize>, Error)>, u64)> {
    // Members first, names second: see the documentation of the module `store`. The wait for replicas is in the same pipeline. On another
    // connection, or with a server that has replaced this one, it would wait for nothing.
    let names: Vec<_> = batches.iter().map(|batch| batch.names(&store.names, segments)).collect();
    let partitions: Vec<_> = batches.iter().map(|batch| batch.partition).collect();
    let members = batches.iter_mut().flat_map(PartitionBatch::take_commands);
    let request = Request::write(members, names, store.acks, client.limits().answer)
        .and_then_read(store.names.layout_reads(partitions));
    let reply = match client.send(request).await {
        Ok(reply) => reply,
        Err(error) => {
            let visits = batches.into_iter().flat_map(|batch| batch.visits).flatten().collect();
            return Attempt::Committed((vec![(visits, error.into())], 0));
        }
    };
    let replicated = reply.replicated.clone();
    let [members, names, layouts] = reply.into_steps();
    if layouts.iter().flatten().any(|layout| !known.is_confirmed_by(layout)) {
        return Attempt::Stale;
    }
    // `ZADD` answers with the number of members that are new.
    let added = |name: &Result<Value, redis::Error>| if let Ok(Value::Int(added)) = name { *added } else { 0 };
    let names_added = names.iter().map(added).sum::<i64>().unsigned_abs();
    let (mut members, mut failures) = (members.into_iter(), Vec::new());
    for ((batch, name), layout) in batches.into_iter().zip(names).zip(layouts) {
        // A visit is acknowledged if its name is in the index, the layout is confirmed, and the replicas have all of it.
        let rest = name.and(layout).and(replicated.clone());
        let mut refused = BTreeSet::new();
        for ((visits, segment), member) in batch.visits.into_iter().zip(batch.segments).zip(members.by_ref()) {
            if member.as_ref().is_err_and(redis::Error::is_wrong_type) {
                refused.insert(&*segments[segment]);
            }
            if let Err(error) = member.and_then(|_| rest.clone()) {
                failures.push((visits, error.into()));
            }
        }
        if !refused.is_empty() {
            let refused: Vec<_> = refused.into_iter().collect();
            // If this fails, the client logs it, and pruning drops the names.
            let _ = store.drop_unless_occupied(batch.partition, &refused).await;
        }
    }
    Attempt::Committed((failures, names_added))
}

impl fmt::Debug for Batch {
    /// Shows sizes alone, since no user's id may reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("segments", &self.segments.len())
            .field("visits", &self.len())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Writes `batch` to all its partitions at once. Writing is idempotent, since `GT` keeps a later visit.
    ///
    /// Each visit has a result of its own. A segment whose key holds another type fails alone, and so does a partition whose server doesn't
    /// answer or has too few replicas. A visit that failed may be written all the same. A visit to a new segment beyond
    /// [`Self::with_max_segments`] fails with [`Error::TooManySegments`] and is not written.
    pub async fn write(&self, batch: &Batch) -> WriteOutcome {
        self.write_over(&self.visits, batch).await
    }

    /// Writes a large `batch` as [`Self::write`] does, over a connection of its own, so that single visits don't wait for it.
    pub async fn write_bulk(&self, batch: &Batch) -> WriteOutcome {
        self.write_over(&self.batches, batch).await
    }

    async fn write_over(&self, client: &Client, batch: &Batch) -> WriteOutcome {
        let Some(limit) = self.segment_limit.as_deref() else {
            return self.write_without(&[], client, batch).await;
        };
        let (reservation, refused) = self.admit(limit, &batch.segments).await;
        let mut written = self.write_without(&refused, client, batch).await;
        reservation.added(written.names_added);
        if !refused.is_empty() {
            let indices = batch.visits.iter().enumerate();
            let indices = indices.filter(|(_, visit)| refused.binary_search(&visit.segment).is_ok());
            written.fail(indices.map(|(index, _)| index), &Error::TooManySegments(limit.max()));
        }
        written
    }

    /// Writes `batch` without the segments at the indices `refused`, which ascend.
    async fn write_without(&self, refused: &[usize], client: &Client, batch: &Batch) -> WriteOutcome {
        let write = |known: Arc<KnownLayout>| async move {
            Ok(batch.write_to(known.layout.written(), refused, &known, self, client).await)
        };
        self.with_layout(write).await.unwrap_or_else(|error| WriteOutcome::all_failed(batch.len(), &error))
    }
}
