//! `segment-estimator adopt`: takes over a data set that has no record.

use std::collections::BTreeSet;
use std::io::{self, Write as _};

use clap::Args;

use super::confirm::confirm;
use super::data::Data;
use super::{Failure, Outcome};
use crate::config::Settings;
use crate::domain::Window;
use crate::estimator::clock::Clock;
use crate::store::diagnostics::{Survey, list_first};
use crate::store::{self, Candidate, Coverage, Partitions, Store, UnrecordedData};

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
        match store.existing_layout().await {
            Ok(Some(layout)) => {
                writeln!(
                    out,
                    "nothing to do: the data set has a record, of {}",
                    layout.read().partitions().in_words()
                )?;
                return Ok(());
            }
            // A service looks at some keys only.
            Ok(None) | Err(store::Error::Unrecorded { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        let settled = Clock::system().sync(store).await.map_err(failed)?.safe_cutoff;
        let found = store.survey_unrecorded(settled).await.map_err(failed)?;
        if found.coverage != Coverage::Complete {
            return Err("nothing was changed: not all keys were looked at, and others would be hidden: Redis refuses `SCAN`; grant +scan"
                .to_owned()
                .into());
        }
        if found.is_empty() {
            writeln!(out, "nothing to do: there is no data, and the service makes a data set when it starts")?;
            return Ok(());
        }
        for Candidate { keys, survey, .. } in &found.candidates {
            writeln!(out, "{}: {}", keys.partitions().in_words(), in_words(survey, found.window))?;
        }
        for (pattern, survey) in &found.unfit {
            writeln!(out, "{pattern}, which fit no number of partitions: {}", in_words(survey, found.window))?;
        }
        let Candidate { keys, survey, .. } = choose(&found, settings.partitions)?;
        if let (0, Some(first)) = (survey.segments + survey.empty, survey.foreign.first()) {
            return Err(format!(
                "nothing was changed: `{first}` is no sorted set, so that it is another program's; rename it, or set redis_key_prefix"
            )
            .into());
        }
        confirm(&format!("Take over {} as the data set of this service?", keys.partitions().in_words()), self.yes)?;
        let layout = store.adopt(*keys, found.window, &survey.unindexed).await.map_err(failed)?;
        let window = layout.window().unwrap_or(found.window);
        write!(
            out,
            "adopted: the data set has {}, and keeps visits for {window}",
            layout.read().partitions().in_words()
        )?;
        if window > settings.window {
            write!(out, "; to keep them for less, run `segment-estimator window set {}`", settings.window)?;
        }
        writeln!(out)?;
        Ok(())
    }
}

/// What was found, in a sentence without its subject.
fn in_words(survey: &Survey, window: Window) -> String {
    let Survey { segments, empty, members, expired, unindexed, foreign } = survey;
    let mut text = format!(
        "{} with {}; the next prune removes {expired}, which are older than the window of {window}",
        count(*segments, "segment"),
        count(*members, "member"),
    );
    if !unindexed.is_empty() {
        text += &format!("; {} missing in the index are added to it", count(unindexed.len() as u64, "segment"));
    }
    if *empty > 0 {
        text += &format!(", and {} without members", count(*empty, "name"));
    }
    if !foreign.is_empty() {
        text +=
            &format!("; {} of another type left alone: {}", count(foreign.len() as u64, "key"), list_first(foreign));
    }
    text
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// What to do about keys that would be hidden.
const REMOVE: &str = "if the others are leftovers or another program's, rename or remove them";

/// Returns the one set of keys to take over. The wrong one would hide what the others hold, so each doubt is a refusal.
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
        (Some(_), Some(_), _) => {
            "there are keys of two data sets with so many partitions, {p*}:* and {q*}:*; remove those of the wrong one"
                .to_owned()
        }
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
