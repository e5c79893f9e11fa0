//! The arguments of `segment-estimator demo`, and its output.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use clap::Args;

use super::fill::{DemoCounts, fill};
use super::parameters::Demo;
use super::population::Population;
use crate::commands::data::Data;
use crate::commands::healthcheck::local_address;
use crate::commands::progress::{Progress, Unit};
use crate::commands::{Failure, Outcome, StopSignals};
use crate::config::Settings;
use crate::domain::counted;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::estimator::history::Interval;

/// The arguments of `demo`.
#[derive(Args)]
pub(crate) struct DemoCommand {
    /// Number of segments
    #[arg(long, value_name = "NUMBER", default_value_t = 300, value_parser = within::<1, 10_000>)]
    segments: usize,
    /// Number of users; `visitors` has all of them, the next segment a fifth
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000, value_parser = within::<10, 10_000_000>)]
    users: usize,
    /// Seed of the random numbers; the same seed generates the same population
    #[arg(long, value_name = "NUMBER", default_value_t = 7)]
    seed: u64,
}

impl DemoCommand {
    /// Fills the empty data set.
    ///
    /// # Errors
    ///
    /// The reason in one line for the user.
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
        let store = settings.require_layout(data.store.clone());
        let (estimator, clock) = (Estimator::new(store.clone(), settings.window), Clock::system());
        let population = Population::new(demo);
        let progress = Progress::start(Unit::Items, Some(population.visits()), "visits");
        let outcome = tokio::select! {
            filled = fill(&population, &estimator, &store, &clock, &progress) => filled.map_err(Failure::from),
            failure = data.supervise() => Err(failure),
            name = signals.next() => Err(format!("stopped by {name}; what was written so far is kept").into()),
        };
        progress.finish();
        let is_served = data.has_joined(settings);
        data.close().await;
        let DemoCounts { segments, visits, points } = outcome?;
        let took = humantime::format_duration(Duration::from_millis(since.elapsed().as_millis() as u64));
        let mut out = io::stdout();
        let [segments, members, points] = [
            counted(segments as u64, "segment", "segments"),
            counted(visits, "member", "members"),
            counted(points, "point", "points"),
        ];
        writeln!(out, "{segments} with {members}, and {points} of their histories, in {took}")?;
        Self::write_address(settings, is_served, &mut out)?;
        writeln!(out, "{}", population.sights())?;
        Ok(())
    }

    /// Writes where the pages are. The address of a service that is running already may come from its own flags.
    fn write_address(settings: &Settings, is_served: bool, out: &mut impl Write) -> io::Result<()> {
        match &settings.public_url {
            Some(url) if is_served => writeln!(out, "open {url}/"),
            Some(url) => writeln!(out, "start the service with the same settings and open {url}/"),
            None if is_served => writeln!(out, "open the running service in a browser"),
            None => {
                let scheme = if settings.tls_files().is_some() { "https" } else { "http" };
                let address = local_address(settings.listen);
                writeln!(out, "start the service with the same settings and open {scheme}://{address}/")?;
                writeln!(out, "(in a container or behind a proxy, at the address that it publishes)")
            }
        }
    }
}

fn within<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
    number.ok_or_else(|| format!("must be a whole number from {MIN} to {MAX}"))
}
