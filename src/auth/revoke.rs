//! Removes API keys from their file.

use std::path::Path;

use super::key_file::{self, KeyFileError};
use super::keys::ApiKeys;

/// Removes the key `name` from the key file at `path`. The rest of the file stays as it is.
///
/// # Errors
///
/// A [`KeyFileError`] if the file can't be read or replaced, or has no such key.
pub fn api_key(path: &Path, name: &str) -> Result<(), KeyFileError> {
    key_file::change(path, |text| without(text.ok_or("there is no such file")?, name))
}

/// Returns `text`, a key file, without the entry of `name`.
fn without(text: &str, name: &str) -> Result<String, String> {
    let keys = ApiKeys::parse(text)?;
    if !keys.has(name) {
        return Err(format!("has no key named {name}"));
    }
    let mut starts: Vec<_> = text.match_indices("[[key]]").map(|(start, _)| start).collect();
    starts.push(text.len());
    let mut rest = text[..starts[0]].to_owned();
    for part in starts.windows(2).map(|bounds| &text[bounds[0]..bounds[1]]) {
        let is_revoked = ApiKeys::parse(part).is_ok_and(|keys| keys.has(name));
        rest.push_str(if is_revoked { behind_entry(part) } else { part });
    }
    // An unusual file may have the words elsewhere, or no header at all.
    let is_right = ApiKeys::parse(&rest).is_ok_and(|left| !left.has(name) && left.len() + 1 == keys.len());
    if is_right { Ok(rest) } else { Err(format!("remove the entry of {name} by hand: it isn't written as [[key]]")) }
}

/// Returns the blank lines and comments at the end of `part`: they belong to the next entry.
fn behind_entry(part: &str) -> &str {
    let behind = part.split_inclusive('\n').rev().take_while(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#')
    });
    let behind = &part[part.len() - behind.map(str::len).sum::<usize>()..];
    // The blank lines in front of the entry stay.
    behind.trim_start_matches(['\n', '\r'])
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn entry(name: &str) -> String {
        format!(
            "[[key]]\nname = \"{name}\"\nsha256 = \"{}\"\nscopes = [\n  \"segments:read\", # reads\n]\n",
            "0".repeat(64)
        )
    }

    #[rstest]
    #[case::first("a", "# keys\n\n", "# of b\n")]
    #[case::last("b", "# keys\n\n", "")]
    fn without_removes_the_entry_alone(#[case] name: &str, #[case] head: &str, #[case] of_b: &str) {
        let (a, b) = (entry("a"), entry("b").replace('0', "1"));
        let text = format!("{head}{a}\n{of_b}{b}");
        let expected = if name == "a" { format!("{head}{of_b}{b}") } else { format!("{head}{a}\n{of_b}") };
        assert_eq!(without(&text, name).unwrap(), expected);
    }

    #[test]
    fn without_refuses_an_unknown_name_and_an_unusual_file() {
        assert_eq!(without(&entry("a"), "b").unwrap_err(), "has no key named b");
        let inline =
            format!("key = [{{ name = \"a\", sha256 = \"{}\", scopes = [\"segments:read\"] }}]", "0".repeat(64));
        assert!(without(&inline, "a").unwrap_err().contains("by hand"));
    }
}
