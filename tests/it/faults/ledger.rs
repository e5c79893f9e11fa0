//! What was sent and what was acknowledged, to be compared with what Redis has: `acknowledged ⊆ stored ⊆ attempted`, and each score
//! no earlier than the acknowledged visit's.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use segment_estimator::time::Timestamp;

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
        let state = self.state();
        let index: Vec<String> = redis::cmd("ZRANGE").arg("segments").arg(0).arg(-1).query(connection).unwrap();
        let mut findings = Findings { acknowledged: state.acknowledged, ..Findings::default() };
        for (name, users) in SEGMENTS.iter().zip(&state.users) {
            let mut members = redis::cmd("ZRANGE");
            members.arg(format!("segment:{name}")).arg(0).arg(-1).arg("WITHSCORES");
            let members: HashMap<String, f64> = members.query(connection).unwrap();
            if !members.is_empty() && !index.iter().any(|indexed| indexed == name) {
                findings.not_in_index.push((*name).to_owned());
            }
            for (user, latest) in users {
                let Some(acknowledged) = latest.acknowledged else { continue };
                match members.get(&format!("u{user}")) {
                    None => findings.missing.push(format!("u{user} in {name}")),
                    Some(score) if millis(*score) < acknowledged => {
                        findings.too_early.push(format!("u{user} in {name}: {score}, not {acknowledged}"));
                    }
                    Some(_) => {}
                }
            }
            let attempted = |member: &str| users.get(&member.strip_prefix('u')?.parse().ok()?);
            for (member, score) in &members {
                if attempted(member).is_none_or(|latest| millis(*score) > latest.attempted) {
                    findings.made_up.push(format!("{member} in {name}: {score}"));
                }
            }
        }
        findings
    }

    /// Checks that Redis has what was acknowledged, and nothing that wasn't sent. Says how many visits it checked.
    pub fn check(&self, what: &str, connection: &mut redis::Connection) {
        let Findings { acknowledged, missing, too_early, made_up, not_in_index } = self.compare(connection);
        let wrong =
            [("missing", missing), ("too early", too_early), ("made up", made_up), ("not indexed", not_in_index)];
        for (how, found) in wrong {
            let some = &found[..found.len().min(5)];
            assert!(
                found.is_empty(),
                "{what}: of {acknowledged} acknowledged visits {} are {how}: {some:?}",
                found.len()
            );
        }
        assert!(acknowledged > 0, "{what}: nothing was acknowledged, so nothing was checked");
        println!("{what}: checked {acknowledged} acknowledged visits, all are there");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

fn millis(score: f64) -> i64 {
    Timestamp::from_unix_seconds(score).as_millis()
}
