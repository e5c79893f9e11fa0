//! Contenders: a server under the load of wrk or redis-benchmark, round by round in turns with the others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use segment_estimator::domain::Timestamp;

use crate::http::Answer;
use crate::plan::Plan;
use crate::processes::{self, Process};
use crate::report::{Check, mebibytes, median, milliseconds, thousands};
use crate::requests::{RequestFile, score};
use crate::servers::{Plain, Redis, Service, Webdis};
use crate::wrk::{CONNECTIONS, Load};
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
    source: Source<'a>,
    effect: Effect,
    samples: Vec<Sample>,
}

/// Where the load comes from, and where it goes.
enum Source<'a> {
    Wrk { target: Target<'a>, requests: &'a RequestFile, connections: usize },
    RedisBenchmark,
}

/// A server of HTTP, and the status of its responses.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    process: &'a Process,
    address: SocketAddr,
    status: u16,
}

impl<'a> From<&'a Service> for Target<'a> {
    fn from(service: &'a Service) -> Self {
        Self { process: &service.process, address: service.address, status: 204 }
    }
}

impl<'a> From<&'a Plain> for Target<'a> {
    fn from(plain: &'a Plain) -> Self {
        Self { process: &plain.process, address: plain.address, status: 204 }
    }
}

impl<'a> From<&'a Webdis> for Target<'a> {
    fn from(webdis: &'a Webdis) -> Self {
        Self { process: &webdis.process, address: webdis.address, status: 200 }
    }
}

/// What each request does.
#[derive(Clone, Copy)]
enum Effect {
    /// Writes a member. Redis is emptied before each round.
    Writes,
    /// Is accepted, and writes nothing.
    WritesNothing,
    /// Is accepted. Redis keeps what it has, and a sample of the visits.
    IsSampled,
    /// Returns this count. Redis keeps what it has.
    Counts(u64),
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

    fn new(name: &'static str, redis: &'a Redis, source: Source<'a>, effect: Effect) -> Self {
        Self { name, redis, source, effect, samples: Vec::new() }
    }

    /// Requests that write a visit each.
    pub fn writes(
        name: &'static str,
        redis: &'a Redis,
        target: impl Into<Target<'a>>,
        requests: &'a RequestFile,
    ) -> Self {
        let source = Source::Wrk { target: target.into(), requests, connections: CONNECTIONS };
        Self::new(name, redis, source, Effect::Writes)
    }

    /// Requests that are read, checked and answered, and write nothing.
    pub fn writes_nothing(
        name: &'static str,
        redis: &'a Redis,
        service: &'a Service,
        requests: &'a RequestFile,
    ) -> Self {
        Self { effect: Effect::WritesNothing, ..Self::writes(name, redis, service, requests) }
    }

    /// Requests that write a visit each, if a sample keeps it.
    pub fn is_sampled(name: &'static str, redis: &'a Redis, service: &'a Service, requests: &'a RequestFile) -> Self {
        Self { effect: Effect::IsSampled, ..Self::writes(name, redis, service, requests) }
    }

    /// Requests that return `count`.
    pub fn counts(
        name: &'static str,
        redis: &'a Redis,
        target: impl Into<Target<'a>>,
        requests: &'a RequestFile,
        count: u64,
    ) -> Self {
        let target = Target { status: 200, ..target.into() };
        let source = Source::Wrk { target, requests, connections: CONNECTIONS };
        Self::new(name, redis, source, Effect::Counts(count))
    }

    /// redis-benchmark, without a server of HTTP.
    pub fn redis_benchmark(redis: &'a Redis) -> Self {
        Self::new("redis-benchmark", redis, Source::RedisBenchmark, Effect::Writes)
    }

    /// The same with another number of connections.
    pub fn with_connections(mut self, number: usize) -> Self {
        if let Source::Wrk { connections, .. } = &mut self.source {
            *connections = number;
        }
        self
    }

    /// Returns the medians of its rounds.
    pub fn row(&self) -> Result<Vec<String>> {
        let (front_cpu, memory) = match &self.source {
            Source::Wrk { target, .. } => {
                (format!("{:.1}", median(self.front_cpu())), mebibytes(target.process.peak_memory()? as f64))
            }
            Source::RedisBenchmark => (String::new(), String::new()),
        };
        Ok(vec![
            self.name.to_owned(),
            thousands(median(self.throughput())),
            milliseconds(median(self.p50())),
            milliseconds(median(self.p99())),
            front_cpu,
            format!("{:.1}", median(self.rounds(|sample| sample.redis_cpu))),
            format!("{:.1}", median(self.rounds(|sample| sample.client_cpu))),
            memory,
        ])
    }

    /// Requests a second of each round.
    pub fn throughput(&self) -> Vec<f64> {
        self.rounds(|sample| sample.throughput)
    }

    /// CPU time of the server and Redis for a request, of each round.
    pub fn cpu(&self) -> Vec<f64> {
        self.rounds(|sample| sample.front_cpu + sample.redis_cpu)
    }

    /// CPU time of the server for a request, of each round.
    pub fn front_cpu(&self) -> Vec<f64> {
        self.rounds(|sample| sample.front_cpu)
    }

    /// Median time to a response, of each round.
    pub fn p50(&self) -> Vec<f64> {
        self.rounds(|sample| sample.p50)
    }

    /// 99th percentile of the time to a response, of each round.
    pub fn p99(&self) -> Vec<f64> {
        self.rounds(|sample| sample.p99)
    }

    /// What it must keep of the throughput of `baseline`, and may take more of CPU time.
    pub fn checks_to_baseline(&self, baseline: &Self) -> [Check; 2] {
        let (name, throughput) = (self.name, baseline.throughput());
        [
            Check::at_least(format!("requests/s, {name} to baseline"), &self.throughput(), &throughput, 0.95),
            Check::at_most(
                format!("CPU a request with Redis's, {name} to baseline"),
                &self.cpu(),
                &baseline.cpu(),
                1.05,
            ),
        ]
    }

    fn rounds(&self, figure: fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(figure).collect()
    }

    /// Checks that one request has its effect, before a load of them is timed.
    fn try_once(&self) -> Result<()> {
        let Source::Wrk { target, requests, .. } = &self.source else { return Ok(()) };
        self.prepare_redis()?;
        let answer = http::ask(target.address, &requests.first)?;
        let is_right = answer.status == target.status
            && match self.effect {
                Effect::Writes => self.redis.members()? == 1,
                Effect::WritesNothing => self.redis.members()? == 0,
                Effect::IsSampled => true,
                Effect::Counts(count) => is_count(&answer, count),
            };
        if is_right { Ok(()) } else { Err(format!("{} answered {answer:?}", self.name).into()) }
    }

    fn prepare_redis(&self) -> Result<()> {
        match self.effect {
            Effect::Writes | Effect::WritesNothing => self.redis.empty(),
            Effect::IsSampled | Effect::Counts(_) => Ok(()),
        }
    }

    fn run(&self, plan: &Plan) -> Result<Sample> {
        self.prepare_redis()?;
        let redis_before = self.redis.process.cpu()?;
        let per = |cpu: Duration, requests: f64| cpu.as_secs_f64() * 1e6 / requests;
        let redis_since = || Ok::<_, Box<dyn std::error::Error>>(self.redis.process.cpu()? - redis_before);
        match &self.source {
            Source::Wrk { target, requests, connections } => {
                let front_before = target.process.cpu()?;
                let load = Load::start(self.name, target.address, *connections, requests, plan.seconds)?;
                let measured = load.finish()?;
                Ok(Sample {
                    throughput: measured.throughput(),
                    p50: measured.p50,
                    p99: measured.p99,
                    front_cpu: per(target.process.cpu()? - front_before, measured.requests),
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
}

/// Whether `answer` is `count`, as the service or webdis writes it.
fn is_count(answer: &Answer, count: u64) -> bool {
    let document: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    document["count"] == count || document["ZCOUNT"] == count
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
/// users at once. Of what it can do (all users in one segment, a new segment for each, 200 users in each of 200
/// segments) this is what costs Redis least, 2.6-3.1 us a command against up to 5.7, and all but the first 40,000 find
/// their member as it is: so redis-benchmark is favoured, if anybody is.
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
