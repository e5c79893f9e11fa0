//! `segment-estimator adopt`: takes over a data set that has no record.

use std::io::{self, Write as _};

use clap::Args;

use super::confirm::confirm;
use super::data::Data;
use super::{Failure, Outcome};
use crate::config::Settings;
use crate::estimator::clock::Clock;
use crate::store::diagnostics::Survey;
use crate::store::{self, Keyspace, Partitions, Store};

/// Whether to ask.
#[derive(Args)]
pub(super) struct AdoptCommand {
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

impl AdoptCommand {
    /// Shows what there is, and takes it over.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub(super) async fn run(&self, settings: &Settings) -> Outcome {
        let mut data = Data::open(settings).await?;
        let store = data.store.clone().with_window(settings.window);
        let outcome = tokio::select! {
            outcome = self.adopt(&store, settings) => outcome,
            failure = data.supervise() => Err(failure),
        };
        data.close().await;
        outcome
    }

    async fn adopt(&self, store: &Store, settings: &Settings) -> Outcome {
        let failed = |error: store::Error| Failure::from(format!("failed to adopt the data set: {error}"));
        let mut out = io::stdout();
        match store.found_layout().await {
            Ok(Some(layout)) => {
                writeln!(
                    out,
                    "nothing to do: the data set has a record, of {}",
                    layout.read().partitions().in_words()
                )?;
                return Ok(());
            }
            Ok(None) => {
                writeln!(out, "nothing to do: there is no data, and the service makes a data set when it starts")?;
                return Ok(());
            }
            Err(store::Error::Unrecorded { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let settled = Clock::system().sync(store).await.map_err(failed)?.safe_cutoff;
        let candidates = store.unrecorded_keys(settings.partitions).await.map_err(failed)?;
        let mut found = Vec::new();
        for keys in candidates {
            let survey = store.survey(keys, settings.window.cutoff(settled)).await.map_err(failed)?;
            writeln!(out, "{}: {}", keys.partitions().in_words(), in_words(&survey, settings))?;
            found.push((keys, survey));
        }
        found.retain(|(keys, _)| settings.partitions.is_none_or(|partitions| keys.partitions() == partitions));
        let (keys, survey) = the_only_one(found, settings.partitions)?;
        if let (0, Some(first)) = (survey.segments + survey.empty, survey.foreign.first()) {
            return Err(format!(
                "nothing was changed: `{first}` is no sorted set, so that it is another program's; rename it, or set redis_key_prefix"
            )
            .into());
        }
        confirm(&format!("Take over {} as the data set of this service?", keys.partitions().in_words()), self.yes)?;
        let layout = store.adopt(keys).await.map_err(failed)?;
        writeln!(out, "adopted: the data set has {}", layout.read().partitions().in_words())?;
        Ok(())
    }
}

/// What was found, in a sentence without its subject.
fn in_words(survey: &Survey, settings: &Settings) -> String {
    let Survey { segments, empty, members, expired, foreign } = survey;
    let mut text = format!(
        "{} with {}; the next prune removes {expired}, which are older than the window of {}",
        count(*segments, "segment"),
        count(*members, "member"),
        settings.window
    );
    if *empty > 0 {
        text += &format!(", and {} without members", count(*empty, "name"));
    }
    if !foreign.is_empty() {
        text += &format!("; {} of another type left alone", count(foreign.len() as u64, "key"));
    }
    text
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn the_only_one(mut found: Vec<(Keyspace, Survey)>, set: Option<Partitions>) -> Result<(Keyspace, Survey), Failure> {
    match (found.pop(), found.is_empty(), set) {
        (Some(only), true, _) => Ok(only),
        (None, _, Some(set)) => {
            Err(format!("nothing was changed: no keys fit {}; leave partitions unset to see which do", set.in_words())
                .into())
        }
        (None, _, None) => {
            Err("nothing was changed: the users in the keys fit no number of partitions; if it is known, name it with --partitions".into())
        }
        (Some(_), false, _) => {
            Err("nothing was changed: the keys fit several numbers of partitions; name the right one with --partitions"
                .into())
        }
    }
}
