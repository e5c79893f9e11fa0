//! Eviction: what Redis does with the keys of the service when its memory is full.

use std::fmt;

use ::redis::pipe;

use crate::redis::Request;
use crate::redis::info_field;
use crate::store::Error;
use crate::store::Store;

/// A `maxmemory-policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionPolicy(String);

impl EvictionPolicy {
    /// Reads the policy from the answer to `INFO memory`.
    pub(in crate::store) fn from_info(info: &str) -> Option<Self> {
        info_field(info, "maxmemory_policy").map(|name| Self(name.to_owned()))
    }

    /// Whether Redis evicts keys. Otherwise it refuses writes.
    #[must_use]
    pub fn evicts(&self) -> bool {
        self.0 != "noeviction"
    }
}

/// Formats the effect of the policy as a predicate: `Redis ...`.
impl fmt::Display for EvictionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name) = self;
        match name.as_str() {
            "noeviction" => f.write_str("refuses writes when its memory is full"),
            // Histories and tombstones are the only keys of the service with a time to live.
            _ if name.starts_with("volatile-") => write!(
                f,
                "evicts histories, and tombstones of deleted users during a move, when its memory is full ({name}); set \
                 maxmemory-policy to noeviction"
            ),
            _ => write!(
                f,
                "evicts whole segments when its memory is full, which makes counts wrong ({name}); set maxmemory-policy to \
                 noeviction"
            ),
        }
    }
}

/// The eviction of all primaries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Eviction {
    /// The policy of the first primary that evicts keys; otherwise of any. `None` if an ACL forbids `INFO`.
    pub policy: Option<EvictionPolicy>,
    /// Number of keys evicted since the primaries started, including those of other programs. `None` if it is unknown
    /// for one of them.
    pub evicted_keys: Option<u64>,
}

impl Eviction {
    /// Reads the answers of all primaries to `INFO`.
    pub(super) fn from_infos(infos: &[String]) -> Self {
        let policies: Vec<_> = infos.iter().filter_map(|info| EvictionPolicy::from_info(info)).collect();
        let evicting = policies.iter().find(|policy| policy.evicts());
        let evicted = |info: &String| info_field(info, "evicted_keys")?.parse::<u64>().ok();
        Self { policy: evicting.or(policies.first()).cloned(), evicted_keys: infos.iter().map(evicted).sum() }
    }
}

impl Store {
    /// Fetches the eviction policies of all primaries, and the number of keys that they have evicted.
    ///
    /// # Errors
    ///
    /// An [`Error`] if a primary didn't answer. A command that an ACL forbids is not an error.
    pub async fn eviction(&self) -> Result<Eviction, Error> {
        Ok(Eviction::from_infos(&self.infos(&["memory", "stats"]).await?))
    }

    /// Fetches these sections of `INFO` from each primary. The text of a primary is empty if an ACL forbids them.
    pub(super) async fn infos(&self, sections: &[&str]) -> Result<Vec<String>, Error> {
        let mut infos = Vec::new();
        for (slot, _) in self.client.primaries().await? {
            let mut pipeline = pipe();
            for section in sections {
                pipeline.cmd("INFO").arg(*section);
            }
            let answers = self.client.send(Request::new(slot, pipeline).probe()).await?.each::<String>();
            infos.push(answers.flatten().collect());
        }
        Ok(infos)
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
        "evicts histories, and tombstones of deleted users during a move, when"
    )]
    #[case::nearest_to_expiry("volatile-ttl", true, "evicts histories")]
    #[case::cache(
        "allkeys-lru",
        true,
        "evicts whole segments when its memory is full, which makes counts wrong (allkeys-lru)"
    )]
    #[case::policy_of_the_future("allkeys-new", true, "evicts whole segments")]
    fn display_describes_the_effect_on_keys(#[case] name: &str, #[case] evicts: bool, #[case] expected: &str) {
        let policy = EvictionPolicy::from_info(&format!("# Memory\r\nmaxmemory_policy:{name}\r\n")).unwrap();
        assert_eq!(policy.evicts(), evicts);
        assert!(policy.to_string().starts_with(expected), "{policy}");
    }

    #[test]
    fn from_infos_adds_evicted_keys_and_prefers_a_policy_that_evicts() {
        let info = |policy: &str, evicted: u64| format!("maxmemory_policy:{policy}\r\nevicted_keys:{evicted}\r\n");
        let policy_of = |eviction: &Eviction| eviction.policy.as_ref().map(|EvictionPolicy(name)| name.clone());
        let eviction = Eviction::from_infos(&[info("noeviction", 0), info("allkeys-lru", 7), info("noeviction", 2)]);
        assert_eq!((policy_of(&eviction).as_deref(), eviction.evicted_keys), (Some("allkeys-lru"), Some(9)));
        let eviction = Eviction::from_infos(&[info("noeviction", 3), String::new()]);
        assert_eq!((policy_of(&eviction).as_deref(), eviction.evicted_keys), (Some("noeviction"), None));
    }
}
