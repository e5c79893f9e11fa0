//! What is read, cut into chunks that are delivered as a whole. It is read on a thread of its own, ahead of the delivery.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io::{self, Read as _};
use std::{fmt, thread};

use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh64::Xxh64;

use super::CsvForm;
use super::csv::{Record, Records};
use super::source::Source;
use super::state::{PastRun, Position};
use super::witnesses::Witnesses;
use crate::domain::Window;
use crate::domain::visit_json::{self, RawVisit, VisitError};
use crate::estimator::clock::Clock;
use crate::ingest::{Ingest, LineError, Lines};
use crate::store::Batch;

/// How the lines of a source are to be read.
#[derive(Debug, Clone)]
pub enum Form {
    /// A visit in JSON on each.
    Ndjson,
    /// Records of fields.
    Csv(CsvForm),
}

/// The options of the command, so that two forms are equal if and only if these texts are.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ndjson => f.write_str("ndjson"),
            Self::Csv(form) => form.fmt(f),
        }
    }
}

/// What the visits are made ready for.
#[derive(Debug, Clone)]
pub(super) enum For {
    /// For Redis, by this clock and for this window.
    Redis(Clock, Window),
    /// For a service, which has a clock and a window of its own.
    Service,
}

/// Consecutive lines.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) visits: Visits,
    /// The line of each visit.
    pub(super) lines: Vec<u64>,
    /// Those of them whose visits have no time of their own, in order.
    pub(super) undated: Vec<u64>,
    /// Visits that have expired, and are not delivered.
    pub(super) expired: u64,
    /// Lines that are no visit.
    pub(super) rejected: u64,
    /// What is wrong with them.
    pub(super) errors: Vec<LineError>,
    /// The line that the last record begins on, a visit or not.
    pub(super) last_line: u64,
    /// The end of the last record.
    pub(super) end: Position,
    /// How much of the file was read until then, in bytes.
    pub(super) bytes_read: u64,
}

/// The visits of a chunk, ready to be sent any number of times.
#[derive(Debug)]
pub(super) enum Visits {
    Batch(Batch),
    Lines(Vec<u8>),
}

/// What the thread that reads has to say.
pub(super) enum Read {
    /// What was done before is passed over, and these visits are some of it. This comes first, and once. Reading goes on when it is given
    /// the size of a chunk in records.
    Resumed(Witnesses, oneshot::Sender<usize>),
    /// What was done before is not how this source begins. This comes first, and is all.
    Differs,
    Chunk(Chunk),
    /// There are no more but this one, of a last line that has no end; without this word the thread has not come to the end. When
    /// who writes into a pipe is interrupted together with us, such a line is cut, and must not pass for done. Nor may it when the
    /// file grows.
    End(Option<Chunk>),
    /// The source can't be read on, for this reason.
    Failed(String),
}

/// Reads `source` on a thread of its own, from the position `done` on, which `runs` came to. It waits when nobody takes the chunks, and
/// ends when nobody will.
pub(super) fn read(
    source: Source,
    form: Form,
    purpose: For,
    done: Position,
    runs: Vec<PastRun>,
) -> io::Result<mpsc::Receiver<Read>> {
    let (sender, receiver) = mpsc::channel(1);
    let chunk = Chunk::empty(&purpose);
    let read = Passed { records: 0, text: Xxh64::new(0), ahead: Xxh64::new(0) };
    let witnesses = Some(Witnesses::new(runs, done.records));
    let reading = Reading { source, purpose, size: 0, done, witnesses, read, chunk, sender };
    // A thread that the runtime doesn't know: at the end, nobody waits for one that waits for standard input.
    thread::Builder::new().name("import-reader".to_owned()).spawn(move || reading.run(form))?;
    Ok(receiver)
}

/// Nobody wants the rest.
struct Unwanted;

/// Why reading ended before the end.
enum Cut {
    Unwanted,
    Differs,
    Failed(String),
}

impl From<Unwanted> for Cut {
    fn from(_: Unwanted) -> Self {
        Self::Unwanted
    }
}

struct Reading {
    source: Source,
    purpose: For,
    /// Records of a chunk.
    size: usize,
    /// Where an earlier run ended.
    done: Position,
    /// Some of what is done, until it is passed over.
    witnesses: Option<Witnesses>,
    /// What was read so far.
    read: Passed,
    chunk: Chunk,
    sender: mpsc::Sender<Read>,
}

/// The records that were read.
struct Passed {
    records: u64,
    /// Hashes the text up to the end of the last of them.
    text: Xxh64,
    /// Hashes the beginning of the next as well.
    ahead: Xxh64,
}

impl Passed {
    /// A record ends with `text`.
    fn pass(&mut self, text: &[u8]) {
        self.ahead.update(text);
        self.text = self.ahead.clone();
        self.records += 1;
    }

    fn position(&self) -> Position {
        Position { records: self.records, text_hash: self.text.digest() }
    }
}

impl Reading {
    /// How many bytes are read at once.
    const PIECE: usize = 256 * 1024;

    fn run(mut self, form: Form) {
        let outcome = match form {
            Form::Ndjson => self.read_lines(),
            Form::Csv(form) => self.read_records(form),
        };
        let last_word = match outcome {
            Ok(()) => Read::End(self.take_chunk()),
            Err(Cut::Unwanted) => return,
            Err(Cut::Differs) => Read::Differs,
            Err(Cut::Failed(why)) => {
                // What came before is good.
                let _ = self.send();
                Read::Failed(why)
            }
        };
        let _ = self.sender.blocking_send(last_word);
    }

    fn read_lines(&mut self) -> Result<(), Cut> {
        self.begin()?;
        let mut lines = Lines::new(Ingest::MAX_LINE_BYTES);
        let mut buffer = vec![0; Self::PIECE];
        loop {
            let mut piece = self.read_piece(&mut buffer)?;
            if piece.is_empty() {
                break;
            }
            let mut unread = piece;
            while let Some(line) = lines.next(&mut piece) {
                if self.pass(&mut unread, piece)? {
                    self.take_line(line.number, line.text);
                    self.send_if_full()?;
                } else {
                    self.take_done(|| visit_json::read(line.text?).ok())?;
                }
            }
            self.read.ahead.update(unread);
        }
        self.end()?;
        if let Some(line) = lines.last() {
            self.take_line(line.number, line.text);
        }
        Ok(())
    }

    fn take_line(&mut self, number: u64, text: Option<&[u8]>) {
        match text {
            None => self.chunk.reject(LineError::too_long(number, Ingest::MAX_LINE_BYTES)),
            Some(text) if text.iter().all(u8::is_ascii_whitespace) => self.chunk.last_line = number,
            Some(text) => self.chunk.take(number, visit_json::read(text), &self.purpose),
        }
    }

    fn read_records(&mut self, form: CsvForm) -> Result<(), Cut> {
        self.begin()?;
        let mut records = Records::new(form);
        let mut buffer = vec![0; Self::PIECE];
        loop {
            let mut piece = self.read_piece(&mut buffer)?;
            if piece.is_empty() {
                break;
            }
            let mut unread = piece;
            while let Some((line, record)) = records.next(&mut piece).map_err(Cut::Failed)? {
                if self.pass(&mut unread, piece)? {
                    self.take_record(line, record);
                    self.send_if_full()?;
                } else {
                    self.take_done(|| if let Record::Visit(visit) = record { visit.ok() } else { None })?;
                }
            }
            self.read.ahead.update(unread);
        }
        self.end()?;
        if let Some((line, record)) = records.last().map_err(Cut::Failed)? {
            self.take_record(line, record);
        }
        Ok(())
    }

    fn take_record(&mut self, line: u64, record: Record<'_>) {
        match record {
            Record::Header => {}
            Record::Bad(error) => self.chunk.reject(error),
            Record::Visit(visit) => self.chunk.take(line, visit, &self.purpose),
        }
    }

    /// Nothing has been read. If nothing was done before either, there is nothing to pass over.
    fn begin(&mut self) -> Result<(), Unwanted> {
        if self.done.records == 0 { self.end_of_done() } else { Ok(()) }
    }

    /// Passes over the record, or the end of one, that `unread` begins with; `rest` follows it. Returns whether the record is new: no
    /// earlier run has dealt with it.
    fn pass(&mut self, unread: &mut &[u8], rest: &[u8]) -> Result<bool, Cut> {
        let (record, _) = unread.split_at(unread.len() - rest.len());
        *unread = &unread[record.len()..];
        self.read.pass(record);
        match self.read.records.cmp(&self.done.records) {
            Ordering::Equal if self.read.position() != self.done => Err(Cut::Differs),
            Ordering::Less | Ordering::Equal => Ok(false),
            Ordering::Greater => Ok(true),
        }
    }

    /// Takes a record that an earlier run has dealt with. Few of them are read for their visits.
    fn take_done<'a>(&mut self, visit: impl FnOnce() -> Option<RawVisit<'a>>) -> Result<(), Unwanted> {
        if let For::Redis(clock, window) = &self.purpose
            && let Some(witnesses) = &mut self.witnesses
            && witnesses.is_next()
            && let Some(visit) = visit()
        {
            witnesses.offer(visit, window.cutoff(clock.now()));
        }
        if self.read.records < self.done.records { Ok(()) } else { self.end_of_done() }
    }

    /// Says that what was done is passed over, and waits until reading may go on.
    fn end_of_done(&mut self) -> Result<(), Unwanted> {
        let (start, started) = oneshot::channel();
        let witnesses = self.witnesses.take().expect("this comes once");
        self.say(Read::Resumed(witnesses, start))?;
        self.size = started.blocking_recv().map_err(|_| Unwanted)?;
        Ok(())
    }

    /// All whole records have been read.
    fn end(&mut self) -> Result<(), Cut> {
        if self.read.records < self.done.records {
            return Err(Cut::Differs);
        }
        Ok(self.send()?)
    }

    fn read_piece<'a>(&mut self, buffer: &'a mut [u8]) -> Result<&'a [u8], Cut> {
        loop {
            match self.source.read(buffer) {
                Ok(read) => return Ok(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Cut::Failed(error.to_string())),
            }
        }
    }

    fn send_if_full(&mut self) -> Result<(), Unwanted> {
        if self.chunk.records() >= self.size { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Unwanted> {
        self.take_chunk().map_or(Ok(()), |chunk| self.say(Read::Chunk(chunk)))
    }

    fn say(&self, word: Read) -> Result<(), Unwanted> {
        self.sender.blocking_send(word).map_err(|_| Unwanted)
    }

    /// What was read since the last chunk, if anything was.
    fn take_chunk(&mut self) -> Option<Chunk> {
        if self.chunk.last_line == 0 {
            return None;
        }
        let mut chunk = std::mem::replace(&mut self.chunk, Chunk::empty(&self.purpose));
        chunk.end = self.read.position();
        chunk.bytes_read = self.source.packed_bytes_read();
        Some(chunk)
    }
}

impl Chunk {
    fn empty(purpose: &For) -> Self {
        let visits = match purpose {
            For::Redis(..) => Visits::Batch(Batch::default()),
            For::Service => Visits::Lines(Vec::new()),
        };
        let (lines, undated, errors) = (Vec::new(), Vec::new(), Vec::new());
        let end = Position::default();
        Self { visits, lines, undated, expired: 0, rejected: 0, errors, last_line: 0, end, bytes_read: 0 }
    }

    /// How many records it is of.
    pub(super) fn records(&self) -> usize {
        self.lines.len() + (self.expired + self.rejected) as usize
    }

    /// Returns how many visits without a time were accepted if `errors` are those of the visits that were not. Such a visit never expires.
    pub(super) fn undated_without(&self, errors: &[LineError]) -> u64 {
        let rejected: HashSet<u64> = errors.iter().map(|error| error.line).collect();
        self.undated.iter().filter(|line| !rejected.contains(line)).count() as u64
    }

    fn reject(&mut self, error: LineError) {
        self.last_line = error.line;
        self.rejected += 1;
        self.errors.push(error);
    }

    fn take(&mut self, line: u64, visit: Result<RawVisit<'_>, VisitError>, purpose: &For) {
        self.last_line = line;
        if let Err(error) = visit.and_then(|visit| self.add(line, visit, purpose)) {
            self.rejected += 1;
            self.errors.extend(LineError::all_of(line, error));
        }
    }

    fn add(&mut self, line: u64, visit: RawVisit<'_>, purpose: &For) -> Result<(), VisitError> {
        let is_undated = visit.seen_at.is_none();
        match (&mut self.visits, purpose) {
            (Visits::Batch(batch), For::Redis(clock, window)) => {
                let now = clock.now();
                let visit = visit.at(now)?;
                if visit.seen_at <= window.cutoff(now) {
                    self.expired += 1;
                    return Ok(());
                }
                batch.add(&visit);
            }
            (Visits::Lines(text), _) => visit.write_line(text).expect("memory can be written"),
            (Visits::Batch(_), For::Service) => unreachable!("a chunk is made for its purpose"),
        }
        self.lines.push(line);
        self.undated.extend(is_undated.then_some(line));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn csv(has_header: bool) -> Form {
        Form::Csv(CsvForm { delimiter: b',', has_header, columns: Vec::new(), seen_at_now: false })
    }

    /// A file that gives at most so many bytes at a time.
    struct Pieces(io::Cursor<Vec<u8>>, usize);

    impl io::Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let size = self.1.min(buffer.len());
            self.0.read(&mut buffer[..size])
        }
    }

    /// What a run reads from `done` on, and how it ends.
    #[derive(Debug, Default)]
    struct Outcome {
        /// For each chunk the visits and what is wrong, each with its line, and the end.
        chunks: Vec<(Vec<(u64, String)>, Position)>,
        /// Whether the last chunk is of a record without its end.
        has_rest: bool,
        differs: bool,
        failure: Option<String>,
    }

    impl Outcome {
        fn records(&self, first_chunk: usize) -> Vec<(u64, String)> {
            self.chunks[first_chunk..].iter().flat_map(|(records, _)| records.clone()).collect()
        }
    }

    fn outcome(file: &[u8], form: &Form, piece: usize, size: usize, done: Position) -> Outcome {
        let source = match Source::new(Pieces(io::Cursor::new(file.to_vec()), piece), None) {
            Ok(source) => source,
            Err(error) => return Outcome { failure: Some(error.to_string()), ..Outcome::default() },
        };
        let mut words = read(source, form.clone(), For::Service, done, Vec::new()).unwrap();
        let mut outcome = Outcome::default();
        let mut keep = |chunk: Chunk| {
            let Visits::Lines(text) = chunk.visits else { panic!("a chunk for a service has lines") };
            let text = String::from_utf8(text).unwrap();
            let mut records: Vec<_> = chunk.lines.into_iter().zip(text.lines().map(str::to_owned)).collect();
            records.extend(chunk.errors.into_iter().map(|error| (error.line, error.detail)));
            records.sort();
            outcome.chunks.push((records, chunk.end));
        };
        match words.blocking_recv() {
            Some(Read::Resumed(_, start)) => start.send(size).unwrap(),
            Some(Read::Differs) => return Outcome { differs: true, ..outcome },
            Some(Read::Failed(why)) => return Outcome { failure: Some(why), ..outcome },
            _ => panic!("it isn't said first whether it can go on"),
        }
        loop {
            match words.blocking_recv() {
                Some(Read::Chunk(chunk)) => keep(chunk),
                Some(Read::End(rest)) => {
                    let has_rest = rest.map(keep).is_some();
                    return Outcome { has_rest, ..outcome };
                }
                Some(Read::Failed(why)) => return Outcome { failure: Some(why), ..outcome },
                _ => panic!("it is over without a word"),
            }
        }
    }

    /// `text` as a file, packed in several parts that end at `cuts`.
    fn packed(text: &[u8], packing: Packing, cuts: &[prop::sample::Index]) -> Vec<u8> {
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let parts = ends.windows(2).map(|ends| &text[ends[0]..ends[1]]);
        match packing {
            Packing::None => text.to_vec(),
            Packing::Gzip => parts.flat_map(gzip).collect(),
            Packing::Zstd => parts
                .flat_map(|part| {
                    let skippable = [0x5A, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 0];
                    [&skippable[..], &zstd::encode_all(part, 1).unwrap()].concat()
                })
                .collect(),
        }
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    #[derive(Debug, Clone, Copy)]
    enum Packing {
        None,
        Gzip,
        Zstd,
    }

    fn any_packing() -> impl Strategy<Value = Packing> {
        prop_oneof![Just(Packing::None), Just(Packing::Gzip), Just(Packing::Zstd)]
    }

    /// Records with what they end with, and whether the last one has its end.
    fn file_of(records: Vec<(String, &'static str)>, is_ended: bool) -> String {
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
                format!("{first}{end}") + &file_of(records, is_ended)
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
            .prop_map(|(records, is_ended)| file_of(records, is_ended))
    }

    fn any_file() -> impl Strategy<Value = (Form, String)> {
        prop_oneof![
            csv_text(true).prop_map(|text| (csv(true), text)),
            csv_text(false).prop_map(|text| (csv(false), text)),
            ndjson_text().prop_map(|text| (Form::Ndjson, text)),
        ]
    }

    // `PROPTEST_CASES=100000 cargo test --lib import` looks for longer.
    proptest! {
        #[test]
        fn read_resumes_at_any_record_of_any_file(
            (form, text) in any_file(),
            packing in any_packing(),
            packing_then in any_packing(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            pieces in (1..40_usize, 1..40_usize),
            size in 1..4_usize,
        ) {
            let file = packed(text.as_bytes(), packing, &cuts);
            let all = outcome(&file, &form, pieces.0, 1, Position::default());
            prop_assert!(all.failure.is_none(), "{:?}", all);
            // It may be packed in another way by then.
            let file = packed(text.as_bytes(), packing_then, &cuts[..cuts.len() / 2]);
            for (chunk, (_, end)) in all.chunks.iter().enumerate() {
                let rest = outcome(&file, &form, pieces.1, size, *end);
                prop_assert!(rest.failure.is_none() && !rest.differs, "after chunk {}: {:?}", chunk, rest);
                let is_whole = !all.has_rest || chunk + 1 < all.chunks.len();
                prop_assert_eq!(rest.records(0), all.records(chunk + usize::from(is_whole)), "after chunk {}", chunk);
            }
        }
    }

    /// The first 4 of 6 records, the header counted, are done.
    fn done_of(text: &str) -> Position {
        outcome(text.as_bytes(), &csv(true), 100, 1, Position::default()).chunks[2].1
    }

    const TEXT: &str = "user_id,segment\nu1,s\nu2,s\nu3,s\nu4,s\nu5,s\n";

    #[rstest]
    #[case::another_user("user_id,segment\nu1,s\nux,s\nu3,s\nu4,s\nu5,s\n")]
    #[case::other_line_ends("user_id,segment\r\nu1,s\r\nu2,s\r\nu3,s\r\nu4,s\r\nu5,s\r\n")]
    #[case::a_record_less("user_id,segment\nu2,s\nu3,s\nu4,s\nu5,s\n")]
    #[case::a_record_more("user_id,segment\nu0,s\nu1,s\nu2,s\nu3,s\nu4,s\nu5,s\n")]
    #[case::shorter_than_what_was_done("user_id,segment\nu1,s\nu2,s\n")]
    #[case::no_end_of_the_last_record("user_id,segment\nu1,s\nu2,s\nu3,s")]
    #[case::nothing("")]
    fn read_refuses_a_file_that_begins_differently(#[case] text: &str) {
        for size in [1, 3, 100] {
            let outcome = outcome(text.as_bytes(), &csv(true), size, 10, done_of(TEXT));
            assert!(outcome.differs && outcome.chunks.is_empty(), "{outcome:?}");
        }
    }

    #[rstest]
    #[case::as_it_was(TEXT, &[5, 6])]
    #[case::grown("user_id,segment\nu1,s\nu2,s\nu3,s\nu4,s\nu5,s\nu6,s\n", &[5, 6, 7])]
    #[case::nothing_more("user_id,segment\nu1,s\nu2,s\nu3,s\n", &[])]
    #[case::corrected_where_nothing_was_done("user_id,segment\nu1,s\nu2,s\nu3,s\nu9,s\n", &[5])]
    fn read_resumes_a_file_that_begins_alike(#[case] text: &str, #[case] lines: &[u64]) {
        let outcome = outcome(text.as_bytes(), &csv(true), 100, 10, done_of(TEXT));
        assert!(!outcome.differs && outcome.failure.is_none());
        assert_eq!(outcome.records(0).iter().map(|(line, _)| *line).collect::<Vec<_>>(), lines);
    }

    #[test]
    fn read_does_not_count_a_record_without_its_end_as_done() {
        let begun = "user_id,segment\nu1,s\nu2,sp";
        let all = outcome(begun.as_bytes(), &csv(true), 100, 10, Position::default());
        let [(first, end), (last, last_end)] = &all.chunks[..] else { panic!("{all:?}") };
        assert_eq!((first.len(), last.len(), end), (1, 1, last_end));
        let grown = outcome(format!("{begun}orts\n").as_bytes(), &csv(true), 100, 10, *last_end);
        assert_eq!(grown.records(0), [(3, "{\"user_id\":\"u2\",\"segment\":\"sports\"}".to_owned())]);
    }
}
