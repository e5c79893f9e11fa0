//! `segment-estimator export`: all live visits as NDJSON, page by page, as `import` takes them.

mod command;

use std::io::{self, Write};
use std::time::Instant;

pub(super) use self::command::ExportCommand;
use super::backoff::Patience;
use super::progress::Progress;
use crate::domain::visit_json::RawVisit;
use crate::domain::{SegmentName, Timestamp, Window};
use crate::estimator::clock::Clock;
use crate::store::{self, Partition, Store};

/// Gives all visits that count, while the data set is used.
#[derive(Debug)]
pub struct Export {
    store: Store,
    window: Window,
    /// These segments alone; all if there are none.
    segments: Vec<SegmentName<'static>>,
}

/// What was exported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Visits. Of a user who was seen again meanwhile there may be two in a segment.
    pub visits: u64,
    /// Segments that were passed over, since their keys hold something else; each counts once for each partition.
    pub segments_failed: u64,
}

/// Why not all was exported: one line, made to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// What is exported can't be written.
    #[error("can't write the visits: {0}")]
    Output(#[from] io::Error),
    /// Redis can't serve.
    #[error("Redis can't serve: {0}")]
    Store(#[from] store::Error),
    /// The data set was moved to other partitions.
    #[error("the data set was moved to other partitions meanwhile, so that some visits are missing: run it again")]
    Moved,
}

impl Export {
    /// How many segment names are read from an index at once.
    const INDEX_PAGE: usize = 1_000;

    /// An export of what counts for `window` in `store`: of `segments`, or of all if there are none.
    #[must_use]
    pub fn new(store: Store, window: Window, segments: Vec<SegmentName<'static>>) -> Self {
        Self { store, window, segments }
    }

    /// Writes every visit that counts when it begins to `out`, and tells `progress` how many there are.
    ///
    /// Who was in a segment all the while is in what is written. Who is seen meanwhile may be, with the time before or after, or
    /// both.
    ///
    /// # Errors
    ///
    /// An [`ExportError`]. What was written until then is good.
    pub async fn write_to(
        &self,
        out: &mut impl Write,
        clock: &Clock,
        progress: Option<&Progress>,
    ) -> Result<Exported, ExportError> {
        clock.sync(&self.store).await?;
        let cutoff = self.window.cutoff(clock.now());
        self.store.check_layout().await?;
        let keys = self.store.layout().await?.read();
        let mut writing = Writing { store: &self.store, out, cutoff, progress, exported: Exported::default() };
        for partition in keys.all() {
            if self.segments.is_empty() {
                writing.write_partition(partition).await?;
            }
            for segment in &self.segments {
                writing.write_segment(partition, segment).await?;
            }
        }
        writing.out.flush()?;
        let exported = writing.exported;
        self.store.check_layout().await?;
        if self.store.layout().await?.read() == keys { Ok(exported) } else { Err(ExportError::Moved) }
    }
}

/// An export under way.
struct Writing<'a, W> {
    store: &'a Store,
    out: &'a mut W,
    cutoff: Timestamp,
    progress: Option<&'a Progress>,
    exported: Exported,
}

impl<W: Write> Writing<'_, W> {
    async fn write_partition(&mut self, partition: Partition) -> Result<(), ExportError> {
        let (store, mut cursor) = (self.store, None);
        loop {
            let page = patiently(|| store.index_of(partition, cursor.as_ref(), Export::INDEX_PAGE)).await?;
            for segment in &page.segments {
                self.write_segment(partition, segment).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn write_segment(&mut self, partition: Partition, segment: &SegmentName<'_>) -> Result<(), ExportError> {
        let (store, mut cursor) = (self.store, None);
        loop {
            let page = match patiently(|| store.members(partition, segment, cursor.as_ref())).await {
                Err(error) if error.is_wrong_type() => {
                    self.exported.segments_failed += 1;
                    return Ok(());
                }
                page => page?,
            };
            for (user_id, seen_at) in page.members {
                if seen_at > self.cutoff {
                    let visit = RawVisit { user_id, segment: segment.clone(), seen_at: Some(seen_at) };
                    visit.write_line(&mut self.out)?;
                    self.exported.visits += 1;
                }
            }
            if let Some(progress) = self.progress {
                progress.tell(self.exported.visits, self.exported.visits);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}

/// Asks until there is an answer, as long as patience allows.
async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, store::Error>
where
    F: Future<Output = Result<T, store::Error>>,
{
    let mut patience = Patience::default();
    loop {
        match ask().await {
            Err(error) if error.is_outage() => match patience.pause(None, Instant::now()) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(error),
            },
            answer => return answer,
        }
    }
}
