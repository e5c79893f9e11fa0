//! The pairs that are loaded: the same for every engine, in every round and in every run.
//!
//! Nothing is kept: the place of a pair in the load is shuffled into a place among all pairs, and that says the
//! segment, the user and the time. The sizes of the segments follow Zipf's law with the exponent 1: the second has half
//! as many users as the first. A user is in six segments on average, so that five million users make thirty million
//! pairs. Segments and users come in an order that looks random. Times come in such an order, too, which is the dearest
//! one for Redis, or they only grow, as when visits are sent when they happen.

use std::ops::Range;

use clap::ValueEnum;
use segment_estimator::domain::{SegmentName, Timestamp};

use crate::Result;
use crate::random::Random;

/// Segments of all pairs.
pub const SEGMENTS: usize = 300;
/// What is counted within, in days.
pub const DAYS: u64 = 14;
/// The moment at which all pairs count: 2026-11-15, midnight.
pub const NOW: Timestamp = Timestamp::from_millis(1_794_700_800_000);
/// A day in milliseconds.
pub const DAY: i64 = 24 * HOUR as i64;

const HOUR: u64 = 60 * 60 * 1_000;
/// How many segments a user is in, on average.
const SEGMENTS_OF_A_USER: u64 = 6;
/// The most pairs whose users' numbers have seven digits.
const MAX_PAIRS: u64 = 9_999_999 * SEGMENTS_OF_A_USER;
/// The share of a day's visits that each hour has, in hundredths: little at night, most in the evening.
const RHYTHM: [u64; 24] = [2, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6, 7, 7, 7, 6, 4, 3];
/// A line without what changes. All lines are of one length.
const LINE: &[u8] = b"{\"user_id\":\"u0000000\",\"segment\":\"segment-000\",\"seen_at\":0000000000.000}\n";

/// In which order pairs are loaded.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The time has nothing to do with it, as in another system's data
    Random,
    /// The oldest first, as visits happen
    Time,
}

/// So many different pairs of a user and a segment.
pub struct Data {
    pairs: u64,
    order: Order,
    /// Where each segment's pairs begin among all, and at last their number.
    starts: Vec<u64>,
    places: Shuffle,
    /// Which of all the times the pair with a number has, in random order.
    times: Shuffle,
    /// The users of each segment, in an order of its own.
    users: Vec<Shuffle>,
    /// How many pairs were seen before each hour of the days, and at last their number.
    hours: Vec<u64>,
}

impl Data {
    /// `pairs` that belong to `seed`.
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

    /// How many pairs there are.
    pub fn pairs(&self) -> u64 {
        self.pairs
    }

    /// How many users there are of whom pairs may be.
    pub fn users(&self) -> u64 {
        self.pairs.div_ceil(SEGMENTS_OF_A_USER)
    }

    /// How many users each segment has, the largest first.
    pub fn sizes(&self) -> Vec<u64> {
        self.starts.windows(2).map(|ends| ends[1] - ends[0]).collect()
    }

    /// How many pairs are of the first of the days, which are expired a day later.
    pub fn first_day(&self) -> u64 {
        self.hours[24]
    }

    /// Writes lines of NDJSON, those with these numbers, in the order of the load.
    pub fn write_lines(&self, numbers: Range<u64>, lines: &mut Vec<u8>) {
        let begin = NOW.as_millis() as u64 - DAYS * DAY as u64;
        for number in numbers {
            let place = self.places.at(number);
            let segment = self.starts.partition_point(|&start| start <= place) - 1;
            let user = self.users[segment].at(place - self.starts[segment]);
            let seen_at = begin + self.seen(number);
            let at = lines.len();
            lines.extend_from_slice(LINE);
            let line = &mut lines[at..];
            // Where the line has zeros.
            write_digits(&mut line[13..20], user);
            write_digits(&mut line[41..44], segment as u64);
            write_digits(&mut line[56..66], seen_at / 1_000);
            write_digits(&mut line[67..70], seen_at % 1_000);
        }
    }

    /// When the pair with a number was seen, in milliseconds since the days began, of which the first one expires at
    /// [`NOW`].
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

/// The segments, the largest first.
pub fn segments() -> Result<Vec<SegmentName<'static>>> {
    let name = |number| SegmentName::parse(format!("segment-{number:03}"));
    Ok((0..SEGMENTS).map(name).collect::<std::result::Result<_, _>>()?)
}

/// The sizes of the segments. What rounding leaves goes to the largest, one each.
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

/// The numbers below a bound, each once, in an order that looks random.
struct Shuffle {
    bound: u64,
    /// As many bits as the largest has.
    bits: u32,
    keys: [u64; 3],
}

impl Shuffle {
    fn new(bound: u64, seeds: &mut Random) -> Self {
        let bits = (64 - bound.leading_zeros()).max(2);
        Self { bound, bits, keys: [0; 3].map(|_| seeds.below(1 << 62)) }
    }

    /// The number at `place`, which is below the bound, too.
    fn at(&self, place: u64) -> u64 {
        let mask = (1 << self.bits) - 1;
        let mut number = place;
        // Every step can be undone, so no two places share a number. One that is out of bounds goes on to another, and
        // comes back at the latest when it has been all round.
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
