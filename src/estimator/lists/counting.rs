//! Counts several segments at once, with their changes.

use futures_util::future::try_join;

use super::changes::Changes;
use super::list::CountedSegment;
use crate::domain::{Estimate, SegmentName, Timestamp, Window};
use crate::estimator::error::Error;
use crate::estimator::estimator::Estimator;
use crate::store::{self, ChangeRecord, CountQuery};

impl Estimator {
    /// Segments counted in one round trip with one partition. Redis takes a few microseconds for each count, and serves
    /// other connections after every 16 KiB of commands.
    const COUNT_BATCH: usize = 200;

    /// Returns how many segments to count in one round trip. Each takes a count for every key.
    pub(super) fn count_batch(&self) -> usize {
        self.segments_per_request(Self::COUNT_BATCH)
    }

    /// Returns how many segments share a request of so many commands, with a command for each key: ten at least, unless
    /// segments have a key for each level.
    pub(in crate::estimator) fn segments_per_request(&self, commands: usize) -> usize {
        const MIN: usize = 10;
        let (keys, partitions) = (self.store.keys_per_segment(), self.partitions().map_or(1, |it| it.count()));
        (commands / keys).max(MIN * partitions / keys).max(1)
    }

    /// Returns the segments that have members seen after `cutoff`, with their changes at `changes_at`.
    pub(super) async fn occupied(
        &self,
        names: Vec<SegmentName<'static>>,
        cutoff: Timestamp,
        changes_at: Option<Timestamp>,
    ) -> Result<impl Iterator<Item = CountedSegment>, store::Error> {
        let changes = async {
            match changes_at {
                Some(now) => self.changes_of(&names.iter().collect::<Vec<_>>(), now).await,
                None => Ok(vec![Changes::default(); names.len()]),
            }
        };
        let (counts, changes) = try_join(self.count_each(&names, cutoff), changes).await?;
        let counted = names.into_iter().zip(counts).zip(changes);
        let counted = counted.map(|((segment, count), changes)| CountedSegment { segment, count, changes });
        Ok(counted.filter(|counted| !counted.is_empty()))
    }

    /// Adds the changes at `now` to `segments`.
    pub(super) async fn add_changes(
        &self,
        segments: &mut [CountedSegment],
        now: Timestamp,
    ) -> Result<(), store::Error> {
        let names: Vec<_> = segments.iter().map(|counted| &counted.segment).collect();
        let changes = self.changes_of(&names, now).await?;
        segments.iter_mut().zip(changes).for_each(|(counted, changes)| counted.changes = changes);
        Ok(())
    }

    /// Counts the users in each of `segments` at `now` over `window`, and returns the counts in this order.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`].
    pub async fn estimate_each(
        &self,
        segments: Vec<SegmentName<'static>>,
        window: Window,
        now: Timestamp,
    ) -> Result<Vec<CountedSegment>, Error> {
        self.check_window(window)?;
        let names: Vec<_> = segments.iter().collect();
        let counts = self.count_each(&segments, window.cutoff(now));
        let (counts, changes) = try_join(counts, self.changes_of(&names, now)).await?;
        let counted = segments.into_iter().zip(counts).zip(changes);
        let mut counted: Vec<_> =
            counted.map(|((segment, count), changes)| CountedSegment { segment, count, changes }).collect();
        self.update_emptied(&mut counted, window, now).await?;
        Ok(counted)
    }

    /// Counts the users in `segment` at `now` over `window`, and returns them with their changes.
    ///
    /// # Errors
    ///
    /// As [`Estimator::estimate_within`].
    pub async fn estimate_with_changes(
        &self,
        segment: SegmentName<'static>,
        window: Window,
        now: Timestamp,
    ) -> Result<CountedSegment, Error> {
        let count = Some(self.estimate_within(&segment, window, now).await?);
        let changes = self.changes_of(&[&segment], now).await?[0];
        let mut counted = [CountedSegment { segment, count, changes }];
        self.update_emptied(&mut counted, window, now).await?;
        let [counted] = counted;
        Ok(counted)
    }

    /// Changes to 0 the changes of segments that have no users at `now` over the configured window. `counted` are
    /// counts over `window`.
    async fn update_emptied(
        &self,
        counted: &mut [CountedSegment],
        window: Window,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        let had_users = |changes: Changes| changes.last_sample.is_some_and(|sample| sample.count.count() > 0);
        let mut emptied: Vec<_> = counted.iter_mut().filter(|it| it.is_empty() && had_users(it.changes)).collect();
        if window != self.window() && !emptied.is_empty() {
            let names: Vec<_> = emptied.iter().map(|it| it.segment.clone()).collect();
            let mut counts = self.count_each(&names, self.window().cutoff(now)).await?.into_iter();
            emptied.retain(|_| counts.next().flatten().is_some_and(|count| count == 0));
        }
        emptied.into_iter().for_each(|it| it.changes = it.changes.to_zero(now));
        Ok(())
    }

    async fn count_each(
        &self,
        segments: &[SegmentName<'static>],
        cutoff: Timestamp,
    ) -> Result<Vec<Option<Estimate>>, store::Error> {
        let mut counts = Vec::with_capacity(segments.len());
        for segments in segments.chunks(self.count_batch()) {
            let requests: Vec<_> =
                segments.iter().map(|segment| CountQuery { segment: segment.clone(), cutoff }).collect();
            for count in self.store.counts(&requests.iter().collect::<Vec<_>>()).await? {
                counts.push(match count {
                    Ok(count) => Some(count),
                    // A wrong type concerns this segment alone.
                    Err(error) if error.is_wrong_type() => None,
                    Err(error) => return Err(error),
                });
            }
        }
        Ok(counts)
    }

    /// Returns the changes of each of `segments` at `now`, in one round trip. A segment without samples has none.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn changes_of(
        &self,
        segments: &[&SegmentName<'_>],
        now: Timestamp,
    ) -> Result<Vec<Changes>, store::Error> {
        let records = self.store.changes(segments).await?.into_iter();
        let changes = |record: ChangeRecord| Changes::of(record, self.window(), now);
        Ok(records.map(|record| record.map_or_else(Changes::default, changes)).collect())
    }
}
