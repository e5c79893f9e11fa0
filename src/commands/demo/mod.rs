//! `segment-estimator demo`: fills a data set that has nothing yet with a population that is made up, so that a newcomer
//! sees what the service shows of a real one.
//!
//! `population.rs` makes it up, `names.rs` has the names, `rhythm.rs` knows when people are awake. This file writes it: the
//! members with their last visits, and what the history would have been.

mod command;
mod names;
mod population;
mod rhythm;

use std::time::Duration;

pub(super) use self::command::DemoCommand;
pub use self::population::{Member, Population};
use super::progress::Progress;
use crate::domain::Visit;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::Interval;
use crate::store::{self, Batch, NamedSample, Store};

/// What the demonstration is to be like.
#[derive(Debug, Clone, Copy)]
pub struct Demo {
    /// How many segments.
    pub segments: usize,
    /// How many users they have, together.
    pub users: usize,
    /// What the chances go by: the same seed gives the same population, relative to the time.
    pub seed: u64,
    /// How often the counts are said to have been sampled.
    pub interval: Interval,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled {
    /// Segments.
    pub segments: usize,
    /// Members of all of them.
    pub visits: u64,
    /// Points of all histories.
    pub points: u64,
}

/// Why nothing, or not all, was written: one line, made to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is data already, which made-up visits would spoil for good.
    #[error(
        "the data set has segments already ({0}), and made-up visits could not be told from theirs: give demo and a service a \
         data set of their own, such as `--data-dir data/made-up`"
    )]
    NotFresh(u64),
    /// Redis didn't answer, or refused.
    #[error("{0}; what was written until then stays")]
    Store(#[from] store::Error),
}

impl Demo {
    /// How far back the histories go.
    pub const HISTORY: Duration = Duration::from_secs(14 * 24 * 60 * 60);
    /// How many visits are written at once.
    const BATCH_SIZE: usize = 8_192;

    /// How many visits there will be.
    #[must_use]
    pub fn visits(&self) -> u64 {
        population::sizes(self.segments, self.users).map(|size| size as u64).sum()
    }

    /// Fills `store`, through `estimator`, which must have no segment. Tells `progress` how many visits are written.
    ///
    /// # Errors
    ///
    /// A [`DemoError`] when there are segments, or when Redis didn't answer.
    pub async fn fill(
        &self,
        estimator: &Estimator,
        store: &Store,
        clock: &Clock,
        progress: Option<&Progress>,
    ) -> Result<Filled, DemoError> {
        estimator.sync(clock).await?;
        match store.index_size().await? {
            0 => {}
            known => return Err(DemoError::NotFresh(known)),
        }
        let now = clock.now();
        let mut writing =
            Writing { estimator, store, batch: Batch::default(), samples: Vec::new(), filled: Filled::default() };
        for segment in Population::new(self, estimator.window(), now) {
            writing.samples.extend(
                segment.history.into_iter().map(|sample| NamedSample { segment: segment.name.clone(), sample }),
            );
            for Member { user_id, last_seen } in segment.members {
                writing.batch.add(&Visit { user_id, segment: segment.name.clone(), seen_at: last_seen });
                if writing.batch.len() == Self::BATCH_SIZE {
                    writing.flush().await?;
                    if let Some(progress) = progress {
                        progress.tell(writing.filled.visits, writing.filled.visits);
                    }
                }
            }
            if writing.samples.len() >= Self::BATCH_SIZE {
                writing.flush().await?;
            }
            writing.filled.segments += 1;
        }
        writing.flush().await?;
        Ok(writing.filled)
    }
}

/// What is on its way. Small segments go together: each round trip may wait for a disk.
struct Writing<'a> {
    estimator: &'a Estimator,
    store: &'a Store,
    batch: Batch,
    samples: Vec<NamedSample>,
    filled: Filled,
}

impl Writing<'_> {
    /// Samples first, since a history only grows at its end, and a service that runs samples what has members.
    async fn flush(&mut self) -> Result<(), store::Error> {
        self.filled.points += self.store.add_samples(&std::mem::take(&mut self.samples)).await?;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.estimator.acquire_bulk_permit().await?.write(&batch).await.into_result()?;
            self.filled.visits += batch.len() as u64;
        }
        Ok(())
    }
}
