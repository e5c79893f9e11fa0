//! The pairs that are loaded: the same for every engine, in every round and in every run.
//!
//! Nothing is stored: the position of a pair in the load is permuted into an index among all pairs, which determines
//! the segment, the user and the time. The sizes of the segments follow Zipf's law with the exponent 1: the second has
//! half as many users as the first. A user is in six segments on average, so five million users make thirty million
//! pairs. Segments and users come in a random order. Times come in a random order as well, the most expensive one for
//! Redis, or in ascending order, as live visits do.

use std::ops::Range;

use clap::ValueEnum;
use segment_estimator::domain::{SegmentName, Timestamp};

use crate::Result;
use crate::random::Random;

/// The number of segments.
pub const SEGMENTS: usize = 300;
/// The window, in days.
pub const DAYS: u64 = 14;
/// The time at which all pairs are in the window: 2026-11-15, midnight.
pub const NOW: Timestamp = Timestamp::from_millis(1_794_700_800_000);
/// A day in milliseconds.
pub const DAY: i64 = 24 * HOUR as i64;

const HOUR: u64 = 60 * 60 * 1_000;
/// Segments per user, on average.
const SEGMENTS_OF_A_USER: u64 = 6;
/// The maximum number of users, whose numbers have up to eight digits.
const MAX_USERS: u64 = 99_999_999;
const MAX_PAIRS: u64 = MAX_USERS * SEGMENTS_OF_A_USER;
/// The maximum number of users whose numbers have seven digits.
const MAX_USERS_OF_SEVEN_DIGITS: u64 = 9_999_999;
/// Each hour's share of a day's visits, in percent: little at night, most in the evening.
const RHYTHM: [u64; 24] = [2, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6, 7, 7, 7, 6, 4, 3];
/// A line with placeholders. All lines of a load have the same length.
const LINE: &[u8] = b"{\"user_id\":\"u00000000\",\"segment\":\"segment-000\",\"seen_at\":0000000000.000}\n";
/// The position of the user's number in a line.
const ID: usize = 13;

/// The order of the load.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Random, as in another system's data
    Random,
    /// Oldest first, as live visits
    Time,
}

/// Distinct pairs of a user and a segment.
pub struct Data {
    pairs: u64,
    order: Order,
    /// The index of each segment's first pair, and at the end the number of pairs.
    starts: Vec<u64>,
    places: Shuffle,
    /// A random permutation: the time of each pair.
    times: Shuffle,
    /// The users of each segment, in a permutation of its own.
    users: Vec<Shuffle>,
    /// The number of pairs seen before each hour, and at the end their total.
    hours: Vec<u64>,
}

impl Data {
    /// Returns the `pairs` of `seed`.
    pub fn new(pairs: u64, order: Order, seed: u64) -> Result<Self> {
        let users = pairs.div_ceil(SEGMENTS_OF_A_USER);
        let sizes = zipf(pairs);
        if sizes[SEGMENTS - 1] == 0 || sizes[0] > users || pairs > MAX_PAIRS {
            return Err(format!("there can be 10,000 to {MAX_PAIRS} pairs, not {pairs}").into());
        }
        let mut starts = vec![0];
        for size in &sizes {
            starts.push(starts[starts.len() - 1] + size);
        }
        let (mut shares, mut hours) = (0, vec![0]);
        for share in RHYTHM.iter().cycle().take((DAYS * 24) as usize) {
            shares += share;
            hours.push((u128::from(pairs) * u128::from(shares) / u128::from(DAYS * 100)) as u64);
        }
        let mut seeds = Random::new(seed);
        let mut shuffle = |bound| Shuffle::new(bound, &mut seeds);
        let users = (0..SEGMENTS).map(|_| shuffle(users)).collect();
        Ok(Self { pairs, order, starts, users, places: shuffle(pairs), times: shuffle(pairs), hours })
    }

    /// Returns the number of pairs.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// Returns the number of users.
    pub fn users(&self) -> u64 {
        self.pairs.div_ceil(SEGMENTS_OF_A_USER)
    }

    /// Returns the sizes of the segments, largest first.
    pub fn sizes(&self) -> Vec<u64> {
        self.starts.windows(2).map(|ends| ends[1] - ends[0]).collect()
    }

    /// Returns the number of pairs of the first day, which expire a day later.
    pub fn first_day(&self) -> u64 {
        self.hours[24]
    }

    /// Writes the lines of NDJSON in this range of the load.
    pub fn write_lines(&self, numbers: Range<u64>, lines: &mut Vec<u8>) {
        let begin = NOW.as_millis() as u64 - DAYS * DAY as u64;
        for number in numbers {
            let place = self.places.at(number);
            let segment = self.starts.partition_point(|&start| start <= place) - 1;
            let user = self.users[segment].at(place - self.starts[segment]);
            let seen_at = begin + self.seen(number);
            let at = lines.len();
            // Ids have eight bytes, and nine if there are more users.
            let digits = if self.users() > MAX_USERS_OF_SEVEN_DIGITS { 8 } else { 7 };
            let end_of_id = ID + digits;
            lines.extend_from_slice(&LINE[..end_of_id]);
            lines.extend_from_slice(&LINE[ID + 8..]);
            let line = &mut lines[at..];
            // The positions of the placeholders.
            write_digits(&mut line[ID..end_of_id], user);
            write_digits(&mut line[end_of_id + 21..end_of_id + 24], segment as u64);
            write_digits(&mut line[end_of_id + 36..end_of_id + 46], seen_at / 1_000);
            write_digits(&mut line[end_of_id + 47..end_of_id + 50], seen_at % 1_000);
        }
    }

    /// Returns the time of a pair, in milliseconds since the first day began.
    fn seen(&self, number: u64) -> u64 {
        let time = match self.order {
            Order::Random => self.times.at(number),
            Order::Time => number,
        };
        let hour = self.hours.partition_point(|&start| start <= time) - 1;
        let (since, within) = (time - self.hours[hour], self.hours[hour + 1] - self.hours[hour]);
        hour as u64 * HOUR + 1 + since * (HOUR - 1) / within
    }
}

/// Returns the segments, largest first.
pub fn segments() -> Result<Vec<SegmentName<'static>>> {
    let name = |number| SegmentName::parse(format!("segment-{number:03}"));
    Ok((0..SEGMENTS).map(name).collect::<std::result::Result<_, _>>()?)
}

/// Returns the sizes of the segments. The remainder of the rounding goes to the largest ones, one each.
fn zipf(pairs: u64) -> Vec<u64> {
    let harmonic: f64 = (1..=SEGMENTS).map(|rank| 1.0 / rank as f64).sum();
    let mut sizes: Vec<_> = (1..=SEGMENTS).map(|rank| (pairs as f64 / harmonic / rank as f64) as u64).collect();
    let rest = pairs - sizes.iter().sum::<u64>();
    sizes.iter_mut().take(rest as usize).for_each(|size| *size += 1);
    sizes
}

fn write_digits(digits: &mut [u8], mut number: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// A pseudorandom permutation of the numbers below a bound.
struct Shuffle {
    bound: u64,
    /// The number of bits of the largest number.
    bits: u32,
    keys: [u64; 3],
}

impl Shuffle {
    fn new(bound: u64, seeds: &mut Random) -> Self {
        let bits = (64 - bound.leading_zeros()).max(2);
        Self { bound, bits, keys: [0; 3].map(|_| seeds.below(1 << 62)) }
    }

    /// Returns the number at `place`. Both are below the bound.
    fn at(&self, place: u64) -> u64 {
        let mask = (1 << self.bits) - 1;
        let mut number = place;
        // Every step is invertible, so no two places have the same number. A number out of bounds is permuted again
        // until it is within them (cycle walking).
        loop {
            for key in self.keys {
                number = number.wrapping_mul(key << 1 | 1).wrapping_add(key >> 8) & mask;
                number ^= number >> (self.bits / 2);
            }
            if number < self.bound {
                return number;
            }
        }
    }
}
