//! What a set of keys holds, for an operator who is about to take it over, or to prune it by another window.

use std::collections::{BTreeMap, BTreeSet};

use ::redis::{cmd, pipe};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::domain::{SegmentName, Timestamp};
use crate::redis::{self, Request, Slot};
use crate::store::history::is_lease;
use crate::store::keys::{KeyKind, OwnKey};
use crate::store::own_keys::OwnKeys;
use crate::store::{Coverage, Error, KeySet, Layout, MemberCounts, Partition, Partitions, Store};

/// What a set of keys holds. A segment counts once for each partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Segments that have members.
    pub segments: u64,
    /// Names in an index without a member.
    pub empty: u64,
    /// Members of all segments.
    pub members: u64,
    /// Those of them that a prune by the given time would remove.
    pub expired: u64,
    /// Segments that have members, and that no index names.
    pub unindexed: Vec<(Partition, SegmentName<'static>)>,
    /// Keys in the place of a segment or of an index that are no sorted sets.
    pub foreign: Vec<String>,
}

impl Store {
    /// Names that are looked at in one round trip.
    const SURVEYED_AT_ONCE: usize = 500;
    /// Partitions that are looked at at once.
    const SURVEYS: usize = 8;

    /// What `keys` hold, and how much of it was seen at or before `cutoff`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn survey(&self, keys: KeySet, cutoff: Timestamp) -> Result<Survey, Error> {
        let surveys =
            stream::iter(keys.all()).map(|partition| self.survey_partition(partition, BTreeSet::new(), cutoff));
        surveys.buffered(Self::SURVEYS).try_fold(Survey::default(), |sum, survey| async { Ok(sum.and(survey)) }).await
    }

    /// What each of `partitions` holds, with those of `segments` that no index names.
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
        surveys.buffered(Self::SURVEYS).try_collect().await
    }

    /// Keys that are named as those of a data set with `layout` and hold what the service has not written, in order, and whether all
    /// keys were looked at. What an ACL forbids to look at is not told.
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
            None => vec![KeySet::first(Partitions::ONE)],
        };
        let OwnKeys { keys: mut own, coverage } = self.own_keys(Self::SCAN_STEPS, |_| false).await?;
        own.retain(|own| {
            let is_everywhere = [KeyKind::History, KeyKind::Layout].contains(&own.kind);
            is_everywhere || keysets.iter().any(|keys| keys.has(own.partition))
        });
        for own in own.chunks(Self::SURVEYED_AT_ONCE) {
            foreign.extend(self.of_other_types(own).await?);
        }
        let turn = self.names.lease();
        let mut pipeline = pipe();
        pipeline.cmd("GET").arg(&turn);
        let answer = self
            .client
            .send(Request::new(Slot::of_any_key(&turn), pipeline).probe())
            .await?
            .each::<Option<String>>()
            .next();
        let is_foreign = match answer {
            Some(Ok(value)) => value.is_some_and(|value| !is_lease(&value)),
            Some(Err(error)) => error.is_wrong_type(),
            None => false,
        };
        foreign.extend(is_foreign.then_some(turn));
        Ok((foreign.into_iter().collect(), coverage))
    }

    /// Those of `keys` that are of another type than the service makes them.
    async fn of_other_types(&self, keys: &[OwnKey]) -> Result<Vec<String>, Error> {
        let mut foreign = Vec::new();
        let turn = self.names.lease();
        for keys in self.client.by_server(keys.iter().collect(), |own| Slot::of_any_key(&own.key)).await? {
            let commands = keys.iter().map(|own| {
                let mut kind = cmd("TYPE");
                kind.arg(&own.key);
                (Slot::of_any_key(&own.key), kind)
            });
            // An ACL may forbid some of them.
            let answers = self
                .client
                .send(Request::each(commands).nil_for(redis::Error::is_forbidden))
                .await?
                .each::<Option<String>>();
            for (own, answer) in keys.into_iter().zip(answers) {
                let Some(kind) = answer? else { continue };
                let is_own = match own.kind {
                    KeyKind::Segment(_) | KeyKind::Index | KeyKind::Tombstones => kind == "zset",
                    KeyKind::Layout => kind == "string",
                    KeyKind::History if own.key == turn => kind == "string",
                    KeyKind::History => ["list", "stream"].contains(&kind.as_str()),
                };
                foreign.extend((!is_own && kind != NONE).then(|| own.key.clone()));
            }
        }
        Ok(foreign)
    }

    async fn survey_partition(
        &self,
        partition: Partition,
        mut unindexed: BTreeSet<SegmentName<'static>>,
        cutoff: Timestamp,
    ) -> Result<Survey, Error> {
        let (mut survey, mut cursor) = (Survey::default(), None);
        loop {
            let page = match self.index_of(partition, cursor.as_ref(), Self::SURVEYED_AT_ONCE).await {
                Err(error) if error.is_wrong_type() => {
                    survey.foreign.push(self.names.index(partition));
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
        for some in unindexed.chunks(Self::SURVEYED_AT_ONCE) {
            let occupied = self.survey_segments(partition, some, cutoff, &mut survey).await?;
            survey.unindexed.extend(occupied.into_iter().map(|segment| (partition, segment)));
        }
        Ok(survey)
    }

    /// Adds what `segments` of `partition` hold to `survey`, and gives those that have members.
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
        for (segment, found) in segments.iter().zip(self.count_members(partition, segments, cutoff).await?) {
            match found {
                Ok(MemberCounts { members: 0, .. }) => survey.empty += 1,
                Ok(MemberCounts { expired, members }) => {
                    survey.segments += 1;
                    survey.members += members;
                    survey.expired += expired;
                    occupied.push(segment.clone());
                }
                Err(error) if error.is_wrong_type() => {
                    survey.foreign.push(self.names.segment(partition, segment.as_str()))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(occupied)
    }
}

/// What `TYPE` answers where there is no key.
const NONE: &str = "none";

/// Some names, in a sentence.
#[must_use]
pub fn some_of(names: &[String]) -> String {
    const SOME: usize = 10;
    let mut text = names[..names.len().min(SOME)].join(", ");
    if names.len() > SOME {
        text += &format!(" and {} more", names.len() - SOME);
    }
    text
}

impl Survey {
    /// How many members the next prune leaves.
    #[must_use]
    pub fn unexpired(&self) -> u64 {
        self.members.saturating_sub(self.expired)
    }

    pub(in crate::store) fn and(mut self, other: Self) -> Self {
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
