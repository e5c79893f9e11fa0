//! Fills an empty data set with a generated population.

use super::population::Population;
use crate::commands::progress::Progress;
use crate::domain::Visit;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::store::{self, Batch, NamedSample, Store};

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DemoCounts {
    pub(super) segments: usize,
    /// The members of all segments.
    pub(super) visits: u64,
    /// The points of all histories.
    pub(super) points: u64,
}

/// Why the data set was not filled, in one line for the user.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// The data set has segments. Generated visits would spoil them permanently.
    #[error(
        "the data set already has segments ({0}), and generated visits could not be told apart from theirs; use a separate data \
         set for demo and a service, such as `--data-dir data/made-up`"
    )]
    NotEmpty(u64),
    /// Redis failed.
    #[error("{0}; what was written so far is kept")]
    Store(#[from] store::Error),
}

/// Visits in one write.
const BATCH_SIZE: usize = 8_192;

/// Fills the empty data set of `store` and `estimator` with `population`.
pub(super) async fn fill(
    population: &Population,
    estimator: &Estimator,
    store: &Store,
    clock: &Clock,
    progress: &Progress,
) -> Result<DemoCounts, DemoError> {
    estimator.sync(clock).await?;
    match store.index_size().await? {
        0 => {}
        segments => return Err(DemoError::NotEmpty(segments)),
    }
    let mut writer =
        Writer { estimator, store, batch: Batch::default(), samples: Vec::new(), counts: DemoCounts::default() };
    for segment in population.segments(estimator.window(), clock.now()) {
        let samples = segment.history.into_iter();
        writer.samples.extend(samples.map(|sample| NamedSample { segment: segment.name.clone(), sample }));
        for (user_id, seen_at) in segment.members {
            writer.batch.add(&Visit { user_id, segment: segment.name.clone(), seen_at });
            if writer.batch.len() == BATCH_SIZE {
                writer.flush().await?;
                progress.update(writer.counts.visits, writer.counts.visits);
            }
        }
        if writer.samples.len() >= BATCH_SIZE {
            writer.flush().await?;
        }
        writer.counts.segments += 1;
    }
    writer.flush().await?;
    Ok(writer.counts)
}

/// Buffers members and samples, so that small segments share round trips.
struct Writer<'a> {
    estimator: &'a Estimator,
    store: &'a Store,
    batch: Batch,
    samples: Vec<NamedSample>,
    counts: DemoCounts,
}

impl Writer<'_> {
    /// Writes the buffers. Samples go first: a history only grows at its end, and a running service samples segments
    /// with members.
    async fn flush(&mut self) -> Result<(), store::Error> {
        let samples = std::mem::take(&mut self.samples);
        self.counts.points += self.store.add_samples(&samples).await?;
        // Each history is in one batch.
        let histories = samples.chunk_by(|one, next| one.segment == next.segment);
        let last = histories.filter_map(<[_]>::last).map(|last| (&last.segment, last.sample.at));
        self.store.update_changes(&last.collect::<Vec<_>>(), self.estimator.window()).await?;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.estimator.acquire_bulk_permit().await?.write(&batch).await.into_result()?;
            self.counts.visits += batch.len() as u64;
        }
        Ok(())
    }
}
