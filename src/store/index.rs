//! The index: the names of all segments that may have members.

use std::collections::BTreeSet;

use ::redis::pipe;
use futures_util::future::try_join_all;

use super::Error;
use super::layout::Attempt;
use super::segment_limit::{Reservation, SegmentLimit};
use super::{Partition, Partitions, Store};
use crate::domain::SegmentName;
use crate::redis::Request;

/// A page of an index.
#[derive(Debug)]
pub struct IndexPage {
    /// The segments on the page, in the order of their names' bytes.
    pub segments: Vec<SegmentName<'static>>,
    /// The start of the next page; `None` on the last.
    pub next: Option<IndexCursor>,
}

/// A position after a member of an index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexCursor(Vec<u8>);

impl IndexCursor {
    /// Returns the position after `segment`.
    #[must_use]
    pub fn after(segment: &SegmentName<'_>) -> Self {
        Self(segment.as_str().as_bytes().to_vec())
    }

    /// Returns the position before all names that begin with `prefix`; `None` is the start.
    #[must_use]
    pub fn before(prefix: &str) -> Option<Self> {
        // Nothing lies between this and the prefix: no name contains the byte 0xFF, and no prefix ends in a zero byte.
        let (last, rest) = prefix.as_bytes().split_last()?;
        Some(Self([rest, &[last.saturating_sub(1), 0xFF]].concat()))
    }
}

impl Store {
    /// Returns up to `limit` names of the index of `partition` after `cursor`, or from its start.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn index_of(
        &self,
        partition: Partition,
        cursor: Option<&IndexCursor>,
        limit: usize,
    ) -> Result<IndexPage, Error> {
        let members = self.members_of_index(partition, cursor, limit).await?;
        let next = if members.len() == limit { members.last().cloned().map(IndexCursor) } else { None };
        Ok(IndexPage { segments: names(members), next })
    }

    /// Returns all names of the index of `partition`, in the order of their bytes.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn names_of(&self, partition: Partition) -> Result<Vec<SegmentName<'static>>, Error> {
        const PAGE: usize = 1_000;
        let (mut names, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.index_of(partition, cursor.as_ref(), PAGE).await?;
            names.extend(page.segments);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(names);
            }
        }
    }

    /// Returns up to `limit` names after `cursor`, or from the start, of the indexes of all partitions.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn index(&self, cursor: Option<&IndexCursor>, limit: usize) -> Result<IndexPage, Error> {
        let members = self.with_layout(|known| async move {
            let partitions = known.layout.read().all();
            let reads = partitions.map(|partition| self.members_of_index(partition, cursor, limit));
            // The first names of the union are among the first of each partition.
            let members: BTreeSet<Vec<u8>> = try_join_all(reads).await?.into_iter().flatten().collect();
            let is_confirmed = self.recorded_layout().await?.is_some_and(|recorded| recorded == known.layout);
            Ok(if is_confirmed { Attempt::Committed(members) } else { Attempt::Stale })
        });
        let members: Vec<_> = members.await?.into_iter().take(limit).collect();
        let next = if members.len() == limit { members.last().cloned().map(IndexCursor) } else { None };
        Ok(IndexPage { segments: names(members), next })
    }

    /// Returns the number of different names in the indexes.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn index_size(&self) -> Result<u64, Error> {
        let count = self.segment_limit.as_ref().map(|limit| (limit, limit.begin_count()));
        let names = self.count_names().await?;
        if let Some((limit, count)) = count {
            limit.end_count(count, names);
        }
        Ok(names)
    }

    async fn count_names(&self) -> Result<u64, Error> {
        /// Names per page, of all partitions together.
        const PAGE: usize = 100_000;
        let keys = self.layout().await?.read();
        if keys.partitions() == Partitions::ONE {
            let only = keys.of(0);
            let mut pipeline = pipe();
            pipeline.cmd("ZCARD").arg(self.key_names.index(only));
            let (names,) = self.client.send(Request::new(only.slot(), pipeline)).await?.all()?;
            return Ok(names);
        }
        // Most names are in several partitions, so the sizes can't be added.
        let (mut names, mut cursor) = (0, None);
        loop {
            let page = self.index(cursor.as_ref(), PAGE / keys.partitions().count()).await?;
            names += page.segments.len() as u64;
            cursor = page.next;
            if cursor.is_none() {
                return Ok(names);
            }
        }
    }

    /// Reserves room for those of `names`, the segments of a write, that may be new. Returns the indices of the
    /// segments that exceed the limit.
    pub(super) async fn admit<'a>(&self, limit: &'a SegmentLimit, names: &[Box<str>]) -> (Reservation<'a>, Vec<usize>) {
        if limit.is_unknown() {
            // If Redis doesn't answer, the write fails with the cause.
            let _ = self.index_size().await;
        }
        if let Some(reservation) = limit.reserve(names.len() as u64) {
            return (reservation, Vec::new());
        }
        let mut new = limit.not_found(names.iter().map(|name| &**name));
        if self.retain_new(limit, names, &mut new).await.is_err() {
            // If Redis doesn't answer, the write fails with the cause.
            return (limit.reserve_up_to(0), Vec::new());
        }
        let timeout = self.client.limits().answer;
        let mut reservation = limit.reserve_new(new.len() as u64, timeout).await;
        // The number may be an overestimate, or pruning may have made room.
        while reservation.names < new.len() as u64 && (limit.is_estimate() || limit.begin_count_if_due().is_some()) {
            drop(reservation);
            if self.index_size().await.is_err() {
                return (limit.reserve_up_to(0), Vec::new());
            }
            reservation = limit.reserve_new(new.len() as u64, timeout).await;
        }
        if reservation.names < new.len() as u64 {
            // A write that held the room in the meantime may have added some of the names.
            let before = new.len();
            if self.retain_new(limit, names, &mut new).await.is_ok() && new.len() < before {
                drop(reservation);
                reservation = limit.reserve_new(new.len() as u64, timeout).await;
            }
        }
        let over_limit = new.split_off(usize::try_from(reservation.names).unwrap_or(usize::MAX).min(new.len()));
        (reservation, over_limit)
    }

    /// Retains in `new` the indices of those of `names` that are in no index.
    async fn retain_new(&self, limit: &SegmentLimit, names: &[Box<str>], new: &mut Vec<usize>) -> Result<(), Error> {
        let candidates: Vec<_> = new.iter().map(|index| &*names[*index]).collect();
        let found = self.names_found(&candidates).await?;
        limit.remember_found(candidates.iter().zip(&found).filter(|(_, is_found)| **is_found).map(|(name, _)| *name));
        let mut found = found.into_iter();
        new.retain(|_| !found.next().unwrap_or_default());
        Ok(())
    }

    /// Returns whether each of `names` is in the index of any partition.
    pub(super) async fn names_found(&self, names: &[&str]) -> Result<Vec<bool>, Error> {
        const NAMES_PER_REQUEST: usize = 1_000;
        let mut found = vec![false; names.len()];
        for (found, names) in found.chunks_mut(NAMES_PER_REQUEST).zip(names.chunks(NAMES_PER_REQUEST)) {
            let lookups = self.layout().await?.read().all().map(|partition| {
                let mut scores = redis::cmd("ZMSCORE");
                scores.arg(self.key_names.index(partition)).arg(names);
                (partition.slot(), scores)
            });
            for scores in self.client.send_by_server::<Vec<Option<f64>>>(lookups, Request::each).await? {
                for (found, score) in found.iter_mut().zip(scores?) {
                    *found |= score.is_some();
                }
            }
        }
        Ok(found)
    }

    async fn members_of_index(
        &self,
        partition: Partition,
        cursor: Option<&IndexCursor>,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let from = match cursor {
            Some(IndexCursor(member)) => [b"(", member.as_slice()].concat(),
            None => b"-".to_vec(),
        };
        let mut pipeline = pipe();
        let range = pipeline.cmd("ZRANGE").arg(self.key_names.index(partition)).arg(from).arg("+");
        range.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
        let (members,) = self.client.send(Request::new(partition.slot(), pipeline)).await?.all()?;
        Ok(members)
    }
}

/// Returns the valid names among `members`. Others come from another program and are skipped.
fn names(members: Vec<Vec<u8>>) -> Vec<SegmentName<'static>> {
    let name = |member| SegmentName::parse(String::from_utf8(member).ok()?).ok();
    members.into_iter().filter_map(name).collect()
}
