//! The run: for each size all engines load the same pairs and are counted in turns. Then each is rewritten, restarted
//! and pruned.

use std::num::NonZero;

use segment_estimator::domain::Window;
use segment_estimator::estimator::Estimator;
use tokio::runtime::Runtime;

use crate::bounded::Errors;
use crate::data::{DAYS, Data};
use crate::engine::{Engine, Kind, Restart};
use crate::load::{self, Loaded};
use crate::master::Census;
use crate::plan::Plan;
use crate::prune::{self, Pruned};
use crate::report::thousands;
use crate::{Result, counts, progress};

/// The figures of one engine and size in one round. Times are in seconds and memory in bytes, unless documented
/// otherwise. Lists have a figure for each master.
pub struct Figures {
    pub kind: Kind,
    pub pairs: u64,
    pub loaded: Loaded,
    /// `used_memory`, minus that of the empty server.
    pub memory: Vec<f64>,
    /// Resident memory of the process.
    pub resident: Vec<f64>,
    pub census: Vec<Census>,
    /// The latency of each count, in microseconds.
    pub counts: Vec<f64>,
    /// The errors of the last counts of bounded segments.
    pub errors: Errors,
    /// CPU time of the counts.
    pub count_cpu: Vec<f64>,
    /// The server's own time for one `ZCOUNT`, in microseconds.
    pub zcount: f64,
    /// Rewriting the append-only files.
    pub rewrite: f64,
    /// Memory that the rewrite copied because it changed.
    pub copied: f64,
    /// The append-only files after that.
    pub file: f64,
    pub restart: Restart,
    pub pruned: Pruned,
}

impl Figures {
    /// Returns a percentile of the counts, in microseconds.
    pub fn count_percentile(&self, hundredths: f64) -> f64 {
        counts::percentile(&self.counts, hundredths)
    }

    /// Returns the pairs loaded per second.
    pub fn load_rate(&self) -> f64 {
        self.pairs as f64 / self.loaded.seconds
    }

    /// Returns the masters' CPU time for loading one pair, in microseconds.
    pub fn cpu_a_pair(&self) -> f64 {
        self.loaded.cpu.iter().sum::<f64>() * 1e6 / self.pairs as f64
    }

    /// Returns the masters' CPU time for one count, in microseconds.
    pub fn cpu_a_count(&self) -> f64 {
        self.count_cpu.iter().sum::<f64>() * 1e6 / self.counts.len() as f64
    }
}

/// An engine with its data, and its figures so far.
struct Contender {
    engine: Engine,
    estimator: Estimator,
    loaded: Loaded,
    memory: Vec<f64>,
    resident: Vec<f64>,
    census: Vec<Census>,
    counts: Vec<f64>,
    errors: Errors,
    count_cpu: Vec<f64>,
}

/// Returns the runtime of the service's code.
pub fn runtime() -> Result<Runtime> {
    // As many threads as the service has by default: the setting `threads`.
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1).max(1);
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

/// Measures everything. Returns the figures in the order of the measurements.
pub fn measure(plan: &Plan, runtime: &Runtime) -> Result<Vec<Figures>> {
    let mut figures = Vec::new();
    for round in 0..plan.rounds as usize {
        for &pairs in &plan.pairs {
            let data = Data::new(pairs, plan.order, plan.seed)?;
            progress(&format!("round {} of {}: {} pairs", round + 1, plan.rounds, thousands(pairs as f64)));
            // The first engine finds cold caches, so the engines take turns in being first.
            let mut kinds = plan.engines_of(pairs);
            let first = round % kinds.len();
            kinds.rotate_left(first);
            figures.extend(measure_size(plan, runtime, &data, &kinds)?);
        }
    }
    Ok(figures)
}

fn measure_size(plan: &Plan, runtime: &Runtime, data: &Data, kinds: &[Kind]) -> Result<Vec<Figures>> {
    let mut contenders = Vec::new();
    for &kind in kinds {
        contenders.push(fill(plan, runtime, data, kind)?);
    }
    let zcounts = |contender: &Contender| -> Result<(f64, f64)> {
        let each = contender.engine.each(|master| master.zcounts())?;
        Ok(each.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1)))
    };
    count_once(runtime, data, &mut contenders)?;
    let before = contenders.iter().map(zcounts).collect::<Result<Vec<_>>>()?;
    contenders.iter_mut().for_each(|contender| contender.forget_counts());
    for _ in 0..plan.passes {
        count_once(runtime, data, &mut contenders)?;
    }
    let mut figures = Vec::new();
    for (contender, before) in contenders.into_iter().zip(before) {
        let after = zcounts(&contender)?;
        let zcount = (after.1 - before.1) / (after.0 - before.0).max(1.0);
        figures.push(finish(runtime, data, contender, zcount)?);
    }
    Ok(figures)
}

/// Starts an engine and loads it.
fn fill(plan: &Plan, runtime: &Runtime, data: &Data, kind: Kind) -> Result<Contender> {
    let engine = Engine::start(plan, kind)?;
    let empty = engine.settled_memory()?;
    let estimator = {
        // The store and the estimator spawn tasks, so they need the runtime.
        let _context = runtime.enter();
        Estimator::new(engine.store()?, Window::parse(&format!("{DAYS}d"))?)
    };
    let loaded = runtime.block_on(load::load(&engine, &estimator, data))?;
    let memory = load::differences(&engine.settled_memory()?, &empty);
    let resident = engine.each(|master| Ok(master.process.memory()? as f64))?;
    let census = engine.each(|master| master.census())?;
    let members: u64 = census.iter().map(|census| census.members).sum();
    if kind != Kind::Bounded && members != data.pairs() {
        return Err(format!("{} has {members} members instead of {}", kind.name(), data.pairs()).into());
    }
    progress(&format!("  {}: loaded in {:.1} s", kind.name(), loaded.seconds));
    let (counts, errors, count_cpu) = (Vec::new(), Errors::default(), vec![0.0; engine.masters.len()]);
    Ok(Contender { engine, estimator, loaded, memory, resident, census, counts, errors, count_cpu })
}

/// Counts all segments once on each.
fn count_once(runtime: &Runtime, data: &Data, contenders: &mut [Contender]) -> Result<()> {
    for contender in contenders {
        let before = load::cpu(&contender.engine)?;
        let (times, errors) = runtime.block_on(counts::pass(&contender.estimator, data))?;
        contender.counts.extend(times);
        contender.errors = errors;
        let added = load::differences(&load::cpu(&contender.engine)?, &before);
        contender.count_cpu.iter_mut().zip(added).for_each(|(sum, added)| *sum += added);
    }
    Ok(())
}

impl Contender {
    fn forget_counts(&mut self) {
        self.counts.clear();
        self.count_cpu.fill(0.0);
    }
}

/// Rewrites, restarts and prunes an engine after all were counted, and ends it.
fn finish(runtime: &Runtime, data: &Data, contender: Contender, zcount: f64) -> Result<Figures> {
    let Contender { mut engine, estimator, loaded, memory, resident, census, counts, errors, count_cpu } = contender;
    let rewrite = engine.rewrite()?.as_secs_f64();
    let sum = |field: &str| -> Result<f64> { Ok(engine.each(|master| master.number(field))?.iter().sum()) };
    let (copied, file) = (sum("aof_last_cow_size")?, sum("aof_current_size")?);
    let restart = engine.restart()?;
    // Checks that all data is loaded, and reconnects.
    runtime.block_on(counts::pass(&estimator, data))?;
    let pruned = prune::prune(runtime, &engine, &estimator, data)?;
    let kind = engine.kind;
    progress(&format!(
        "  {}: p50 of counts {:.0} us, rewritten in {rewrite:.1} s, restarted in {:.1} s, pruned in {:.1} s",
        kind.name(),
        self::counts::percentile(&counts, 50.0),
        restart.whole,
        pruned.seconds
    ));
    let pairs = data.pairs();
    Ok(Figures {
        kind,
        pairs,
        loaded,
        memory,
        resident,
        census,
        counts,
        errors,
        count_cpu,
        zcount,
        rewrite,
        copied,
        file,
        restart,
        pruned,
    })
}
