//! Writing visits: for each server one pipeline with a variadic `ZADD GT` for each segment and partition, then the
//! names in the index, then the wait for replicas, then the layout record.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ::redis::Value;
use foldhash::fast::RandomState;
use futures_util::future::join_all;

use super::batch::PartitionBatch;
use super::layout::{Attempt, KnownLayout};
use super::{Batch, Error, Store};
use crate::redis::{self, Client, Request};

/// The result of each visit of a batch.
#[derive(Debug, Default)]
pub struct WriteOutcome {
    /// The errors of the visits that failed, by index.
    failures: HashMap<usize, Error, RandomState>,
    /// The number of names that are new in an index.
    names_added: u64,
    /// The number of visits that are acknowledged without a command, because their segments keep a sample without them.
    sampled_out: u64,
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

    /// Returns the number of visits that their segments didn't keep.
    #[must_use]
    pub fn sampled_out(&self) -> u64 {
        self.sampled_out
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
        let (reservation, over_limit) = self.admit(limit, batch.segment_names()).await;
        let mut outcome = self.write_admitted(batch, &over_limit, client).await;
        reservation.added(outcome.names_added);
        if !over_limit.is_empty() {
            outcome.fail(batch.visits_to(&over_limit), &Error::TooManySegments(limit.max()));
        }
        outcome
    }

    /// Writes `batch` without the segments `over_limit`, which ascend.
    async fn write_admitted(&self, batch: &Batch, over_limit: &[usize], client: &Client) -> WriteOutcome {
        let write =
            |known: Arc<KnownLayout>| async move { Ok(self.write_with(batch, over_limit, &known, client).await) };
        self.with_layout(write).await.unwrap_or_else(|error| WriteOutcome::all_failed(batch.len(), &error))
    }

    /// Writes `batch` to each key set of the layout `known` over `client`, and confirms that it is in force. The segments
    /// `over_limit`, which ascend, are left out.
    async fn write_with(
        &self,
        batch: &Batch,
        over_limit: &[usize],
        known: &KnownLayout,
        client: &Client,
    ) -> Attempt<WriteOutcome> {
        self.watch_depths(known);
        let admitted =
            if over_limit.is_empty() { batch.len() } else { batch.len() - batch.visits_to(over_limit).count() };
        let (mut batches, mut sampled_out) = (Vec::new(), admitted);
        for key_set in known.layout.written() {
            let of_set = batch.partition_batches(&self.key_names, key_set, over_limit, &self.depths);
            sampled_out = sampled_out.min(admitted - of_set.iter().map(|batch| batch.visits().len()).sum::<usize>());
            batches.extend(of_set);
        }
        let servers = client.group_by_server(batches, |batch: &PartitionBatch| batch.partition.slot()).await;
        let servers = match servers {
            Ok(servers) => servers,
            Err(error) => return Attempt::Committed(WriteOutcome::all_failed(batch.len(), &error.into())),
        };
        let write = |batches| self.write_to_server(batches, batch.segment_names(), known, client);
        let attempts = match <[_; 1]>::try_from(servers) {
            Ok([only]) => vec![write(only).await],
            Err(servers) => join_all(servers.into_iter().map(write)).await,
        };
        let mut outcome = WriteOutcome { sampled_out: sampled_out as u64, ..WriteOutcome::default() };
        for attempt in attempts {
            match attempt {
                Attempt::Committed(server) => outcome.add(server),
                Attempt::Stale => return Attempt::Stale,
            }
        }
        Attempt::Committed(outcome)
    }

    /// Writes `batches`, which are on one server.
    async fn write_to_server(
        &self,
        mut batches: Vec<PartitionBatch>,
        segment_names: &[Box<str>],
        known: &KnownLayout,
        client: &Client,
    ) -> Attempt<WriteOutcome> {
        // Members first, names second: see the documentation of the module `store`. The wait for replicas is in the
        // same pipeline. On another connection, or with a server that has replaced this one, it would wait for nothing.
        let index_commands: Vec<_> =
            batches.iter().map(|batch| batch.index_command(&self.key_names, segment_names)).collect();
        let partitions: Vec<_> = batches.iter().map(|batch| batch.partition).collect();
        let member_commands = batches.iter_mut().flat_map(PartitionBatch::take_commands);
        let request = Request::write(member_commands, index_commands, self.acks, client.limits().answer)
            .and_then_read(self.key_names.layout_reads(partitions));
        let mut outcome = WriteOutcome::default();
        let reply = match client.send(request).await {
            Ok(reply) => reply,
            Err(error) => {
                let error = error.into();
                batches.iter().for_each(|batch| outcome.fail(batch.visits().iter().copied(), &error));
                return Attempt::Committed(outcome);
            }
        };
        let replicated = reply.replicated.clone();
        let [member_results, index_results, layout_results] = reply.into_steps();
        if layout_results.iter().flatten().any(|layout| !known.is_confirmed_by(layout)) {
            return Attempt::Stale;
        }
        // `ZADD` answers with the number of members that are new.
        let added = |result: &Result<Value, redis::Error>| match result {
            Ok(Value::Int(added)) => u32::try_from(*added).unwrap_or(u32::MAX),
            _ => 0,
        };
        outcome.names_added = index_results.iter().map(|result| u64::from(added(result))).sum();
        let mut member_results = member_results.into_iter();
        for ((batch, index_result), layout_result) in batches.iter().zip(index_results).zip(layout_results) {
            // A visit is acknowledged if its name is in the index, the layout is confirmed, and the replicas have all
            // of it.
            let rest = index_result.and(layout_result).and(replicated.clone());
            let mut of_wrong_type = BTreeSet::new();
            for (command, member_result) in batch.member_commands.iter().zip(member_results.by_ref()) {
                if command.key.level.is_some()
                    && self.depths.add(batch.partition, &segment_names[command.segment], added(&member_result))
                {
                    self.spawn_check(known, batch.partition, &segment_names[command.segment]);
                }
                if member_result.as_ref().is_err_and(redis::Error::is_wrong_type) {
                    of_wrong_type.insert(&*segment_names[command.segment]);
                }
                if let Err(error) = member_result.and_then(|_| rest.clone()) {
                    outcome.fail(batch.visits_of(command).iter().copied(), &error.into());
                }
            }
            if !of_wrong_type.is_empty() {
                let of_wrong_type: Vec<_> = of_wrong_type.into_iter().collect();
                // If this fails, the client logs it, and pruning drops the names.
                let _ = Box::pin(self.drop_unless_occupied(batch.partition, &of_wrong_type)).await;
            }
        }
        Attempt::Committed(outcome)
    }
}
