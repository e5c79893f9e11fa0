//! A document that holds a run between two markers.

use std::fs;
use std::path::Path;

use crate::Result;

const BEGIN: &str = "<!-- run:begin -->";
const END: &str = "<!-- run:end -->";

/// Replaces the text between the markers of `file`, a path in the repository.
pub fn write(file: &str, result: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let document = fs::read_to_string(&path)?;
    let parts = document.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) =
        parts.ok_or_else(|| format!("{file} lacks the markers <!-- run:begin --> and <!-- run:end -->"))?;
    Ok(fs::write(path, format!("{head}{BEGIN}\n{result}{END}{tail}"))?)
}
