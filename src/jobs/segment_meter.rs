//! Measures the users of the segments that the setting `metered_segments` selects.

use super::segment_pattern::SegmentPattern;
use crate::domain::{Estimate, SegmentName, Timestamp};
use crate::estimator::{Error, Estimator, ListQuery, Order};
use crate::telemetry::SegmentUsers;

/// Selects segments by patterns, and sets their gauges.
#[derive(Debug)]
pub struct SegmentMeter {
    estimator: Estimator,
    patterns: Vec<SegmentPattern>,
    /// The last selection. It has gauges during an outage, too.
    selected: Vec<SegmentName<'static>>,
    largest: Vec<SegmentName<'static>>,
    measurements: usize,
    has_warned: bool,
}

impl SegmentMeter {
    /// The number of measurements with the same largest segments. Finding them counts all segments.
    const MEASUREMENTS_PER_RANKING: usize = 4;

    /// Creates a meter of the segments that match `patterns`.
    #[must_use]
    pub fn new(estimator: Estimator, patterns: Vec<SegmentPattern>) -> Self {
        let mut meter =
            Self { estimator, patterns, selected: Vec::new(), largest: Vec::new(), measurements: 0, has_warned: false };
        meter.selected = meter.names().collect();
        meter
    }

    /// Selects the segments, counts them, and sets their gauges. A segment that is no longer selected loses its gauges.
    pub async fn measure(&mut self, now: Timestamp) {
        if self.patterns.is_empty() {
            return;
        }
        let counted = match self.select(now).await {
            Ok(()) => self.estimator.estimate_each(self.selected.clone(), self.estimator.window(), now).await,
            Err(error) => Err(error),
        };
        let Ok(counted) = counted else { return self.set_unknown() };
        let users = counted.iter().map(|counted| SegmentUsers {
            segment: counted.segment.as_str(),
            users: counted.count.map(Estimate::count),
            depth: self.estimator.depth_of(&counted.segment).map(u64::from),
            members_kept: counted.count.map(Estimate::sample_size),
            week_before: counted.changes.week.map(|week| week.before.count()),
        });
        self.estimator.metrics().set_segment_users(users);
    }

    /// Sets the gauges of the last selection to NaN.
    fn set_unknown(&self) {
        let users = self.selected.iter().map(|segment| SegmentUsers {
            segment: segment.as_str(),
            users: None,
            depth: None,
            members_kept: None,
            week_before: None,
        });
        self.estimator.metrics().set_segment_users(users);
    }

    /// Returns the segments that are named in full.
    fn names(&self) -> impl Iterator<Item = SegmentName<'static>> {
        self.patterns.iter().filter_map(|pattern| match pattern {
            SegmentPattern::Name(name) => Some(name.clone()),
            _ => None,
        })
    }

    /// Selects the segments that are named in full, then the largest ones, then those with a prefix, up to the maximum.
    async fn select(&mut self, now: Timestamp) -> Result<(), Error> {
        self.update_largest(now).await?;
        let mut selected: Vec<_> = self.names().chain(self.largest.iter().cloned()).collect();
        for pattern in &self.patterns {
            if let SegmentPattern::Prefix(prefix) = pattern {
                // One more than the maximum shows that there are too many.
                let max = SegmentPattern::MAX_SEGMENTS + 1;
                selected.extend(self.estimator.names_with_prefix(prefix, max).await?);
            }
        }
        let mut unique = Vec::with_capacity(selected.len());
        for segment in selected {
            if !unique.contains(&segment) {
                unique.push(segment);
            }
        }
        if unique.len() > SegmentPattern::MAX_SEGMENTS && !self.has_warned {
            self.has_warned = true;
            tracing::warn!(
                max = SegmentPattern::MAX_SEGMENTS,
                "metered_segments selects more segments than the maximum; the others have no metric, use longer \
                 prefixes"
            );
        }
        unique.truncate(SegmentPattern::MAX_SEGMENTS);
        self.selected = unique;
        Ok(())
    }

    /// Finds the largest segments, if it is time. If too many lists are running, those found before remain.
    async fn update_largest(&mut self, now: Timestamp) -> Result<(), Error> {
        let number = self.patterns.iter().filter_map(|pattern| match pattern {
            SegmentPattern::Largest(number) => Some(*number),
            _ => None,
        });
        let Some(limit) = number.max() else { return Ok(()) };
        if self.measurements.is_multiple_of(Self::MEASUREMENTS_PER_RANKING) {
            let (prefix, contains, window) = (String::new(), String::new(), self.estimator.window());
            let query = ListQuery { prefix, contains, order: Order::Count, limit, cursor: None, window };
            match self.estimator.list(&query, now).await {
                Ok(list) => self.largest = list.segments.into_iter().map(|counted| counted.segment).collect(),
                Err(Error::TooMany(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.measurements += 1;
        Ok(())
    }
}
