//! Lowering the depth of a segment that has few members, once the members of a prune have been removed.

use std::collections::BTreeSet;

use ::redis::{cmd, pipe};

use super::segment_depth::SegmentDepth;
use super::segment_sample::SegmentSample;
use crate::domain::{Depth, SegmentName, Timestamp};
use crate::redis::{Request, parse};
use crate::store::{Error, Layout, Partition, Store};

/// Replaces the depth `ARGV[3]` of the segment `ARGV[2]` in the hash `KEYS[2]` by `ARGV[4]`, if `KEYS[1]` is the record
/// `ARGV[1]`. An empty text stands for no field. Does nothing after the Unix time `ARGV[5]`, unless that is empty:
/// visits would be missing from a fall that a suspended process records too late. If an ACL forbids `TIME`, it fails.
///
/// Returns 1, or 0 if it did nothing.
const SET_DEPTH: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if (redis.call('HGET', KEYS[2], ARGV[2]) or '') ~= ARGV[3] then return 0 end
if ARGV[5] ~= '' then
  local now = redis.pcall('TIME')
  if not now[1] then return now end
  if tonumber(now[1]) > tonumber(ARGV[5]) then return 0 end
end
if ARGV[4] == '' then redis.call('HDEL', KEYS[2], ARGV[2]) else redis.call('HSET', KEYS[2], ARGV[2], ARGV[4]) end
return 1";

impl SegmentSample {
    /// Returns the depth to which that of a segment with few members may fall; `None` if it has enough of its `bound`.
    fn lower_depth(&self, bound: u32) -> Option<Depth> {
        /// A segment with less than this part of its bound is sampled more finely.
        const MIN_FILL: u64 = 4;
        let (depth, bound) = (self.depth.complete(), u64::from(bound));
        let kept = self.members_from(depth);
        if depth == Depth::ZERO || kept * MIN_FILL >= bound {
            return None;
        }
        // Each lower level doubles the members. Half of the bound leaves room for more.
        let fits = |lower: &Depth| kept << (depth.number() - lower.number()) <= bound / 2;
        (0..depth.number()).filter_map(Depth::from_number).find(fits)
    }

    /// Returns the depth that replaces this one at `now`; `None` if it stays. Members that were seen after `cutoff` are
    /// kept. During a resharding, depths don't fall.
    fn adjusted(&self, bound: u32, is_resharding: bool, cutoff: Timestamp, now: Timestamp) -> Option<SegmentDepth> {
        let depth = self.depth;
        if let Some(settled) = depth.settled(cutoff) {
            return Some(settled);
        }
        if is_resharding {
            return None;
        }
        if depth.has_implausible_fall(now) {
            return Some(depth.fallen_to(depth.written(), now));
        }
        if depth.is_falling() {
            return None;
        }
        self.lower_depth(bound).map(|lower| depth.fallen_to(lower, now))
    }
}

impl Store {
    /// Segments whose samples are read in one round trip. Redis takes about 10 us for each.
    const SEGMENT_SAMPLES_PER_REQUEST: usize = 50;

    /// Adjusts the depths of segments in `partition` at `now`, after members that were seen at or before `cutoff` have
    /// been removed: of all segments that keep a sample, and of the segments `full`, which have more members than their
    /// bound. Deletes levels that are not kept.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn adjust_samples(
        &self,
        layout: &Layout,
        partition: Partition,
        full: &[SegmentName<'_>],
        cutoff: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        let Some(bound) = partition.bound() else { return Ok(()) };
        let mut names: BTreeSet<_> = full.iter().map(|name| name.as_str().to_owned()).collect();
        names.extend(self.sampled_in(partition).await?);
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut ratios = Vec::with_capacity(names.len());
        for names in names.chunks(Self::SEGMENT_SAMPLES_PER_REQUEST) {
            for (name, sample) in names.iter().zip(self.segment_samples(partition, names).await?) {
                let sample = match sample {
                    // It belongs to another program, and concerns this segment alone.
                    Err(Error::ForeignKey(_)) => continue,
                    sample => sample?,
                };
                let kept = self.raise(layout, partition, name, &sample, sample.depth_within(bound)).await?;
                if let Some(next) = sample.adjusted(bound, layout.resharding().is_some(), cutoff, now) {
                    self.set_depth(layout, partition, name, sample.depth, next).await?;
                }
                let kept = kept.unwrap_or_else(|| sample.members_from(sample.depth.written()));
                ratios.push((*name, kept as f64 / f64::from(bound)));
            }
        }
        self.depths.fill_ratios.replace(partition, ratios);
        Ok(())
    }

    /// Returns the names of the segments in `partition` that keep a sample.
    async fn sampled_in(&self, partition: Partition) -> Result<Vec<String>, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("HKEYS").arg(self.key_names.depths(partition));
        let mut answers = self.client.send(Request::new(partition.slot(), pipeline)).await?.results();
        match answers.pop().expect("the command has an answer").and_then(parse::<Vec<String>>) {
            Err(error) if error.is_wrong_type() => Ok(Vec::new()),
            names => Ok(names?),
        }
    }

    /// Replaces the depth `before` of the segment `name` in `partition` by `next`, if `layout` is in force. Returns
    /// whether it was replaced.
    pub(super) async fn set_depth(
        &self,
        layout: &Layout,
        partition: Partition,
        name: &str,
        before: SegmentDepth,
        next: SegmentDepth,
    ) -> Result<bool, Error> {
        let mut script = cmd("EVAL");
        script.arg(SET_DEPTH).arg(2);
        script.arg(self.key_names.layout_of(partition)).arg(self.key_names.depths(partition));
        script.arg(layout.record()).arg(name).arg(before.field()).arg(next.field());
        script.arg(next.record_by().map_or_else(String::new, |time| time.to_string()));
        let mut pipeline = pipe();
        pipeline.add_command(script);
        let is_replaced = self.scripts_on_many_keys(partition, pipeline).await? == [Some(1)];
        if is_replaced {
            self.depths.learn(partition, name, next);
        }
        Ok(is_replaced)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::Level;

    fn depth(number: u8) -> Depth {
        Depth::from_number(number).unwrap()
    }

    fn sample(depth: SegmentDepth, kept: u64) -> SegmentSample {
        let mut members = vec![Some(0); Level::all().len()];
        members[usize::from(depth.complete().number())] = Some(kept);
        SegmentSample { members, depth }
    }

    #[rstest]
    #[case::enough(256, None)]
    #[case::a_level(255, Some(6))]
    #[case::two_levels(128, Some(5))]
    #[case::all_levels(4, Some(0))]
    #[case::emptied(0, Some(0))]
    fn lower_depth_fills_half_of_the_bound(#[case] kept: u64, #[case] expected: Option<u8>) {
        assert_eq!(sample(SegmentDepth::steady(depth(7)), kept).lower_depth(1_024), expected.map(depth));
    }

    #[test]
    fn adjusted_falls_and_settles() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let steady = SegmentDepth::steady(depth(7));
        let falling = sample(steady, 4).adjusted(1_024, false, at(0), at(100)).unwrap();
        assert_eq!(falling.to_string(), "7>0@116");
        assert_eq!(sample(steady, 4).adjusted(1_024, true, at(0), at(100)), None, "the data set is being moved");
        assert_eq!(sample(falling, 4).adjusted(1_024, false, at(115), at(200)), None);
        assert_eq!(sample(falling, 4).adjusted(1_024, false, at(116), at(200)), Some(SegmentDepth::default()));
        // It was recorded by a clock that is a day ahead.
        let late = steady.fallen_to(depth(3), at(86_400));
        assert_eq!(sample(late, 4).adjusted(1_024, false, at(0), at(100)), Some(steady.fallen_to(depth(3), at(100))));
    }
}
