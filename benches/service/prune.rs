//! The latency of posts during the removal of expired members.
//!
//! The service prunes by its schedule, so it starts with one that fires once, at a known second. The load begins just
//! before that second and ends when the log says `pruned`. The other loads are as long.

use std::thread::sleep;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use segment_estimator::domain::Timestamp;
use serde_json::Value;

use crate::plan::Plan;
use crate::report::{Check, Part, median, milliseconds, thousands};
use crate::requests::{RequestFile, segment};
use crate::servers::{Redis, Service, key};
use crate::wrk::{CONNECTIONS, Load, Measured};
use crate::{Result, loader, progress};

/// Segments that have expired members.
const SEGMENTS: u64 = 20;
/// The time from the start of a load to the second of the prune, or to the one command. The service's scheduler checks
/// its clock twice a second, so a prune may begin half a second later.
const LEAD: Duration = Duration::from_millis(250);

/// A load and the removal in it.
struct Round {
    load: Measured,
    /// The duration of the removal; 0 for the load without one.
    removal: Duration,
}

/// Runs the part.
pub fn measure(plan: &Plan) -> Result<Part> {
    let redis = Redis::start(plan)?;
    let posts = RequestFile::posts(&plan.folder, plan.sizes.requests)?;
    let (mut by_service, mut without, mut at_once) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=plan.rounds {
        let pruned = load_with_prune(plan, &redis, &posts)?;
        let length = Duration::from_secs_f64(pruned.load.seconds);
        let unpruned = load_without(plan, &redis, &posts, length)?;
        let plain = load_with_one_command(plan, &redis, &posts, length)?;
        progress(&format!(
            "prune, round {round} of {}: p99 {} ms during {:.1} s of pruning, {} without, {} with one ZREMRANGEBYSCORE \
             of {:.1} s",
            plan.rounds,
            milliseconds(pruned.load.p99),
            pruned.removal.as_secs_f64(),
            milliseconds(unpruned.load.p99),
            milliseconds(plain.load.p99),
            plain.removal.as_secs_f64(),
        ));
        by_service.push(pruned);
        without.push(unpruned);
        at_once.push(plain);
    }
    Ok(report(plan, &by_service, &without, &at_once))
}

/// Fills Redis with expired members, spread over so many segments, and the index.
fn fill(plan: &Plan, redis: &Redis, segments: u64) -> Result<()> {
    redis.empty()?;
    let a_month_ago = Timestamp::now().as_millis() - 30 * 24 * 60 * 60 * 1000;
    for number in 0..segments {
        let name = segment(number);
        let count = plan.sizes.expired / segments;
        loader::fill(redis.address, &key(&name), count, |member| a_month_ago + member as i64)?;
        redis.call::<u64>(&["ZADD", "segments", "0", &name])?;
    }
    Ok(())
}

fn start_load(service: &Service, posts: &RequestFile) -> Result<Load> {
    /// Longer than any prune: the part stops each load itself.
    const SECONDS: u64 = 600;
    Load::start("post", service.address, CONNECTIONS, posts, SECONDS)
}

fn load_with_prune(plan: &Plan, redis: &Redis, posts: &RequestFile) -> Result<Round> {
    /// Enough time for the service to start.
    const START: i64 = 2;
    fill(plan, redis, SEGMENTS)?;
    let second = Utc::now().timestamp() + START;
    let tick = DateTime::from_timestamp(second, 0).ok_or("the clock is out of the calendar")?;
    let service =
        Service::start_with(plan, redis, &[("PRUNE_SCHEDULE", &tick.format("%-S %-M %-H %-d %-m *").to_string())])?;
    let until_load = (tick - Utc::now()).to_std().unwrap_or_default().saturating_sub(LEAD);
    sleep(until_load);
    let load = start_load(&service, posts)?;
    let removal = wait_for_prune(&service, plan.sizes.expired, tick)?;
    Ok(Round { load: load.stop()?, removal })
}

/// Waits for the line `pruned` in the log. Returns the time from `tick` to the line.
fn wait_for_prune(service: &Service, expired: u64, tick: DateTime<Utc>) -> Result<Duration> {
    /// Far longer than pruning takes under load.
    const TIMEOUT: Duration = Duration::from_secs(300);
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let log = service.process.output()?;
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(line) = lines.find(|line| line["message"] == "pruned") {
            if line["members_removed"] != expired {
                return Err(format!("the service did not prune {expired} members: {line}").into());
            }
            let end = line["timestamp"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
            let end = end.ok_or_else(|| format!("the line has no time: {line}"))?;
            return Ok((end.to_utc() - tick).to_std()?);
        }
        sleep(Duration::from_millis(10));
    }
    Err("the service has not pruned in time".into())
}

fn load_without(plan: &Plan, redis: &Redis, posts: &RequestFile, length: Duration) -> Result<Round> {
    fill(plan, redis, SEGMENTS)?;
    let service = Service::start(plan, redis)?;
    let load = start_load(&service, posts)?;
    sleep(length);
    Ok(Round { load: load.stop()?, removal: Duration::ZERO })
}

fn load_with_one_command(plan: &Plan, redis: &Redis, posts: &RequestFile, length: Duration) -> Result<Round> {
    fill(plan, redis, 1)?;
    let service = Service::start(plan, redis)?;
    let load = start_load(&service, posts)?;
    let started = Instant::now();
    sleep(LEAD);
    let cutoff = Timestamp::now().as_millis() / 1000 - 14 * 24 * 60 * 60;
    let removing = Instant::now();
    let removed: u64 = redis.call(&["ZREMRANGEBYSCORE", &key(&segment(0)), "-inf", &cutoff.to_string()])?;
    let removal = removing.elapsed();
    if removed != plan.sizes.expired {
        return Err(format!("ZREMRANGEBYSCORE removed {removed} members").into());
    }
    sleep(length.saturating_sub(started.elapsed()));
    Ok(Round { load: load.stop()?, removal })
}

fn report(plan: &Plan, by_service: &[Round], without: &[Round], at_once: &[Round]) -> Part {
    let of = |rounds: &[Round], figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
    let p99 = |rounds: &[Round]| rounds.iter().map(|round| round.load.p99).collect::<Vec<_>>();
    let row = |name: &str, rounds: &[Round]| {
        let removal = of(rounds, |round| round.removal.as_secs_f64());
        vec![
            name.to_owned(),
            thousands(of(rounds, |round| round.load.throughput())),
            milliseconds(of(rounds, |round| round.load.p50)),
            milliseconds(median(p99(rounds))),
            milliseconds(of(rounds, |round| round.load.max)),
            if removal > 0.0 { format!("{removal:.1}") } else { String::new() },
            format!("{:.1}", of(rounds, |round| round.load.seconds)),
        ]
    };
    Part {
        title: "prune",
        note: format!(
            "`POST /segments` over {CONNECTIONS} connections beside {expired} expired members: the service prunes them (from \
             {SEGMENTS} segments), nothing removes them, or one `ZREMRANGEBYSCORE` removes them from one segment. The load \
             starts less than a second before the prune and stops when the log says `pruned`. The other two loads last as \
             long. Medians of {} rounds.",
            plan.rounds,
            expired = thousands(plan.sizes.expired as f64),
        ),
        columns: vec!["during the load", "requests/s", "p50 ms", "p99 ms", "max ms", "removal s", "load s"],
        rows: vec![
            row("the service prunes", by_service),
            row("nothing", without),
            row("one ZREMRANGEBYSCORE", at_once),
        ],
        checks: vec![
            Check::at_most("p99 of post, pruning to not pruning", &p99(by_service), &p99(without), 1.5),
            Check::without_target("p99 of post, one ZREMRANGEBYSCORE to none", &p99(at_once), &p99(without)),
        ],
    }
}
