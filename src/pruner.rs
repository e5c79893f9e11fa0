//! The cron job that removes expired members. Counts are exact without it; it keeps Redis's memory from growing.

use std::fmt;
use std::time::Instant;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::estimator::{Estimator, PruneReport};
use crate::store;

/// When to prune: a cron pattern of five fields, or six with the seconds first. Times are UTC.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// Reads a cron pattern such as `0 * * * *` (every hour) or `*/10 * * * * *` (every ten seconds).
    ///
    /// # Errors
    ///
    /// A sentence without its subject when `pattern` is none, or matches no time at all.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).dom_and_dow(true).build();
        let cron = parser.parse(pattern).map_err(|error| {
            format!("is not a cron pattern of five fields, or six with seconds first{}", reason(&error))
        })?;
        cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, false)
            .map_err(|_| "is a cron pattern that matches no time".to_owned())?;
        Ok(Self(cron))
    }

    /// The pattern with all six fields, as the scheduler wants it.
    fn six_fields(&self) -> String {
        let pattern = self.0.pattern.to_string();
        if pattern.split_whitespace().count() == 5 { format!("0 {pattern}") } else { pattern }
    }
}

/// The pattern as it was given, but for names, which are numbers.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.pattern.fmt(f)
    }
}

/// What the parser adds to "this is no pattern", where that is about the pattern's parts.
fn reason(error: &CronError) -> String {
    match error {
        CronError::ComponentError(why) | CronError::IllegalCharacters(why) => format!(": {why}"),
        _ => String::new(),
    }
}

/// Prunes whenever its schedule says so.
#[derive(Debug)]
pub struct Pruner {
    estimator: Estimator,
    clock: Clock,
    schedule: Schedule,
}

/// Why the pruner ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum PrunerError {
    /// The scheduler could not be set up.
    #[error("the prune schedule can't be run: {0}")]
    Scheduler(#[from] JobSchedulerError),
    /// The scheduler has let go of the job.
    #[error("the scheduler has dropped the prune job")]
    Dropped,
}

impl Pruner {
    /// A pruner for `estimator` by `clock`.
    #[must_use]
    pub fn new(estimator: Estimator, clock: Clock, schedule: Schedule) -> Self {
        Self { estimator, clock, schedule }
    }

    /// Prunes at every tick of the schedule until `stop` is cancelled. A run that is under way then is dropped between
    /// two slices; the next one, here or in another replica, goes on where it was.
    ///
    /// The scheduler may fire while a run is under way. It only leaves a note, of which there is room for one, so runs
    /// never overlap and never pile up.
    ///
    /// # Errors
    ///
    /// A [`PrunerError`] when the scheduler fails; never because of Redis.
    pub async fn run(self, stop: CancellationToken) -> Result<(), PrunerError> {
        let (note, notes) = mpsc::channel(1);
        let mut scheduler = JobScheduler::new().await?;
        let job = Job::new_async(self.schedule.six_fields(), move |_, _| {
            let _ = note.try_send(());
            Box::pin(std::future::ready(()))
        })?;
        scheduler.add(job).await?;
        scheduler.start().await?;

        let pruning = one_at_a_time(notes, || self.prune_once());
        let outcome = stop.run_until_cancelled(pruning).await;
        scheduler.shutdown().await?;
        if outcome.is_none() { Ok(()) } else { Err(PrunerError::Dropped) }
    }

    /// One run, with one line in the log if there is anything to say. It goes by a time that no service on this Redis is
    /// behind, found out anew for each run: what is pruned too early is lost, and too late costs nothing.
    pub async fn prune_once(&self) {
        let (since, metrics) = (Instant::now(), &self.estimator.metrics().prune);
        let run = async {
            let settled = self.estimator.compare_clock(&self.clock).await?.settled;
            Ok::<_, store::Error>((settled, self.estimator.prune(settled).await?))
        };
        match run.await {
            Ok((now, PruneReport { segments_examined, members_removed, segments_dropped, segments_failed })) => {
                metrics.done(self.clock.now().as_score(), members_removed, since.elapsed());
                if segments_failed > 0 {
                    tracing::warn!(
                        segments_failed,
                        "dropped segments whose key is not a sorted set from the index, and left their keys alone; find the other \
                         program that writes to this Redis"
                    );
                }
                if members_removed > 0 || segments_dropped > 0 {
                    tracing::info!(%now, segments_examined, members_removed, segments_dropped, "pruned");
                }
            }
            Err(error) => {
                metrics.failed(since.elapsed());
                tracing::warn!(%error, "pruning failed; the next tick tries again");
            }
        }
    }
}

/// Calls `run` for every note, and not before the last call has ended.
async fn one_at_a_time<Run: Future<Output = ()>>(mut notes: mpsc::Receiver<()>, run: impl Fn() -> Run) {
    while notes.recv().await.is_some() {
        run().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use rstest::rstest;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::store::{Connection, Limits, RedisUrl, Store};
    use crate::telemetry::tests::Captured;
    use crate::time::Window;

    #[tokio::test]
    async fn runs_never_overlap_and_never_pile_up() {
        let (note, notes) = mpsc::channel(1);
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
            note.try_send(()).unwrap();
            has_begun.acquire().await.unwrap().forget();
            // Three ticks while the first run is under way leave one note.
            let kept = (0..3).filter(|_| note.try_send(()).is_ok()).count();
            assert_eq!(kept, 1);
            may_end.add_permits(2);
            drop(note);
        };
        tokio::join!(one_at_a_time(notes, &run), scheduler);
        assert_eq!(runs.get(), 2);
    }

    #[tokio::test]
    async fn a_failed_run_is_logged_once() {
        let nowhere = RedisUrl::unix("/nowhere/redis.sock".into());
        let limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(1), waiting: 1 };
        let store = Store::new(Connection::new(nowhere, limits, std::sync::Arc::default()).unwrap());
        let estimator = Estimator::new(store, Window::parse("14d").unwrap());
        let pruner = Pruner::new(estimator, Clock::system(), Schedule::parse("0 * * * *").unwrap());

        let captured = Captured::default();
        let guard = tracing::subscriber::set_default(captured.subscriber());
        pruner.prune_once().await;
        drop(guard);
        let lines = captured.lines();
        assert_eq!(lines.iter().filter(|line| line.contains("pruning failed")).count(), 1, "{lines:#?}");
    }

    #[rstest]
    #[case::five_fields("0 * * * *", "0 0 * * * *")]
    #[case::six_fields("*/10 * * * * *", "*/10 * * * * *")]
    #[case::nickname("@hourly", "0 0 * * * *")]
    #[case::names("30 4 * * MON-FRI", "0 30 4 * * 1-5")]
    fn five_and_six_fields_are_read(#[case] pattern: &str, #[case] six_fields: &str) {
        let schedule = Schedule::parse(pattern).unwrap();
        assert_eq!(schedule.six_fields(), six_fields);
        assert!(Job::new(schedule.six_fields(), |_, _| {}).is_ok());
    }

    #[rstest]
    #[case("", "is not a cron pattern")]
    #[case("* * * *", "is not a cron pattern")]
    #[case("every hour", "is not a cron pattern")]
    #[case("99 * * * *", "is not a cron pattern")]
    #[case("0 0 0 1 1 * 2017", "is not a cron pattern")]
    #[case("0 0 31 2 *", "matches no time")]
    fn what_is_no_schedule_says_so(#[case] pattern: &str, #[case] message: &str) {
        let error = Schedule::parse(pattern).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}
