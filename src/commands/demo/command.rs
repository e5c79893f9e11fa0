//! `segment-estimator demo`: fills a fresh data set with a population that is made up.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Demo, Filled};
use crate::commands::data::Data;
use crate::commands::healthcheck::reachable;
use crate::commands::progress::{Measure, Progress};
use crate::commands::{Failure, Outcome, StopSignals};
use crate::config::Settings;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::Interval;

/// What to make up.
#[derive(Args)]
pub(crate) struct DemoCommand {
    /// How many segments
    #[arg(long, value_name = "NUMBER", default_value_t = 300, value_parser = within::<1, 10_000>)]
    segments: usize,
    /// How many users; the largest segment has a fifth of them
    #[arg(long, value_name = "NUMBER", default_value_t = 200_000, value_parser = within::<10, 10_000_000>)]
    users: usize,
    /// What the chances go by: the same seed gives the same population
    #[arg(long, value_name = "NUMBER", default_value_t = 7)]
    seed: u64,
}

impl DemoCommand {
    /// Fills the data set, which must be empty.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub(crate) async fn run(&self, settings: &Settings) -> Outcome {
        let mut signals = StopSignals::new()?;
        let since = Instant::now();
        let demo = Demo {
            segments: self.segments,
            users: self.users,
            seed: self.seed,
            interval: settings.history_interval.unwrap_or(Interval::DEFAULT),
        };
        let mut data = Data::open(settings).await?;
        let store = data.store.clone().with_partitions(settings.partitions);
        let (estimator, clock) = (Estimator::new(store.clone(), settings.window), Clock::system());
        let progress = Progress::start(Measure::Things, Some(demo.visits()), "visits");
        let outcome = tokio::select! {
            filled = demo.fill(&estimator, &store, &clock, Some(&progress)) => filled.map_err(Failure::from),
            failure = data.supervise() => Err(failure),
            name = signals.next() => Err(format!("stopped by {name}; what was written until then stays").into()),
        };
        progress.end();
        data.close().await;
        let Filled { segments, visits, points } = outcome?;
        let took = humantime::format_duration(Duration::from_millis(since.elapsed().as_millis() as u64));
        let mut out = std::io::stdout();
        writeln!(out, "{segments} segments with {visits} members, and {points} points of their histories, in {took}")?;
        let scheme = if settings.tls_files().is_some() { "https" } else { "http" };
        let address = reachable(settings.listen);
        writeln!(out, "see them while the service runs: at {scheme}://{address}/, unless it listens elsewhere")?;
        Ok(())
    }
}

fn within<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {MIN} to {MAX}"))
}
