//! Counts of small, large and very large segments, beside webdis.

use segment_estimator::domain::{Timestamp, Window};

use crate::plan::Plan;
use crate::random::Random;
use crate::report::{Check, Part, median, milliseconds, thousands};
use crate::requests::RequestFile;
use crate::servers::{Redis, Service, Webdis, key};
use crate::wrk::{self, Measured};
use crate::{Result, http, loader, progress};

/// A segment, the two ways to ask for its count, and their rounds.
struct Counted {
    members: u64,
    service_requests: RequestFile,
    webdis_requests: RequestFile,
    by_service: Vec<Measured>,
    by_webdis: Vec<Measured>,
}

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let service = Service::start(plan, &redis)?;
    let webdis = Webdis::start(plan, &redis)?;
    let now = Timestamp::now().as_millis();
    let window = Window::parse("14d")?.as_secs() as i64;
    let cutoff = now / 1000 - window;

    let mut segments = Vec::new();
    for members in plan.sizes.counted {
        progress(&format!("counts: filling a segment with {} members", thousands(members as f64)));
        let name = format!("segment-of-{members}");
        // Nobody leaves the window while the part runs.
        let thirteen_days = 13 * 24 * 60 * 60 * 1000;
        let mut random = Random::new(members);
        loader::fill(redis.address, &key(&name), members, |_| now - random.below(thirteen_days) as i64)?;
        let path = format!("/segments/{name}/count");
        let zcount = format!("/ZCOUNT/{}/%28{cutoff}/%2Binf", key(&name).replace(':', "%3A"));
        let counted = Counted {
            members,
            service_requests: RequestFile::one_get(&plan.folder, &format!("count-{members}"), &path)?,
            webdis_requests: RequestFile::one_get(&plan.folder, &format!("zcount-{members}"), &zcount)?,
            by_service: Vec::new(),
            by_webdis: Vec::new(),
        };
        counted.try_once(&service, &webdis)?;
        segments.push(counted);
    }
    for round in 1..=plan.rounds {
        for counted in &mut segments {
            let seconds = plan.seconds;
            let by_service = wrk::run("a count", service.address, &counted.service_requests, seconds)?;
            let by_webdis = wrk::run("webdis's ZCOUNT", webdis.address, &counted.webdis_requests, seconds)?;
            progress(&format!(
                "counts, round {round} of {}: {} members, {} requests/s, webdis {}",
                plan.rounds,
                thousands(counted.members as f64),
                thousands(by_service.throughput()),
                thousands(by_webdis.throughput())
            ));
            counted.by_service.push(by_service);
            counted.by_webdis.push(by_webdis);
        }
    }
    Ok(report(plan, &segments))
}

impl Counted {
    /// Sees that both answer with the right number.
    fn try_once(&self, service: &Service, webdis: &Webdis) -> Result<()> {
        let answers = [
            (http::ask(service.address, &self.service_requests.first)?, "count"),
            (http::ask(webdis.address, &self.webdis_requests.first)?, "ZCOUNT"),
        ];
        for (answer, field) in answers {
            let document: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
            if answer.status != 200 || document[field] != self.members {
                return Err(format!("the count of {} members was answered with {answer:?}", self.members).into());
            }
        }
        Ok(())
    }
}

fn report(plan: &Plan, segments: &[Counted]) -> Part {
    let each = |rounds: &[Measured], figure: fn(&Measured) -> f64| rounds.iter().map(figure).collect::<Vec<_>>();
    let of = |rounds: &[Measured], figure: fn(&Measured) -> f64| median(each(rounds, figure));
    let p50 = |counted: &Counted| each(&counted.by_service, |measured| measured.p50);
    let (mut rows, mut checks) = (Vec::new(), Vec::new());
    for counted in segments {
        let members = thousands(counted.members as f64);
        for (name, rounds) in [("service", &counted.by_service), ("webdis", &counted.by_webdis)] {
            rows.push(vec![
                members.clone(),
                name.to_owned(),
                thousands(of(rounds, Measured::throughput)),
                milliseconds(of(rounds, |measured| measured.p50)),
                milliseconds(of(rounds, |measured| measured.p99)),
                format!("{:.1}", of(rounds, |measured| measured.wrk_cpu)),
            ]);
        }
        let (service, webdis) =
            (each(&counted.by_service, Measured::throughput), each(&counted.by_webdis, Measured::throughput));
        checks.push(Check::at_least(format!("requests/s of {members} members, to webdis"), &service, &webdis, 1.3));
    }
    if let [smallest, .., largest] = segments {
        let measure = format!(
            "p50 of {} members, to that of {}",
            thousands(largest.members as f64),
            thousands(smallest.members as f64)
        );
        checks.push(Check::at_most(&measure, &p50(largest), &p50(smallest), 1.3));
    }
    Part {
        title: "counts",
        note: format!(
            "One segment, counted over and over by {} connections: `GET /segments/{{name}}/count`, and `ZCOUNT` through \
             webdis. Members were seen at random times of the last 13 days. Medians of {} rounds of {} s.",
            wrk::CONNECTIONS,
            plan.rounds,
            plan.seconds
        ),
        columns: vec!["members", "contender", "requests/s", "p50 ms", "p99 ms", "client CPU µs/request"],
        rows,
        checks,
    }
}
