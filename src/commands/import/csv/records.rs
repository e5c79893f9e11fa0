//! Splits CSV into records, and makes visits of them.

use std::fmt;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::format::{CsvFormat, FIELDS, FieldIndices, SEEN_AT};
use crate::domain::FieldError;
use crate::domain::visit_json::{RawVisits, VisitError};
use crate::ingest::LineError;

/// Splits a text that arrives in pieces into records. Holds at most one record, up to [`Self::MAX_BYTES`].
pub(in crate::commands::import) struct CsvRecords {
    reader: Reader,
    format: CsvFormat,
    /// `None` before the first record.
    indices: Option<FieldIndices>,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// The length of the current record in `text`.
    length: usize,
    /// The number of its fields in `ends`.
    fields: usize,
    /// The limit that it exceeds.
    excess: Option<Excess>,
    position: LinePosition,
    /// The line on which the current record begins.
    first_line: Option<u64>,
}

/// A limit that a record exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    Bytes,
    Fields,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => write!(f, "is longer than {} bytes; is a quote left open?", CsvRecords::MAX_BYTES),
            Self::Fields => {
                write!(f, "has more than {} columns; remove those that no visit needs", CsvRecords::MAX_FIELDS)
            }
        }
    }
}

/// The line of the next byte, as an editor counts it: LF, CR LF and CR alone each end a line.
#[derive(Debug)]
struct LinePosition {
    /// Counted from 1.
    line: u64,
    is_after_cr: bool,
}

impl LinePosition {
    fn advance(&mut self, text: &[u8]) {
        for end in memchr::memchr2_iter(b'\r', b'\n', text) {
            let is_after_cr = end.checked_sub(1).map_or(self.is_after_cr, |before| text[before] == b'\r');
            // The LF of a CR LF doesn't end another line.
            self.line += u64::from(text[end] == b'\r' || !is_after_cr);
        }
        self.is_after_cr = text.last().map_or(self.is_after_cr, |last| *last == b'\r');
    }
}

/// A record of a file.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::commands::import) enum CsvRecord<'a> {
    Visit(Result<RawVisits<'a>, VisitError>),
    /// A record with another number of fields, or beyond a limit.
    Invalid(LineError),
    Header,
}

impl CsvRecords {
    /// The limit on a record in bytes, without its quotes.
    pub(in crate::commands::import) const MAX_BYTES: usize = 16 * 1024;
    const MAX_FIELDS: usize = 1_000;

    pub(in crate::commands::import) fn new(format: CsvFormat) -> Self {
        Self {
            reader: ReaderBuilder::new().delimiter(format.delimiter).build(),
            format,
            indices: None,
            text: vec![0; Self::MAX_BYTES],
            ends: vec![0; Self::MAX_FIELDS],
            length: 0,
            fields: 0,
            excess: None,
            position: LinePosition { line: 1, is_after_cr: false },
            first_line: None,
        }
    }

    /// Removes the next record from the front of `piece`. Returns it with the line on which it begins. Without a
    /// complete record, consumes all of `piece`, and a later call returns the record.
    ///
    /// # Errors
    ///
    /// The mistake in the header, in one line.
    pub(in crate::commands::import) fn next(
        &mut self,
        piece: &mut &[u8],
    ) -> Result<Option<(u64, CsvRecord<'_>)>, String> {
        if self.first_line.is_none() {
            self.skip_line_ends(piece);
        }
        // To the reader an empty piece is the end of the text.
        if piece.is_empty() { Ok(None) } else { self.read(piece) }
    }

    /// Returns the last record, if the text ends without the end of a line.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub(in crate::commands::import) fn last(&mut self) -> Result<Option<(u64, CsvRecord<'_>)>, String> {
        if self.first_line.is_none() { Ok(None) } else { self.read(&mut &[][..]) }
    }

    fn read(&mut self, piece: &mut &[u8]) -> Result<Option<(u64, CsvRecord<'_>)>, String> {
        let first_line = *self.first_line.get_or_insert(self.position.line);
        loop {
            let (text, ends) = (&mut self.text[self.length..], &mut self.ends[self.fields..]);
            let (result, read, written, ended) = self.reader.read_record(piece, text, ends);
            self.position.advance(&piece[..read]);
            *piece = &piece[read..];
            self.length += written;
            self.fields += ended;
            match result {
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    let is_text = result == ReadRecordResult::OutputFull;
                    self.excess.get_or_insert(if is_text { Excess::Bytes } else { Excess::Fields });
                    (self.length, self.fields) = (0, 0);
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record => {
                    self.first_line = None;
                    let (length, fields) = (std::mem::take(&mut self.length), std::mem::take(&mut self.fields));
                    let excess = self.excess.take();
                    return Ok(Some((first_line, self.record(first_line, length, fields, excess)?)));
                }
            }
        }
    }

    /// Skips blank lines, and the LF after a CR that ended the previous record.
    fn skip_line_ends(&mut self, piece: &mut &[u8]) {
        let ends = piece.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.position.advance(&piece[..ends]);
        *piece = &piece[ends..];
    }

    fn record(
        &mut self,
        line: u64,
        length: usize,
        fields: usize,
        excess: Option<Excess>,
    ) -> Result<CsvRecord<'_>, String> {
        if let Some(excess) = excess {
            return match self.indices {
                None => Err(format!("line {line} {excess}")),
                Some(_) => Ok(CsvRecord::Invalid(LineError::of_line(line, excess.to_string()))),
            };
        }
        let ends = &self.ends[..fields];
        let field = |index: usize| {
            let start = index.checked_sub(1).map_or(0, |before| ends[before]);
            std::str::from_utf8(&self.text[..length][start..ends[index]])
        };
        let indices = match self.indices {
            Some(indices) => indices,
            None if self.format.has_header => {
                let names: Vec<_> = (0..fields).map(|index| field(index).unwrap_or_default().trim()).collect();
                self.indices = Some(self.format.field_indices(Some(&names), fields)?);
                return Ok(CsvRecord::Header);
            }
            None => *self.indices.insert(self.format.field_indices(None, fields)?),
        };
        if fields != indices.width {
            let detail = format!("has {fields} fields; the first record has {}", indices.width);
            return Ok(CsvRecord::Invalid(LineError::of_line(line, detail)));
        }
        let mut texts = [""; 3];
        for (name, (text, index)) in FIELDS.into_iter().zip(texts.iter_mut().zip(indices.of)) {
            let Some(index) = index else { continue };
            match field(index) {
                Ok(value) => *text = value,
                Err(_) => {
                    let error = FieldError::new(name, "is not UTF-8");
                    return Ok(CsvRecord::Visit(Err(VisitError::Fields(vec![error]))));
                }
            }
        }
        let [user_id, segment, seen_at] = texts;
        let seen_at = indices.of[SEEN_AT].map(|_| seen_at);
        Ok(CsvRecord::Visit(RawVisits::from_texts(user_id, segment, seen_at)))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn format(has_header: bool, columns: &[&str]) -> CsvFormat {
        let columns = columns.iter().map(|column| column.parse().unwrap()).collect();
        CsvFormat { delimiter: b',', has_header, columns, seen_at_now: false }
    }

    /// Reads `text` in pieces of `size` bytes. Returns the line of each record, and the visit or the error.
    fn read(text: &[u8], format: CsvFormat, size: usize) -> Result<Vec<(u64, String)>, String> {
        let mut records = CsvRecords::new(format);
        let mut found = Vec::new();
        let mut keep = |line, record: CsvRecord<'_>| {
            let text = match record {
                CsvRecord::Header => return,
                CsvRecord::Invalid(error) => error.detail,
                CsvRecord::Visit(Err(error)) => error.to_string(),
                CsvRecord::Visit(Ok(RawVisits { user_id, segments, seen_at })) => {
                    let seen_at = seen_at.map(|seen_at| format!(" {}", seen_at.as_millis()));
                    let segment = &segments.as_slice()[0];
                    format!("{} {segment}{}", user_id.as_str(), seen_at.unwrap_or_default())
                }
            };
            found.push((line, text));
        };
        for mut piece in text.chunks(size) {
            while let Some((line, record)) = records.next(&mut piece)? {
                keep(line, record);
            }
            assert!(piece.is_empty());
        }
        if let Some((line, record)) = records.last()? {
            keep(line, record);
        }
        Ok(found)
    }

    #[rstest]
    #[case::usual("user_id,segment\nu1,sports\nu2,news\n", &[(2, "u1 sports"), (3, "u2 news")])]
    #[case::no_final_line_end("user_id,segment\nu1,sports", &[(2, "u1 sports")])]
    #[case::crlf("user_id,segment\r\nu1,sports\r\n\r\nu2,news\r\n", &[(2, "u1 sports"), (4, "u2 news")])]
    #[case::blank_lines("\n\nuser_id,segment\n\n\nu1,sports\n\n", &[(6, "u1 sports")])]
    #[case::other_columns("x,segment,user_id,seen_at\n1,sports,u1,2\n", &[(2, "u1 sports 2000")])]
    #[case::cr("user_id,segment\ru1,sports\r\ru2,news\r", &[(2, "u1 sports"), (4, "u2 news")])]
    #[case::header_lf_and_body_cr("user_id,segment\nu1,sports\ru2,\ru3,news", &[(2, "u1 sports"), (3, "segment must not be empty"), (4, "u3 news")])]
    #[case::header_cr_and_body_crlf("user_id,segment\ru1,sports\r\nu2,news\r\n", &[(2, "u1 sports"), (3, "u2 news")])]
    #[case::line_ends_in_quotes("user_id,segment\ru,\"a\rb\r\nc\n\"\ru2,news\r",
        &[(2, "segment must not contain control characters; U+000D is at byte 1"), (6, "u2 news")])]
    #[case::names_in_capitals("User_ID,SEGMENT,Seen_At\nu1,sports,1.5\n", &[(2, "u1 sports 1500")])]
    #[case::quotes("user_id,segment\n\"u,\"\"1\"\"\",\"sp\"\nu2,news\n", &[(2, "u,\"1\" sp"), (3, "u2 news")])]
    #[case::time("user_id,segment,seen_at\nu1,sports,1.5\nu2,news,\n",
        &[(2, "u1 sports 1500"), (3, "seen_at must not be empty; for the time of the import, use --seen-at now")])]
    #[case::record_of_two_lines(
        "user_id,segment\n\"a\nb\",x\nu2,news\n",
        &[(2, "user_id must not contain control characters; U+000A is at byte 1"), (4, "u2 news")],
    )]
    #[case::other_widths(
        "user_id,segment\nu1\nu2,a,b\nu3,news\n",
        &[(2, "has 1 fields; the first record has 2"), (3, "has 3 fields; the first record has 2"), (4, "u3 news")],
    )]
    #[case::empty_fields("user_id,segment\n,\n", &[(2, "user_id must not be empty; segment must not be empty")])]
    #[case::header_only("user_id,segment\n", &[])]
    #[case::empty("", &[])]
    fn next_returns_the_same_records_for_any_size_of_pieces(#[case] text: &str, #[case] expected: &[(u64, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        for size in 1..=text.len().max(1) {
            assert_eq!(read(text.as_bytes(), format(true, &[]), size).unwrap(), expected, "pieces of {size} bytes");
        }
    }

    #[test]
    fn next_names_a_field_that_is_not_utf_8() {
        let found = read(b"user_id,segment\n\xFF,x\nu2,news\n", format(true, &[]), 100).unwrap();
        assert_eq!(found, [(2, "user_id is not UTF-8".to_owned()), (3, "u2 news".to_owned())]);
    }

    #[test]
    fn next_skips_a_record_that_is_too_long() {
        let text = format!("user_id,segment\n{},x\n\"{}\n", "u".repeat(20_000), "a,b\n".repeat(9_000));
        for size in [1, 1_000, 100_000] {
            let found = read(text.as_bytes(), format(true, &[]), size).unwrap();
            let detail = "is longer than 16384 bytes; is a quote left open?".to_owned();
            assert_eq!(found, [(2, detail.clone()), (3, detail)]);
        }
    }

    #[rstest]
    #[case::columns(format!("user_id,segment\n{}\nu2,news\n", ",".repeat(1_000)), "has more than 1000 columns; remove those that no visit needs")]
    #[case::bytes(format!("user_id,segment\n{}\nu2,news\n", "u".repeat(16_385)), "is longer than 16384 bytes; is a quote left open?")]
    fn next_names_the_limit_that_a_record_exceeds(#[case] text: String, #[case] detail: &str) {
        let expected = [(2, detail.to_owned()), (3, "u2 news".to_owned())];
        assert_eq!(read(text.as_bytes(), format(true, &[]), 1_000).unwrap(), expected);
        // As a header, the record ends the import.
        let (_, header) = text.split_once('\n').unwrap();
        assert_eq!(read(header.as_bytes(), format(true, &[]), 1_000), Err(format!("line 1 {detail}")));
    }

    #[test]
    fn next_reads_a_thousand_columns() {
        let header = format!("user_id,segment,seen_at{}\nu1,sports,1{}\n", ",x".repeat(997), ",".repeat(997));
        assert_eq!(read(header.as_bytes(), format(true, &[]), 100).unwrap(), [(2, "u1 sports 1000".to_owned())]);
    }

    #[rstest]
    #[case::names(true, &["user_id=uid", "segment=tag", "seen_at=at"], "tag,uid,at\nsports,u1,2\n")]
    #[case::numbers_with_header(true, &["user_id=2", "segment=1", "seen_at=3"], "tag,uid,at\nsports,u1,2\n")]
    #[case::numbers(false, &["user_id=2", "segment=1", "seen_at=3"], "sports,u1,2\n")]
    #[case::names_in_capitals(true, &["user_id=UID", "segment=tag", "seen_at=at"], "TAG,uid,At\nsports,u1,2\n")]
    #[case::number_of_a_name_that_is_there_twice(true, &["seen_at=3"], "user_id,segment,seen_at,seen_at\nu1,sports,2,3\n")]
    #[case::default_order(false, &[], "u1,sports,2\n")]
    #[case::default_order_and_further_columns(false, &[], "u1,sports,2,x,y\n")]
    fn next_finds_the_columns(#[case] has_header: bool, #[case] columns: &[&str], #[case] text: &str) {
        let found = read(text.as_bytes(), format(has_header, columns), 100).unwrap();
        assert_eq!(found, [(1 + u64::from(has_header), "u1 sports 2000".to_owned())]);
    }

    #[rstest]
    #[case::time_of_another_name(true, &[], "user_id,segment,timestamp\nu1,sports,2\n")]
    #[case::seen_at(true, &[], "user_id,segment,seen_at\nu1,sports,2\n")]
    #[case::seen_at_twice(true, &[], "user_id,segment,seen_at,seen_at\nu1,sports,2,3\n")]
    #[case::empty_seen_at(true, &[], "user_id,segment,seen_at\nu1,sports,\n")]
    #[case::without_header(false, &[], "u1,sports,2\n")]
    #[case::numbers_without_header(false, &["user_id=2", "segment=3"], "x,u1,sports\n")]
    fn next_ignores_the_time_with_seen_at_now(#[case] has_header: bool, #[case] columns: &[&str], #[case] text: &str) {
        let format = CsvFormat { seen_at_now: true, ..format(has_header, columns) };
        let line = 1 + u64::from(has_header);
        assert_eq!(read(text.as_bytes(), format, 100).unwrap(), [(line, "u1 sports".to_owned())]);
    }
}
