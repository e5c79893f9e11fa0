//! Pages of members of several keys.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::page::PageSearch;
use super::{Member, MembersCursor};
use crate::domain::SegmentName;
use crate::redis::{Request, parse};
use crate::store::layout::{Attempt, KnownLayout};
use crate::store::{Error, KeySet, SegmentKey, Store};

/// The members of a key after a cursor, and the cursor after them; `None` at the end.
pub type KeyPage = (Vec<Member>, Option<MembersCursor>);

impl Store {
    /// Cursors that are looked up concurrently.
    const CURSORS: usize = 16;

    /// Returns the cursors after `position` in each of `keys`.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn cursors_after(
        &self,
        segment: &SegmentName<'_>,
        keys: impl IntoIterator<Item = SegmentKey>,
        position: &Member,
    ) -> Result<Vec<(SegmentKey, MembersCursor)>, Error> {
        let cursors = keys
            .into_iter()
            .map(|key| async move { Ok((key, self.cursor_after(key, segment, position.clone()).await?)) });
        stream::iter(cursors).buffered(Self::CURSORS).try_collect().await
    }

    /// Returns a page of up to `size` members after each of `cursors`, which belong to `keys`; `None` if
    /// counts read another key set now. As for [`Self::members`], all pages together have every member that was present
    /// throughout.
    ///
    /// Has one request in flight, of up to [`Self::PAGE`] members, so that Redis serves other requests in between.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub async fn pages_after(
        &self,
        segment: &SegmentName<'_>,
        keys: KeySet,
        cursors: &[(SegmentKey, MembersCursor)],
        size: usize,
    ) -> Result<Option<Vec<KeyPage>>, Error> {
        self.with_layout(|known| async move {
            if known.layout.read() != keys {
                return Ok(Attempt::Committed(None));
            }
            let searches = cursors.iter().enumerate();
            let searches =
                searches.map(|(index, (key, cursor))| (index, PageSearch::new(*key, Some(cursor), size))).collect();
            let servers = self.client.group_by_server(searches, |(_, search)| search.key.partition.slot()).await?;
            let mut pages: Vec<_> = cursors.iter().map(|_| KeyPage::default()).collect();
            for mut searches in servers {
                while !searches.is_empty() {
                    let start = searches.len().saturating_sub((Self::PAGE / size).max(1));
                    let batch = searches.split_off(start);
                    let Attempt::Committed(found) = self.run(&batch, segment, &known).await? else {
                        return Ok(Attempt::Stale);
                    };
                    for ((index, mut search), members) in batch.into_iter().zip(found) {
                        match search.page(members) {
                            Some(page) => pages[index] = page,
                            None => {
                                self.retry(&mut search, segment).await?;
                                searches.push((index, search));
                            }
                        }
                    }
                }
            }
            Ok(Attempt::Committed(Some(pages)))
        })
        .await
    }

    /// Runs the commands of `searches`, whose keys are on one server.
    async fn run(
        &self,
        searches: &[(usize, PageSearch)],
        segment: &SegmentName<'_>,
        known: &KnownLayout,
    ) -> Result<Attempt<Vec<Vec<(Vec<u8>, f64)>>>, Error> {
        let commands = searches.iter().map(|(_, search)| {
            let name = self.key_names.segment(search.key, segment.as_str());
            (search.key.partition.slot(), search.command(&name))
        });
        let mut partitions: Vec<_> = searches.iter().map(|(_, search)| search.key.partition).collect();
        partitions.dedup();
        let request = Request::each(commands).and_then_read(self.key_names.layout_reads(partitions));
        let [members, layouts] = self.client.send(request).await?.into_steps();
        if !known.are_confirmed_by(layouts)? {
            return Ok(Attempt::Stale);
        }
        let members = members.into_iter().map(|members| members.and_then(parse));
        Ok(Attempt::Committed(members.collect::<Result<_, _>>()?))
    }
}
