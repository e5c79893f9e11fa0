//! The names of keys that a data set uses, and a scan of a database for them.

use ::redis::pipe;

use super::keys::OwnKey;
use super::{Error, KeySet, Layout, Store};
use crate::redis::{self, Request};

/// The extent of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coverage {
    /// All keys were scanned, or the scan ended at the key that it searched for.
    Complete,
    /// A server has more keys than the limit.
    Limited,
    /// A server forbids or lacks `SCAN`.
    Refused,
}

/// The keys of a database with names that a data set uses.
#[derive(Debug)]
pub(super) struct OwnKeys {
    pub(super) keys: Vec<OwnKey>,
    pub(super) coverage: Coverage,
}

impl Store {
    /// Maximum number of steps of `SCAN` on each server while requests wait for the result.
    pub(super) const SCAN_STEPS: usize = 1_000;
    /// Number of keys that a step scans.
    const SCAN_STEP: usize = 1_000;

    /// Returns the ACL patterns of all keys that the store may write while `layout` is in force.
    #[must_use]
    pub fn key_patterns(&self, layout: Option<&Layout>) -> Vec<String> {
        if !self.key_names.prefix().as_str().is_empty() {
            return vec![self.key_names.pattern("*")];
        }
        let is_plain = layout.is_none_or(|layout| layout.all().any(KeySet::is_plain));
        // Before the first start, the settings decide.
        let is_bounded =
            layout.map_or(self.max_members.is_some(), |layout| layout.all().any(|keys| keys.max_members().is_some()));
        let own = if is_plain { &["segments", "segment:*", "forgotten"][..] } else { &[] };
        let bounded = if is_plain && is_bounded { &["segment@*", "depths"][..] } else { &[] };
        let partitions = if layout.is_some_and(|layout| !layout.all().all(KeySet::is_plain)) {
            &["{p*}:*", "{q*}:*"][..]
        } else {
            &[]
        };
        [&["layout", "history:*"], own, bounded, partitions].concat().into_iter().map(str::to_owned).collect()
    }

    /// Returns the key of the layout record.
    #[must_use]
    pub fn layout_key(&self) -> String {
        self.key_names.layout()
    }

    /// Scans the database for keys with names that a data set uses, in up to `max_steps` on each server. Ends at the
    /// first key for which `is_enough` holds.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. A server that refuses `SCAN` is not an error.
    pub(super) async fn own_keys(
        &self,
        max_steps: usize,
        is_enough: impl Fn(&OwnKey) -> bool,
    ) -> Result<OwnKeys, Error> {
        let (mut found, pattern) = (OwnKeys { keys: Vec::new(), coverage: Coverage::Complete }, self.key_names.own());
        for (slot, _) in self.client.primaries().await? {
            let (mut cursor, mut steps) = ("0".to_owned(), 0);
            loop {
                let mut pipeline = pipe();
                let scan = pipeline.cmd("SCAN").arg(&cursor);
                scan.arg("MATCH").arg(&pattern).arg("COUNT").arg(Self::SCAN_STEP);
                let request = Request::new(slot, pipeline).nil_for(is_refusal);
                let (page,) = self.client.send(request).await?.all::<(Option<(String, Vec<Vec<u8>>)>,)>()?;
                let Some((next, keys)) = page else {
                    found.coverage = Coverage::Refused;
                    break;
                };
                for own in keys.into_iter().filter_map(|key| self.key_names.read(String::from_utf8(key).ok()?)) {
                    let is_last = is_enough(&own);
                    found.keys.push(own);
                    if is_last {
                        return Ok(OwnKeys { coverage: Coverage::Complete, ..found });
                    }
                }
                (cursor, steps) = (next, steps + 1);
                if cursor == "0" {
                    break;
                }
                if steps == max_steps {
                    found.coverage = found.coverage.max(Coverage::Limited);
                    break;
                }
            }
        }
        Ok(found)
    }
}

/// Whether a server forbids or lacks a command.
fn is_refusal(error: &redis::Error) -> bool {
    error.is_forbidden() || error.is_unknown_command()
}
