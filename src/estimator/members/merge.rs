//! The merge of sorted pages.

use std::collections::VecDeque;

/// Merges sources, each of which is read in pages of its own and has its items in order. `R` is where the rest of a
/// source begins.
#[derive(Debug)]
pub struct Merge<T, R> {
    sources: Vec<Source<T, R>>,
}

#[derive(Debug)]
struct Source<T, R> {
    /// The items that were read and not taken.
    buffer: VecDeque<T>,
    /// `None` if all items were read.
    rest: Option<R>,
}

impl<T: Ord, R> Merge<T, R> {
    /// Returns a merge of the sources that begin at `starts`.
    pub fn new(starts: impl IntoIterator<Item = R>) -> Self {
        let sources = starts.into_iter().map(|start| Source { buffer: VecDeque::new(), rest: Some(start) });
        Self { sources: sources.collect() }
    }

    /// Returns the sources to read before the next items can be taken: none, or all those that are down to `few` items,
    /// so that one request reads many of them. Their pages go to [`Self::fill`].
    pub fn due(&self, few: usize) -> Vec<(usize, &R)> {
        let unread = self.sources.iter().enumerate().filter_map(|(index, source)| {
            let rest = source.rest.as_ref()?;
            Some((index, rest, source.buffer.len()))
        });
        let due: Vec<_> = unread.filter(|(_, _, buffered)| *buffered <= few).collect();
        if due.iter().all(|(_, _, buffered)| *buffered > 0) {
            return Vec::new();
        }
        due.into_iter().map(|(index, rest, _)| (index, rest)).collect()
    }

    /// Adds a page of a source, which continues at `rest`.
    pub fn fill(&mut self, source: usize, page: impl IntoIterator<Item = T>, rest: Option<R>) {
        let source = &mut self.sources[source];
        source.buffer.extend(page);
        source.rest = rest;
    }

    /// Takes the next items, in order: all those that no item precedes which is still to be read. Returns none if a
    /// source is due.
    pub fn take(&mut self) -> Vec<T> {
        let unread = || self.sources.iter().filter(|source| source.rest.is_some());
        if unread().any(|source| source.buffer.is_empty()) {
            return Vec::new();
        }
        // The source whose last item is the first of these has the next unread item.
        let first = unread().filter_map(|source| source.buffer.back()).min();
        let count = |source: &Source<T, R>| {
            first.map_or(source.buffer.len(), |first| source.buffer.partition_point(|item| item <= first))
        };
        let counts: Vec<_> = self.sources.iter().map(count).collect();
        let mut taken = Vec::with_capacity(counts.iter().sum());
        for (source, count) in self.sources.iter_mut().zip(counts) {
            taken.extend(source.buffer.drain(..count));
        }
        taken.sort();
        taken
    }

    /// Whether all items were taken.
    pub fn is_at_end(&self) -> bool {
        self.sources.iter().all(|source| source.buffer.is_empty() && source.rest.is_none())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Merges `sources` in pages of `size`. Returns the items and the largest number of buffered ones.
    fn merge(sources: &[Vec<(u8, u16)>], size: usize) -> (Vec<(u8, u16)>, usize) {
        let mut merge = Merge::new(sources.iter().map(|source| source.as_slice()));
        let (mut all, mut most) = (Vec::new(), 0);
        while !merge.is_at_end() {
            let due: Vec<_> = merge.due(size / 2).into_iter().map(|(index, rest)| (index, *rest)).collect();
            for (index, rest) in due {
                let (page, rest) = rest.split_at(size.min(rest.len()));
                // A page that isn't full is the last.
                merge.fill(index, page.iter().copied(), (page.len() == size).then_some(rest));
            }
            most = most.max(merge.sources.iter().map(|source| source.buffer.len()).sum());
            all.extend(merge.take());
        }
        (all, most)
    }

    proptest! {
        #[test]
        fn merge_returns_all_items_in_order_and_bounds_the_buffer(
            sources in prop::collection::vec(prop::collection::vec((0_u8..9, 0_u16..999), 0..70), 0..9),
            size in 1_usize..20,
        ) {
            let sources: Vec<Vec<_>> = sources.into_iter().map(|mut source| { source.sort(); source }).collect();
            let mut expected = sources.concat();
            expected.sort();
            let (merged, most) = merge(&sources, size);
            prop_assert_eq!(merged, expected);
            prop_assert!(most <= sources.len() * (size + size / 2), "{}", most);
        }
    }

    #[test]
    fn due_reads_many_sources_at_a_time() {
        let sources: Vec<Vec<(u8, u16)>> = (0..64).map(|source| (0..200).map(|n| (n, source)).collect()).collect();
        let mut merge = Merge::new(sources.iter().map(|source| source.as_slice()));
        let mut rounds = 0;
        while !merge.is_at_end() {
            let due: Vec<_> = merge.due(8).into_iter().map(|(index, rest)| (index, *rest)).collect();
            rounds += usize::from(!due.is_empty());
            for (index, rest) in due {
                let (page, rest) = rest.split_at(16.min(rest.len()));
                merge.fill(index, page.iter().copied(), (page.len() == 16).then_some(rest));
            }
            merge.take();
        }
        assert!(rounds < 30, "{rounds}");
    }
}
