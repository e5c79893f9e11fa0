//! What was sent and what was acknowledged, to be compared with what Redis has: `acknowledged ⊆ stored ⊆ attempted`, and each score
//! no earlier than the acknowledged visit's.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use segment_estimator::domain::Timestamp;

use super::stored::Stored;

/// The segments that load is spread over.
pub const SEGMENTS: [&str; 5] = ["sports", "news", "{x}:y", "a b", "кино"];

/// A visit that is sent, maybe several times.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub segment: usize,
    pub user: u32,
    /// In milliseconds.
    pub seen_at: i64,
}

impl Sent {
    /// As JSON, on a line.
    pub fn json(&self) -> String {
        let (segment, seen_at) = (SEGMENTS[self.segment], Timestamp::from_millis(self.seen_at).as_score());
        format!(r#"{{"user_id":"u{}","segment":"{segment}","seen_at":{seen_at}}}"#, self.user)
    }
}

/// The latest visit of a user to a segment.
#[derive(Debug)]
struct Latest {
    attempted: i64,
    acknowledged: Option<i64>,
}

#[derive(Debug, Default)]
struct State {
    users: [HashMap<u32, Latest>; SEGMENTS.len()],
    /// Users with an acknowledged visit, by segment.
    certain: [u64; SEGMENTS.len()],
    acknowledged: u64,
}

/// Keeps account. Its memory is bounded by the number of users, not by that of visits.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<State>);

/// How Redis and the ledger differ.
#[derive(Debug, Default)]
pub struct Findings {
    /// Visits that were acknowledged in all.
    pub acknowledged: u64,
    /// Acknowledged and not there.
    pub missing: Vec<String>,
    /// There with an earlier time than was acknowledged.
    pub too_early: Vec<String>,
    /// There with a later time than was ever sent, or never sent.
    pub made_up: Vec<String>,
    /// There twice: in two partitions, or on two servers.
    pub counted_twice: Vec<String>,
    /// In a segment that the index doesn't have.
    pub not_in_index: Vec<String>,
}

impl Ledger {
    /// Before a visit is sent.
    pub fn attempt(&self, visit: &Sent) {
        let mut state = self.state();
        let latest = state.users[visit.segment]
            .entry(visit.user)
            .or_insert(Latest { attempted: visit.seen_at, acknowledged: None });
        latest.attempted = latest.attempted.max(visit.seen_at);
    }

    /// After it was acknowledged.
    pub fn acknowledge(&self, visit: &Sent) {
        let mut state = self.state();
        let latest = state.users[visit.segment].get_mut(&visit.user).expect("it was attempted");
        let is_first = latest.acknowledged.is_none();
        latest.acknowledged = latest.acknowledged.max(Some(visit.seen_at));
        state.certain[visit.segment] += u64::from(is_first);
        state.acknowledged += 1;
    }

    /// The fewest and the most users that a segment can have now.
    pub fn bounds(&self, segment: usize) -> (u64, u64) {
        let state = self.state();
        (state.certain[segment], state.users[segment].len() as u64)
    }

    /// Visits acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.state().acknowledged
    }

    /// Compares it with what the Redis behind `connection` has.
    pub fn compare(&self, connection: &mut redis::Connection) -> Findings {
        self.compare_all(std::slice::from_mut(connection))
    }

    /// Compares it with what several servers have together. Senders wait for as short a time as may be: what was acknowledged before
    /// Redis is asked must be there, and what is there must have been sent by the time that it has answered.
    pub fn compare_all(&self, connections: &mut [redis::Connection]) -> Findings {
        let (count, acknowledged) = self.acknowledged_visits();
        let Stored { users: stored, counted_twice, not_in_index } = Stored::read(connections);
        let mut findings = Findings { acknowledged: count, counted_twice, not_in_index, ..Findings::default() };
        for ((name, members), acknowledged) in SEGMENTS.iter().zip(&stored).zip(acknowledged) {
            for (user, seen_at) in acknowledged {
                match members.get(&user) {
                    None => findings.missing.push(format!("u{user} in {name}")),
                    Some(at) if *at < seen_at => {
                        findings.too_early.push(format!("u{user} in {name}: {at}, not {seen_at}"));
                    }
                    Some(_) => {}
                }
            }
        }
        let state = self.state();
        for ((name, members), users) in SEGMENTS.iter().zip(&stored).zip(&state.users) {
            for (user, at) in members {
                if users.get(user).is_none_or(|latest| *at > latest.attempted) {
                    findings.made_up.push(format!("u{user} in {name}: {at}"));
                }
            }
        }
        findings
    }

    /// How many visits were acknowledged, and for each segment each user's latest.
    fn acknowledged_visits(&self) -> (u64, Vec<Vec<(u32, i64)>>) {
        let state = self.state();
        let of_segment = |users: &HashMap<u32, Latest>| {
            users.iter().filter_map(|(user, latest)| Some((*user, latest.acknowledged?))).collect()
        };
        (state.acknowledged, state.users.iter().map(of_segment).collect())
    }

    /// Checks that Redis has what was acknowledged, and nothing that wasn't sent. Says how many visits it checked.
    pub fn check(&self, what: &str, connection: &mut redis::Connection) {
        self.check_all(what, std::slice::from_mut(connection));
    }

    /// As [`Self::check`], of several servers.
    pub fn check_all(&self, what: &str, connections: &mut [redis::Connection]) {
        let Findings { acknowledged, missing, too_early, made_up, counted_twice, not_in_index } =
            self.compare_all(connections);
        let wrong = [
            ("missing", missing),
            ("too early", too_early),
            ("made up", made_up),
            ("counted twice", counted_twice),
            ("not indexed", not_in_index),
        ];
        let wrong = wrong.into_iter().filter(|(_, found)| !found.is_empty()).map(|(how, found)| {
            let some = &found[..found.len().min(5)];
            format!("{} are {how}: {some:?}", found.len())
        });
        let wrong = wrong.collect::<Vec<_>>().join("; ");
        assert!(wrong.is_empty(), "{what}: of {acknowledged} acknowledged visits {wrong}");
        assert!(acknowledged > 0, "{what}: nothing was acknowledged, so nothing was checked");
        println!("{what}: checked {acknowledged} acknowledged visits, all are there");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}
