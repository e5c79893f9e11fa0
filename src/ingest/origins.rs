//! Where the visits of a batch come from.

use std::borrow::Cow;
use std::ops::Range;

use crate::domain::Segments;

/// The line of each visit of a batch, and its place in the line's list of segments.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    lines: Vec<u64>,
    /// The visits of each list, which ascend. Visits without a list are in none of them, and take no memory here.
    lists: Vec<Range<usize>>,
}

impl Origins {
    /// Adds the visits of `line`, one for each of its `segments`.
    pub(crate) fn add(&mut self, line: u64, segments: &Segments<'_>) {
        let start = self.lines.len();
        match segments {
            Segments::One(_) => self.lines.push(line),
            Segments::List(names) => {
                self.lines.extend(std::iter::repeat_n(line, names.len()));
                self.lists.push(start..self.lines.len());
            }
        }
    }

    /// Returns the number of visits.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Returns whether there are no visits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns the line of each visit.
    pub(crate) fn lines(&self) -> &[u64] {
        &self.lines
    }

    /// Returns the member of the JSON that has the segment of the visit at `index`: `segment`, or `segments[3]`.
    pub(crate) fn field(&self, index: usize) -> Cow<'static, str> {
        let list = &self.lists[..self.lists.partition_point(|list| list.start <= index)];
        match list.last().filter(|list| list.contains(&index)) {
            Some(list) => Segments::field_in_list(index - list.start),
            None => "segment".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SegmentName;

    #[test]
    fn field_is_the_place_in_the_list_of_the_line() {
        let name = || SegmentName::parse("sports").unwrap();
        let mut origins = Origins::default();
        assert!(origins.is_empty());
        for (line, names) in [(1, None), (2, Some(2)), (3, Some(1)), (5, None), (6, Some(3))] {
            let list = |names| Segments::List(vec![name(); names].into());
            origins.add(line, &names.map_or_else(|| Segments::One(name()), list));
        }
        assert_eq!(origins.lines(), [1, 2, 2, 3, 5, 6, 6, 6]);
        let fields: Vec<_> = (0..origins.len()).map(|index| origins.field(index)).collect();
        let expected = [
            "segment",
            "segments[0]",
            "segments[1]",
            "segments[0]",
            "segment",
            "segments[0]",
            "segments[1]",
            "segments[2]",
        ];
        assert_eq!(fields, expected);
    }
}
