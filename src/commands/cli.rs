//! The command line.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use super::adopt::AdoptCommand;
use super::check::check;
use super::demo::DemoCommand;
use super::export::ExportCommand;
use super::healthcheck::healthcheck;
use super::help::with_help;
use super::import::ImportCommand;
use super::outcome::{Failure, Outcome};
use super::repartition::RepartitionCommand;
use super::restore::RestoreCommand;
use super::serve::serve_traced;
use super::token::TokenCommand;
use super::window::WindowCommand;
use crate::config::{self, RawSettings, Settings};
use crate::estimator::clock::Clock;
use crate::http::openapi_json;

/// Counts how many users are in a segment right now.
///
/// Every setting has four sources: window = "7d" in the TOML file, ESTIMATOR_WINDOW=7d in a .env file, the same in the
/// environment, and --window 7d on the command line. Each overrides those before it.
#[derive(Parser)]
#[command(version = crate::VERSION, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// TOML file with settings
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: RawSettings,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP until SIGTERM or Ctrl-C (the default)
    Serve,
    /// Create an API key or a JSON Web Token and print it, or revoke an API key
    Token(TokenCommand),
    /// Import visits from a file into Redis or a running service; exits 0 if every line was valid
    Import(ImportCommand),
    /// Export all visits in the window as NDJSON, which `import` reads
    Export(ExportCommand),
    /// Fill an empty data set with generated visits and histories, to try out the pages
    Demo(DemoCommand),
    /// Print the effective settings and check Redis; exits 0 if the service could serve
    Check,
    /// Request `/readyz` from the running service, at `admin_listen` if it is set; exits 0 if the service is ready
    Healthcheck,
    /// Move the data set to another number of partitions, or to another maximum number of users that a segment keeps,
    /// while it is in use; resumes an interrupted move
    Repartition(RepartitionCommand),
    /// Show how long the data set keeps visits, or change it: `window set 7d`
    Window(WindowCommand),
    /// Adopt a data set without a record, from an earlier version or after the record was lost
    Adopt(AdoptCommand),
    /// Replace all data of the private Redis with a backup and keep the old data; the service must be stopped
    Restore(RestoreCommand),
    /// Print the OpenAPI document that `/openapi.json` serves
    Openapi,
}

impl Cli {
    /// Parses the command line of this process. `--help` and `--version` print their text and exit.
    ///
    /// # Errors
    ///
    /// The mistake in one line for the user, or a failure to print the text.
    pub fn from_command_line() -> Result<Self, Failure> {
        match Self::parse_from(std::env::args_os()) {
            Err(error) if !error.use_stderr() => {
                error.print().and_then(|()| io::stdout().flush())?;
                std::process::exit(0)
            }
            parsed => parsed.map_err(|error| one_line(&error).into()),
        }
    }

    fn parse_from(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let parse = |arguments: &[OsString]| with_help(Self::command()).try_get_matches_from(arguments);
        let matches = parse(&arguments).or_else(|error| {
            // clap's `help` takes `--help` behind it for a command: `help serve --help` is `serve --help`.
            match error.get(ContextKind::InvalidSubcommand) {
                Some(ContextValue::String(flag)) if flag.starts_with('-') => {}
                _ => return Err(error),
            }
            let help = arguments.iter().position(|argument| argument == "help").ok_or(error)?;
            arguments.remove(help);
            parse(&arguments)
        });
        Self::from_arg_matches(&matches?)
    }

    /// Runs the command.
    ///
    /// # Errors
    ///
    /// The reason in one line for the user.
    pub fn run(self) -> Outcome {
        if let Some(Command::Openapi) = self.command {
            return Ok(io::stdout().write_all(openapi_json().as_bytes())?);
        }
        let flags = match self.command {
            // Its `--max-members` is where to move, not what the data set must have.
            Some(Command::Repartition(_)) => self.flags.without("max_members"),
            _ => self.flags,
        };
        let layers = config::read_layers(flags, self.config)?;
        let settings = Settings::from_layers(&layers)?;
        if let Some(Command::Token(token)) = &self.command {
            return token.run(&settings.auth(), &mut io::stdout(), &mut io::stderr());
        }
        let runtime = runtime(settings.threads)?;
        match self.command {
            None | Some(Command::Serve) => serve_traced(&settings, runtime),
            Some(Command::Check) => {
                let rows = settings.rows(&layers);
                Ok(runtime.block_on(check(&settings, &rows, &Clock::system(), &mut io::stdout()))?)
            }
            Some(Command::Demo(demo)) => runtime.block_on(demo.run(&settings)),
            Some(Command::Export(export)) => runtime.block_on(export.run(&settings)),
            Some(Command::Import(import)) => runtime.block_on(import.run(&settings)),
            Some(Command::Openapi | Command::Token(_)) => unreachable!("these commands have returned"),
            Some(Command::Repartition(repartition)) => runtime.block_on(repartition.run(&settings)),
            Some(Command::Window(window)) => runtime.block_on(window.run(&settings)),
            Some(Command::Adopt(adopt)) => runtime.block_on(adopt.run(&settings)),
            Some(Command::Restore(restore)) => runtime.block_on(restore.run(&settings)),
            Some(Command::Healthcheck) => runtime.block_on(healthcheck(&settings)),
        }
    }
}

/// Returns a runtime with `threads` worker threads. A single one needs no locks, no work stealing and no second thread
/// to wait for it, which saves a sixth of the service's CPU time (docs/benchmarks.md).
fn runtime(threads: usize) -> io::Result<Runtime> {
    let mut builder = if threads == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.worker_threads(threads).enable_all().build()
}

/// Formats an error of clap in one line: its first paragraph and the tips, without the usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let first = lines.clone().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let mut tips: Vec<_> = lines.filter_map(|line| line.strip_prefix("tip: ")).map(str::to_owned).collect();
    // clap reads `--window -1d` as a flag without a value and an unknown flag.
    if let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
        && argument.starts_with('-')
        && !argument.starts_with("--")
    {
        tips.push(format!("to give a value that begins with a hyphen, write --SETTING={argument}"));
    }
    let tips: String = tips.iter().map(|tip| format!("; {tip}")).collect();
    format!("{}{tips}; see --help", first.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_accepts_settings_before_and_after_the_command() {
        for line in ["x --window 4s serve", "x serve --window 4s", "x --window 4s"] {
            let cli = Cli::parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.flags.texts().collect::<Vec<_>>(), [("window", "4s")], "{line}");
        }
    }

    #[test]
    fn parse_accepts_settings_that_a_command_does_not_use() {
        for line in
            ["x healthcheck --window 4s", "x window set 7d --window 4s", "x --window 4s token --name a --scope b"]
        {
            let line = line.replace("--scope b", "--scope users:read");
            let cli = Cli::parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.flags.texts().collect::<Vec<_>>(), [("window", "4s")], "{line}");
        }
        let cli = Cli::parse_from(["x", "--window", "4s", "healthcheck", "--window", "5s"]).unwrap();
        assert_eq!(cli.flags.texts().collect::<Vec<_>>(), [("window", "5s")]);
    }
}
