//! Where visits go: to Redis, or to a service.

use std::time::Duration;

use super::Service;
use super::chunk::{Chunk, For, Visits};
use crate::domain::FieldError;
use crate::domain::visit_json::VisitError;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::ingest::LineError;
use crate::store::{self, Batch};

/// Where visits go. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Redis(Estimator),
    Service(Service),
}

/// What became of the visits of a chunk.
#[derive(Debug, Default)]
pub(super) struct Delivered {
    pub(super) accepted: u64,
    pub(super) expired: u64,
    /// Visits that can't be written, however often one tries.
    pub(super) rejected: u64,
    /// What is wrong with them.
    pub(super) errors: Vec<LineError>,
}

/// Why a chunk was not delivered, or not all of it.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may go next time, after a pause if the other side wants one.
    Passing { why: String, pause: Option<Duration> },
    /// It won't.
    Lasting(String),
}

impl Target {
    /// Records of a chunk for one partition, and for Redis with many: each partition gets a part of a chunk, and long commands are
    /// what makes it fast.
    const FOR_A_PARTITION: usize = 8_192;
    const FOR_MANY_PARTITIONS: usize = 65_536;
    /// Records of a request.
    const FOR_A_SERVICE: usize = 50_000;

    /// Sees that visits can be written.
    ///
    /// # Errors
    ///
    /// Why not, in one line.
    pub(super) async fn greet(&self, clock: &Clock) -> Result<(), String> {
        match self {
            Self::Redis(estimator) => match estimator.sync(clock).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("Redis can't serve: {error}")),
            },
            Self::Service(service) => service.greet().await,
        }
    }

    /// What visits are made ready for.
    pub(super) fn purpose(&self, clock: &Clock) -> For {
        match self {
            Self::Redis(estimator) => For::Redis(clock.clone(), estimator.window()),
            Self::Service(_) => For::Service,
        }
    }

    /// How many records a chunk has.
    pub(super) fn chunk_size(&self) -> usize {
        match self {
            Self::Redis(estimator) => {
                let partitions = estimator.partitions().map_or(1, store::Partitions::count);
                (1_024 * partitions).clamp(Self::FOR_A_PARTITION, Self::FOR_MANY_PARTITIONS)
            }
            Self::Service(_) => Self::FOR_A_SERVICE,
        }
    }

    /// Delivers `chunk`, which may be delivered again at any time.
    pub(super) async fn deliver(&self, chunk: &Chunk) -> Result<Delivered, Failure> {
        if chunk.lines.is_empty() {
            return Ok(Delivered::default());
        }
        match (self, &chunk.visits) {
            (Self::Redis(estimator), Visits::Batch(batch)) => write(estimator, batch, &chunk.lines).await,
            (Self::Service(service), Visits::Lines(text)) => service.post(text, &chunk.lines).await,
            _ => unreachable!("a chunk is made for its purpose"),
        }
    }
}

async fn write(estimator: &Estimator, batch: &Batch, lines: &[u64]) -> Result<Delivered, Failure> {
    let permit = estimator.acquire_bulk_permit().await.map_err(failure)?;
    let written = permit.write(batch).await;
    let mut delivered = Delivered::default();
    for (place, line) in lines.iter().enumerate() {
        match written.of(place) {
            Ok(()) => delivered.accepted += 1,
            Err(error) if error.is_outage() => return Err(failure(error.clone())),
            Err(error) => {
                let error = FieldError::new("segment", format!("was not written: {error}"));
                delivered.rejected += 1;
                delivered.errors.extend(LineError::all_of(*line, VisitError::Fields(vec![error])));
            }
        }
    }
    Ok(delivered)
}

fn failure(error: store::Error) -> Failure {
    let why = error.to_string();
    match error {
        store::Error::TooOld(_)
        | store::Error::NoWaitAof
        | store::Error::Partitions { .. }
        | store::Error::Unrecorded { .. } => Failure::Lasting(why),
        _ => Failure::Passing { why, pause: None },
    }
}
