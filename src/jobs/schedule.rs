//! The schedule of a job: a cron pattern, which follows this machine's clock if that is set back.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use tokio::sync::mpsc;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use uuid::Uuid;

use crate::domain::Timestamp;

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
    pub(super) fn job(&self, ticks: mpsc::Sender<()>) -> Result<Job, JobSchedulerError> {
        Job::new_async(self.six_fields(), move |_, _| {
            let _ = ticks.try_send(());
            Box::pin(std::future::ready(()))
        })
    }

    /// Reschedules `job` to the first tick after `now`, if its next tick is later. Returns whether it was.
    ///
    /// The scheduler computes the next tick once. If the clock was ahead at that time and is set back, the job would
    /// not run until the clock reaches the tick.
    pub(super) async fn reschedule_after_clock_change(
        &self,
        scheduler: &JobScheduler,
        job: Uuid,
        now: Timestamp,
    ) -> Result<bool, JobSchedulerError> {
        let Some(next) = self.next_after(now) else { return Ok(false) };
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;
    use crate::estimator::clock::Clock;

    #[tokio::test]
    async fn reschedule_after_clock_change_moves_a_tick_of_a_clock_that_was_ahead() {
        const TIMEOUT: Duration = Duration::from_secs(30);
        let (sender, mut ticks) = mpsc::channel(1);
        let schedule = Schedule::parse("* * * * * *").unwrap();
        let scheduler = JobScheduler::new().await.unwrap();
        let job = scheduler.add(schedule.job(sender).unwrap()).await.unwrap();
        let set = async |tick: DateTime<Utc>| {
            let context = scheduler.context();
            let mut jobs = context.metadata_storage.write().await;
            jobs.set_next_and_last_tick(job, Some(tick), Some(tick)).await.unwrap();
        };
        // The state after a tick of a clock that is a year ahead.
        let now = Clock::of_this_machine();
        let in_a_year = now + Duration::from_secs(365 * 24 * 60 * 60);
        set(schedule.next_after(in_a_year).unwrap()).await;
        assert!(
            !schedule.reschedule_after_clock_change(&scheduler, job, in_a_year).await.unwrap(),
            "by that clock it is right"
        );
        assert!(schedule.reschedule_after_clock_change(&scheduler, job, now).await.unwrap());
        assert!(!schedule.reschedule_after_clock_change(&scheduler, job, now).await.unwrap(), "once is enough");
        scheduler.start().await.unwrap();
        assert_eq!(tokio::time::timeout(TIMEOUT, ticks.recv()).await, Ok(Some(())));
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
    async fn reschedule_after_clock_change_acts_only_if_the_clock_was_set_back_over_a_tick(
        #[case] now: &str,
        #[case] expected: bool,
    ) {
        let (sender, _ticks) = mpsc::channel(1);
        let schedule = Schedule::parse("0 * * * *").unwrap();
        let scheduler = JobScheduler::new().await.unwrap();
        let job = scheduler.add(schedule.job(sender).unwrap()).await.unwrap();
        let at = |time: &str| Timestamp::from_millis(DateTime::parse_from_rfc3339(time).unwrap().timestamp_millis());
        let next = schedule.next_after(at("2026-11-28T12:30:00Z"));
        scheduler.context().metadata_storage.write().await.set_next_and_last_tick(job, next, None).await.unwrap();
        assert_eq!(schedule.reschedule_after_clock_change(&scheduler, job, at(now)).await.unwrap(), expected);
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
