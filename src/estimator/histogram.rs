//! The distribution of the members of a segment over their last visits.

use super::error::Error;
use super::estimator::Estimator;
use crate::domain::{Estimate, SegmentName, Timestamp, Window};
use crate::store::CountQuery;

/// The distribution of the members of a segment over their last visits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// All members.
    pub count: Estimate,
    /// Equal parts of the window, the oldest first. Their sum is the count.
    pub buckets: Vec<Bucket>,
}

/// The members last seen after `from`, and at or before `to`, as a window excludes its start. A step of a history
/// includes its start: [`Point`](super::history::Point).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The start, exclusive.
    pub from: Timestamp,
    /// The end, inclusive. The last bucket also has members seen later by the clock of another instance.
    pub to: Timestamp,
    /// How many members.
    pub count: Estimate,
}

impl Estimator {
    /// Returns the members of `segment` at `now` in `buckets` parts of `window`, by their last visits, in one round
    /// trip.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`].
    pub async fn histogram(
        &self,
        segment: &SegmentName<'_>,
        window: Window,
        buckets: usize,
        now: Timestamp,
    ) -> Result<Histogram, Error> {
        self.check_window(window)?;
        let begin = window.cutoff(now).as_millis();
        let bound = |at: usize| {
            let length = (now.as_millis() - begin) as i128;
            let offset = length * at as i128 / buckets.max(1) as i128;
            Timestamp::from_millis(begin + offset as i64)
        };
        // A count after each bound except the last. The members between two bounds are the difference.
        let request = |at| CountQuery { segment: segment.clone().into_owned(), cutoff: bound(at) };
        let requests: Vec<_> = (0..buckets.max(1)).map(request).collect();
        let mut after = Vec::with_capacity(buckets);
        for count in self.store.counts(&requests.iter().collect::<Vec<_>>()).await? {
            after.push(count?);
        }
        let bucket = |(at, count)| Bucket { from: bound(at), to: bound(at + 1), count };
        let buckets: Vec<_> = parts(&after).into_iter().enumerate().map(bucket).collect();
        Ok(Histogram { count: buckets.iter().map(|bucket| bucket.count).sum(), buckets })
    }
}

/// Returns the members between each bound and the next, and after the last, from the counts `after` each bound. Their
/// sum is the first count.
///
/// Redis may execute a visit between two of the counts, and its user then counts after later bounds only. Clamping each
/// count to the one before counts every user once.
fn parts(after: &[Estimate]) -> Vec<Estimate> {
    let mut after = after.to_vec();
    for at in 1..after.len() {
        if after[at].count() > after[at - 1].count() {
            after[at] = after[at - 1];
        }
    }
    (0..after.len()).map(|at| after[at].without(after.get(at + 1).copied().unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact_parts(after: &[u64]) -> Vec<u64> {
        let after: Vec<_> = after.iter().copied().map(Estimate::exact).collect();
        parts(&after).into_iter().map(Estimate::count).collect()
    }

    #[test]
    fn parts_are_the_differences_of_counts() {
        assert_eq!(exact_parts(&[7, 7, 4, 1]), [0, 3, 3, 1]);
        assert_eq!(exact_parts(&[7]), [7]);
    }

    #[test]
    fn parts_count_a_user_once_who_visits_between_two_counts() {
        // The only one of five users in the first part visits again after the second count, and after the third.
        assert_eq!(exact_parts(&[5, 4, 5, 5]), [1, 0, 0, 4]);
        assert_eq!(exact_parts(&[5, 4, 4, 5]), [1, 0, 0, 4]);
        // Two of five users visit again after the third count.
        assert_eq!(exact_parts(&[5, 3, 0, 2]), [2, 3, 0, 0]);
    }
}
