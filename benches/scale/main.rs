//! The benchmark of scale: how load, counts, memory, pruning and restarts grow with the number of pairs, on one server
//! and on a cluster, and what that means for many more.
//!
//! `make bench-scale` runs it. All engines get the same pairs on the same machine; what counts are ratios within a run.
//! The result is printed, and written to `target/scale` with a plot of each curve. This file owns the command line and
//! where the result goes.

mod counts;
mod curves;
mod data;
#[allow(dead_code, reason = "the service's benchmark uses more of it")]
#[path = "../service/document.rs"]
mod document;
mod engine;
mod fit;
mod load;
#[path = "../service/machine.rs"]
mod machine;
mod master;
mod plan;
mod plot;
#[allow(dead_code, reason = "the service's benchmark uses more of it")]
#[path = "../service/processes.rs"]
mod processes;
mod projection;
mod prune;
#[path = "../service/random.rs"]
mod random;
#[allow(dead_code, reason = "the service's benchmark uses more of it")]
#[path = "../service/report.rs"]
mod report;
mod run;
mod tables;

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::data::{Data, Order};
use crate::engine::Kind;
use crate::plan::Plan;
use crate::projection::Basis;
use crate::report::thousands;
use crate::tables::Tables;

/// What every step gives: a value, or the sentence that ends the run.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures how everything grows with the number of pairs.
#[derive(Parser)]
struct Arguments {
    /// How many pairs are loaded, one size after the other
    #[arg(long, value_delimiter = ',', default_value = "3000000,10000000,30000000")]
    pairs: Vec<u64>,
    /// In which order they are loaded
    #[arg(long, value_enum, default_value = "random")]
    order: Order,
    /// What is compared
    #[arg(long, value_enum, value_delimiter = ',', default_value = "redis,cluster")]
    engines: Vec<Kind>,
    /// How often all of it is done; medians over the rounds are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How often all segments are counted in a round
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// What the pairs are made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Redis server to run on
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
    /// Valkey server to run on, for the engine `valkey`
    #[arg(long, value_name = "PATH", default_value = "valkey-server")]
    valkey_server: PathBuf,
    /// Put the result into docs/scale.md and its plots beside it, too
    #[arg(long)]
    write: bool,
    /// What `cargo bench` adds; without it this is `cargo test --all-targets`, for which there is nothing to do
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        return ExitCode::SUCCESS;
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("the benchmark failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Err("it reads CPU time and memory from /proc, so it runs on Linux alone".into());
    }
    let folder = tempfile::Builder::new().prefix("segment-estimator-scale-").tempdir()?;
    processes::tidy_up_when_interrupted(folder.path())?;
    let plan = plan(arguments, folder.path())?;
    let servers = plan.engines.iter().map(|kind| machine::version(kind.server(&plan), &["--version"]));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let mut programs = servers.clone();
    programs.dedup();
    let machine = machine::describe("scale", &programs)?;
    let data = Data::new(plan.pairs[plan.pairs.len() - 1], plan.order, plan.seed)?;
    let made = data.pairs() as f64 / load::make(&data).as_secs_f64();
    progress(&format!("{} pairs are made in a second", thousands(made)));
    let figures = run::measure(&plan)?;
    let tables = Tables { plan: &plan, figures: &figures, made };
    let mut parts = tables.parts();
    let mut plots = Vec::new();
    // One size says nothing of growth.
    if plan.pairs.len() > 1 {
        plots = curves::plots(&figures, &plan.engines);
        parts.push(curves::growth(&figures, &plan.engines));
        let versions: Vec<_> = plan.engines.iter().copied().zip(servers.iter().map(|version| short(version))).collect();
        parts.extend(Basis::of(&figures, &versions).iter().flat_map(Basis::parts));
    }
    let result = format!("{machine}{}\n{}", described(&plan, &data), report::markdown(&parts));
    std::io::stdout().write_all(result.as_bytes())?;
    publish(&result, &plots, arguments.write)
}

fn plan(arguments: &Arguments, folder: &Path) -> Result<Plan> {
    let mut pairs = arguments.pairs.clone();
    pairs.sort_unstable();
    pairs.dedup();
    for &size in &pairs {
        Data::new(size, arguments.order, arguments.seed)?;
    }
    Ok(Plan {
        pairs,
        order: arguments.order,
        rounds: arguments.rounds,
        passes: arguments.passes,
        seed: arguments.seed,
        engines: arguments.engines.clone(),
        redis_server: processes::program_path(&arguments.redis_server)?,
        valkey_server: processes::program_path(&arguments.valkey_server)?,
        folder: folder.to_owned(),
    })
}

/// What was loaded.
fn described(plan: &Plan, data: &Data) -> String {
    let sizes = data.sizes();
    format!(
        "- the most pairs: {} of {} users with {} segments, the largest with {} users and the smallest with {}; ids like \
         `u0001234`, seed {}; last seen over {} days, more in the evening than at night; loaded {}\n",
        thousands(data.pairs() as f64),
        thousands(data.users() as f64),
        sizes.len(),
        thousands(sizes[0] as f64),
        thousands(sizes[sizes.len() - 1] as f64),
        plan.seed,
        data::DAYS,
        match plan.order {
            Order::Random => "in random order",
            Order::Time => "oldest first",
        }
    )
}

/// `Redis 7.0.15` of what that says of its version.
fn short(version: &str) -> String {
    let program = version.split(' ').next().unwrap_or_default();
    let number = version.split(' ').find_map(|word| word.strip_prefix("v="));
    format!("{program} {}", number.unwrap_or("of an unknown version"))
}

/// Writes the result and its plots to `target/scale`, and into the documents if it is worth keeping.
fn publish(result: &str, plots: &[(String, String)], is_kept: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = root.join("target/scale");
    write_plots(&beside, plots)?;
    fs::write(beside.join("report.md"), result.replace("](scale/", "]("))?;
    progress("the report and its plots are in target/scale");
    if is_kept {
        write_plots(&root.join("docs/scale"), plots)?;
        document::write("docs/scale.md", result)?;
    }
    Ok(())
}

fn write_plots(folder: &Path, plots: &[(String, String)]) -> Result<()> {
    fs::create_dir_all(folder)?;
    plots.iter().try_for_each(|(name, svg)| fs::write(folder.join(name), svg).map_err(Into::into))
}

/// Says on standard error what is being done. Standard output is for the result.
fn progress(line: &str) {
    // Nobody who has closed standard error wants to read it.
    let _ = writeln!(std::io::stderr(), "{line}");
}
