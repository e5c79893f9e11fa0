use std::io::Write as _;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::commands::import::chunk::EncodedVisits;
use crate::commands::import::csv::CsvFormat;

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
        let mut records: Vec<_> = chunk.origins.lines().iter().copied().zip(text.lines().map(str::to_owned)).collect();
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
    (end(), prop::collection::vec((record, end()), 1..12), any::<bool>()).prop_map(move |(end, records, is_ended)| {
        let first = if has_header { "user_id,segment" } else { "first,s" };
        format!("{first}{end}") + &join(records, is_ended)
    })
}

fn ndjson_text() -> impl Strategy<Value = String> {
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")];
    let record = prop_oneof![
        4 => "\\{\"user_id\":\"u[0-9]{1,3}\",\"segment\":\"s[0-3]\"\\}",
        1 => "\\{\"user_id\":\"u[0-9]\",\r\"segment\":\"s[0-3]\"\\}",
        1 => "[{}x ]{0,3}",
    ];
    (prop::collection::vec((record, end), 1..12), any::<bool>()).prop_map(|(records, is_ended)| join(records, is_ended))
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
