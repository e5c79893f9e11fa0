//! Looking through all keys of a database for those that are named as keys of a data set.

use redis::pipe;

use super::keys::OwnKey;
use super::{Error, Store};
use crate::redis::Request;

impl Store {
    /// Steps of `SCAN` at each server.
    const SCAN_STEPS: usize = 1_000;
    /// Keys that a step looks at.
    const SCAN_STEP: usize = 1_000;

    /// The keys that are named as those of a data set, until one `is_enough`: of up to a million keys at each server, and none where an
    /// ACL forbids `SCAN`.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub(super) async fn own_keys(&self, is_enough: impl Fn(&OwnKey) -> bool) -> Result<Vec<OwnKey>, Error> {
        let (mut found, pattern) = (Vec::new(), self.names.own());
        for (slot, _) in self.client.masters().await? {
            let mut cursor = "0".to_owned();
            for _ in 0..Self::SCAN_STEPS {
                let mut pipeline = pipe();
                let scan = pipeline.cmd("SCAN").arg(&cursor);
                scan.arg("MATCH").arg(&pattern).arg("COUNT").arg(Self::SCAN_STEP);
                let page = self
                    .client
                    .send(Request::new(slot, pipeline).probe())
                    .await?
                    .each::<(String, Vec<Vec<u8>>)>()
                    .next();
                let Some(Ok((next, keys))) = page else { break };
                for own in keys.into_iter().filter_map(|key| self.names.read(String::from_utf8(key).ok()?)) {
                    let is_last = is_enough(&own);
                    found.push(own);
                    if is_last {
                        return Ok(found);
                    }
                }
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(found)
    }
}
