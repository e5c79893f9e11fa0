//! Reads the input on a thread of its own, ahead of the delivery, and makes chunks of its records.

use std::cmp::Ordering;
use std::io::{self, Read as _};
use std::{fmt, thread};

use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh64::Xxh64;

use super::CsvFormat;
use super::chunk::{Chunk, Encoding};
use super::csv::{Record, Records};
use super::source::Source;
use super::state::{PastRun, Position};
use super::witnesses::Witnesses;
use crate::domain::visit_json::{self, RawVisit};
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

/// An event of the reading thread.
pub(super) enum ReaderEvent {
    /// The records of earlier runs were skipped. Some of their visits are the witnesses. This is the first event. The thread waits for the
    /// size of a chunk, in records.
    Skipped(Witnesses, oneshot::Sender<usize>),
    /// The input doesn't begin with the records of earlier runs. This is the first and last event.
    Differs,
    Chunk(Chunk),
    /// The end of the input, with a last record that lacks its line end. Such a record is cut off if the writer of a pipe is interrupted
    /// together with the import, or if the file is still growing. So it never counts as done.
    End(Option<Chunk>),
    /// Reading failed. This is the last event.
    Failed(String),
}

/// Reads `source` on a thread of its own. Skips the records up to `done`, which `runs` have imported. The thread waits until its chunks are
/// received, and ends when the receiver is dropped.
pub(super) fn read(
    source: Source,
    format: Format,
    encoding: Encoding,
    done: Position,
    runs: Vec<PastRun>,
) -> io::Result<mpsc::Receiver<ReaderEvent>> {
    let (sender, receiver) = mpsc::channel(1);
    let chunk = Chunk::new(&encoding);
    let read = ReadPosition { records: 0, text: Xxh64::new(0), ahead: Xxh64::new(0) };
    let witnesses = Some(Witnesses::new(runs, done.records));
    let reader = Reader { source, encoding, chunk_size: 0, done, witnesses, read, chunk, sender };
    // Not a thread of the runtime, which would wait at its end for a thread that waits for standard input.
    thread::Builder::new().name("import-reader".to_owned()).spawn(move || reader.run(format))?;
    Ok(receiver)
}

/// The receiver was dropped.
struct ReceiverDropped;

/// Why reading ended early.
enum ReadError {
    ReceiverDropped,
    Differs,
    Failed(String),
}

impl From<ReceiverDropped> for ReadError {
    fn from(_: ReceiverDropped) -> Self {
        Self::ReceiverDropped
    }
}

struct Reader {
    source: Source,
    encoding: Encoding,
    /// The number of records in a chunk.
    chunk_size: usize,
    /// The end of the records of earlier runs.
    done: Position,
    /// `None` after the records of earlier runs.
    witnesses: Option<Witnesses>,
    read: ReadPosition,
    chunk: Chunk,
    sender: mpsc::Sender<ReaderEvent>,
}

/// The position of a reader.
struct ReadPosition {
    records: u64,
    /// The hash of the text up to the end of the last record.
    text: Xxh64,
    /// The hash of the text that includes the beginning of the next record.
    ahead: Xxh64,
}

impl ReadPosition {
    /// Advances to the end of a record. `text` is the rest of that record.
    fn advance(&mut self, text: &[u8]) {
        self.ahead.update(text);
        self.text = self.ahead.clone();
        self.records += 1;
    }

    fn position(&self) -> Position {
        Position { records: self.records, text_hash: self.text.digest() }
    }
}

impl Reader {
    const BUFFER_BYTES: usize = 256 * 1024;

    fn run(mut self, format: Format) {
        let result = match format {
            Format::Ndjson => self.read_lines(),
            Format::Csv(format) => self.read_records(format),
        };
        let last_event = match result {
            Ok(()) => ReaderEvent::End(self.take_chunk()),
            Err(ReadError::ReceiverDropped) => return,
            Err(ReadError::Differs) => ReaderEvent::Differs,
            Err(ReadError::Failed(why)) => {
                // The records before the error are valid.
                let _ = self.send_chunk();
                ReaderEvent::Failed(why)
            }
        };
        let _ = self.sender.blocking_send(last_event);
    }

    fn read_lines(&mut self) -> Result<(), ReadError> {
        self.begin()?;
        let mut lines = Lines::new(Ingest::MAX_LINE_BYTES);
        let mut buffer = vec![0; Self::BUFFER_BYTES];
        loop {
            let mut piece = self.read_piece(&mut buffer)?;
            if piece.is_empty() {
                break;
            }
            let mut unread = piece;
            while let Some(line) = lines.next(&mut piece) {
                if self.advance(&mut unread, piece)? {
                    self.add_line(line.number, line.text);
                    self.send_full_chunk()?;
                } else {
                    self.skip(|| visit_json::read(line.text?).ok())?;
                }
            }
            self.read.ahead.update(unread);
        }
        self.end()?;
        if let Some(line) = lines.last() {
            self.add_line(line.number, line.text);
        }
        Ok(())
    }

    fn add_line(&mut self, number: u64, text: Option<&[u8]>) {
        match text {
            None => self.chunk.reject(LineError::too_long(number, Ingest::MAX_LINE_BYTES)),
            Some(text) if text.iter().all(u8::is_ascii_whitespace) => self.chunk.last_line = number,
            Some(text) => self.chunk.add(number, visit_json::read(text), &self.encoding),
        }
    }

    fn read_records(&mut self, format: CsvFormat) -> Result<(), ReadError> {
        self.begin()?;
        let mut records = Records::new(format);
        let mut buffer = vec![0; Self::BUFFER_BYTES];
        loop {
            let mut piece = self.read_piece(&mut buffer)?;
            if piece.is_empty() {
                break;
            }
            let mut unread = piece;
            while let Some((line, record)) = records.next(&mut piece).map_err(ReadError::Failed)? {
                if self.advance(&mut unread, piece)? {
                    self.add_record(line, record);
                    self.send_full_chunk()?;
                } else {
                    self.skip(|| if let Record::Visit(visit) = record { visit.ok() } else { None })?;
                }
            }
            self.read.ahead.update(unread);
        }
        self.end()?;
        if let Some((line, record)) = records.last().map_err(ReadError::Failed)? {
            self.add_record(line, record);
        }
        Ok(())
    }

    fn add_record(&mut self, line: u64, record: Record<'_>) {
        match record {
            Record::Header => {}
            Record::Invalid(error) => self.chunk.reject(error),
            Record::Visit(visit) => self.chunk.add(line, visit, &self.encoding),
        }
    }

    /// Begins reading. Without earlier runs there is nothing to skip.
    fn begin(&mut self) -> Result<(), ReceiverDropped> {
        if self.done.records == 0 { self.finish_skipping() } else { Ok(()) }
    }

    /// Advances over the record, or the rest of one, at the front of `unread`. `rest` follows it. Returns whether the record is new.
    fn advance(&mut self, unread: &mut &[u8], rest: &[u8]) -> Result<bool, ReadError> {
        let (record, _) = unread.split_at(unread.len() - rest.len());
        *unread = &unread[record.len()..];
        self.read.advance(record);
        match self.read.records.cmp(&self.done.records) {
            Ordering::Equal if self.read.position() != self.done => Err(ReadError::Differs),
            Ordering::Less | Ordering::Equal => Ok(false),
            Ordering::Greater => Ok(true),
        }
    }

    /// Skips a record of an earlier run, and offers its visit as a witness. `visit` is called for a few of the records.
    fn skip<'a>(&mut self, visit: impl FnOnce() -> Option<RawVisit<'a>>) -> Result<(), ReceiverDropped> {
        if let Encoding::Batch(clock, window) = &self.encoding
            && let Some(witnesses) = &mut self.witnesses
            && witnesses.is_next()
            && let Some(visit) = visit()
        {
            witnesses.offer(visit, window.cutoff(clock.now()));
        }
        if self.read.records < self.done.records { Ok(()) } else { self.finish_skipping() }
    }

    /// Reports that the records of earlier runs are skipped, and waits until reading may continue.
    fn finish_skipping(&mut self) -> Result<(), ReceiverDropped> {
        let (start, started) = oneshot::channel();
        let witnesses = self.witnesses.take().expect("skipping finishes once");
        self.send(ReaderEvent::Skipped(witnesses, start))?;
        self.chunk_size = started.blocking_recv().map_err(|_| ReceiverDropped)?;
        Ok(())
    }

    /// Ends reading, after all records with a line end.
    fn end(&mut self) -> Result<(), ReadError> {
        if self.read.records < self.done.records {
            return Err(ReadError::Differs);
        }
        Ok(self.send_chunk()?)
    }

    fn read_piece<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a [u8], ReadError> {
        loop {
            match self.source.read(buffer) {
                Ok(read) => return Ok(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Failed(error.to_string())),
            }
        }
    }

    fn send_full_chunk(&mut self) -> Result<(), ReceiverDropped> {
        if self.chunk.records() >= self.chunk_size { self.send_chunk() } else { Ok(()) }
    }

    fn send_chunk(&mut self) -> Result<(), ReceiverDropped> {
        self.take_chunk().map_or(Ok(()), |chunk| self.send(ReaderEvent::Chunk(chunk)))
    }

    fn send(&self, event: ReaderEvent) -> Result<(), ReceiverDropped> {
        self.sender.blocking_send(event).map_err(|_| ReceiverDropped)
    }

    /// Returns the records since the last chunk, if there are any.
    fn take_chunk(&mut self) -> Option<Chunk> {
        if self.chunk.last_line == 0 {
            return None;
        }
        let mut chunk = std::mem::replace(&mut self.chunk, Chunk::new(&self.encoding));
        chunk.end = self.read.position();
        chunk.bytes_read = self.source.compressed_bytes_read();
        Some(chunk)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::commands::import::chunk::EncodedVisits;

    fn csv(has_header: bool) -> Format {
        Format::Csv(CsvFormat { delimiter: b',', has_header, columns: Vec::new(), seen_at_now: false })
    }

    /// A file that returns at most so many bytes at a time.
    struct Pieces(io::Cursor<Vec<u8>>, usize);

    impl io::Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.1.min(buffer.len());
            self.0.read(&mut buffer[..size])
        }
    }

    /// The events of a reader.
    #[derive(Debug, Default)]
    struct Outcome {
        /// For each chunk the visits and errors with their lines, and the end.
        chunks: Vec<(Vec<(u64, String)>, Position)>,
        /// Whether the last chunk holds a record without its line end.
        has_rest: bool,
        differs: bool,
        failure: Option<String>,
    }

    impl Outcome {
        fn records(&self, first_chunk: usize) -> Vec<(u64, String)> {
            self.chunks[first_chunk..].iter().flat_map(|(records, _)| records.clone()).collect()
        }
    }

    fn read_all(file: &[u8], format: &Format, piece: usize, size: usize, done: Position) -> Outcome {
        let source = match Source::new(Pieces(io::Cursor::new(file.to_vec()), piece), None) {
            Ok(source) => source,
            Err(error) => return Outcome { failure: Some(error.to_string()), ..Outcome::default() },
        };
        let mut events = read(source, format.clone(), Encoding::Lines, done, Vec::new()).unwrap();
        let mut outcome = Outcome::default();
        let mut keep = |chunk: Chunk| {
            let EncodedVisits::Lines(text) = chunk.visits else { panic!("the encoding is lines") };
            let text = String::from_utf8(text).unwrap();
            let mut records: Vec<_> = chunk.lines.into_iter().zip(text.lines().map(str::to_owned)).collect();
            records.extend(chunk.errors.into_iter().map(|error| (error.line, error.detail)));
            records.sort();
            outcome.chunks.push((records, chunk.end));
        };
        match events.blocking_recv() {
            Some(ReaderEvent::Skipped(_, start)) => start.send(size).unwrap(),
            Some(ReaderEvent::Differs) => return Outcome { differs: true, ..outcome },
            Some(ReaderEvent::Failed(why)) => return Outcome { failure: Some(why), ..outcome },
            _ => panic!("the first event must be Skipped, Differs or Failed"),
        }
        loop {
            match events.blocking_recv() {
                Some(ReaderEvent::Chunk(chunk)) => keep(chunk),
                Some(ReaderEvent::End(rest)) => {
                    let has_rest = rest.map(keep).is_some();
                    return Outcome { has_rest, ..outcome };
                }
                Some(ReaderEvent::Failed(why)) => return Outcome { failure: Some(why), ..outcome },
                _ => panic!("the last event must be End or Failed"),
            }
        }
    }

    /// Compresses `text` in several parts that end at `cuts`.
    fn compress(text: &[u8], compression: Compression, cuts: &[prop::sample::Index]) -> Vec<u8> {
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let parts = ends.windows(2).map(|ends| &text[ends[0]..ends[1]]);
        match compression {
            Compression::None => text.to_vec(),
            Compression::Gzip => parts.flat_map(gzip).collect(),
            Compression::Zstd => parts
                .flat_map(|part| {
                    let skippable = [0x5A, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 0];
                    [&skippable[..], &zstd::encode_all(part, 1).unwrap()].concat()
                })
                .collect(),
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[derive(Debug, Clone, Copy)]
    enum Compression {
        None,
        Gzip,
        Zstd,
    }

    fn any_compression() -> impl Strategy<Value = Compression> {
        prop_oneof![Just(Compression::None), Just(Compression::Gzip), Just(Compression::Zstd)]
    }

    /// Joins records with their line ends. The last one has its line end if `is_ended`.
    fn join(records: Vec<(String, &'static str)>, is_ended: bool) -> String {
        let mut text: String = records.iter().flat_map(|(record, end)| [record.as_str(), end]).collect();
        if let Some((_, end)) = records.last()
            && !is_ended
        {
            text.truncate(text.len() - end.len());
        }
        text
    }

    fn csv_text(has_header: bool) -> impl Strategy<Value = String> {
        let end = || prop_oneof![Just("\n"), Just("\r\n"), Just("\r"), Just("\r\r\n\n")];
        let record = prop_oneof![
            4 => "u[0-9]{1,3},s[0-3]",
            1 => "\"u[,\r\n]{0,3}[0-9]\",\"s[0-3]\"",
            1 => "\u{feff}u[0-9],s[0-3]",
            1 => "u[0-9](,s){0,2}",
            1 => "\"u\"\"[0-9]\",s",
        ];
        (end(), prop::collection::vec((record, end()), 1..12), any::<bool>()).prop_map(
            move |(end, records, is_ended)| {
                let first = if has_header { "user_id,segment" } else { "first,s" };
                format!("{first}{end}") + &join(records, is_ended)
            },
        )
    }

    fn ndjson_text() -> impl Strategy<Value = String> {
        let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")];
        let record = prop_oneof![
            4 => "\\{\"user_id\":\"u[0-9]{1,3}\",\"segment\":\"s[0-3]\"\\}",
            1 => "\\{\"user_id\":\"u[0-9]\",\r\"segment\":\"s[0-3]\"\\}",
            1 => "[{}x ]{0,3}",
        ];
        (prop::collection::vec((record, end), 1..12), any::<bool>())
            .prop_map(|(records, is_ended)| join(records, is_ended))
    }

    fn any_file() -> impl Strategy<Value = (Format, String)> {
        prop_oneof![
            csv_text(true).prop_map(|text| (csv(true), text)),
            csv_text(false).prop_map(|text| (csv(false), text)),
            ndjson_text().prop_map(|text| (Format::Ndjson, text)),
        ]
    }

    // `PROPTEST_CASES=100000 cargo test --lib import` runs more cases.
    proptest! {
        #[test]
        fn read_resumes_at_any_record_of_any_file(
            (format, text) in any_file(),
            compression in any_compression(),
            later_compression in any_compression(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            pieces in (1..40_usize, 1..40_usize),
            size in 1..4_usize,
        ) {
            let file = compress(text.as_bytes(), compression, &cuts);
            let all = read_all(&file, &format, pieces.0, 1, Position::default());
            prop_assert!(all.failure.is_none(), "{:?}", all);
            // The file may be compressed in another way in the meantime.
            let file = compress(text.as_bytes(), later_compression, &cuts[..cuts.len() / 2]);
            for (chunk, (_, end)) in all.chunks.iter().enumerate() {
                let rest = read_all(&file, &format, pieces.1, size, *end);
                prop_assert!(rest.failure.is_none() && !rest.differs, "after chunk {}: {:?}", chunk, rest);
                let is_whole = !all.has_rest || chunk + 1 < all.chunks.len();
                prop_assert_eq!(rest.records(0), all.records(chunk + usize::from(is_whole)), "after chunk {}", chunk);
            }
        }
    }

    /// Returns the position after 4 of 6 records, including the header.
    fn done_of(text: &str) -> Position {
        read_all(text.as_bytes(), &csv(true), 100, 1, Position::default()).chunks[2].1
    }

    const TEXT: &str = "user_id,segment\nu1,s\nu2,s\nu3,s\nu4,s\nu5,s\n";

    #[rstest]
    #[case::another_user("user_id,segment\nu1,s\nux,s\nu3,s\nu4,s\nu5,s\n")]
    #[case::other_line_ends("user_id,segment\r\nu1,s\r\nu2,s\r\nu3,s\r\nu4,s\r\nu5,s\r\n")]
    #[case::record_removed("user_id,segment\nu2,s\nu3,s\nu4,s\nu5,s\n")]
    #[case::record_added("user_id,segment\nu0,s\nu1,s\nu2,s\nu3,s\nu4,s\nu5,s\n")]
    #[case::fewer_records_than_done("user_id,segment\nu1,s\nu2,s\n")]
    #[case::last_record_without_line_end("user_id,segment\nu1,s\nu2,s\nu3,s")]
    #[case::empty("")]
    fn read_refuses_a_file_that_begins_differently(#[case] text: &str) {
        for size in [1, 3, 100] {
            let outcome = read_all(text.as_bytes(), &csv(true), size, 10, done_of(TEXT));
            assert!(outcome.differs && outcome.chunks.is_empty(), "{outcome:?}");
        }
    }

    #[rstest]
    #[case::unchanged(TEXT, &[5, 6])]
    #[case::grown("user_id,segment\nu1,s\nu2,s\nu3,s\nu4,s\nu5,s\nu6,s\n", &[5, 6, 7])]
    #[case::no_further_records("user_id,segment\nu1,s\nu2,s\nu3,s\n", &[])]
    #[case::edited_after_the_done_records("user_id,segment\nu1,s\nu2,s\nu3,s\nu9,s\n", &[5])]
    fn read_resumes_a_file_with_the_same_beginning(#[case] text: &str, #[case] lines: &[u64]) {
        let outcome = read_all(text.as_bytes(), &csv(true), 100, 10, done_of(TEXT));
        assert!(!outcome.differs && outcome.failure.is_none());
        assert_eq!(outcome.records(0).iter().map(|(line, _)| *line).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn read_never_counts_a_record_without_line_end_as_done() {
        let beginning = "user_id,segment\nu1,s\nu2,sp";
        let all = read_all(beginning.as_bytes(), &csv(true), 100, 10, Position::default());
        let [(first, end), (last, last_end)] = &all.chunks[..] else { panic!("{all:?}") };
        assert_eq!((first.len(), last.len(), end), (1, 1, last_end));
        let grown = read_all(format!("{beginning}orts\n").as_bytes(), &csv(true), 100, 10, *last_end);
        assert_eq!(grown.records(0), [(3, "{\"user_id\":\"u2\",\"segment\":\"sports\"}".to_owned())]);
    }
}
