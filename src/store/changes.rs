//! Change records: the last sample of a segment beside those of a day and of a week before.
//!
//! The sampler writes a record for each segment at each tick, so that a list shows changes without reading histories.
//! The record of a segment is in a key of its own, which expires with the history. As a history, it covers all
//! partitions, is in none of them, and a resharding leaves it as it is.

use std::time::Duration;

use ::redis::{Value, cmd};

use super::history::Sample;
use super::{Error, Store};
use crate::domain::{SegmentName, Timestamp};
use crate::redis::{self, Request, Slot, parse};

/// The last sample of a segment and those before it that it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeRecord {
    /// The last sample.
    pub last: Sample,
    /// The time of the first sample of the history.
    pub first: Timestamp,
    /// The count of a day before the last sample; `None` if the history has none.
    pub day_before: Option<u64>,
    /// The count of a week before the last sample; `None` if the history has none.
    pub week_before: Option<u64>,
}

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

/// Writes the record `ARGV[1]` to `KEYS[1]` with an expiry of `ARGV[2]` seconds. A key with another content belongs to
/// another program and stays.
const WRITE_RECORD: &str = "\
local known = redis.pcall('GET', KEYS[1])
if type(known) == 'table' then
  if string.find(known.err, 'WRONGTYPE', 1, true) then return 0 end
  return known
end
if known and not string.find(known, '^%d+ %d+ %d+ [%d-]+ [%d-]+$') then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1";

impl ChangeRecord {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// Returns the times between which samples are searched, for the last and the first sample, and those of a day and
    /// of a week before `at`. If there is a gap, the next sample within an eighth of a day or of a week replaces the missing
    /// one.
    fn ranges(at: Timestamp) -> [(Timestamp, Timestamp); 4] {
        let before = |span: Duration| (at - span, at - span + span / 8);
        [(at, at), (Timestamp::from_millis(0), at), before(Self::DAY), before(Self::WEEK)]
    }

    /// Returns the record of the samples found in [`Self::ranges`]; `None` if there is no last one.
    fn from_samples(samples: &[Vec<String>]) -> Option<Self> {
        let sample = |index: usize| match samples.get(index).map(Vec::as_slice) {
            Some([at, count]) => {
                Some(Sample { at: Timestamp::from_millis(at.parse().ok()?), count: count.parse().ok()? })
            }
            _ => None,
        };
        let count = |index| sample(index).map(|sample| sample.count);
        Some(Self { last: sample(0)?, first: sample(1)?.at, day_before: count(2), week_before: count(3) })
    }

    /// Returns the record as text: time and count of the last sample, the time of the first one, the counts of a day
    /// and of a week before, or `-`. Times are in seconds, since ticks are at full seconds: the text is at most 44
    /// bytes long, for which Redis needs no second allocation, unless counts are large.
    fn to_text(self) -> String {
        let seconds = |time: Timestamp| time.as_millis() / 1_000;
        let or_dash = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
        let Self { last, first, day_before, week_before } = self;
        let (day_before, week_before) = (or_dash(day_before), or_dash(week_before));
        format!("{} {} {} {day_before} {week_before}", seconds(last.at), last.count, seconds(first))
    }

    /// Parses what [`Self::to_text`] returns.
    fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split(' ').collect();
        let [at, count, first, day_before, week_before] = words[..] else { return None };
        let time = |text: &str| Some(Timestamp::from_millis(text.parse::<i64>().ok()?.checked_mul(1_000)?));
        let before = |text: &str| if text == "-" { Some(None) } else { text.parse().ok().map(Some) };
        Some(Self {
            last: Sample { at: time(at)?, count: count.parse().ok()? },
            first: time(first)?,
            day_before: before(day_before)?,
            week_before: before(week_before)?,
        })
    }
}

impl Store {
    /// Number of segments whose records are read or written in one round trip.
    const RECORDS_PER_REQUEST: usize = 1_000;

    /// Writes the change records of segments, each as of its sample at the given time. A segment without such a sample
    /// keeps its record.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer or refused a command; some records may be written.
    pub async fn update_changes(&self, segments: &[(&SegmentName<'_>, Timestamp)]) -> Result<(), Error> {
        for segments in segments.chunks(Self::RECORDS_PER_REQUEST) {
            let mut records = Vec::new();
            let slot_of =
                |(segment, _): &(&SegmentName<'_>, _)| Slot::of_any_key(&self.key_names.history(segment.as_str()));
            for segments in self.client.group_by_server(segments.to_vec(), slot_of).await? {
                let reads = segments.iter().map(|(segment, at)| {
                    let key = self.key_names.history(segment.as_str());
                    let mut read = cmd("EVAL");
                    read.arg(FIRST_SAMPLES).arg(1).arg(&key);
                    for (from, to) in ChangeRecord::ranges(*at) {
                        read.arg(from.as_millis().max(0)).arg(to.as_millis().max(0));
                    }
                    (Slot::of_any_key(&key), read)
                });
                let answers = self.client.send(Request::each(reads)).await?.each::<Vec<Vec<String>>>();
                for ((segment, _), samples) in segments.iter().zip(answers) {
                    if let Some(record) = ChangeRecord::from_samples(&samples?) {
                        records.push((self.key_names.change(segment.as_str()), record));
                    }
                }
            }
            self.write_records(records).await?;
        }
        Ok(())
    }

    async fn write_records(&self, records: Vec<(String, ChangeRecord)>) -> Result<(), Error> {
        let slot_of = |(key, _): &(String, ChangeRecord)| Slot::of_any_key(key);
        for records in self.client.group_by_server(records, slot_of).await? {
            let writes = records.iter().map(|(key, record)| {
                let mut write = cmd("EVAL");
                write.arg(WRITE_RECORD).arg(1).arg(key).arg(record.to_text()).arg(Self::RETENTION_AFTER_LAST.as_secs());
                (Slot::of_any_key(key), write)
            });
            for written in self.client.send(Request::each(writes)).await?.each::<i64>() {
                written?;
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
        let mut changes = vec![None; segments.len()];
        let keys: Vec<_> = segments.iter().map(|segment| self.key_names.change(segment.as_str())).enumerate().collect();
        let slot_of = |(_, key): &&(usize, String)| Slot::of_any_key(key);
        for keys in keys.chunks(Self::RECORDS_PER_REQUEST) {
            for keys in self.client.group_by_server(keys.iter().collect(), slot_of).await? {
                let reads = keys.iter().map(|(_, key)| {
                    let mut read = cmd("GET");
                    read.arg(key);
                    (Slot::of_any_key(key), read)
                });
                let request = Request::each(reads).nil_for(redis::Error::is_wrong_type);
                let answers = self.client.send(request).await?.results();
                for ((index, _), answer) in keys.into_iter().zip(answers) {
                    changes[*index] = record_of(answer?)?;
                }
            }
        }
        Ok(changes)
    }
}

fn record_of(answer: Value) -> Result<Option<ChangeRecord>, Error> {
    let text: Option<Vec<u8>> = parse(answer)?;
    Ok(text.and_then(|text| ChangeRecord::parse(str::from_utf8(&text).ok()?)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::without_history(None, None, "1795348800 4178 1790000000 - -")]
    #[case::with_a_day(Some(4_188), None, "1795348800 4178 1790000000 4188 -")]
    #[case::with_a_week(Some(4_188), Some(0), "1795348800 4178 1790000000 4188 0")]
    fn parse_reads_what_to_text_writes(
        #[case] day_before: Option<u64>,
        #[case] week_before: Option<u64>,
        #[case] text: &str,
    ) {
        let seconds = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let last = Sample { at: seconds(1_795_348_800), count: 4_178 };
        let record = ChangeRecord { last, first: seconds(1_790_000_000), day_before, week_before };
        assert_eq!(record.to_text(), text);
        assert_eq!(ChangeRecord::parse(text), Some(record));
    }

    #[rstest]
    #[case::empty("")]
    #[case::word("theirs")]
    #[case::lease("1795348800000 0 done")]
    #[case::too_long("1 2 3 4 5 6")]
    #[case::negative("1 -2 3 4 5")]
    #[case::beyond_all_times("9223372036854775807 2 3 4 5")]
    fn parse_refuses_other_texts(#[case] text: &str) {
        assert_eq!(ChangeRecord::parse(text), None);
    }
}
