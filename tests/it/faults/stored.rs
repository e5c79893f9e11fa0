//! What Redis has: on one server or on several, in one partition or in many.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use segment_estimator::domain::Timestamp;

use super::ledger::SEGMENTS;
use crate::helpers::Redis;

/// The members of the segments that load is spread over.
#[derive(Debug, Default)]
pub struct Stored {
    /// For each segment its users, and when they were seen.
    pub users: [HashMap<u32, i64>; SEGMENTS.len()],
    /// In two partitions of a segment, or in one that two servers have.
    pub counted_twice: Vec<String>,
    /// In a segment that the index doesn't have.
    pub not_in_index: Vec<String>,
}

impl Stored {
    /// Looks at all keys that the servers behind `connections` have.
    pub fn read(connections: &mut [redis::Connection]) -> Self {
        let mut stored = Self::default();
        for connection in connections {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
            let ours = keys.iter().filter_map(|key| {
                let (partition, name) = partition_and_segment(key)?;
                Some((key, partition, SEGMENTS.iter().position(|segment| *segment == name)?))
            });
            for (key, partition, segment) in ours {
                stored.read_segment(segment, key, connection);
                let mut score = redis::cmd("ZSCORE");
                score.arg(format!("{partition}segments")).arg(SEGMENTS[segment]);
                if score.query::<Option<f64>>(connection).unwrap().is_none() {
                    stored.not_in_index.push(key.clone());
                }
            }
        }
        stored
    }

    /// Adds what `key` has. Nobody but the ledger's users is there.
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
                Entry::Occupied(_) => self.counted_twice.push(format!("{member} in {key}")),
            }
        }
    }
}

/// What stands before the name of a partition's keys, such as `{p07}:`, and the segment's name; of a key that is a segment's.
fn partition_and_segment(key: &str) -> Option<(&str, &str)> {
    // A name may look like a partition, and stands behind.
    if let Some(name) = key.strip_prefix("segment:") {
        return Some(("", name));
    }
    let (tag, rest) = key.strip_prefix('{')?.split_once("}:")?;
    let number = tag.strip_prefix(['p', 'q'])?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((&key[..tag.len() + "{}:".len()], rest.strip_prefix("segment:").filter(|_| is_number)?))
}

#[test]
fn a_key_is_a_segment_s_with_a_partition_or_without() {
    assert_eq!(partition_and_segment("segment:sports"), Some(("", "sports")));
    assert_eq!(partition_and_segment("segment:{p07}:segment:a"), Some(("", "{p07}:segment:a")));
    assert_eq!(partition_and_segment("{p07}:segment:{x}:y"), Some(("{p07}:", "{x}:y")));
    assert_eq!(partition_and_segment("{q1023}:segment:a b"), Some(("{q1023}:", "a b")));
    for other in ["segments", "layout", "{p07}:segments", "{p07}:layout", "{x}:segment:a", "{p}:segment:a"] {
        assert_eq!(partition_and_segment(other), None, "{other}");
    }
}

#[test]
fn a_user_in_two_partitions_and_a_segment_without_its_name_are_found() {
    let redis = Redis::start();
    let at = |key: &str, user: &str| redis.call::<()>(&["ZADD", key, "1795348800", user]);
    at("{p07}:segment:sports", "u1");
    at("{p07}:segments", "sports");
    at("{p08}:segment:sports", "u2");
    let stored = Stored::read(&mut [redis.connection()]);
    assert_eq!((stored.counted_twice, stored.not_in_index), (vec![], vec!["{p08}:segment:sports".to_owned()]));
    at("{p08}:segment:sports", "u1");
    at("{p08}:segments", "sports");
    let stored = Stored::read(&mut [redis.connection()]);
    assert_eq!((stored.counted_twice.len(), stored.not_in_index), (1, vec![]));
    let twice = Stored::read(&mut [redis.connection(), redis.connection()]);
    assert_eq!(twice.counted_twice.len(), 4, "two servers have both partitions, and one user is in both");
}
