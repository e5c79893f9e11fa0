//! The cached refusal of a database without a record.

use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use crate::store::Error;

/// The refusal of a database that has keys named like those of a data set, and no record. Finding such keys costs Redis
/// milliseconds, so requests share the outcome for a second.
#[derive(Debug, Default)]
pub(in crate::store) struct Refusal(ArcSwapOption<(Instant, Error)>);

impl Refusal {
    const SHARED_FOR: Duration = Duration::from_secs(1);

    /// Returns the refusal if it was found within the last second.
    pub(super) fn recent(&self) -> Result<(), Error> {
        match self.0.load().as_deref() {
            Some((at, error)) if at.elapsed() < Self::SHARED_FOR => Err(error.clone()),
            _ => Ok(()),
        }
    }

    pub(super) fn remember(&self, error: &Error) {
        if matches!(error, Error::Unrecorded { .. }) {
            self.0.store(Some((Instant::now(), error.clone()).into()));
        }
    }
}
