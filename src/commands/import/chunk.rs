//! Chunks: consecutive records, encoded for their target and delivered as a whole.

use std::collections::HashMap;

use super::state::Position;
use crate::domain::Window;
use crate::domain::visit_json::{RawVisits, VisitError};
use crate::estimator::clock::Clock;
use crate::ingest::{LineError, Origins};
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
    /// The origin of each visit.
    pub(super) origins: Origins,
    /// The line of each visit without a time.
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
        let (origins, undated, errors) = (Origins::default(), Vec::new(), Vec::new());
        let end = Position::default();
        Self { visits, origins, undated, expired: 0, rejected: 0, errors, last_line: 0, end, bytes_read: 0 }
    }

    /// Returns the number of visits and invalid records.
    pub(super) fn size(&self) -> usize {
        self.origins.len() + (self.expired + self.rejected) as usize
    }

    /// Returns how many visits without a time were accepted, if each of `errors` is a visit that was not, or a
    /// line of which no visit was. A visit without a time never expires.
    pub(super) fn undated_without(&self, errors: &[LineError]) -> u64 {
        let mut rejected: HashMap<u64, usize> = HashMap::new();
        for error in errors {
            let visits = rejected.entry(error.line).or_default();
            *visits = if error.is_of_segment() { visits.saturating_add(1) } else { usize::MAX };
        }
        let mut is_rejected = |line| match rejected.get_mut(line) {
            Some(visits @ 1..) => {
                *visits -= 1;
                true
            }
            _ => false,
        };
        self.undated.iter().filter(|line| !is_rejected(*line)).count() as u64
    }

    /// Adds an invalid record.
    pub(super) fn reject(&mut self, error: LineError) {
        self.last_line = error.line;
        self.rejected += 1;
        self.errors.push(error);
    }

    /// Adds a record: its visits, or its error.
    pub(super) fn add(&mut self, line: u64, visits: Result<RawVisits<'_>, VisitError>, encoding: &Encoding) {
        self.last_line = line;
        if let Err(error) = visits.and_then(|visits| self.encode(line, visits, encoding)) {
            self.rejected += 1;
            self.errors.extend(LineError::all_of(line, error));
        }
    }

    fn encode(&mut self, line: u64, visits: RawVisits<'_>, encoding: &Encoding) -> Result<(), VisitError> {
        let (is_undated, segments) = (visits.seen_at.is_none(), visits.segments.as_slice().len());
        match (&mut self.visits, encoding) {
            (EncodedVisits::Batch(batch), Encoding::Batch(clock, window)) => {
                let now = clock.now();
                let visits = visits.at(now)?;
                if visits.seen_at <= window.cutoff(now) {
                    self.expired += segments as u64;
                    return Ok(());
                }
                batch.add_all(&visits);
                self.origins.add(line, &visits.segments);
            }
            (EncodedVisits::Lines(text), _) => {
                visits.write_lines(text).expect("a vector can be written");
                self.origins.add(line, &visits.segments);
            }
            (EncodedVisits::Batch(_), Encoding::Lines) => unreachable!("a chunk has one encoding"),
        }
        if is_undated {
            self.undated.extend(std::iter::repeat_n(line, segments));
        }
        Ok(())
    }
}
