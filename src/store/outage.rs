//! The log of Redis's failures: one line when they start and one when they end, however many requests they meet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::connection::Error;

/// Hears of every answer and failure, and decides which of them is worth a line.
#[derive(Default)]
pub(super) struct OutageLog {
    /// Set while a logged failure has not been followed by a logged recovery: all that a success has to look at.
    failing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The kind of the last failure that was logged, and when that was.
    logged: Option<(&'static str, Instant)>,
    last_failure: Option<Instant>,
    unlogged: u64,
}

impl OutageLog {
    /// A failure of the same kind is logged again after this long.
    const REPEAT: Duration = Duration::from_secs(30);
    /// Failures and successes may alternate, as when Redis is slow or one command is forbidden. It has recovered when
    /// nothing failed for this long.
    const QUIET: Duration = Duration::from_secs(1);

    /// Redis failed.
    pub(super) fn failed(&self, error: &Error) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_failure = Some(now);
        let is_news =
            state.logged.is_none_or(|(kind, at)| kind != error.kind() || now.duration_since(at) >= Self::REPEAT);
        if !is_news {
            state.unlogged += 1;
            return;
        }
        let unlogged = std::mem::take(&mut state.unlogged);
        state.logged = Some((error.kind(), now));
        if let Error::WrongType { .. } = error {
            // One key's fault, not Redis's.
            tracing::warn!(%error, unlogged, "a segment is answered with 503");
        } else {
            self.failing.store(true, Ordering::Relaxed);
            tracing::warn!(%error, unlogged, "Redis failed; what needs it is answered with 503");
        }
    }

    /// Redis answered.
    pub(super) fn answered(&self) {
        if !self.failing.load(Ordering::Relaxed) {
            return;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_quiet = state.last_failure.is_none_or(|at| at.elapsed() >= Self::QUIET);
        if is_quiet && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("Redis answers again");
        }
    }
}
