//! Visits that are written in one round trip: one variadic `ZADD GT` per segment, then the index, then the waiting for
//! replicas.

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::RandomState;
use redis::{Cmd, Pipeline, Value};

use super::{Connection, Error, INDEX_KEY, Store, WriteAcks, segment_key};
use crate::segment::Visit;
use crate::time::Timestamp;

/// Visits that are written together. Any visits: repeated ones, and later ones before earlier ones.
#[derive(Default)]
pub struct Batch {
    /// A `ZADD GT` for each segment, and one more for every [`Self::LONGEST`] of its visits.
    commands: Vec<Cmd>,
    /// Where each segment's last command is, and how many visits it has.
    slots: HashMap<Box<str>, (Slot, usize), RandomState>,
    /// The last visit's time, written out: visits that arrive together mostly have the same.
    score: Option<(Timestamp, Box<str>)>,
}

/// The place of a visit's command in its batch, and so of its result.
pub type Slot = usize;

impl Batch {
    /// How many visits a command has. Redis finishes a command before it looks at another connection, and takes 2-5 us for
    /// a visit.
    const LONGEST: usize = 1_000;

    /// Adds a copy of `visit`, and says where its result will be.
    pub fn add(&mut self, visit: &Visit<'_>) -> Slot {
        let segment = visit.segment.as_str();
        let slot = match self.slots.get_mut(segment) {
            Some((slot, visits)) if *visits < Self::LONGEST => {
                *visits += 1;
                *slot
            }
            _ => self.open(segment),
        };
        if self.score.as_ref().is_none_or(|(at, _)| *at != visit.seen_at) {
            self.score = Some((visit.seen_at, visit.seen_at.as_score().to_string().into()));
        }
        let score = self.score.as_ref().map(|(_, score)| &**score);
        self.commands[slot].arg(score).arg(visit.user_id.as_str());
        slot
    }

    fn open(&mut self, segment: &str) -> Slot {
        let key = segment_key(segment);
        // Room for one visit of the usual kind: of single visits, few share a segment.
        let mut command = Cmd::with_capacity(5, key.len() + 64);
        command.arg("ZADD").arg(key).arg("GT");
        self.commands.push(command);
        let slot = self.commands.len() - 1;
        self.slots.insert(segment.into(), (slot, 1));
        slot
    }

    async fn write_to(self, connection: &Connection, acks: WriteAcks) -> Result<Vec<Result<(), Error>>, Error> {
        if self.commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut names = Cmd::new();
        names.arg("ZADD").arg(INDEX_KEY);
        for segment in self.slots.keys() {
            names.arg(0).arg(&**segment);
        }
        // Members first, names second: see the module's documentation.
        let mut pipeline = Pipeline::with_capacity(self.commands.len() + 3);
        for command in self.commands {
            pipeline.add_command(command);
        }
        pipeline.add_command(names);
        // In the same pipeline: on a connection made since, or with a server that has taken the other's place, there might be
        // nothing to wait for.
        acks.add_to(&mut pipeline, connection.limits().answer);
        let mut results = connection.query_settled(&mut pipeline, |results| acks.settle(results)).await?;
        match results.pop() {
            Some(Err(error)) => Err(error),
            _ => Ok(results.into_iter().map(|result| result.map(|_: Value| ())).collect()),
        }
    }
}

impl fmt::Debug for Batch {
    /// Sizes alone: no user's id must reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("segments", &self.commands.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// Writes `batch` in one round trip. A later visit that is already there stays (`GT`), so any batch may be written
    /// again at any time. The result has an entry for each [`Slot`]: a segment whose key holds another type fails alone.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't acknowledge the names of the segments, or nothing at all, or when fewer replicas than
    /// asked have it all. Any of the visits may have been written.
    pub async fn write(&self, batch: Batch) -> Result<Vec<Result<(), Error>>, Error> {
        batch.write_to(&self.visits, self.acks).await
    }

    /// As [`Self::write`], for a batch so large that others should not wait for it.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub async fn write_bulk(&self, batch: Batch) -> Result<Vec<Result<(), Error>>, Error> {
        batch.write_to(&self.batches, self.acks).await
    }
}
