//! The arguments of `segment-estimator repartition`, and its output.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;

use super::{MoveOutcome, Repartition};
use crate::commands::data::Data;
use crate::commands::{Failure, Outcome, StopSignals};
use crate::config::Settings;
use crate::domain::counted;
use crate::estimator::clock::Clock;
use crate::store::Partitions;

/// The arguments of `repartition`.
#[derive(Args)]
pub(crate) struct RepartitionCommand {
    /// Number of partitions: a power of two, up to 1024
    #[arg(long, value_name = "NUMBER", value_parser = Partitions::parse)]
    to: Partitions,
}

impl RepartitionCommand {
    /// Moves the data set, or resumes an interrupted move.
    pub(crate) async fn run(&self, settings: &Settings) -> Outcome {
        let mut signals = StopSignals::new()?;
        let (data, since) = (Data::open(settings).await?, Instant::now());
        let repartition = Repartition::new(data.store.clone(), settings.window, Clock::system());
        let outcome = tokio::select! {
            result = repartition.run(self.to, None) => result.map_err(Failure::from),
            name = signals.next() => Err(format!("stopped by {name}; run the same command again to continue").into()),
        };
        data.close().await;
        let mut out = std::io::stdout();
        let is = if self.to == Partitions::ONE { "is" } else { "are" };
        match outcome? {
            MoveOutcome::NothingToDo => writeln!(out, "nothing to do: there {is} {}", self.to.in_words())?,
            MoveOutcome::Done { members, segments } => writeln!(
                out,
                "there {is} {} now: {} copied and {} compared in {}",
                self.to.in_words(),
                counted(members, "member", "members"),
                counted(segments, "count", "counts"),
                humantime::format_duration(Duration::from_millis(since.elapsed().as_millis() as u64))
            )?,
        }
        Ok(())
    }
}
