//! Reads the input on a thread of its own, ahead of the delivery, and makes chunks of its records.

use std::cmp::Ordering;
use std::io::{self, Read as _};
use std::thread;

use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh64::Xxh64;

use super::chunk::{Chunk, Encoding};
use super::format::{Format, Record, Records};
use super::source::Source;
use super::state::{PastRun, Position};
use super::witnesses::Witnesses;

/// An event of the reading thread.
pub(super) enum ReaderEvent {
    /// The records of earlier runs were skipped. Some of their visits are the witnesses. This is the first event. The
    /// thread waits for the size of a chunk.
    Skipped(Witnesses, oneshot::Sender<usize>),
    /// The input doesn't begin with the records of earlier runs. This is the first and last event.
    Differs,
    Chunk(Chunk),
    /// The end of the input, with a last record that lacks its line end. Such a record is cut off if the writer of a
    /// pipe is interrupted together with the import, or if the file is still growing. So it never counts as done.
    End(Option<Chunk>),
    /// Reading failed. This is the last event.
    Failed(String),
}

/// Reads `source` on a thread of its own. Skips the records up to `done`, which `runs` have imported. The thread waits
/// until its chunks are received, and ends when the receiver is dropped.
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
    /// The number of visits and invalid records in a chunk. The segments of its last record may exceed it.
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
        let last_event = match self.read_records(Records::new(format)) {
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

    fn read_records(&mut self, mut records: Records) -> Result<(), ReadError> {
        if self.done.records == 0 {
            self.finish_skipping()?;
        }
        let mut buffer = vec![0; Self::BUFFER_BYTES];
        loop {
            let mut piece = self.read_piece(&mut buffer)?;
            if piece.is_empty() {
                break;
            }
            let mut unread = piece;
            while let Some(record) = records.next(&mut piece).map_err(ReadError::Failed)? {
                if self.advance(&mut unread, piece)? {
                    record.add_to(&mut self.chunk, &self.encoding);
                    self.send_full_chunk()?;
                } else {
                    self.skip(record)?;
                }
            }
            self.read.ahead.update(unread);
        }
        if self.read.records < self.done.records {
            return Err(ReadError::Differs);
        }
        self.send_chunk()?;
        if let Some(record) = records.last().map_err(ReadError::Failed)? {
            record.add_to(&mut self.chunk, &self.encoding);
        }
        Ok(())
    }

    /// Advances over the record, or the rest of one, at the front of `unread`. `rest` follows it. Returns whether the
    /// record is new.
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

    /// Skips a record of an earlier run. A few of their visits become witnesses.
    fn skip(&mut self, record: Record<'_>) -> Result<(), ReceiverDropped> {
        if let Encoding::Batch(clock, window) = &self.encoding
            && let Some(witnesses) = &mut self.witnesses
            && witnesses.is_next()
            && let Some(visits) = record.visits()
        {
            witnesses.offer(visits, window.cutoff(clock.now()));
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
        if self.chunk.size() >= self.chunk_size { self.send_chunk() } else { Ok(()) }
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
mod tests;
