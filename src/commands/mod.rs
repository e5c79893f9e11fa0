//! The commands of the binary: a file or a folder for each, and what they share.

mod adopt;
mod backoff;
pub mod check;
mod cli;
mod confirm;
mod data;
mod demo;
mod export;
mod healthcheck;
mod help;
mod import;
mod outcome;
mod progress;
mod repartition;
mod restore;
pub mod serve;
mod stop_signals;
mod token;
mod window;

pub use self::cli::Cli;
use self::outcome::{Failure, Outcome};
use self::stop_signals::StopSignals;
