//! The members of the load's segments in Redis: on one server or on several, in one partition or in many.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use segment_estimator::domain::Timestamp;

use super::visits::SEGMENTS;
use crate::helpers::Redis;

/// The members of the load's segments.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// For each segment the users, with their scores in milliseconds.
    pub users: [HashMap<u32, i64>; SEGMENTS.len()],
    /// Segment, user and key of each member that another key of the segment, or another server, has as well.
    pub counted_twice: Vec<(usize, u32, String)>,
    /// Keys of segments that the index lacks.
    pub not_in_index: Vec<String>,
}

impl Snapshot {
    /// Reads all keys of the servers behind `connections`.
    pub fn read(connections: &mut [redis::Connection]) -> Self {
        let mut snapshot = Self::default();
        for connection in connections {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
            let ours = keys.iter().filter_map(|key| {
                let (partition, name) = partition_and_segment(key)?;
                Some((key, partition, SEGMENTS.iter().position(|segment| *segment == name)?))
            });
            for (key, partition, segment) in ours {
                snapshot.read_segment(segment, key, connection);
                let mut score = redis::cmd("ZSCORE");
                score.arg(format!("{partition}segments")).arg(SEGMENTS[segment]);
                if score.query::<Option<f64>>(connection).unwrap().is_none() {
                    snapshot.not_in_index.push(key.clone());
                }
            }
        }
        snapshot
    }

    /// Adds the members of `key`. Panics at a member that the load doesn't send.
    fn read_segment(&mut self, segment: usize, key: &str, connection: &mut redis::Connection) {
        let mut members = redis::cmd("ZRANGE");
        members.arg(key).arg(0).arg(-1).arg("WITHSCORES");
        for (member, score) in members.query::<Vec<(String, f64)>>(connection).unwrap() {
            let number = member.strip_prefix('u').and_then(|number| number.parse().ok());
            let user = number.unwrap_or_else(|| panic!("{member} in {key} was never sent"));
            let seen_at = Timestamp::from_unix_seconds(score).as_millis();
            match self.users[segment].entry(user) {
                Entry::Vacant(entry) => {
                    entry.insert(seen_at);
                }
                Entry::Occupied(_) => self.counted_twice.push((segment, user, key.to_owned())),
            }
        }
    }
}

/// Splits the key of a segment into the prefix of its partition, such as `{p07}:`, and the segment's name.
fn partition_and_segment(key: &str) -> Option<(&str, &str)> {
    // A name may look like a partition. It follows `segment:`.
    if let Some(name) = key.strip_prefix("segment:") {
        return Some(("", name));
    }
    let (tag, rest) = key.strip_prefix('{')?.split_once("}:")?;
    let number = tag.strip_prefix(['p', 'q'])?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((&key[..tag.len() + "{}:".len()], rest.strip_prefix("segment:").filter(|_| is_number)?))
}

#[test]
fn partition_and_segment_splits_keys_with_a_partition_and_without() {
    assert_eq!(partition_and_segment("segment:sports"), Some(("", "sports")));
    assert_eq!(partition_and_segment("segment:{p07}:segment:a"), Some(("", "{p07}:segment:a")));
    assert_eq!(partition_and_segment("{p07}:segment:{x}:y"), Some(("{p07}:", "{x}:y")));
    assert_eq!(partition_and_segment("{q1023}:segment:a b"), Some(("{q1023}:", "a b")));
    for other in ["segments", "layout", "{p07}:segments", "{p07}:layout", "{x}:segment:a", "{p}:segment:a"] {
        assert_eq!(partition_and_segment(other), None, "{other}");
    }
}

#[test]
fn read_finds_a_user_in_two_partitions_and_a_segment_that_the_index_lacks() {
    let redis = Redis::start();
    let add = |key: &str, user: &str| redis.call::<()>(&["ZADD", key, "1795348800", user]);
    add("{p07}:segment:sports", "u1");
    add("{p07}:segments", "sports");
    add("{p08}:segment:sports", "u2");
    let snapshot = Snapshot::read(&mut [redis.connection()]);
    assert_eq!((snapshot.counted_twice, snapshot.not_in_index), (vec![], vec!["{p08}:segment:sports".to_owned()]));
    add("{p08}:segment:sports", "u1");
    add("{p08}:segments", "sports");
    let snapshot = Snapshot::read(&mut [redis.connection()]);
    assert_eq!((snapshot.counted_twice.len(), snapshot.not_in_index), (1, vec![]));
    let twice = Snapshot::read(&mut [redis.connection(), redis.connection()]);
    assert_eq!(twice.counted_twice.len(), 4, "u1 in another partition, and all three members on a second server");
}
