//! The members of a segment by when they were last seen.

use super::error::Error;
use super::estimator::Estimator;
use crate::domain::{SegmentName, Timestamp, Window};

/// The members of a segment by when they were last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {
    /// All of them.
    pub count: u64,
    /// In parts of the window, the oldest first. Their sum is the count.
    pub buckets: Vec<Bucket>,
}

/// Members that were last seen after `from`, and at or before `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The begin, which isn't in it.
    pub from: Timestamp,
    /// The end, which is. The last one takes in who was seen since, as another service's clock has it.
    pub to: Timestamp,
    /// How many they are.
    pub count: u64,
}

impl Estimator {
    /// The members of `segment` at `now` in `buckets` parts of `window`, by when they were last seen. All is asked in one round trip.
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
        // How many were seen after each bound but the last: what is between two is the difference.
        let questions: Vec<_> = (0..buckets.max(1)).map(|at| (segment.clone().into_owned(), bound(at))).collect();
        let mut after = Vec::with_capacity(buckets);
        for count in self.store.counts(&questions.iter().collect::<Vec<_>>()).await? {
            after.push(count?);
        }
        let bucket = |(at, count)| Bucket { from: bound(at), to: bound(at + 1), count };
        let buckets: Vec<_> = parts(&after).into_iter().enumerate().map(bucket).collect();
        Ok(Histogram { count: buckets.iter().map(|bucket| bucket.count).sum(), buckets })
    }
}

/// How many are between each bound and the next, and after the last, given how many are `after` each. Their sum is how many are after the first.
///
/// Redis may take visits in between two questions: whoever was seen before the one bound and comes again then counts after the next.
/// No more can be after a later bound than after an earlier one, so that nobody is counted twice.
fn parts(after: &[u64]) -> Vec<u64> {
    let mut after = after.to_vec();
    for at in 1..after.len() {
        after[at] = after[at].min(after[at - 1]);
    }
    (0..after.len()).map(|at| after[at] - after.get(at + 1).copied().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_what_is_between_two_bounds() {
        assert_eq!(parts(&[7, 7, 4, 1]), [0, 3, 3, 1]);
        assert_eq!(parts(&[7]), [7]);
    }

    #[test]
    fn whoever_comes_again_between_two_questions_is_counted_once() {
        // One of five, who was the only one in the first part, comes again after the second question, and after the third.
        assert_eq!(parts(&[5, 4, 5, 5]), [1, 0, 0, 4]);
        assert_eq!(parts(&[5, 4, 4, 5]), [1, 0, 0, 4]);
        // Two of five come again after the third question.
        assert_eq!(parts(&[5, 3, 0, 2]), [2, 3, 0, 0]);
    }
}
