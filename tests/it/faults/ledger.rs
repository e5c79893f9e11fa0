//! The visits that were sent and acknowledged, compared with what Redis has: `acknowledged ⊆ stored ⊆ attempted`, and
//! no score is earlier than the acknowledged visit.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use segment_estimator::domain::Timestamp;

use super::snapshot::Snapshot;
use super::timeline::{Attempt, FaultLog, UserHistory, line};
use super::visits::{SEGMENTS, SentVisit};
use crate::helpers::{NOON, Redis};

/// Ledger of a test. Its memory is bounded by the number of users, whatever the number of visits.
pub struct Ledger {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    users: [HashMap<u32, UserHistory>; SEGMENTS.len()],
    /// Users with an acknowledged visit, by segment.
    certain: [u64; SEGMENTS.len()],
    /// Acknowledged visits.
    acknowledged: u64,
    faults: FaultLog,
}

/// Visit in flight, for [`Ledger::acknowledge`].
pub struct PendingVisit {
    visit: SentVisit,
    sent: Duration,
}

/// Comparison of the ledger with Redis. A bounded segment needs only the users of its sample.
#[derive(Debug, Default)]
pub struct Comparison {
    /// The number of acknowledged visits.
    pub acknowledged: u64,
    /// Users with an acknowledged visit that Redis doesn't have. Those acknowledged first come first, here and in
    /// `too_early`.
    pub missing: Vec<Discrepancy>,
    /// Users with an earlier time than was acknowledged.
    pub too_early: Vec<Discrepancy>,
    /// Users with a later time than was sent, or without any visit sent.
    pub made_up: Vec<Discrepancy>,
    /// Users in two partitions of a segment, or on two servers.
    pub counted_twice: Vec<Discrepancy>,
    /// Keys of segments that the index lacks.
    pub not_in_index: Vec<String>,
}

/// Difference between the ledger and Redis for one user of a segment.
#[derive(Debug, PartialEq)]
pub struct Discrepancy {
    segment: usize,
    user: u32,
    kind: Kind,
}

#[derive(Debug, PartialEq)]
enum Kind {
    Missing { expected: Attempt },
    TooEarly { stored: i64, expected: Attempt },
    MadeUp { stored: i64 },
    CountedTwice { key: String },
}

impl Ledger {
    /// Notes that a visit is about to be sent.
    pub fn attempt(&self, visit: SentVisit) -> PendingVisit {
        let mut state = self.state();
        let sent = self.started.elapsed();
        state.users[visit.segment].entry(visit.user).or_default().attempt(visit.seen_at, sent);
        PendingVisit { visit, sent }
    }

    /// Notes that a visit was acknowledged.
    pub fn acknowledge(&self, PendingVisit { visit, sent }: PendingVisit) {
        let mut state = self.state();
        let history = state.users[visit.segment].get_mut(&visit.user).expect("the visit was attempted");
        let is_first = history.acknowledged.is_none();
        history.acknowledge(visit.seen_at, sent, self.started.elapsed());
        state.certain[visit.segment] += u64::from(is_first);
        state.acknowledged += 1;
    }

    /// Notes that `fault` is about to be injected.
    pub fn fault_injected(&self, fault: impl fmt::Display) {
        self.state().faults.push(self.started.elapsed(), format!("fault injected: {fault}"));
    }

    /// Notes that `fault` has ended.
    pub fn fault_healed(&self, fault: impl fmt::Display) {
        self.state().faults.push(self.started.elapsed(), format!("fault healed: {fault}"));
    }

    /// Returns the minimum and the maximum of the users that a segment can have now.
    pub fn bounds(&self, segment: usize) -> (u64, u64) {
        let state = self.state();
        (state.certain[segment], state.users[segment].len() as u64)
    }

    /// Returns the number of visits acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    /// Compares the ledger with the Redis behind `connection`.
    pub fn compare(&self, connection: &mut redis::Connection) -> Comparison {
        self.compare_all(std::slice::from_mut(connection))
    }

    /// Compares the ledger with the data of several servers. Load may go on: visits acknowledged before Redis is read
    /// must be there, and what is there must have been sent by the end of the read.
    pub fn compare_all(&self, connections: &mut [redis::Connection]) -> Comparison {
        let (count, acknowledged) = self.acknowledged_visits();
        let snapshot = Snapshot::read(connections);
        let mut comparison = Comparison { acknowledged: count, ..Comparison::default() };
        for (segment, (members, acknowledged)) in snapshot.users.iter().zip(acknowledged).enumerate() {
            for (user, expected) in acknowledged {
                match members.get(&user) {
                    None if !snapshot.keeps(segment, user) => {}
                    None => {
                        let kind = Kind::Missing { expected };
                        comparison.missing.push(Discrepancy { segment, user, kind });
                    }
                    Some(&stored) if stored < expected.seen_at => {
                        let kind = Kind::TooEarly { stored, expected };
                        comparison.too_early.push(Discrepancy { segment, user, kind });
                    }
                    Some(_) => {}
                }
            }
        }
        comparison.missing.sort_by_key(Discrepancy::acknowledged);
        comparison.too_early.sort_by_key(Discrepancy::acknowledged);
        let state = self.state();
        for (segment, (members, users)) in snapshot.users.iter().zip(&state.users).enumerate() {
            for (&user, &stored) in members {
                if users.get(&user).is_none_or(|history| stored > history.latest) {
                    comparison.made_up.push(Discrepancy { segment, user, kind: Kind::MadeUp { stored } });
                }
            }
        }
        let twice = snapshot.counted_twice.into_iter();
        comparison.not_in_index = snapshot.not_in_index;
        comparison.counted_twice =
            twice.map(|(segment, user, key)| Discrepancy { segment, user, kind: Kind::CountedTwice { key } }).collect();
        comparison
    }

    /// Returns the number of acknowledged visits, and for each segment what Redis must have of each user.
    fn acknowledged_visits(&self) -> (u64, Vec<Vec<(u32, Attempt)>>) {
        let state = self.state();
        let of_segment = |users: &HashMap<u32, UserHistory>| {
            users.iter().filter_map(|(user, history)| Some((*user, history.acknowledged?))).collect()
        };
        (state.acknowledged, state.users.iter().map(of_segment).collect())
    }

    /// Asserts that Redis has what was acknowledged, and nothing that wasn't sent. Prints the number of checked visits.
    #[track_caller]
    pub fn check(&self, what: &str, connection: &mut redis::Connection) {
        self.check_all(what, std::slice::from_mut(connection));
    }

    /// Asserts the same as [`Self::check`] for the data of several servers.
    #[track_caller]
    pub fn check_all(&self, what: &str, connections: &mut [redis::Connection]) {
        let comparison = self.compare_all(connections);
        let acknowledged = comparison.acknowledged;
        if let Some(report) = self.report(&comparison) {
            panic!("{what}: of {acknowledged} acknowledged visits {report}");
        }
        assert!(acknowledged > 0, "{what}: nothing was acknowledged, so nothing was checked");
        println!("{what}: checked {acknowledged} acknowledged visits, all are there");
    }

    /// Returns the numbers of discrepancies with some of each kind, and the first one with its history.
    fn report(&self, comparison: &Comparison) -> Option<String> {
        let Comparison { missing, too_early, made_up, counted_twice, not_in_index, .. } = comparison;
        let users = [missing, too_early, made_up, counted_twice];
        let kinds = ["missing", "too early", "made up", "counted twice"];
        let mut lines: Vec<_> = kinds.iter().zip(users).filter_map(|(kind, found)| summary(kind, found)).collect();
        lines.extend(summary("not in the index", not_in_index));
        if let Some(first) = users.into_iter().flatten().next() {
            let (state, now) = (self.state(), self.started.elapsed());
            let history = match state.users[first.segment].get(&first.user) {
                Some(history) => history.render(first.expected(), &state.faults),
                None => "  no visit was sent\n".to_owned(),
            };
            lines.push(format!("first: {first}\n{history}{}", line(now, "compared")));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Returns how many discrepancies of a kind there are, with the first five.
fn summary(kind: &str, found: &[impl ToString]) -> Option<String> {
    let some: Vec<_> = found.iter().take(5).map(ToString::to_string).collect();
    (!found.is_empty()).then(|| format!("{} are {kind}: {}", found.len(), some.join("; ")))
}

impl Default for Ledger {
    fn default() -> Self {
        Self { started: Instant::now(), state: Mutex::default() }
    }
}

impl Discrepancy {
    /// Returns the acknowledged attempt that Redis must have.
    fn expected(&self) -> Option<Attempt> {
        match self.kind {
            Kind::Missing { expected } | Kind::TooEarly { expected, .. } => Some(expected),
            Kind::MadeUp { .. } | Kind::CountedTwice { .. } => None,
        }
    }

    fn acknowledged(&self) -> Option<Duration> {
        self.expected()?.acknowledged
    }
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Timestamp::from_millis;
        write!(f, "u{} in {:?}: ", self.user, SEGMENTS[self.segment])?;
        match &self.kind {
            Kind::Missing { expected } => write!(f, "not stored, {} was acknowledged", time(expected.seen_at)),
            Kind::TooEarly { stored, expected } => {
                write!(f, "{} is stored, {} was acknowledged", time(*stored), time(expected.seen_at))
            }
            Kind::MadeUp { stored } => write!(f, "{} is stored, and no visit that late was sent", time(*stored)),
            Kind::CountedTwice { key } => write!(f, "also in {key}"),
        }
    }
}

/// Returns the lines of a report's history without the times.
fn events(report: &str) -> Vec<&str> {
    let history = report.lines().skip_while(|line| !line.starts_with("first: "));
    history.map(|line| line.split_once(" s ").map_or(line, |(_, event)| event)).collect()
}

#[test]
fn report_tells_the_history_of_the_first_discrepancy() {
    let (redis, ledger) = (Redis::start(), Ledger::default());
    let report = || ledger.report(&ledger.compare(&mut redis.connection()));
    let store = |key: &str, user: &str, score: &str| redis.call::<()>(&["ZADD", key, score, user]);
    let visit = |user, millis| SentVisit { segment: 0, user, seen_at: NOON.as_millis() + millis };
    store("segments", "sports", "0");
    store("{p01}:segments", "sports", "0");

    let first = ledger.attempt(visit(17, 0));
    ledger.fault_injected("Redis killed");
    ledger.acknowledge(first);
    ledger.fault_healed("Redis killed");
    let second = ledger.attempt(visit(18, 1));
    ledger.acknowledge(second);
    let _unanswered = ledger.attempt(visit(17, -1));
    let text = report().expect("both users are missing");
    assert!(text.starts_with("2 are missing: u17 in \"sports\": not stored, "), "{text}");
    assert_eq!(
        events(&text),
        [
            "first: u17 in \"sports\": not stored, 2026-11-22T12:00:00.000Z was acknowledged",
            "sent the visit of 2026-11-22T12:00:00.000Z",
            "fault injected: Redis killed",
            "acknowledged the visit of 2026-11-22T12:00:00.000Z",
            "fault healed: Redis killed",
            "sent the visit of 2026-11-22T11:59:59.999Z, not acknowledged",
            "compared",
        ]
    );

    store("segment:sports", "u17", "1795348799.999");
    store("segment:sports", "u18", "1795348800.001");
    let text = report().expect("a user is too early");
    assert!(text.starts_with("1 are too early: "), "{text}");
    let first =
        "first: u17 in \"sports\": 2026-11-22T11:59:59.999Z is stored, 2026-11-22T12:00:00.000Z was acknowledged";
    assert_eq!((events(&text)[0], events(&text).len()), (first, 7), "{text}");

    store("segment:sports", "u17", "1795348800");
    assert_eq!(report(), None);

    store("{p01}:segment:sports", "u19", "1795348800");
    let text = report().expect("a user is made up");
    assert!(text.starts_with("1 are made up: "), "{text}");
    let first = "first: u19 in \"sports\": 2026-11-22T12:00:00.000Z is stored, and no visit that late was sent";
    assert_eq!(events(&text), [first, "  no visit was sent", "compared"]);

    let _unanswered = ledger.attempt(visit(19, 0));
    assert_eq!(report(), None, "a visit that was sent may be stored");
    store("segment:sports", "u19", "1795348800");
    let text = report().expect("a user is counted twice");
    assert!(text.starts_with("1 are counted twice: u19 in \"sports\": also in "), "{text}");
    assert_eq!(events(&text).last(), Some(&"compared"), "{text}");
    redis.call::<()>(&["DEL", "segments"]);
    let text = report().expect("a segment is not in the index");
    assert!(text.contains("1 are not in the index: segment:sports\n"), "{text}");
}
