//! One visit a request to bounded segments that keep few of their users, beside the floor of the same service.

use crate::Result;
use crate::contender::{Contender, run_in_turns};
use crate::plan::Plan;
use crate::report::{Check, Part};
use crate::requests::{self, RequestFile, SEGMENTS};
use crate::servers::{Redis, Service};

/// The depth of all segments: one visit of 1,024 is written, as with 67 million users in a segment.
const DEPTH: u8 = 10;
const MAX_MEMBERS: u32 = 65_536;

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let (bounded, exact) = (Redis::start(plan)?, Redis::start(plan)?);
    // The state of the data set after many users: see the documentation of `segment_estimator::store`.
    bounded.call::<()>(&["SET", "layout", &format!(r#"{{"epoch":1,"keys":"plain@{MAX_MEMBERS}"}}"#)])?;
    for number in 0..SEGMENTS {
        bounded.call::<()>(&["HSET", "depths", &requests::segment(number), &DEPTH.to_string()])?;
    }
    let (service, exact_service) = (Service::start(plan, &bounded)?, Service::start(plan, &exact)?);
    let baseline = Service::start_baseline(plan, &exact)?;

    let count = plan.sizes.requests;
    let posts = RequestFile::posts(&plan.folder, count)?;
    let expired = RequestFile::expired_posts(&plan.folder, count)?;
    let mut contenders = vec![
        Contender::is_sampled("sampled", &bounded, &service, &posts),
        Contender::is_sampled("floor", &bounded, &service, &expired),
        Contender::writes("exact", &exact, &exact_service, &posts),
    ];
    contenders.extend(baseline.as_ref().map(|service| Contender::writes("baseline", &exact, service, &posts)));
    run_in_turns(plan, "sampled", &mut contenders)?;

    let [sampled, floor, exact, baseline @ ..] = contenders.as_slice() else {
        unreachable!("there are three and perhaps a baseline")
    };
    let mut checks = vec![
        Check::at_least("requests/s, sampled to floor", &sampled.throughput(), &floor.throughput(), 0.95),
        Check::without_target("requests/s, sampled to exact", &sampled.throughput(), &exact.throughput()),
        Check::without_target("CPU a request with Redis's, sampled to exact", &sampled.cpu(), &exact.cpu()),
    ];
    checks.extend(baseline.iter().flat_map(|baseline| exact.checks_to_baseline(baseline)));
    Ok(Part {
        title: "sampled",
        note: format!(
            "The requests of *singles*. *sampled* is a data set of `max_members` {MAX_MEMBERS} whose {SEGMENTS} segments have \
             depth {DEPTH}, so one visit of {} is written. *floor* is the same service with visits that have expired. \
             *exact* is a data set of its own without a bound. Medians of {} rounds of {} s.",
            1 << DEPTH,
            plan.rounds,
            plan.seconds
        ),
        columns: Contender::COLUMNS.to_vec(),
        rows: contenders.iter().map(Contender::row).collect::<Result<_>>()?,
        checks,
    })
}
