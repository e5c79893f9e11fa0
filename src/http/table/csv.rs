//! CSV by RFC 4180.

use std::borrow::Cow;

use csv::{Terminator, Writer, WriterBuilder};

/// A cell of a row.
pub struct Cell<'a>(Cow<'a, str>);

/// The text of a cell, [disarmed](disarm).
impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        Self(disarm(text))
    }
}

impl From<u64> for Cell<'_> {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<f64> for Cell<'_> {
    fn from(number: f64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<bool> for Cell<'_> {
    fn from(is_true: bool) -> Self {
        Self(is_true.to_string().into())
    }
}

/// Null is an empty cell.
impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Cell("".into()), Into::into)
    }
}

/// Puts an apostrophe before a text that a spreadsheet would take for a formula, as [OWASP
/// advises](https://owasp.org/www-community/attacks/CSV_Injection). Where a comma is the decimal mark, spreadsheets may
/// split the file at semicolons, so a part behind one is disarmed as well.
///
/// A text with an apostrophe at these places gets another one. So a program gets the original back when it removes one
/// apostrophe at the beginning and behind each semicolon.
fn disarm(text: &str) -> Cow<'_, str> {
    const RISKY: [char; 12] =
        ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}', '\''];
    if !text.split(';').any(|part| part.starts_with(RISKY)) {
        return text.into();
    }
    let parts = text.split(';').map(|part| if part.starts_with(RISKY) { format!("'{part}") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join(";").into()
}

/// Returns the text of a cell that has several names: a JSON list, because a name may contain any separator.
pub fn json_list(names: &[&str]) -> String {
    serde_json::to_string(names).expect("strings serialize")
}

/// Writes rows.
pub struct CsvWriter(Writer<Vec<u8>>);

impl CsvWriter {
    pub fn new() -> Self {
        Self(WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new()))
    }

    /// Appends a row.
    ///
    /// # Panics
    ///
    /// If it has another number of cells than those before.
    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item: Into<Cell<'a>>>) {
        let cells = cells.into_iter().map(|cell| cell.into().0);
        self.0.write_record(cells.map(|cell| cell.into_owned())).expect("memory accepts rows of equal length");
    }

    /// Returns the text.
    pub fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("memory accepts all bytes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::formula("=SUM(A1:A9)", "'=SUM(A1:A9)")]
    #[case::plus("+1", "'+1")]
    #[case::minus("-5+3", "'-5+3")]
    #[case::at("@SUM(A1)", "'@SUM(A1)")]
    #[case::full_width("\u{ff1d}1", "'\u{ff1d}1")]
    #[case::apostrophe("'a", "''a")]
    #[case::behind_a_semicolon("a;=1+1;b", "a;'=1+1;b")]
    #[case::twice("=1;'a", "'=1;''a")]
    #[case::within("a=b", "a=b")]
    #[case::plain("sports", "sports")]
    #[case::empty("", "")]
    fn disarm_escapes_what_begins_a_formula(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(disarm(text), expected);
    }

    /// Does what the documents tell programs to do.
    fn arm(cell: &str) -> String {
        cell.split(';').map(|part| part.strip_prefix('\'').unwrap_or(part)).collect::<Vec<_>>().join(";")
    }

    const EQUALS: char = '\u{ff1d}';

    proptest! {
        #[test]
        fn reader_gets_the_texts_back(rows in prop::collection::vec(prop::array::uniform2("[=+@'\",;a\r\n\t\u{e9}\u{ff1d}-]{0,6}"), 1..5)) {
            let mut writer = CsvWriter::new();
            for row in &rows {
                writer.row(row.iter().map(String::as_str));
            }
            let text = writer.finish();
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_slice());
            let read: Vec<_> = reader.records().map(|record| record.unwrap()).collect();
            prop_assert_eq!(read.len(), rows.len());
            for (cells, row) in read.iter().zip(&rows) {
                for (cell, text) in cells.iter().zip(row) {
                    prop_assert_eq!(&arm(cell), text);
                    prop_assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', EQUALS]));
                }
            }
        }
    }

    #[test]
    fn row_keeps_numbers_and_quotes_texts() {
        let mut writer = CsvWriter::new();
        writer.row(["segment", "count"]);
        writer.row([Cell::from("a,\"b\""), Cell::from(-217_i64)]);
        writer.row([Cell::from(-0.0233), Cell::from(None::<u64>)]);
        assert_eq!(
            String::from_utf8(writer.finish()).unwrap(),
            "segment,count\r\n\"a,\"\"b\"\"\",-217\r\n-0.0233,\r\n"
        );
    }
}
