//! Writing visits: for each server one pipeline with a variadic `ZADD GT` for each segment and partition, then the
//! names in the index, then the wait for replicas, then the layout record.

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
    visits: Vec<BatchEntry>,
    /// The names of the segments, in order of their first visit. Elsewhere, an index of this list stands for a segment.
    segment_names: Vec<Box<str>>,
    segments_by_name: HashMap<Box<str>, usize, RandomState>,
    /// The ids of the users, concatenated.
    user_ids: String,
}

/// A visit of a batch.
struct BatchEntry {
    segment: usize,
    /// The range of the id in [`Batch::user_ids`].
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
        let mut outcome = Self::default();
        outcome.fail(0..visits, error);
        outcome
    }

    /// Records `error` for the visits at `indices`.
    fn fail(&mut self, indices: impl IntoIterator<Item = usize>, error: &Error) {
        for index in indices {
            self.fail_one(index, error.clone());
        }
    }

    fn fail_one(&mut self, index: usize, error: Error) {
        // A failure of Redis is more severe than one of a key.
        if self.failures.get(&index).is_none_or(|before| !before.is_outage()) {
            self.failures.insert(index, error);
        }
    }

    /// Adds the outcome of one server.
    fn add(&mut self, server: Self) {
        self.names_added += server.names_added;
        for (index, error) in server.failures {
            self.fail_one(index, error);
        }
    }
}

/// The visits of a batch that belong to one partition.
struct PartitionBatch {
    partition: Partition,
    member_commands: Vec<MemberCommand>,
    /// The index of each segment's last command.
    last_commands: HashMap<usize, usize, RandomState>,
}

/// A `ZADD GT` of up to [`Batch::MAX_VISITS_PER_COMMAND`] visits to a segment.
struct MemberCommand {
    command: Cmd,
    segment: usize,
    /// The indices of its visits in the batch.
    visits: Vec<usize>,
}

impl Batch {
    /// Redis finishes a command before it serves another connection, and takes 2 to 5 us for a visit.
    const MAX_VISITS_PER_COMMAND: usize = 1_000;

    /// Adds a copy of `visit`.
    pub fn add(&mut self, visit: &Visit<'_>) {
        let name = visit.segment.as_str();
        let segment = self.segments_by_name.get(name).copied().unwrap_or_else(|| {
            let segment = self.segment_names.len();
            self.segment_names.push(name.into());
            self.segments_by_name.insert(name.into(), segment);
            segment
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

    /// Splits the visits by partition of `key_set`, without the segments `over_limit`, which ascend.
    fn partition_batches(&self, key_names: &KeyNames, key_set: KeySet, over_limit: &[usize]) -> Vec<PartitionBatch> {
        let mut batches: Vec<PartitionBatch> = Vec::new();
        let mut positions: HashMap<Partition, usize, RandomState> = HashMap::default();
        // The score of the last visit as text: most visits of a batch have the same time.
        let mut score: Option<(Timestamp, String)> = None;
        let visits = self.visits.iter().enumerate();
        for (index, visit) in visits.filter(|(_, visit)| over_limit.binary_search(&visit.segment).is_err()) {
            let partition = key_set.of(visit.hash);
            let position = *positions.entry(partition).or_insert_with(|| {
                batches.push(PartitionBatch::new(partition));
                batches.len() - 1
            });
            let score = match &score {
                Some((at, score)) if *at == visit.seen_at => score,
                _ => &score.insert((visit.seen_at, visit.seen_at.as_score().to_string())).1,
            };
            let command = batches[position].command_for(key_names, visit.segment, &self.segment_names[visit.segment]);
            command.command.arg(score.as_str()).arg(&self.user_ids[visit.user_id.clone()]);
            command.visits.push(index);
        }
        batches
    }

    /// Writes the batch to each of `key_sets` over `client`, and confirms that the layout is `known`. The segments
    /// `over_limit`, which ascend, are left out.
    pub(super) async fn write_to(
        &self,
        key_sets: impl IntoIterator<Item = KeySet>,
        over_limit: &[usize],
        known: &KnownLayout,
        store: &Store,
        client: &Client,
    ) -> Attempt<WriteOutcome> {
        let batches = key_sets
            .into_iter()
            .flat_map(|key_set| self.partition_batches(&store.key_names, key_set, over_limit))
            .collect();
        let servers = match client.group_by_server(batches, |batch: &PartitionBatch| batch.partition.slot()).await {
            Ok(servers) => servers,
            Err(error) => return Attempt::Committed(WriteOutcome::all_failed(self.len(), &error.into())),
        };
        let writing =
            servers.into_iter().map(|batches| write_to_server(batches, &self.segment_names, known, store, client));
        let mut outcome = WriteOutcome::default();
        for attempt in join_all(writing).await {
            match attempt {
                Attempt::Committed(server) => outcome.add(server),
                Attempt::Stale => return Attempt::Stale,
            }
        }
        Attempt::Committed(outcome)
    }
}

impl PartitionBatch {
    fn new(partition: Partition) -> Self {
        Self { partition, member_commands: Vec::new(), last_commands: HashMap::default() }
    }

    /// Returns the command for the next visit to `segment`, which is called `name`.
    fn command_for(&mut self, key_names: &KeyNames, segment: usize, name: &str) -> &mut MemberCommand {
        let last = self.last_commands.get(&segment).copied();
        let has_room = |index: &usize| self.member_commands[*index].visits.len() < Batch::MAX_VISITS_PER_COMMAND;
        let index = last.filter(has_room).unwrap_or_else(|| {
            let key = key_names.segment(self.partition, name);
            // Capacity for one visit: few single visits of a batch share a segment.
            let mut command = Cmd::with_capacity(5, key.len() + 64);
            command.arg("ZADD").arg(key).arg("GT");
            self.member_commands.push(MemberCommand { command, segment, visits: Vec::new() });
            self.last_commands.insert(segment, self.member_commands.len() - 1);
            self.member_commands.len() - 1
        });
        &mut self.member_commands[index]
    }

    /// Takes the commands that write members, with their slots.
    fn take_commands(&mut self) -> impl Iterator<Item = (Slot, Cmd)> {
        let slot = self.partition.slot();
        self.member_commands.iter_mut().map(move |command| (slot, std::mem::take(&mut command.command)))
    }

    /// Returns the command that adds the segments to the partition's index.
    fn index_command(&self, key_names: &KeyNames, segment_names: &[Box<str>]) -> (Slot, Cmd) {
        let mut command = Cmd::new();
        command.arg("ZADD").arg(key_names.index(self.partition));
        for &segment in self.last_commands.keys() {
            command.arg(0).arg(&*segment_names[segment]);
        }
        (self.partition.slot(), command)
    }
}

/// Writes `batches`, which are on one server.
async fn write_to_server(
    mut batches: Vec<PartitionBatch>,
    segment_names: &[Box<str>],
    known: &KnownLayout,
    store: &Store,
    client: &Client,
) -> Attempt<WriteOutcome> {
    // Members first, names second: see the documentation of the module `store`. The wait for replicas is in the same
    // pipeline. On another connection, or with a server that has replaced this one, it would wait for nothing.
    let index_commands: Vec<_> =
        batches.iter().map(|batch| batch.index_command(&store.key_names, segment_names)).collect();
    let partitions: Vec<_> = batches.iter().map(|batch| batch.partition).collect();
    let member_commands = batches.iter_mut().flat_map(PartitionBatch::take_commands);
    let request = Request::write(member_commands, index_commands, store.acks, client.limits().answer)
        .and_then_read(store.key_names.layout_reads(partitions));
    let mut outcome = WriteOutcome::default();
    let reply = match client.send(request).await {
        Ok(reply) => reply,
        Err(error) => {
            let commands = batches.into_iter().flat_map(|batch| batch.member_commands);
            outcome.fail(commands.flat_map(|command| command.visits), &error.into());
            return Attempt::Committed(outcome);
        }
    };
    let replicated = reply.replicated.clone();
    let [member_results, index_results, layout_results] = reply.into_steps();
    if layout_results.iter().flatten().any(|layout| !known.is_confirmed_by(layout)) {
        return Attempt::Stale;
    }
    // `ZADD` answers with the number of members that are new.
    let added = |result: &Result<Value, redis::Error>| if let Ok(Value::Int(added)) = result { *added } else { 0 };
    outcome.names_added = index_results.iter().map(added).sum::<i64>().unsigned_abs();
    let mut member_results = member_results.into_iter();
    for ((batch, index_result), layout_result) in batches.into_iter().zip(index_results).zip(layout_results) {
        // A visit is acknowledged if its name is in the index, the layout is confirmed, and the replicas have all of
        // it.
        let rest = index_result.and(layout_result).and(replicated.clone());
        let mut of_wrong_type = BTreeSet::new();
        for (command, member_result) in batch.member_commands.into_iter().zip(member_results.by_ref()) {
            if member_result.as_ref().is_err_and(redis::Error::is_wrong_type) {
                of_wrong_type.insert(&*segment_names[command.segment]);
            }
            if let Err(error) = member_result.and_then(|_| rest.clone()) {
                outcome.fail(command.visits, &error.into());
            }
        }
        if !of_wrong_type.is_empty() {
            let of_wrong_type: Vec<_> = of_wrong_type.into_iter().collect();
            // If this fails, the client logs it, and pruning drops the names.
            let _ = Box::pin(store.drop_unless_occupied(batch.partition, &of_wrong_type)).await;
        }
    }
    Attempt::Committed(outcome)
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

impl Store {
    /// Writes `batch` to all its partitions at once. Writing is idempotent, since `GT` keeps a later visit.
    ///
    /// Each visit has a result of its own. A segment whose key holds another type fails alone, and so does a partition
    /// whose server doesn't answer or has too few replicas. A visit that failed may be written all the same. A visit to
    /// a new segment beyond [`Self::with_max_segments`] fails with [`Error::TooManySegments`] and is not written.
    pub async fn write(&self, batch: &Batch) -> WriteOutcome {
        self.write_via(&self.visits, batch).await
    }

    /// Writes a large `batch` as [`Self::write`] does, over a connection of its own, so that single visits don't wait
    /// for it.
    pub async fn write_bulk(&self, batch: &Batch) -> WriteOutcome {
        self.write_via(&self.batches, batch).await
    }

    async fn write_via(&self, client: &Client, batch: &Batch) -> WriteOutcome {
        let Some(limit) = self.segment_limit.as_deref() else {
            return self.write_admitted(batch, &[], client).await;
        };
        let (reservation, over_limit) = self.admit(limit, &batch.segment_names).await;
        let mut outcome = self.write_admitted(batch, &over_limit, client).await;
        reservation.added(outcome.names_added);
        if !over_limit.is_empty() {
            let visits = batch.visits.iter().enumerate();
            let refused = visits.filter(|(_, visit)| over_limit.binary_search(&visit.segment).is_ok());
            outcome.fail(refused.map(|(index, _)| index), &Error::TooManySegments(limit.max()));
        }
        outcome
    }

    /// Writes `batch` without the segments `over_limit`, which ascend.
    async fn write_admitted(&self, batch: &Batch, over_limit: &[usize], client: &Client) -> WriteOutcome {
        let write = |known: Arc<KnownLayout>| async move {
            Ok(batch.write_to(known.layout.written(), over_limit, &known, self, client).await)
        };
        self.with_layout(write).await.unwrap_or_else(|error| WriteOutcome::all_failed(batch.len(), &error))
    }
}
