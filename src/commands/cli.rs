//! The command line: what can be asked of the binary, and what it prints.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};
use tokio::runtime::Builder;

use super::adopt::AdoptCommand;
use super::check::check;
use super::demo::DemoCommand;
use super::export::ExportCommand;
use super::healthcheck::healthcheck;
use super::import::ImportCommand;
use super::outcome::{Failure, Outcome};
use super::repartition::Arguments as Repartition;
use super::restore::RestoreCommand;
use super::serve::serve_traced;
use super::token::Token;
use super::window::WindowCommand;
use crate::config::{self, Layer, Settings};
use crate::estimator::clock::Clock;
use crate::http::openapi_json;

/// Counts how many users are in a segment right now.
///
/// Every setting can be given in several ways: `window = "7d"` in the TOML file, ESTIMATOR_WINDOW=7d in a .env file or in
/// the environment, and --window 7d on the command line. Each overrides the ones before it.
#[derive(Parser)]
#[command(version, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// TOML file with settings
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Layer,
}

#[derive(Subcommand)]
enum Command {
    /// Serve HTTP until SIGTERM or Ctrl-C (the default)
    Serve,
    /// Make an API key, or a JSON Web Token, and print it
    Token(Token),
    /// Take visits out of a file, into Redis or into a service; exit code 0 if all of them are visits
    Import(ImportCommand),
    /// Give all visits that count, one a line, as import takes them
    Export(ExportCommand),
    /// Fill a data set that is empty with made-up visits and histories, to see what the service shows
    Demo(DemoCommand),
    /// Check the settings, reach Redis, and show what the service would run with; exit code 0 if Redis can serve
    Check,
    /// Ask the service, at `admin_listen` or `listen`, whether it is ready; exit code 0 if so, for a container's health check
    Healthcheck,
    /// Move the data set to another number of partitions while it is used; what was broken off is taken up again
    Repartition(Repartition),
    /// Show how long the data set keeps visits, or set it: `window set 7d`
    Window(WindowCommand),
    /// Take over a data set that has no record: of an earlier version, or one that lost it
    Adopt(AdoptCommand),
    /// Replace all data of the private Redis with a backup, while no service runs; the old data is kept beside it
    Restore(RestoreCommand),
    /// Print the OpenAPI document, as `/openapi.json` serves it
    Openapi,
}

impl Cli {
    /// Reads this process's command line; answers `--help` and `--version` itself, and ends the process then.
    ///
    /// # Errors
    ///
    /// The mistake in one line, made to be shown as it is.
    pub fn from_command_line() -> Result<Self, Failure> {
        Self::try_parse().map_err(|error| {
            if !error.use_stderr() {
                error.exit();
            }
            mistake(&error).into()
        })
    }

    /// Carries out the command.
    ///
    /// # Errors
    ///
    /// The reason in one line, made to be shown as it is.
    pub fn run(self) -> Outcome {
        if let Some(Command::Openapi) = self.command {
            return Ok(io::stdout().write_all(openapi_json().as_bytes())?);
        }
        let layers = config::read_layers(self.flags, self.config)?;
        let settings = Settings::from_layers(&layers)?;
        if let Some(Command::Token(token)) = &self.command {
            return token.make(&settings.auth(), &mut io::stdout(), &mut io::stderr());
        }
        let runtime = Builder::new_multi_thread().worker_threads(settings.threads).enable_all().build()?;
        match self.command {
            None | Some(Command::Serve) => serve_traced(&settings, &runtime),
            Some(Command::Check) => {
                let rows = settings.rows(&layers);
                Ok(runtime.block_on(check(&settings, &rows, &Clock::system(), &mut io::stdout()))?)
            }
            Some(Command::Demo(demo)) => runtime.block_on(demo.run(&settings)),
            Some(Command::Export(export)) => runtime.block_on(export.run(&settings)),
            Some(Command::Import(import)) => runtime.block_on(import.run(&settings)),
            Some(Command::Openapi | Command::Token(_)) => unreachable!("it is dealt with before this"),
            Some(Command::Repartition(repartition)) => runtime.block_on(repartition.run(&settings)),
            Some(Command::Window(window)) => runtime.block_on(window.run(&settings)),
            Some(Command::Adopt(adopt)) => runtime.block_on(adopt.run(&settings)),
            Some(Command::Restore(restore)) => runtime.block_on(restore.run(&settings)),
            Some(Command::Healthcheck) => runtime.block_on(healthcheck(&settings)),
        }
    }
}

/// clap's words for a mistake, in one line and without the usage: the first paragraph, and the tips.
fn mistake(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let first = lines.clone().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let mut tips: Vec<_> = lines.filter_map(|line| line.strip_prefix("tip: ")).map(str::to_owned).collect();
    // To clap, `--window -1d` is a flag without a value and a flag that isn't there.
    if let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
        && argument.starts_with('-')
        && !argument.starts_with("--")
    {
        tips.push(format!("a value that begins with a hyphen is given as in --SETTING={argument}"));
    }
    let tips: String = tips.iter().map(|tip| format!("; {tip}")).collect();
    format!("{}{tips}; see --help", first.trim_start_matches("error: "))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::config::{SETTINGS, Setting};

    #[test]
    fn the_help_tells_every_default() {
        let help = Cli::command().term_width(1000).render_long_help().to_string();
        for Setting { name, default, .. } in SETTINGS {
            assert!(help.contains(&format!("--{}", name.replace('_', "-"))), "{name} is not in\n{help}");
            if let Some(default) = default {
                assert!(help.contains(&format!("[default: {default}]")), "{name}'s default is not in\n{help}");
            }
        }
    }

    #[test]
    fn settings_are_flags_before_and_after_the_command() {
        for line in ["x --window 4s serve", "x serve --window 4s", "x --window 4s"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.flags.window.as_deref(), Some("4s"), "{line}");
        }
    }
}
