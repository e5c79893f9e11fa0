//! Reading the samples of histories.

use std::collections::HashMap;
use std::time::Duration;

use ::redis::{Cmd, cmd};

use super::count_text::parse_count;
use super::{Sample, millis};
use crate::domain::{SegmentName, Timestamp};
use crate::redis::{self, Request, Slot, parse};
use crate::store::keys::KeyNames;
use crate::store::{Error, Store};

/// The field of a stream's entry that holds the count.
const COUNT_FIELD: &str = "n";

impl Store {
    /// Returns the last sample in each `step` since `from`, through `to`, of each of `segments`, in order of time. No
    /// segment may be repeated. `expected` is the approximate number of all samples of each, which decides how many
    /// segments share a request. If a key holds something other than a history, its segment alone fails.
    ///
    /// Only the returned samples are kept in memory: there may be many times as many.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn samples(
        &self,
        segments: &[SegmentName<'static>],
        from: Timestamp,
        to: Timestamp,
        step: Duration,
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
                    self.samples_at(histories, from, to, step, &mut found).await?;
                }
            }
        }
        let samples_of = |segment: &SegmentName<'_>| found.remove(segment.as_str()).unwrap_or(Ok(Vec::new()));
        Ok(segments.iter().map(samples_of).collect())
    }

    /// Returns the types of the keys of the histories of `names`.
    pub(in crate::store) async fn types_of(&self, names: &[&str]) -> Result<Vec<KeyType>, Error> {
        let commands = names.iter().map(|name| {
            let key = self.key_names.history(name);
            let slot = Slot::of_any_key(&key);
            let mut key_type = cmd("TYPE");
            key_type.arg(key);
            (slot, key_type)
        });
        let types = self.client.send_by_server(commands, Request::each).await?;
        let key_type = |key_type: Result<String, redis::Error>| {
            Ok(match key_type?.as_str() {
                "none" => KeyType::None,
                "list" => KeyType::List,
                "stream" => KeyType::Stream,
                _ => KeyType::Other,
            })
        };
        types.into_iter().map(key_type).collect()
    }

    /// Adds the samples of `histories`, which are on one server and given with their types, to `found`.
    async fn samples_at<'a>(
        &self,
        histories: &[(&'a str, KeyType)],
        from: Timestamp,
        to: Timestamp,
        step: Duration,
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
                        let kept = samples.map(|samples| {
                            let mut kept = Vec::new();
                            add_last_of_steps(&mut kept, samples.into_iter().filter(is_in_range), from, step);
                            kept
                        });
                        found.insert(name, kept);
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
                    add_last_of_steps(samples, entries.iter().filter_map(parse_entry), from, step);
                }
            }
            pending = unfinished;
        }
        Ok(())
    }
}

/// Adds `later` samples to `samples`, and keeps only the last one in each `step` since `from`.
fn add_last_of_steps(samples: &mut Vec<Sample>, later: impl Iterator<Item = Sample>, from: Timestamp, step: Duration) {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let step_of = |sample: &Sample| (sample.at.as_millis() - from.as_millis()).div_euclid(step);
    for sample in later {
        match samples.last_mut() {
            Some(last) if step_of(last) == step_of(&sample) => *last = sample,
            _ => samples.push(sample),
        }
    }
}

/// The type of the key of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum KeyType {
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
            Some(Sample { at, count: parse_count(count)? })
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
        [field, count] if field == COUNT_FIELD.as_bytes() => Some(Sample { at, count: parse_count(count)? }),
        _ => None,
    }
}
