//! The limits on lists of members.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::estimator::concurrency_limit::ConcurrencyLimit;
use crate::estimator::error::CostlyReads;

/// The limits on lists of members. Cheap to clone; clones share the permits.
#[derive(Debug, Clone)]
pub struct MemberLimits {
    pub lists: ConcurrencyLimit,
    /// One request is in flight for all lists, so that a visit waits for one at most.
    pub requests: Arc<Semaphore>,
}

impl MemberLimits {
    /// Allows `max` concurrent lists.
    pub fn new(max: usize) -> Self {
        Self { lists: ConcurrencyLimit::new(CostlyReads::Members, max), requests: Arc::new(Semaphore::new(1)) }
    }
}
