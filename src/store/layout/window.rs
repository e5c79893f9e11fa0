//! The window of the data set: how long members are kept, whatever the instances count over.
//!
//! It is in the record of the layout, which every exchange compares. An instance extends it before it counts over a longer one.
//! Pruning goes by the record, and each removal compares the partition's copy of the record in the same atomic step. So a prune
//! that goes by a window that was extended in the meantime removes nothing.
//!
//! Only an operator makes it shorter, in two steps. The shorter window is recorded beside the one in force first. An instance that
//! counts over a longer one strikes it out, which it does within a second. If it is still there after a while, it takes effect.

use std::time::Duration;

use redis::{Value, pipe};

use crate::domain::Window;
use crate::redis::Request;
use crate::store::{Error, Layout, Partitions, Resharding, Store};

/// What became of a window that an operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowChange {
    /// It is recorded.
    Done,
    /// An instance counts over a longer one, which stays.
    Refused,
    /// The data is moving to so many partitions, and the window must not become shorter until it is there.
    Moving(Partitions),
}

impl Store {
    /// How long instances have to strike out a shorter window. They look every second, and Redis may take two to answer.
    pub(crate) const OBJECTION: Duration = Duration::from_secs(5);

    /// Records that members are kept for `window`, unless an instance counts over a longer one. A shorter window waits for the end of a
    /// move: both change the record step by step, and a step of the one would undo a step of the other.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer; the window may be recorded. [`Error::UnknownLayout`] when the layout was changed in
    /// another way.
    pub async fn set_window(&self, window: Window) -> Result<WindowChange, Error> {
        let layout = self.settled_layout().await?;
        let next = Layout { epoch: layout.epoch + 1, window: Some(window), shorter: None, ..layout };
        if layout.window.is_none_or(|kept| kept <= window) {
            self.take_step(&layout, &next).await?;
            return Ok(WindowChange::Done);
        }
        if let Some(Resharding { to, .. }) = layout.resharding {
            return Ok(WindowChange::Moving(to.partitions()));
        }
        let proposed = Layout { epoch: layout.epoch + 1, shorter: Some(window), ..layout };
        self.take_step(&layout, &proposed).await?;
        tokio::time::sleep(Self::OBJECTION).await;
        let now = self.settled_layout().await?;
        if now != proposed {
            let is_refused = now.window == layout.window && now.is_laid_out_as(&layout);
            return if is_refused { Ok(WindowChange::Refused) } else { Err(Error::UnknownLayout) };
        }
        self.take_step(&proposed, &Layout { epoch: proposed.epoch + 1, ..next }).await?;
        Ok(WindowChange::Done)
    }

    /// Replaces `layout` by `next`, in all partitions.
    pub(in crate::store) async fn take_step(&self, layout: &Layout, next: &Layout) -> Result<Layout, Error> {
        self.replace_record(layout, next).await?;
        // Another process may have taken the same step, or an attempt of this one whose answer was lost.
        let settled = self.settled_layout().await?;
        if settled == *next { Ok(settled) } else { Err(Error::UnknownLayout) }
    }

    /// Replaces the record of `layout` by that of `next` if it is in force.
    pub(super) async fn replace_record(&self, layout: &Layout, next: &Layout) -> Result<(), Error> {
        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(REPLACE_RECORD).arg(1).arg(self.names.layout());
        script.arg(layout.record()).arg(next.record());
        self.client.send(Request::new(self.layout_slot(), pipeline)).await?.all::<Value>()?;
        Ok(())
    }

    /// Tells of the window of the data set, in a metric and, when it is news, in the log.
    pub(super) fn tell_window(&self, before: Option<Window>, now: Option<Window>) {
        let (Some(own), Some(kept)) = (self.window, now) else { return };
        self.metrics().redis.set_windows(own.as_secs(), kept.as_secs());
        if before == now {
            return;
        }
        if kept > own {
            tracing::warn!(
                window = %own,
                data_window = %kept,
                "window is shorter than that of the data set: counting over the one and pruning by the other; \
                 to prune by it, run `segment-estimator window set {own}`"
            );
        } else if before.is_some() {
            tracing::info!(data_window = %kept, "the window of the data set has changed");
        }
    }
}

/// Replaces the record `ARGV[1]` by `ARGV[2]`.
const REPLACE_RECORD: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1";
