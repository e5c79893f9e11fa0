//! What happened and when: attempts to record visits, their acknowledgements, and the injected faults.
//!
//! Times are relative to the start of the ledger. Memory is bounded: each user of a segment keeps its last attempts,
//! and the log keeps the last faults.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use segment_estimator::domain::Timestamp;

use crate::helpers::NOON;

/// Attempt to record a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The visit's time, in Unix milliseconds.
    pub seen_at: i64,
    pub sent: Duration,
    pub acknowledged: Option<Duration>,
}

/// Attempts of one user and segment.
#[derive(Debug, Default, Clone)]
pub struct UserHistory {
    /// The latest `seen_at` of all attempts.
    pub latest: i64,
    /// The acknowledged attempt with the latest `seen_at`. Redis must have this time or a later one.
    pub acknowledged: Option<Attempt>,
    /// The last attempts, in the order in which they were sent.
    recent: VecDeque<Attempt>,
    /// The number of all attempts.
    count: usize,
}

impl UserHistory {
    const MAX_RECENT: usize = 4;

    pub fn attempt(&mut self, seen_at: i64, sent: Duration) {
        if self.recent.len() == Self::MAX_RECENT {
            self.recent.pop_front();
        }
        self.count += 1;
        self.recent.push_back(Attempt { seen_at, sent, acknowledged: None });
        self.latest = self.latest.max(seen_at);
    }

    /// Notes the acknowledgement of the attempt that was sent at `sent`.
    pub fn acknowledge(&mut self, seen_at: i64, sent: Duration, acknowledged: Duration) {
        let attempt = Attempt { seen_at, sent, acknowledged: Some(acknowledged) };
        let pending = Attempt { acknowledged: None, ..attempt };
        if let Some(kept) = self.recent.iter_mut().find(|kept| **kept == pending) {
            *kept = attempt;
        }
        if self.acknowledged.is_none_or(|other| other.seen_at < seen_at) {
            self.acknowledged = Some(attempt);
        }
    }

    /// Writes one line per event: the attempts that are kept with the one that Redis must have, and the faults since
    /// the last one before them.
    pub fn render(&self, expected: Option<Attempt>, faults: &FaultLog) -> String {
        let mut attempts: Vec<_> = self.recent.iter().copied().collect();
        attempts.extend(expected.filter(|expected| !self.recent.contains(expected)));
        let sent = attempts.iter().map(|attempt| {
            let is_acknowledged = if attempt.acknowledged.is_some() { "" } else { ", not acknowledged" };
            (attempt.sent, format!("sent the visit of {}{is_acknowledged}", time(attempt.seen_at)))
        });
        let acknowledged = attempts.iter().filter_map(|attempt| {
            Some((attempt.acknowledged?, format!("acknowledged the visit of {}", time(attempt.seen_at))))
        });
        let mut events: Vec<_> = sent.chain(acknowledged).collect();
        let begin = events.iter().map(|(at, _)| *at).min().unwrap_or_default();
        events.extend(faults.since_last_before(begin).cloned());
        events.sort_by_key(|(at, _)| *at);

        let mut text = String::new();
        let more = self.count.saturating_sub(attempts.len());
        if more > 0 {
            writeln!(text, "{:>15}{more} more attempts, which are not kept", "").unwrap();
        }
        for (at, event) in events {
            text += &line(at, &event);
        }
        text
    }
}

/// Returns the line of an event.
pub fn line(at: Duration, event: &str) -> String {
    format!("  {:>7}.{:03} s {event}\n", at.as_secs(), at.subsec_millis())
}

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The last injected faults and their ends.
#[derive(Debug, Default)]
pub struct FaultLog(VecDeque<(Duration, String)>);

impl FaultLog {
    const MAX_EVENTS: usize = 100;

    pub fn push(&mut self, at: Duration, event: String) {
        if self.0.len() == Self::MAX_EVENTS {
            self.0.pop_front();
        }
        self.0.push_back((at, event));
    }

    /// Returns the events from the last one before `begin` on: it says which fault was in force then.
    fn since_last_before(&self, begin: Duration) -> impl Iterator<Item = &(Duration, String)> {
        let before = self.0.iter().take_while(|(at, _)| *at < begin).count();
        self.0.iter().skip(before.saturating_sub(1))
    }
}

const NOON_MILLIS: i64 = NOON.as_millis();

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn render_merges_attempts_acknowledgements_and_faults_by_time() {
    let (mut history, mut faults) = (UserHistory::default(), FaultLog::default());
    faults.push(at(100), "fault injected: an earlier one".to_owned());
    faults.push(at(900), "fault healed: an earlier one".to_owned());
    history.attempt(NOON_MILLIS, at(1_000));
    faults.push(at(1_250), "fault injected: Redis killed".to_owned());
    history.acknowledge(NOON_MILLIS, at(1_000), at(1_500));
    history.attempt(NOON_MILLIS + 1, at(12_000));
    faults.push(at(12_345), "fault healed: Redis restarted".to_owned());
    assert_eq!(
        history.render(history.acknowledged, &faults),
        concat!(
            "        0.900 s fault healed: an earlier one\n",
            "        1.000 s sent the visit of 2026-11-22T12:00:00.000Z\n",
            "        1.250 s fault injected: Redis killed\n",
            "        1.500 s acknowledged the visit of 2026-11-22T12:00:00.000Z\n",
            "       12.000 s sent the visit of 2026-11-22T12:00:00.001Z, not acknowledged\n",
            "       12.345 s fault healed: Redis restarted\n",
        )
    );
}

#[test]
fn render_keeps_the_expected_attempt_beside_the_last_ones() {
    let mut history = UserHistory::default();
    history.attempt(NOON_MILLIS + 1_000, at(0));
    history.acknowledge(NOON_MILLIS + 1_000, at(0), at(5));
    for n in 1..=1_000 {
        history.attempt(NOON_MILLIS, at(n * 10));
        history.acknowledge(NOON_MILLIS, at(n * 10), at(n * 10 + 5));
    }
    let text = history.render(history.acknowledged, &FaultLog::default());
    assert_eq!(text.lines().next(), Some("               996 more attempts, which are not kept"), "{text}");
    assert_eq!(text.lines().nth(1), Some("        0.000 s sent the visit of 2026-11-22T12:00:01.000Z"), "{text}");
    assert_eq!(text.lines().count(), 1 + 2 * (1 + UserHistory::MAX_RECENT), "{text}");
}

#[test]
fn fault_log_keeps_the_last_events() {
    let mut faults = FaultLog::default();
    for n in 0..1_000 {
        faults.push(at(n), n.to_string());
    }
    let kept: Vec<_> = faults.since_last_before(at(0)).map(|(_, event)| event.as_str()).collect();
    assert_eq!((kept.len(), kept[0], kept[99]), (FaultLog::MAX_EVENTS, "900", "999"));
    let since: Vec<_> = faults.since_last_before(at(998)).map(|(_, event)| event.as_str()).collect();
    assert_eq!(since, ["997", "998", "999"]);
}
