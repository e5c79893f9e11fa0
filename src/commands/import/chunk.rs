//! Chunks: consecutive records, encoded for their target and delivered as a whole.

use std::collections::HashSet;

use super::state::Position;
use crate::domain::Window;
use crate::domain::visit_json::{RawVisit, VisitError};
use crate::estimator::clock::Clock;
use crate::ingest::LineError;
use crate::store::Batch;

/// How a chunk encodes its visits.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    /// As a batch for Redis. Visits that have expired by the clock and the window are dropped.
    Batch(Clock, Window),
    /// As lines for a service, which has its own clock and window.
    Lines,
}

/// Consecutive records.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) visits: EncodedVisits,
    /// The line of each visit.
    pub(super) lines: Vec<u64>,
    /// The lines of visits without a time, in ascending order.
    undated: Vec<u64>,
    /// The number of expired visits, which are not in `visits`.
    pub(super) expired: u64,
    /// The number of invalid records.
    pub(super) rejected: u64,
    /// The errors of the invalid records.
    pub(super) errors: Vec<LineError>,
    /// The line on which the last record begins.
    pub(super) last_line: u64,
    /// The end of the last record.
    pub(super) end: Position,
    /// How many bytes of the input were read up to there, compressed as they are.
    pub(super) bytes_read: u64,
}

/// The visits of a chunk. They can be delivered any number of times.
#[derive(Debug)]
pub(super) enum EncodedVisits {
    Batch(Batch),
    Lines(Vec<u8>),
}

impl Chunk {
    pub(super) fn new(encoding: &Encoding) -> Self {
        let visits = match encoding {
            Encoding::Batch(..) => EncodedVisits::Batch(Batch::default()),
            Encoding::Lines => EncodedVisits::Lines(Vec::new()),
        };
        let (lines, undated, errors) = (Vec::new(), Vec::new(), Vec::new());
        let end = Position::default();
        Self { visits, lines, undated, expired: 0, rejected: 0, errors, last_line: 0, end, bytes_read: 0 }
    }

    /// Returns the number of records.
    pub(super) fn records(&self) -> usize {
        self.lines.len() + (self.expired + self.rejected) as usize
    }

    /// Returns how many visits without a time were accepted, if those with `errors` were not. Such a visit never
    /// expires.
    pub(super) fn undated_without(&self, errors: &[LineError]) -> u64 {
        let rejected: HashSet<u64> = errors.iter().map(|error| error.line).collect();
        self.undated.iter().filter(|line| !rejected.contains(line)).count() as u64
    }

    /// Adds an invalid record.
    pub(super) fn reject(&mut self, error: LineError) {
        self.last_line = error.line;
        self.rejected += 1;
        self.errors.push(error);
    }

    /// Adds a record: its visit, or its error.
    pub(super) fn add(&mut self, line: u64, visit: Result<RawVisit<'_>, VisitError>, encoding: &Encoding) {
        self.last_line = line;
        if let Err(error) = visit.and_then(|visit| self.encode(line, visit, encoding)) {
            self.rejected += 1;
            self.errors.extend(LineError::all_of(line, error));
        }
    }

    fn encode(&mut self, line: u64, visit: RawVisit<'_>, encoding: &Encoding) -> Result<(), VisitError> {
        let is_undated = visit.seen_at.is_none();
        match (&mut self.visits, encoding) {
            (EncodedVisits::Batch(batch), Encoding::Batch(clock, window)) => {
                let now = clock.now();
                let visit = visit.at(now)?;
                if visit.seen_at <= window.cutoff(now) {
                    self.expired += 1;
                    return Ok(());
                }
                batch.add(&visit);
            }
            (EncodedVisits::Lines(text), _) => visit.write_line(text).expect("a vector can be written"),
            (EncodedVisits::Batch(_), Encoding::Lines) => unreachable!("a chunk has one encoding"),
        }
        self.lines.push(line);
        self.undated.extend(is_undated.then_some(line));
        Ok(())
    }
}
