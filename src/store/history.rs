//! The sizes of segments over time: a history for each segment, and whose turn it is to add to them.
//!
//! A history begins as a list that holds the time and the count of each sample in turn: 184 bytes for one sample, 12 to 17 bytes
//! for each of many. Redis allocates 4 KiB for a stream's first entry, and a list can't be searched. So a list of more than
//! [`Store::LISTED_SAMPLES`] samples becomes a stream.
//!
//! A history is of a segment in all partitions together, so that its key is in none of them, and a move to other partitions
//! doesn't touch it.

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

/// How many users a segment had at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The moment.
    pub at: Timestamp,
    /// How many users.
    pub count: u64,
}

/// A sample, and the segment that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSample {
    /// The segment.
    pub segment: SegmentName<'static>,
    /// The sample.
    pub sample: Sample,
}

/// Somebody wants to take a turn of sampling.
#[derive(Debug, Clone, Copy)]
pub struct LeaseRequest<'a> {
    /// The turn.
    pub tick: Timestamp,
    /// What the time is.
    pub now: Timestamp,
    /// Until when nobody else may have it.
    pub until: Timestamp,
    /// Who wants it: a text without spaces, and not `done`.
    pub holder: &'a str,
}

/// Whose a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// It is the claimant's.
    Acquired,
    /// It is another's, who has not done yet.
    HeldByAnother,
    /// It is done, or later ones have begun.
    Completed,
}

/// The field of a sample.
const COUNT: &str = "n";

/// Adds the samples in `ARGV[4]` and behind, each a time and a count, to the history `KEYS[1]`, and returns how many are later than
/// what it has; -1 if the key is no history, which stays as it is. Samples before `ARGV[1]` are dropped. A list of more than
/// `ARGV[2]` samples becomes a stream. The history expires after `ARGV[3]` seconds.
const ADD: &str = "\
local key, kind = KEYS[1], redis.call('TYPE', KEYS[1]).ok
local function is_number(text) return text and string.find(text, '^%d+$') end
local last
if kind == 'list' then
  last = redis.call('LINDEX', key, -2)
  local is_even = redis.call('LLEN', key) % 2 == 0
  if not (is_even and is_number(last) and is_number(redis.call('LINDEX', key, -1))) then return -1 end
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
    while tonumber(redis.call('LINDEX', key, 0)) < tonumber(ARGV[1]) and length > 2 do
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

/// Claims the turn `ARGV[1]` at `ARGV[2]` until `ARGV[3]` for `ARGV[4]`, and says whose it is. `KEYS[1]` holds the newest turn, for
/// how long it is claimed, and by whom: `done` if it is. What holds anything else is another program's, and stays. A turn that is
/// later than the time, and than the clocks of services may differ, was claimed when a clock was ahead: it doesn't keep the turns
/// out that come before it.
const ACQUIRE_LEASE: &str = "\
local known = redis.pcall('GET', KEYS[1])
if type(known) == 'table' and not string.find(known.err, 'WRONGTYPE') then return known end
local turn, ends, by = string.match(type(known) == 'string' and known or '', '^(%d+) (%d+) (%S+)$')
if known and not turn then return 'foreign' end
if turn and tonumber(turn) <= tonumber(ARGV[2]) + 2000 then
  if tonumber(turn) > tonumber(ARGV[1]) then return 'done' end
  if turn == ARGV[1] and by == 'done' then return 'done' end
  if turn == ARGV[1] and by ~= ARGV[4] and tonumber(ends) > tonumber(ARGV[2]) then return 'taken' end
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
return 'claimed'";

/// Notes that the turn `ARGV[1]` is done, unless a later one has begun, or the key is another program's.
const COMPLETE_TICK: &str = "\
local known = redis.pcall('GET', KEYS[1])
if type(known) == 'table' and not string.find(known.err, 'WRONGTYPE') then return known end
local turn = string.match(type(known) == 'string' and known or '', '^(%d+) %d+ %S+$')
if known and not turn then return 0 end
if turn and tonumber(turn) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' 0 done')
return 1";

impl Store {
    /// How long samples are kept: 13 months.
    pub const KEPT: Duration = Duration::from_secs(396 * 24 * 60 * 60);
    /// How long a history is kept after its last sample. A segment without users gets no samples once pruning has dropped it.
    pub const KEPT_AFTER_LAST: Duration = Duration::from_secs(90 * 24 * 60 * 60);
    /// How many samples a history has at the most before it becomes a stream: about 8 KiB, what a list has in one piece.
    pub const LISTED_SAMPLES: usize = 500;
    /// Samples that are read, or written, in one round trip. Redis takes about a microsecond for each.
    const SAMPLES_PER_REQUEST: usize = 2_000;

    /// Claims a turn of sampling. Of all that claim the same turn, one has it at a time.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer; the turn may be claimed. Who claims it again has it then.
    pub async fn acquire_lease(&self, request: &LeaseRequest<'_>) -> Result<Lease, Error> {
        // A data set without a record that has this key would be refused as another program's.
        self.known_layout().await?;
        let key = self.names.lease();
        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(ACQUIRE_LEASE).arg(1).arg(&key);
        script.arg(millis(request.tick)).arg(millis(request.now)).arg(millis(request.until)).arg(request.holder);
        let (lease,): (String,) = self.client.send(Request::new(Slot::of_any_key(&key), pipeline)).await?.all()?;
        match lease.as_str() {
            "claimed" => Ok(Lease::Acquired),
            "taken" => Ok(Lease::HeldByAnother),
            "foreign" => Err(Error::ForeignKey(key)),
            _ => Ok(Lease::Completed),
        }
    }

    /// Notes that `turn` is done.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn complete_tick(&self, tick: Timestamp) -> Result<(), Error> {
        let key = self.names.lease();
        let mut pipeline = pipe();
        pipeline.cmd("EVAL").arg(COMPLETE_TICK).arg(1).arg(&key).arg(millis(tick));
        self.client.send(Request::new(Slot::of_any_key(&key), pipeline)).await?.all::<Value>()?;
        Ok(())
    }

    /// Adds `samples` to the histories of their segments, and returns how many of them are new. A history only grows at its end: what
    /// it has already, or has later ones than, is passed over. So adding them again changes nothing. A key that holds something else
    /// is logged and stays as it is.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer, or refused one of them. Some may be added.
    pub async fn add_samples(&self, samples: &[NamedSample]) -> Result<u64, Error> {
        let mut added = 0;
        for samples in samples.chunks(Self::SAMPLES_PER_REQUEST) {
            let slot_of = |named: &&NamedSample| Slot::of_any_key(&self.names.history(named.segment.as_str()));
            for samples in self.client.by_server(samples.iter().collect(), slot_of).await? {
                added += self.add_samples_at(&samples).await?;
            }
        }
        Ok(added)
    }

    /// Adds `samples` to histories that are at one server.
    async fn add_samples_at(&self, samples: &[&NamedSample]) -> Result<u64, Error> {
        let histories: Vec<_> = samples.chunk_by(|one, next| one.segment == next.segment).collect();
        let keys: Vec<_> = histories.iter().map(|samples| self.names.history(samples[0].segment.as_str())).collect();
        let commands = histories.iter().zip(&keys).map(|(samples, key)| {
            let newest = samples.iter().map(|named| named.sample.at).max().expect("a chunk has a sample");
            let mut add = cmd("EVAL");
            add.arg(ADD).arg(1).arg(key).arg(millis(newest - Self::KEPT));
            add.arg(Self::LISTED_SAMPLES).arg(Self::KEPT_AFTER_LAST.as_secs());
            for NamedSample { sample, .. } in *samples {
                add.arg(millis(sample.at)).arg(sample.count);
            }
            (Slot::of_any_key(key), add)
        });
        let mut added = 0;
        for (answer, key) in self.client.send(Request::each(commands)).await?.each::<i64>().zip(&keys) {
            match answer {
                Ok(new) if new >= 0 => added += new.unsigned_abs(),
                // One key's fault must not fail the others.
                Ok(_) => self.client.report_error(&redis::Error::WrongType { command: format!("EVAL {key}") }),
                Err(error) if error.is_wrong_type() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(added)
    }

    /// The samples of each of `segments` from `from` through `to`, in the order of time. About `expected` samples should there be of
    /// each. A key that is no history is the failure of its own segment.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn samples(
        &self,
        segments: &[SegmentName<'static>],
        from: Timestamp,
        to: Timestamp,
        expected: usize,
    ) -> Result<Vec<Result<Vec<Sample>, Error>>, Error> {
        let mut found: HashMap<&str, Result<Vec<Sample>, Error>> = HashMap::new();
        // A list is read as a whole, however few of its samples are asked for.
        let at_once = Self::SAMPLES_PER_REQUEST / expected.clamp(Self::LISTED_SAMPLES / 5, Self::SAMPLES_PER_REQUEST);
        let slot_of = |key: &&str| Slot::of_any_key(&self.names.history(key));
        let names = segments.iter().map(SegmentName::as_str).collect();
        for names in self.client.by_server(names, slot_of).await? {
            for names in names.chunks(Self::SAMPLES_PER_REQUEST) {
                let kinds = self.kinds_of(names).await?;
                let histories: Vec<_> =
                    names.iter().copied().zip(kinds).filter(|(_, kind)| *kind != Kind::None).collect();
                for histories in histories.chunks(at_once) {
                    self.samples_at(histories, from, to, &mut found).await?;
                }
            }
        }
        let samples_of = |segment: &SegmentName<'_>| found.get(segment.as_str()).cloned().unwrap_or(Ok(Vec::new()));
        Ok(segments.iter().map(samples_of).collect())
    }

    /// What the keys of the histories of `names`, which are at one server, hold.
    async fn kinds_of(&self, names: &[&str]) -> Result<Vec<Kind>, Error> {
        let commands = names.iter().map(|name| {
            let key = self.names.history(name);
            let slot = Slot::of_any_key(&key);
            let mut kind = cmd("TYPE");
            kind.arg(key);
            (slot, kind)
        });
        let answers = self.client.send(Request::each(commands)).await?.results();
        let kind = |answer: Result<Value, redis::Error>| {
            Ok(match answer.and_then(parse::<String>)?.as_str() {
                "none" => Kind::None,
                "list" => Kind::List,
                "stream" => Kind::Stream,
                _ => Kind::Other,
            })
        };
        answers.into_iter().map(kind).collect()
    }

    /// As [`Self::samples`], of histories at one server whose keys hold what is given with their names.
    async fn samples_at<'a>(
        &self,
        histories: &[(&'a str, Kind)],
        from: Timestamp,
        to: Timestamp,
        found: &mut HashMap<&'a str, Result<Vec<Sample>, Error>>,
    ) -> Result<(), Error> {
        let mut asked: Vec<_> = histories.iter().map(|(name, kind)| (*name, *kind, millis(from).to_string())).collect();
        while !asked.is_empty() {
            let max = Self::SAMPLES_PER_REQUEST / asked.len();
            let commands = asked.iter().map(|(name, kind, from)| range(&self.names, name, *kind, from, to, max));
            let answers = self.client.send(Request::each(commands)).await?.results();
            let mut unfinished = Vec::new();
            for ((name, kind, _), answer) in asked.into_iter().zip(answers) {
                let entries = match (kind, answer) {
                    // A list that has become a stream since.
                    (Kind::List, Err(error)) if error.is_wrong_type() => {
                        unfinished.push((name, Kind::Stream, millis(from).to_string()));
                        continue;
                    }
                    (_, Err(error)) if error.is_wrong_type() => {
                        found.insert(name, Err(error.into()));
                        continue;
                    }
                    (Kind::List, answer) => {
                        let samples = listed(answer.and_then(parse)?, &self.names.history(name));
                        let is_asked = |sample: &Sample| (from..=to).contains(&sample.at);
                        found.insert(name, samples.map(|samples| samples.into_iter().filter(is_asked).collect()));
                        continue;
                    }
                    (_, answer) => answer.and_then(parse::<Vec<Entry>>)?,
                };
                if entries.len() >= max
                    && let Some((last, _)) = entries.last()
                {
                    unfinished.push((name, kind, format!("({last}")));
                }
                if let Ok(samples) = found.entry(name).or_insert_with(|| Ok(Vec::new())) {
                    samples.extend(entries.iter().filter_map(sample_of));
                }
            }
            asked = unfinished;
        }
        Ok(())
    }
}

/// Whether a text is what the key of the turns holds.
pub(super) fn is_lease(text: &str) -> bool {
    let words: Vec<_> = text.split(' ').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    matches!(words[..], [tick, until, holder] if is_number(tick) && is_number(until) && !holder.is_empty())
}

/// What the key of a history holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing.
    None,
    /// Times and counts in turn.
    List,
    /// Entries with a time as their id.
    Stream,
    /// Nothing of ours.
    Other,
}

/// The command that reads samples of a history whose key holds `kind`: all of a list.
fn range(names: &KeyNames, name: &str, kind: Kind, from: &str, to: Timestamp, max: usize) -> (Slot, Cmd) {
    let key = names.history(name);
    let slot = Slot::of_any_key(&key);
    if kind == Kind::List {
        let mut range = cmd("LRANGE");
        range.arg(key).arg(0).arg(-1);
        return (slot, range);
    }
    // Redis refuses it where there is another type, and names that.
    let mut range = cmd("XRANGE");
    range.arg(key).arg(from).arg(millis(to)).arg("COUNT").arg(max);
    (slot, range)
}

/// The samples that stand in a list, the time and the count of each in turn.
fn listed(elements: Vec<Vec<u8>>, key: &str) -> Result<Vec<Sample>, Error> {
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

/// The id of an entry, and its fields and their values in turn.
type Entry = (String, Vec<Vec<u8>>);

/// Only `add_samples` writes a history; what else somebody put there is not ours to read.
fn sample_of((id, fields): &Entry) -> Option<Sample> {
    let at = Timestamp::from_millis(id.split_once('-')?.0.parse().ok()?);
    match &fields[..] {
        [field, count] if field == COUNT.as_bytes() => {
            Some(Sample { at, count: str::from_utf8(count).ok()?.parse().ok()? })
        }
        _ => None,
    }
}

/// A time as an id of a stream has it, which can't be before the epoch.
fn millis(time: Timestamp) -> i64 {
    time.as_millis().max(0)
}
