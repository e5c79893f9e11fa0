//! A sample of the visits that earlier runs imported. It shows whether the data set still has them: it may have been
//! emptied, or restored from a backup.

use xxhash_rust::xxh64::xxh64;

use super::state::PastRun;
use crate::domain::visit_json::RawVisits;
use crate::domain::{Timestamp, Visit};

/// A sample of visits: some from all completed records, and all of the last ones, which an older backup lacks.
#[derive(Debug)]
pub(super) struct Witnesses {
    /// The runs that completed the records.
    runs: Vec<PastRun>,
    /// The number of completed records.
    done: u64,
    /// The number of records so far.
    offered: u64,
    /// One of so many records is sampled. A power of two.
    stride: u64,
    /// The sampled visits, with the numbers of their records.
    sample: Vec<(u64, Visit<'static>)>,
    last: Vec<Visit<'static>>,
}

impl Witnesses {
    /// The limit on the sample.
    const MAX_SAMPLE: usize = 256;
    /// The number of records at the end that are all witnesses.
    const LAST: u64 = 64;
    /// The number of consecutive visits that are compared together.
    const PART: usize = 16;

    /// Begins before the first of the `done` records of `runs`.
    pub(super) fn new(runs: Vec<PastRun>, done: u64) -> Self {
        Self { runs, done, offered: 0, stride: 1, sample: Vec::new(), last: Vec::new() }
    }

    /// Advances to the next record, and returns whether its visit should be offered.
    pub(super) fn is_next(&mut self) -> bool {
        self.offered += 1;
        self.is_last() || Self::is_sampled(self.offered, self.stride)
    }

    /// Returns whether a record is in the sample. A hash decides, since lines may have a regular pattern, such as every
    /// fourth expired.
    fn is_sampled(record: u64, stride: u64) -> bool {
        xxh64(&record.to_le_bytes(), 0).is_multiple_of(stride)
    }

    fn is_last(&self) -> bool {
        self.offered + Self::LAST > self.done
    }

    /// Adds the first visit of the current record, unless it may have expired by `cutoff` or was rejected for its time.
    pub(super) fn offer(&mut self, visits: RawVisits<'_>, cutoff: Timestamp) {
        let RawVisits { user_id, segments, seen_at } = visits;
        let Some(run) = self.runs.iter().find(|run| self.offered <= run.records) else { return };
        if seen_at.is_some_and(|seen_at| seen_at > Timestamp::from_millis(run.saved_at) + Visit::MAX_CLOCK_SKEW) {
            return;
        }
        // The earliest time that may have been written. A visit without a time, or with one in the future, took that of
        // the import.
        let seen_at = seen_at.unwrap_or(Timestamp::from_millis(run.started_at)) - Visit::MAX_CLOCK_SKEW;
        if seen_at <= cutoff {
            return;
        }
        let segment = segments.as_slice()[0].clone();
        let visit = Visit { user_id, segment, seen_at }.into_owned();
        if self.is_last() {
            self.last.push(visit.clone());
        }
        if !Self::is_sampled(self.offered, self.stride) {
            return;
        }
        self.sample.push((self.offered, visit));
        while self.sample.len() == Self::MAX_SAMPLE {
            self.stride *= 2;
            self.sample.retain(|(record, _)| Self::is_sampled(*record, self.stride));
        }
    }

    /// Returns the visits, in the order of the answers of [`Self::confirm`].
    pub(super) fn visits(&self) -> Vec<Visit<'static>> {
        self.sample.iter().map(|(_, visit)| visit).chain(&self.last).cloned().collect()
    }

    /// Returns whether the data set still has the imported visits. `kept` has for each of [`Self::visits`] whether it
    /// is there, or `None` if it can't be.
    ///
    /// Some users may have been deleted since, and the `rejected` visits were never there. But no part may be missing
    /// as a whole, such as all visits after a backup.
    pub(super) fn confirm(&self, kept: &[Option<bool>], accepted: u64, rejected: u64) -> bool {
        let are_enough = |kept: &[bool]| {
            let found = kept.iter().filter(|kept| **kept).count() as u64;
            2 * found * (accepted + rejected).max(1) >= kept.len() as u64 * accepted
        };
        let (sample, last) = kept.split_at(self.sample.len());
        let [sample, last] = [sample, last].map(|kept| kept.iter().copied().flatten().collect::<Vec<_>>());
        are_enough(&sample)
            && sample.rchunks_exact(Self::PART).all(are_enough)
            && (last.len() < Self::PART || are_enough(&last))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use rstest::rstest;

    use super::*;
    use crate::domain::{SegmentName, Segments, UserId};

    const SECOND: i64 = 1_000;
    const DAY: i64 = 24 * 3_600 * SECOND;
    const NOW: i64 = 100 * DAY;

    fn run(records: u64, started_at: i64) -> PastRun {
        PastRun { records, started_at, saved_at: started_at + SECOND }
    }

    /// Offers the visits of `runs` that were seen at `seen_at`, with a cutoff of 14 days ago.
    fn witnesses(runs: &[PastRun], seen_at: Option<i64>) -> Witnesses {
        let done = runs.last().unwrap().records;
        let mut witnesses = Witnesses::new(runs.to_vec(), done);
        for n in 1..=done {
            if witnesses.is_next() {
                let user_id = UserId::parse(format!("{n}")).unwrap();
                let segments = Segments::One(SegmentName::parse("s").unwrap());
                let visits = RawVisits { user_id, segments, seen_at: seen_at.map(Timestamp::from_millis) };
                witnesses.offer(visits, Timestamp::from_millis(NOW - 14 * DAY));
            }
        }
        witnesses
    }

    /// The records whose visits are witnesses, once each.
    fn records(witnesses: &Witnesses) -> Vec<u64> {
        let mut records: Vec<u64> =
            witnesses.visits().iter().map(|visit| visit.user_id.as_str().parse().unwrap()).collect();
        records.sort_unstable();
        records.dedup();
        records
    }

    #[rstest]
    #[case::nothing(0..0, true)]
    #[case::the_last_chunk(131_073..139_265, false)]
    #[case::the_last_records(139_201..139_265, false)]
    #[case::a_part_in_the_middle(60_000..90_000, false)]
    #[case::the_first_part(1..30_000, false)]
    #[case::some_users(60_000..62_000, true)]
    fn confirm_notices_a_part_that_is_lost(#[case] lost: Range<u64>, #[case] expected: bool) {
        let witnesses = witnesses(&[run(139_264, NOW - DAY)], Some(NOW - DAY));
        let kept: Vec<_> = witnesses
            .visits()
            .iter()
            .map(|visit| Some(!lost.contains(&visit.user_id.as_str().parse::<u64>().unwrap())))
            .collect();
        assert_eq!(witnesses.confirm(&kept, 139_264, 0), expected);
    }

    #[rstest]
    #[case::every_second(2)]
    #[case::every_fourth(4)]
    #[case::every_eighth(8)]
    fn offer_takes_visits_from_all_parts_of_a_file_with_a_rhythm(#[case] period: u64) {
        const RECORDS: u64 = 100_000;
        let mut witnesses = Witnesses::new(vec![run(RECORDS, NOW)], RECORDS);
        for n in 1..=RECORDS {
            if witnesses.is_next() && !n.is_multiple_of(period) {
                let user_id = UserId::parse(n.to_string()).unwrap();
                let segments = Segments::One(SegmentName::parse("s").unwrap());
                let seen_at = Some(Timestamp::from_millis(NOW - DAY));
                witnesses.offer(RawVisits { user_id, segments, seen_at }, Timestamp::from_millis(NOW - 14 * DAY));
            }
        }
        let records = records(&witnesses);
        for tenth in 0..10 {
            let part = tenth * RECORDS / 10..(tenth + 1) * RECORDS / 10;
            assert!(records.iter().any(|record| part.contains(record)), "{tenth}: {records:?}");
        }
    }

    #[test]
    fn confirm_leaves_out_visits_that_cannot_be_kept() {
        let witnesses = witnesses(&[run(1_000, NOW - DAY)], Some(NOW - DAY));
        let mut kept = vec![Some(true); witnesses.visits().len()];
        kept[..64].fill(None);
        assert!(witnesses.confirm(&kept, 500, 500));
    }

    #[test]
    fn offer_takes_a_visit_without_a_time_by_the_run_that_imported_it() {
        let runs = [run(100, NOW - 20 * DAY), run(200, NOW - DAY), run(300, NOW - SECOND)];
        assert_eq!(records(&witnesses(&runs, None)), (101..=300).collect::<Vec<_>>());
    }

    #[rstest]
    #[case::in_the_window(-DAY, 100)]
    #[case::ahead_but_written(2 * 60 * SECOND, 100)]
    #[case::too_far_ahead_and_rejected(10 * 60 * SECOND, 0)]
    #[case::expired(-15 * DAY, 0)]
    fn offer_takes_visits_that_must_be_there(#[case] offset: i64, #[case] expected: usize) {
        let witnesses = witnesses(&[run(100, NOW)], Some(NOW + offset));
        assert_eq!(records(&witnesses).len(), expected);
        assert!(witnesses.visits().iter().all(|visit| visit.seen_at <= Timestamp::from_millis(NOW)));
    }
}
