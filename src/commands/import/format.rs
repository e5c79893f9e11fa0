//! The format of the input, and its records.

use std::fmt;

use super::chunk::{Chunk, Encoding};
use super::csv::{CsvFormat, CsvRecord, CsvRecords};
use crate::domain::visit_json::{self, RawVisits};
use crate::ingest::{Ingest, LineError, Lines};

/// The format of the input.
#[derive(Debug, Clone)]
pub enum Format {
    /// A visit in JSON on each line.
    Ndjson,
    /// A visit in each record of CSV.
    Csv(CsvFormat),
}

/// Writes the options of the command. Equal texts mean equal formats.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ndjson => f.write_str("ndjson"),
            Self::Csv(format) => format.fmt(f),
        }
    }
}

/// Splits a text that arrives in pieces into records. Holds at most one record.
pub(super) enum Records {
    Ndjson(Lines),
    Csv(Box<CsvRecords>),
}

/// A record of the input: a line of NDJSON, which is not parsed yet, or a record of CSV.
pub(super) enum Record<'a> {
    Ndjson {
        line: u64,
        /// `None` if the line is too long.
        text: Option<&'a [u8]>,
    },
    Csv {
        /// The line on which the record begins.
        line: u64,
        record: CsvRecord<'a>,
    },
}

impl Records {
    pub(super) fn new(format: Format) -> Self {
        match format {
            Format::Ndjson => Self::Ndjson(Lines::new(Ingest::MAX_LINE_BYTES)),
            Format::Csv(format) => Self::Csv(Box::new(CsvRecords::new(format))),
        }
    }

    /// Removes the next record from the front of `piece`. Without a complete record, consumes all of `piece`, and a
    /// later call returns the record.
    ///
    /// # Errors
    ///
    /// The mistake in the header of CSV, in one line.
    pub(super) fn next<'a, 'p: 'a>(&'a mut self, piece: &mut &'p [u8]) -> Result<Option<Record<'a>>, String> {
        Ok(match self {
            Self::Ndjson(lines) => lines.next(piece).map(|line| Record::Ndjson { line: line.number, text: line.text }),
            Self::Csv(records) => records.next(piece)?.map(|(line, record)| Record::Csv { line, record }),
        })
    }

    /// Returns the last record, if the text ended without a line end.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub(super) fn last(&mut self) -> Result<Option<Record<'_>>, String> {
        Ok(match self {
            Self::Ndjson(lines) => lines.last().map(|line| Record::Ndjson { line: line.number, text: line.text }),
            Self::Csv(records) => records.last()?.map(|(line, record)| Record::Csv { line, record }),
        })
    }
}

impl<'a> Record<'a> {
    /// Returns the visits, if the record is valid.
    pub(super) fn visits(self) -> Option<RawVisits<'a>> {
        match self {
            Self::Ndjson { text, .. } => visit_json::read(text?).ok(),
            Self::Csv { record: CsvRecord::Visit(visit), .. } => visit.ok(),
            Self::Csv { .. } => None,
        }
    }

    /// Adds the record to `chunk`: its visits, or its error. Only counts the line if it is blank.
    pub(super) fn add_to(self, chunk: &mut Chunk, encoding: &Encoding) {
        match self {
            Self::Ndjson { line, text: None } => chunk.reject(LineError::too_long(line, Ingest::MAX_LINE_BYTES)),
            Self::Ndjson { line, text: Some(text) } if text.iter().all(u8::is_ascii_whitespace) => {
                chunk.last_line = line;
            }
            Self::Ndjson { line, text: Some(text) } => chunk.add(line, visit_json::read(text), encoding),
            Self::Csv { line, record: CsvRecord::Visit(visit) } => chunk.add(line, visit, encoding),
            Self::Csv { record: CsvRecord::Invalid(error), .. } => chunk.reject(error),
            Self::Csv { record: CsvRecord::Header, .. } => {}
        }
    }
}
