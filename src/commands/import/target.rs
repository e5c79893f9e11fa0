//! Where visits go: to Redis, or to a service.

use super::Service;
use super::chunk::{Chunk, For, Visits};
use super::delivery::{ChunkResult, Failure};
use super::state::State;
use super::witnesses::Witnesses;
use crate::commands::progress::Progress;
use crate::domain::FieldError;
use crate::domain::visit_json::VisitError;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::ingest::LineError;
use crate::redis;
use crate::store::{self, Batch};

/// Where visits go. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Redis(Estimator),
    Service(Service),
}

impl Target {
    /// Records of a chunk for one partition, and for Redis with many: each partition gets a part of a chunk, and long commands are
    /// what makes it fast.
    const FOR_A_PARTITION: usize = 8_192;
    const FOR_MANY_PARTITIONS: usize = 65_536;
    /// Records of a request.
    const FOR_A_SERVICE: usize = 50_000;

    /// Checks that it answers, and synchronises `clock` with it. Writes nothing.
    ///
    /// # Errors
    ///
    /// Why not, in one line.
    pub(super) async fn greet(&self, clock: &Clock) -> Result<(), String> {
        match self {
            Self::Redis(estimator) => estimator.sync_clock(clock).await.map(drop).map_err(|error| cannot_serve(&error)),
            Self::Service(service) => service.greet().await,
        }
    }

    /// Makes it ready for visits: may make a data set, or extend the window of one.
    ///
    /// # Errors
    ///
    /// Why not, in one line.
    pub(super) async fn prepare(&self, clock: &Clock, progress: &Progress) -> Result<(), String> {
        match self {
            Self::Redis(estimator) => {
                let failed = |error: store::Error| cannot_serve(&error);
                let (own, kept) = (estimator.window(), estimator.recorded_window().await.map_err(failed)?);
                estimator.sync(clock).await.map_err(failed)?;
                if let Some(kept) = kept.filter(|kept| *kept < own) {
                    progress.println(format_args!("extended the window of the data set from {kept} to {own}"));
                }
                Ok(())
            }
            Self::Service(_) => Ok(()),
        }
    }

    /// Returns whether it has what `witnesses` say of the runs that did what `state` says. Writes nothing. What a service took in can't be
    /// asked.
    ///
    /// # Errors
    ///
    /// Why that can't be told, in one line.
    pub(super) async fn has(&self, witnesses: &Witnesses, state: &State) -> Result<bool, String> {
        let Self::Redis(estimator) = self else { return Ok(true) };
        let visits = witnesses.visits();
        if visits.is_empty() {
            return Ok(true);
        }
        let kept = estimator.are_kept(&visits).await.map_err(|error| cannot_serve(&error))?;
        Ok(witnesses.confirm(&kept, state.counts.accepted, state.counts.rejected))
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
    pub(super) async fn deliver(&self, chunk: &Chunk) -> Result<ChunkResult, Failure> {
        if chunk.lines.is_empty() {
            return Ok(ChunkResult::default());
        }
        match (self, &chunk.visits) {
            (Self::Redis(estimator), Visits::Batch(batch)) => write(estimator, batch, &chunk.lines).await,
            (Self::Service(service), Visits::Lines(text)) => service.post(text, &chunk.lines).await,
            _ => unreachable!("a chunk is made for its purpose"),
        }
    }
}

async fn write(estimator: &Estimator, batch: &Batch, lines: &[u64]) -> Result<ChunkResult, Failure> {
    let permit = estimator.acquire_bulk_permit().await.map_err(failure)?;
    let written = permit.write(batch).await;
    let mut delivered = ChunkResult::default();
    for (place, line) in lines.iter().enumerate() {
        match written.result(place) {
            Ok(()) => delivered.accepted += 1,
            // It isn't the visit's fault, and another run may go on from here.
            Err(store::Error::TooManySegments(max)) => {
                return Err(Failure::Permanent(format!(
                    "the data set would have more segments than the {max} that max_segments allows: raise it, or correct the file"
                )));
            }
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

fn cannot_serve(error: &store::Error) -> String {
    format!("Redis can't serve: {error}")
}

fn failure(error: store::Error) -> Failure {
    let why = error.to_string();
    match error {
        store::Error::Redis(redis::Error::TooOld(_) | redis::Error::NoWaitAof)
        | store::Error::Partitions { .. }
        | store::Error::Unrecorded { .. } => Failure::Permanent(why),
        _ => Failure::Transient { why, pause: None },
    }
}
