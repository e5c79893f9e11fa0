//! The members of the load's segments in Redis: on one server or on several, in one partition or in many, all of them
//! or a sample.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use segment_estimator::domain::{Level, Timestamp};

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
    /// For each segment the highest depth of a partition: users of a lower level may be missing.
    depths: [u8; SEGMENTS.len()],
}

/// The name of a segment's key.
#[derive(Debug, Clone, Copy, PartialEq)]
struct KeyName<'a> {
    /// The prefix of its partition, such as `{p07}:`.
    partition: &'a str,
    /// The level of its members, if the segment is bounded.
    level: Option<u8>,
    segment: &'a str,
}

impl Snapshot {
    /// Reads all keys of the servers behind `connections`.
    pub fn read(connections: &mut [redis::Connection]) -> Self {
        let mut snapshot = Self::default();
        for connection in connections {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(connection).unwrap();
            let ours = keys.iter().filter_map(|key| {
                let name = KeyName::parse(key)?;
                Some((key, name, SEGMENTS.iter().position(|segment| *segment == name.segment)?))
            });
            for (key, name, segment) in ours {
                let mut members = redis::cmd("ZRANGE");
                members.arg(key).arg(0).arg(-1).arg("WITHSCORES");
                let members = members.query::<Vec<(String, f64)>>(connection).unwrap();
                // A raise while the members were read has deleted them. The depth says so afterwards.
                let depth = depth_of(name, connection);
                snapshot.depths[segment] = snapshot.depths[segment].max(depth);
                if name.level.is_some_and(|level| level < depth) {
                    continue;
                }
                snapshot.add(segment, key, members);
                let mut score = redis::cmd("ZSCORE");
                score.arg(format!("{}segments", name.partition)).arg(SEGMENTS[segment]);
                if score.query::<Option<f64>>(connection).unwrap().is_none() {
                    snapshot.not_in_index.push(key.clone());
                }
            }
        }
        snapshot
    }

    /// Whether the segment keeps `user` in every partition.
    pub fn keeps(&self, segment: usize, user: u32) -> bool {
        self.depths[segment] == 0 || Level::of(&format!("u{user}")).number() >= self.depths[segment]
    }

    /// Adds the `members` of `key`. Panics at a member that the load doesn't send.
    fn add(&mut self, segment: usize, key: &str, members: Vec<(String, f64)>) {
        for (member, score) in members {
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

/// Returns the depth from which the key's segment keeps all users of any time.
fn depth_of(key: KeyName<'_>, connection: &mut redis::Connection) -> u8 {
    let mut depth = redis::cmd("HGET");
    depth.arg(format!("{}depths", key.partition)).arg(key.segment);
    let text: Option<String> = depth.query(connection).unwrap();
    text.map_or(0, |text| text.split('>').next().unwrap().parse().unwrap())
}

impl<'a> KeyName<'a> {
    fn parse(key: &'a str) -> Option<Self> {
        // A name may look like a partition. It follows `segment:`.
        if let Some((level, segment)) = level_and_segment(key) {
            return Some(Self { partition: "", level, segment });
        }
        let (tag, rest) = key.strip_prefix('{')?.split_once("}:")?;
        let number = tag.strip_prefix(['p', 'q'])?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let (level, segment) = level_and_segment(rest).filter(|_| is_number)?;
        Some(Self { partition: &key[..tag.len() + "{}:".len()], level, segment })
    }
}

fn level_and_segment(key: &str) -> Option<(Option<u8>, &str)> {
    let (kind, segment) = key.split_once(':')?;
    match kind.strip_prefix("segment")?.strip_prefix('@') {
        None if kind == "segment" => Some((None, segment)),
        level => Some((Some(level?.parse().ok()?), segment)),
    }
}

#[test]
fn key_name_has_the_partition_and_the_level() {
    let name = |partition, level, segment| Some(KeyName { partition, level, segment });
    assert_eq!(KeyName::parse("segment:sports"), name("", None, "sports"));
    assert_eq!(KeyName::parse("segment@7:sports"), name("", Some(7), "sports"));
    assert_eq!(KeyName::parse("segment:{p07}:segment:a"), name("", None, "{p07}:segment:a"));
    assert_eq!(KeyName::parse("{p07}:segment:{x}:y"), name("{p07}:", None, "{x}:y"));
    assert_eq!(KeyName::parse("{q1023}:segment@24:a b"), name("{q1023}:", Some(24), "a b"));
    for other in
        ["segments", "layout", "{p07}:segments", "{p07}:layout", "{x}:segment:a", "{p}:segment:a", "segment@:a"]
    {
        assert_eq!(KeyName::parse(other), None, "{other}");
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
