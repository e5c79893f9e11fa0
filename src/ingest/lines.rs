//! Splits a stream of bytes into lines, whatever its pieces.

/// Splits a stream that arrives in pieces. Buffers at most one line of the maximum length.
#[derive(Debug)]
pub(crate) struct Lines {
    max_bytes: usize,
    /// The start of an incomplete line; empty if the line is too long.
    carried: Vec<u8>,
    /// Whether the incomplete line is too long, so that its rest is skipped.
    is_too_long: bool,
    /// Whether `carried` is a line that was returned.
    is_spent: bool,
    /// Lines returned so far.
    count: u64,
}

/// A line without its line end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Counted from 1.
    pub(crate) number: u64,
    /// The text, or `None` if the line is too long.
    pub(crate) text: Option<&'a [u8]>,
}

impl Lines {
    /// Splits into lines of up to `max_bytes` bytes, without their line ends.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, carried: Vec::new(), is_too_long: false, is_spent: false, count: 0 }
    }

    /// Returns the number of lines so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Takes up to `limit` empty lines from the front of `piece`, and returns their number.
    pub(crate) fn skip_empty(&mut self, piece: &mut &[u8], limit: usize) -> usize {
        self.clear_spent();
        let mut empty = 0;
        while self.carried.is_empty() && !self.is_too_long && empty < limit {
            let Some(rest) = piece.strip_prefix(b"\n").or_else(|| piece.strip_prefix(b"\r\n")) else { break };
            *piece = rest;
            empty += 1;
        }
        self.count += empty as u64;
        empty
    }

    /// Takes the next line from the front of `piece`. If `piece` has no line end, buffers all of it and returns `None`.
    pub(crate) fn next<'a, 'p: 'a>(&'a mut self, piece: &mut &'p [u8]) -> Option<Line<'a>> {
        self.clear_spent();
        let Some(end) = memchr::memchr(b'\n', piece) else {
            self.carry(piece);
            *piece = &[];
            return None;
        };
        let (line, rest) = (&piece[..end], &piece[end + 1..]);
        *piece = rest;
        if self.carried.is_empty() && !self.is_too_long {
            self.count += 1;
            return Some(Line { number: self.count, text: within(line, self.max_bytes) });
        }
        self.carry(line);
        Some(self.take_carried())
    }

    /// Returns the last line, if the stream ended without a line end.
    pub(crate) fn last(&mut self) -> Option<Line<'_>> {
        self.clear_spent();
        (!self.carried.is_empty() || self.is_too_long).then(|| self.take_carried())
    }

    fn take_carried(&mut self) -> Line<'_> {
        self.count += 1;
        self.is_spent = true;
        let text = if self.is_too_long { None } else { within(&self.carried, self.max_bytes) };
        Line { number: self.count, text }
    }

    fn clear_spent(&mut self) {
        if std::mem::take(&mut self.is_spent) {
            self.carried.clear();
            self.is_too_long = false;
        }
    }

    fn carry(&mut self, part: &[u8]) {
        // One byte more, since the line end may have a CR.
        if self.is_too_long || self.carried.len() + part.len() > self.max_bytes + 1 {
            self.is_too_long = true;
            self.carried.clear();
        } else {
            self.carried.extend_from_slice(part);
        }
    }
}

/// Returns `line` without a CR at its end, unless it is too long.
fn within(line: &[u8], max_bytes: usize) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    (line.len() <= max_bytes).then_some(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Splits a stream of these pieces; `None` is a line that is too long.
    fn split(pieces: &[&[u8]], max_bytes: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(max_bytes);
        let mut found = Vec::new();
        let mut keep = |line: Line<'_>| {
            found.push(line.text.map(<[u8]>::to_vec));
            assert_eq!(line.number, found.len() as u64);
        };
        for mut piece in pieces.iter().copied() {
            while let Some(line) = lines.next(&mut piece) {
                keep(line);
            }
            assert!(piece.is_empty());
        }
        if let Some(line) = lines.last() {
            keep(line);
        }
        assert_eq!(lines.count(), found.len() as u64);
        found
    }

    #[rstest]
    #[case::none(b"a\n\n", 9, 0, "a\n\n")]
    #[case::some(b"\n\r\n\na\n", 9, 3, "a\n")]
    #[case::all(b"\n\n", 9, 2, "")]
    #[case::no_more_than_asked_for(b"\n\n\n", 2, 2, "\n")]
    #[case::a_carriage_return_alone(b"\n\ra\n", 9, 1, "\ra\n")]
    fn empty_lines_are_passed_over_and_counted(
        #[case] mut piece: &[u8],
        #[case] limit: usize,
        #[case] expected: usize,
        #[case] rest: &str,
    ) {
        let mut lines = Lines::new(5);
        assert_eq!(lines.skip_empty(&mut piece, limit), expected);
        assert_eq!((lines.count(), piece), (expected as u64, rest.as_bytes()));
    }

    #[test]
    fn the_end_of_a_line_that_was_begun_is_no_empty_line() {
        let mut lines = Lines::new(5);
        assert_eq!(lines.next(&mut &b"a"[..]), None);
        let mut piece = &b"\n\n"[..];
        assert_eq!(lines.skip_empty(&mut piece, 9), 0);
        assert_eq!(lines.next(&mut piece), Some(Line { number: 1, text: Some(b"a") }));
        assert_eq!((lines.skip_empty(&mut piece, 9), lines.count()), (1, 2));
    }

    #[rstest]
    #[case::empty(b"", &[])]
    #[case::one(b"a\n", &[Some("a")])]
    #[case::no_final_end(b"a\nb", &[Some("a"), Some("b")])]
    #[case::crlf(b"a\r\nb\r\n", &[Some("a"), Some("b")])]
    #[case::empty_lines(b"\n\r\na\n\n", &[Some(""), Some(""), Some("a"), Some("")])]
    #[case::inner_cr(b"a\rb\n", &[Some("a\rb")])]
    #[case::longest(b"12345\n12345\r\n", &[Some("12345"), Some("12345")])]
    #[case::too_long(b"123456\n1\n", &[None, Some("1")])]
    #[case::far_too_long(b"1234567890\r\n1\n", &[None, Some("1")])]
    #[case::too_long_at_the_end(b"1\n123456", &[Some("1"), None])]
    fn next_gives_the_same_lines_for_all_cuts(#[case] stream: &[u8], #[case] expected: &[Option<&str>]) {
        let expected: Vec<_> = expected.iter().map(|line| line.map(|line| line.as_bytes().to_vec())).collect();
        assert_eq!(split(&[stream], 5), expected);
        for cut in 0..=stream.len() {
            assert_eq!(split(&[&stream[..cut], &stream[cut..]], 5), expected, "cut at {cut}");
        }
        let bytes: Vec<_> = stream.chunks(1).collect();
        assert_eq!(split(&bytes, 5), expected);
    }

    /// Cuts `stream` at `cuts`. Some pieces are empty.
    fn cut(stream: &[u8], mut cuts: Vec<usize>) -> Vec<&[u8]> {
        cuts.extend([0, stream.len()]);
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(stream.len()));
        cuts.sort_unstable();
        cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect()
    }

    // `PROPTEST_CASES=1000000 cargo test --lib lines` runs more cases.
    proptest! {
        #[test]
        fn next_splits_any_stream_whatever_its_pieces(
            stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..60),
            cuts in prop::collection::vec(0..60_usize, 0..8),
        ) {
            let mut expected: Vec<_> = stream.split(|byte| *byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            let expected: Vec<_> = expected.into_iter().map(|line| {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                (line.len() <= 8).then(|| line.to_vec())
            }).collect();
            prop_assert_eq!(split(&cut(&stream, cuts), 8), expected);
        }

        #[test]
        fn next_buffers_at_most_a_line(stream in prop::collection::vec(any::<u8>(), 0..400), size in 1..50_usize) {
            let mut lines = Lines::new(16);
            for mut piece in stream.chunks(size) {
                while lines.next(&mut piece).is_some() {}
                prop_assert!(lines.carried.len() <= 17);
            }
        }
    }
}
