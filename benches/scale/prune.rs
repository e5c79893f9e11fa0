//! Pruning one day's worth, and the latency of other requests during it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use segment_estimator::domain::Timestamp;
use segment_estimator::estimator::Estimator;

use crate::Result;
use crate::counts::percentile;
use crate::data::{DAY, Data, NOW};
use crate::engine::{Engine, Kind};
use crate::load::{cpu, differences};

/// The interval of the `PING`s.
const PAUSE: Duration = Duration::from_millis(1);
/// The duration of the `PING`s without other work.
const QUIET: Duration = Duration::from_secs(2);

/// A prune.
pub struct Pruned {
    pub seconds: f64,
    pub members: u64,
    /// CPU time of each master, in seconds.
    pub cpu: Vec<f64>,
    /// The latency of `PING` on a connection of its own, in microseconds.
    pub pings: Pings,
    /// The same without other work.
    pub quiet: Pings,
}

/// The latency of `PING` over all masters, in microseconds.
#[derive(Clone, Copy)]
pub struct Pings {
    pub p99: f64,
    pub max: f64,
}

/// Removes the members that expire by a day after [`NOW`].
pub fn prune(runtime: &tokio::runtime::Runtime, engine: &Engine, estimator: &Estimator, data: &Data) -> Result<Pruned> {
    let (quiet, ()) = while_asked(engine, || {
        sleep(QUIET);
        Ok(())
    })?;
    let before = cpu(engine)?;
    let (pings, (seconds, members)) = while_asked(engine, || {
        let started = Instant::now();
        let tomorrow = Timestamp::from_millis(NOW.as_millis() + DAY);
        let report = runtime.block_on(estimator.prune(tomorrow))?;
        Ok((started.elapsed().as_secs_f64(), report.members_removed))
    })?;
    let cpu = differences(&cpu(engine)?, &before);
    let left: u64 = engine.each(|master| Ok(master.census()?.members))?.iter().sum();
    // A sample has a part of them.
    let is_exact = engine.kind != Kind::Bounded;
    if is_exact && (members != data.first_day() || left != data.pairs() - members) {
        let due = data.first_day();
        return Err(format!("{due} members had expired, {members} were removed and {left} are left").into());
    }
    Ok(Pruned { seconds, members, cpu, pings, quiet })
}

/// Runs `work` while a thread for each master sends it `PING`s.
fn while_asked<T>(engine: &Engine, work: impl FnOnce() -> Result<T>) -> Result<(Pings, T)> {
    let connections = engine.each(|master| master.connect())?;
    let is_over = AtomicBool::new(false);
    let (times, done) = thread::scope(|scope| {
        let is_over = &is_over;
        let askers: Vec<_> = connections.into_iter().map(|to| scope.spawn(move || ask(to, is_over))).collect();
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let times: Vec<_> =
            askers.into_iter().map(|asker| asker.join().map_err(|_| "a thread with PINGs panicked")).collect();
        (times, done)
    });
    let mut all = Vec::new();
    for times in times {
        all.extend(times??);
    }
    Ok((Pings { p99: percentile(&all, 99.0), max: percentile(&all, 100.0) }, done?))
}

fn ask(mut connection: redis::Connection, is_over: &AtomicBool) -> std::result::Result<Vec<f64>, redis::RedisError> {
    let mut times = Vec::new();
    loop {
        let asked = Instant::now();
        redis::cmd("PING").exec(&mut connection)?;
        times.push(asked.elapsed().as_secs_f64() * 1e6);
        if is_over.load(Ordering::Relaxed) {
            return Ok(times);
        }
        sleep(PAUSE);
    }
}
