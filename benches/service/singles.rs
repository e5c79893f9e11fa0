//! One visit a request: `POST /segments` beside its own floor, a plain axum handler, webdis and redis-benchmark.

use crate::Result;
use crate::contender::{Contender, run_in_turns};
use crate::plan::Plan;
use crate::report::{Check, Part};
use crate::requests::RequestFile;
use crate::servers::{Plain, Redis, Service, Webdis};
use crate::wrk::CONNECTIONS;

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let service = Service::start(plan, &redis)?;
    let plain = Plain::start(plan, &redis, 1)?;
    let plain_of_two = Plain::start(plan, &redis, 2)?;
    let webdis = Webdis::start(plan, &redis)?;
    let baseline = Service::start_baseline(plan, &redis)?;

    let count = plan.sizes.requests;
    let posts = RequestFile::posts(&plan.folder, count)?;
    let expired = RequestFile::expired_posts(&plan.folder, count)?;
    let zadds = RequestFile::webdis_zadds(&plan.folder, count)?;

    let mut contenders = vec![
        Contender::writes("post", &redis, &service, &posts),
        Contender::writes("plain", &redis, &plain, &posts),
        Contender::writes("plain, 2 threads", &redis, &plain_of_two, &posts),
        Contender::writes_nothing("floor", &redis, &service, &expired),
        Contender::writes("webdis", &redis, &webdis, &zadds),
        Contender::redis_benchmark(&redis),
    ];
    contenders.extend(baseline.as_ref().map(|service| Contender::writes("baseline", &redis, service, &posts)));
    run_in_turns(plan, "singles", &mut contenders)?;
    report(plan, &contenders)
}

fn report(plan: &Plan, contenders: &[Contender<'_>]) -> Result<Part> {
    let rows = contenders.iter().map(Contender::row).collect::<Result<_>>()?;
    let [post, plain, plain_of_two, floor, webdis, redis_benchmark, baseline @ ..] = contenders else {
        unreachable!("there are six and perhaps a baseline")
    };
    let (requests, cpu, p99) = (post.throughput(), post.cpu(), post.p99());
    let mut checks = vec![
        Check::at_least("requests/s, post to plain", &requests, &plain.throughput(), 1.2),
        Check::at_most("CPU a request with Redis's, post to plain", &cpu, &plain.cpu(), 0.8),
        Check::at_most("p99, post to plain", &p99, &plain.p99(), 1.0),
        Check::without_target("requests/s, post to plain of 2 threads", &requests, &plain_of_two.throughput()),
        Check::at_least("requests/s, post to floor", &requests, &floor.throughput(), 0.9),
        Check::at_least("requests/s, post to webdis", &requests, &webdis.throughput(), 1.3),
        Check::at_most("CPU a request with Redis's, post to webdis", &cpu, &webdis.cpu(), 0.65),
        Check::without_target("requests/s, post to redis-benchmark", &requests, &redis_benchmark.throughput()),
    ];
    checks.extend(baseline.iter().flat_map(|baseline| post.checks_to_baseline(baseline)));
    Ok(Part {
        title: "singles",
        note: format!(
            "{CONNECTIONS} connections, one visit a request, random users (2,000,000) and segments (200). *plain* is the axum \
             handler of `benches/service/plain.rs` on one thread: JSON, a `ConnectionManager`, one `ZADD` a request. *floor* is \
             the same request to the service with a visit that has expired: read, checked, answered and not written. *webdis* \
             gets the `ZADD` that the service would send. *redis-benchmark* sends `ZADD`s without HTTP, of 200 users. \
             Medians of {} rounds of {} s. Peak memory is that of the server of HTTP over all rounds.",
            plan.rounds, plan.seconds
        ),
        columns: Contender::COLUMNS.to_vec(),
        rows,
        checks,
    })
}
