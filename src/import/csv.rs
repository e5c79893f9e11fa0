//! CSV: records with their lines, and which of their fields make a visit.

use std::str::FromStr;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::ingest::LineError;
use crate::segment::FieldError;
use crate::visit_json::{Reported, VisitError};

/// How CSV is to be read.
#[derive(Debug, Clone)]
pub struct CsvForm {
    /// What is between the fields of a record.
    pub delimiter: u8,
    /// Whether the first record holds the names of the columns.
    pub has_header: bool,
    /// The columns that have other names than the fields of a visit.
    pub columns: Vec<ColumnOf>,
}

/// Where a field of a visit is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnOf {
    field: usize,
    column: Column,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Name(String),
    /// Counted from 0.
    Number(usize),
}

/// The fields of a visit. The last may be missing.
const FIELDS: [&str; 3] = ["user_id", "segment", "seen_at"];
const SEEN_AT: usize = 2;

/// `user_id=uid`, or `user_id=1` for the first column.
impl FromStr for ColumnOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, column) = text.split_once('=').ok_or("it is not as in user_id=uid")?;
        let field = FIELDS.iter().position(|name| *name == field);
        let field = field.ok_or("the fields of a visit are user_id, segment and seen_at")?;
        let column = match column.parse() {
            Ok(0) => return Err("columns are counted from 1".to_owned()),
            Ok(number) => Column::Number(number - 1_usize),
            Err(_) => Column::Name(column.to_owned()),
        };
        Ok(Self { field, column })
    }
}

/// Splits a text, which comes in pieces, into records. Holds at most one, and of that no more than its longest length.
pub(super) struct Records {
    reader: Reader,
    form: CsvForm,
    places: Option<Places>,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Of the record that is being read: how much of it is in `text` and `ends`, and whether that is all that there is room for.
    length: usize,
    fields: usize,
    is_too_long: bool,
    /// The line that the next byte is on, counted from 1.
    line: u64,
    /// The line that the record begins on.
    first_line: Option<u64>,
}

/// Which of a record's fields make a visit.
#[derive(Debug, Clone, Copy)]
struct Places {
    of: [Option<usize>; 3],
    /// How many fields each record must have.
    width: usize,
}

/// What a record is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Visit(Result<Reported<'a>, VisitError>),
    /// It can't be a visit.
    Bad(LineError),
    Header,
}

impl Records {
    /// The longest record, in bytes, quotes not counted.
    pub(super) const MAX_BYTES: usize = 16 * 1024;
    /// The most fields that a record may have.
    const MAX_FIELDS: usize = 1_000;

    pub(super) fn new(form: CsvForm) -> Self {
        Self {
            reader: ReaderBuilder::new().delimiter(form.delimiter).build(),
            form,
            places: None,
            text: vec![0; Self::MAX_BYTES],
            ends: vec![0; Self::MAX_FIELDS],
            length: 0,
            fields: 0,
            is_too_long: false,
            line: 1,
            first_line: None,
        }
    }

    /// Takes the next record off the front of `piece`, and gives it with the line that it begins on. When there is none, all of
    /// `piece` is taken, and the record that it begins is given when a later piece has ended it.
    ///
    /// # Errors
    ///
    /// What is wrong with the header, in one line.
    pub(super) fn next(&mut self, piece: &mut &[u8]) -> Result<Option<(u64, Record<'_>)>, String> {
        if self.first_line.is_none() {
            self.pass_ends_of_lines(piece);
        }
        // The reader would take it for the end.
        if piece.is_empty() { Ok(None) } else { self.read(piece) }
    }

    /// The last record, if the text didn't end with the end of one.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub(super) fn last(&mut self) -> Result<Option<(u64, Record<'_>)>, String> {
        if self.first_line.is_none() { Ok(None) } else { self.read(&mut &[][..]) }
    }

    fn read(&mut self, piece: &mut &[u8]) -> Result<Option<(u64, Record<'_>)>, String> {
        let first_line = *self.first_line.get_or_insert(self.line);
        loop {
            let (text, ends) = (&mut self.text[self.length..], &mut self.ends[self.fields..]);
            let (result, read, written, ended) = self.reader.read_record(piece, text, ends);
            self.line += memchr::memchr_iter(b'\n', &piece[..read]).count() as u64;
            *piece = &piece[read..];
            self.length += written;
            self.fields += ended;
            match result {
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    self.is_too_long = true;
                    (self.length, self.fields) = (0, 0);
                }
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record => {
                    self.first_line = None;
                    let (length, fields) = (std::mem::take(&mut self.length), std::mem::take(&mut self.fields));
                    let is_too_long = std::mem::take(&mut self.is_too_long);
                    return Ok(Some((first_line, self.record(first_line, length, fields, is_too_long)?)));
                }
            }
        }
    }

    /// Blank lines are no records, and the CR that ended the record before may be followed by an LF.
    fn pass_ends_of_lines(&mut self, piece: &mut &[u8]) {
        let ends = piece.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.line += memchr::memchr_iter(b'\n', &piece[..ends]).count() as u64;
        *piece = &piece[ends..];
    }

    fn record(&mut self, line: u64, length: usize, fields: usize, is_too_long: bool) -> Result<Record<'_>, String> {
        if is_too_long {
            let detail = format!("is longer than {} bytes; is a quote left open?", Self::MAX_BYTES);
            return match self.places {
                None => Err(format!("line {line} {detail}")),
                Some(_) => Ok(Record::Bad(LineError::of_line(line, detail))),
            };
        }
        let ends = &self.ends[..fields];
        let field = |place: usize| {
            let start = place.checked_sub(1).map_or(0, |before| ends[before]);
            std::str::from_utf8(&self.text[..length][start..ends[place]])
        };
        let places = match self.places {
            Some(places) => places,
            None if self.form.has_header => {
                let names: Vec<_> = (0..fields).map(|place| field(place).unwrap_or_default().trim()).collect();
                self.places = Some(self.form.places(Some(&names), fields)?);
                return Ok(Record::Header);
            }
            None => *self.places.insert(self.form.places(None, fields)?),
        };
        if fields != places.width {
            let detail = format!("has {fields} fields; the first record has {}", places.width);
            return Ok(Record::Bad(LineError::of_line(line, detail)));
        }
        let mut texts = [""; 3];
        for (of, (text, place)) in texts.iter_mut().zip(places.of).enumerate() {
            let Some(place) = place else { continue };
            match field(place) {
                Ok(found) => *text = found,
                Err(_) => {
                    let error = FieldError::new(FIELDS[of], "is not UTF-8");
                    return Ok(Record::Visit(Err(VisitError::Fields(vec![error]))));
                }
            }
        }
        let [user_id, segment, seen_at] = texts;
        Ok(Record::Visit(Reported::from_texts(user_id, segment, seen_at)))
    }
}

impl CsvForm {
    /// Finds the fields in records of `width` fields; `names` are those of the columns, if they have some.
    fn places(&self, names: Option<&[&str]>, width: usize) -> Result<Places, String> {
        let mut of = [None; 3];
        for (field, place) in of.iter_mut().enumerate() {
            let set = self.columns.iter().find(|column| column.field == field).map(|column| &column.column);
            let name = match set {
                Some(Column::Number(number)) if *number < width => {
                    *place = Some(*number);
                    continue;
                }
                Some(Column::Number(number)) => {
                    return Err(format!("there is no column {} for {}; there are {width}", number + 1, FIELDS[field]));
                }
                Some(Column::Name(name)) => name,
                None => FIELDS[field],
            };
            *place = match names {
                Some(names) => names.iter().position(|found| found == &name),
                None if set.is_none() => Some(field).filter(|place| *place < width),
                None => return Err(format!("without a header, columns have numbers: {}=1", FIELDS[field])),
            };
            if place.is_none() && (field != SEEN_AT || set.is_some()) {
                return Err(match names {
                    Some(_) => format!(
                        "the header has no column {name}, which {} is to come from: --columns names columns, --no-header says \
                         that there is no header, and --delimiter what is between fields",
                        FIELDS[field]
                    ),
                    None => format!("there is no column for {}; there are {width}", FIELDS[field]),
                });
            }
        }
        for (later, place) in of.iter().enumerate().filter(|(_, place)| place.is_some()) {
            if let Some(earlier) = of[..later].iter().position(|other| other == place) {
                let column = place.map_or(0, |place| place + 1);
                let (earlier, later) = (FIELDS[earlier], FIELDS[later]);
                return Err(format!(
                    "{earlier} and {later} would both come from column {column}: give both in --columns"
                ));
            }
        }
        Ok(Places { of, width })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn form(has_header: bool, columns: &[&str]) -> CsvForm {
        let columns = columns.iter().map(|column| column.parse().unwrap()).collect();
        CsvForm { delimiter: b',', has_header, columns }
    }

    /// What the records of `text` are, cut into pieces of `size` bytes: the line, and the visit or what is wrong.
    fn read(text: &[u8], form: CsvForm, size: usize) -> Result<Vec<(u64, String)>, String> {
        let mut records = Records::new(form);
        let mut found = Vec::new();
        let mut keep = |line, record: Record<'_>| {
            let text = match record {
                Record::Header => return,
                Record::Bad(error) => error.detail,
                Record::Visit(Err(error)) => error.to_string(),
                Record::Visit(Ok(Reported { user_id, segment, seen_at })) => {
                    let seen_at = seen_at.map(|seen_at| format!(" {}", seen_at.as_millis()));
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
    #[case::no_final_end("user_id,segment\nu1,sports", &[(2, "u1 sports")])]
    #[case::crlf("user_id,segment\r\nu1,sports\r\n\r\nu2,news\r\n", &[(2, "u1 sports"), (4, "u2 news")])]
    #[case::blank_lines("\n\nuser_id,segment\n\n\nu1,sports\n\n", &[(6, "u1 sports")])]
    #[case::other_columns("x,segment,user_id\n1,sports,u1\n", &[(2, "u1 sports")])]
    #[case::quotes("user_id,segment\n\"u,\"\"1\"\"\",\"sp\"\nu2,news\n", &[(2, "u,\"1\" sp"), (3, "u2 news")])]
    #[case::time("user_id,segment,seen_at\nu1,sports,1.5\nu2,news,\n", &[(2, "u1 sports 1500"), (3, "u2 news")])]
    #[case::more_lines(
        "user_id,segment\n\"a\nb\",x\nu2,news\n",
        &[(2, "user_id must not contain control characters; U+000A is at byte 1"), (4, "u2 news")],
    )]
    #[case::width(
        "user_id,segment\nu1\nu2,a,b\nu3,news\n",
        &[(2, "has 1 fields; the first record has 2"), (3, "has 3 fields; the first record has 2"), (4, "u3 news")],
    )]
    #[case::empty_fields("user_id,segment\n,\n", &[(2, "user_id must not be empty; segment must not be empty")])]
    #[case::only_a_header("user_id,segment\n", &[])]
    #[case::nothing("", &[])]
    fn records_are_the_same_wherever_the_text_is_cut(#[case] text: &str, #[case] expected: &[(u64, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(line, text)| (*line, (*text).to_owned())).collect();
        for size in 1..=text.len().max(1) {
            assert_eq!(read(text.as_bytes(), form(true, &[]), size).unwrap(), expected, "pieces of {size} bytes");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_named() {
        let found = read(b"user_id,segment\n\xFF,x\nu2,news\n", form(true, &[]), 100).unwrap();
        assert_eq!(found, [(2, "user_id is not UTF-8".to_owned()), (3, "u2 news".to_owned())]);
    }

    #[test]
    fn a_record_that_is_too_long_is_passed_over() {
        let text = format!("user_id,segment\n{},x\n\"{}\n", "u".repeat(20_000), "a,b\n".repeat(9_000));
        for size in [1, 1_000, 100_000] {
            let found = read(text.as_bytes(), form(true, &[]), size).unwrap();
            let detail = "is longer than 16384 bytes; is a quote left open?".to_owned();
            assert_eq!(found, [(2, detail.clone()), (3, detail)]);
        }
    }

    #[rstest]
    #[case::names(true, &["user_id=uid", "segment=tag", "seen_at=at"], "tag,uid,at\nsports,u1,2\n")]
    #[case::numbers_with_a_header(true, &["user_id=2", "segment=1", "seen_at=3"], "tag,uid,at\nsports,u1,2\n")]
    #[case::numbers(false, &["user_id=2", "segment=1", "seen_at=3"], "sports,u1,2\n")]
    #[case::usual_order(false, &[], "u1,sports,2\n")]
    fn columns_are_found(#[case] has_header: bool, #[case] columns: &[&str], #[case] text: &str) {
        let found = read(text.as_bytes(), form(has_header, columns), 100).unwrap();
        assert_eq!(found, [(1 + u64::from(has_header), "u1 sports 2000".to_owned())]);
    }

    #[rstest]
    #[case(true, &[], "uid,segment\n", "the header has no column user_id, which user_id is to come from: --columns names columns, --no-header says that there is no header, and --delimiter what is between fields")]
    #[case(true, &["seen_at=at"], "user_id,segment\n", "the header has no column at, which seen_at is to come from: --columns names columns, --no-header says that there is no header, and --delimiter what is between fields")]
    #[case(false, &[], "u1\n", "there is no column for segment; there are 1")]
    #[case(false, &["user_id=uid"], "u1,x\n", "without a header, columns have numbers: user_id=1")]
    #[case(false, &["seen_at=3"], "u1,x\n", "there is no column 3 for seen_at; there are 2")]
    #[case(false, &["user_id=2"], "x,u1\n", "user_id and segment would both come from column 2: give both in --columns")]
    #[case(true, &["segment=user_id"], "user_id\n", "user_id and segment would both come from column 1: give both in --columns")]
    fn columns_that_are_missing_are_named(
        #[case] has_header: bool,
        #[case] columns: &[&str],
        #[case] text: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(read(text.as_bytes(), form(has_header, columns), 100).unwrap_err(), expected);
    }

    #[test]
    fn a_mapping_that_is_none_is_refused() {
        for text in ["uid", "uid=user_id", "user_id=0"] {
            assert!(text.parse::<ColumnOf>().is_err(), "{text}");
        }
    }
}
