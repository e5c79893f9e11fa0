//! Change records: the last sample of a segment beside those of a day and of a week before.
//!
//! The sampler writes a record for each segment at each tick, so that a list shows changes without reading histories.
//! The record of a segment is in a key of its own, which expires with the history. As a history, it covers all
//! partitions, is in none of them, and a resharding leaves it as it is.

use std::time::Duration;

use ::redis::{Value, cmd};
use futures_util::future::try_join_all;

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
    /// The sample of a day before the last one; `None` if the history has none.
    pub day_before: Option<Sample>,
    /// The sample of a week before the last one; `None` if the history has none.
    pub week_before: Option<Sample>,
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
if known and not string.find(known, '^%d+ %d+ %d+ [%d+-]+ [%d+-]+$') then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1";

impl ChangeRecord {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// Returns the times between which samples are searched: for the last and the first sample, for those of a day and
    /// of a week before `at`, and for the samples before these two.
    ///
    /// In a gap, the next sample within an eighth of a day or of a week replaces the missing one. A gap has a sample
    /// within an eighth before it, too: otherwise the segment is new, and its birth is no change.
    fn ranges(at: Timestamp) -> [(Timestamp, Timestamp); 6] {
        let after = |span: Duration| (at - span, at - span + span / 8);
        let before = |span: Duration| (at - span - span / 8, at - span);
        let (day, week) = (Self::DAY, Self::WEEK);
        [(at, at), (Timestamp::from_millis(0), at), after(day), after(week), before(day), before(week)]
    }

    /// Returns the record of the samples found in [`Self::ranges`]; `None` if there is no last one. Another program's
    /// data counts as no sample.
    fn from_samples(samples: &[Vec<Vec<u8>>]) -> Option<Self> {
        let number = |text: &[u8]| str::from_utf8(text).ok()?.parse::<u64>().ok();
        let sample = |index: usize| match samples.get(index).map(Vec::as_slice) {
            Some([at, count]) => {
                let at = Timestamp::from_millis(i64::try_from(number(at)?).ok()?);
                Some(Sample { at, count: number(count)? })
            }
            _ => None,
        };
        let earlier = |index: usize| sample(index + 2).and_then(|_| sample(index));
        Some(Self { last: sample(0)?, first: sample(1)?.at, day_before: earlier(2), week_before: earlier(3) })
    }

    /// Returns the record as text: time and count of the last sample, the time of the first one, the counts of a day
    /// and of a week before, or `-`. If an earlier sample is of a later time than exactly a day or a week before, the
    /// delay follows, as in `4188+3600`. Times are in seconds, since ticks are at full seconds: the text is at most 44
    /// bytes long, for which Redis needs no second allocation, unless counts are large or delayed.
    fn to_text(self) -> String {
        let seconds = |time: Timestamp| time.as_millis() / 1_000;
        let Self { last, first, day_before, week_before } = self;
        let earlier = |sample: Option<Sample>, span: Duration| match sample {
            None => "-".to_owned(),
            Some(Sample { at, count }) => match seconds(at) - seconds(last.at - span) {
                0 => count.to_string(),
                delay => format!("{count}+{delay}"),
            },
        };
        let (day_before, week_before) = (earlier(day_before, Self::DAY), earlier(week_before, Self::WEEK));
        format!("{} {} {} {day_before} {week_before}", seconds(last.at), last.count, seconds(first))
    }

    /// Parses what [`Self::to_text`] returns.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split(' ').collect();
        let [at, count, first, day_before, week_before] = words[..] else { return None };
        let time = |text: &str| Some(Timestamp::from_millis(text.parse::<i64>().ok()?.checked_mul(1_000)?));
        let last = Sample { at: time(at)?, count: count.parse().ok()? };
        let earlier = |text: &str, span: Duration| {
            if text == "-" {
                return Some(None);
            }
            let (count, delay) = text.split_once('+').unwrap_or((text, "0"));
            let at = last.at - span + Duration::from_secs(delay.parse::<u32>().ok()?.into());
            Some(Some(Sample { at, count: count.parse().ok()? }))
        };
        let (day_before, week_before) = (earlier(day_before, Self::DAY)?, earlier(week_before, Self::WEEK)?);
        Some(Self { last, first: time(first)?, day_before, week_before })
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
        let slot_of =
            |(segment, _): &(&SegmentName<'_>, _)| Slot::of_any_key(&self.key_names.history(segment.as_str()));
        for segments in segments.chunks(Self::RECORDS_PER_REQUEST) {
            let servers = self.client.group_by_server(segments.to_vec(), slot_of).await?;
            let records = try_join_all(servers.into_iter().map(|segments| self.compute_records(segments))).await?;
            self.write_records(records.into_iter().flatten().collect()).await?;
        }
        Ok(())
    }

    /// Returns the keys and change records of segments whose histories are on one server.
    async fn compute_records(
        &self,
        segments: Vec<(&SegmentName<'_>, Timestamp)>,
    ) -> Result<Vec<(String, ChangeRecord)>, Error> {
        let reads = segments.iter().map(|(segment, at)| {
            let key = self.key_names.history(segment.as_str());
            let mut read = cmd("EVAL");
            read.arg(FIRST_SAMPLES).arg(1).arg(&key);
            for (from, to) in ChangeRecord::ranges(*at) {
                read.arg(from.as_millis().max(0)).arg(to.as_millis().max(0));
            }
            (Slot::of_any_key(&key), read)
        });
        let answers = self.client.send(Request::each(reads)).await?.each::<Vec<Vec<Vec<u8>>>>();
        let mut records = Vec::new();
        for ((segment, _), samples) in segments.iter().zip(answers) {
            if let Some(record) = ChangeRecord::from_samples(&samples?) {
                records.push((self.key_names.change(segment.as_str()), record));
            }
        }
        Ok(records)
    }

    /// Writes the records to their keys. Logs keys of other programs, which stay as they are.
    async fn write_records(&self, records: Vec<(String, ChangeRecord)>) -> Result<(), Error> {
        let slot_of = |(key, _): &(String, ChangeRecord)| Slot::of_any_key(key);
        let servers = self.client.group_by_server(records, slot_of).await?;
        let writes = servers.into_iter().map(|records| async move {
            let writes = records.iter().map(|(key, record)| {
                let mut write = cmd("EVAL");
                write.arg(WRITE_RECORD).arg(1).arg(key).arg(record.to_text()).arg(Self::RETENTION_AFTER_LAST.as_secs());
                (Slot::of_any_key(key), write)
            });
            let answers = self.client.send(Request::each(writes)).await?.each::<i64>();
            for (written, (key, _)) in answers.zip(&records) {
                if written? == 0 {
                    self.client.report_error(&redis::Error::WrongType { command: format!("EVAL {key}") });
                }
            }
            Ok::<_, Error>(())
        });
        try_join_all(writes).await?;
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
            let servers = self.client.group_by_server(keys.iter().collect(), slot_of).await?;
            let reads = servers.into_iter().map(|keys| async move {
                let commands = keys.iter().map(|(_, key)| {
                    let mut read = cmd("GET");
                    read.arg(key);
                    (Slot::of_any_key(key), read)
                });
                let request = Request::each(commands).nil_for(redis::Error::is_wrong_type);
                let answers = self.client.send(request).await?.results();
                Ok::<_, Error>((keys, answers))
            });
            for (keys, answers) in try_join_all(reads).await? {
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

    const NOON: i64 = 1_795_348_800;

    fn sample(seconds: i64, count: u64) -> Option<Sample> {
        Some(Sample { at: Timestamp::from_millis(seconds * 1_000), count })
    }

    #[rstest]
    #[case::without_history(None, None, "1795348800 4178 1790000000 - -")]
    #[case::with_a_day(sample(NOON - 86_400, 4_188), None, "1795348800 4178 1790000000 4188 -")]
    #[case::with_a_week(
        sample(NOON - 86_400 + 7_200, 4_188), sample(NOON - 604_800, 0), "1795348800 4178 1790000000 4188+7200 0"
    )]
    fn parse_reads_what_to_text_writes(
        #[case] day_before: Option<Sample>,
        #[case] week_before: Option<Sample>,
        #[case] text: &str,
    ) {
        let (last, first) = (sample(NOON, 4_178).unwrap(), sample(1_790_000_000, 0).unwrap().at);
        let record = ChangeRecord { last, first, day_before, week_before };
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
