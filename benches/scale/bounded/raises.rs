//! Counts under load, while depths are raised.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use segment_estimator::domain::{SegmentName, UserId, Visit, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::store::Batch;
use tokio::runtime::Runtime;

use super::MAX_MEMBERS;
use crate::data::{DAYS, NOW};
use crate::engine::{Engine, Kind};
use crate::plan::Plan;
use crate::report::{Check, Part, thousands};
use crate::{Result, progress};

/// The number of answers.
const ANSWERS: u64 = 100_000;
/// The number of segments, which all get the same users.
const SEGMENTS: usize = 4;
/// Visits in a batch.
const BATCH: u64 = 4_000;
/// The maximum distance of an answer, in stated errors.
const DISTANCE: f64 = 2.0;

/// The distances of the answers from the users at the time.
#[derive(Default)]
struct Distances {
    answers: u64,
    /// The largest, in `error_95`.
    largest: f64,
    /// How many are beyond [`DISTANCE`].
    beyond: u64,
}

/// Counts while segments grow, until there are [`ANSWERS`].
pub fn part(plan: &Plan, runtime: &Runtime) -> Result<Part> {
    progress("counts while depths are raised");
    let engine = Engine::start(plan, Kind::Bounded)?;
    let estimator = {
        let _context = runtime.enter();
        Estimator::new(engine.store()?, Window::parse(&format!("{DAYS}d"))?)
    };
    let names: Vec<_> = (0..SEGMENTS).map(|n| SegmentName::parse(format!("growing-{n}"))).collect::<Parsed<_>>()?;
    let (sent, acknowledged, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (distances, users) = runtime.block_on(async {
        let writing = async {
            let mut user = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut batch = Batch::default();
                for user in user..user + BATCH / SEGMENTS as u64 {
                    for name in &names {
                        let user_id = UserId::parse(format!("u{user:08}"))?;
                        batch.add(&Visit { user_id, segment: name.clone(), seen_at: NOW });
                    }
                }
                user += BATCH / SEGMENTS as u64;
                sent.store(user, Ordering::Relaxed);
                estimator.acquire_bulk_permit().await?.write(&batch).await.into_result()?;
                acknowledged.store(user, Ordering::Relaxed);
            }
            Ok::<_, Box<dyn std::error::Error>>(user)
        };
        let counting = async {
            let mut distances = Distances::default();
            for name in names.iter().cycle() {
                let fewest = acknowledged.load(Ordering::Relaxed) as f64;
                let estimate = estimator.estimate(name, NOW).await?;
                let most = sent.load(Ordering::Relaxed) as f64;
                let count = estimate.count() as f64;
                let off = (fewest - count).max(count - most).max(0.0);
                let stated = 1.96 * estimate.variance().sqrt();
                if off > 0.0 {
                    let distance = off / stated;
                    distances.largest = distances.largest.max(distance);
                    distances.beyond += u64::from(distance > DISTANCE);
                }
                distances.answers += 1;
                if distances.answers == ANSWERS {
                    break;
                }
            }
            is_over.store(true, Ordering::Relaxed);
            Ok::<_, Box<dyn std::error::Error>>(distances)
        };
        let (users, distances) = tokio::join!(writing, counting);
        Ok::<_, Box<dyn std::error::Error>>((distances?, users?))
    })?;
    Ok(Part {
        title: "counts while depths are raised",
        note: format!(
            "{SEGMENTS} segments grow to {} users each, in batches of {BATCH} visits, while they are counted one after the other. \
             An answer is compared with the users that were acknowledged before the count and sent after it. The distance is 0 if \
             it lies between the two. A distance of 2 `error_95` is 3.9 standard errors; a chance sample exceeds it in 1 of \
             10,000 cases, and successive answers have nearly the same sample.",
            thousands(users as f64)
        ),
        columns: vec!["`max_members`", "answers", "beyond 2 `error_95`", "largest distance, in `error_95`"],
        rows: vec![vec![
            MAX_MEMBERS.to_owned(),
            thousands(distances.answers as f64),
            distances.beyond.to_string(),
            format!("{:.2}", distances.largest),
        ]],
        checks: vec![Check::of(
            "count while depths are raised, largest distance in `error_95`",
            format!("{:.2} of {} answers", distances.largest, thousands(distances.answers as f64)),
            &format!("≤ {DISTANCE:.0}"),
            distances.beyond == 0,
        )],
    })
}

type Parsed<T> = std::result::Result<T, segment_estimator::domain::FieldError>;
