//! The overlap of two large segments.

use std::time::{Duration, Instant};

use segment_estimator::domain::{SegmentName, UserId, Visit, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::estimator::overlap::{OverlapLimits, Overlaps};
use segment_estimator::store::Batch;
use tokio::runtime::Runtime;

use crate::data::{DAYS, NOW};
use crate::engine::{Engine, Kind, TIMEOUT};
use crate::plan::Plan;
use crate::report::{Check, Part, thousands};
use crate::{Result, progress};

/// The users of each segment.
const USERS: u64 = 5_000_000;
/// The users in both.
const BOTH: u64 = 1_000_000;
/// Visits in a batch.
const BATCH: u64 = 8_192;
/// The maximum time of an overlap, in seconds.
const SECONDS: f64 = 0.5;
/// How often it is measured.
const REPETITIONS: usize = 5;

/// Measures the overlap of two segments of 5 million users, a fifth of them in both.
pub fn part(plan: &Plan, runtime: &Runtime) -> Result<Part> {
    progress("the overlap of two segments");
    let engine = Engine::start(plan, Kind::Bounded)?;
    let window = Window::parse(&format!("{DAYS}d"))?;
    let limits = OverlapLimits { timeout: TIMEOUT, concurrency: 1, wait: TIMEOUT, memory: Overlaps::MAX_MEMORY };
    let (estimator, overlaps) = {
        let _context = runtime.enter();
        (Estimator::new(engine.store()?, window), Overlaps::new(engine.store()?, window, limits))
    };
    let names = [SegmentName::parse("left")?, SegmentName::parse("right")?];
    let (overlap, times) = runtime.block_on(async {
        for (name, first) in names.iter().zip([0, USERS - BOTH]) {
            let mut next = first;
            while next < first + USERS {
                let end = (next + BATCH).min(first + USERS);
                let mut batch = Batch::default();
                for user in next..end {
                    let user_id = UserId::parse(format!("u{user:08}"))?;
                    batch.add(&Visit { user_id, segment: name.clone(), seen_at: NOW });
                }
                estimator.acquire_bulk_permit().await?.write(&batch).await.into_result()?;
                next = end;
            }
        }
        let (mut times, mut last) = (Vec::new(), None);
        for _ in 0..REPETITIONS {
            let started = Instant::now();
            last = Some(overlaps.overlap(&names, window, async { Ok(NOW) }).await?.0);
            times.push(started.elapsed());
        }
        Ok::<_, Box<dyn std::error::Error>>((last.ok_or("nothing was measured")?, times))
    })?;
    let slowest = times.iter().max().map_or(0.0, Duration::as_secs_f64);
    let error = (overlap.all.count() as f64 - BOTH as f64) / BOTH as f64;
    let stated = overlap.all.error_95().unwrap_or_default();
    Ok(Part {
        title: "overlap of bounded segments",
        note: format!(
            "Two segments of {} users, {} of them in both; the slowest of {REPETITIONS} overlaps, one after the other.",
            thousands(USERS as f64),
            thousands(BOTH as f64)
        ),
        columns: vec!["s", "in both", "error", "stated `error_95`"],
        rows: vec![vec![
            format!("{slowest:.3}"),
            thousands(overlap.all.count() as f64),
            format!("{:+.2} %", 100.0 * error),
            format!("{:.2} %", 100.0 * stated),
        ]],
        checks: vec![
            Check::of(
                "overlap of two segments of 5 million users",
                format!("{slowest:.3} s"),
                &format!("< {SECONDS} s"),
                slowest < SECONDS,
            ),
            Check::of(
                "its error, to the stated one",
                format!("{:.2} %", 100.0 * error.abs()),
                &format!("≤ {:.2} %", 100.0 * stated),
                error.abs() <= stated,
            ),
        ],
    })
}
