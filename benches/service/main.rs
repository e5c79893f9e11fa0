//! The benchmark of the service: what it does for a request, a visit and a byte, beside what is there already.
//!
//! `make bench` runs it. Each part has contenders that take turns, round by round, on one Redis that belongs to the run.
//! What counts is their ratio in that run: figures of two runs, or of two machines, can't be compared. This file owns
//! the command line and the order of the parts.

mod batch;
mod counts;
mod disk;
mod document;
mod front;
mod http;
mod loader;
mod machine;
mod memory;
mod pairs;
mod plan;
mod processes;
mod prune;
mod random;
mod report;
mod requests;
mod servers;
mod singles;
mod wrk;

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::plan::{Plan, Sizes};
use crate::report::Part;

/// What every step gives: a value, or the sentence that ends the run.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures the service beside webdis, redis-benchmark and a bare loader.
#[derive(Parser)]
struct Arguments {
    /// How often the contenders of a part take turns; medians over the rounds are reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a contender is under load in a round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Name>,
    /// Redis or Valkey server to run on
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis_server: PathBuf,
    /// Another build of the service to compare with, in the part `front`
    #[arg(long, value_name = "PATH")]
    baseline: Option<PathBuf>,
    /// Put the result into docs/benchmarks.md, too
    #[arg(long)]
    write: bool,
    /// Small sizes: shows that everything runs, measures nothing
    #[arg(long)]
    quick: bool,
    /// What `cargo bench` adds; without it this is `cargo test --all-targets`, for which there is nothing to do
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Singles,
    Front,
    Disk,
    Batch,
    Counts,
    Prune,
    Memory,
    Pairs,
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
    let folder = tempfile::Builder::new().prefix("segment-estimator-bench-").tempdir()?;
    tidy_up_when_interrupted(folder.path())?;
    let plan = Plan {
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        sizes: if arguments.quick { Sizes::QUICK } else { Sizes::FULL },
        redis_server: server_path(&arguments.redis_server)?,
        baseline: arguments.baseline.as_deref().map(server_path).transpose()?,
        folder: folder.path().to_owned(),
    };
    let machine = machine::describe(&plan)?;
    let (mut parts, mut outcome) = (Vec::new(), Ok(()));
    for &name in Name::value_variants() {
        if outcome.is_ok() && (arguments.only.is_empty() || arguments.only.contains(&name)) {
            outcome = measure(name, &plan).map(|part| parts.push(part));
        }
    }
    // A part that failed late doesn't take with it what was measured before; but it keeps that out of the document.
    let result = format!("{machine}\n{}", report::markdown(&parts));
    if !parts.is_empty() {
        std::io::stdout().write_all(result.as_bytes())?;
    }
    outcome?;
    if arguments.write { document::write(&result) } else { Ok(()) }
}

fn measure(name: Name, plan: &Plan) -> Result<Part> {
    match name {
        Name::Singles => singles::measure(plan),
        Name::Front => front::measure(plan),
        Name::Disk => disk::measure(plan),
        Name::Batch => batch::measure(plan),
        Name::Counts => counts::measure(plan),
        Name::Prune => prune::measure(plan),
        Name::Memory => memory::measure(plan),
        Name::Pairs => pairs::measure(plan),
    }
}

/// A path as this process sees it: the servers run in a folder of their own. A bare name is looked up in `PATH`.
fn server_path(path: &Path) -> Result<PathBuf> {
    if path.components().count() == 1 {
        return Ok(path.to_owned());
    }
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Ends the process at Ctrl-C or SIGTERM without its folder left behind. Its children end with it: see [`processes`].
fn tidy_up_when_interrupted(folder: &Path) -> Result<()> {
    let folder = folder.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let _ = std::fs::remove_dir_all(&folder);
        std::process::exit(130);
    });
    Ok(())
}

/// Says on standard error what is being done. Standard output is for the result.
fn progress(line: &str) {
    // Nobody who has closed standard error wants to read it.
    let _ = writeln!(std::io::stderr(), "{line}");
}
