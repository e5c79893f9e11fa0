//! Raising the depth of a segment that has too many members.

use ::redis::{Pipeline, Value, cmd, pipe};

use super::segment_depth::SegmentDepth;
use crate::domain::{Depth, Level};
use crate::redis::{self, Request, parse};
use crate::store::layout::{KnownLayout, unless_later};
use crate::store::{Error, Layout, Partition, SegmentKey, Store};

/// Replaces the depth `ARGV[3]` of the segment `ARGV[2]` in the hash `KEYS[2]` by `ARGV[4]`, and deletes the levels
/// `KEYS[3]` and following. Redis frees their memory in the background. Keys of another type belong to another program and
/// stay. An empty text stands for no field.
///
/// While a deletion of the segment is in progress, until the Unix time `ARGV[5]`, all levels are needed. If an ACL forbids
/// `TIME`, there is no such time.
///
/// Returns 1, or 0 if the depth is another one now.
const RAISE: &str = unless_later!(
    "\
local depth = redis.call('HGET', KEYS[2], ARGV[2]) or ''
if depth ~= ARGV[3] then return 0 end
if ARGV[5] ~= '' then
  local now = redis.pcall('TIME')
  if now[1] and tonumber(now[1]) < tonumber(ARGV[5]) then return 0 end
end
if ARGV[4] ~= depth then redis.call('HSET', KEYS[2], ARGV[2], ARGV[4]) end
for i = 3, #KEYS do
  if type(redis.pcall('ZCARD', KEYS[i])) == 'number' then redis.call('UNLINK', KEYS[i]) end
end
return 1"
);

/// The members and the depth of a bounded segment in a partition.
#[derive(Debug)]
pub(super) struct Sample {
    /// The number of members of each level, expired or not; `None` if its key has another type.
    pub(super) members: Vec<Option<u64>>,
    pub(super) depth: SegmentDepth,
}

impl Sample {
    /// Returns the number of members from the level `depth` on.
    pub(super) fn members_from(&self, depth: Depth) -> u64 {
        self.members[depth.number().into()..].iter().flatten().sum()
    }

    /// Returns the lowest depth at which there are at most `bound` members. It is not less than the present one.
    pub(super) fn depth_within(&self, bound: u32) -> Depth {
        let deeper = self.depth.written().levels().filter_map(|level| Depth::from_number(level.number()));
        let mut within = deeper.filter(|depth| self.members_from(*depth) <= bound.into());
        within.next().unwrap_or(Depth::MAX)
    }

    /// Returns the levels below `depth` that have members.
    fn levels_below(&self, depth: Depth) -> impl Iterator<Item = Level> {
        let has_members = |level: &Level| self.members[usize::from(level.number())].is_some_and(|members| members > 0);
        depth.levels_below().filter(has_members)
    }
}

impl Store {
    /// Checks in the background whether the segment `name`, which [`Depths::add`](super::Depths::add) has found due, has more
    /// members than its bound, and raises its depth then.
    pub(in crate::store) fn spawn_check(&self, known: &KnownLayout, partition: Partition, name: &str) {
        let (store, layout, name) = (self.clone(), known.layout, Box::<str>::from(name));
        tokio::spawn(async move {
            loop {
                // If it fails, the client has logged it, and the next visits ask for a check again.
                let is_checked = store.raise_if_full(&layout, partition, &name).await.is_ok();
                if !store.depths.end_check(partition, &name, is_checked) {
                    break;
                }
            }
        });
    }

    /// Raises the depth of the segment `name` in `partition` until it has no more members than its bound, unless a layout
    /// later than `layout` is in force. Deletes the levels that are not kept.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub(in crate::store) async fn raise_if_full(
        &self,
        layout: &Layout,
        partition: Partition,
        name: &str,
    ) -> Result<(), Error> {
        let Some(bound) = partition.bound() else { return Ok(()) };
        let sample = self.sample(partition, name).await?;
        let depth = sample.depth_within(bound);
        let kept = self.raise(layout, partition, name, &sample, depth).await?;
        self.depths.fill_ratios.set(partition, name, kept as f64 / f64::from(bound));
        Ok(())
    }

    /// Raises the depth of the segment `name` in `partition` to `depth`, unless it is higher.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::LayoutChanged`] if a layout later than `layout` is in force, or if the
    /// depth changes all the time.
    pub(super) async fn raise_to(
        &self,
        layout: &Layout,
        partition: Partition,
        name: &str,
        depth: Depth,
    ) -> Result<(), Error> {
        for _ in 0..Self::ATTEMPTS {
            let sample = self.sample(partition, name).await?;
            if sample.depth.complete() >= depth {
                return Ok(());
            }
            self.raise(layout, partition, name, &sample, depth).await?;
            tokio::time::sleep(Self::SLOT_PAUSE).await;
        }
        Err(Error::LayoutChanged)
    }

    /// Raises the depth of `sample`, of the segment `name`, to `depth`, and deletes the levels that are not kept. Returns the
    /// number of members that remain. Does nothing if it is too late or too early: another process has changed the depth, a layout later than `layout` is in
    /// force, the slot is migrating, or the segment is being deleted.
    pub(super) async fn raise(
        &self,
        layout: &Layout,
        partition: Partition,
        name: &str,
        sample: &Sample,
        depth: Depth,
    ) -> Result<u64, Error> {
        let raised = if depth > sample.depth.written() { sample.depth.raised_to(depth) } else { sample.depth };
        // In a slot that is migrating, Redis refuses a script that names a key that doesn't exist.
        let levels: Vec<_> = sample.levels_below(raised.written()).collect();
        let kept = sample.members_from(raised.written());
        if raised == sample.depth && levels.is_empty() {
            return Ok(kept);
        }
        let mut script = cmd("EVAL");
        script.arg(RAISE).arg(2 + levels.len());
        script.arg(self.key_names.layout_of(partition)).arg(self.key_names.depths(partition));
        for level in levels {
            script.arg(self.key_names.segment(SegmentKey { partition, level: Some(level) }, name));
        }
        script.arg(layout.epoch()).arg(name).arg(sample.depth.field()).arg(raised.field());
        script.arg(sample.depth.deletion_deadline().map_or_else(String::new, |deadline| deadline.to_string()));
        let mut pipeline = pipe();
        pipeline.add_command(script);
        let [Some(1)] = self.scripts_on_many_keys(partition, pipeline).await?[..] else {
            return Ok(sample.members_from(Depth::ZERO));
        };
        if raised != sample.depth {
            self.depths.learn(partition, name, raised);
        }
        Ok(kept)
    }

    /// Returns the members and the depth of the bounded segment `name` in `partition`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::ForeignKey`] if the depth belongs to another program.
    pub(super) async fn sample(&self, partition: Partition, name: &str) -> Result<Sample, Error> {
        let mut pipeline = Pipeline::with_capacity(partition.segment_keys().len() + 1);
        for key in partition.segment_keys() {
            pipeline.cmd("ZCARD").arg(self.key_names.segment(key, name));
        }
        pipeline.cmd("HGET").arg(self.key_names.depths(partition)).arg(name);
        let mut answers = self.client.send(Request::new(partition.slot(), pipeline)).await?.results();
        let depth = answers.pop().expect("each command has an answer");
        let depth = self.parse_depth(partition, depth)?;
        let members = answers.into_iter().map(|members| match members.and_then(parse::<u64>) {
            Err(error) if error.is_wrong_type() => Ok(None),
            members => Ok::<_, Error>(Some(members?)),
        });
        Ok(Sample { members: members.collect::<Result<_, _>>()?, depth })
    }

    /// Parses the answer to a read of a depth in `partition`.
    ///
    /// # Errors
    ///
    /// [`Error::ForeignKey`] if it belongs to another program. Another [`Error`] if Redis refused the command.
    pub(in crate::store) fn parse_depth(
        &self,
        partition: Partition,
        answer: Result<Value, redis::Error>,
    ) -> Result<SegmentDepth, Error> {
        let foreign = || self.foreign_key(self.key_names.depths(partition));
        match answer.and_then(parse::<Option<Vec<u8>>>) {
            Ok(None) => Ok(SegmentDepth::default()),
            Ok(Some(text)) => SegmentDepth::parse(&text).ok_or_else(foreign),
            Err(error) if error.is_wrong_type() => Err(foreign()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(number: u8) -> Depth {
        Depth::from_number(number).unwrap()
    }

    #[test]
    pub(super) fn depth_within_is_the_lowest_that_fits() {
        let mut members = vec![Some(0); Level::all().len()];
        for (level, of_level) in members.iter_mut().enumerate().take(10) {
            *of_level = Some(512 >> level);
        }
        let at = |depth| Sample { members: members.clone(), depth: SegmentDepth::steady(depth) };
        assert_eq!(at(Depth::ZERO).members_from(Depth::ZERO), 1_023);
        assert_eq!(at(Depth::ZERO).depth_within(1_023), Depth::ZERO);
        assert_eq!(at(Depth::ZERO).depth_within(1_022), depth(1));
        assert_eq!(at(Depth::ZERO).depth_within(64), depth(4));
        assert_eq!(at(depth(6)).depth_within(64), depth(6));
        assert_eq!(at(Depth::ZERO).levels_below(depth(3)).count(), 3);
    }
}
