//! One visit a request over few and over many connections, beside a plain axum handler.

use crate::Result;
use crate::contender::{Contender, run_in_turns};
use crate::plan::Plan;
use crate::report::{Check, Part};
use crate::requests::RequestFile;
use crate::servers::{Plain, Redis, Service};

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let service = Service::start(plan, &redis)?;
    let plain = Plain::start(plan, &redis, 1)?;
    let posts = RequestFile::posts(&plan.folder, plan.sizes.requests)?;
    let mut contenders = vec![
        Contender::writes("post, 8 connections", &redis, &service, &posts).with_connections(8),
        Contender::writes("plain, 8 connections", &redis, &plain, &posts).with_connections(8),
        Contender::writes("post, 1,000 connections", &redis, &service, &posts).with_connections(1_000),
        Contender::writes("plain, 1,000 connections", &redis, &plain, &posts).with_connections(1_000),
    ];
    run_in_turns(plan, "connections", &mut contenders)?;
    let [few, plain_few, many, plain_many] = contenders.as_slice() else { unreachable!("there are four") };
    let to_plain = |connections: &str, post: &Contender<'_>, plain: &Contender<'_>, target| {
        let measure = format!("requests/s with {connections} connections, post to plain");
        Check::at_least(measure, &post.throughput(), &plain.throughput(), target)
    };
    Ok(Part {
        title: "connections",
        note: format!(
            "The requests of *singles* over other numbers of connections. Medians of {} rounds of {} s.",
            plan.rounds, plan.seconds
        ),
        columns: Contender::COLUMNS.to_vec(),
        rows: contenders.iter().map(Contender::row).collect::<Result<_>>()?,
        checks: vec![to_plain("8", few, plain_few, 1.0), to_plain("1,000", many, plain_many, 1.2)],
    })
}
