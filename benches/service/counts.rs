//! One count a request: `GET /segments/<name>/count` beside a plain axum handler and webdis, and of small and large
//! segments.

use segment_estimator::domain::{Timestamp, Window};

use crate::contender::{Contender, run_in_turns};
use crate::plan::Plan;
use crate::random::Random;
use crate::report::{Check, Part, thousands};
use crate::requests::RequestFile;
use crate::servers::{Plain, Redis, Service, Webdis, key};
use crate::wrk::CONNECTIONS;
use crate::{Result, loader, progress};

/// Segments whose counts the contenders return.
const SEGMENTS: u64 = 20;
/// The names of the service's counts of one segment.
const SINGLE_SEGMENTS: [&str; 2] = ["one small segment", "one large segment"];

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let service = Service::start(plan, &redis)?;
    let plain = Plain::start(plan, &redis, 1)?;
    let plain_of_two = Plain::start(plan, &redis, 2)?;
    let webdis = Webdis::start(plan, &redis)?;
    let baseline = Service::start_baseline(plan, &redis)?;
    let sizes = &plan.sizes;
    let now = Timestamp::now().as_millis();
    let cutoff = now / 1000 - Window::parse("14d")?.as_secs() as i64;

    progress(&format!("counts: filling {SEGMENTS} segments with {} members", thousands(sizes.counted as f64)));
    let names: Vec<String> = (0..SEGMENTS).map(|number| format!("counted-{number:02}")).collect();
    for name in &names {
        fill(&redis, name, sizes.counted, now)?;
    }
    for (name, members) in SINGLE_SEGMENTS.iter().zip(sizes.smallest_and_largest) {
        progress(&format!("counts: filling {name} with {} members", thousands(members as f64)));
        fill(&redis, &name.replace(' ', "-"), members, now)?;
    }
    let paths = |name: &String| format!("/segments/{name}/count");
    let counts = RequestFile::gets(&plan.folder, "counts", names.iter().map(paths).collect())?;
    let zcount = |name: &String| format!("/ZCOUNT/{}/%28{cutoff}/%2Binf", key(name).replace(':', "%3A"));
    let zcounts = RequestFile::gets(&plan.folder, "zcounts", names.iter().map(zcount).collect())?;
    let [small, large] = SINGLE_SEGMENTS.map(|name| {
        let name = name.replace(' ', "-");
        RequestFile::gets(&plan.folder, &name, vec![paths(&name)])
    });
    let (small, large) = (small?, large?);

    let count = sizes.counted;
    let mut contenders = vec![
        Contender::counts("count", &redis, &service, &counts, count),
        Contender::counts("plain", &redis, &plain, &counts, count),
        Contender::counts("plain, 2 threads", &redis, &plain_of_two, &counts, count),
        Contender::counts("webdis", &redis, &webdis, &zcounts, count),
        Contender::counts(SINGLE_SEGMENTS[0], &redis, &service, &small, sizes.smallest_and_largest[0]),
        Contender::counts(SINGLE_SEGMENTS[1], &redis, &service, &large, sizes.smallest_and_largest[1]),
    ];
    let baseline = baseline.as_ref().map(|service| Contender::counts("baseline", &redis, service, &counts, count));
    contenders.extend(baseline);
    run_in_turns(plan, "counts", &mut contenders)?;
    report(plan, &contenders)
}

/// Fills a segment with members that were seen in the last 13 days, so that they count throughout the part.
fn fill(redis: &Redis, name: &str, members: u64, now: i64) -> Result<()> {
    const THIRTEEN_DAYS: u64 = 13 * 24 * 60 * 60 * 1000;
    let mut random = Random::new(members);
    loader::fill(redis.address, &key(name), members, |_| now - random.below(THIRTEEN_DAYS) as i64)
}

fn report(plan: &Plan, contenders: &[Contender<'_>]) -> Result<Part> {
    let [count, plain, plain_of_two, webdis, small, large, baseline @ ..] = contenders else {
        unreachable!("there are six and perhaps a baseline")
    };
    let requests = count.throughput();
    let mut checks = vec![
        Check::at_least("requests/s, count to plain", &requests, &plain.throughput(), 1.1),
        Check::at_most("CPU a request with Redis's, count to plain", &count.cpu(), &plain.cpu(), 0.85),
        Check::at_most("p99, count to plain", &count.p99(), &plain.p99(), 1.0),
        Check::without_target("requests/s, count to plain of 2 threads", &requests, &plain_of_two.throughput()),
        Check::without_target("requests/s, count to webdis", &requests, &webdis.throughput()),
        Check::at_most("p50, one large segment to one small segment", &large.p50(), &small.p50(), 1.3),
    ];
    checks.extend(baseline.iter().flat_map(|baseline| count.checks_to_baseline(baseline)));
    let [smallest, largest] = plan.sizes.smallest_and_largest.map(|members| thousands(members as f64));
    Ok(Part {
        title: "counts",
        note: format!(
            "{CONNECTIONS} connections count one of {SEGMENTS} segments of {} members a request: *count* is \
             `GET /segments/{{name}}/count`, *plain* the handler of `benches/service/plain.rs` on one thread with a `ZCOUNT`, \
             *webdis* a `ZCOUNT` through webdis. *one small segment* has {smallest} members, *one large segment* {largest}. \
             Members were seen at random times of the last 13 days. Medians of {} rounds of {} s.",
            thousands(plan.sizes.counted as f64),
            plan.rounds,
            plan.seconds
        ),
        columns: Contender::COLUMNS.to_vec(),
        rows: contenders.iter().map(Contender::row).collect::<Result<_>>()?,
        checks,
    })
}
