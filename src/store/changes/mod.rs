//! Change records: the last sample of a segment beside those of a day and of a week before.
//!
//! The sampler writes a record for each segment at each tick, so that a list shows changes without reading histories.
//! The record of a segment is in a key of its own, which expires with the history. As a history, it covers all
//! partitions, is in none of them, and a resharding leaves it as it is.

mod record;

use ::redis::cmd;

pub use self::record::{ChangeRecord, SampledWindow};
use super::{Error, Store};
use crate::domain::{SegmentName, Timestamp, Window};
use crate::redis::{self, Request, Slot};

/// Returns from the history `KEYS[1]` the first sample between each pair of times in `ARGV`: a time and a count, or
/// nothing. A list is searched by bisection.
const FIRST_SAMPLES: &str = "\
local key, kind = KEYS[1], redis.call('TYPE', KEYS[1]).ok
local samples = kind == 'list' and math.floor(redis.call('LLEN', key) / 2) or 0
local function time_at(index) return tonumber(redis.call('LINDEX', key, 2 * index)) or 0 end
local function first(from, to)
  if kind == 'list' then
    local low, high = 0, samples
    while low < high do
      local middle = math.floor((low + high) / 2)
      if time_at(middle) < tonumber(from) then low = middle + 1 else high = middle end
    end
    if low == samples or time_at(low) > tonumber(to) then return {} end
    return redis.call('LRANGE', key, 2 * low, 2 * low + 1)
  elseif kind == 'stream' then
    local entry = redis.call('XRANGE', key, from, to, 'COUNT', 1)[1]
    if entry then return { string.match(entry[1], '^%d+'), entry[2][2] } end
  end
  return {}
end
local found = {}
for i = 1, #ARGV, 2 do found[#found + 1] = first(ARGV[i], ARGV[i + 1]) end
return found";

/// Prepends to a script a check that the key `KEYS[1]` holds a change record or nothing. Returns -1 for another program's
/// data.
macro_rules! record_script {
    ($script:literal) => {
        concat!(
            "\
local known = redis.pcall('GET', KEYS[1])
if type(known) == 'table' then
  if string.find(known.err, 'WRONGTYPE', 1, true) then return -1 end
  return known
end
local function is_one_of(text, patterns)
  for _, pattern in ipairs(patterns) do
    if string.find(text, pattern) then return true end
  end
end
if known then
  local earlier, sampled = { '^-$', '^%d[%d~.]*$', '^%d[%d~.]*%+%d+$' }, { '^$', '^ %d+$', '^ %d+@%d+$' }
  local day, week, window = string.match(known, '^%d+ %d[%d~.]* %d+ ([^ ]+) ([^ ]+)(.*)$')
  if not (day and is_one_of(day, earlier) and is_one_of(week, earlier) and is_one_of(window, sampled)) then return -1 end
end
",
            $script
        )
    };
}

/// Writes the record `ARGV[1]` to `KEYS[1]` with an expiry of `ARGV[2]` seconds.
const WRITE_RECORD: &str = record_script!(
    "\
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1"
);

/// Deletes the record `KEYS[1]`.
pub(super) const DELETE_RECORD: &str = record_script!("return redis.call('UNLINK', KEYS[1])");

impl Store {
    /// Number of segments whose records are read or written in one round trip.
    const RECORDS_PER_REQUEST: usize = 1_000;

    /// Writes the change records of segments, each as of its sample at the given time, which was counted over `window`.
    /// A segment without such a sample keeps its record. Samples that were counted over another window are not compared.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer or refused a command; some records may be written.
    pub async fn update_changes(
        &self,
        segments: &[(&SegmentName<'_>, Timestamp)],
        window: Window,
    ) -> Result<(), Error> {
        for segments in segments.chunks(Self::RECORDS_PER_REQUEST) {
            let names: Vec<_> = segments.iter().map(|(segment, _)| *segment).collect();
            let before = self.changes(&names).await?;
            let windows = segments.iter().zip(before).map(|((_, at), it)| SampledWindow::of_sample(*at, window, it));
            let records = self.compute_records(segments, &windows.collect::<Vec<_>>()).await?;
            self.write_records(&records).await?;
        }
        Ok(())
    }

    /// Returns the keys and change records of segments, whose last samples were counted over `windows`.
    async fn compute_records(
        &self,
        segments: &[(&SegmentName<'_>, Timestamp)],
        windows: &[SampledWindow],
    ) -> Result<Vec<(String, ChangeRecord)>, Error> {
        let reads = segments.iter().zip(windows).map(|((segment, at), window)| {
            let key = self.key_names.history(segment.as_str());
            let mut read = cmd("EVAL");
            read.arg(FIRST_SAMPLES).arg(1).arg(&key);
            for (from, to) in ChangeRecord::ranges(*at, *window) {
                read.arg(from.as_millis().max(0)).arg(to.as_millis().max(0));
            }
            (Slot::of_any_key(&key), read)
        });
        let answers = self.client.send_by_server::<Vec<Vec<Vec<u8>>>>(reads, Request::each).await?;
        let mut records = Vec::new();
        for (((segment, _), window), samples) in segments.iter().zip(windows).zip(answers) {
            if let Some(record) = ChangeRecord::from_samples(&samples?, *window) {
                records.push((self.key_names.change(segment.as_str()), record));
            }
        }
        Ok(records)
    }

    /// Writes the records to their keys. Logs keys of other programs, which stay as they are.
    async fn write_records(&self, records: &[(String, ChangeRecord)]) -> Result<(), Error> {
        let writes = records.iter().map(|(key, record)| {
            let mut write = cmd("EVAL");
            write.arg(WRITE_RECORD).arg(1).arg(key).arg(record.to_text()).arg(Self::RETENTION_AFTER_LAST.as_secs());
            (Slot::of_any_key(key), write)
        });
        let answers = self.client.send_by_server::<i64>(writes, Request::each).await?;
        for (written, (key, _)) in answers.into_iter().zip(records) {
            if written? < 0 {
                self.client.report_error(&redis::Error::WrongType { command: format!("EVAL {key}") });
            }
        }
        Ok(())
    }

    /// Returns the change record of each of `segments`; `None` if it has none, or if its key belongs to another
    /// program.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn changes(&self, segments: &[&SegmentName<'_>]) -> Result<Vec<Option<ChangeRecord>>, Error> {
        let mut changes = Vec::with_capacity(segments.len());
        for segments in segments.chunks(Self::RECORDS_PER_REQUEST) {
            let keys = segments.iter().map(|segment| self.key_names.change(segment.as_str()));
            for text in self.read_texts(keys, redis::Error::is_wrong_type).await? {
                changes.push(text?.and_then(|text| ChangeRecord::parse(&text)));
            }
        }
        Ok(changes)
    }

    /// Returns those of `keys`, which hold strings, that are not change records. Omits keys that an ACL forbids.
    pub(super) async fn foreign_records(&self, keys: &[&str]) -> Result<Vec<String>, Error> {
        let mut foreign = Vec::new();
        let texts = self.read_texts(keys.iter().map(|key| (*key).to_owned()), redis::Error::is_forbidden).await?;
        for (key, text) in keys.iter().zip(texts) {
            let is_foreign = text?.is_some_and(|text| ChangeRecord::parse(&text).is_none());
            foreign.extend(is_foreign.then(|| (*key).to_owned()));
        }
        Ok(foreign)
    }

    /// Returns the string at each of `keys`; `None` if there is none or if `is_nil` returns true for the error.
    async fn read_texts(
        &self,
        keys: impl Iterator<Item = String>,
        is_nil: fn(&redis::Error) -> bool,
    ) -> Result<Vec<Result<Option<Vec<u8>>, redis::Error>>, Error> {
        let reads = keys.map(|key| {
            let slot = Slot::of_any_key(&key);
            let mut read = cmd("GET");
            read.arg(key);
            (slot, read)
        });
        Ok(self.client.send_by_server(reads, |reads| Request::each(reads).nil_for(is_nil)).await?)
    }
}
