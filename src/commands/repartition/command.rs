//! `segment-estimator repartition`: moves the data set to another number of partitions.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Moved, Repartition};
use crate::commands::data::Data;
use crate::commands::{Failure, Outcome, StopSignals};
use crate::config::Settings;
use crate::estimator::clock::Clock;
use crate::store::Partitions;

/// The arguments of `repartition`.
#[derive(Args)]
pub(crate) struct RepartitionCommand {
    /// How many partitions there shall be: a power of two, up to 1024
    #[arg(long, value_name = "NUMBER", value_parser = Partitions::parse)]
    to: Partitions,
}

impl RepartitionCommand {
    /// Moves the data set, or takes up a move that was broken off.
    pub(crate) async fn run(&self, settings: &Settings) -> Outcome {
        let mut signals = StopSignals::new()?;
        let (data, since) = (Data::open(settings).await?, Instant::now());
        let repartition = Repartition::new(data.store.clone(), settings.window, Clock::system());
        let outcome = tokio::select! {
            moved = repartition.run(self.to) => moved.map_err(Failure::from),
            name = signals.next() => Err(format!("stopped by {name}; run the same command again to go on").into()),
        };
        data.close().await;
        let mut out = std::io::stdout();
        let is = if self.to == Partitions::ONE { "is" } else { "are" };
        match outcome? {
            Moved::NothingToDo => writeln!(out, "nothing to do: there {is} {}", self.to.in_words())?,
            Moved::Done { members, segments } => writeln!(
                out,
                "there {is} {} now: {members} members copied and {segments} counts compared in {}",
                self.to.in_words(),
                humantime::format_duration(Duration::from_millis(since.elapsed().as_millis() as u64))
            )?,
        }
        Ok(())
    }
}
