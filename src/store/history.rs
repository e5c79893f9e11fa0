//! The sizes of segments over time: a stream for each segment, and whose turn it is to add to them.
//!
//! A history is of a segment in all partitions together, so that its key is in none of them, and a move to other partitions
//! doesn't touch it.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Cmd, Value, cmd, pipe};

use super::commands::Commands;
use super::connection::read;
use super::keys::{KeyNames, Slot};
use super::{Error, Store};
use crate::segment::SegmentName;
use crate::time::Timestamp;

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
pub struct Claim<'a> {
    /// The turn.
    pub turn: Timestamp,
    /// What the time is.
    pub now: Timestamp,
    /// Until when nobody else may have it.
    pub until: Timestamp,
    /// Who wants it: a text without spaces, and not `done`.
    pub by: &'a str,
}

/// Whose a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is the claimant's.
    Claimed,
    /// It is another's, who has not done yet.
    ByAnother,
    /// It is done, or later ones have begun.
    Done,
}

/// The field of a sample.
const COUNT: &str = "n";

/// Claims the turn `ARGV[1]` at `ARGV[2]` until `ARGV[3]` for `ARGV[4]`, and says whose it is. `KEYS[1]` holds the newest turn, for
/// how long it is claimed, and by whom: `done` if it is. What holds anything else is another program's, and stays. A turn that is
/// later than the time, and than the clocks of services may differ, was claimed when a clock was ahead: it doesn't keep the turns
/// out that come before it.
const CLAIM: &str = "\
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
const END: &str = "\
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
    /// Samples that are read, or written, in one round trip. Redis takes about a microsecond for each.
    const SAMPLES_AT_ONCE: usize = 2_000;

    /// Claims a turn of sampling. Of all that claim the same turn, one has it at a time.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer; the turn may be claimed. Who claims it again has it then.
    pub async fn claim_turn(&self, claim: &Claim<'_>) -> Result<Turn, Error> {
        // A data set without a record that has this key would be refused as another program's.
        self.known_layout().await?;
        let key = self.names.turn();
        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(CLAIM).arg(1).arg(&key);
        script.arg(millis(claim.turn)).arg(millis(claim.now)).arg(millis(claim.until)).arg(claim.by);
        let (whose,): (String,) = self.connection.query(Slot::of_any_key(&key), pipeline).await?;
        match whose.as_str() {
            "claimed" => Ok(Turn::Claimed),
            "taken" => Ok(Turn::ByAnother),
            "foreign" => Err(Error::ForeignKey(key)),
            _ => Ok(Turn::Done),
        }
    }

    /// Notes that `turn` is done.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn end_turn(&self, turn: Timestamp) -> Result<(), Error> {
        let key = self.names.turn();
        let mut pipeline = pipe();
        pipeline.cmd("EVAL").arg(END).arg(1).arg(&key).arg(millis(turn));
        self.connection.query::<Value>(Slot::of_any_key(&key), pipeline).await.map(drop)
    }

    /// Adds `samples` to the histories of their segments, and says how many of them are new. A history only grows at its end: what
    /// it has already, or has later ones than, is passed over. So they may be added again.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer, or refused one of them. Some may be added.
    pub async fn add_samples(&self, samples: &[NamedSample]) -> Result<u64, Error> {
        let mut added = 0;
        for samples in samples.chunks(Self::SAMPLES_AT_ONCE) {
            let slot_of = |named: &&NamedSample| Slot::of_any_key(&self.names.history(named.segment.as_str()));
            for samples in self.connection.by_server(samples.iter().collect(), slot_of).await? {
                added += self.add_samples_at(&samples).await?;
            }
        }
        Ok(added)
    }

    /// Adds `samples` to histories that are at one server.
    async fn add_samples_at(&self, samples: &[&NamedSample]) -> Result<u64, Error> {
        let mut commands = Vec::with_capacity(2 * samples.len());
        for (place, NamedSample { segment, sample }) in samples.iter().enumerate() {
            let key = self.names.history(segment.as_str());
            let slot = Slot::of_any_key(&key);
            let mut add = cmd("XADD");
            add.arg(&key).arg("MINID").arg("~").arg(millis(sample.at - Self::KEPT));
            add.arg(format!("{}-0", millis(sample.at))).arg(COUNT).arg(sample.count);
            commands.push((slot, add));
            // Once for each segment, behind its last one.
            if samples.get(place + 1).is_none_or(|next| next.segment != *segment) {
                let mut expire = cmd("EXPIRE");
                expire.arg(key).arg(Self::KEPT.as_secs());
                commands.push((slot, expire));
            }
        }
        let settle = |answers: &mut Vec<Result<Value, Error>>| {
            for answer in answers {
                // An id that is not beyond the last, which a stream has no other word for; or a key that is no stream.
                if answer.as_ref().is_err_and(|error| is_old_sample(error) || matches!(error, Error::WrongType { .. }))
                {
                    *answer = Ok(Value::Nil);
                }
            }
        };
        let answers = self.connection.query_settled(Commands::each(commands), settle).await?;
        let mut added = 0;
        for answer in answers {
            // `XADD` answers with the id.
            added += u64::from(matches!(answer?, Value::BulkString(_)));
        }
        Ok(added)
    }

    /// The samples of each of `segments` from `from` through `to`, in the order of time. About `expected` samples should there be of
    /// each.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer, or a key is no stream.
    pub async fn samples(
        &self,
        segments: &[SegmentName<'static>],
        from: Timestamp,
        to: Timestamp,
        expected: usize,
    ) -> Result<Vec<Vec<Sample>>, Error> {
        let mut found: HashMap<&str, Vec<Sample>> = HashMap::new();
        let at_once = Self::SAMPLES_AT_ONCE / expected.clamp(1, Self::SAMPLES_AT_ONCE);
        let slot_of = |key: &&str| Slot::of_any_key(&self.names.history(key));
        let names = segments.iter().map(SegmentName::as_str).collect();
        for names in self.connection.by_server(names, slot_of).await? {
            for names in names.chunks(at_once) {
                self.samples_at(names, from, to, &mut found).await?;
            }
        }
        Ok(segments.iter().map(|segment| found.get(segment.as_str()).cloned().unwrap_or_default()).collect())
    }

    /// As [`Self::samples`], of segments whose histories are at one server.
    async fn samples_at<'a>(
        &self,
        names: &[&'a str],
        from: Timestamp,
        to: Timestamp,
        found: &mut HashMap<&'a str, Vec<Sample>>,
    ) -> Result<(), Error> {
        let mut asked: Vec<(&str, String)> = names.iter().map(|name| (*name, millis(from).to_string())).collect();
        while !asked.is_empty() {
            let most = Self::SAMPLES_AT_ONCE / asked.len();
            let commands = asked.iter().map(|(name, from)| range(&self.names, name, from, to, most));
            let answers = self.connection.query_settled(Commands::each(commands), |_| {}).await?;
            let mut unfinished = Vec::new();
            for ((name, _), answer) in asked.into_iter().zip(answers) {
                let entries: Vec<Entry> = answer.and_then(read)?;
                if entries.len() >= most
                    && let Some((last, _)) = entries.last()
                {
                    unfinished.push((name, format!("({last}")));
                }
                found.entry(name).or_default().extend(entries.iter().filter_map(sample_of));
            }
            asked = unfinished;
        }
        Ok(())
    }
}

/// Whether a text is what the key of the turns holds.
pub(super) fn is_turn(text: &str) -> bool {
    let words: Vec<_> = text.split(' ').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    matches!(words[..], [turn, until, by] if is_number(turn) && is_number(until) && !by.is_empty())
}

fn range(names: &KeyNames, name: &str, from: &str, to: Timestamp, most: usize) -> (Slot, Cmd) {
    let key = names.history(name);
    let slot = Slot::of_any_key(&key);
    let mut range = cmd("XRANGE");
    range.arg(key).arg(from).arg(millis(to)).arg("COUNT").arg(most);
    (slot, range)
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

fn is_old_sample(error: &Error) -> bool {
    matches!(error, Error::Refused { command, code, .. } if code == "ERR" && command.starts_with("XADD "))
}
