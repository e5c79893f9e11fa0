//! Histories: the sizes of segments over time, and the lease on sampling them.
//!
//! A history begins as a list of alternating times and counts, which takes 184 bytes for one sample and 12 to 17 bytes
//! for each of many. A stream would take 4 KiB for the first sample. A list can't be searched, so that one of more than
//! [`Store::MAX_LIST_SAMPLES`] samples becomes a stream.
//!
//! A history covers a segment in all partitions. Its key is in no partition, and a resharding leaves it as it is.

use std::collections::HashMap;
use std::time::Duration;

use ::redis::{Cmd, Value, cmd, pipe};

use super::Error;
use super::Store;
use super::keys::KeyNames;
use crate::domain::{SegmentName, Timestamp};
use crate::redis::Slot;
use crate::redis::parse;
use crate::redis::{self, Request};

/// The number of users of a segment at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The time.
    pub at: Timestamp,
    /// The number of users.
    pub count: u64,
}

/// A sample with its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSample {
    /// The segment.
    pub segment: SegmentName<'static>,
    /// The sample.
    pub sample: Sample,
}

/// A request for the lease on sampling a tick.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRequest<'a> {
    /// The tick.
    pub tick: Timestamp,
    /// The current time.
    pub now: Timestamp,
    /// The expiry of the lease.
    pub until: Timestamp,
    /// The name of the requester: a text without spaces other than `done`.
    pub holder: &'a str,
}

/// The answer to a [`LeaseRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// The requester holds the lease.
    Acquired,
    /// Another instance holds the lease, which has not expired.
    HeldByAnother,
    /// The tick is complete, or a later one has begun.
    Completed,
}

/// The field of a stream's entry that holds the count.
const COUNT_FIELD: &str = "n";

/// Appends samples to the history `KEYS[1]`: pairs of a time and a count from `ARGV[4]` on. Skips those that are not
/// later than the last sample of the history. Returns the number of samples added, or -1 if the key holds something
/// other than a history and stays as it is.
///
/// Drops samples before `ARGV[1]`, converts a list of more than `ARGV[2]` samples to a stream, and sets the expiry to
/// `ARGV[3]` seconds.
const ADD: &str = "\
local key, kind = KEYS[1], redis.call('TYPE', KEYS[1]).ok
local function is_number(text) return text and string.find(text, '^%d+$') end
local last
if kind == 'list' then
  last = redis.call('LINDEX', key, -2)
  local is_even = redis.call('LLEN', key) % 2 == 0
  local first, count = redis.call('LINDEX', key, 0), redis.call('LINDEX', key, -1)
  if not (is_even and is_number(first) and is_number(last) and is_number(count)) then return -1 end
elseif kind == 'stream' then
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  if first and (#first[2] ~= 2 or first[2][1] ~= 'n') then return -1 end
elseif kind ~= 'none' then return -1 end
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
return added";

/// Acquires the lease on the tick `ARGV[1]` at the time `ARGV[2]` until `ARGV[3]` for the holder `ARGV[4]`.
///
/// `KEYS[1]` holds the latest tick, the expiry of its lease and the holder, which is `done` after the tick is complete.
/// A key with another content belongs to another program and stays. If the latest tick is more than two seconds ahead,
/// the clock of its holder was wrong, and earlier ticks may be leased.
const ACQUIRE_LEASE: &str = "\
local known = redis.pcall('GET', KEYS[1])
if type(known) == 'table' and not string.find(known.err, 'WRONGTYPE') then return known end
local tick, expiry, holder = string.match(type(known) == 'string' and known or '', '^(%d+) (%d+) (%S+)$')
if known and not tick then return 'foreign' end
if tick and tonumber(tick) <= tonumber(ARGV[2]) + 2000 then
  if tonumber(tick) > tonumber(ARGV[1]) then return 'completed' end
  if tick == ARGV[1] and holder == 'done' then return 'completed' end
  if tick == ARGV[1] and holder ~= ARGV[4] and tonumber(expiry) > tonumber(ARGV[2]) then return 'held' end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
return 'acquired'";

/// Records that the tick `ARGV[1]` is complete, unless a later one has begun or the key belongs to another program.
const COMPLETE_TICK: &str = "\
local known = redis.pcall('GET', KEYS[1])
if type(known) == 'table' and not string.find(known.err, 'WRONGTYPE') then return known end
local tick = string.match(type(known) == 'string' and known or '', '^(%d+) %d+ %S+$')
if known and not tick then return 0 end
if tick and tonumber(tick) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' 0 done')
return 1";

impl Store {
    /// The retention of samples: 13 months.
    pub const RETENTION: Duration = Duration::from_secs(396 * 24 * 60 * 60);
    /// The retention of a history after its last sample. A segment without users gets no samples after pruning has
    /// dropped it.
    pub const RETENTION_AFTER_LAST: Duration = Duration::from_secs(90 * 24 * 60 * 60);
    /// Maximum number of samples in a list. They take about 8 KiB, the size of one node of a list.
    pub const MAX_LIST_SAMPLES: usize = 500;
    /// Number of samples that are read or written in one round trip. Redis takes about a microsecond for each.
    const SAMPLES_PER_REQUEST: usize = 2_000;

    /// Requests the lease on sampling a tick. One instance holds it at a time.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer; the lease may be acquired, and the same holder may request it again.
    /// [`Error::ForeignKey`] if the key of the lease belongs to another program.
    pub async fn acquire_lease(&self, request: &LeaseRequest<'_>) -> Result<Lease, Error> {
        // The layout must be recorded first: a database with this key and no record is refused as that of another
        // program.
        self.known_layout().await?;
        let key = self.key_names.lease();
        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(ACQUIRE_LEASE).arg(1).arg(&key);
        script.arg(millis(request.tick)).arg(millis(request.now)).arg(millis(request.until)).arg(request.holder);
        let (lease,): (String,) = self.client.send(Request::new(Slot::of_any_key(&key), pipeline)).await?.all()?;
        match lease.as_str() {
            "acquired" => Ok(Lease::Acquired),
            "held" => Ok(Lease::HeldByAnother),
            "foreign" => Err(Error::ForeignKey(key)),
            _ => Ok(Lease::Completed),
        }
    }

    /// Records that `tick` is complete.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn complete_tick(&self, tick: Timestamp) -> Result<(), Error> {
        let key = self.key_names.lease();
        let mut pipeline = pipe();
        pipeline.cmd("EVAL").arg(COMPLETE_TICK).arg(1).arg(&key).arg(millis(tick));
        self.client.send(Request::new(Slot::of_any_key(&key), pipeline)).await?.all::<Value>()?;
        Ok(())
    }

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
            let slot_of = |named: &&NamedSample| Slot::of_any_key(&self.key_names.history(named.segment.as_str()));
            for samples in self.client.group_by_server(samples.iter().collect(), slot_of).await? {
                added += self.add_samples_at(&samples).await?;
            }
        }
        Ok(added)
    }

    /// Appends `samples` to their histories, which are on one server.
    async fn add_samples_at(&self, samples: &[&NamedSample]) -> Result<u64, Error> {
        let histories: Vec<_> = samples.chunk_by(|one, next| one.segment == next.segment).collect();
        let keys: Vec<_> =
            histories.iter().map(|samples| self.key_names.history(samples[0].segment.as_str())).collect();
        let commands = histories.iter().zip(&keys).map(|(samples, key)| {
            let newest = samples.iter().map(|named| named.sample.at).max().expect("a chunk has a sample");
            let mut add = cmd("EVAL");
            add.arg(ADD).arg(1).arg(key).arg(millis(newest - Self::RETENTION));
            add.arg(Self::MAX_LIST_SAMPLES).arg(Self::RETENTION_AFTER_LAST.as_secs());
            for NamedSample { sample, .. } in *samples {
                add.arg(millis(sample.at)).arg(sample.count);
            }
            (Slot::of_any_key(key), add)
        });
        let mut added = 0;
        for (answer, key) in self.client.send(Request::each(commands)).await?.each::<i64>().zip(&keys) {
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

    /// Returns the samples of each of `segments` from `from` through `to`, in order of time. `expected` is the
    /// approximate number for each, which decides how many segments share a request. If a key holds something other
    /// than a history, its segment alone fails.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn samples(
        &self,
        segments: &[SegmentName<'static>],
        from: Timestamp,
        to: Timestamp,
        expected: usize,
    ) -> Result<Vec<Result<Vec<Sample>, Error>>, Error> {
        let mut found: HashMap<&str, Result<Vec<Sample>, Error>> = HashMap::new();
        // A list is always read in full.
        let segments_per_request =
            Self::SAMPLES_PER_REQUEST / expected.clamp(Self::MAX_LIST_SAMPLES / 5, Self::SAMPLES_PER_REQUEST);
        let slot_of = |key: &&str| Slot::of_any_key(&self.key_names.history(key));
        let names = segments.iter().map(SegmentName::as_str).collect();
        for names in self.client.group_by_server(names, slot_of).await? {
            for names in names.chunks(Self::SAMPLES_PER_REQUEST) {
                let types = self.types_of(names).await?;
                let histories: Vec<_> =
                    names.iter().copied().zip(types).filter(|(_, key_type)| *key_type != KeyType::None).collect();
                for histories in histories.chunks(segments_per_request) {
                    self.samples_at(histories, from, to, &mut found).await?;
                }
            }
        }
        let samples_of = |segment: &SegmentName<'_>| found.get(segment.as_str()).cloned().unwrap_or(Ok(Vec::new()));
        Ok(segments.iter().map(samples_of).collect())
    }

    /// Returns the types of the keys of the histories of `names`, which are on one server.
    pub(super) async fn types_of(&self, names: &[&str]) -> Result<Vec<KeyType>, Error> {
        let commands = names.iter().map(|name| {
            let key = self.key_names.history(name);
            let slot = Slot::of_any_key(&key);
            let mut key_type = cmd("TYPE");
            key_type.arg(key);
            (slot, key_type)
        });
        let answers = self.client.send(Request::each(commands)).await?.results();
        let key_type = |answer: Result<Value, redis::Error>| {
            Ok(match answer.and_then(parse::<String>)?.as_str() {
                "none" => KeyType::None,
                "list" => KeyType::List,
                "stream" => KeyType::Stream,
                _ => KeyType::Other,
            })
        };
        answers.into_iter().map(key_type).collect()
    }

    /// Adds the samples of `histories`, which are on one server and given with their types, to `found`.
    async fn samples_at<'a>(
        &self,
        histories: &[(&'a str, KeyType)],
        from: Timestamp,
        to: Timestamp,
        found: &mut HashMap<&'a str, Result<Vec<Sample>, Error>>,
    ) -> Result<(), Error> {
        let mut pending: Vec<_> =
            histories.iter().map(|(name, key_type)| (*name, *key_type, millis(from).to_string())).collect();
        while !pending.is_empty() {
            let max = Self::SAMPLES_PER_REQUEST / pending.len();
            let commands =
                pending.iter().map(|(name, key_type, from)| range(&self.key_names, name, *key_type, from, to, max));
            let answers = self.client.send(Request::each(commands)).await?.results();
            let mut unfinished = Vec::new();
            for ((name, key_type, _), answer) in pending.into_iter().zip(answers) {
                let entries = match (key_type, answer) {
                    // The list has become a stream in the meantime.
                    (KeyType::List, Err(error)) if error.is_wrong_type() => {
                        unfinished.push((name, KeyType::Stream, millis(from).to_string()));
                        continue;
                    }
                    (_, Err(error)) if error.is_wrong_type() => {
                        found.insert(name, Err(error.into()));
                        continue;
                    }
                    (KeyType::List, answer) => {
                        let samples = parse_list(answer.and_then(parse)?, &self.key_names.history(name));
                        let is_in_range = |sample: &Sample| (from..=to).contains(&sample.at);
                        found.insert(name, samples.map(|samples| samples.into_iter().filter(is_in_range).collect()));
                        continue;
                    }
                    (_, answer) => answer.and_then(parse::<Vec<StreamEntry>>)?,
                };
                if entries.len() >= max
                    && let Some((last, _)) = entries.last()
                {
                    unfinished.push((name, key_type, format!("({last}")));
                }
                if let Ok(samples) = found.entry(name).or_insert_with(|| Ok(Vec::new())) {
                    samples.extend(entries.iter().filter_map(parse_entry));
                }
            }
            pending = unfinished;
        }
        Ok(())
    }
}

/// Whether `text` has the format of a lease.
pub(super) fn is_lease(text: &str) -> bool {
    let words: Vec<_> = text.split(' ').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    matches!(words[..], [tick, until, holder] if is_number(tick) && is_number(until) && !holder.is_empty())
}

/// The type of the key of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyType {
    /// The key doesn't exist.
    None,
    /// A list of alternating times and counts.
    List,
    /// A stream. The id of an entry is its time.
    Stream,
    /// A type that this service doesn't write.
    Other,
}

/// Returns the command that reads up to `max` samples of a stream, or all samples of a list.
fn range(key_names: &KeyNames, name: &str, key_type: KeyType, from: &str, to: Timestamp, max: usize) -> (Slot, Cmd) {
    let key = key_names.history(name);
    let slot = Slot::of_any_key(&key);
    if key_type == KeyType::List {
        let mut range = cmd("LRANGE");
        range.arg(key).arg(0).arg(-1);
        return (slot, range);
    }
    // Redis answers with an error if the key has another type.
    let mut range = cmd("XRANGE");
    range.arg(key).arg(from).arg(millis(to)).arg("COUNT").arg(max);
    (slot, range)
}

/// Parses the elements of a list: alternating times and counts.
fn parse_list(elements: Vec<Vec<u8>>, key: &str) -> Result<Vec<Sample>, Error> {
    let number = |text: &[u8]| str::from_utf8(text).ok()?.parse::<u64>().ok();
    let sample = |pair: &[Vec<u8>]| match pair {
        [at, count] => {
            let at = Timestamp::from_millis(i64::try_from(number(at)?).ok()?);
            Some(Sample { at, count: number(count)? })
        }
        _ => None,
    };
    let samples: Option<Vec<_>> = elements.chunks(2).map(sample).collect();
    samples.ok_or_else(|| redis::Error::WrongType { command: format!("LRANGE {key}") }.into())
}

/// An entry of a stream: the id, then alternating fields and values.
type StreamEntry = (String, Vec<Vec<u8>>);

/// Parses an entry of a stream; `None` if another program wrote it.
fn parse_entry((id, fields): &StreamEntry) -> Option<Sample> {
    let at = Timestamp::from_millis(id.split_once('-')?.0.parse().ok()?);
    match &fields[..] {
        [field, count] if field == COUNT_FIELD.as_bytes() => {
            Some(Sample { at, count: str::from_utf8(count).ok()?.parse().ok()? })
        }
        _ => None,
    }
}

/// Returns the time in milliseconds, as in the id of a stream's entry. An id can't be negative.
fn millis(time: Timestamp) -> i64 {
    time.as_millis().max(0)
}
