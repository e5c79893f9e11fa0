//! What is read, cut into chunks that are delivered as a whole. It is read on a thread of its own, ahead of the delivery.

use std::io::{self, Read as _};
use std::thread;

use tokio::sync::mpsc;

use super::csv::{CsvForm, Record, Records};
use super::source::Source;
use crate::clock::Clock;
use crate::ingest::{Ingest, LineError, Lines};
use crate::store::Batch;
use crate::time::Window;
use crate::visit_json::{self, Reported, VisitError};

/// How the lines of a source are to be read.
#[derive(Debug, Clone)]
pub enum Form {
    /// A visit in JSON on each.
    Ndjson,
    /// Records of fields.
    Csv(CsvForm),
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
    /// Visits that have expired, and are not delivered.
    pub(super) expired: u64,
    /// Lines that are no visit.
    pub(super) rejected: u64,
    /// What is wrong with them.
    pub(super) errors: Vec<LineError>,
    /// The line that the last record begins on, a visit or not.
    pub(super) last_line: u64,
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
    Chunk(Chunk),
    /// There are no more but this one, of a last line that has no end; without this word the thread has not come to the end. When
    /// who writes into a pipe is interrupted together with us, such a line is cut, and must not pass for done.
    End(Option<Chunk>),
    /// The source can't be read on, for this reason.
    Failed(String),
}

/// Reads `source` on a thread of its own, in chunks of `size` records, those that begin on a line up to `done_through_line`
/// left out. It waits when nobody takes the chunks, and ends when nobody will.
pub(super) fn read(
    source: Source,
    form: Form,
    purpose: For,
    size: usize,
    done_through_line: u64,
) -> io::Result<mpsc::Receiver<Read>> {
    let (sender, receiver) = mpsc::channel(1);
    let chunk = Chunk::empty(&purpose);
    let reading = Reading { source, purpose, size, done_through_line, chunk, sender };
    // A thread that the runtime doesn't know: at the end, nobody waits for one that waits for standard input.
    thread::Builder::new().name("import-reader".to_owned()).spawn(move || reading.run(form))?;
    Ok(receiver)
}

/// Nobody wants the rest.
struct Unwanted;

/// Why reading ended before the end.
enum Cut {
    Unwanted,
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
    size: usize,
    done_through_line: u64,
    chunk: Chunk,
    sender: mpsc::Sender<Read>,
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
            Err(Cut::Failed(why)) => {
                // What came before is good.
                let _ = self.send();
                Read::Failed(why)
            }
        };
        let _ = self.sender.blocking_send(last_word);
    }

    fn read_lines(&mut self) -> Result<(), Cut> {
        let mut lines = Lines::new(Ingest::MAX_LINE_BYTES);
        let mut buffer = vec![0; Self::PIECE];
        loop {
            let mut piece = self.read_piece(&mut buffer)?;
            if piece.is_empty() {
                break;
            }
            while let Some(line) = lines.next(&mut piece) {
                self.take_line(line.number, line.text)?;
            }
        }
        self.send()?;
        match lines.last() {
            Some(line) => Ok(self.take_line(line.number, line.text)?),
            None => Ok(()),
        }
    }

    fn take_line(&mut self, number: u64, text: Option<&[u8]>) -> Result<(), Unwanted> {
        if number <= self.done_through_line {
            return Ok(());
        }
        match text {
            None => self.chunk.reject(LineError::too_long(number, Ingest::MAX_LINE_BYTES)),
            Some(text) if text.iter().all(u8::is_ascii_whitespace) => self.chunk.last_line = number,
            Some(text) => self.chunk.take(number, visit_json::read(text), &self.purpose),
        }
        self.send_if_full()
    }

    fn read_records(&mut self, form: CsvForm) -> Result<(), Cut> {
        let mut records = Records::new(form);
        let mut buffer = vec![0; Self::PIECE];
        loop {
            let mut piece = self.read_piece(&mut buffer)?;
            if piece.is_empty() {
                break;
            }
            while let Some((line, record)) = records.next(&mut piece).map_err(Cut::Failed)? {
                self.take_record(line, record)?;
            }
        }
        self.send()?;
        match records.last().map_err(Cut::Failed)? {
            Some((line, record)) => Ok(self.take_record(line, record)?),
            None => Ok(()),
        }
    }

    fn take_record(&mut self, line: u64, record: Record<'_>) -> Result<(), Unwanted> {
        if line <= self.done_through_line {
            return Ok(());
        }
        match record {
            Record::Header => {}
            Record::Bad(error) => self.chunk.reject(error),
            Record::Visit(visit) => self.chunk.take(line, visit, &self.purpose),
        }
        self.send_if_full()
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
        match self.take_chunk() {
            Some(chunk) => self.sender.blocking_send(Read::Chunk(chunk)).map_err(|_| Unwanted),
            None => Ok(()),
        }
    }

    /// What was read since the last chunk, if anything was.
    fn take_chunk(&mut self) -> Option<Chunk> {
        if self.chunk.last_line == 0 {
            return None;
        }
        let mut chunk = std::mem::replace(&mut self.chunk, Chunk::empty(&self.purpose));
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
        let (lines, errors) = (Vec::new(), Vec::new());
        Self { visits, lines, expired: 0, rejected: 0, errors, last_line: 0, bytes_read: 0 }
    }

    /// How many records it is of.
    pub(super) fn records(&self) -> usize {
        self.lines.len() + (self.expired + self.rejected) as usize
    }

    fn reject(&mut self, error: LineError) {
        self.last_line = error.line;
        self.rejected += 1;
        self.errors.push(error);
    }

    fn take(&mut self, line: u64, visit: Result<Reported<'_>, VisitError>, purpose: &For) {
        self.last_line = line;
        if let Err(error) = visit.and_then(|visit| self.add(line, visit, purpose)) {
            self.rejected += 1;
            self.errors.extend(LineError::all_of(line, error));
        }
    }

    fn add(&mut self, line: u64, visit: Reported<'_>, purpose: &For) -> Result<(), VisitError> {
        match (&mut self.visits, purpose) {
            (Visits::Batch(batch), For::Redis(clock, window)) => {
                let now = clock.now();
                let visit = visit.arriving_at(now)?;
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
        Ok(())
    }
}
