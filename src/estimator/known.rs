//! Which segments are known, and which known names are close to an unknown one.

use super::estimator::Estimator;
use crate::domain::SegmentName;
use crate::store;

impl Estimator {
    /// Names that are compared with an unknown one.
    const MAX_COMPARED: usize = 20_000;
    /// Names in one page of the index with one partition.
    const NAMES_PER_PAGE: usize = 1_000;
    /// Concurrent searches for similar names. They compare names for up to seconds, which must not delay other requests.
    pub(super) const MAX_SEARCHES: usize = 1;
    /// Names that are compared before other requests have their turn.
    const NAMES_PER_SLICE: usize = 20;

    /// As [`Self::are_known`] for one segment.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn is_known(&self, segment: &SegmentName<'_>, has_data: bool) -> Result<bool, store::Error> {
        Ok(self.are_known(&[(segment, has_data)]).await?[0])
    }

    /// Returns whether each segment is known: it is in the index or has a history. One with a true flag is known by its
    /// users or samples already. Asks Redis only about the others.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn are_known(&self, segments: &[(&SegmentName<'_>, bool)]) -> Result<Vec<bool>, store::Error> {
        let mut known: Vec<_> = segments.iter().map(|(_, has_data)| *has_data).collect();
        let others: Vec<_> = (0..known.len()).filter(|index| !known[*index]).collect();
        if !others.is_empty() {
            let names: Vec<_> = others.iter().map(|index| segments[*index].0.as_str()).collect();
            for (index, is_known) in others.into_iter().zip(self.store.are_known(&names).await?) {
                known[index] = is_known;
            }
        }
        Ok(known)
    }

    /// Returns for each of `names` up to `max` names of known segments that are close to it, the closest first. Upper
    /// and lower case are the same. Reads the index once, and compares its first 20,000 names. Finds nothing while
    /// another search runs: suggestions are not worth a queue.
    ///
    /// # Errors
    ///
    /// A [`store::Error`] if Redis failed.
    pub async fn similar_names(
        &self,
        names: &[&SegmentName<'_>],
        max: usize,
    ) -> Result<Vec<Vec<SegmentName<'static>>>, store::Error> {
        let Ok(_permit) = self.searches.try_acquire() else { return Ok(vec![Vec::new(); names.len()]) };
        let page = (Self::NAMES_PER_PAGE / self.partitions().map_or(1, |partitions| partitions.count())).max(10);
        let mut searches: Vec<_> = names.iter().map(|name| SimilarNames::new(name.as_str(), max)).collect();
        let (mut cursor, mut compared) = (None, 0);
        loop {
            let index = self.store.index(cursor.as_ref(), page).await?;
            compared += index.segments.len();
            for others in index.segments.chunks(Self::NAMES_PER_SLICE) {
                for search in &mut searches {
                    search.compare(others);
                    // Long names take a millisecond for each slice, and the runtime has one thread.
                    tokio::task::yield_now().await;
                }
            }
            cursor = index.next;
            if cursor.is_none() || compared >= Self::MAX_COMPARED {
                return Ok(searches.into_iter().map(SimilarNames::into_names).collect());
            }
        }
    }
}

/// The search for names similar to one.
struct SimilarNames<'a> {
    name: &'a str,
    lower_case: String,
    length: usize,
    max_distance: usize,
    max: usize,
    /// The closest names so far, with their distances.
    found: Vec<(usize, SegmentName<'static>)>,
}

impl<'a> SimilarNames<'a> {
    /// The most edits to a similar name. More of them make a different name, also if it is long.
    const MAX_DISTANCE: usize = 4;

    fn new(name: &'a str, max: usize) -> Self {
        let lower_case = name.to_lowercase();
        let length = lower_case.chars().count();
        let max_distance = (length / 3).clamp(1, Self::MAX_DISTANCE);
        Self { name, lower_case, length, max_distance, max, found: Vec::new() }
    }

    /// Adds those of `others` that are similar.
    fn compare(&mut self, others: &[SegmentName<'static>]) {
        let others = others.iter().filter(|other| other.as_str() != self.name);
        let similar: Vec<_> =
            others.filter_map(|other| Some((self.distance(other.as_str())?, other.clone()))).collect();
        self.found.extend(similar);
        self.found.sort();
        self.found.truncate(self.max);
    }

    fn into_names(self) -> Vec<SegmentName<'static>> {
        self.found.into_iter().map(|(_, name)| name).collect()
    }

    /// Returns how many edits lead to `other`: insertions, deletions, replacements and swaps of neighbors. Returns
    /// `None` if they are too many.
    fn distance(&self, other: &str) -> Option<usize> {
        let other = other.to_lowercase();
        // Most names differ too much in length, which is cheaper to see.
        if other.chars().count().abs_diff(self.length) > self.max_distance {
            return None;
        }
        Some(strsim::osa_distance(&self.lower_case, &other)).filter(|distance| *distance <= self.max_distance)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::swap("nwes", "news", Some(1))]
    #[case::case("News", "nEWS", Some(0))]
    #[case::missing_letter("sprts", "sports", Some(1))]
    #[case::short("a", "b", Some(1))]
    #[case::beyond_ascii("größe", "GRÖSE", Some(1))]
    #[case::too_far("news", "sports", None)]
    #[case::too_far_for_its_length("news", "nuts", None)]
    #[case::four_edits_of_a_long_name("abcdefghijklmnopqrst", "0bcde0ghij0lmno0qrst", Some(4))]
    #[case::five_edits_of_a_long_name("abcdefghijklmnopqrst", "0bcde0ghij0lmno0qr0t", None)]
    fn distance_counts_edits(#[case] name: &str, #[case] other: &str, #[case] expected: Option<usize>) {
        assert_eq!(SimilarNames::new(name, 1).distance(other), expected);
    }
}
