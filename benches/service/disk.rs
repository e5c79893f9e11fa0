//! The cost of writing visits to disk: `POST /segments` on Redis servers that differ in `appendfsync`.

use crate::Result;
use crate::contender::{Contender, run_in_turns};
use crate::plan::Plan;
use crate::report::{Check, Part};
use crate::requests::RequestFile;
use crate::servers::{Redis, Service};

/// The contenders' names, and the arguments of their Redis.
const CONTENDERS: [(&str, &[&str]); 4] = [
    ("no file", &["--appendonly", "no"]),
    ("appendfsync no", &["--appendonly", "yes", "--appendfsync", "no"]),
    ("appendfsync everysec", &["--appendonly", "yes", "--appendfsync", "everysec"]),
    ("appendfsync always", &["--appendonly", "yes", "--appendfsync", "always"]),
];

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let posts = RequestFile::posts(&plan.folder, plan.sizes.requests)?;
    let servers = CONTENDERS.iter().map(|(name, arguments)| {
        let redis = Redis::start_with(plan, arguments)?;
        let service = Service::start(plan, &redis)?;
        Ok((*name, redis, service))
    });
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let contender = |(name, redis, service)| Contender::writes(name, redis, service, &posts);
    let mut contenders: Vec<_> =
        servers.iter().map(|(name, redis, service)| contender((name, redis, service))).collect();
    run_in_turns(plan, "disk", &mut contenders)?;
    report(plan, &contenders)
}

fn report(plan: &Plan, contenders: &[Contender<'_>]) -> Result<Part> {
    let rows = contenders.iter().map(Contender::row).collect::<Result<_>>()?;
    let [plain, others @ ..] = contenders else { unreachable!("there are four") };
    let ratio = |other: &Contender<'_>| {
        Check::without_target(
            &format!("requests/s, {} to no file", other.name),
            &other.throughput(),
            &plain.throughput(),
        )
    };
    Ok(Part {
        title: "disk",
        note: format!(
            "The requests of *singles*, each contender on a service and a Redis of its own. *No file* is `post` there. Medians of {} \
             rounds of {} s.",
            plan.rounds, plan.seconds
        ),
        columns: Contender::COLUMNS.to_vec(),
        rows,
        checks: others.iter().map(ratio).collect(),
    })
}
