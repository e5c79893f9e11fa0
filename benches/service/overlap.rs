//! The duration of an overlap, and the latency of posts during it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use segment_estimator::domain::Timestamp;
use serde_json::Value;

use crate::plan::Plan;
use crate::report::{Check, Part, median, milliseconds, thousands};
use crate::requests::{self, RequestFile};
use crate::servers::{Redis, Service, key};
use crate::wrk::{self, CONNECTIONS, Measured};
use crate::{Result, http, loader, progress};

/// The segments.
const NAMES: [&str; 2] = ["left", "right"];
/// The period in which their members were seen: 13 days.
const SPAN: u64 = 13 * 24 * 60 * 60 * 1000;

/// An overlap without other load.
struct Alone {
    /// Its duration in seconds.
    seconds: f64,
    /// The longest command in Redis, in microseconds.
    longest: f64,
}

/// A load, and the overlaps during it.
struct Round {
    load: Measured,
    /// The duration of each overlap, in seconds.
    overlaps: Vec<f64>,
    /// The longest command in Redis, in microseconds.
    longest: f64,
}

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    // A threshold of a tenth of a millisecond, which the command of a single visit doesn't reach.
    let slow = ["--appendonly", "no", "--slowlog-log-slower-than", "100", "--slowlog-max-len", "100000"];
    let redis = Redis::start_with(plan, &slow)?;
    let members = plan.sizes.overlapping;
    let now = Timestamp::now().as_millis();
    for (name, first) in NAMES.into_iter().zip([0, members / 2]) {
        let seen_at = |member: u64| now - (member.wrapping_mul(7_919_111) % SPAN) as i64;
        loader::fill_with(redis.address, &key(name), first..first + members, seen_at)?;
    }
    let service = Service::start(plan, &redis)?;
    let posts = RequestFile::posts(&plan.folder, plan.sizes.requests)?;
    let (mut alone, mut without, mut during) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        redis.call::<()>(&["SLOWLOG", "RESET"])?;
        alone.push(Alone { seconds: ask(&service, members)?, longest: longest(&redis)? });
        let quiet = load(plan, &redis, &service, &posts, false)?;
        let loaded = load(plan, &redis, &service, &posts, true)?;
        progress(&format!(
            "overlap, round {round} of {}: {:.2} s alone, Redis held for {} ms; {:.2} s under load; p99 of post {} ms \
             meanwhile, {} without; Redis held for {} ms",
            plan.rounds,
            alone[alone.len() - 1].seconds,
            milliseconds(alone[alone.len() - 1].longest),
            median(loaded.overlaps.iter().copied()),
            milliseconds(loaded.load.p99),
            milliseconds(quiet.load.p99),
            milliseconds(loaded.longest),
        ));
        without.push(quiet);
        during.push(loaded);
    }
    Ok(report(plan, &alone, &without, &during))
}

/// Requests the overlap and checks it. Returns the seconds.
fn ask(service: &Service, members: u64) -> Result<f64> {
    let request = requests::get(&format!("/overlap?segment={}&segment={}", NAMES[0], NAMES[1]));
    let asked = Instant::now();
    let answer = http::ask(service.address, request.as_bytes())?;
    let took = asked.elapsed().as_secs_f64();
    let document: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let shared = members - members / 2;
    if answer.status != 200 || document["all"] != shared || document["any"] != 2 * members - shared {
        return Err(format!("the overlap of {shared} members was answered with {answer:?}").into());
    }
    Ok(took)
}

/// Posts visits, with or without overlaps one after the other.
fn load(plan: &Plan, redis: &Redis, service: &Service, posts: &RequestFile, overlaps: bool) -> Result<Round> {
    redis.call::<()>(&["SLOWLOG", "RESET"])?;
    let is_over = AtomicBool::new(false);
    let (load, overlaps) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut took = Vec::new();
            while overlaps && !is_over.load(Ordering::Relaxed) {
                took.push(ask(service, plan.sizes.overlapping).map_err(|error| error.to_string())?);
            }
            Ok::<_, String>(took)
        });
        let load = wrk::run("post", service.address, posts, plan.seconds);
        is_over.store(true, Ordering::Relaxed);
        (load, asking.join().map_err(|_| "asking for overlaps panicked".to_owned()))
    });
    Ok(Round { load: load?, overlaps: overlaps??, longest: longest(redis)? })
}

/// Returns the longest command in the slow log of Redis.
fn longest(redis: &Redis) -> Result<f64> {
    let noted: Vec<Vec<redis::Value>> = redis.call(&["SLOWLOG", "GET", "-1"])?;
    let micros = noted.iter().filter_map(|entry| match entry.get(2) {
        Some(redis::Value::Int(micros)) => Some(*micros as f64),
        _ => None,
    });
    Ok(micros.fold(0.0, f64::max))
}

fn report(plan: &Plan, alone: &[Alone], without: &[Round], during: &[Round]) -> Part {
    let of = |rounds: &[Round], figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let p99 = |rounds: &[Round]| rounds.iter().map(|round| round.load.p99).collect::<Vec<_>>();
    let row = |name: &str, rounds: &[Round]| {
        let overlaps: Vec<_> = rounds.iter().flat_map(|round| round.overlaps.iter().copied()).collect();
        vec![
            name.to_owned(),
            thousands(of(rounds, |round| round.load.throughput())),
            milliseconds(of(rounds, |round| round.load.p50)),
            milliseconds(median(p99(rounds))),
            milliseconds(of(rounds, |round| round.load.max)),
            if overlaps.is_empty() { String::new() } else { format!("{:.2}", median(overlaps)) },
            milliseconds(of(rounds, |round| round.longest)),
        ]
    };
    let seconds: Vec<_> = alone.iter().map(|overlap| overlap.seconds).collect();
    let longest: Vec<_> = alone.iter().map(|overlap| overlap.longest).collect();
    let in_seconds = |seconds| format!("{seconds:.2}");
    let mut only_overlaps = vec![String::new(); 7];
    only_overlaps[0] = "overlap alone".to_owned();
    only_overlaps[5] = in_seconds(median(seconds.iter().copied()));
    only_overlaps[6] = milliseconds(median(longest.iter().copied()));
    let members = thousands(plan.sizes.overlapping as f64);
    Part {
        title: "overlap",
        note: format!(
            "`GET /overlap` of two segments of {members} members, half of them in both, and `POST /segments` over \
             {CONNECTIONS} connections: without overlaps, and with one overlap after the other. *Redis held* is the longest \
             command in the slow log of Redis. A load that fills both cores also makes Redis wait for a core. Medians of {} \
             rounds of {} s.",
            plan.rounds, plan.seconds
        ),
        columns: vec!["load", "requests/s", "p50 ms", "p99 ms", "max ms", "overlap s", "Redis held ms"],
        rows: vec![row("visits", without), row("visits, overlaps", during), only_overlaps],
        checks: vec![
            below(&format!("two segments of {members}"), &seconds, in_seconds, "s", 3.0),
            Check::at_most("p99 of post, during overlaps to without", &p99(during), &p99(without), 1.5),
            below("longest command in Redis, of an overlap alone", &longest, milliseconds, "ms", 5_000.0),
        ],
    }
}

/// Checks whether the median of `figures` is below `target`.
fn below(measure: &str, figures: &[f64], written: fn(f64) -> String, unit: &str, target: f64) -> Check {
    let median = median(figures.iter().copied());
    let least = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let most = figures.iter().copied().fold(0.0, f64::max);
    let [figure, least, most, limit] = [median, least, most, target].map(written);
    Check::of(measure, format!("{figure} {unit} ({least}–{most})"), &format!("< {limit} {unit}"), median < target)
}
