//! What is imported: a file or standard input, unpacked if it is packed, and recognised again by its beginning.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Chain, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::xxh64;

/// A file, or standard input, that is open.
pub(super) struct Source {
    pub(super) identity: Identity,
    reader: Box<dyn Read + Send>,
    packed_bytes_read: Arc<AtomicU64>,
}

/// What a source is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Its size as it lies there; `None` if nobody knows before its end.
    pub(super) bytes: Option<u64>,
    /// A hash of its first [`Source::HEAD`] bytes.
    head: u64,
}

impl Source {
    /// How many bytes a source is recognised by.
    const HEAD: u64 = 64 * 1024;
    /// How many bytes are read at once.
    const BUFFER: usize = 256 * 1024;

    /// Opens the file at `path`; `-` is standard input.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Self::new(io::stdin(), None);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::other("it is a folder"));
        }
        Self::new(file, metadata.is_file().then_some(metadata.len()))
    }

    fn new(mut file: impl Read + Send + 'static, bytes: Option<u64>) -> io::Result<Self> {
        let mut head = Vec::new();
        file.by_ref().take(Self::HEAD).read_to_end(&mut head)?;
        let identity = Identity { bytes, head: xxh64(&head, 0) };
        let packed_bytes_read = Arc::new(AtomicU64::new(0));
        let is_gzip = head.starts_with(b"\x1F\x8B");
        let is_zstd = head.starts_with(b"\x28\xB5\x2F\xFD");
        let packed = Counted { inner: Cursor::new(head).chain(file), count: Arc::clone(&packed_bytes_read) };
        let packed = BufReader::with_capacity(Self::BUFFER, packed);
        let reader: Box<dyn Read + Send> = if is_gzip {
            // Files that were joined are one text.
            Box::new(MultiGzDecoder::new(packed))
        } else if is_zstd {
            Box::new(zstd::Decoder::with_buffer(packed)?)
        } else {
            Box::new(packed)
        };
        let mut reader = BufReader::with_capacity(Self::BUFFER, reader);
        if reader.fill_buf()?.starts_with(b"\xEF\xBB\xBF") {
            reader.consume(3);
        }
        Ok(Self { identity, reader: Box::new(reader), packed_bytes_read })
    }

    /// How many bytes of the file were read, packed as they are there.
    pub(super) fn packed_bytes_read(&self) -> u64 {
        self.packed_bytes_read.load(Ordering::Relaxed)
    }
}

/// The text, without its compression and without a byte order mark.
impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// A reader that counts what is read.
struct Counted<R> {
    inner: Chain<Cursor<Vec<u8>>, R>,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    fn read(bytes: Vec<u8>) -> (Vec<u8>, u64) {
        let mut source = Source::new(Cursor::new(bytes), None).unwrap();
        let mut text = Vec::new();
        source.read_to_end(&mut text).unwrap();
        (text, source.packed_bytes_read())
    }

    #[test]
    fn what_is_packed_is_unpacked_and_files_that_were_joined_are_one_text() {
        let (one, two) = ("one\n".repeat(50_000).into_bytes(), "two\n".repeat(50_000).into_bytes());
        let expected = [one.clone(), two.clone()].concat();
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        for file in [expected.clone(), [gzip(&one), gzip(&two)].concat(), [zstd(&one), zstd(&two)].concat()] {
            let bytes = file.len() as u64;
            let (text, packed_bytes) = read(file);
            assert!(text == expected);
            assert_eq!(packed_bytes, bytes);
        }
    }

    #[test]
    fn a_byte_order_mark_is_left_out() {
        for file in [b"\xEF\xBB\xBFx".to_vec(), gzip(b"\xEF\xBB\xBFx"), b"x".to_vec()] {
            assert_eq!(read(file).0, b"x");
        }
        assert!(read(Vec::new()).0.is_empty());
    }

    #[test]
    fn another_file_is_another() {
        let identity = |text: &str, bytes| Source::new(Cursor::new(text.to_owned()), bytes).unwrap().identity;
        assert_eq!(identity("a", Some(1)), identity("a", Some(1)));
        assert_ne!(identity("a", Some(1)), identity("b", Some(1)));
        assert_ne!(identity("a", Some(1)), identity("a", Some(2)));
    }
}
