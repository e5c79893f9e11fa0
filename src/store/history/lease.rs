//! The lease on sampling a tick, which one instance holds at a time.

use ::redis::{Value, pipe};

use super::millis;
use crate::domain::Timestamp;
use crate::redis::{Request, Slot};
use crate::store::{Error, Store};

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

    /// Returns whether `tick` can't be leased any more at `now`: it is complete, or a later one has begun. A key of
    /// another program holds no tick.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn is_complete(&self, tick: Timestamp, now: Timestamp) -> Result<bool, Error> {
        let key = self.key_names.lease();
        let mut pipeline = pipe();
        pipeline.cmd("GET").arg(&key);
        let mut answers = self.client.send(Request::new(Slot::of_any_key(&key), pipeline)).await?.each();
        let known: Option<String> = match answers.next().expect("it is one command") {
            Err(error) if error.is_wrong_type() => None,
            answer => answer?,
        };
        Ok(known.is_some_and(|known| completes(&known, millis(tick), millis(now))))
    }
}

/// Whether the lease `known` completes `tick` at `now`, as [`ACQUIRE_LEASE`] decides it.
fn completes(known: &str, tick: i64, now: i64) -> bool {
    let Some((latest, rest)) = known.split_once(' ').filter(|_| is_lease(known)) else { return false };
    let latest: i64 = latest.parse().unwrap_or(i64::MAX);
    latest <= now.saturating_add(2_000) && (latest > tick || latest == tick && rest.ends_with(" done"))
}

/// Whether `text` has the format of a lease.
pub(in crate::store) fn is_lease(text: &str) -> bool {
    let words: Vec<_> = text.split(' ').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    matches!(words[..], [tick, until, holder] if is_number(tick) && is_number(until) && !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::complete("7200000 0 done", true)]
    #[case::leased("7200000 7260000 a1", false)]
    #[case::earlier("3600000 0 done", false)]
    #[case::later("7201000 7260000 a1", true)]
    #[case::clock_ahead("10800000 0 done", false)]
    #[case::foreign("not a lease", false)]
    fn completes_compares_the_latest_tick(#[case] known: &str, #[case] expected: bool) {
        assert_eq!(completes(known, 7_200_000, 7_200_500), expected);
    }
}
