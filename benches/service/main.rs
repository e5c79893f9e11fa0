//! The benchmark of the service: its cost per request, visit and byte, compared with existing programs.
//!
//! `make bench` runs it. Each part has contenders that take turns, round by round, on one Redis that belongs to the
//! run. Only ratios within one run are comparable, not figures of two runs or two machines. This file parses the
//! command line and orders the parts.

mod batch;
mod connections;
mod contender;
mod counts;
mod disk;
mod document;
mod front;
mod http;
mod loader;
mod machine;
mod memory;
mod overlap;
mod pairs;
mod plain;
mod plan;
mod processes;
mod prune;
mod random;
mod report;
mod requests;
mod sampled;
mod servers;
mod singles;
mod small;
mod wrk;

use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::plan::{Plan, Sizes};
use crate::report::Part;

/// The result of a step: a value, or the message that ends the run.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Compares the service with webdis, redis-benchmark and a bare loader.
#[derive(Parser)]
struct Arguments {
    /// Number of rounds of each part; the report has medians over them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of load on each contender in a round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Run only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Name>,
    /// Redis or Valkey server to run on
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
    /// Another build of the service to compare with, in the parts `singles`, `sampled`, `counts` and `front`
    #[arg(long, value_name = "PATH")]
    baseline: Option<PathBuf>,
    /// Also write the result into docs/benchmarks.md
    #[arg(long)]
    write: bool,
    /// Use small sizes, to test the benchmark itself; the figures are meaningless
    #[arg(long)]
    quick: bool,
    /// Added by `cargo bench`; without it, as in `cargo test --all-targets`, nothing runs
    #[arg(long, hide = true)]
    bench: bool,
    /// Serves the plain handler, as the run has its own copy do
    #[arg(long, hide = true, value_name = "ADDRESS", requires = "on")]
    serve_plain: Option<SocketAddr>,
    /// Redis of the plain handler
    #[arg(long, hide = true, value_name = "ADDRESS")]
    on: Option<SocketAddr>,
    /// Threads of the plain handler
    #[arg(long, hide = true, default_value_t = 1)]
    threads: usize,
}

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Singles,
    Connections,
    Small,
    Sampled,
    Front,
    Disk,
    Batch,
    Counts,
    Overlap,
    Prune,
    Memory,
    Pairs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.bench {
        return ExitCode::SUCCESS;
    }
    let outcome = match (arguments.serve_plain, arguments.on) {
        (Some(listen), Some(redis)) => plain::serve(listen, redis, arguments.threads),
        _ => run(&arguments),
    };
    match outcome {
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
    let folder = tempfile::Builder::new().prefix("segment-estimator-bench-").tempdir()?;
    processes::tidy_up_when_interrupted(folder.path())?;
    let plan = Plan {
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        sizes: if arguments.quick { Sizes::QUICK } else { Sizes::FULL },
        redis_server: processes::program_path(&arguments.redis_server)?,
        baseline: arguments.baseline.as_deref().map(processes::program_path).transpose()?,
        folder: folder.path().to_owned(),
    };
    let machine = machine::describe("service", &programs(&plan)?)?;
    let (mut parts, mut outcome) = (Vec::new(), Ok(()));
    for &name in Name::value_variants() {
        if outcome.is_ok() && (arguments.only.is_empty() || arguments.only.contains(&name)) {
            outcome = measure(name, &plan).map(|part| parts.push(part));
        }
    }
    // If a part fails, the earlier parts are still printed, but not written into the document.
    let result = format!("{machine}\n{}", report::markdown(&parts));
    if !parts.is_empty() {
        std::io::stdout().write_all(result.as_bytes())?;
    }
    outcome?;
    if arguments.write { document::write("docs/benchmarks.md", &result) } else { Ok(()) }
}

/// Returns the versions of the programs in the comparison.
fn programs(plan: &Plan) -> Result<Vec<String>> {
    // webdis takes any argument as its configuration and serves, so its version is that of the package.
    let webdis = machine::version_or_unknown("dpkg-query", &["-W", "-f", "${Version}", "webdis"]);
    Ok(vec![
        machine::version(&plan.redis_server, &["--version"])?,
        format!("webdis {webdis}"),
        machine::version(Path::new("wrk"), &["--version"])?,
        machine::version(Path::new("redis-benchmark"), &["--version"])?,
    ])
}

fn measure(name: Name, plan: &Plan) -> Result<Part> {
    match name {
        Name::Singles => singles::measure(plan),
        Name::Connections => connections::measure(plan),
        Name::Small => small::measure(plan),
        Name::Sampled => sampled::measure(plan),
        Name::Front => front::measure(plan),
        Name::Disk => disk::measure(plan),
        Name::Batch => batch::measure(plan),
        Name::Counts => counts::measure(plan),
        Name::Overlap => overlap::measure(plan),
        Name::Prune => prune::measure(plan),
        Name::Memory => memory::measure(plan),
        Name::Pairs => pairs::measure(plan),
    }
}

/// Reports progress on standard error. Standard output is for the result.
fn progress(line: &str) {
    // Fails only if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}
