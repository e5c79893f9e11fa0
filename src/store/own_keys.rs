//! Looking through all keys of a database for those that are named as keys of a data set.

use ::redis::pipe;

use super::keys::OwnKey;
use super::{Error, Store};
use crate::redis::{self, Request};

/// How much of a database `SCAN` has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coverage {
    /// All keys, or as many as were asked for.
    Complete,
    /// Not all: a server has more keys than were to be looked at.
    Limited,
    /// Not all: a server forbids `SCAN`, or doesn't have it.
    Refused,
}

/// The keys of a database that are named as those of a data set.
#[derive(Debug)]
pub(super) struct OwnKeys {
    pub(super) keys: Vec<OwnKey>,
    pub(super) coverage: Coverage,
}

impl Store {
    /// Steps of `SCAN` at each server while requests wait for the outcome.
    pub(super) const SCAN_STEPS: usize = 1_000;
    /// Keys that a step looks at.
    const SCAN_STEP: usize = 1_000;

    /// Returns the keys that are named as those of a data set, until one `is_enough`, of those that `max_steps` at each server look at.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. A server that refuses `SCAN` is no error.
    pub(super) async fn own_keys(
        &self,
        max_steps: usize,
        is_enough: impl Fn(&OwnKey) -> bool,
    ) -> Result<OwnKeys, Error> {
        let (mut found, pattern) = (OwnKeys { keys: Vec::new(), coverage: Coverage::Complete }, self.names.own());
        for (slot, _) in self.client.masters().await? {
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
                for own in keys.into_iter().filter_map(|key| self.names.read(String::from_utf8(key).ok()?)) {
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

/// Whether a server forbids a command, or doesn't have it.
fn is_refusal(error: &redis::Error) -> bool {
    error.is_forbidden() || error.is_unknown_command()
}
