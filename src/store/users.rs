//! The segments of a user.
//!
//! A user belongs to one partition, whose index lists the segments that may contain the user. No other key maps users
//! to segments.

use ::redis::cmd;

use super::layout::{Attempt, KnownLayout};
use super::partition::hash;
use super::{Error, IndexCursor, Layout, Partition, Store};
use crate::domain::{SegmentName, Timestamp, UserId, Visit};
use crate::redis::{self, Request, parse};

impl Store {
    /// Number of segments that a request searches for a user. Redis takes a microsecond or two for each.
    pub(super) const SEGMENTS_PER_REQUEST: usize = 250;

    /// Returns the segments that contain `user`, expired or not, with the time of the last visit, in order of their
    /// names.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn visits_of(&self, user: &UserId<'_>) -> Result<Vec<(SegmentName<'static>, Timestamp)>, Error> {
        self.with_layout(|known| async move {
            let partition = known.layout.read().of(hash(user.as_str()));
            let (mut found, mut cursor): (Vec<_>, Option<IndexCursor>) = (Vec::new(), None);
            loop {
                let page = self.index_of(partition, cursor.as_ref(), Self::SEGMENTS_PER_REQUEST).await?;
                let pairs = page.segments.iter().map(|segment| (user, segment));
                let Attempt::Committed(scores) = self.scores_in(partition, pairs, &known).await? else {
                    return Ok(Attempt::Stale);
                };
                let seen = page.segments.into_iter().zip(scores);
                found.extend(seen.filter_map(|(segment, at)| at.map(|at| (segment, at))));
                cursor = page.next;
                if cursor.is_none() {
                    return Ok(Attempt::Committed(found));
                }
            }
        })
        .await
    }

    /// Returns the time of the last visit of `user` to `segment`, expired or not, in one round trip.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn last_visit(&self, segment: &SegmentName<'_>, user: &UserId<'_>) -> Result<Option<Timestamp>, Error> {
        self.with_layout(|known| async move {
            let partition = known.layout.read().of(hash(user.as_str()));
            Ok(match self.scores_in(partition, [(user, segment)], &known).await? {
                Attempt::Committed(scores) => Attempt::Committed(scores.into_iter().next().flatten()),
                Attempt::Stale => Attempt::Stale,
            })
        })
        .await
    }

    /// Returns for each of `visits` whether Redis has it, or a later one of its user to its segment; `None` if the key
    /// of the segment has another type. Writes nothing, not even a missing layout record.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn are_kept(&self, visits: &[Visit<'_>]) -> Result<Vec<Option<bool>>, Error> {
        let mut found = self.existing_layout().await?;
        for _ in 0..Self::ATTEMPTS {
            let Some(layout) = found else { return Ok(vec![Some(false); visits.len()]) };
            let kept = self.are_kept_by(&layout, visits).await?;
            found = self.existing_layout().await?;
            if found == Some(layout) {
                return Ok(kept);
            }
        }
        Err(Error::UnconfirmedLayout)
    }

    async fn are_kept_by(&self, layout: &Layout, visits: &[Visit<'_>]) -> Result<Vec<Option<bool>>, Error> {
        let lookups = visits.iter().map(|visit| {
            let partition = layout.read().of(hash(visit.user_id.as_str()));
            let mut score = cmd("ZSCORE");
            score
                .arg(self.key_names.segment(partition.key_of(visit.user_id.as_str()), visit.segment.as_str()))
                .arg(visit.user_id.as_str());
            (partition.slot(), score)
        });
        let request_of = |lookups| Request::each(lookups).probe();
        let scores = self.client.send_by_server::<Option<f64>>(lookups, request_of).await?;
        let is_kept = |(visit, score): (&Visit<'_>, Result<Option<f64>, redis::Error>)| match score {
            Err(error) if error.is_wrong_type() => Ok(None),
            score => Ok(Some(score?.is_some_and(|score| score >= visit.seen_at.as_score()))),
        };
        visits.iter().zip(scores).map(is_kept).collect()
    }

    /// Returns for each pair the time of the user's last visit to the segment. All users belong to `partition`.
    pub(super) async fn scores_in<'a, 'u: 'a, 's: 'a>(
        &self,
        partition: Partition,
        pairs: impl IntoIterator<Item = (&'a UserId<'u>, &'a SegmentName<'s>)>,
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Option<Timestamp>>>, Error> {
        let commands = pairs.into_iter().map(|(user, segment)| {
            let mut command = cmd("ZSCORE");
            command.arg(self.key_names.segment(partition.key_of(user.as_str()), segment.as_str())).arg(user.as_str());
            (partition.slot(), command)
        });
        let request = Request::each(commands).and_then_read(self.key_names.layout_reads([partition]));
        let reply = self.client.send(request.nil_for(redis::Error::is_wrong_type)).await?;
        let [scores, layouts] = reply.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let scores = scores.into_iter().map(|answer| answer.and_then(parse::<Option<f64>>));
        let scores = scores.map(|score| score.map(|score| score.map(Timestamp::from_unix_seconds)));
        Ok(Attempt::Committed(scores.collect::<Result<_, _>>()?))
    }
}
