//! Histories: the sizes of segments over time, and the lease on sampling them.
//!
//! A history begins as a list of alternating times and counts, which takes 184 bytes for one sample and 12 to 17 bytes
//! for each of many. A stream would take 4 KiB for the first sample. A list can't be searched, so that one of more than
//! [`Store::MAX_LIST_SAMPLES`] samples becomes a stream.
//!
//! A history covers a segment in all partitions. Its key is in no partition, and a resharding leaves it as it is.

/// Prepends to a script a check that the key `KEYS[1]` holds a history or nothing. Returns -1 for another program's data.
/// Defines `key`, its type `kind`, and for a list the time `last` of the last sample.
macro_rules! history_script {
    ($script:literal) => {
        concat!(
            "\
local key, kind = KEYS[1], redis.call('TYPE', KEYS[1]).ok
local function is_number(text) return text and string.find(text, '^%d+$') end
local function is_count(text) return text and string.find(text, '^%d+$') or string.find(text or '', '^%d+~%d*%.?%d*$') end
local last
if kind == 'list' then
  last = redis.call('LINDEX', key, -2)
  local is_even = redis.call('LLEN', key) % 2 == 0
  local first, count = redis.call('LINDEX', key, 0), redis.call('LINDEX', key, -1)
  if not (is_even and is_number(first) and is_number(last) and is_count(count)) then return -1 end
elseif kind == 'stream' then
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  if first and (#first[2] ~= 2 or first[2][1] ~= 'n') then return -1 end
elseif kind ~= 'none' then return -1 end
",
            $script
        )
    };
}

mod append;
pub(super) mod count_text;
mod delete;
mod lease;
mod read;

use std::time::Duration;

pub(super) use self::lease::is_lease;
pub use self::lease::{Lease, LeaseRequest};
pub(super) use self::read::KeyType;
use super::Store;
use crate::domain::{Estimate, SegmentName, Timestamp};

/// The number of users of a segment at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The time.
    pub at: Timestamp,
    /// The number of users.
    pub count: Estimate,
}

/// A sample with its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSample {
    /// The segment.
    pub segment: SegmentName<'static>,
    /// The sample.
    pub sample: Sample,
}

impl Store {
    /// The retention of samples: 13 months.
    pub const RETENTION: Duration = Duration::from_secs(396 * 24 * 60 * 60);
    /// The retention of a history after its last sample. A segment without users gets no samples after pruning has
    /// dropped it.
    pub const RETENTION_AFTER_LAST: Duration = Duration::from_secs(90 * 24 * 60 * 60);
    /// Maximum number of samples in a list. They take about 8 KiB, the size of one node of a list.
    pub const MAX_LIST_SAMPLES: usize = 500;
    /// Number of samples that are read or written in one round trip. Redis takes about a microsecond for each.
    const SAMPLES_PER_REQUEST: usize = 2_000;
}

/// Returns the time in milliseconds, as in the id of a stream's entry. An id can't be negative.
fn millis(time: Timestamp) -> i64 {
    time.as_millis().max(0)
}
