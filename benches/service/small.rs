//! One visit a request to small segments beside large ones, on servers that differ in when a sorted set becomes a
//! skiplist.

use segment_estimator::redis::MAX_LISTPACK_ENTRIES;

use crate::Result;
use crate::contender::{Contender, run_in_turns};
use crate::plan::Plan;
use crate::report::{Check, Part};
use crate::requests::{RequestFile, SEGMENTS};
use crate::servers::{Redis, Service};

/// Members of a small segment. Redis keeps up to 128 as a listpack by default.
const MEMBERS: u64 = 100;

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let default = Redis::start_with(plan, &["--zset-max-ziplist-entries", "128"])?;
    let service = Service::start(plan, &redis)?;
    let service_on_default = Service::start(plan, &default)?;
    let large = RequestFile::posts(&plan.folder, plan.sizes.requests)?;
    let small = RequestFile::posts_to_small_segments(&plan.folder, plan.sizes.requests, MEMBERS)?;
    let mut contenders = vec![
        Contender::writes("large segments", &redis, &service, &large),
        Contender::writes("small segments", &redis, &service, &small),
        Contender::writes("small segments, Redis's default", &default, &service_on_default, &small),
    ];
    run_in_turns(plan, "small", &mut contenders)?;
    let [large, small, on_default] = contenders.as_slice() else { unreachable!("there are three") };
    Ok(Part {
        title: "small",
        note: format!(
            "{SEGMENTS} segments of {MEMBERS} members each, beside the requests of *singles*. Redis has \
             `zset-max-listpack-entries` {MAX_LISTPACK_ENTRIES}, as the private Redis and the compose files; its default is 128. \
             Medians of {} rounds of {} s.",
            plan.rounds, plan.seconds
        ),
        columns: Contender::COLUMNS.to_vec(),
        rows: contenders.iter().map(Contender::row).collect::<Result<_>>()?,
        checks: vec![
            Check::at_least("requests/s, small to large segments", &small.throughput(), &large.throughput(), 0.95),
            Check::without_target(
                "requests/s, small segments by Redis's default to large",
                &on_default.throughput(),
                &large.throughput(),
            ),
        ],
    })
}
