//! The script that deletes a segment in a partition.

use ::redis::{Cmd, Value, cmd};

use crate::domain::SegmentName;
use crate::redis;
use crate::store::sampling::segment_depth::SegmentDepth;
use crate::store::{Layout, Partition, Store};

/// Deletes the keys `KEYS[2]` and following of a segment, and its name `ARGV[2]` in the index, the key after them, in
/// one atomic step. A member that is written before it is deleted as well; one that is written after it adds the name
/// again. Redis frees the memory in the background. A key of another type belongs to another program and stays. If the
/// index has another type, nothing is deleted and the script fails.
///
/// If segments are bounded, the last key has their depths. It loses that of the segment, which must be `ARGV[4]` unless
/// that is `*`. Otherwise nothing is deleted, and the script returns -2.
///
/// Returns whether the index had the name, and for each key of the segment the number of members with scores from
/// `ARGV[3]`, or -1 for a key of another type.
const DELETE_SEGMENT: &str = unless_later!(
    "\
local index = ARGV[4] and #KEYS - 1 or #KEYS
local names = redis.pcall('ZCARD', KEYS[index])
if type(names) ~= 'number' then return names end
if ARGV[4] then
  local depth = redis.call('HGET', KEYS[#KEYS], ARGV[2]) or ''
  if ARGV[4] ~= '*' and ARGV[4] ~= depth then return -2 end
end
local counts = {}
for i = 2, index - 1 do
  local count = redis.pcall('ZCOUNT', KEYS[i], ARGV[3], '+inf')
  if type(count) == 'number' then
    local unlinked = redis.pcall('UNLINK', KEYS[i])
    if type(unlinked) == 'table' then
      local is_forbidden = string.find(unlinked.err, \"The user executing the script can't\", 1, true)
        or string.find(unlinked.err, 'ACL failure in script', 1, true)
      return is_forbidden and redis.error_reply('NOPERM an ACL forbids UNLINK, which deletions of segments need') or unlinked
    end
  elseif string.find(count.err, 'WRONGTYPE', 1, true) then count = -1
  else return count end
  counts[i - 1] = count
end
if ARGV[4] then redis.call('HDEL', KEYS[#KEYS], ARGV[2]) end
return {redis.call('ZREM', KEYS[index], ARGV[2]), unpack(counts)}"
);

/// The result of [`Store::segment_deletion`].
pub(in crate::store) enum SegmentDeletion {
    /// The segment is deleted, if there was one.
    Deleted {
        /// The number of members that counted, of each key.
        counts: Vec<u64>,
        /// Whether the name was in the index.
        was_indexed: bool,
    },
    /// A key has another type and stays. The name is not in the index.
    ForeignKey,
    /// A later layout is in force. Nothing was deleted.
    Stale,
    /// The segment has another depth. Nothing was deleted.
    OtherDepth,
    /// The slot is migrating. Nothing was deleted.
    Migrating,
}

impl SegmentDeletion {
    /// Interprets the answer, which is nil for `TRYAGAIN`.
    pub(in crate::store) fn parse(answer: Value) -> Result<Self, redis::Error> {
        Ok(match answer {
            Value::Nil => Self::Migrating,
            Value::Int(-2) => Self::OtherDepth,
            Value::Int(_) => Self::Stale,
            answer => {
                let answers: Vec<i64> = redis::parse(answer)?;
                let (names, counts) = answers.split_first().map_or((0, &[][..]), |(names, counts)| (*names, counts));
                if counts.contains(&-1) {
                    Self::ForeignKey
                } else {
                    let counts = counts.iter().map(|count| count.unsigned_abs()).collect();
                    Self::Deleted { counts, was_indexed: names > 0 }
                }
            }
        })
    }
}

impl Store {
    /// Returns a command that deletes `segment` in `partition` unless a layout later than `layout` is in force there.
    /// If segments are bounded, it must have this `depth`, or may have any if that is `None`. The answer is a
    /// [`SegmentDeletion`] with the members from the score `first`.
    pub(in crate::store) fn segment_deletion(
        &self,
        layout: &Layout,
        partition: Partition,
        segment: &SegmentName<'_>,
        first: &str,
        depth: Option<SegmentDepth>,
    ) -> Cmd {
        let (keys, is_bounded) = (partition.segment_keys(), partition.bound().is_some());
        let mut script = cmd("EVAL");
        script.arg(DELETE_SEGMENT).arg(2 + keys.len() + usize::from(is_bounded));
        script.arg(self.key_names.layout_of(partition));
        for key in keys {
            script.arg(self.key_names.segment(key, segment.as_str()));
        }
        script.arg(self.key_names.index(partition));
        if is_bounded {
            script.arg(self.key_names.depths(partition));
        }
        script.arg(layout.epoch()).arg(segment.as_str()).arg(first);
        if is_bounded {
            script.arg(depth.map_or_else(|| "*".to_owned(), SegmentDepth::field));
        }
        script
    }
}
