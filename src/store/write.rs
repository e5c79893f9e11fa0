//! Visits that are written together: at each server, for each of its partitions, one variadic `ZADD GT` per segment, then the
//! indexes, then the waiting for replicas, in one round trip.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ::redis::{Cmd, Value};
use foldhash::fast::RandomState;
use futures_util::future::join_all;

use super::Error;
use super::keys::{KeyNames, hash};
use super::layout::{Attempt, KnownLayout};
use super::{Keyspace, Partition, Store};
use crate::domain::{Timestamp, Visit};
use crate::redis::Request;
use crate::redis::{self, Client, Slot};

/// Visits that are written together. Any visits: repeated ones, and later ones before earlier ones.
#[derive(Default)]
pub struct Batch {
    /// The segments, in the order in which they came.
    segments: Vec<Box<str>>,
    places: HashMap<Box<str>, usize, RandomState>,
    visits: Vec<Entry>,
    /// The users' ids, one after the other.
    user_ids: String,
}

/// A visit of a batch.
struct Entry {
    /// The segment's place.
    segment: usize,
    user_id: Range<usize>,
    /// What decides the partition.
    hash: u64,
    seen_at: Timestamp,
}

/// What became of the visits of a batch.
#[derive(Debug, Default)]
pub struct Written {
    /// Why those failed that did, by their places.
    failures: HashMap<usize, Error, RandomState>,
    /// How many names were added to indexes.
    names_added: u64,
}

impl Written {
    /// What became of the visit that was added after so many others.
    ///
    /// # Errors
    ///
    /// The reason why it is not acknowledged. It may have been written all the same.
    pub fn of(&self, place: usize) -> Result<(), &Error> {
        self.failures.get(&place).map_or(Ok(()), Err)
    }

    /// What became of all of them.
    ///
    /// # Errors
    ///
    /// The reason that matters most, if one is not acknowledged.
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

    fn fail(&mut self, places: impl IntoIterator<Item = usize>, error: &Error) {
        for place in places {
            // What fails Redis as a whole matters more than what fails one key.
            if self.failures.get(&place).is_none_or(|before| !before.is_outage()) {
                self.failures.insert(place, error.clone());
            }
        }
    }
}

/// The part of a batch that one partition gets.
struct Part {
    partition: Partition,
    /// A `ZADD GT` for each segment, and one more for every [`Batch::LONGEST`] of its visits.
    commands: Vec<Cmd>,
    /// Where each segment's last command is, and how many visits it has.
    open: HashMap<usize, (usize, usize), RandomState>,
    /// The places of the visits of each command.
    visits: Vec<Vec<usize>>,
    /// The segment of each command.
    segments: Vec<usize>,
}

impl Batch {
    /// How many visits a command has. Redis finishes a command before it looks at another client, and takes 2-5 us for
    /// a visit.
    const LONGEST: usize = 1_000;

    /// Adds a copy of `visit`.
    pub fn add(&mut self, visit: &Visit<'_>) {
        let segment = visit.segment.as_str();
        let segment = self.places.get(segment).copied().unwrap_or_else(|| {
            self.segments.push(segment.into());
            self.places.insert(segment.into(), self.segments.len() - 1);
            self.segments.len() - 1
        });
        let (user_id, start) = (visit.user_id.as_str(), self.user_ids.len());
        self.user_ids.push_str(user_id);
        let entry = Entry { segment, user_id: start..self.user_ids.len(), hash: hash(user_id), seen_at: visit.seen_at };
        self.visits.push(entry);
    }

    /// How many visits it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.visits.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.visits.is_empty()
    }

    /// What each partition of `keyspace` gets, without the segments at the places `refused`.
    fn parts(&self, names: &KeyNames, keyspace: Keyspace, refused: &[usize]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut places: HashMap<Partition, usize, RandomState> = HashMap::default();
        // The last visit's time, written out: visits that arrive together mostly have the same.
        let mut score: Option<(Timestamp, String)> = None;
        let visits = self.visits.iter().enumerate();
        for (place, visit) in visits.filter(|(_, visit)| refused.binary_search(&visit.segment).is_err()) {
            let partition = keyspace.of(visit.hash);
            let part = *places.entry(partition).or_insert_with(|| {
                parts.push(Part::new(partition));
                parts.len() - 1
            });
            let score = match &score {
                Some((at, score)) if *at == visit.seen_at => score,
                _ => &score.insert((visit.seen_at, visit.seen_at.as_score().to_string())).1,
            };
            let command = parts[part].command_for(names, visit.segment, &self.segments[visit.segment]);
            parts[part].commands[command].arg(score.as_str()).arg(&self.user_ids[visit.user_id.clone()]);
            parts[part].visits[command].push(place);
        }
        parts
    }

    /// Writes it over `client`, to each of `keyspaces`, and confirms that the layout is `known`. Segments at the places `refused`,
    /// which ascend, are left out.
    pub(super) async fn write_to(
        &self,
        keyspaces: impl IntoIterator<Item = Keyspace>,
        refused: &[usize],
        known: &KnownLayout,
        store: &Store,
        client: &Client,
    ) -> Attempt<Written> {
        let parts = keyspaces.into_iter().flat_map(|keyspace| self.parts(&store.names, keyspace, refused)).collect();
        let servers = match client.by_server(parts, |part: &Part| part.partition.slot()).await {
            Ok(servers) => servers,
            Err(error) => return Attempt::Done(Written::all_failed(self.len(), &error.into())),
        };
        let writing = servers.into_iter().map(|parts| write_parts(parts, &self.segments, known, store, client));
        let mut written = Written::default();
        for attempt in join_all(writing).await {
            match attempt {
                Attempt::Done((failures, names_added)) => {
                    written.names_added += names_added;
                    for (places, error) in failures {
                        written.fail(places, &error);
                    }
                }
                Attempt::Outdated => return Attempt::Outdated,
            }
        }
        Attempt::Done(written)
    }
}

impl Part {
    fn new(partition: Partition) -> Self {
        Self { partition, commands: Vec::new(), open: HashMap::default(), visits: Vec::new(), segments: Vec::new() }
    }

    /// The place of the command that takes the next visit of `segment`, whose name is given.
    fn command_for(&mut self, names: &KeyNames, segment: usize, name: &str) -> usize {
        if let Some((command, visits)) = self.open.get_mut(&segment)
            && *visits < Batch::LONGEST
        {
            *visits += 1;
            return *command;
        }
        let key = names.segment(self.partition, name);
        // Room for one visit of the usual kind: of single visits, few share a segment.
        let mut command = Cmd::with_capacity(5, key.len() + 64);
        command.arg("ZADD").arg(key).arg("GT");
        self.commands.push(command);
        self.visits.push(Vec::new());
        self.segments.push(segment);
        self.open.insert(segment, (self.commands.len() - 1, 1));
        self.commands.len() - 1
    }

    /// Takes out its commands, each with its slot.
    fn take_commands(&mut self) -> impl Iterator<Item = (Slot, Cmd)> {
        let slot = self.partition.slot();
        std::mem::take(&mut self.commands).into_iter().map(move |command| (slot, command))
    }

    /// The command that adds its segments to its index.
    fn names(&self, keys: &KeyNames, segments: &[Box<str>]) -> (Slot, Cmd) {
        let mut names = Cmd::new();
        names.arg("ZADD").arg(keys.index(self.partition));
        for &segment in self.open.keys() {
            names.arg(0).arg(&*segments[segment]);
        }
        (self.partition.slot(), names)
    }
}

/// Writes `parts`, which are at one server. Returns which visits are not acknowledged, and why, and how many names were added.
async fn write_parts(
    mut parts: Vec<Part>,
    segments: &[Box<str>],
    known: &KnownLayout,
    store: &Store,
    client: &Client,
) -> Attempt<(Vec<(Vec<usize>, Error)>, u64)> {
    // Members first, names second: see the module's documentation. The waiting is in the same pipeline: on a client made since,
    // or with a server that has taken the other's place, there might be nothing to wait for.
    let names: Vec<_> = parts.iter().map(|part| part.names(&store.names, segments)).collect();
    let partitions: Vec<_> = parts.iter().map(|part| part.partition).collect();
    let members = parts.iter_mut().flat_map(Part::take_commands);
    let request = Request::write(members, names, store.acks, client.limits().answer)
        .and_then_read(store.names.layout_reads(partitions));
    let reply = match client.send(request).await {
        Ok(reply) => reply,
        Err(error) => {
            let visits = parts.into_iter().flat_map(|part| part.visits).flatten().collect();
            return Attempt::Done((vec![(visits, error.into())], 0));
        }
    };
    let replicated = reply.replicated.clone();
    let [members, names, layouts] = reply.into_steps();
    if layouts.iter().flatten().any(|layout| !known.is_confirmed_by(layout)) {
        return Attempt::Outdated;
    }
    // `ZADD` answers with the number of members that are new.
    let added = |name: &Result<Value, redis::Error>| if let Ok(Value::Int(added)) = name { *added } else { 0 };
    let names_added = names.iter().map(added).sum::<i64>().unsigned_abs();
    let (mut members, mut failures) = (members.into_iter(), Vec::new());
    for ((part, name), layout) in parts.into_iter().zip(names).zip(layouts) {
        // A visit is acknowledged if its name is in the index, the layout is confirmed, and the replicas have all of it.
        let rest = name.and(layout).and(replicated.clone());
        let mut refused = BTreeSet::new();
        for ((visits, segment), member) in part.visits.into_iter().zip(part.segments).zip(members.by_ref()) {
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
            let _ = store.drop_unless_occupied(part.partition, &refused).await;
        }
    }
    Attempt::Done((failures, names_added))
}

impl fmt::Debug for Batch {
    /// Sizes alone: no user's id must reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("segments", &self.segments.len())
            .field("visits", &self.len())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Writes `batch`, to all its partitions at once. A later visit that is already there stays (`GT`), so any batch may be
    /// written again at any time. Each visit has a result of its own: a segment whose key holds another type fails alone, and so
    /// does a partition whose server doesn't answer, or has too few replicas. Any visit may have been written all the same. A visit to
    /// a new segment beyond [`Self::with_max_segments`] fails with [`Error::TooManySegments`] and is not written.
    pub async fn write(&self, batch: &Batch) -> Written {
        self.write_over(&self.visits, batch).await
    }

    /// As [`Self::write`], for a batch so large that others should not wait for it.
    pub async fn write_bulk(&self, batch: &Batch) -> Written {
        self.write_over(&self.batches, batch).await
    }

    async fn write_over(&self, client: &Client, batch: &Batch) -> Written {
        let Some(limit) = self.segment_limit.as_deref() else {
            return self.write_without(&[], client, batch).await;
        };
        let (reservation, refused) = self.admit(limit, &batch.segments).await;
        let mut written = self.write_without(&refused, client, batch).await;
        reservation.added(written.names_added);
        if !refused.is_empty() {
            let places = batch.visits.iter().enumerate();
            let places = places.filter(|(_, visit)| refused.binary_search(&visit.segment).is_ok());
            written.fail(places.map(|(place, _)| place), &Error::TooManySegments(limit.max()));
        }
        written
    }

    /// Writes `batch` without the segments at the places `refused`.
    async fn write_without(&self, refused: &[usize], client: &Client, batch: &Batch) -> Written {
        let write = |known: Arc<KnownLayout>| async move {
            Ok(batch.write_to(known.layout.written(), refused, &known, self, client).await)
        };
        self.by_layout(write).await.unwrap_or_else(|error| Written::all_failed(batch.len(), &error))
    }
}
