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

impl SentVisit {
    /// Returns the visit as JSON on one line.
    pub fn json(&self) -> String {
        let (segment, seen_at) = (SEGMENTS[self.segment], Timestamp::from_millis(self.seen_at).as_score());
        format!(r#"{{"user_id":"u{}","segment":"{segment}","seen_at":{seen_at}}}"#, self.user)
    }
}
