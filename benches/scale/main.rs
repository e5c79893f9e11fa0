//! The benchmark of scale: the growth of load, counts, memory, pruning and restarts with the number of pairs, on one
//! server and on a cluster, and a projection to many more.
//!
//! `make bench-scale` runs it. All engines get the same pairs on the same machine; only ratios within a run are
//! comparable. The result is printed, and written to `target/scale` with a plot of each curve. This file parses the
//! command line and writes the result.

mod bounded;
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

/// The result of a step: a value, or the message that ends the run.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures how everything grows with the number of pairs.
#[derive(Parser)]
struct Arguments {
    /// Numbers of pairs to load, one after the other
    #[arg(long, value_delimiter = ',', default_value = "3000000,10000000,30000000")]
    pairs: Vec<u64>,
    /// Numbers of pairs to load into bounded segments alone, after the others
    #[arg(long, value_delimiter = ',', default_value = "100000000,300000000")]
    bounded_pairs: Vec<u64>,
    /// Order of the load
    #[arg(long, value_enum, default_value = "random")]
    order: Order,
    /// Engines to compare
    #[arg(long, value_enum, value_delimiter = ',', default_value = "redis,bounded,cluster")]
    engines: Vec<Kind>,
    /// Number of rounds; the report has medians over them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Number of times that all segments are counted in a round
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    passes: u32,
    /// Seed of the pairs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Redis server to run on
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
    /// Valkey server to run on, for the engine `valkey`
    #[arg(long, value_name = "PATH", default_value = "valkey-server")]
    valkey_server: PathBuf,
    /// Also write the result into docs/scale.md, and its plots beside it
    #[arg(long)]
    write: bool,
    /// Added by `cargo bench`; without it, as in `cargo test --all-targets`, nothing runs
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
        return Err("the benchmark reads CPU time and memory from /proc, so it runs only on Linux".into());
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
    let runtime = run::runtime()?;
    let figures = run::measure(&plan, &runtime)?;
    let tables = Tables { plan: &plan, figures: &figures, made };
    let mut parts = tables.parts();
    let mut plots = Vec::new();
    if plan.engines.contains(&Kind::Bounded) {
        parts.extend(bounded::parts(&plan, &runtime, &figures)?);
    }
    // One size shows no growth.
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
    let has_bounded = arguments.engines.contains(&Kind::Bounded);
    let most = pairs.last().copied().unwrap_or_default();
    let mut bounded_pairs: Vec<_> = arguments.bounded_pairs.iter().copied().filter(|_| has_bounded).collect();
    bounded_pairs.retain(|pairs| *pairs > most);
    bounded_pairs.sort_unstable();
    bounded_pairs.dedup();
    pairs.extend(bounded_pairs);
    for &size in &pairs {
        Data::new(size, arguments.order, arguments.seed)?;
    }
    Ok(Plan {
        pairs,
        exact_pairs: most,
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

/// Describes the loaded data.
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

/// Returns a name such as `Redis 7.0.15`, from the output of `--version`.
fn short(version: &str) -> String {
    let program = version.split(' ').next().unwrap_or_default();
    let number = version.split(' ').find_map(|word| word.strip_prefix("v="));
    format!("{program} {}", number.unwrap_or("of an unknown version"))
}

/// Writes the result and its plots to `target/scale`, and with `is_kept` into the documents.
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

/// Reports progress on standard error. Standard output is for the result.
fn progress(line: &str) {
    // Fails only if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}
