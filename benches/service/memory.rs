//! Memory of the service: with a thousand connections, and during a long batch.

use crate::batch::{Batch, Lines};
use crate::plan::Plan;
use crate::report::{Check, Part, mebibytes, median, thousands};
use crate::requests::RequestFile;
use crate::servers::{Redis, Service};
use crate::wrk::Load;
use crate::{Result, progress};

const CONNECTIONS: usize = 1_000;
const MAX_PEAK: f64 = 30.0 * 1024.0 * 1024.0;

/// Memory of the service during the batch, in bytes.
struct Watched {
    before: u64,
    /// After a tenth of the lines.
    at_a_tenth: u64,
    /// The maximum after that.
    most: u64,
}

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let posts = RequestFile::posts(&plan.folder, plan.sizes.requests)?;
    let mut peaks = Vec::new();
    for round in 1..=plan.rounds {
        redis.empty()?;
        let service = Service::start(plan, &redis)?;
        Load::start("post", service.address, CONNECTIONS, &posts, plan.seconds)?.finish()?;
        let peak = service.process.peak_memory()? as f64;
        progress(&format!("memory, round {round} of {}: {CONNECTIONS} connections, {}", plan.rounds, mebibytes(peak)));
        peaks.push(peak);
    }
    redis.empty()?;
    let watched = watch_batch(plan, &redis)?;
    Ok(report(plan, median(peaks), &watched))
}

/// Sends a long batch of generated lines, and samples the service's memory.
fn watch_batch(plan: &Plan, redis: &Redis) -> Result<Watched> {
    const PIECE: u64 = 10_000;
    let service = Service::start(plan, redis)?;
    let count = plan.sizes.long_batch_lines;
    let before = service.process.memory()?;
    let (mut at_a_tenth, mut most) = (0, 0);
    let mut lines = Lines::new(3);
    let mut request = Batch::begin(service.address, count)?;
    for sent in (PIECE..=count).step_by(PIECE as usize) {
        let mut text = String::new();
        lines.by_ref().take(PIECE as usize).for_each(|line| line.write_to(&mut text));
        request.send(text.as_bytes())?;
        let now = service.process.memory()?;
        if sent <= count / 10 {
            at_a_tenth = now;
        } else {
            most = most.max(now);
        }
        if sent % (count / 10) == 0 {
            progress(&format!("memory: {} lines sent, {}", thousands(sent as f64), mebibytes(now as f64)));
        }
    }
    request.end()?;
    Ok(Watched { before, at_a_tenth, most: most.max(service.process.memory()?) })
}

fn report(plan: &Plan, peak: f64, watched: &Watched) -> Part {
    let lines = thousands(plan.sizes.long_batch_lines as f64);
    let row = |what: &str, bytes: f64| vec![what.to_owned(), mebibytes(bytes)];
    let (tenth, most) = (watched.at_a_tenth as f64, watched.most as f64);
    Part {
        title: "memory",
        note: format!(
            "Resident memory of the service: the peak of a new process with {} connections that post, median of {} rounds, \
             and the memory during one batch of {lines} lines, sampled every 10,000 lines.",
            thousands(CONNECTIONS as f64),
            plan.rounds
        ),
        columns: vec!["when", "memory"],
        rows: vec![
            row("peak with 1,000 connections", peak),
            row("batch: before the first line", watched.before as f64),
            row("batch: after a tenth of the lines", tenth),
            row("batch: maximum after that", most),
        ],
        checks: vec![
            Check::of("peak with 1,000 connections", mebibytes(peak), "< 30 MiB", peak < MAX_PEAK),
            Check::at_most(format!("batch of {lines} lines: maximum, to that after a tenth"), &[most], &[tenth], 1.1),
        ],
    }
}
