//! What each key was used for, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counters of an API key, or of all JSON Web Tokens. They exist before the first request, so that counting is an atomic
/// addition.
#[derive(Debug, Default)]
pub struct KeyUsage {
    requests: AtomicU64,
    visits: AtomicU64,
    /// Error responses by type. They are rare enough for a lock.
    problems: Mutex<BTreeMap<&'static str, u64>>,
}

/// The counters of a key, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySample {
    /// `api` or `jwt`.
    pub kind: &'static str,
    /// The name of an API key. All JSON Web Tokens share a name: callers choose their subjects.
    pub name: String,
    /// Requests with the key.
    pub requests: u64,
    /// Visits of these requests that Redis acknowledged.
    pub visits: u64,
    /// Error responses to these requests, by type.
    pub problems: Vec<(&'static str, u64)>,
}

impl KeySample {
    /// Adds the counters of another key.
    pub(super) fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.visits += other.visits;
        for (slug, count) in other.problems {
            match self.problems.iter_mut().find(|(known, _)| *known == slug) {
                Some((_, sum)) => *sum += count,
                None => self.problems.push((slug, count)),
            }
        }
    }
}

impl KeyUsage {
    /// Counts a request.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts visits that Redis acknowledged.
    pub fn visits(&self, visits: u64) {
        self.visits.fetch_add(visits, Ordering::Relaxed);
    }

    /// Counts an error response of type `slug`.
    pub fn problem(&self, slug: &'static str) {
        *self.problems.lock().unwrap_or_else(PoisonError::into_inner).entry(slug).or_default() += 1;
    }

    /// Reads the counters.
    pub(super) fn sample(&self, kind: &'static str, name: &str) -> KeySample {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        KeySample {
            kind,
            name: name.to_owned(),
            requests: self.requests.load(Ordering::Relaxed),
            visits: self.visits.load(Ordering::Relaxed),
            problems: problems.iter().map(|(slug, count)| (*slug, *count)).collect(),
        }
    }
}
