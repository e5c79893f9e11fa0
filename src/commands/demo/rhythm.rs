//! When people are awake.

use std::time::Duration;

use rand::RngExt as _;

use crate::domain::Timestamp;

/// How much is going on in each hour of the day, in UTC, of 1: little at night, most in the evening.
const HOURS: [f64; 24] = [
    0.30, 0.20, 0.14, 0.10, 0.10, 0.14, 0.26, 0.42, 0.55, 0.60, 0.62, 0.66, 0.70, 0.64, 0.58, 0.58, 0.64, 0.74, 0.86,
    0.96, 1.00, 0.92, 0.72, 0.48,
];

/// A moment before `now`, as long ago as `age` draws it, when somebody was awake.
pub(super) fn moment<R: rand::Rng>(now: Timestamp, random: &mut R, age: impl Fn(&mut R) -> Duration) -> Timestamp {
    loop {
        let moment = now - age(random);
        if random.random_bool(HOURS[hour(moment)]) {
            return moment;
        }
    }
}

fn hour(moment: Timestamp) -> usize {
    usize::try_from(moment.as_millis().rem_euclid(86_400_000) / 3_600_000).expect("it is less than 24")
}
