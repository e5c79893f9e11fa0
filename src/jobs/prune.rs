//! The cron job that removes expired members. It bounds the memory of Redis; counts don't depend on it.
//!
//! A member is expired if its last visit was at or before now minus the window of the data set, where now is the lower
//! bound on all clocks.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_cron_scheduler::{JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use super::schedule::Schedule;
use crate::domain::Timestamp;
use crate::estimator::clock::Clock;
use crate::estimator::{Estimator, PruneError, PruneReport};
use crate::store;

/// Prunes on a schedule.
#[derive(Debug)]
pub struct Pruner {
    estimator: Estimator,
    clock: Clock,
    schedule: Schedule,
}

/// Why the pruner stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum PrunerError {
    /// The scheduler failed.
    #[error("failed to run the prune schedule: {0}")]
    Scheduler(#[from] JobSchedulerError),
    /// The scheduler dropped the job.
    #[error("the scheduler dropped the prune job")]
    Dropped,
}

impl Pruner {
    /// How often the next tick is checked against the clock.
    const CHECK_INTERVAL: Duration = Duration::from_secs(1);

    /// Creates a pruner of `estimator`.
    #[must_use]
    pub fn new(estimator: Estimator, clock: Clock, schedule: Schedule) -> Self {
        Self { estimator, clock, schedule }
    }

    /// Prunes at every tick of the schedule until `stop` is cancelled. A run in progress is then dropped; a removal
    /// that was sent may still take effect. The next run of any instance begins at the first segment again.
    ///
    /// Ticks go through a channel with room for one, so runs never overlap or pile up.
    ///
    /// # Errors
    ///
    /// A [`PrunerError`] if the scheduler fails. A failure of Redis is logged.
    pub async fn run(self, stop: CancellationToken) -> Result<(), PrunerError> {
        let (sender, ticks) = mpsc::channel(1);
        let mut scheduler = JobScheduler::new().await?;
        let job = scheduler.add(self.schedule.job(sender)?).await?;
        scheduler.start().await?;

        let pruning = run_per_tick(ticks, || self.prune_once());
        let checking = async {
            loop {
                tokio::time::sleep(Self::CHECK_INTERVAL).await;
                if let Err(error) =
                    self.schedule.reschedule_after_clock_change(&scheduler, job, Clock::of_this_machine()).await
                {
                    break error;
                }
            }
        };
        let failed = async {
            tokio::select! {
                () = pruning => PrunerError::Dropped,
                error = checking => error.into(),
            }
        };
        let failure = stop.run_until_cancelled(failed).await;
        scheduler.shutdown().await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Prunes once, up to the lower bound on all clocks, which is measured for each run: pruning too early would lose
    /// members, and pruning late costs nothing.
    pub async fn prune_once(&self) {
        let started = Instant::now();
        let metrics = &self.estimator.metrics().prune;
        let outcome = match self.estimator.sync(&self.clock).await {
            Ok(sync) => self.prune_at(sync.safe_now).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => metrics.done(self.clock.now().as_score(), started.elapsed()),
            Err(error) => {
                metrics.failed(started.elapsed());
                tracing::warn!(%error, "pruning failed; the next tick retries");
            }
        }
    }

    /// Removes what has expired at `now`, and logs and counts it, also if the run fails afterwards.
    async fn prune_at(&self, now: Timestamp) -> Result<(), store::Error> {
        let (report, outcome) = match self.estimator.prune(now).await {
            Ok(report) => (report, Ok(())),
            Err(PruneError { report, cause }) => (report, Err(cause)),
        };
        let PruneReport { window, segments_examined, members_removed, names_dropped, segments_of_wrong_type } = report;
        self.estimator.metrics().prune.removed(members_removed);
        if segments_of_wrong_type > 0 {
            tracing::warn!(
                segments_of_wrong_type,
                "removed segments whose key is not a sorted set from the index and kept their keys; find the other program that \
                 writes to this Redis"
            );
        }
        if let Some(window) = window
            && (members_removed > 0 || names_dropped > 0)
        {
            let cutoff = window.cutoff(now);
            tracing::info!(safe_now = %now, %window, %cutoff, segments_examined, members_removed, names_dropped, "pruned");
        }
        outcome
    }
}

/// Calls `run` for every tick, one call after another.
async fn run_per_tick<Run: Future<Output = ()>>(mut ticks: mpsc::Receiver<()>, run: impl Fn() -> Run) {
    while ticks.recv().await.is_some() {
        run().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::domain::Window;
    use crate::redis::{Client, Limits, RedisUrl};
    use crate::store::Store;
    use crate::telemetry::tests::Captured;

    #[tokio::test]
    async fn run_per_tick_never_overlaps_runs_or_piles_them_up() {
        let (sender, ticks) = mpsc::channel(1);
        let (may_end, has_begun) = (Semaphore::new(0), Semaphore::new(0));
        let (running, runs) = (Cell::new(0), Cell::new(0));
        let run = async || {
            running.set(running.get() + 1);
            assert_eq!(running.get(), 1);
            has_begun.add_permits(1);
            may_end.acquire().await.unwrap().forget();
            runs.set(runs.get() + 1);
            running.set(running.get() - 1);
        };
        let scheduler = async {
            sender.try_send(()).unwrap();
            has_begun.acquire().await.unwrap().forget();
            // Of three ticks during the first run, one is kept.
            let kept = (0..3).filter(|_| sender.try_send(()).is_ok()).count();
            assert_eq!(kept, 1);
            may_end.add_permits(2);
            drop(sender);
        };
        tokio::join!(run_per_tick(ticks, &run), scheduler);
        assert_eq!(runs.get(), 2);
    }

    #[tokio::test]
    async fn prune_once_logs_a_failure_once() {
        let nowhere = RedisUrl::unix("/nowhere/redis.sock".into());
        let limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(1), max_pending: 1 };
        let store = Store::new(Client::new(nowhere, limits, std::sync::Arc::default()).unwrap());
        let estimator = Estimator::new(store, Window::parse("14d").unwrap());
        let pruner = Pruner::new(estimator, Clock::system(), Schedule::parse("0 * * * *").unwrap());

        let captured = Captured::default();
        let guard = tracing::subscriber::set_default(captured.subscriber());
        pruner.prune_once().await;
        drop(guard);
        let lines = captured.lines();
        assert_eq!(lines.iter().filter(|line| line.contains("pruning failed")).count(), 1, "{lines:#?}");
    }
}
