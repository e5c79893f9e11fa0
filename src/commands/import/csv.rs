//! CSV: records with their lines, and which of their fields make a visit.

use std::fmt;
use std::str::FromStr;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::domain::FieldError;
use crate::domain::visit_json::{RawVisit, VisitError};
use crate::ingest::LineError;

/// How CSV is to be read.
#[derive(Debug, Clone)]
pub struct CsvForm {
    /// What is between the fields of a record.
    pub delimiter: u8,
    /// Whether the first record holds the names of the columns.
    pub has_header: bool,
    /// The columns that have other names than the fields of a visit. A field has at most one.
    pub columns: Vec<ColumnOf>,
    /// Whether every visit is seen at the time of the import, whatever the columns are.
    pub seen_at_now: bool,
}

/// The options of the command, so that two forms are equal if and only if these texts are.
impl fmt::Display for CsvForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delimiter, has_header, columns, seen_at_now } = self;
        write!(f, "csv --delimiter {:?}", char::from(*delimiter))?;
        if !has_header {
            f.write_str(" --no-header")?;
        }
        let mut columns: Vec<_> = columns.iter().collect();
        columns.sort_by_key(|column| column.field);
        for ColumnOf { field, column } in columns {
            match column {
                Column::Name(name) => write!(f, " --columns {}={name:?}", FIELDS[*field])?,
                Column::Number(number) => write!(f, " --columns {}={}", FIELDS[*field], number + 1)?,
            }
        }
        if *seen_at_now { f.write_str(" --seen-at now") } else { Ok(()) }
    }
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
        Ok(Self { field, column: column.parse()? })
    }
}

impl ColumnOf {
    /// The column of `seen_at`, by its name or its number.
    ///
    /// # Errors
    ///
    /// Why `column` is neither, in one line.
    pub fn of_seen_at(column: &str) -> Result<Self, String> {
        Ok(Self { field: SEEN_AT, column: column.parse()? })
    }

    /// The name of the field that it is the column of.
    #[must_use]
    pub fn field(&self) -> &'static str {
        FIELDS[self.field]
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Err("columns are counted from 1".to_owned()),
            Ok(number) => Ok(Self::Number(number - 1_usize)),
            Err(_) if text.trim().is_empty() => Err("a column has a name or a number".to_owned()),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

/// Splits a text, which comes in pieces, into records. Holds at most one, and of that no more than its longest length.
pub(super) struct Records {
    reader: Reader,
    form: CsvForm,
    places: Option<Places>,
    text: Vec<u8>,
    ends: Vec<usize>,
    /// Of the record that is being read: how much of it is in `text` and `ends`, and what there is too much of.
    length: usize,
    fields: usize,
    excess: Option<Excess>,
    position: LinePosition,
    /// The line that the record begins on.
    first_line: Option<u64>,
}

/// What a record has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Excess {
    Bytes,
    Fields,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => write!(f, "is longer than {} bytes; is a quote left open?", Records::MAX_BYTES),
            Self::Fields => {
                write!(f, "has more than {} columns; leave out those that are no part of a visit", Records::MAX_FIELDS)
            }
        }
    }
}

/// The line that the next byte is on, as an editor counts: LF, CR LF and CR alone each end a line.
#[derive(Debug)]
struct LinePosition {
    /// Counted from 1.
    line: u64,
    is_after_cr: bool,
}

impl LinePosition {
    fn pass(&mut self, text: &[u8]) {
        for end in memchr::memchr2_iter(b'\r', b'\n', text) {
            let is_after_cr = end.checked_sub(1).map_or(self.is_after_cr, |before| text[before] == b'\r');
            // The LF of a CR LF ends no further line.
            self.line += u64::from(text[end] == b'\r' || !is_after_cr);
        }
        self.is_after_cr = text.last().map_or(self.is_after_cr, |last| *last == b'\r');
    }
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
    Visit(Result<RawVisit<'a>, VisitError>),
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
            excess: None,
            position: LinePosition { line: 1, is_after_cr: false },
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
        let first_line = *self.first_line.get_or_insert(self.position.line);
        loop {
            let (text, ends) = (&mut self.text[self.length..], &mut self.ends[self.fields..]);
            let (result, read, written, ended) = self.reader.read_record(piece, text, ends);
            self.position.pass(&piece[..read]);
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

    /// Blank lines are no records, and the CR that ended the record before may be followed by an LF.
    fn pass_ends_of_lines(&mut self, piece: &mut &[u8]) {
        let ends = piece.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.position.pass(&piece[..ends]);
        *piece = &piece[ends..];
    }

    fn record(
        &mut self,
        line: u64,
        length: usize,
        fields: usize,
        excess: Option<Excess>,
    ) -> Result<Record<'_>, String> {
        if let Some(excess) = excess {
            return match self.places {
                None => Err(format!("line {line} {excess}")),
                Some(_) => Ok(Record::Bad(LineError::of_line(line, excess.to_string()))),
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
        let seen_at = places.of[SEEN_AT].map(|_| seen_at);
        Ok(Record::Visit(RawVisit::from_texts(user_id, segment, seen_at)))
    }
}

impl CsvForm {
    /// Finds the fields in records of `width` fields; `names` are those of the columns, if they have some.
    fn places(&self, names: Option<&[&str]>, width: usize) -> Result<Places, String> {
        let mut of = [None; 3];
        for (field, place) in of.iter_mut().enumerate() {
            if field == SEEN_AT && self.seen_at_now {
                continue;
            }
            let set = self.columns.iter().find(|column| column.field == field).map(|column| &column.column);
            *place = match (set, names) {
                (Some(Column::Number(number)), _) if *number < width => Some(*number),
                (Some(Column::Number(number)), _) => {
                    return Err(format!("there is no column {} for {}; there are {width}", number + 1, FIELDS[field]));
                }
                (Some(Column::Name(name)), Some(names)) => column_of(field, name, names)?,
                (Some(Column::Name(_)), None) => {
                    return Err(format!("without a header, columns have numbers: {}=1", FIELDS[field]));
                }
                (None, Some(names)) => column_of(field, FIELDS[field], names)?,
                // If the others are elsewhere, the usual column says nothing of the time.
                (None, None) if field == SEEN_AT && !self.columns.is_empty() => None,
                (None, None) => Some(field).filter(|place| *place < width),
            };
            if place.is_none() && (field != SEEN_AT || set.is_some()) {
                return Err(match (names, set) {
                    (Some(_), set) => format!(
                        "the header has no column {}, which {} is to come from: --columns names columns, --no-header says \
                         that there is no header, and --delimiter what is between fields",
                        if let Some(Column::Name(name)) = set { name } else { FIELDS[field] },
                        FIELDS[field]
                    ),
                    (None, _) => format!("there is no column for {}; there are {width}", FIELDS[field]),
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
        if of[SEEN_AT].is_none() && !self.seen_at_now {
            self.require_no_time(of, names, width)?;
        }
        Ok(Places { of, width })
    }

    /// Refuses records with further columns, one of which may be the time under a name of its own. A visit that is recorded as
    /// seen now by mistake can't be corrected, since the latest time of a user counts.
    fn require_no_time(&self, of: [Option<usize>; 3], names: Option<&[&str]>, width: usize) -> Result<(), String> {
        const MAX_NAMED: usize = 10;
        let further: Vec<_> = (0..width).filter(|place| !of.contains(&Some(*place))).collect();
        if further.is_empty() {
            return Ok(());
        }
        // If no column was found by its name, the first record may hold a user instead of names.
        let by_number = |column: &ColumnOf| matches!(column.column, Column::Number(_));
        let names = names.filter(|_| self.columns.iter().filter(|column| by_number(column)).count() < SEEN_AT);
        let name = |place: &usize| match names.map(|names| names[*place]) {
            None | Some("") => format!("column {}", place + 1),
            Some(name) => name.chars().take(64).flat_map(char::escape_debug).collect(),
        };
        let more = if further.len() > MAX_NAMED { ", ..." } else { "" };
        let further: Vec<_> = further.iter().take(MAX_NAMED).map(name).collect();
        Err(format!(
            "no column is named seen_at, and there are further columns: {}{more}; --seen-at COLUMN says which holds the time, \
             --seen-at now takes the time of the import",
            further.join(", ")
        ))
    }
}

/// The column that is named `name`, in capitals or not.
fn column_of(field: usize, name: &str, names: &[&str]) -> Result<Option<usize>, String> {
    let wanted = name.trim().to_lowercase();
    let mut found = (0..names.len()).filter(|place| names[*place].to_lowercase() == wanted);
    let first = found.next();
    match (first, found.next()) {
        (Some(first), Some(second)) => Err(format!(
            "the header has the column {name} twice, as column {} and as column {}; choose one by its number, as in --columns {}={}",
            first + 1,
            second + 1,
            FIELDS[field],
            first + 1,
        )),
        _ => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn form(has_header: bool, columns: &[&str]) -> CsvForm {
        let columns = columns.iter().map(|column| column.parse().unwrap()).collect();
        CsvForm { delimiter: b',', has_header, columns, seen_at_now: false }
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
                Record::Visit(Ok(RawVisit { user_id, segment, seen_at })) => {
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
    #[case::other_columns("x,segment,user_id,seen_at\n1,sports,u1,2\n", &[(2, "u1 sports 2000")])]
    #[case::cr("user_id,segment\ru1,sports\r\ru2,news\r", &[(2, "u1 sports"), (4, "u2 news")])]
    #[case::header_lf_and_body_cr("user_id,segment\nu1,sports\ru2,\ru3,news", &[(2, "u1 sports"), (3, "segment must not be empty"), (4, "u3 news")])]
    #[case::header_cr_and_body_crlf("user_id,segment\ru1,sports\r\nu2,news\r\n", &[(2, "u1 sports"), (3, "u2 news")])]
    #[case::line_ends_in_quotes("user_id,segment\ru,\"a\rb\r\nc\n\"\ru2,news\r",
        &[(2, "segment must not contain control characters; U+000D is at byte 1"), (6, "u2 news")])]
    #[case::names_in_capitals("User_ID,SEGMENT,Seen_At\nu1,sports,1.5\n", &[(2, "u1 sports 1500")])]
    #[case::quotes("user_id,segment\n\"u,\"\"1\"\"\",\"sp\"\nu2,news\n", &[(2, "u,\"1\" sp"), (3, "u2 news")])]
    #[case::time("user_id,segment,seen_at\nu1,sports,1.5\nu2,news,\n",
        &[(2, "u1 sports 1500"), (3, "seen_at must not be empty; --seen-at now takes the time of the import")])]
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
    #[case::columns(format!("user_id,segment\n{}\nu2,news\n", ",".repeat(1_000)), "has more than 1000 columns; leave out those that are no part of a visit")]
    #[case::bytes(format!("user_id,segment\n{}\nu2,news\n", "u".repeat(16_385)), "is longer than 16384 bytes; is a quote left open?")]
    fn a_limit_is_named_rightly(#[case] text: String, #[case] detail: &str) {
        let expected = [(2, detail.to_owned()), (3, "u2 news".to_owned())];
        assert_eq!(read(text.as_bytes(), form(true, &[]), 1_000).unwrap(), expected);
        // As the header, it is refused.
        let (_, header) = text.split_once('\n').unwrap();
        assert_eq!(read(header.as_bytes(), form(true, &[]), 1_000), Err(format!("line 1 {detail}")));
    }

    #[test]
    fn a_thousand_columns_are_read() {
        let header = format!("user_id,segment,seen_at{}\nu1,sports,1{}\n", ",x".repeat(997), ",".repeat(997));
        assert_eq!(read(header.as_bytes(), form(true, &[]), 100).unwrap(), [(2, "u1 sports 1000".to_owned())]);
    }

    #[rstest]
    #[case::names(true, &["user_id=uid", "segment=tag", "seen_at=at"], "tag,uid,at\nsports,u1,2\n")]
    #[case::numbers_with_a_header(true, &["user_id=2", "segment=1", "seen_at=3"], "tag,uid,at\nsports,u1,2\n")]
    #[case::numbers(false, &["user_id=2", "segment=1", "seen_at=3"], "sports,u1,2\n")]
    #[case::names_in_capitals(true, &["user_id=UID", "segment=tag", "seen_at=at"], "TAG,uid,At\nsports,u1,2\n")]
    #[case::one_of_two_of_a_name(true, &["seen_at=3"], "user_id,segment,seen_at,seen_at\nu1,sports,2,3\n")]
    #[case::usual_order(false, &[], "u1,sports,2\n")]
    #[case::usual_order_and_further_columns(false, &[], "u1,sports,2,x,y\n")]
    fn columns_are_found(#[case] has_header: bool, #[case] columns: &[&str], #[case] text: &str) {
        let found = read(text.as_bytes(), form(has_header, columns), 100).unwrap();
        assert_eq!(found, [(1 + u64::from(has_header), "u1 sports 2000".to_owned())]);
    }

    #[rstest]
    #[case::no_user_id(true, &[], "uid,segment\n", "the header has no column user_id, which user_id is to come from: --columns names columns, --no-header says that there is no header, and --delimiter what is between fields")]
    #[case::no_named_column(true, &["seen_at=at"], "user_id,segment\n", "the header has no column at, which seen_at is to come from: --columns names columns, --no-header says that there is no header, and --delimiter what is between fields")]
    #[case::no_header_and_one_column(false, &[], "u1\n", "there is no column for segment; there are 1")]
    #[case::name_without_a_header(false, &["user_id=uid"], "u1,x\n", "without a header, columns have numbers: user_id=1")]
    #[case::number_beyond_the_last(false, &["seen_at=3"], "u1,x\n", "there is no column 3 for seen_at; there are 2")]
    #[case::both_from_one_number(false, &["user_id=2"], "x,u1\n", "user_id and segment would both come from column 2: give both in --columns")]
    #[case::both_from_one_name(true, &["segment=user_id"], "user_id\n", "user_id and segment would both come from column 1: give both in --columns")]
    #[case::column_twice(true, &[], "user_id,segment,seen_at,Seen_At\n", "the header has the column seen_at twice, as column 3 and as column 4; choose one by its number, as in --columns seen_at=3")]
    #[case::user_id_twice(true, &[], "user_id,user_id,segment\n", "the header has the column user_id twice, as column 1 and as column 2; choose one by its number, as in --columns user_id=1")]
    #[case::named_column_twice(true, &["segment=Tag"], "user_id,tag,TAG\n", "the header has the column Tag twice, as column 2 and as column 3; choose one by its number, as in --columns segment=2")]
    #[case::time_of_another_name(true, &[], "user_id,segment,timestamp\n", "no column is named seen_at, and there are further columns: timestamp; --seen-at COLUMN says which holds the time, --seen-at now takes the time of the import")]
    #[case::several_further_columns(true, &["user_id=uid"], "last_seen,uid,segment,,\u{1b}x\n", "no column is named seen_at, and there are further columns: last_seen, column 4, \\u{1b}x; --seen-at COLUMN says which holds the time, --seen-at now takes the time of the import")]
    #[case::many_further_columns(true, &[], "user_id,segment,1,2,3,4,5,6,7,8,9,10,11\n", "no column is named seen_at, and there are further columns: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...; --seen-at COLUMN says which holds the time, --seen-at now takes the time of the import")]
    #[case::numbers_and_a_further_column(true, &["user_id=1", "segment=2"], "u1,sports,me@example.org\n", "no column is named seen_at, and there are further columns: column 3; --seen-at COLUMN says which holds the time, --seen-at now takes the time of the import")]
    #[case::no_header_and_a_further_column(false, &["user_id=1", "segment=2"], "u1,sports,2\n", "no column is named seen_at, and there are further columns: column 3; --seen-at COLUMN says which holds the time, --seen-at now takes the time of the import")]
    fn columns_that_are_missing_are_named(
        #[case] has_header: bool,
        #[case] columns: &[&str],
        #[case] text: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(read(text.as_bytes(), form(has_header, columns), 100).unwrap_err(), expected);
    }

    #[rstest]
    #[case::time_of_another_name(true, &[], "user_id,segment,timestamp\nu1,sports,2\n")]
    #[case::seen_at(true, &[], "user_id,segment,seen_at\nu1,sports,2\n")]
    #[case::seen_at_twice(true, &[], "user_id,segment,seen_at,seen_at\nu1,sports,2,3\n")]
    #[case::an_empty_seen_at(true, &[], "user_id,segment,seen_at\nu1,sports,\n")]
    #[case::no_header(false, &[], "u1,sports,2\n")]
    #[case::no_header_and_numbers(false, &["user_id=2", "segment=3"], "x,u1,sports\n")]
    fn now_is_taken_when_it_is_asked_for(#[case] has_header: bool, #[case] columns: &[&str], #[case] text: &str) {
        let form = CsvForm { seen_at_now: true, ..form(has_header, columns) };
        let line = 1 + u64::from(has_header);
        assert_eq!(read(text.as_bytes(), form, 100).unwrap(), [(line, "u1 sports".to_owned())]);
    }

    #[test]
    fn a_form_is_told_by_its_options() {
        let by_name = form(false, &["segment=tag", "user_id=2"]);
        assert_eq!(
            by_name.to_string(),
            "csv --delimiter ',' --no-header --columns user_id=2 --columns segment=\"tag\""
        );
        let now = CsvForm { delimiter: b'\t', seen_at_now: true, ..form(true, &[]) };
        assert_eq!(now.to_string(), "csv --delimiter '\\t' --seen-at now");
    }

    #[test]
    fn a_mapping_that_is_none_is_refused() {
        for text in ["uid", "uid=user_id", "user_id=0", "user_id=", "user_id= "] {
            assert!(text.parse::<ColumnOf>().is_err(), "{text}");
        }
    }
}
