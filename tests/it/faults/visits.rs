//! The visits that the load sends.

use segment_estimator::domain::Timestamp;

/// The segments of the load.
pub const SEGMENTS: [&str; 5] = ["sports", "news", "{x}:y", "a b", "кино"];

/// Visit that the load sends, possibly several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentVisit {
    /// Index in [`SEGMENTS`].
    pub segment: usize,
    pub user: u32,
    /// Unix time in milliseconds.
    pub seen_at: i64,
}

/// Returns visits of one user at one time as JSON on one line: with `segment`, or as a list with `segments`.
pub fn json(visits: &[SentVisit]) -> String {
    let SentVisit { user, seen_at, .. } = visits[0];
    let seen_at = Timestamp::from_millis(seen_at).as_score();
    let names: Vec<_> = visits.iter().map(|visit| format!("\"{}\"", SEGMENTS[visit.segment])).collect();
    let segments = match &names[..] {
        [only] => format!("\"segment\":{only}"),
        names => format!("\"segments\":[{}]", names.join(",")),
    };
    format!(r#"{{"user_id":"u{user}",{segments},"seen_at":{seen_at}}}"#)
}
