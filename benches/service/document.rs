//! `docs/benchmarks.md`: the last run that was worth keeping, between two markers.

use std::fs;
use std::io::ErrorKind;

use crate::Result;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks.md");
const BEGIN: &str = "<!-- run:begin -->";
const END: &str = "<!-- run:end -->";

/// What the document starts with, as long as nobody has written something better.
const INTRODUCTION: &str = "\
# Benchmarks

`make bench` measures the service beside webdis (HTTP in front of Redis, in C), redis-benchmark and a loader that does nothing
but write. Everything runs on one machine and shares its cores, so what counts is a ratio within one run: figures of two
runs can't be compared. `make bench BENCH_ARGS=--write` replaces what follows.
";

/// Replaces what stands between the markers.
pub fn write(result: &str) -> Result<()> {
    let document = match fs::read_to_string(FILE) {
        Ok(document) => document,
        Err(error) if error.kind() == ErrorKind::NotFound => format!("{INTRODUCTION}\n{BEGIN}\n{END}\n"),
        Err(error) => return Err(error.into()),
    };
    let parts = document.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) =
        parts.ok_or("docs/benchmarks.md has lost its markers <!-- run:begin --> and <!-- run:end -->")?;
    Ok(fs::write(FILE, format!("{head}{BEGIN}\n{result}{END}{tail}"))?)
}
