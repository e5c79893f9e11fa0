//! Deleting the history of a segment, and its change record.

use ::redis::cmd;

use crate::domain::SegmentName;
use crate::redis::{self, Request, Slot};
use crate::store::{Error, Store, changes};

/// Deletes the history `KEYS[1]`, and returns whether there was one. Another program's data stays.
const DELETE: &str = history_script!("return redis.call('UNLINK', key)");

impl Store {
    /// Deletes the history of `segment` and its change record. Returns whether there was a history. Logs keys of other
    /// programs, which stay as they are.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer or refused a command; any may be deleted.
    pub async fn delete_history(&self, segment: &SegmentName<'_>) -> Result<bool, Error> {
        let keys = [self.key_names.history(segment.as_str()), self.key_names.change(segment.as_str())];
        let deletions = keys.iter().zip([DELETE, changes::DELETE_RECORD]).map(|(key, script)| {
            let mut delete = cmd("EVAL");
            delete.arg(script).arg(1).arg(key);
            (Slot::of_any_key(key), delete)
        });
        let mut deleted = Vec::with_capacity(keys.len());
        for (answer, key) in self.client.send_by_server::<i64>(deletions, Request::each).await?.into_iter().zip(&keys) {
            let answer = answer?;
            if answer < 0 {
                self.client.report_error(&redis::Error::WrongType { command: format!("EVAL {key}") });
            }
            deleted.push(answer > 0);
        }
        Ok(deleted[0])
    }
}
