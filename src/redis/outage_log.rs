//! The log of Redis's failures: one line when they start and one when they end, however many requests they meet.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::telemetry::Traffic;

/// A failure, as the log and the metrics see it.
#[derive(Clone, Copy)]
pub(crate) struct Failure<'a> {
    pub(crate) error: &'a (dyn fmt::Display + Sync),
    /// The value of the metrics' label: one of `telemetry::FAILURES`.
    pub(crate) kind: &'static str,
    pub(crate) reach: Reach,
}

/// What a failure affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All requests, or all writes.
    Redis { writes_alone: bool },
    /// The data set, while Redis answers. No answer to a probe says that this is over.
    DataSet,
    /// One key.
    Key,
}

/// Hears of every answer and failure, and decides which of them is worth a line.
#[derive(Default)]
pub(crate) struct OutageLog {
    /// Set while a logged failure has not been followed by a logged recovery: all that a success has to look at.
    failing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last line of each kind of failure.
    logged: HashMap<&'static str, Logged>,
    last_failure: Option<Instant>,
    /// Whether the last that Redis answered to visits was a refusal, as with full memory. Counts go on then, and say nothing of
    /// visits.
    refuses_visits: bool,
}

struct Logged {
    at: Instant,
    /// Failures of this kind since.
    not_logged: u64,
    is_outage: bool,
}

impl OutageLog {
    /// A failure of the same kind is logged again after this long.
    const REPEAT: Duration = Duration::from_secs(30);
    /// Failures and successes may alternate, as when Redis is slow. It has recovered when nothing failed for this long.
    const QUIET: Duration = Duration::from_secs(1);

    /// Logs a `failure` of a request for `traffic` at `now`, unless one of its kind was logged lately.
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
                tracing::warn!(%error, failures_not_logged, "Redis failed; what needs it is answered with 503");
            }
            Reach::DataSet => {
                tracing::warn!(%error, failures_not_logged, "the data set can't be used; what needs it is answered with 503");
            }
            Reach::Key => tracing::warn!(%error, failures_not_logged, "what needs this key is answered with 503"),
        }
    }

    /// Whether [`Self::answered`] has to be told. Cheap: every answer asks.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// One of several servers did what was asked for `traffic`.
    pub(crate) fn taken(&self, traffic: Traffic) {
        self.lock().refuses_visits &= traffic == Traffic::Other;
    }

    /// Redis did what was asked for `traffic`, at `now`.
    pub(crate) fn answered(&self, traffic: Traffic, now: Instant) {
        let mut state = self.lock();
        state.refuses_visits &= traffic == Traffic::Other;
        let is_quiet = state.last_failure.is_none_or(|at| now.duration_since(at) >= Self::QUIET);
        if is_quiet && !state.refuses_visits && self.failing.swap(false, Ordering::Relaxed) {
            // The next outage is news, whatever it is. A key of another type stays one.
            state.logged.retain(|_, last| !last.is_outage);
            state.last_failure = None;
            tracing::info!("Redis answers again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::Error;
    use crate::telemetry::tests::Captured;

    /// The lines that are logged while `scene` runs.
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
    fn an_outage_is_a_line_at_its_start_and_one_at_its_end() {
        let lines = logged(|log, start| {
            for outage in 0..3 {
                let at = |millis| start + Duration::from_secs(5 * outage) + Duration::from_millis(millis);
                for request in 0..100 {
                    log.failed(timeout().as_failure(), VISITS, at(request));
                }
                assert!(log.is_failing());
                log.answered(VISITS, at(1_500));
                log.answered(VISITS, at(1_501));
                assert!(!log.is_failing());
            }
        });
        let failures = lines.iter().filter(|line| line.contains("Redis failed")).count();
        let recoveries = lines.iter().filter(|line| line.contains("Redis answers again")).count();
        assert_eq!((failures, recoveries, lines.len()), (3, 3, 6), "{lines:#?}");
    }

    #[test]
    fn failures_among_successes_are_no_flood() {
        let lines = logged(|log, start| {
            for millis in (0..60_000).step_by(10) {
                log.failed(timeout().as_failure(), VISITS, start + Duration::from_millis(millis));
                log.answered(VISITS, start + Duration::from_millis(millis + 5));
            }
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[1].contains("failures_not_logged=2999"), "{lines:#?}");
    }

    /// Visits come now and then, and counts go on all the time.
    #[test]
    fn counts_that_are_answered_are_no_recovery_of_visits_that_are_refused() {
        let full = Error::refused("ZADD segment:sports".to_owned(), "OOM", "");
        let lines = logged(|log, start| {
            let at = |millis| start + Duration::from_millis(millis);
            for millis in (0..20_000).step_by(2_000) {
                log.failed(full.as_failure(), VISITS, at(millis));
                for later in (0..2_000).step_by(100) {
                    log.answered(Traffic::Other, at(millis + later));
                }
            }
            log.answered(Traffic::Batches, at(20_000));
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("OOM") && lines[1].contains("Redis answers again"), "{lines:#?}");
    }

    /// Nobody may ask for visits for hours; that the connection is back is known by any answer.
    #[test]
    fn any_answer_is_a_recovery_of_the_connection() {
        let lines = logged(|log, start| {
            log.failed(timeout().as_failure(), VISITS, start);
            log.answered(Traffic::Other, start + Duration::from_secs(2));
        });
        assert_eq!(lines.len(), 2, "{lines:#?}");
    }

    fn wrong_type() -> Error {
        Error::WrongType { command: "ZADD segment:sports".to_owned() }
    }

    #[test]
    fn failures_of_several_kinds_are_a_line_each() {
        let lines = logged(|log, start| {
            for millis in 0..20_000 {
                let at = start + Duration::from_millis(millis);
                log.failed(timeout().as_failure(), VISITS, at);
                log.failed(Error::Lost("closed".to_owned()).as_failure(), VISITS, at);
                log.failed(wrong_type().as_failure(), VISITS, at);
            }
            let later = start + Duration::from_secs(22);
            log.failed(wrong_type().as_failure(), VISITS, later);
            log.answered(VISITS, later);
            log.failed(wrong_type().as_failure(), VISITS, later);
        });
        let is_recovery = |line: &String| line.contains("Redis answers again");
        assert_eq!((lines.len(), lines.iter().filter(|line| is_recovery(line)).count()), (4, 1), "{lines:#?}");
    }

    #[test]
    fn a_key_of_another_type_is_not_an_outage() {
        let lines = logged(|log, start| {
            log.failed(wrong_type().as_failure(), VISITS, start);
            assert!(!log.is_failing());
        });
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("`ZADD segment:sports` met a key of another type"), "{lines:#?}");
    }
}
