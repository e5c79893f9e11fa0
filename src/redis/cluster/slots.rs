//! The primaries of all slots, as `CLUSTER SLOTS` reports them.

use std::fmt;

use redis::{FromRedisValue as _, Value};

use crate::redis::Slot;

/// The address of a server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// Parses `host:port` of a redirection; `None` if the host is left out, as it may be.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The primary of each slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct SlotMap {
    primaries: Vec<Address>,
    /// Sorted ranges that don't overlap: the first slot, the last, and the primary's index in `primaries`.
    ranges: Vec<(u16, u16, usize)>,
    replicas: Vec<Address>,
}

impl SlotMap {
    /// Parses an answer to `CLUSTER SLOTS` of a server on `host`, which stands in for a host that is left out. `None`
    /// if it is no such answer or no slot has a primary.
    pub(super) fn parse(answer: Value, host: &str) -> Option<Self> {
        let mut slots = Self::default();
        for range in Vec::<Value>::from_redis_value(answer).ok()? {
            let mut parts = Vec::<Value>::from_redis_value(range).ok()?.into_iter();
            let first = u16::from_redis_value(parts.next()?).ok()?;
            let last = u16::from_redis_value(parts.next()?).ok()?;
            let primary = parse_server(parts.next()?, host)?;
            let index = slots.primaries.iter().position(|known| *known == primary).unwrap_or_else(|| {
                slots.primaries.push(primary);
                slots.primaries.len() - 1
            });
            slots.ranges.push((first, last, index));
            slots.replicas.extend(parts.filter_map(|replica| parse_server(replica, host)));
        }
        slots.ranges.sort_unstable();
        slots.replicas.sort_unstable();
        slots.replicas.dedup();
        (!slots.ranges.is_empty()).then_some(slots)
    }

    /// Returns the index in [`Self::primaries`] of the primary of `slot`.
    pub(super) fn owner(&self, slot: Slot) -> Option<usize> {
        let behind = self.ranges.partition_point(|(first, ..)| *first <= slot.0);
        let (_, last, primary) = self.ranges.get(behind.checked_sub(1)?)?;
        (slot.0 <= *last).then_some(*primary)
    }

    /// Returns all primaries, each with one of its slots.
    pub(super) fn primaries(&self) -> impl Iterator<Item = (Slot, &Address)> {
        self.primaries.iter().enumerate().map(|(index, primary)| {
            let range = self.ranges.iter().find(|range| range.2 == index).expect("a primary is one for its slots");
            (Slot(range.0), primary)
        })
    }

    /// Returns all primaries and replicas.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Address> {
        self.primaries.iter().chain(&self.replicas)
    }
}

/// Parses a server: its host, its port, and more that is not used here.
fn parse_server(value: Value, default_host: &str) -> Option<Address> {
    let mut parts = Vec::<Value>::from_redis_value(value).ok()?.into_iter();
    let host = match parts.next()? {
        Value::Nil => default_host.to_owned(),
        host => match String::from_redis_value(host).ok()? {
            host if host.is_empty() => default_host.to_owned(),
            // The server has not learned its own address yet.
            host if host == "?" => return None,
            host => host,
        },
    };
    Some(Address { host, port: u16::from_redis_value(parts.next()?).ok()? })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn server(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), text("07c37df"), Value::Array(vec![])])
    }

    fn range(first: i64, last: i64, servers: Vec<Value>) -> Value {
        Value::Array([Value::Int(first), Value::Int(last)].into_iter().chain(servers).collect())
    }

    #[test]
    fn owner_is_the_primary_of_the_slot() {
        let answer = Value::Array(vec![
            range(10_923, 16_383, vec![server(text("c"), 3)]),
            range(0, 5_460, vec![server(text("a"), 1), server(text("d"), 4)]),
            range(6_000, 10_922, vec![server(Value::Nil, 2), server(text("?"), 5)]),
            range(5_461, 5_461, vec![server(text("a"), 1), server(text("d"), 4)]),
        ]);
        let slots = SlotMap::parse(answer, "default").unwrap();
        let owner = |slot| slots.owner(Slot(slot)).map(|index| slots.primaries[index].to_string());
        for (slot, expected) in
            [(0, "a:1"), (5_461, "a:1"), (6_000, "default:2"), (10_922, "default:2"), (16_383, "c:3")]
        {
            assert_eq!(owner(slot).as_deref(), Some(expected), "{slot}");
        }
        assert_eq!((owner(5_462), owner(5_999)), (None, None));
        let servers: Vec<_> = slots.servers().map(ToString::to_string).collect();
        assert_eq!(servers, ["c:3", "a:1", "default:2", "d:4"]);
        for (slot, address) in slots.primaries() {
            assert_eq!(owner(slot.0), Some(address.to_string()));
        }
    }

    #[rstest]
    #[case::no_range(Value::Array(vec![]))]
    #[case::no_array(Value::Okay)]
    #[case::no_primary(Value::Array(vec![Value::Int(1)]))]
    fn parse_is_none_without_a_primary(#[case] answer: Value) {
        assert_eq!(SlotMap::parse(answer, "default"), None);
    }

    #[rstest]
    #[case::ipv4("10.0.0.1:6379", Some(("10.0.0.1", 6379)))]
    #[case::ipv6("fd00::1:6379", Some(("fd00::1", 6379)))]
    #[case::no_host(":6379", None)]
    #[case::no_port("redis", None)]
    fn address_parse_requires_a_host_and_a_port(#[case] text: &str, #[case] expected: Option<(&str, u16)>) {
        let expected = expected.map(|(host, port)| Address { host: host.to_owned(), port });
        assert_eq!(Address::parse(text), expected);
    }
}
