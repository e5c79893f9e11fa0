//! The commands that write a batch.

use std::fmt::Write as _;

use ::redis::Cmd;

use super::partition_batch::{MemberCommand, PartitionBatch};
use super::visits::Batch;
use crate::domain::{Level, Timestamp};
use crate::store::keys::KeyNames;
use crate::store::sampling::Depths;
use crate::store::sampling::depths::{DepthsByName, written};
use crate::store::{KeySet, Partition, Partitions, SegmentKey};

/// The text of a score, kept for the next visit: most visits that follow each other have the same time.
#[derive(Default)]
struct ScoreText {
    time: Option<Timestamp>,
    text: String,
}

impl Batch {
    /// Redis finishes a command before it serves another connection, and takes 2 to 5 us for a visit.
    const MAX_VISITS_PER_COMMAND: usize = 1_000;

    /// Splits the visits by partition of `key_set`, without the segments `over_limit`, which ascend, and without the
    /// visits that their segments don't keep, as far as `depths` are known.
    pub(in crate::store) fn partition_batches(
        &self,
        key_names: &KeyNames,
        key_set: KeySet,
        over_limit: &[usize],
        depths: &Depths,
    ) -> Vec<PartitionBatch> {
        let visits = self.visits.iter().enumerate();
        let within_limit = visits.filter(|(_, visit)| over_limit.binary_search(&visit.segment).is_err());
        let indices: Vec<_> = within_limit.map(|(index, _)| index).collect();
        let by_segment = counting_sort(&indices, self.segment_names.len(), |index| self.visits[index].segment);
        let partitions = key_set.partitions();
        let partition_of = |index: usize| usize::from(partitions.of(self.visits[index].hash));
        let by_partition = match partitions {
            Partitions::ONE => by_segment,
            _ => counting_sort(&by_segment, partitions.count(), partition_of),
        };
        let mut scores = ScoreText::default();
        let each = by_partition.chunk_by(|one, next| partition_of(*one) == partition_of(*next));
        let batches = each.map(|visits| {
            let partition = key_set.of(self.visits[visits[0]].hash);
            if partition.bound().is_some() {
                let known = depths.recent(partition);
                self.sampled_batch(key_names, partition, visits, known.as_deref(), &mut scores)
            } else {
                self.partition_batch(key_names, partition, visits.to_vec(), &mut scores)
            }
        });
        batches.filter(|batch| !batch.visits().is_empty()).collect()
    }

    /// Returns the commands of the visits at the indices `visits`. They belong to `partition` and are sorted by
    /// segment.
    fn partition_batch(
        &self,
        key_names: &KeyNames,
        partition: Partition,
        visits: Vec<usize>,
        scores: &mut ScoreText,
    ) -> PartitionBatch {
        let mut batch = PartitionBatch { partition, member_commands: Vec::new(), visits };
        let mut end = 0;
        for visits in batch.visits.chunk_by(|one, next| self.visits[*one].segment == self.visits[*next].segment) {
            let key = SegmentKey { partition, level: None };
            self.add_commands(&mut batch.member_commands, key_names, key, visits, &mut end, scores);
        }
        batch
    }

    /// Returns the commands of those of `visits` whose levels are written, as far as the depths are `known`. The visits
    /// belong to `partition`, whose segments are bounded, and are sorted by segment.
    fn sampled_batch(
        &self,
        key_names: &KeyNames,
        partition: Partition,
        visits: &[usize],
        known: Option<&DepthsByName>,
        scores: &mut ScoreText,
    ) -> PartitionBatch {
        let mut batch = PartitionBatch { partition, member_commands: Vec::new(), visits: Vec::new() };
        let mut kept = Vec::new();
        for visits in visits.chunk_by(|one, next| self.visits[*one].segment == self.visits[*next].segment) {
            let depth = written(known, &self.segment_names[self.visits[visits[0]].segment]);
            let levels = visits.iter().map(|index| (self.level_of(*index), *index));
            kept.extend(levels.filter(|(level, _)| depth.keeps(*level)));
            // Stable, so that the visits of a level keep their order.
            kept.sort_by_key(|(level, _)| *level);
            for of_level in kept.chunk_by(|(one, _), (next, _)| one == next) {
                let mut end = batch.visits.len();
                let start = end;
                batch.visits.extend(of_level.iter().map(|(_, index)| *index));
                let key = SegmentKey { partition, level: Some(of_level[0].0) };
                let visits = &batch.visits[start..];
                self.add_commands(&mut batch.member_commands, key_names, key, visits, &mut end, scores);
            }
            kept.clear();
        }
        batch
    }

    fn level_of(&self, index: usize) -> Level {
        Level::of(&self.user_ids[self.visits[index].user_id.clone()])
    }

    /// Appends to `commands` those that write the visits at the indices `visits`, which belong to one segment, to
    /// `key`. `end` is the number of visits of the partition that have a command.
    fn add_commands(
        &self,
        commands: &mut Vec<MemberCommand>,
        key_names: &KeyNames,
        key: SegmentKey,
        visits: &[usize],
        end: &mut usize,
        scores: &mut ScoreText,
    ) {
        let segment = self.visits[visits[0]].segment;
        for visits in visits.chunks(Self::MAX_VISITS_PER_COMMAND) {
            let range = *end..*end + visits.len();
            *end = range.end;
            let command = self.member_command(&key_names.segment(key, &self.segment_names[segment]), visits, scores);
            commands.push(MemberCommand { command, segment, key, visits: range });
        }
    }

    /// Returns the command that writes the visits at the indices `visits` to `key`.
    fn member_command(&self, key: &str, visits: &[usize], scores: &mut ScoreText) -> Cmd {
        let visits = || visits.iter().map(|index| &self.visits[*index]);
        let ids: usize = visits().map(|visit| visit.user_id.len()).sum();
        let count = visits().len();
        let mut command =
            Cmd::with_capacity(3 + 2 * count, "ZADDGT".len() + key.len() + count * ScoreText::LENGTH + ids);
        command.arg("ZADD").arg(key).arg("GT");
        for visit in visits() {
            command.arg(scores.of(visit.seen_at)).arg(&self.user_ids[visit.user_id.clone()]);
        }
        command
    }
}

/// Returns `indices` sorted by `key`, which is less than `keys`. Indices with equal keys keep their order.
fn counting_sort(indices: &[usize], keys: usize, key: impl Fn(usize) -> usize) -> Vec<usize> {
    // The number of indices with each key, then the position of the next index with that key.
    let mut positions = vec![0; keys];
    indices.iter().for_each(|index| positions[key(*index)] += 1);
    let mut start = 0;
    for position in &mut positions {
        start += std::mem::replace(position, start);
    }
    let mut sorted = vec![0; indices.len()];
    for &index in indices {
        let position = &mut positions[key(index)];
        sorted[*position] = index;
        *position += 1;
    }
    sorted
}

impl ScoreText {
    /// Length of a score with milliseconds until the year 2286, in bytes.
    const LENGTH: usize = 14;

    /// Returns the score of `time`.
    fn of(&mut self, time: Timestamp) -> &str {
        if self.time != Some(time) {
            self.time = Some(time);
            self.text.clear();
            write!(self.text, "{}", time.as_score()).expect("a String takes everything");
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ::redis::Arg;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{SegmentName, UserId, Visit};
    use crate::store::partition::hash;

    fn word(arg: Arg<&[u8]>) -> String {
        match arg {
            Arg::Simple(word) => String::from_utf8_lossy(word).into_owned(),
            _ => unreachable!("ZADD has no other arguments"),
        }
    }

    #[test]
    fn partition_batches_have_each_visit_within_the_limit_in_one_command() {
        const SEGMENTS: usize = 3;
        const OVER_LIMIT: usize = 1;
        let mut batch = Batch::default();
        // More visits than a command has room for, in each partition of the first segment.
        let visits: Vec<_> =
            (0..20_000).map(|n| (format!("u{n}"), if n % 10 == 0 { n / 10 % SEGMENTS } else { 0 })).collect();
        for (user, segment) in &visits {
            let segment = SegmentName::parse(format!("s{segment}")).unwrap();
            batch.add(&Visit {
                user_id: UserId::parse(user.as_str()).unwrap(),
                segment,
                seen_at: Timestamp::from_millis(0),
            });
        }
        let names: Vec<_> = batch.segment_names().iter().map(|name| name.to_string()).collect();
        assert_eq!(names, ["s0", "s1", "s2"]);

        let key_set = KeySet::first(Partitions::parse("8").unwrap(), None);
        let mut written = BTreeSet::new();
        let batches = batch.partition_batches(&KeyNames::default(), key_set, &[OVER_LIMIT], &Depths::default());
        assert_eq!(batches.len(), 8);
        for partition in &batches {
            for command in &partition.member_commands {
                let words: Vec<_> = command.command.args_iter().map(word).collect();
                let indices = partition.visits_of(command);
                assert!(indices.len() <= Batch::MAX_VISITS_PER_COMMAND);
                let users: Vec<_> = indices.iter().map(|index| visits[*index].0.clone()).collect();
                let sent: Vec<_> = words[3..].chunks(2).map(|entry| entry[1].clone()).collect();
                assert_eq!(sent, users);
                assert_eq!(words[1], KeyNames::default().segment(command.key, &format!("s{}", command.segment)));
                for index in indices {
                    assert_eq!(
                        (visits[*index].1, key_set.of(hash(&visits[*index].0))),
                        (command.segment, partition.partition)
                    );
                    assert!(written.insert(*index), "{index} is written twice");
                }
            }
        }
        let expected: BTreeSet<_> = (0..visits.len()).filter(|index| visits[*index].1 != OVER_LIMIT).collect();
        assert_eq!(written, expected);
        let over_limit: BTreeSet<_> = batch.visits_to(&[OVER_LIMIT]).collect();
        assert!(over_limit.is_disjoint(&written) && over_limit.len() + written.len() == visits.len());
    }

    proptest! {
        #[test]
        fn counting_sort_is_a_stable_sort(
            keys in prop::collection::vec(0_usize..20, 200),
            indices in prop::sample::subsequence((0..200).collect::<Vec<usize>>(), 0..200).prop_shuffle(),
        ) {
            let mut expected = indices.clone();
            expected.sort_by_key(|index| keys[*index]);
            prop_assert_eq!(counting_sort(&indices, 20, |index| keys[index]), expected);
        }
    }
}
