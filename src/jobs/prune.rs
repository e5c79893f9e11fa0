//! The cron job that removes expired members. It bounds the memory of Redis; counts don't depend on it.
//!
//! A member is expired if its last visit was at or before now minus the window of the data set, where now is the lower bound on all
//! clocks.

use std::fmt;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::estimator::clock::Clock;
use crate::estimator::{Estimator, PruneError, PruneReport};
use crate::store;

/// A cron pattern of five fields, or six with the seconds first, in UTC.
#[derive(Debug, Clone)]
pub struct Schedule(Cron);

impl Schedule {
    /// Parses a cron pattern such as `0 * * * *` (every hour) or `*/10 * * * * *` (every ten seconds).
    ///
    /// # Errors
    ///
    /// The predicate of a sentence about the setting, if `pattern` is not valid or matches no time.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).dom_and_dow(true).build();
        let cron = parser.parse(pattern).map_err(|error| {
            format!("is not a cron pattern of five fields, or six with seconds first{}", reason(&error))
        })?;
        cron.find_next_occurrence(&DateTime::<Utc>::UNIX_EPOCH, false)
            .map_err(|_| "is a cron pattern that matches no time".to_owned())?;
        Ok(Self(cron))
    }

    /// Creates a job that sends to `ticks` at each tick, if there is room.
    fn job(&self, ticks: mpsc::Sender<()>) -> Result<Job, JobSchedulerError> {
        Job::new_async(self.six_fields(), move |_, _| {
            let _ = ticks.try_send(());
            Box::pin(std::future::ready(()))
        })
    }

    /// Returns the first tick after `now`.
    fn next_after(&self, now: Timestamp) -> Option<DateTime<Utc>> {
        self.0.find_next_occurrence(&DateTime::from_timestamp_millis(now.as_millis())?, false).ok()
    }

    /// Returns the pattern with six fields, as the scheduler requires.
    fn six_fields(&self) -> String {
        let pattern = self.0.pattern.to_string();
        if pattern.split_whitespace().count() == 5 { format!("0 {pattern}") } else { pattern }
    }
}

/// Formats the pattern as it was given, with numbers in place of names.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.pattern.fmt(f)
    }
}

/// Returns the reason of the parser, if it is about a part of the pattern.
fn reason(error: &CronError) -> String {
    match error {
        CronError::ComponentError(why) | CronError::IllegalCharacters(why) => format!(": {why}"),
        _ => String::new(),
    }
}

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

    /// Prunes at every tick of the schedule until `stop` is cancelled. A run in progress is then dropped; a removal that was sent may
    /// still take effect. The next run of any instance begins at the first segment again.
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

        let pruning = one_at_a_time(ticks, || self.prune_once());
        let checking = async {
            loop {
                tokio::time::sleep(Self::CHECK_INTERVAL).await;
                if let Err(error) = rearm(&self.schedule, &scheduler, job, Clock::of_this_machine()).await {
                    break error;
                }
            }
        };
        let ended = async {
            tokio::select! {
                () = pruning => PrunerError::Dropped,
                error = checking => error.into(),
            }
        };
        let outcome = stop.run_until_cancelled(ended).await;
        scheduler.shutdown().await?;
        outcome.map_or(Ok(()), Err)
    }

    /// Runs once. The time is the lower bound on all clocks, measured for each run: pruning too early loses members, and pruning late
    /// costs nothing.
    pub async fn prune_once(&self) {
        let (since, metrics) = (Instant::now(), &self.estimator.metrics().prune);
        let outcome = match self.estimator.sync(&self.clock).await {
            Ok(sync) => self.prune_at(sync.safe_now).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => metrics.done(self.clock.now().as_score(), since.elapsed()),
            Err(error) => {
                metrics.failed(since.elapsed());
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
            // Members last seen at or before the cutoff were removed.
            let cutoff = window.cutoff(now);
            tracing::info!(%now, %window, %cutoff, segments_examined, members_removed, names_dropped, "pruned");
        }
        outcome
    }
}

/// Reschedules `job` to the first tick after `now`, if its next tick is later. Returns whether it was.
///
/// The scheduler computes the next tick once. If the clock was ahead at that time and is set back, the job would not run until the
/// clock reaches the tick.
async fn rearm(
    schedule: &Schedule,
    scheduler: &JobScheduler,
    job: Uuid,
    now: Timestamp,
) -> Result<bool, JobSchedulerError> {
    let Some(next) = schedule.next_after(now) else { return Ok(false) };
    let context = scheduler.context();
    let mut jobs = context.metadata_storage.write().await;
    let kept = jobs.get(job).await?.map_or(0, |job| job.next_tick);
    if i64::try_from(kept).is_ok_and(|kept| kept <= next.timestamp()) {
        return Ok(false);
    }
    // The last tick is cleared, since one later than the next tick would suppress it.
    jobs.set_next_and_last_tick(job, Some(next), None).await?;
    let next = next.to_rfc3339_opts(SecondsFormat::Secs, true);
    tracing::warn!(next, "this machine's clock was set back; rescheduled the next prune run");
    Ok(true)
}

/// Calls `run` for every tick, one call after another.
async fn one_at_a_time<Run: Future<Output = ()>>(mut ticks: mpsc::Receiver<()>, run: impl Fn() -> Run) {
    while ticks.recv().await.is_some() {
        run().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use rstest::rstest;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::domain::Window;
    use crate::redis::{Client, Limits, RedisUrl};
    use crate::store::Store;
    use crate::telemetry::tests::Captured;

    #[tokio::test]
    async fn one_at_a_time_never_overlaps_runs_or_piles_them_up() {
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
            // Of three ticks during the first run, one is kept.
            let kept = (0..3).filter(|_| note.try_send(()).is_ok()).count();
            assert_eq!(kept, 1);
            may_end.add_permits(2);
            drop(note);
        };
        tokio::join!(one_at_a_time(notes, &run), scheduler);
        assert_eq!(runs.get(), 2);
    }

    #[tokio::test]
    async fn rearm_reschedules_a_tick_of_a_clock_that_was_ahead() {
        const PATIENCE: Duration = Duration::from_secs(30);
        let (note, mut notes) = mpsc::channel(1);
        let schedule = Schedule::parse("* * * * * *").unwrap();
        let scheduler = JobScheduler::new().await.unwrap();
        let job = scheduler.add(schedule.job(note).unwrap()).await.unwrap();
        let set = async |tick: DateTime<Utc>| {
            let context = scheduler.context();
            let mut jobs = context.metadata_storage.write().await;
            jobs.set_next_and_last_tick(job, Some(tick), Some(tick)).await.unwrap();
        };
        // The state after a tick of a clock that is a year ahead.
        let now = Clock::of_this_machine();
        let in_a_year = now + Duration::from_secs(365 * 24 * 60 * 60);
        set(schedule.next_after(in_a_year).unwrap()).await;
        assert!(!rearm(&schedule, &scheduler, job, in_a_year).await.unwrap(), "by that clock it is right");
        assert!(rearm(&schedule, &scheduler, job, now).await.unwrap());
        assert!(!rearm(&schedule, &scheduler, job, now).await.unwrap(), "once is enough");
        scheduler.start().await.unwrap();
        assert_eq!(tokio::time::timeout(PATIENCE, notes.recv()).await, Ok(Some(())));
    }

    #[rstest]
    #[case::the_clock_stands("2026-11-28T12:30:00Z", false)]
    #[case::it_goes_on("2026-11-28T12:59:59Z", false)]
    #[case::the_tick_is_due("2026-11-28T13:00:00Z", false)]
    #[case::it_was_set_ahead("2027-11-28T12:30:00Z", false)]
    #[case::set_back_within_the_hour("2026-11-28T12:00:00Z", false)]
    #[case::set_back_over_a_tick("2026-11-28T11:59:59Z", true)]
    #[case::set_back_a_year("2025-11-28T12:30:00Z", true)]
    #[tokio::test]
    async fn rearm_acts_only_if_the_clock_was_set_back_over_a_tick(#[case] now: &str, #[case] expected: bool) {
        let (note, _notes) = mpsc::channel(1);
        let schedule = Schedule::parse("0 * * * *").unwrap();
        let scheduler = JobScheduler::new().await.unwrap();
        let job = scheduler.add(schedule.job(note).unwrap()).await.unwrap();
        let at = |time: &str| Timestamp::from_millis(DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis());
        let next = schedule.next_after(at("2026-11-28T12:30:00Z"));
        scheduler.context().metadata_storage.write().await.set_next_and_last_tick(job, next, None).await.unwrap();
        assert_eq!(rearm(&schedule, &scheduler, job, at(now)).await.unwrap(), expected);
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

    #[rstest]
    #[case::five_fields("0 * * * *", "0 0 * * * *")]
    #[case::six_fields("*/10 * * * * *", "*/10 * * * * *")]
    #[case::nickname("@hourly", "0 0 * * * *")]
    #[case::names("30 4 * * MON-FRI", "0 30 4 * * 1-5")]
    fn schedule_parse_accepts_five_or_six_fields(#[case] pattern: &str, #[case] six_fields: &str) {
        let schedule = Schedule::parse(pattern).unwrap();
        assert_eq!(schedule.six_fields(), six_fields);
        assert!(Job::new(schedule.six_fields(), |_, _| {}).is_ok());
    }

    #[rstest]
    #[case::empty("", "is not a cron pattern")]
    #[case::four_fields("* * * *", "is not a cron pattern")]
    #[case::words("every hour", "is not a cron pattern")]
    #[case::minute_out_of_range("99 * * * *", "is not a cron pattern")]
    #[case::seven_fields("0 0 0 1 1 * 2017", "is not a cron pattern")]
    #[case::never("0 0 31 2 *", "matches no time")]
    fn schedule_parse_explains_a_rejection(#[case] pattern: &str, #[case] message: &str) {
        let error = Schedule::parse(pattern).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}
