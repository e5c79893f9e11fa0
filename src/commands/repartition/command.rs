//! The arguments of `segment-estimator repartition`, and its output.

use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Destination, MembersKept, MoveOutcome, Repartition};
use crate::commands::confirm::confirm;
use crate::commands::data::Data;
use crate::commands::{Failure, Outcome, StopSignals};
use crate::config::Settings;
use crate::domain::counted;
use crate::estimator::clock::Clock;
use crate::store::{KeySet, Partitions};

/// The arguments of `repartition`.
#[derive(Args)]
pub(crate) struct RepartitionCommand {
    /// Number of partitions: a power of two, up to 1024 [default: the present one]
    #[arg(long, value_name = "NUMBER", value_parser = Partitions::parse)]
    to: Option<Partitions>,
    /// Maximum number of users that a segment keeps, such as 65536 [default: the present one]
    ///
    /// A power of two from 1024 to 16777216. A segment with more users keeps a sample of them, and its count is an
    /// estimate. The other users are gone for good: a larger maximum takes effect for later visits alone, and a data
    /// set with a maximum refuses `off`.
    // A text, as the setting of the same name, whose flag clap passes on to each command.
    #[arg(long, value_name = "NUMBER", value_parser = members_kept)]
    max_members: Option<String>,
    /// Skip the confirmation before users are dropped
    #[arg(long)]
    yes: bool,
}

/// Returns the text of a valid `--max-members`.
fn members_kept(text: &str) -> Result<String, String> {
    MembersKept::parse(text).map(|_| text.to_owned())
}

impl RepartitionCommand {
    /// Moves the data set, or resumes an interrupted move.
    pub(crate) async fn run(&self, settings: &Settings) -> Outcome {
        let members = self.max_members.as_deref().map(MembersKept::parse).transpose();
        let members = members.map_err(|why| format!("--max-members: {why}"))?;
        let destination = Destination { partitions: self.to, members };
        if destination == Destination::default() {
            return Err("--to, --max-members or both are required; see --help".into());
        }
        let mut signals = StopSignals::new()?;
        let (data, since) = (Data::open(settings).await?, Instant::now());
        let repartition = Repartition::new(data.store.clone(), settings.window, Clock::system());
        let run = async {
            if let Some(max) = repartition.lower_maximum(destination).await? {
                let question = format!(
                    "Keep up to {max} users of each segment? The other users of larger ones are gone for good."
                );
                confirm(&question, self.yes)?;
            }
            Ok::<_, Failure>(repartition.run(destination).await?)
        };
        let outcome = tokio::select! {
            result = run => result,
            name = signals.next() => Err(format!("stopped by {name}; run the same command again to continue").into()),
        };
        data.close().await;
        let mut out = std::io::stdout();
        match outcome? {
            MoveOutcome::NothingToDo(keys) => writeln!(out, "nothing to do: {}", there_are(keys))?,
            MoveOutcome::Done { keys, members, segments } => writeln!(
                out,
                "{} now: {} copied and {} compared in {}",
                there_are(keys),
                counted(members, "member", "members"),
                counted(segments, "count", "counts"),
                humantime::format_duration(Duration::from_millis(since.elapsed().as_millis() as u64))
            )?,
        }
        Ok(())
    }
}

fn there_are(keys: KeySet) -> String {
    let is = if keys.partitions() == Partitions::ONE { "is" } else { "are" };
    format!("there {is} {}", keys.in_words())
}
