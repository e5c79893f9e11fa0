//! The target of an import: Redis or a service.

use super::Service;
use super::chunk::{Chunk, EncodedVisits, Encoding};
use super::delivery::{DeliveryFailure, DeliveryResult};
use super::state::State;
use super::witnesses::Witnesses;
use crate::commands::progress::Progress;
use crate::domain::Window;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::ingest::{LineError, Origins};
use crate::redis;
use crate::store::{self, Batch};

/// The target of an import. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Redis(Estimator),
    Service(Service),
    /// None, in a dry run. Visits outside the window have expired.
    Nowhere(Window),
}

impl Target {
    /// Visits in a chunk for Redis. Each partition gets a part of a chunk, and long commands are fast, so more
    /// partitions mean larger chunks.
    const MIN_REDIS_CHUNK: usize = 8_192;
    const MAX_REDIS_CHUNK: usize = 65_536;
    const VISITS_PER_PARTITION: usize = 1_024;
    /// Visits in a request to a service.
    const SERVICE_CHUNK: usize = 50_000;

    /// Checks that the target answers, and synchronizes `clock` with it. Writes nothing.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub(super) async fn check_reachable(&self, clock: &Clock) -> Result<(), String> {
        match self {
            Self::Redis(estimator) => estimator.sync_clock(clock).await.map(drop).map_err(|error| cannot_serve(&error)),
            Self::Service(service) => service.check_reachable().await,
            Self::Nowhere(_) => Ok(()),
        }
    }

    /// Creates the data set in Redis if there is none, or extends its window if that is shorter than the import's.
    ///
    /// # Errors
    ///
    /// The reason in one line.
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
            Self::Nowhere(_) => {
                progress.println("dry run: no visit is written");
                Ok(())
            }
        }
    }

    /// Returns whether Redis still has the `witnesses` of the runs in `state`. A service can't be asked, so its answer
    /// is true. Writes nothing.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub(super) async fn has_witnesses(&self, witnesses: &Witnesses, state: &State) -> Result<bool, String> {
        let Self::Redis(estimator) = self else { return Ok(true) };
        let visits = witnesses.visits();
        if visits.is_empty() {
            return Ok(true);
        }
        let kept = estimator.are_kept(&visits).await.map_err(|error| cannot_serve(&error))?;
        Ok(witnesses.confirm(&kept, state.counts.accepted, state.counts.rejected))
    }

    /// Returns how a chunk encodes visits for this target.
    pub(super) fn encoding(&self, clock: &Clock) -> Encoding {
        match self {
            Self::Redis(estimator) => Encoding::Batch(clock.clone(), estimator.window()),
            Self::Service(_) => Encoding::Lines,
            Self::Nowhere(window) => Encoding::Batch(clock.clone(), *window),
        }
    }

    /// Returns the number of visits in a chunk.
    pub(super) fn chunk_size(&self) -> usize {
        match self {
            Self::Redis(estimator) => {
                let partitions = estimator.partitions().map_or(1, store::Partitions::count);
                (Self::VISITS_PER_PARTITION * partitions).clamp(Self::MIN_REDIS_CHUNK, Self::MAX_REDIS_CHUNK)
            }
            Self::Service(_) => Self::SERVICE_CHUNK,
            Self::Nowhere(_) => Self::MIN_REDIS_CHUNK,
        }
    }

    /// Delivers `chunk`. Idempotent.
    pub(super) async fn deliver(&self, chunk: &Chunk) -> Result<DeliveryResult, DeliveryFailure> {
        if chunk.origins.is_empty() {
            return Ok(DeliveryResult::default());
        }
        match (self, &chunk.visits) {
            (Self::Redis(estimator), EncodedVisits::Batch(batch)) => write(estimator, batch, &chunk.origins).await,
            (Self::Service(service), EncodedVisits::Lines(text)) => service.post(text, &chunk.origins).await,
            (Self::Nowhere(_), _) => {
                Ok(DeliveryResult { accepted: chunk.origins.len() as u64, ..DeliveryResult::default() })
            }
            _ => unreachable!("a chunk is encoded for its target"),
        }
    }
}

async fn write(estimator: &Estimator, batch: &Batch, origins: &Origins) -> Result<DeliveryResult, DeliveryFailure> {
    let permit = estimator.acquire_bulk_permit().await.map_err(failure)?;
    let outcome = permit.write(batch).await;
    let mut result = DeliveryResult::default();
    for (index, line) in origins.lines().iter().enumerate() {
        match outcome.result(index) {
            Ok(()) => result.accepted += 1,
            // The visit is valid, and a later run can write it after the limit is raised.
            Err(store::Error::TooManySegments(max)) => {
                return Err(DeliveryFailure::Permanent(format!(
                    "the data set reached the limit of {max} segments (max_segments); raise it, or correct the file"
                )));
            }
            Err(error) if error.is_outage() => return Err(failure(error.clone())),
            Err(error) => {
                let (field, detail) = (Some(origins.field(index)), format!("was not written: {error}"));
                result.rejected += 1;
                result.errors.push(LineError { line: *line, field, detail });
            }
        }
    }
    Ok(result)
}

fn cannot_serve(error: &store::Error) -> String {
    format!("Redis can't serve: {error}")
}

fn failure(error: store::Error) -> DeliveryFailure {
    let why = error.to_string();
    match error {
        store::Error::Redis(redis::Error::TooOld(_) | redis::Error::NoWaitAof)
        | store::Error::Partitions { .. }
        | store::Error::MaxMembers { .. }
        | store::Error::Unrecorded { .. } => DeliveryFailure::Permanent(why),
        _ => DeliveryFailure::Transient { why, retry_after: None },
    }
}
