//! The reads in flight, which equal requests share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, WeakShared};

use super::error::OverlapError;
use super::mask_estimates::MaskEstimates;
use crate::domain::{SegmentName, Timestamp, Window};

/// The segments of a read in the order of their names, and its window.
pub type ReadKey = (Vec<SegmentName<'static>>, Window);

/// The counts of a read, and the time that they are exact for.
pub type ReadOutcome = Result<(Arc<MaskEstimates>, Timestamp), OverlapError>;

/// The reads that wait or run. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub struct SharedReads(Arc<Mutex<Reads>>);

/// The callers hold the reads: a read ends with the last of them.
type Reads = HashMap<ReadKey, WeakShared<BoxFuture<'static, ReadOutcome>>>;

impl SharedReads {
    /// Returns the outcome of the read of `key`. Calls `start` if there is none in flight.
    pub async fn get(&self, key: &ReadKey, start: impl FnOnce() -> BoxFuture<'static, ReadOutcome>) -> ReadOutcome {
        let read = {
            let mut reads = self.lock();
            reads.retain(|_, read| read.upgrade().is_some_and(|read| read.peek().is_none()));
            reads.get(key).and_then(WeakShared::upgrade).unwrap_or_else(|| {
                let read = start().shared();
                reads.insert(key.clone(), read.downgrade().expect("a read that was never polled is not complete"));
                read
            })
        };
        read.await
    }

    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedReads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedReads").field("reads", &self.lock().len()).finish()
    }
}
