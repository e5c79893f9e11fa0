//! Appending samples to histories.

use ::redis::cmd;

use super::count_text::count_text;
use super::{NamedSample, millis};
use crate::redis::{self, Request, Slot};
use crate::store::{Error, Store};

/// Appends samples to the history `KEYS[1]`: pairs of a time and a count from `ARGV[4]` on. Skips those that are not
/// later than the last sample of the history. Returns the number of samples added, or -1 if the key holds something
/// other than a history and stays as it is.
///
/// Drops samples before `ARGV[1]`, converts a list of more than `ARGV[2]` samples to a stream, and sets the expiry to
/// `ARGV[3]` seconds.
const ADD: &str = history_script!(
    "\
local added = 0
for i = 4, #ARGV, 2 do
  local at, count = ARGV[i], ARGV[i + 1]
  if kind == 'stream' then
    local id = redis.pcall('XADD', key, 'MINID', '~', ARGV[1], at .. '-0', 'n', count)
    if type(id) == 'string' then added = added + 1
    elseif not string.find(id.err, 'ID specified in XADD', 1, true) then return id end
  elseif not last or tonumber(at) > tonumber(last) then
    local length = redis.call('RPUSH', key, at, count)
    kind, last, added = 'list', at, added + 1
    while (tonumber(redis.call('LINDEX', key, 0)) or math.huge) < tonumber(ARGV[1]) and length > 2 do
      redis.call('LPOP', key, 2)
      length = length - 2
    end
    if length > 2 * tonumber(ARGV[2]) then
      local samples = redis.call('LPOP', key, length)
      for j = 1, length, 2 do redis.call('XADD', key, samples[j] .. '-0', 'n', samples[j + 1]) end
      kind = 'stream'
    end
  end
end
if added > 0 then redis.call('EXPIRE', key, ARGV[3]) end
return added"
);

impl Store {
    /// Appends `samples` to the histories of their segments, and returns the number of samples added. Skips samples
    /// that are not later than the last one of their history, so that a repeated call changes nothing. Logs keys of
    /// another type, which stay as they are.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer or refused a command; some samples may be added.
    pub async fn add_samples(&self, samples: &[NamedSample]) -> Result<u64, Error> {
        let mut added = 0;
        for samples in samples.chunks(Self::SAMPLES_PER_REQUEST) {
            added += self.add_chunk(samples).await?;
        }
        Ok(added)
    }

    /// Appends `samples` to their histories, in one round trip.
    async fn add_chunk(&self, samples: &[NamedSample]) -> Result<u64, Error> {
        let histories: Vec<_> = samples.chunk_by(|one, next| one.segment == next.segment).collect();
        let keys: Vec<_> =
            histories.iter().map(|samples| self.key_names.history(samples[0].segment.as_str())).collect();
        let commands = histories.iter().zip(&keys).map(|(samples, key)| {
            let newest = samples.iter().map(|named| named.sample.at).max().expect("a chunk has a sample");
            let mut add = cmd("EVAL");
            add.arg(ADD).arg(1).arg(key).arg(millis(newest - Self::RETENTION));
            add.arg(Self::MAX_LIST_SAMPLES).arg(Self::RETENTION_AFTER_LAST.as_secs());
            for NamedSample { sample, .. } in *samples {
                add.arg(millis(sample.at)).arg(count_text(sample.count));
            }
            (Slot::of_any_key(key), add)
        });
        let mut added = 0;
        for (answer, key) in self.client.send_by_server::<i64>(commands, Request::each).await?.into_iter().zip(&keys) {
            match answer {
                Ok(new) if new >= 0 => added += new.unsigned_abs(),
                // A key of another type must not fail the other histories.
                Ok(_) => self.client.report_error(&redis::Error::WrongType { command: format!("EVAL {key}") }),
                Err(error) if error.is_wrong_type() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(added)
    }
}
