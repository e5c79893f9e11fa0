//! What a set of keys holds, for an operator who is about to take it over, or to prune it by another window.

use crate::store::Error;
use ::redis::pipe;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::domain::Timestamp;
use crate::redis::{self, Request, Slot};
use crate::store::history::is_turn;
use crate::store::{Expired, Keyspace, Partition, Store};

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
    /// An [`Error`] when Redis didn't answer.
    pub async fn survey(&self, keys: Keyspace, cutoff: Timestamp) -> Result<Survey, Error> {
        let surveys = stream::iter(keys.all()).map(|partition| self.survey_partition(partition, cutoff));
        surveys.buffered(Self::SURVEYS).try_fold(Survey::default(), |sum, survey| async { Ok(sum.and(survey)) }).await
    }

    /// Keys that are named as those of the data set and hold what the service has not written: those of all segments in `keys`, and
    /// that of the turns of sampling. What an ACL forbids to look at is not told.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub async fn foreign_keys(&self, keys: Option<Keyspace>) -> Result<Vec<String>, Error> {
        let mut foreign = match keys {
            Some(keys) => match self.survey(keys, Timestamp::from_millis(0)).await {
                Err(Error::Redis(redis::Error::Refused { .. })) => Vec::new(),
                survey => survey?.foreign,
            },
            None => Vec::new(),
        };
        let turn = self.names.turn();
        let mut pipeline = pipe();
        pipeline.cmd("GET").arg(&turn);
        let answer = self
            .client
            .send(Request::new(Slot::of_any_key(&turn), pipeline).probe())
            .await?
            .each::<Option<String>>()
            .next();
        let is_foreign = match answer {
            Some(Ok(value)) => value.is_some_and(|value| !is_turn(&value)),
            Some(Err(error)) => error.is_wrong_type(),
            None => false,
        };
        foreign.extend(is_foreign.then_some(turn));
        Ok(foreign)
    }

    async fn survey_partition(&self, partition: Partition, cutoff: Timestamp) -> Result<Survey, Error> {
        let (mut survey, mut cursor) = (Survey::default(), None);
        loop {
            let page = match self.index_of(partition, cursor.as_ref(), Self::SURVEYED_AT_ONCE).await {
                Err(error) if error.is_wrong_type() => {
                    survey.foreign.push(self.names.index(partition));
                    return Ok(survey);
                }
                page => page?,
            };
            if page.segments.is_empty() {
                return Ok(survey);
            }
            let found = self.expired(partition, &page.segments, cutoff).await?;
            for (segment, found) in page.segments.iter().zip(found) {
                match found {
                    Ok(Expired { members: 0, .. }) => survey.empty += 1,
                    Ok(Expired { expired, members }) => {
                        survey.segments += 1;
                        survey.members += members;
                        survey.expired += expired;
                    }
                    Err(error) if error.is_wrong_type() => {
                        survey.foreign.push(self.names.segment(partition, segment.as_str()))
                    }
                    Err(error) => return Err(error),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(survey);
            }
        }
    }
}

impl Survey {
    fn and(mut self, other: Self) -> Self {
        let Self { segments, empty, members, expired, foreign } = other;
        self.segments += segments;
        self.empty += empty;
        self.members += members;
        self.expired += expired;
        self.foreign.extend(foreign);
        self
    }
}
