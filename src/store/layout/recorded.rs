//! Reading, creating and confirming the layout record.

use std::sync::Arc;

use ::redis::{Value, pipe};
use futures_util::future::join_all;

use super::KnownLayout;
use crate::redis::{Request, Slot};
use crate::store::{Error, KeySet, Layout, Partition, Partitions, Store};

/// The result of a request that used the cached layout.
pub(in crate::store) enum Attempt<T> {
    /// The layout was in force when the server executed the request.
    Committed(T),
    /// Another layout was in force. The request must be repeated.
    Stale,
}

impl Store {
    /// A move changes the layout four times over minutes, and a change of the window twice, so ten retries mean that
    /// something is broken.
    pub(in crate::store) const ATTEMPTS: usize = 10;

    /// Returns the cached layout, or reads it. The caller must confirm it with a partition's copy of the record after
    /// it has used it.
    ///
    /// # Errors
    ///
    /// An [`Error`] if the layout is not cached and Redis didn't answer, or if it contradicts the settings.
    pub async fn layout(&self) -> Result<Layout, Error> {
        self.known_layout().await.map(|known| known.layout)
    }

    pub(in crate::store) async fn known_layout(&self) -> Result<Arc<KnownLayout>, Error> {
        match self.layout.load_full() {
            Some(known) if known.layout.is_kept_for(self.window) => Ok(known),
            // Boxed: keeps the reading of the layout out of every request's future.
            _ => Box::pin(self.read_layout()).await,
        }
    }

    /// Returns the number of partitions; `None` if the layout is not cached yet.
    #[must_use]
    pub fn partitions(&self) -> Option<Partitions> {
        self.layout.load().as_ref().map(|known| known.layout.read().partitions())
    }

    /// Whether segments are bounded; `false` if the layout is not cached yet.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.layout.load().as_ref().is_some_and(|known| known.layout.read().max_members().is_some())
    }

    /// Returns the number of keys that may have members of a segment; 1 if the layout is not cached yet.
    #[must_use]
    pub fn keys_per_segment(&self) -> usize {
        self.layout.load().as_ref().map_or(1, |known| known.layout.read().segment_keys().count())
    }

    /// Checks that the cached layout is the recorded one; otherwise reads it again. Only the first layout is compared
    /// with the number of partitions in the settings, because a resharding may change the number later.
    ///
    /// # Errors
    ///
    /// As [`Self::layout`].
    pub(crate) async fn check_layout(&self) -> Result<(), Error> {
        let known = self.layout.load_full();
        match self.recorded_layout().await? {
            Some(recorded)
                if known.is_some_and(|known| known.layout == recorded) && recorded.is_kept_for(self.window) =>
            {
                Ok(())
            }
            _ => self.read_layout().await.map(drop),
        }
    }

    /// Runs `attempt` with the cached layout, and repeats it with the layout in force while the result is
    /// [`Attempt::Stale`].
    pub(in crate::store) async fn with_layout<T, F>(&self, attempt: impl Fn(Arc<KnownLayout>) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Attempt<T>, Error>>,
    {
        let mut known = self.known_layout().await?;
        for _ in 0..Self::ATTEMPTS {
            match attempt(known).await? {
                Attempt::Committed(done) => return Ok(done),
                Attempt::Stale => known = Box::pin(self.read_layout()).await?,
            }
        }
        Err(Error::UnconfirmedLayout)
    }

    /// Returns whether `layout` is in force in `partition`. If so, it was in force during all earlier reads of the
    /// partition.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub(crate) async fn is_in_force(&self, layout: &Layout, partition: Partition) -> Result<bool, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("GET").arg(self.key_names.layout_of(partition));
        let (record,): (Option<Vec<u8>>,) = self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        Ok(record.is_some_and(|record| record == layout.record().into_bytes()))
    }

    /// Reads the layout in force after the cached one turned out to be stale.
    ///
    /// # Errors
    ///
    /// As [`Self::layout`].
    pub(crate) async fn refresh_layout(&self) -> Result<Layout, Error> {
        self.read_layout().await.map(|known| known.layout)
    }

    /// Reads the record, or creates it if there is none, and writes it to the partitions whose servers answer.
    pub(in crate::store) async fn read_layout(&self) -> Result<Arc<KnownLayout>, Error> {
        self.refusal.recent()?;
        let layout = self.reconcile_layout().await.inspect_err(|error| {
            if error.is_of_the_layout() {
                self.client.report(error.as_failure());
            }
            self.refusal.remember(error);
        })?;
        let known = Arc::new(KnownLayout::new(layout));
        let before = self.layout.swap(Some(Arc::clone(&known)));
        self.report_window(before.and_then(|before| before.layout.window()), layout.window());
        Ok(known)
    }

    /// Returns the layout in force. Brings the record up to date first: it may be missing, older than a partition's
    /// copy, or have too short a window.
    async fn reconcile_layout(&self) -> Result<Layout, Error> {
        for _ in 0..Self::ATTEMPTS {
            let layout = match self.recorded_layout().await? {
                Some(layout) => layout,
                None => self.create_layout().await?,
            };
            if self.layout.load().is_none() {
                layout.check(self.partitions, self.max_members)?;
            }
            // After a failover to a lagging replica, a server lacks the latest steps, and partitions on other servers
            // have them. A single server has lost all records or none.
            let elsewhere = if self.client.is_cluster() { self.layout_in_partitions().await } else { None };
            let newer = match elsewhere.filter(|other| other.order() > layout.order()) {
                Some(newer) => Some(newer),
                // A partition has no record, or an older one, if the process that changed the layout stopped early, or
                // if its server lost data.
                None => {
                    let others = self.record_in_partitions(&layout, layout.in_use()).await;
                    others.into_iter().filter_map(Result::ok).flatten().max_by_key(Layout::order)
                }
            };
            if let Some(newer) = newer {
                self.record_at(&self.key_names.layout(), self.layout_slot(), &newer).await?;
                continue;
            }
            // After a failover, the server may lack the record of an extension of the window that other instances count
            // over.
            let known = self.layout.load_full().map(|known| known.layout).filter(|known| known.epoch > layout.epoch);
            let window = self.window.max(known.and_then(|known| known.window).filter(|_| self.window.is_some()));
            // The extension must be recorded before anything is counted or written.
            let Some(next) = window.and_then(|window| layout.kept_for(window)) else { return Ok(layout) };
            if let Some(kept) = layout.window.filter(|kept| next.window > Some(*kept)) {
                let (from, to) = (kept, next.window.unwrap_or(kept));
                tracing::info!(%from, %to, "extending the window of the data set from {from} to {to}");
            }
            self.replace_record(&layout, &next).await?;
        }
        Err(Error::UnconfirmedLayout)
    }

    /// Returns the layout of the record; `None` if there is no record.
    pub(in crate::store) async fn recorded_layout(&self) -> Result<Option<Layout>, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("GET").arg(self.key_names.layout());
        let (record,): (Option<Vec<u8>>,) =
            match self.client.send(Request::new(self.layout_slot(), pipeline)).await?.all() {
                Err(error) if error.is_wrong_type() => return Err(Error::UnreadableLayout),
                record => record?,
            };
        record.map(|record| Layout::read_record(&record)).transpose()
    }

    /// Returns the slot of the record in a cluster.
    pub(in crate::store) fn layout_slot(&self) -> Slot {
        Slot::of_any_key(&self.key_names.layout())
    }

    /// Records the first layout of a data set unless another instance has recorded one. Returns the layout in force.
    async fn create_layout(&self) -> Result<Layout, Error> {
        let layout = match self.layout.load_full() {
            // Redis lost the record, or all data. The data set keeps its layout.
            Some(known) => {
                let newest = self.layout_in_partitions().await.into_iter().chain([known.layout]);
                let newest = newest.max_by_key(Layout::order).unwrap_or(known.layout);
                self.refuse_foreign_index(&newest).await?;
                newest
            }
            None => match self.unrecorded_layout().await? {
                Some(layout) => layout,
                None => Layout { window: self.window, ..self.first_layout().await? },
            },
        };
        self.record_first(&layout).await
    }

    /// Records `layout` unless there is a record. Returns the layout in force.
    pub(super) async fn record_first(&self, layout: &Layout) -> Result<Layout, Error> {
        let key = self.key_names.layout();
        let mut pipeline = pipe();
        pipeline.cmd("SET").arg(&key).arg(layout.record()).arg("NX");
        pipeline.cmd("GET").arg(&key);
        let (_, record): (Value, Option<Vec<u8>>) =
            self.client.send(Request::new(self.layout_slot(), pipeline)).await?.all()?;
        record.map_or(Err(Error::LayoutChanged), |record| Layout::read_record(&record))
    }

    /// Returns the latest layout among the records of the first partitions, which exist regardless of the number of
    /// partitions. Ignores servers that don't answer.
    pub(super) async fn layout_in_partitions(&self) -> Option<Layout> {
        self.latest_layout_in(Partition::initial_partitions()).await
    }

    /// Returns the latest layout among the records of `partitions`. Ignores servers that don't answer.
    pub(super) async fn latest_layout_in(&self, partitions: impl Iterator<Item = Partition>) -> Option<Layout> {
        let each = partitions.map(|partition| async move {
            let mut pipeline = pipe();
            pipeline.cmd("GET").arg(self.key_names.layout_of(partition));
            // An ACL may forbid the keys of partitions if there are none.
            let request = Request::new(partition.slot(), pipeline).probe();
            let mut record = self.client.send(request).await.ok()?.each::<Option<Vec<u8>>>();
            Layout::read_record(&record.next()?.ok()??).ok()
        });
        join_all(each).await.into_iter().flatten().max_by_key(Layout::order)
    }

    /// Returns the layout of the data set; `None` if there is no data set. Writes nothing.
    ///
    /// # Errors
    ///
    /// As [`Self::layout`].
    pub async fn existing_layout(&self) -> Result<Option<Layout>, Error> {
        let recorded = match self.recorded_layout().await? {
            Some(layout) => Some(layout),
            None => self.unrecorded_layout().await?,
        };
        let Some(layout) = recorded else { return Ok(None) };
        layout.check(self.partitions, self.max_members)?;
        Ok(Some(layout))
    }

    /// Returns the layout of a new data set, without a window.
    pub(super) async fn first_layout(&self) -> Result<Layout, Error> {
        // A data set of an earlier version keeps all members.
        let max_members = if self.has_plain_keys().await? { None } else { self.max_members };
        Ok(Layout::first(self.partitions_for_new_set().await?, max_members))
    }

    /// Returns the number of partitions of a data set without a record: the one in the settings, or the default for the
    /// deployment.
    pub(in crate::store) async fn partitions_for_new_set(&self) -> Result<Partitions, Error> {
        Ok(match self.partitions {
            _ if self.has_plain_keys().await? => Partitions::ONE,
            Some(set) => set,
            None if self.client.is_cluster() => Partitions::CLUSTER_DEFAULT,
            None => Partitions::ONE,
        })
    }

    /// Returns whether there is an index outside of partitions. Versions without partitions wrote no record.
    pub(super) async fn has_plain_keys(&self) -> Result<bool, Error> {
        // On a cluster, plain keys would not share a slot.
        if self.client.is_cluster() {
            return Ok(false);
        }
        let index = self.key_names.index(KeySet::plain().of(0));
        let mut pipeline = pipe();
        pipeline.cmd("EXISTS").arg(&index);
        let (exists,) = self.client.send(Request::new(Slot::of_any_key(&index), pipeline)).await?.all()?;
        Ok(exists)
    }

    /// Writes the record of `layout` to the partitions of `keys`. For each, returns the record that it kept because
    /// that is newer.
    pub(in crate::store) async fn record_in_partitions(
        &self,
        layout: &Layout,
        keys: impl Iterator<Item = KeySet>,
    ) -> Vec<Result<Option<Layout>, Error>> {
        let each = keys.flat_map(KeySet::all);
        let each = each.map(|partition| async move {
            self.record_at(&self.key_names.layout_of(partition), partition.slot(), layout).await
        });
        join_all(each).await
    }

    /// Writes the record of `layout` to `key` unless `key` holds a newer one, which is returned.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer. [`Error::ForeignKey`] if `key` holds something other than a record.
    pub(in crate::store) async fn record_at(
        &self,
        key: &str,
        slot: Slot,
        layout: &Layout,
    ) -> Result<Option<Layout>, Error> {
        let mut pipeline = pipe();
        let script = pipeline.cmd("EVAL").arg(RECORD_UNLESS_NEWER).arg(1).arg(key);
        let (epoch, window, record) = layout.order();
        script.arg(record).arg(epoch).arg(window);
        let (newer,): (Option<Vec<u8>>,) = self.client.send(Request::new(slot, pipeline)).await?.all()?;
        newer
            .map(|record| {
                Layout::read_record(&record)
                    .map_err(|error| if is_record(&record) { error } else { Error::ForeignKey(key.to_owned()) })
            })
            .transpose()
    }
}

/// Whether `text` is a record of any version, by the same criterion as `decode_known`.
fn is_record(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(text)
        .is_ok_and(|value| value["epoch"].is_number() && value["keys"].is_string())
}

/// Writes the record `ARGV[1]` with the epoch `ARGV[2]` and the window `ARGV[3]`. If `KEYS[1]` holds a newer record, or
/// no record, it stays and is returned. Records are ordered as by [`Layout::order`]. The script compares bytes, because
/// Lua compares texts by the locale of the server.
const RECORD_UNLESS_NEWER: &str = concat!(
    "\
local known = redis.call('GET', KEYS[1])
if known == ARGV[1] then return false end
if known then
",
    decode_known!(),
    "\
  if not is_record then return known end
  local a = {record.epoch, record.window_seconds or 0, known:byte(1, -1)}
  local b = {tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[1]:byte(1, -1)}
  local i = 1
  while a[i] and a[i] == b[i] do i = i + 1 end
  if (a[i] or -1) > (b[i] or -1) then return known end
end
redis.call('SET', KEYS[1], ARGV[1])
return false"
);
