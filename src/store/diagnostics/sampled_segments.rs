//! The samples of bounded segments, for an operator.

use std::collections::BTreeSet;

use ::redis::Value;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::domain::{Depth, SegmentName, Timestamp};
use crate::redis::Request;
use crate::store::sampling::depths::DepthsByName;
use crate::store::{Error, KeySet, Partition, Store};

/// The samples of a data set with bounded segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SampledSegments {
    /// Number of segments that keep a sample in a partition.
    pub segments: u64,
    /// The first of the segments with the highest depth, and that depth.
    pub deepest: Option<(String, Depth)>,
    /// Segments that keep more than twice their maximum in a partition.
    pub overfull: Vec<String>,
}

impl Store {
    /// Number of partitions whose samples are counted concurrently.
    const SAMPLED_CONCURRENCY: usize = 8;

    /// Describes the samples of the segments of `keys`, for members that were seen after `cutoff`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn sampled_segments(&self, keys: KeySet, cutoff: Timestamp) -> Result<SampledSegments, Error> {
        let depths = self.depths_in(keys, cutoff).await?;
        let mut deepest: Option<(String, Depth)> = None;
        for (name, depth) in &depths {
            if deepest.as_ref().is_none_or(|(_, deepest)| depth > deepest) {
                deepest = Some((name.clone(), *depth));
            }
        }
        let overfull = stream::iter(keys.all()).map(|partition| self.overfull_segments(partition));
        let overfull: Vec<_> = overfull.buffered(Self::SAMPLED_CONCURRENCY).try_collect().await?;
        let overfull: BTreeSet<_> = overfull.into_iter().flatten().collect();
        Ok(SampledSegments { segments: depths.len() as u64, deepest, overfull: overfull.into_iter().collect() })
    }

    /// Returns the segments that keep more than twice their bound in `partition`.
    async fn overfull_segments(&self, partition: Partition) -> Result<Vec<String>, Error> {
        const MANY: u64 = 2;
        let Some(bound) = partition.bound() else { return Ok(Vec::new()) };
        let names_per_request = (Self::KEYS_PER_REQUEST / partition.segment_keys().len()).max(1);
        let (depths, names) = (self.depths_of(partition).await?, self.names_of(partition).await?);
        let mut overfull = Vec::new();
        for names in names.chunks(names_per_request) {
            let written = |name: &SegmentName<'_>| depths.get(name.as_str()).copied().unwrap_or_default().written();
            let keys: Vec<_> = names
                .iter()
                .flat_map(|name| {
                    let kept = written(name);
                    let is_kept = move |level| kept.keeps(level);
                    partition
                        .segment_keys()
                        .filter(move |key| key.level.is_some_and(is_kept))
                        .map(move |key| (key, name))
                })
                .collect();
            let counts = self.count_members(partition, &keys, Timestamp::from_millis(0)).await?;
            for name in names {
                // A key of another type has no members.
                let own = keys.iter().zip(&counts).filter(|((_, segment), _)| *segment == name);
                let members: u64 = own.filter_map(|(_, counts)| Some(counts.as_ref().ok()?.members)).sum();
                overfull.extend((members > MANY * u64::from(bound)).then(|| name.as_str().to_owned()));
            }
        }
        Ok(overfull)
    }

    /// Returns the depths of the segments in `partition`. Texts of another form are left out.
    async fn depths_of(&self, partition: Partition) -> Result<DepthsByName, Error> {
        let (depths,): (Value,) = self.client.send(Request::each([self.depths_read(partition)])).await?.all()?;
        let depths = self.parse_depths(partition, Ok(depths))?;
        Ok(depths.filter_map(|(name, depth)| Some((name.into(), depth?))).collect())
    }
}
