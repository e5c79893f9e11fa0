//! The log of an outage, however many requests fail: a line for each kind of failure at its start, repeated every 30 s,
//! and one line at its end.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::Traffic;

/// A failure as the log and the metrics need it.
#[derive(Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub(crate) error: &'a (dyn fmt::Display + Sync),
    /// The value of the metrics' label, one of `telemetry::ERROR_KINDS`.
    pub(crate) kind: &'static str,
    pub(crate) reach: Reach,
}

/// The extent of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All requests, or writes alone, while reads succeed.
    Redis { writes_alone: bool },
    /// The data set, while Redis answers. The answer to a probe doesn't end it.
    DataSet,
    /// One key.
    Key,
}

/// Observes every answer and failure, and logs the first of each outage and the recovery.
#[derive(Default)]
pub(crate) struct OutageLog {
    /// Set from a logged failure to the logged recovery. A success checks this flag alone.
    failing: AtomicBool,
    state: Mutex<OutageState>,
}

#[derive(Default)]
struct OutageState {
    /// The last logged failure of each kind.
    logged: HashMap<&'static str, Logged>,
    last_failure: Option<Instant>,
    /// Whether Redis refused the last write of visits while counts succeed, for example because its memory is full.
    /// Only a visit that it accepts is a recovery then. Other writes prove nothing: pruning succeeds when the memory is
    /// full.
    refuses_visits: bool,
}

struct Logged {
    at: Instant,
    /// Number of failures of this kind since then.
    not_logged: u64,
    is_outage: bool,
}

impl OutageLog {
    /// Interval at which failures of the same kind are logged again.
    const REPEAT: Duration = Duration::from_secs(30);
    /// Time without a failure after which Redis has recovered. While Redis is slow, failures and successes alternate.
    const QUIET: Duration = Duration::from_secs(1);

    /// Logs a `failure` of a request for `traffic`, unless one of its kind was logged within [`Self::REPEAT`].
    pub(crate) fn failed(&self, failure: Failure<'_>, traffic: Traffic, now: Instant) {
        let Failure { error, kind, reach } = failure;
        let is_outage = matches!(reach, Reach::Redis { .. });
        let mut state = self.lock();
        if let Reach::Redis { writes_alone } = reach {
            state.last_failure = Some(now);
            state.refuses_visits |= traffic != Traffic::Other && writes_alone;
        }
        if let Some(last) = state.logged.get_mut(kind)
            && now.duration_since(last.at) < Self::REPEAT
        {
            last.not_logged += 1;
            return;
        }
        let last = state.logged.insert(kind, Logged { at: now, not_logged: 0, is_outage });
        let failures_not_logged = last.map(|last| last.not_logged).filter(|count| *count > 0);
        match reach {
            Reach::Redis { .. } => {
                self.failing.store(true, Ordering::Relaxed);
                tracing::warn!(%error, failures_not_logged, "Redis unavailable, answering 503");
            }
            Reach::DataSet => {
                tracing::warn!(%error, failures_not_logged, "data set unusable, answering 503");
            }
            Reach::Key => tracing::warn!(%error, failures_not_logged, "key unusable, answering 503 for it"),
        }
    }

    /// Whether [`Self::succeeded`] must be called. Cheap, since every answer checks it.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Records that one of several servers executed a request for `traffic`.
    pub(crate) fn succeeded_on_one_server(&self, traffic: Traffic) {
        self.lock().refuses_visits &= traffic == Traffic::Other;
    }

    /// Records that Redis executed a request for `traffic`, and logs the recovery.
    pub(crate) fn succeeded(&self, traffic: Traffic, now: Instant) {
        let mut state = self.lock();
        state.refuses_visits &= traffic == Traffic::Other;
        let is_quiet = state.last_failure.is_none_or(|at| now.duration_since(at) >= Self::QUIET);
        if is_quiet && !state.refuses_visits && self.failing.swap(false, Ordering::Relaxed) {
            // Log the start of the next outage. A key of another type is not part of an outage.
            state.logged.retain(|_, last| !last.is_outage);
            state.last_failure = None;
            tracing::info!("Redis answers again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, OutageState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Error;
    use crate::telemetry::tests::Captured;

    /// Returns the lines that `scene` logs.
    fn logged(scene: impl FnOnce(&OutageLog, Instant)) -> Vec<String> {
        let captured = Captured::default();
        tracing::subscriber::with_default(captured.subscriber(), || scene(&OutageLog::default(), Instant::now()));
        captured.lines()
    }

    const VISITS: Traffic = Traffic::Visits;

    fn timeout() -> Error {
        Error::Timeout(Duration::from_secs(2))
    }

    #[test]
    fn failed_and_succeeded_log_a_line_each_per_outage() {
        let lines = logged(|log, start| {
            for outage in 0..3 {
                let at = |millis| start + Duration::from_secs(5 * outage) + Duration::from_millis(millis);
                for request in 0..100 {
                    log.failed(timeout().as_failure(), VISITS, at(request));
                }
                assert!(log.is_failing());
                log.succeeded(VISITS, at(1_500));
                log.succeeded(VISITS, at(1_501));
                assert!(!log.is_failing());
            }
        });
        let failures = lines.iter().filter(|line| line.contains("Redis unavailable")).count();
        let recoveries = lines.iter().filter(|line| line.contains("Redis answers again")).count();
        assert_eq!((failures, recoveries, lines.len()), (3, 3, 6), "{lines:#?}");
    }

    #[test]
    fn failed_logs_one_line_in_thirty_seconds_while_successes_alternate() {
        let lines = logged(|log, start| {
            for millis in (0..60_000).step_by(10) {
                log.failed(timeout().as_failure(), VISITS, start + Duration::from_millis(millis));
                log.succeeded(VISITS, start + Duration::from_millis(millis + 5));
            }
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[1].contains("failures_not_logged=2999"), "{lines:#?}");
    }

    #[test]
    fn success_of_counts_is_no_recovery_while_visits_are_refused() {
        let full = Error::refused("ZADD segment:sports".to_owned(), "OOM", "");
        let lines = logged(|log, start| {
            let at = |millis| start + Duration::from_millis(millis);
            for millis in (0..20_000).step_by(2_000) {
                log.failed(full.as_failure(), VISITS, at(millis));
                for later in (0..2_000).step_by(100) {
                    log.succeeded(Traffic::Other, at(millis + later));
                }
            }
            log.succeeded(Traffic::Batches, at(20_000));
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("OOM") && lines[1].contains("Redis answers again"), "{lines:#?}");
    }

    /// There may be no visits for hours.
    #[test]
    fn success_of_any_traffic_is_a_recovery_of_the_connection() {
        let lines = logged(|log, start| {
            log.failed(timeout().as_failure(), VISITS, start);
            log.succeeded(Traffic::Other, start + Duration::from_secs(2));
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
    }

    fn wrong_type() -> Error {
        Error::WrongType { command: "ZADD segment:sports".to_owned() }
    }

    #[test]
    fn failed_logs_a_line_for_each_kind() {
        let lines = logged(|log, start| {
            for millis in 0..20_000 {
                let at = start + Duration::from_millis(millis);
                log.failed(timeout().as_failure(), VISITS, at);
                log.failed(Error::Lost("closed".to_owned()).as_failure(), VISITS, at);
                log.failed(wrong_type().as_failure(), VISITS, at);
            }
            let later = start + Duration::from_secs(22);
            log.failed(wrong_type().as_failure(), VISITS, later);
            log.succeeded(VISITS, later);
            log.failed(wrong_type().as_failure(), VISITS, later);
        });
        let is_recovery = |line: &String| line.contains("Redis answers again");
        assert_eq!((lines.len(), lines.iter().filter(|line| is_recovery(line)).count()), (4, 1), "{lines:#?}");
    }

    #[test]
    fn failed_with_a_key_of_another_type_begins_no_outage() {
        let lines = logged(|log, start| {
            log.failed(wrong_type().as_failure(), VISITS, start);
            assert!(!log.is_failing());
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("`ZADD segment:sports` found a key of another type"), "{lines:#?}");
    }
}
