//! Loads the pairs through the service's code for many visits.
//!
//! This process does it, not the command `import`, so that all visits have the same `now` and every count is known in
//! advance. The lines are generated during the load. The rate of generating them alone is measured as well.

use std::path::Path;
use std::time::{Duration, Instant};

use segment_estimator::estimator::Estimator;
use segment_estimator::ingest::Ingest;

use crate::Result;
use crate::data::{Data, NOW};
use crate::engine::Engine;
use crate::master::Master;
use crate::processes::thread_times;

/// Lines in a piece: some 70 kB, about the size of a pipe's buffer.
const PIECE: u64 = 1_000;

/// A load.
pub struct Loaded {
    pub seconds: f64,
    /// Seconds of the last tenth of the pairs.
    pub last_tenth: f64,
    /// CPU time of this process, which generates, parses and sends the lines, in seconds.
    pub own_cpu: f64,
    /// CPU time of each master, in seconds.
    pub cpu: Vec<f64>,
    /// Commands sent to each master.
    pub commands: Vec<f64>,
}

/// Loads all pairs into an empty engine.
pub async fn load(engine: &Engine, estimator: &Estimator, data: &Data) -> Result<Loaded> {
    let before = (own_cpu()?, cpu(engine)?, commands(engine)?);
    let started = Instant::now();
    let nine_tenths = import(estimator, data).await?;
    let ended = Instant::now();
    let after = (own_cpu()?, cpu(engine)?, commands(engine)?);
    Ok(Loaded {
        seconds: (ended - started).as_secs_f64(),
        last_tenth: (ended - nine_tenths).as_secs_f64(),
        own_cpu: after.0 - before.0,
        cpu: differences(&after.1, &before.1),
        commands: differences(&after.2, &before.2),
    })
}

/// Passes all lines to the service. Returns the time at which nine tenths were passed.
async fn import(estimator: &Estimator, data: &Data) -> Result<Instant> {
    let mut ingest = Ingest::new(estimator.clone());
    let mut nine_tenths = Instant::now();
    let mut piece = Vec::new();
    let mut next = 0;
    while next < data.pairs() {
        let end = write_piece(data, next, &mut piece);
        if ingest.feed(&piece, NOW).await.is_err() {
            break;
        }
        if next < data.pairs() / 10 * 9 {
            nine_tenths = Instant::now();
        }
        next = end;
    }
    let (report, error) = ingest.finish().await;
    match error {
        Some(error) => Err(error.into()),
        None if report.accepted == data.pairs() => Ok(nine_tenths),
        None => Err(format!("of {} visits {} were accepted", data.pairs(), report.accepted).into()),
    }
}

/// Returns the time of generating all lines, without loading them.
pub fn make(data: &Data) -> Duration {
    let started = Instant::now();
    let mut piece = Vec::new();
    let mut next = 0;
    while next < data.pairs() {
        next = write_piece(data, next, &mut piece);
        std::hint::black_box(&piece);
    }
    started.elapsed()
}

/// Generates the lines of the next pairs. Returns the start of those after them.
fn write_piece(data: &Data, from: u64, piece: &mut Vec<u8>) -> u64 {
    let end = data.pairs().min(from + PIECE);
    piece.clear();
    data.write_lines(from..end, piece);
    end
}

/// Returns the CPU time of each master so far, in seconds.
pub fn cpu(engine: &Engine) -> Result<Vec<f64>> {
    engine.each(|master| Ok(master.process.cpu()?.as_secs_f64()))
}

/// Returns the increase of each.
pub fn differences(after: &[f64], before: &[f64]) -> Vec<f64> {
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}

fn commands(engine: &Engine) -> Result<Vec<f64>> {
    engine.each(|master: &Master| master.number("total_commands_processed"))
}

fn own_cpu() -> Result<f64> {
    Ok(thread_times(Path::new("/proc/self/task"))?.iter().sum::<Duration>().as_secs_f64())
}
