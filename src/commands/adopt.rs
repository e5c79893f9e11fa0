//! `segment-estimator adopt`: adopts a data set without a record.

use std::collections::BTreeSet;
use std::io::{self, Write as _};

use clap::Args;

use super::confirm::confirm;
use super::data::Data;
use super::{Failure, Outcome};
use crate::config::Settings;
use crate::domain::{Window, counted};
use crate::estimator::clock::Clock;
use crate::store::diagnostics::{Survey, list_first};
use crate::store::{self, Candidate, Coverage, Partitions, Store, UnrecordedData};

/// The arguments of `adopt`.
#[derive(Args)]
pub(super) struct AdoptCommand {
    /// Skip the confirmation
    #[arg(long)]
    yes: bool,
}

impl AdoptCommand {
    /// Prints the candidates, chooses one and adopts it.
    ///
    /// # Errors
    ///
    /// The reason in one line for the user.
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
        match store.existing_layout().await {
            Ok(Some(layout)) => {
                writeln!(out, "nothing to do: the data set has a record, of {}", layout.read().in_words())?;
                return Ok(());
            }
            // The error is based on a few keys. All keys are scanned below.
            Ok(None) | Err(store::Error::Unrecorded { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let safe_now = Clock::system().sync(store).await.map_err(failed)?.safe_now;
        let found = store.survey_unrecorded(safe_now).await.map_err(failed)?;
        if found.coverage != Coverage::Complete {
            return Err("nothing was changed: not all keys were scanned, and the others would be hidden: Redis refuses `SCAN`; grant +scan"
                .to_owned()
                .into());
        }
        if found.is_empty() {
            writeln!(out, "nothing to do: there is no data; the service creates a data set when it starts")?;
            return Ok(());
        }
        if let Some(key) = &found.bounded {
            return Err(format!(
                "nothing was changed: `{key}` is a key of bounded segments, and only the lost record has their maximum number of members; \
                 restore the key `{}`, whose `keys` end in @ and that number, from a backup; if the key is a leftover or another \
                 program's, rename or remove it, or set redis_key_prefix",
                store.layout_key()
            )
            .into());
        }
        for Candidate { keys, survey, .. } in &found.candidates {
            writeln!(out, "{}: {}", keys.in_words(), describe(survey, found.window))?;
        }
        for (pattern, survey) in &found.unfit {
            writeln!(out, "{pattern}, which fit no number of partitions: {}", describe(survey, found.window))?;
        }
        let Candidate { keys, survey, .. } = choose(&found, settings.partitions)?;
        if let (0, Some(first)) = (survey.segments + survey.empty, survey.foreign.first()) {
            return Err(format!(
                "nothing was changed: `{first}` is not a sorted set, so it belongs to another program; rename it, or set redis_key_prefix"
            )
            .into());
        }
        confirm(&format!("Take over {} as the data set of this service?", keys.in_words()), self.yes)?;
        let layout = store.adopt(*keys, found.window, &survey.unindexed).await.map_err(failed)?;
        let window = layout.window().unwrap_or(found.window);
        write!(out, "adopted: the data set has {}, and keeps visits for {window}", layout.read().in_words())?;
        if window > settings.window {
            write!(out, "; to keep them for less, run `segment-estimator window set {}`", settings.window)?;
        }
        writeln!(out)?;
        Ok(())
    }
}

/// Formats a survey as a sentence without its subject.
fn describe(survey: &Survey, window: Window) -> String {
    let Survey { segments, empty, members, expired, unindexed, foreign } = survey;
    let mut text = format!(
        "{} with {}; the next prune removes {expired}, which are older than the window of {window}",
        counted(*segments, "segment", "segments"),
        counted(*members, "member", "members"),
    );
    if !unindexed.is_empty() {
        text += &format!(
            "; {} missing in the index are added to it",
            counted(unindexed.len() as u64, "segment", "segments")
        );
    }
    if *empty > 0 {
        text += &format!(", and {} without members", counted(*empty, "name", "names"));
    }
    if !foreign.is_empty() {
        text += &format!(
            "; {} of another type left alone: {}",
            counted(foreign.len() as u64, "key", "keys"),
            list_first(foreign)
        );
    }
    text
}

/// The remedy for keys that would be hidden.
const REMOVE: &str = "if the others are leftovers or another program's, rename or remove them";

/// Returns the set of keys to adopt. The wrong one would hide the members of the others, so any doubt is an error.
fn choose(found: &UnrecordedData, set: Option<Partitions>) -> Result<&Candidate, Failure> {
    let numbers: BTreeSet<_> = found.candidates.iter().map(|candidate| candidate.keys.partitions().count()).collect();
    let fitting = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let is_meant = |candidate: &&Candidate| set.map_or(candidate.fits, |set| candidate.keys.partitions() == set);
    let mut meant = found.candidates.iter().filter(is_meant);
    let why = match (meant.next(), meant.next(), set) {
        (Some(Candidate { keys, survey, hidden, .. }), None, Some(_))
            if hidden.values().any(|members| *members > survey.unexpired()) =>
        {
            let have = if keys.partitions() == Partitions::ONE { "has" } else { "have" };
            let patterns = hidden.keys().cloned().collect::<Vec<_>>().join(", ");
            format!(
                "{} {have} fewer unexpired members than other keys, which would be hidden ({patterns}); name the right one of {fitting} \
                 with --partitions, or, {REMOVE}",
                keys.partitions().in_words()
            )
        }
        (Some(only), None, Some(_)) => return Ok(only),
        (Some(_), _, None) if numbers.len() > 1 => {
            format!("the keys fit several numbers of partitions ({fitting}); name the right one with --partitions")
        }
        (Some(only), None, None) if only.hidden.is_empty() => return Ok(only),
        (Some(Candidate { keys, hidden, .. }), None, None) => format!(
            "the keys fit {}, and there are others, which would be hidden ({}): {REMOVE}, or name the right number with --partitions",
            keys.partitions().in_words(),
            hidden.keys().cloned().collect::<Vec<_>>().join(", ")
        ),
        (Some(first), Some(second), _) => format!(
            "there are keys of two data sets with so many partitions, {} and {}; remove those of the wrong one",
            first.pattern, second.pattern
        ),
        (None, _, Some(set)) if !fitting.is_empty() => {
            format!("no keys fit {}, and they do fit {fitting}", set.in_words())
        }
        (None, _, Some(set)) => match found.beyond(set) {
            Some(last) => format!(
                "there are keys of the partition {last}, and so more than {}; if they are leftovers, remove them",
                set.in_words()
            ),
            None => format!("no keys fit {}; leave partitions unset to see which do", set.in_words()),
        },
        (None, _, None) => {
            "the users in the keys fit no number of partitions; if it is known, name it with --partitions".to_owned()
        }
    };
    Err(format!("nothing was changed: {why}").into())
}
