//! Memory of a pair in Redis: only that of a member of a sorted set.
//!
//! The bare loader writes the sets alone, for comparison. `MEMORY USAGE` is reported as a familiar figure. It counts 24
//! bytes for an entry of a dictionary, for which an allocator such as Debian's uses 32.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::batch::{self, Batch, Lines};
use crate::plan::Plan;
use crate::processes::TIMEOUT;
use crate::report::{Check, Part, thousands};
use crate::requests::{SEGMENTS, segment};
use crate::servers::{Redis, Service, key};
use crate::{Result, loader, progress};

const SEED: u64 = 4;

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let service = Service::start(plan, &redis)?;
    // The first batch opens connections and warms Redis up. Its data is removed.
    send(&service, 1_000)?;
    let count = plan.sizes.pairs;
    let by_loader = growth(&redis, || loader::send(redis.address, batch::prebuilt(SEED, count).into_iter()))?;
    let by_service = growth(&redis, || send(&service, count))?;

    let mut told = 0.0;
    for number in 0..SEGMENTS {
        let bytes: u64 = redis.call(&["MEMORY", "USAGE", &key(&segment(number)), "SAMPLES", "0"])?;
        told += bytes as f64;
    }
    let pairs = redis.members()? as f64;
    progress(&format!("pairs: {:.1} bytes a pair", by_service / pairs));
    let row = |what: &str, bytes: f64| vec![what.to_owned(), thousands(bytes), format!("{:.1}", bytes / pairs)];
    Ok(Part {
        title: "pairs",
        note: format!(
            "{} visits, which make {} pairs: the growth of `used_memory` when the service writes them, the same when the \
             bare loader writes the same sets and nothing else, and the sum of `MEMORY USAGE` over the sets. Measured \
             once.",
            thousands(count as f64),
            thousands(pairs)
        ),
        columns: vec!["what", "bytes", "bytes a pair"],
        rows: vec![
            row("by the service", by_service),
            row("by the bare loader", by_loader),
            row("`MEMORY USAGE`", told),
        ],
        checks: vec![
            Check::at_most("bytes a pair, service to bare loader", &[by_service], &[by_loader], 1.01),
            Check::without_target("bytes a pair, service to `MEMORY USAGE`", &[by_service], &[told]),
        ],
    })
}

/// Returns the growth of an empty Redis by `write`, in bytes.
fn growth(redis: &Redis, write: impl FnOnce() -> Result<()>) -> Result<f64> {
    redis.empty()?;
    let before = settled_memory(redis)?;
    write()?;
    Ok(settled_memory(redis)? - before)
}

fn send(service: &Service, count: u64) -> Result<()> {
    let mut text = String::new();
    Lines::new(SEED).take(count as usize).for_each(|line| line.write_to(&mut text));
    let mut request = Batch::begin(service.address, count)?;
    request.send(text.as_bytes())?;
    request.end()
}

/// Returns `used_memory` in bytes, after it has settled within a few kilobytes: Redis frees the buffers of a connection
/// that has been idle for two seconds.
fn settled_memory(redis: &Redis) -> Result<f64> {
    let deadline = Instant::now() + TIMEOUT;
    sleep(Duration::from_secs(3));
    let mut last: f64 = redis.info("used_memory")?.parse()?;
    while Instant::now() < deadline {
        sleep(Duration::from_secs(1));
        let now: f64 = redis.info("used_memory")?.parse()?;
        if (now - last).abs() < 4096.0 {
            return Ok(now);
        }
        last = now;
    }
    Err("Redis's memory does not settle".into())
}
