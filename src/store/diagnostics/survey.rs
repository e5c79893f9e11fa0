//! Surveys: the content of a key set, for an operator before it is adopted or its window is shortened.

use std::collections::{BTreeMap, BTreeSet};

use ::redis::{cmd, pipe};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::domain::{SegmentName, Timestamp};
use crate::redis::{self, Request, Slot};
use crate::store::history::is_lease;
use crate::store::keys::{KeyKind, OwnKey};
use crate::store::own_keys::OwnKeys;
use crate::store::{Coverage, Error, KeySet, Layout, MemberCounts, Partition, Store};

/// The content of a key set. A segment counts once for each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Number of segments with members.
    pub segments: u64,
    /// Number of names in an index whose segment has no members.
    pub empty: u64,
    /// Number of members of all segments.
    pub members: u64,
    /// Number of members that were seen at or before the cutoff.
    pub expired: u64,
    /// Segments with members that are missing from the index.
    pub unindexed: Vec<(Partition, SegmentName<'static>)>,
    /// Keys named like those of a segment or an index that are not sorted sets.
    pub foreign: Vec<String>,
}

impl Store {
    /// Number of keys that are surveyed in one round trip.
    pub(super) const KEYS_PER_REQUEST: usize = 500;
    /// Number of partitions that are surveyed concurrently.
    const SURVEY_CONCURRENCY: usize = 8;

    /// Surveys `keys`, and counts the members that were seen at or before `cutoff`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn survey(&self, keys: KeySet, cutoff: Timestamp) -> Result<Survey, Error> {
        let surveys =
            stream::iter(keys.all()).map(|partition| self.survey_partition(partition, BTreeSet::new(), cutoff));
        surveys
            .buffered(Self::SURVEY_CONCURRENCY)
            .try_fold(Survey::default(), |sum, survey| async { Ok(sum.merge(survey)) })
            .await
    }

    /// Surveys each of `partitions`, including those of `segments` that are missing from its index.
    pub(in crate::store) async fn survey_found(
        &self,
        partitions: &BTreeSet<Partition>,
        mut segments: BTreeMap<Partition, BTreeSet<SegmentName<'static>>>,
        cutoff: Timestamp,
    ) -> Result<Vec<(Partition, Survey)>, Error> {
        let surveys = stream::iter(partitions.iter().copied()).map(|partition| {
            let found = segments.remove(&partition).unwrap_or_default();
            async move { Ok((partition, self.survey_partition(partition, found, cutoff).await?)) }
        });
        surveys.buffered(Self::SURVEY_CONCURRENCY).try_collect().await
    }

    /// Returns the keys, sorted, that are named like those of a data set with `layout` but hold values that this
    /// service didn't write. Also returns whether all keys were scanned. Omits keys that an ACL forbids.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn foreign_keys(&self, layout: Option<&Layout>) -> Result<(Vec<String>, Coverage), Error> {
        let mut foreign = BTreeSet::new();
        if let Some(layout) = layout {
            match self.survey(layout.read(), Timestamp::from_millis(0)).await {
                Err(error) if error.is_refused_command() => {}
                survey => foreign.extend(survey?.foreign),
            }
        }
        let keysets: Vec<_> = match layout {
            Some(layout) => layout.all().collect(),
            None => vec![KeySet::plain()],
        };
        let OwnKeys { keys: mut own, coverage } = self.own_keys(Self::SCAN_STEPS, |_| false).await?;
        own.retain(|own| {
            let is_everywhere = [KeyKind::History, KeyKind::Change, KeyKind::Layout].contains(&own.kind);
            is_everywhere || keysets.iter().any(|keys| keys.has(own.partition))
        });
        for own in own.chunks(Self::KEYS_PER_REQUEST) {
            foreign.extend(self.keys_of_other_types(own).await?);
        }
        let lease = self.key_names.lease();
        let mut pipeline = pipe();
        pipeline.cmd("GET").arg(&lease);
        let answer = self
            .client
            .send(Request::new(Slot::of_any_key(&lease), pipeline).probe())
            .await?
            .each::<Option<String>>()
            .next();
        let is_foreign = match answer {
            Some(Ok(value)) => value.is_some_and(|value| !is_lease(&value)),
            Some(Err(error)) => error.is_wrong_type(),
            None => false,
        };
        foreign.extend(is_foreign.then_some(lease));
        Ok((foreign.into_iter().collect(), coverage))
    }

    /// Returns those of `keys` whose type differs from the one that the service writes.
    async fn keys_of_other_types(&self, keys: &[OwnKey]) -> Result<Vec<String>, Error> {
        let mut foreign = Vec::new();
        let lease = self.key_names.lease();
        let commands = keys.iter().map(|own| {
            let mut kind = cmd("TYPE");
            kind.arg(&own.key);
            (Slot::of_any_key(&own.key), kind)
        });
        // An ACL may forbid some of the keys.
        let request_of = |commands| Request::each(commands).nil_for(redis::Error::is_forbidden);
        let kinds = self.client.send_by_server::<Option<String>>(commands, request_of).await?;
        let mut records = Vec::new();
        for (own, kind) in keys.iter().zip(kinds) {
            let Some(kind) = kind? else { continue };
            let is_own = match own.kind {
                KeyKind::Segment(_) | KeyKind::SegmentLevel(..) | KeyKind::Index | KeyKind::Tombstones => {
                    kind == "zset"
                }
                KeyKind::Depths => kind == "hash",
                KeyKind::Layout | KeyKind::Change => kind == "string",
                KeyKind::History if own.key == lease => kind == "string",
                KeyKind::History => ["list", "stream"].contains(&kind.as_str()),
            };
            foreign.extend((!is_own && kind != NONE).then(|| own.key.clone()));
            records.extend((is_own && own.kind == KeyKind::Change).then_some(own.key.as_str()));
        }
        foreign.extend(self.foreign_records(&records).await?);
        Ok(foreign)
    }

    async fn survey_partition(
        &self,
        partition: Partition,
        mut unindexed: BTreeSet<SegmentName<'static>>,
        cutoff: Timestamp,
    ) -> Result<Survey, Error> {
        let (mut survey, mut cursor) = (Survey::default(), None);
        let names_per_request = (Self::KEYS_PER_REQUEST / partition.segment_keys().len()).max(1);
        loop {
            let page = match self.index_of(partition, cursor.as_ref(), names_per_request).await {
                Err(error) if error.is_wrong_type() => {
                    survey.foreign.push(self.key_names.index(partition));
                    return Ok(survey);
                }
                page => page?,
            };
            self.survey_segments(partition, &page.segments, cutoff, &mut survey).await?;
            for segment in &page.segments {
                unindexed.remove(segment);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let unindexed: Vec<_> = unindexed.into_iter().collect();
        for segments in unindexed.chunks(names_per_request) {
            let occupied = self.survey_segments(partition, segments, cutoff, &mut survey).await?;
            survey.unindexed.extend(occupied.into_iter().map(|segment| (partition, segment)));
        }
        Ok(survey)
    }

    /// Adds the content of `segments` in `partition` to `survey`. Returns the segments with members.
    async fn survey_segments(
        &self,
        partition: Partition,
        segments: &[SegmentName<'static>],
        cutoff: Timestamp,
        survey: &mut Survey,
    ) -> Result<Vec<SegmentName<'static>>, Error> {
        let mut occupied = Vec::new();
        if segments.is_empty() {
            return Ok(occupied);
        }
        let keys = partition.segment_keys();
        let each: Vec<_> = segments.iter().flat_map(|segment| keys.clone().map(move |key| (key, segment))).collect();
        let counts = self.count_members(partition, &each, cutoff).await?;
        for (segment, counts) in segments.iter().zip(counts.chunks(keys.len())) {
            match counts.iter().cloned().sum::<Result<MemberCounts, Error>>() {
                Ok(MemberCounts { members: 0, .. }) => survey.empty += 1,
                Ok(MemberCounts { expired, members }) => {
                    survey.segments += 1;
                    survey.members += members;
                    survey.expired += expired;
                    occupied.push(segment.clone());
                }
                Err(error) if error.is_wrong_type() => {
                    survey.foreign.push(self.key_names.segments_like(partition, segment.as_str()))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(occupied)
    }
}

/// The answer of `TYPE` for a key that doesn't exist.
const NONE: &str = "none";

/// Lists the first ten of `names` for a sentence: `a, b and 3 more`.
#[must_use]
pub fn list_first(names: &[String]) -> String {
    const MAX: usize = 10;
    let mut text = names[..names.len().min(MAX)].join(", ");
    if names.len() > MAX {
        text += &format!(" and {} more", names.len() - MAX);
    }
    text
}

impl Survey {
    /// Returns the number of members that were seen after the cutoff.
    #[must_use]
    pub fn unexpired(&self) -> u64 {
        self.members.saturating_sub(self.expired)
    }

    pub(in crate::store) fn merge(mut self, other: Self) -> Self {
        let Self { segments, empty, members, expired, unindexed, foreign } = other;
        self.segments += segments;
        self.empty += empty;
        self.members += members;
        self.expired += expired;
        self.unindexed.extend(unindexed);
        self.foreign.extend(foreign);
        self
    }
}
