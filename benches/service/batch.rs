//! A million visits in one request, compared with the bare loader.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use segment_estimator::domain::Timestamp;

use crate::http::{self, Answer};
use crate::loader::{self, Member, Pipeline};
use crate::plan::Plan;
use crate::random::Random;
use crate::report::{Check, Part, median, thousands};
use crate::requests::{SEGMENTS, segment, user};
use crate::servers::{Redis, Service, key};
use crate::{Result, progress};

/// Users of batches.
const USERS: u64 = 500_000;
const SEED: u64 = 2;

/// One contender's figures of one round. CPU times are in microseconds per visit.
struct Sample {
    throughput: f64,
    front_cpu: f64,
    redis_cpu: f64,
}

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let service = Service::start(plan, &redis)?;
    let count = plan.sizes.batch_lines;
    let mut body = String::new();
    Lines::new(SEED).take(count as usize).for_each(|line| line.write_to(&mut body));

    let (mut batch, mut bare) = (Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        redis.empty()?;
        let (front_before, redis_before) = (service.process.cpu()?, redis.process.cpu()?);
        let started = Instant::now();
        let mut request = Batch::begin(service.address, count)?;
        request.send(body.as_bytes())?;
        request.end()?;
        let took = started.elapsed();
        let front_cpu = service.process.cpu()? - front_before;
        batch.push(Sample::of(count, took, front_cpu, redis.process.cpu()? - redis_before));
        let members = redis.members()?;

        redis.empty()?;
        let pipelines = prebuilt(SEED, count);
        let redis_before = redis.process.cpu()?;
        let started = Instant::now();
        loader::send(redis.address, pipelines.into_iter())?;
        let took = started.elapsed();
        bare.push(Sample::of(count, took, Duration::ZERO, redis.process.cpu()? - redis_before));
        if redis.members()? != members {
            return Err(format!("the batch left {members} members and the loader {}", redis.members()?).into());
        }
        let rate = |samples: &[Sample]| samples.last().map_or_else(String::new, |last| thousands(last.throughput));
        progress(&format!(
            "batch, round {round} of {}: {} visits/s, bare loader {}",
            plan.rounds,
            rate(&batch),
            rate(&bare)
        ));
    }
    Ok(report(plan, &batch, &bare))
}

impl Sample {
    fn of(visits: u64, took: Duration, front_cpu: Duration, redis_cpu: Duration) -> Self {
        let visits = visits as f64;
        Self {
            throughput: visits / took.as_secs_f64(),
            front_cpu: front_cpu.as_secs_f64() * 1e6 / visits,
            redis_cpu: redis_cpu.as_secs_f64() * 1e6 / visits,
        }
    }
}

/// Returns the pipelines of the bare loader: the first lines of `seed`, with times that rise at the usual rate of
/// visits.
pub fn prebuilt(seed: u64, count: u64) -> Vec<Pipeline> {
    const A_MILLISECOND: i64 = 400;
    let now = Timestamp::now().as_millis();
    let members: Vec<_> = Lines::new(seed)
        .take(count as usize)
        .zip(0..)
        .map(|(line, number)| Member {
            key: key(&segment(line.segment)),
            millis: now + number / A_MILLISECOND,
            user: user(line.user),
        })
        .collect();
    members.chunks(loader::VISITS).map(Pipeline::of).collect()
}

fn report(plan: &Plan, batch: &[Sample], bare: &[Sample]) -> Part {
    let of = |samples: &[Sample], figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
    let row = |name: &str, samples: &[Sample], front_cpu: String| {
        let redis_cpu = format!("{:.2}", of(samples, |sample| sample.redis_cpu));
        vec![name.to_owned(), thousands(of(samples, |sample| sample.throughput)), front_cpu, redis_cpu]
    };
    let front_cpu = of(batch, |sample| sample.front_cpu);
    let throughput = |samples: &[Sample]| samples.iter().map(|sample| sample.throughput).collect::<Vec<_>>();
    Part {
        title: "batch",
        note: format!(
            "{} lines of NDJSON in one `POST /segments/batch` over one connection, random users (500,000) and segments \
             (200). *bare loader* sends the same `ZADD`s, built in advance, with as many per pipeline and as many pipelines \
             in flight, and does nothing else. Medians of {} rounds.",
            thousands(plan.sizes.batch_lines as f64),
            plan.rounds
        ),
        columns: vec!["contender", "visits/s", "service CPU µs/visit", "Redis CPU µs/visit"],
        rows: vec![row("batch", batch, format!("{front_cpu:.2}")), row("bare loader", bare, String::new())],
        checks: vec![
            Check::at_least("visits/s, batch to bare loader", &throughput(batch), &throughput(bare), 1.0),
            Check::of("service CPU a visit", format!("{front_cpu:.2} µs"), "≤ 0.20 µs", front_cpu <= 0.2),
        ],
    }
}

/// One line of a batch.
pub struct Line {
    user: u64,
    segment: u64,
}

impl Line {
    /// Appends it as JSON with its end. Every line has [`Line::BYTES`].
    pub fn write_to(&self, text: &mut String) {
        let (user, segment) = (user(self.user), segment(self.segment));
        // Writing to a String can't fail.
        let _ = writeln!(text, r#"{{"user_id":"{user}","segment":"{segment}"}}"#);
    }

    const BYTES: u64 = r#"{"user_id":"u0001234","segment":"segment-042"}"#.len() as u64 + 1;
}

/// An endless sequence of random lines.
pub struct Lines(Random);

impl Lines {
    /// Returns the lines of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }
}

impl Iterator for Lines {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        Some(Line { user: self.0.below(USERS), segment: self.0.below(SEGMENTS) })
    }
}

/// A batch that is being sent.
pub struct Batch {
    stream: TcpStream,
    lines: u64,
}

impl Batch {
    /// Sends the head of a request that has so many lines.
    pub fn begin(service: SocketAddr, lines: u64) -> Result<Self> {
        let mut stream = TcpStream::connect(service)?;
        stream.set_nodelay(true)?;
        let length = lines * Line::BYTES;
        let head = format!(
            "POST /segments/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        Ok(Self { stream, lines })
    }

    /// Sends some of the lines.
    pub fn send(&mut self, lines: &[u8]) -> Result<()> {
        self.stream.write_all(lines).or_else(|error| {
            // The server may have answered why it closed the connection.
            let answer: Answer = http::read_answer(self.stream.try_clone()?)?;
            Err(format!("the service aborted the batch: {error}; it answered {answer:?}").into())
        })
    }

    /// Waits for the answer: every line must have been accepted.
    pub fn end(self) -> Result<()> {
        let answer = http::read_answer(self.stream)?;
        let report: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if answer.status != 200 || report["accepted"] != self.lines {
            return Err(format!("the service did not accept {} lines: {answer:?}", self.lines).into());
        }
        Ok(())
    }
}
