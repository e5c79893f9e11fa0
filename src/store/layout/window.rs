//! The window of the data set: how long members are kept, whatever the windows of the instances are.
//!
//! The window is part of the layout record, which every request confirms. An instance extends it before it counts over
//! a longer one. Pruning uses the recorded window, and each removal compares the partition's copy of the record in the
//! same atomic step. If the window was extended in the meantime, the prune removes nothing.
//!
//! Only an operator shortens it, in two steps. First the shorter window is recorded as a proposal beside the one in
//! force. An instance that counts over a longer one withdraws the proposal within a second. If the proposal is still
//! recorded after [`Store::OBJECTION`], it takes effect.

use std::time::Duration;

use ::redis::{Value, pipe};

use crate::domain::Window;
use crate::redis::Request;
use crate::store::{Error, KeySet, Layout, Resharding, Store};

/// The outcome of a change of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowChange {
    /// The window is recorded.
    Done,
    /// An instance counts over a longer window, which stays in force.
    Refused,
    /// A resharding to this key set is in progress, which a shorter window must wait for.
    Moving(KeySet),
}

impl Store {
    /// Time for instances to withdraw a shorter window. They check every second, and Redis may take two to answer.
    pub(crate) const OBJECTION: Duration = Duration::from_secs(5);

    /// Records `window`, unless an instance counts over a longer one. A shorter window is refused during a resharding:
    /// both take several steps, and a step of one would undo a step of the other.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer; the window may be recorded. [`Error::LayoutChanged`] if the layout changed
    /// otherwise.
    pub async fn set_window(&self, window: Window) -> Result<WindowChange, Error> {
        let layout = self.propagate_layout().await?;
        let next = Layout { epoch: layout.epoch + 1, window: Some(window), shorter: None, ..layout };
        if layout.window.is_none_or(|kept| kept <= window) {
            self.take_step(&layout, &next).await?;
            return Ok(WindowChange::Done);
        }
        if let Some(Resharding { to, .. }) = layout.resharding {
            return Ok(WindowChange::Moving(to));
        }
        let proposed = Layout { epoch: layout.epoch + 1, shorter: Some(window), ..layout };
        self.take_step(&layout, &proposed).await?;
        tokio::time::sleep(Self::OBJECTION).await;
        let now = self.propagate_layout().await?;
        if now != proposed {
            let is_refused = now.window == layout.window && now.is_laid_out_as(&layout);
            return if is_refused { Ok(WindowChange::Refused) } else { Err(Error::LayoutChanged) };
        }
        self.take_step(&proposed, &Layout { epoch: proposed.epoch + 1, ..next }).await?;
        Ok(WindowChange::Done)
    }

    /// Replaces `layout` by `next` in all partitions.
    pub(in crate::store) async fn take_step(&self, layout: &Layout, next: &Layout) -> Result<Layout, Error> {
        self.replace_record(layout, next).await?;
        // Another process may have taken the same step, or an earlier attempt whose answer was lost.
        let current = self.propagate_layout().await?;
        if current == *next { Ok(current) } else { Err(Error::LayoutChanged) }
    }

    /// Replaces the record of `layout` by that of `next` if `layout` is in force.
    pub(super) async fn replace_record(&self, layout: &Layout, next: &Layout) -> Result<(), Error> {
        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(REPLACE_RECORD).arg(1).arg(self.key_names.layout());
        script.arg(layout.record()).arg(next.record());
        self.client.send(Request::new(self.layout_slot(), pipeline)).await?.all::<Value>()?;
        Ok(())
    }

    /// Updates the metrics of the windows, and logs a change of the data set's.
    pub(super) fn report_window(&self, before: Option<Window>, now: Option<Window>) {
        let (Some(own), Some(kept)) = (self.window, now) else { return };
        self.metrics().redis.set_windows(own.as_secs(), kept.as_secs());
        if before == now {
            return;
        }
        if kept > own {
            tracing::warn!(
                window = %own,
                data_window = %kept,
                "window is shorter than that of the data set: counting over window, pruning by data_window; to prune by \
                 window, run `segment-estimator window set {own}`"
            );
        } else if before.is_some() {
            tracing::info!(data_window = %kept, "window of the data set changed");
        }
    }
}

/// Replaces the record `ARGV[1]` by `ARGV[2]`.
const REPLACE_RECORD: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1";
