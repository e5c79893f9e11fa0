//! `segment-estimator window`: shows or sets how long the data set keeps visits.

use std::io::{self, Write as _};

use clap::{Args, Subcommand};

use super::confirm::confirm;
use super::data::Data;
use super::repartition::arguments;
use super::{Failure, Outcome};
use crate::config::Settings;
use crate::domain::{Window, counted};
use crate::estimator::clock::Clock;
use crate::store::{self, KeySet, Resharding, Store, WindowChange};

/// The arguments of `window`.
#[derive(Args)]
pub(super) struct WindowCommand {
    #[command(subcommand)]
    change: Option<Change>,
}

#[derive(Subcommand)]
enum Change {
    /// Set the window; after a shorter one, the next prune permanently removes older visits
    Set {
        /// Duration such as 7d, at least the longest `window` of any instance
        #[arg(value_parser = Window::parse)]
        to: Window,
        /// Skip the confirmation
        #[arg(long)]
        yes: bool,
    },
}

impl WindowCommand {
    /// Shows or sets the window of the data set.
    ///
    /// # Errors
    ///
    /// The reason in one line for the user.
    pub(super) async fn run(&self, settings: &Settings) -> Outcome {
        let mut data = Data::open(settings).await?;
        let store = data.store.clone();
        let outcome = tokio::select! {
            outcome = self.show_or_set(&store) => outcome,
            failure = data.supervise() => Err(failure),
        };
        data.close().await;
        outcome
    }

    async fn show_or_set(&self, store: &Store) -> Outcome {
        let failed = |error: store::Error| Failure::from(format!("failed to read the window: {error}"));
        let layout = store.existing_layout().await.map_err(failed)?;
        let Some(layout) = layout else {
            return Err("there is no data set yet; the first instance creates it with its own window".into());
        };
        let kept = layout.window();
        let mut out = io::stdout();
        let Some(Change::Set { to, yes }) = &self.change else {
            match kept {
                Some(kept) => writeln!(out, "{kept}")?,
                None => writeln!(
                    out,
                    "not recorded yet: the first instance of this version records its own, or 14d if that is longer"
                )?,
            }
            return Ok(());
        };
        if kept == Some(*to) {
            writeln!(out, "nothing to do: the window is {to}")?;
            return Ok(());
        }
        if kept.is_none_or(|kept| *to < kept) {
            if let Some(Resharding { to, .. }) = layout.resharding() {
                return Err(moving(to));
            }
            let clock = Clock::system();
            let safe_now = clock.sync(store).await.map_err(failed)?.safe_now;
            let survey = store.survey(layout.read(), to.cutoff(safe_now)).await.map_err(failed)?;
            let (expired, members) = (survey.expired, survey.members);
            writeln!(
                out,
                "by {to}, the next prune removes {expired} of {}, for good",
                counted(members, "visit", "visits")
            )?;
            writeln!(
                out,
                "an instance that counts over more objects within {}s, if it runs and reaches Redis: start all of them first",
                Store::OBJECTION.as_secs()
            )?;
            confirm(&format!("Set the window of the data set to {to}?"), *yes)?;
        }
        let change = store.set_window(*to).await;
        let change = change.map_err(|error| match error {
            store::Error::LayoutChanged => {
                "failed to set the window: another process changed the data set at the same time; try again".to_owned()
            }
            error => format!("failed to set the window: {error}"),
        });
        match change? {
            WindowChange::Done => writeln!(out, "the window of the data set is {to}")?,
            WindowChange::Moving(to) => return Err(moving(to)),
            WindowChange::Refused => {
                return Err(format!(
                    "nothing was changed: a running instance counts over more than {to}; restart every instance with window={to} first"
                )
                .into());
            }
        }
        Ok(())
    }
}

fn moving(to: KeySet) -> Failure {
    format!(
        "nothing was changed: the data is moving to {}; finish that first, with `segment-estimator repartition {}`",
        to.in_words(),
        arguments(to)
    )
    .into()
}
