//! How much memory a pair takes in Redis: no more than the member of a sorted set.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::batch::{Batch, Lines};
use crate::plan::Plan;
use crate::processes::PATIENCE;
use crate::report::{Check, Part, thousands};
use crate::requests::{SEGMENTS, segment};
use crate::servers::{Redis, Service, key};
use crate::{Result, progress};

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let service = Service::start(plan, &redis)?;
    // The first batch opens connections and has Redis load what it needs; it leaves nothing.
    send(&service, 1_000)?;
    redis.empty()?;
    let before = settled_memory(&redis)?;
    send(&service, plan.sizes.pairs)?;
    let used = settled_memory(&redis)? - before;

    let mut sets = 0.0;
    for number in 0..SEGMENTS {
        let bytes: u64 = redis.call(&["MEMORY", "USAGE", &key(&segment(number)), "SAMPLES", "0"])?;
        sets += bytes as f64;
    }
    let pairs = redis.members()? as f64;
    progress(&format!("pairs: {:.1} bytes a pair", used / pairs));
    let row = |what: &str, bytes: f64| vec![what.to_owned(), thousands(bytes), format!("{:.1}", bytes / pairs)];
    Ok(Part {
        title: "pairs",
        note: format!(
            "{} visits through the service, which make {} pairs: the growth of `used_memory`, and the sum of \
             `MEMORY USAGE` over the sets of the {SEGMENTS} segments. Once, not in rounds.",
            thousands(plan.sizes.pairs as f64),
            thousands(pairs)
        ),
        columns: vec!["what", "bytes", "bytes a pair"],
        rows: vec![row("Redis grew by", used), row("the sets alone", sets)],
        checks: vec![Check::at_most("bytes a pair, to those of the sets", &[used], &[sets], 1.01)],
    })
}

fn send(service: &Service, count: u64) -> Result<()> {
    let mut text = String::new();
    Lines::new(4).take(count as usize).for_each(|line| line.write_to(&mut text));
    let mut request = Batch::begin(service.address, count)?;
    request.send(text.as_bytes())?;
    request.end()
}

/// `used_memory` in bytes, once it stays within a few kilobytes: Redis frees the buffers of a connection that has been idle
/// for two seconds.
fn settled_memory(redis: &Redis) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
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
