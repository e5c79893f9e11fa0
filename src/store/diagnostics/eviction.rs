//! What Redis does with our keys when its memory is full.

use std::fmt;

use redis::pipe;

use crate::redis::Request;
use crate::redis::info_field;
use crate::store::Error;
use crate::store::Store;

/// A `maxmemory-policy` of Redis's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionPolicy(String);

impl EvictionPolicy {
    /// The policy that `INFO memory` names.
    pub(in crate::store) fn from_info(info: &str) -> Option<Self> {
        info_field(info, "maxmemory_policy").map(|name| Self(name.to_owned()))
    }

    /// Whether Redis deletes keys by it. Otherwise it refuses writes.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.0 != "noeviction"
    }
}

/// As part of a sentence about a Redis: what it does when its memory is full.
impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        match name.as_str() {
            "noeviction" => f.write_str("refuses writes when its memory is full"),
            // Of our keys, histories and tombstones have a time to live.
            _ if name.starts_with("volatile-") => write!(
                f,
                "drops histories, and the record of deleted users during a move, when its memory is full ({name}); set \
                 maxmemory-policy to noeviction"
            ),
            _ => write!(
                f,
                "drops whole segments when its memory is full, and counts are wrong then ({name}); set maxmemory-policy to \
                 noeviction"
            ),
        }
    }
}

/// What all servers that take writes tell of eviction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Eviction {
    /// The policy of the first server that evicts; otherwise of any. `None` when an ACL forbids `INFO`.
    pub policy: Option<EvictionPolicy>,
    /// Keys that they have evicted since they were started, also keys of others. `None` when one of them doesn't tell.
    pub evicted_keys: Option<u64>,
}

impl Eviction {
    /// Reads each server's answer to `INFO`.
    fn from_infos(infos: &[String]) -> Self {
        let policies: Vec<_> = infos.iter().filter_map(|info| EvictionPolicy::from_info(info)).collect();
        let evicting = policies.iter().find(|policy| policy.evicts());
        let evicted = |info: &String| info_field(info, "evicted_keys")?.parse::<u64>().ok();
        Self { policy: evicting.or(policies.first()).cloned(), evicted_keys: infos.iter().map(evicted).sum() }
    }
}

impl Store {
    /// Asks every server that takes writes for its eviction policy and for the number of keys that it has evicted.
    ///
    /// # Errors
    ///
    /// An [`Error`] when one didn't answer. What an ACL doesn't let it tell is no error.
    pub async fn eviction(&self) -> Result<Eviction, Error> {
        let mut infos = Vec::new();
        for (slot, _) in self.client.masters().await? {
            let mut question = pipe();
            question.cmd("INFO").arg("memory").cmd("INFO").arg("stats");
            let answers = self.client.send(Request::new(slot, question).probe()).await?.each::<String>();
            infos.push(answers.flatten().collect());
        }
        Ok(Eviction::from_infos(&infos))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::safe("noeviction", false, "refuses writes when its memory is full")]
    #[case::managed_default(
        "volatile-lru",
        true,
        "drops histories, and the record of deleted users during a move, when"
    )]
    #[case::nearest_to_expiry("volatile-ttl", true, "drops histories")]
    #[case::cache(
        "allkeys-lru",
        true,
        "drops whole segments when its memory is full, and counts are wrong then (allkeys-lru)"
    )]
    #[case::policy_of_the_future("allkeys-new", true, "drops whole segments")]
    fn policies_are_described_by_what_they_do_to_our_keys(
        #[case] name: &str,
        #[case] evicts: bool,
        #[case] expected: &str,
    ) {
        let policy = EvictionPolicy::from_info(&format!("# Memory\r\nmaxmemory_policy:{name}\r\n")).unwrap();
        assert_eq!(policy.evicts(), evicts);
        assert!(policy.to_string().starts_with(expected), "{policy}");
    }

    #[test]
    fn servers_add_up_and_the_one_that_evicts_counts() {
        let info = |policy: &str, evicted: u64| format!("maxmemory_policy:{policy}\r\nevicted_keys:{evicted}\r\n");
        let policy_of = |eviction: &Eviction| eviction.policy.as_ref().map(|EvictionPolicy(name)| name.clone());
        let eviction = Eviction::from_infos(&[info("noeviction", 0), info("allkeys-lru", 7), info("noeviction", 2)]);
        assert_eq!((policy_of(&eviction).as_deref(), eviction.evicted_keys), (Some("allkeys-lru"), Some(9)));
        let eviction = Eviction::from_infos(&[info("noeviction", 3), String::new()]);
        assert_eq!((policy_of(&eviction).as_deref(), eviction.evicted_keys), (Some("noeviction"), None));
    }
}
