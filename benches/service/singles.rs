//! One visit a request: `POST /segments` beside its own floor, webdis and redis-benchmark.

use std::time::{Duration, Instant};

use segment_estimator::domain::Timestamp;

use crate::plan::Plan;
use crate::processes::{self, Process};
use crate::report::{Check, Part, mebibytes, median, milliseconds, thousands};
use crate::requests::{RequestFile, score};
use crate::servers::{Redis, Service, Webdis};
use crate::wrk::{self, CONNECTIONS};
use crate::{Result, http, progress};

/// What one contender did in one round. CPU times are microseconds a request.
struct Sample {
    throughput: f64,
    p50: f64,
    p99: f64,
    front_cpu: f64,
    redis_cpu: f64,
    client_cpu: f64,
}

/// A contender and its rounds.
pub struct Contender<'a> {
    pub name: &'static str,
    redis: &'a Redis,
    load: Source<'a>,
    samples: Vec<Sample>,
}

/// Where a contender's load comes from, and what it goes to.
pub enum Source<'a> {
    Wrk { front: &'a Process, address: std::net::SocketAddr, requests: &'a RequestFile, status: u16 },
    RedisBenchmark,
}

impl<'a> Source<'a> {
    /// Posts to the service.
    pub fn of_service(service: &'a Service, requests: &'a RequestFile) -> Self {
        Self::Wrk { front: &service.process, address: service.address, requests, status: 204 }
    }
}

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let service = Service::start(plan, &redis)?;
    let webdis = Webdis::start(plan, &redis)?;

    let count = plan.sizes.requests;
    let a_month = Duration::from_secs(30 * 24 * 60 * 60).as_millis() as i64;
    let long_ago = Timestamp::from_millis(Timestamp::now().as_millis() - a_month);
    let posts = RequestFile::posts(&plan.folder, count, None)?;
    let expired = RequestFile::posts(&plan.folder, count, Some(long_ago))?;
    let zadds = RequestFile::webdis_zadds(&plan.folder, count)?;

    let contender = Contender::new;
    let mut contenders = [
        contender("post", &redis, Source::of_service(&service, &posts)),
        contender("floor", &redis, Source::of_service(&service, &expired)),
        contender(
            "webdis",
            &redis,
            Source::Wrk { front: &webdis.process, address: webdis.address, requests: &zadds, status: 200 },
        ),
        contender("redis-benchmark", &redis, Source::RedisBenchmark),
    ];
    run_in_turns(plan, "singles", &mut contenders)?;
    report(plan, &contenders)
}

/// Has each contender run once a round, after it was seen to work.
pub fn run_in_turns(plan: &Plan, part: &str, contenders: &mut [Contender<'_>]) -> Result<()> {
    for contender in contenders.iter() {
        contender.try_once()?;
    }
    for round in 1..=plan.rounds {
        for contender in contenders.iter_mut() {
            let sample = contender.run(plan)?;
            progress(&format!(
                "{part}, round {round} of {}: {}, {} requests/s",
                plan.rounds,
                contender.name,
                thousands(sample.throughput)
            ));
            contender.samples.push(sample);
        }
    }
    Ok(())
}

impl<'a> Contender<'a> {
    /// The columns of [`Self::row`].
    pub const COLUMNS: [&'static str; 8] = [
        "contender",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "its CPU µs/request",
        "Redis CPU µs/request",
        "client CPU µs/request",
        "peak memory",
    ];

    /// A contender that has yet to run.
    pub fn new(name: &'static str, redis: &'a Redis, load: Source<'a>) -> Self {
        Self { name, redis, load, samples: Vec::new() }
    }

    /// What it did, as medians.
    pub fn row(&self) -> Result<Vec<String>> {
        let (front_cpu, memory) = match &self.load {
            Source::Wrk { front, .. } => {
                (format!("{:.1}", self.median(|sample| sample.front_cpu)), mebibytes(front.peak_memory()? as f64))
            }
            Source::RedisBenchmark => (String::new(), String::new()),
        };
        Ok(vec![
            self.name.to_owned(),
            thousands(self.median(|sample| sample.throughput)),
            milliseconds(self.median(|sample| sample.p50)),
            milliseconds(self.median(|sample| sample.p99)),
            front_cpu,
            format!("{:.1}", self.median(|sample| sample.redis_cpu)),
            format!("{:.1}", self.median(|sample| sample.client_cpu)),
            memory,
        ])
    }

    /// Requests a second of each round.
    pub fn throughput(&self) -> Vec<f64> {
        self.rounds(|sample| sample.throughput)
    }

    /// Sees that one request has the effect it should, before a load of them is timed.
    fn try_once(&self) -> Result<()> {
        let Source::Wrk { address, requests, status, .. } = &self.load else { return Ok(()) };
        self.redis.empty()?;
        let answer = http::ask(*address, &requests.first)?;
        let members = self.redis.members()?;
        if answer.status != *status || members != u64::from(self.name != "floor") {
            return Err(format!("{} left {members} members in Redis and answered {answer:?}", self.name).into());
        }
        Ok(())
    }

    fn run(&self, plan: &Plan) -> Result<Sample> {
        self.redis.empty()?;
        let redis_before = self.redis.process.cpu()?;
        let per = |cpu: Duration, requests: f64| cpu.as_secs_f64() * 1e6 / requests;
        let redis_since = || Ok::<_, Box<dyn std::error::Error>>(self.redis.process.cpu()? - redis_before);
        match &self.load {
            Source::Wrk { front, address, requests, .. } => {
                let front_before = front.cpu()?;
                let measured = wrk::run(self.name, *address, requests, plan.seconds)?;
                Ok(Sample {
                    throughput: measured.throughput(),
                    p50: measured.p50,
                    p99: measured.p99,
                    front_cpu: per(front.cpu()? - front_before, measured.requests),
                    redis_cpu: per(redis_since()?, measured.requests),
                    client_cpu: measured.wrk_cpu,
                })
            }
            Source::RedisBenchmark => {
                let measured = run_redis_benchmark(plan, self.redis)?;
                let redis_cpu = per(redis_since()?, measured.requests);
                let (p50, p99, client_cpu) = (measured.p50, measured.p99, measured.cpu);
                Ok(Sample { throughput: measured.throughput, p50, p99, front_cpu: 0.0, redis_cpu, client_cpu })
            }
        }
    }

    fn rounds(&self, figure: fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(figure).collect()
    }

    fn median(&self, figure: fn(&Sample) -> f64) -> f64 {
        median(self.rounds(figure))
    }
}

/// What redis-benchmark says of itself.
struct Benchmarked {
    requests: f64,
    throughput: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

/// `ZADD`s of random users into random segments, one a round trip, without HTTP.
///
/// redis-benchmark has one range for all random words of a command, so it can't choose among 200 segments and 2,000,000
/// users at once. Of what it can do (all users in one segment, a new segment for each, 200 users in each of 200 segments)
/// this is what costs Redis least, 2.6-3.1 us a command against up to 5.7, and all but the first 40,000 find their
/// member as it is: so redis-benchmark is favoured, if anybody is.
fn run_redis_benchmark(plan: &Plan, redis: &Redis) -> Result<Benchmarked> {
    /// About what it sends in a second.
    const REQUESTS_A_SECOND: u64 = 60_000;
    let requests = REQUESTS_A_SECOND * plan.seconds;
    let mut command = processes::command("redis-benchmark");
    command.args(["-p", &redis.address.port().to_string(), "-c", &CONNECTIONS.to_string(), "-P", "1"]);
    command.args(["-n", &requests.to_string(), "-r", "200", "--csv"]);
    let score = score(Timestamp::now().as_millis());
    command.args(["ZADD", "segment:segment-__rand_int__", "GT", &score, "u__rand_int__"]);
    let mut process = Process::start("redis-benchmark", command, &plan.folder)?;
    let (mut cpu, started) = (Duration::ZERO, Instant::now());
    let mut watched = started.elapsed();
    while process.is_running()? {
        (cpu, watched) = (process.cpu().unwrap_or(cpu), started.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = process.output()?;
    // The name of the test, requests a second, then milliseconds: mean, least, p50, p95, p99, most.
    let fields: Vec<f64> = output
        .lines()
        .last()
        .unwrap_or_default()
        .split(',')
        .skip(1)
        .filter_map(|field| field.trim_matches('"').parse().ok())
        .collect();
    let &[throughput, _, _, p50, _, p99, _] = fields.as_slice() else {
        return Err(format!("redis-benchmark has no result:\n{output}").into());
    };
    let requests = requests as f64;
    let cpu = cpu.as_secs_f64() * 1e6 / (throughput * watched.as_secs_f64()).min(requests);
    Ok(Benchmarked { requests, throughput, p50: p50 * 1e3, p99: p99 * 1e3, cpu })
}

fn report(plan: &Plan, contenders: &[Contender<'_>; 4]) -> Result<Part> {
    let rows = contenders.iter().map(Contender::row).collect::<Result<_>>()?;
    let cpu = |contender: &Contender<'_>| contender.rounds(|sample| sample.front_cpu + sample.redis_cpu);
    let p99 = |contender: &Contender<'_>| contender.rounds(|sample| sample.p99);
    let [post, floor, webdis, redis_benchmark] = contenders;
    Ok(Part {
        title: "singles",
        note: format!(
            "{CONNECTIONS} connections, one visit a request, random users (2,000,000) and segments (200). *floor* is \
             the same request with a visit that has expired: read, checked, answered and not written. *webdis* gets \
             the `ZADD` that the service would send. *redis-benchmark* sends `ZADD`s without HTTP, of 200 users. \
             Medians of {} rounds of {} s; peak memory is that of the \
             service or of webdis over all rounds.",
            plan.rounds, plan.seconds
        ),
        columns: Contender::COLUMNS.to_vec(),
        rows,
        checks: vec![
            Check::at_least("requests/s, post to floor", &post.throughput(), &floor.throughput(), 0.9),
            Check::at_least("requests/s, post to webdis", &post.throughput(), &webdis.throughput(), 1.4),
            Check::at_most("CPU a request with Redis's, post to webdis", &cpu(post), &cpu(webdis), 0.8),
            Check::at_most("p99, post to webdis", &p99(post), &p99(webdis), 1.0),
            Check::at_least(
                "requests/s, post to redis-benchmark",
                &post.throughput(),
                &redis_benchmark.throughput(),
                0.9,
            ),
        ],
    })
}
