//! The input of an import: a file or standard input, decompressed if needed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::GzDecoder;

/// An open file, or standard input.
pub(super) struct Source {
    /// The size of the file, compressed as it is. `None` if it is unknown.
    pub(super) bytes: Option<u64>,
    reader: Box<dyn Read + Send>,
    compressed_bytes_read: Arc<AtomicU64>,
}

impl Source {
    /// The length of the longest magic number of a compression.
    const MAGIC_BYTES: u64 = 4;
    /// How many bytes of the text are inspected for their encoding.
    const ENCODING_BYTES: usize = 256;
    const BUFFER_BYTES: usize = 256 * 1024;

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

    pub(super) fn new(mut file: impl Read + Send + 'static, bytes: Option<u64>) -> io::Result<Self> {
        let mut magic = Vec::new();
        file.by_ref().take(Self::MAGIC_BYTES).read_to_end(&mut magic)?;
        let (is_gzip, is_zstd) = (is_gzip(&magic), is_zstd(&magic));
        let compressed_bytes_read = Arc::new(AtomicU64::new(0));
        let compressed =
            CountingReader { inner: Cursor::new(magic).chain(file), count: Arc::clone(&compressed_bytes_read) };
        let compressed = BufReader::with_capacity(Self::BUFFER_BYTES, compressed);
        let mut reader: Box<dyn Read + Send> = if is_gzip {
            Box::new(Decompressor { member: Some(CompressedMember::Gzip(GzDecoder::new(compressed))) })
        } else if is_zstd {
            Box::new(Decompressor { member: Some(CompressedMember::zstd(compressed)?) })
        } else {
            Box::new(compressed)
        };
        let (mut start, failure) = read_start(&mut reader, Self::ENCODING_BYTES);
        if let Some(encoding) = utf_16(&start) {
            let advice = format!("convert it to UTF-8, as in: iconv -f {encoding} -t UTF-8 OLD > NEW");
            return Err(io::Error::other(format!("it is {encoding}, but must be UTF-8; {advice}")));
        }
        if start.starts_with(b"\xEF\xBB\xBF") {
            start.drain(..3);
        }
        let reader: Box<dyn Read + Send> = match failure {
            // The bytes before the error are valid.
            Some(error) => Box::new(Cursor::new(start).chain(FailingReader(Some(error)))),
            None => Box::new(Cursor::new(start).chain(reader)),
        };
        Ok(Self { bytes, reader, compressed_bytes_read })
    }

    /// Returns how many bytes of the file were read, compressed as they are.
    pub(super) fn compressed_bytes_read(&self) -> u64 {
        self.compressed_bytes_read.load(Ordering::Relaxed)
    }
}

/// Reads the text, decompressed and without a byte order mark.
impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

fn is_gzip(start: &[u8]) -> bool {
    start.starts_with(b"\x1F\x8B")
}

/// Skippable frames may come first: parallel compressors store sizes in them.
fn is_zstd(start: &[u8]) -> bool {
    start.starts_with(b"\x28\xB5\x2F\xFD") || matches!(start, [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..])
}

/// Reads the first `bytes` bytes, or fewer up to the end or an error.
fn read_start(reader: &mut impl Read, bytes: usize) -> (Vec<u8>, Option<io::Error>) {
    let mut start = vec![0; bytes];
    let mut length = 0;
    let failure = loop {
        match reader.read(&mut start[length..]) {
            Ok(0) => break None,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Some(error),
        }
    };
    start.truncate(length);
    (start, failure)
}

/// Returns the kind of UTF-16 of a text, if it is one: it has a byte order mark, or every other byte is zero, as in
/// ASCII names of columns.
fn utf_16(start: &[u8]) -> Option<&'static str> {
    let zeros = |skipped| start.iter().skip(skipped).step_by(2).filter(|byte| **byte == 0).count();
    let enough = start.len().div_ceil(4).max(1);
    match (start, zeros(0), zeros(1)) {
        ([0xFF, 0xFE, ..], ..) => Some("UTF-16LE"),
        ([0xFE, 0xFF, ..], ..) => Some("UTF-16BE"),
        (_, 0, odd) if odd >= enough => Some("UTF-16LE"),
        (_, even, 0) if even >= enough => Some("UTF-16BE"),
        _ => None,
    }
}

/// A decompressor of concatenated gzip members or zstd frames. Zeros may follow the last one, as tapes and block
/// devices append them.
struct Decompressor<R: BufRead> {
    /// `None` after the end.
    member: Option<CompressedMember<R>>,
}

/// A gzip member or a zstd frame.
enum CompressedMember<R: BufRead> {
    Gzip(GzDecoder<R>),
    Zstd(zstd::Decoder<'static, R>),
}

impl<R: BufRead> CompressedMember<R> {
    fn zstd(compressed: R) -> io::Result<Self> {
        Ok(Self::Zstd(zstd::Decoder::with_buffer(compressed)?.single_frame()))
    }

    /// Returns the member after this one, which was read to its end, if there is one.
    fn next(self) -> io::Result<Option<Self>> {
        match self {
            Self::Gzip(member) => {
                let rest = rest_of(member.into_inner(), "gzip", |start| start == 0x1F)?;
                Ok(rest.map(GzDecoder::new).map(Self::Gzip))
            }
            Self::Zstd(frame) => {
                let rest = rest_of(frame.finish(), "zstd", |start| matches!(start, 0x28 | 0x50..=0x5F))?;
                rest.map(Self::zstd).transpose()
            }
        }
    }
}

impl<R: BufRead> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = match member {
                CompressedMember::Gzip(member) => member.read(buffer)?,
                CompressedMember::Zstd(frame) => frame.read(buffer)?,
            };
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if let Some(member) = self.member.take() {
                self.member = member.next()?;
            }
        }
        Ok(0)
    }
}

/// Returns the rest of the file if another member begins there, and `None` if only zeros are left.
fn rest_of<R: BufRead>(mut compressed: R, kind: &str, is_start: fn(u8) -> bool) -> io::Result<Option<R>> {
    let mut is_padded = false;
    loop {
        let ahead = compressed.fill_buf()?;
        match ahead.iter().position(|byte| *byte != 0) {
            None if ahead.is_empty() => return Ok(None),
            None => {
                is_padded = true;
                let zeros = ahead.len();
                compressed.consume(zeros);
            }
            Some(0) if !is_padded && is_start(ahead[0]) => return Ok(Some(compressed)),
            Some(_) => {
                let message = format!("other bytes follow the {kind} data");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        }
    }
}

/// A reader that returns its error once.
struct FailingReader(Option<io::Error>);

impl Read for FailingReader {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// A reader that counts its bytes.
struct CountingReader<R> {
    inner: Chain<Cursor<Vec<u8>>, R>,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rstest::rstest;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    /// Returns a skippable frame of zstd. The kind is 0 to 15.
    fn skippable(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        [&[0x50 + kind, 0x2A, 0x4D, 0x18], &length[..], content].concat()
    }

    /// Returns the text of a file, how many bytes of the file were read, and the error.
    fn read(bytes: Vec<u8>) -> (Vec<u8>, u64, Option<String>) {
        let mut source = Source::new(Cursor::new(bytes), None).unwrap();
        let mut text = Vec::new();
        let failure = source.read_to_end(&mut text).err().map(|error| error.to_string());
        (text, source.compressed_bytes_read(), failure)
    }

    #[test]
    fn read_decompresses_concatenated_files() {
        let (one, two) = ("one\n".repeat(50_000).into_bytes(), "two\n".repeat(50_000).into_bytes());
        let expected = [one.clone(), two.clone()].concat();
        let by_pzstd = [skippable(0, &[1, 0, 0, 0]), zstd(&one), skippable(0, &[1, 0, 0, 0]), zstd(&two)].concat();
        for file in [
            expected.clone(),
            [gzip(&one), gzip(b""), gzip(&two)].concat(),
            [zstd(&one), zstd(&two)].concat(),
            by_pzstd,
        ] {
            let bytes = file.len() as u64;
            let (text, compressed_bytes, failure) = read(file);
            assert!(text == expected && failure.is_none(), "{failure:?}");
            assert_eq!(compressed_bytes, bytes);
        }
    }

    #[test]
    fn read_skips_skippable_frames_of_zstd() {
        for kind in 0..16 {
            let frame = skippable(kind, &vec![b'{'; 70_000]);
            let file =
                [frame.clone(), frame.clone(), zstd(b"one\n"), frame.clone(), zstd(b"two\n"), frame.clone()].concat();
            assert_eq!((read(file).0, read(frame).0), (b"one\ntwo\n".to_vec(), Vec::new()), "kind {kind}");
        }
    }

    #[rstest]
    #[case::gzip("gzip", gzip, "unexpected end of file")]
    #[case::zstd("zstd", zstd, "incomplete frame")]
    fn read_skips_zeros_after_a_compressed_file_and_reports_other_bytes(
        #[case] kind: &str,
        #[case] pack: fn(&[u8]) -> Vec<u8>,
        #[case] cut_off: &str,
        #[values(b"one\n".to_vec(), "one\n".repeat(100_000).into_bytes())] text: Vec<u8>,
    ) {
        let other_bytes = format!("other bytes follow the {kind} data");
        for zeros in [1, 2, 512, 300_000] {
            let file = [pack(&text), pack(&text), vec![0; zeros]].concat();
            let (found, _, failure) = read(file.clone());
            assert!(found == text.repeat(2) && failure.is_none(), "{zeros} zeros: {failure:?}");
            for other in [&b"x"[..], b"\x1F", b"\0x", &pack(b"two\n")] {
                let (found, _, failure) = read([&file, other].concat());
                assert!(found == text.repeat(2), "{zeros} zeros and {other:?}");
                assert_eq!(failure, Some(other_bytes.clone()));
            }
        }
        for (file, expected) in [
            ([pack(&text), b"x".to_vec()].concat(), other_bytes.as_str()),
            (pack(&text)[..pack(&text).len() - 1].to_vec(), cut_off),
        ] {
            let (found, _, failure) = read(file);
            // A zstd block can't be decompressed before its end.
            assert!(text.starts_with(&found));
            assert_eq!(failure.as_deref(), Some(expected));
        }
    }

    #[test]
    fn read_skips_a_byte_order_mark() {
        for file in [b"\xEF\xBB\xBFx".to_vec(), gzip(b"\xEF\xBB\xBFx"), b"x".to_vec()] {
            assert_eq!(read(file).0, b"x");
        }
        assert!(read(Vec::new()).0.is_empty());
    }

    fn encoded(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[rstest]
    #[case::csv("user_id,segment\r\nu1,sports\r\n")]
    #[case::ndjson("{\"user_id\":\"u1\",\"segment\":\"sports\"}\n")]
    #[case::cyrillic_columns("user_id,segment,время,страна\n")]
    #[case::one_letter("u")]
    fn new_refuses_utf_16(#[case] text: &str) {
        for (name, to_bytes) in [("UTF-16LE", u16::to_le_bytes as fn(u16) -> [u8; 2]), ("UTF-16BE", u16::to_be_bytes)] {
            for text in [encoded(text, to_bytes), encoded(&format!("\u{feff}{text}"), to_bytes)] {
                for file in [text.clone(), gzip(&text), zstd(&text)] {
                    let error = Source::new(Cursor::new(file), None).err().unwrap().to_string();
                    let advice = format!("convert it to UTF-8, as in: iconv -f {name} -t UTF-8 OLD > NEW");
                    assert_eq!(error, format!("it is {name}, but must be UTF-8; {advice}"));
                }
            }
        }
        assert!(Source::new(Cursor::new(text.to_owned()), None).is_ok());
    }

    #[rstest]
    #[case::zero_in_a_name(b"user_id,segment\nu\x001,sports\n".to_vec())]
    #[case::tar([&b"visits.csv"[..], &[0; 90], b"0000644\x000001750\x00", &[0; 300]].concat())]
    #[case::zeros(vec![0; 1_000])]
    #[case::not_ascii("имя,сегмент\n".as_bytes().to_vec())]
    fn new_accepts_other_files_with_zeros(#[case] file: Vec<u8>) {
        assert!(read(file.clone()).0 == file);
    }
}
