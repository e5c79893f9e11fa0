//! Gauges of segments, which come and go.

use std::sync::{Mutex, PoisonError};

use metrics::{describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::value::gauge_value;

/// The users of a segment.
#[derive(Debug, Clone, Copy)]
pub struct SegmentUsers<'a> {
    /// The name of the segment.
    pub segment: &'a str,
    /// The users now; `None` becomes NaN.
    pub users: Option<u64>,
    /// The depth of its sample, 0 if it keeps all users; `None` becomes NaN.
    pub depth: Option<u64>,
    /// The users that it keeps; `None` becomes NaN.
    pub members_kept: Option<u64>,
    /// The users a week before the last sample of the history; `None` becomes NaN.
    pub week_before: Option<u64>,
}

/// The gauges of segments in Prometheus's text format.
///
/// A recorder keeps each series that it has once seen. Each measurement therefore has a recorder of its own, whose text
/// replaces the previous one.
#[derive(Default)]
pub(super) struct SegmentGauges(Mutex<String>);

impl SegmentGauges {
    /// Replaces the gauges.
    pub(super) fn set<'a>(&self, users: impl IntoIterator<Item = SegmentUsers<'a>>) {
        let recorder = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&recorder, || {
            describe_gauge!(
                "estimator_segment_users",
                "Users in each segment of the setting metered_segments; NaN if unknown."
            );
            describe_gauge!(
                "estimator_segment_users_week_before",
                "Users in each segment of metered_segments a week before its last sample; NaN if unknown."
            );
            describe_gauge!(
                "estimator_segment_depth",
                "Depth of each segment of metered_segments, which keeps one user of 2 to its power; 0 if it keeps all, NaN if unknown."
            );
            describe_gauge!(
                "estimator_segment_members_kept",
                "Users that each segment of metered_segments keeps, all or a sample; NaN if unknown."
            );
            for SegmentUsers { segment, users, depth, members_kept, week_before } in users {
                gauge!("estimator_segment_users", "segment" => segment.to_owned()).set(gauge_value(users));
                gauge!("estimator_segment_users_week_before", "segment" => segment.to_owned())
                    .set(gauge_value(week_before));
                gauge!("estimator_segment_depth", "segment" => segment.to_owned()).set(gauge_value(depth));
                gauge!("estimator_segment_members_kept", "segment" => segment.to_owned())
                    .set(gauge_value(members_kept));
            }
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = recorder.handle().render();
    }

    /// Returns the text.
    pub(super) fn render(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
