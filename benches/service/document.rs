//! A document that has the last run that was worth keeping, between two markers.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::Result;

const BEGIN: &str = "<!-- run:begin -->";
const END: &str = "<!-- run:end -->";

/// Replaces what stands between the markers of `file`, a path in the repository. A file that isn't there begins with
/// `introduction`.
pub fn write(file: &str, introduction: &str, result: &str) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let document = match fs::read_to_string(&path) {
        Ok(document) => document,
        Err(error) if error.kind() == ErrorKind::NotFound => format!("{introduction}\n{BEGIN}\n{END}\n"),
        Err(error) => return Err(error.into()),
    };
    let parts = document.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) =
        parts.ok_or_else(|| format!("{file} has lost its markers <!-- run:begin --> and <!-- run:end -->"))?;
    Ok(fs::write(path, format!("{head}{BEGIN}\n{result}{END}{tail}"))?)
}
