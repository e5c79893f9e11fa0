//! The settings in a `.env` file, which docker compose and other programs read, too.
//!
//! A setting is one line, `NAME=value`. The grammar is so small that compose reads the same values. Any other line that
//! names a setting is refused, so that no setting is lost or read in two ways. Variables of other programs are skipped.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::SettingsError;
use super::source::PREFIX;

const BLANKS: [char; 2] = [' ', '\t'];
/// What compose skips in front of a value.
const SPACES: [char; 7] = [' ', '\t', '\x0b', '\x0c', '\r', '\u{85}', '\u{a0}'];
const QUOTES: [char; 2] = ['\'', '"'];

/// Returns the settings in a `.env` file: none if it is missing or a folder, such as a virtual environment of Python.
pub(super) fn read(path: &Path) -> Result<Vec<(OsString, OsString)>, SettingsError> {
    let failed = |why: String| SettingsError(format!("{}: {why}", path.display()));
    let content = read_content(path).map_err(|error| failed(error.to_string()))?;
    let settings = parse_settings(&String::from_utf8_lossy(&content)).map_err(failed)?;
    Ok(settings.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

fn read_content(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // Opening a pipe without a writer would block.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(content),
        Err(error) => return Err(error),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        file.read_to_end(&mut content)?;
    } else if !kind.is_dir() {
        return Err(io::Error::other(
            "it is a pipe or a device, and must be a file; put one in its place or remove it",
        ));
    }
    Ok(content)
}

/// Parses the settings. An error names the line and repeats only the name of the setting, since the value may hold a
/// password.
///
/// Each variable ends where it ends for compose. Otherwise a quote of another program could hide a setting from only
/// one of the two.
fn parse_settings(text: &str) -> Result<Vec<(String, String)>, String> {
    const CARRIAGE_RETURN: &str = "has a carriage return within; save the file with line feeds";
    const FORM: &str = "must be ESTIMATOR_NAME=value, with only export in front; make it a comment if it is no setting";
    const IN_QUOTES: &str = "opens a quote, and a setting is named behind it; close the quote at the end of the line";

    let text = text.replace("\r\n", "\n");
    // ASCII in UTF-16, which PowerShell writes, has a NUL beside each character.
    if text.contains('\0') && names_setting(&text.replace('\0', "")) {
        return Err("the file is not UTF-8; save it as UTF-8".to_owned());
    }
    let mut settings = Vec::new();
    let mut lines = HashMap::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(&text);
    while let Some(start) = rest.find(|char: char| !char.is_whitespace()) {
        rest = &rest[start..];
        let number = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let (line, behind_line) = first_line(rest);
        let (name, value) = line.split_once(['=', ':']).unwrap_or((line, ""));
        if line.contains('\r') && names_setting(line) {
            return Err(format!("line {number} {CARRIAGE_RETURN}"));
        }
        if line.starts_with('#') {
            rest = behind_line;
        } else if names_setting(name) {
            let is_assignment = line[name.len()..].starts_with('=');
            let name = setting_name(name).filter(|_| is_assignment).ok_or_else(|| format!("line {number} {FORM}"))?;
            let value = parse_value(value).map_err(|why| format!("line {number}: {name}: {why}"))?;
            if let Some(first) = lines.insert(name.to_owned(), number) {
                return Err(format!("lines {first} and {number} both set {name}; remove one of them"));
            }
            settings.push((name.to_owned(), value));
            rest = behind_line;
        } else {
            let value = &rest[line.len() - value.trim_start_matches(SPACES).len()..];
            let end = if value.starts_with(QUOTES) { behind_quotes(value) } else { Some(behind_line) };
            let behind = end.unwrap_or(behind_line);
            let variable = &rest[..rest.len() - behind.len()];
            let (tail, _) = first_line(behind);
            let is_one_line = end.is_some() && !variable.contains('\n') && is_empty_or_comment(tail);
            if !is_one_line && (names_setting(variable) || names_setting(tail)) {
                return Err(format!("line {number} {IN_QUOTES}"));
            }
            rest = behind;
        }
    }
    Ok(settings)
}

fn first_line(text: &str) -> (&str, &str) {
    text.split_at(text.find('\n').unwrap_or(text.len()))
}

/// Returns whether a word in `text` begins like the name of a setting.
fn names_setting(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let is_in_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    text.match_indices(PREFIX).any(|(index, _)| !text[..index].ends_with(is_in_word))
}

/// Returns the name in front of `=`, if nothing but `export` stands before it.
fn setting_name(text: &str) -> Option<&str> {
    let text = text.trim_matches(BLANKS);
    let exported = text.strip_prefix("export").filter(|name| name.starts_with(BLANKS));
    let name = exported.map_or(text, |name| name.trim_start_matches(BLANKS));
    let is_name = |char: char| char.is_ascii_uppercase() || char.is_ascii_digit() || char == '_';
    (name.starts_with(PREFIX) && name.chars().all(is_name)).then_some(name)
}

/// Returns what stands behind the closing quote, on this line or another, if `text` begins with a quote.
fn behind_quotes(text: &str) -> Option<&str> {
    let mut is_escaped = false;
    for (index, char) in text.char_indices().skip(1) {
        if text.starts_with(char) && !is_escaped {
            return Some(&text[index + 1..]);
        }
        // For compose a backslash escapes a single quote, too.
        is_escaped = char == '\\' && !is_escaped;
    }
    None
}

fn is_empty_or_comment(text: &str) -> bool {
    text.trim().is_empty() || (text.starts_with(char::is_whitespace) && text.trim_start().starts_with('#'))
}

/// Parses what stands behind `NAME=` on a line.
fn parse_value(text: &str) -> Result<String, &'static str> {
    const ENCODING: &str = "the value is not UTF-8; save the file as UTF-8";
    const LITERAL: &str =
        "a value with $ or a backslash must be in single quotes, with no backslash last; the TOML file takes any value";
    const QUOTED: &str = "a value with spaces, quotes or # must be in quotes that close on its line: NAME='a b'";

    let text = text.trim_matches(BLANKS);
    let (value, is_literal, is_clear) = if text.starts_with(QUOTES) {
        let (value, behind) = text[1..].split_once(&text[..1]).ok_or(QUOTED)?;
        (value, text.starts_with('\'') && !value.ends_with('\\'), is_empty_or_comment(behind))
    } else {
        let value = text.split_once(" #").map_or(text, |(value, _)| value).trim_end_matches(BLANKS);
        let is_special = |char: char| char.is_whitespace() || "'\"`".contains(char);
        (value, false, !value.starts_with('#') && !value.contains(is_special))
    };
    if value.contains(char::REPLACEMENT_CHARACTER) {
        Err(ENCODING)
    } else if !is_literal && value.contains(['$', '\\']) {
        Err(LITERAL)
    } else if !is_clear {
        Err(QUOTED)
    } else {
        Ok(value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::*;

    fn window(value: &str) -> Result<Vec<(String, String)>, String> {
        Ok(vec![("ESTIMATOR_WINDOW".to_owned(), value.to_owned())])
    }

    /// Docker compose 2.40 (compose-go 2.9.0) reads the same values.
    #[rstest]
    #[case::bare("ESTIMATOR_WINDOW=7d", "7d")]
    #[case::byte_order_mark("\u{feff}ESTIMATOR_WINDOW=7d\n", "7d")]
    #[case::export_and_blanks("  export\tESTIMATOR_WINDOW = 7d \t\r\n", "7d")]
    #[case::comment("ESTIMATOR_WINDOW=7d # it's a week, or ${X:-7d}", "7d")]
    #[case::comment_after_tab_and_space("ESTIMATOR_WINDOW=7d\t #c", "7d")]
    #[case::hash_within("ESTIMATOR_WINDOW=a#b", "a#b")]
    #[case::empty("ESTIMATOR_WINDOW=\n", "")]
    #[case::empty_in_quotes("ESTIMATOR_WINDOW='' # c", "")]
    #[case::single_quotes(r#"ESTIMATOR_WINDOW='a"\$b ${X} #c\d'"#, r#"a"\$b ${X} #c\d"#)]
    #[case::double_quotes("ESTIMATOR_WINDOW=\"it's #1\" # c", "it's #1")]
    fn parse_settings_reads_a_value(#[case] line: &str, #[case] value: &str) {
        for text in [line.to_owned(), format!("{line}\r\nB='y'\n")] {
            assert_eq!(parse_settings(&text), window(value), "{text}");
        }
    }

    /// Docker compose 2.40 reads the same, if it takes the file.
    #[rstest]
    #[case::spaces("DATABASE_URL=postgres://x y z")]
    #[case::yaml("FOO: bar")]
    #[case::no_assignment("hello world")]
    #[case::open_quote("MOTD='it is")]
    #[case::apostrophe("MOTD=it's")]
    #[case::two_apostrophes("MOTD='it's nice'")]
    #[case::several_lines("KEY=\"-----BEGIN\nab \\\" cd\n-----END\"")]
    #[case::quotes_after_quotes("A='x\ny' B='\nz'")]
    #[case::longer_name("MY_ESTIMATOR_WINDOW=x y")]
    #[case::reference("X=${ESTIMATOR_WINDOW:-1}")]
    #[case::setting_in_a_value("X='ESTIMATOR_WINDOW=1s' # ESTIMATOR_WINDOW=1s")]
    #[case::setting_after_a_value("X=1 ESTIMATOR_WINDOW=1s")]
    #[case::setting_in_a_comment(" # ESTIMATOR_WINDOW=1s")]
    #[case::carriage_return("X=\r\rY=1")]
    #[case::latin_1("NAME=M\u{fffd}ller")]
    fn parse_settings_passes_over_other_programs(#[case] lines: &str) {
        for text in [format!("{lines}\nESTIMATOR_WINDOW=7d\n"), format!("ESTIMATOR_WINDOW=7d\n{lines}")] {
            assert_eq!(parse_settings(&text), window("7d"), "{text}");
            assert_eq!(parse_settings(&text.replace('\n', "\r\n")), window("7d"), "{text}");
        }
    }

    /// A comment says how docker compose 2.40 reads the file, unless it refuses the file, too.
    #[rstest]
    // Takes ESTIMATOR_X.
    #[case::colon("ESTIMATOR_X: abc=hunter2", "line 1 must be ESTIMATOR_NAME=value")]
    #[case::colon_after_a_blank("ESTIMATOR_X : hunter2", "line 1 must be")]
    // Takes estimator_x, of which the service in the container says that it must be in capitals.
    #[case::small_letters("\u{feff}estimator_x=hunter2", "line 1 must be")]
    // Passes it over.
    #[case::no_value_at_the_end("X=1\nexport ESTIMATOR_X", "line 2 must be")]
    #[case::hyphen("-ESTIMATOR_X=hunter2", "line 1 must be")]
    #[case::no_value("ESTIMATOR_X redis://:hunter2@h?db=3", "line 1 must be")]
    #[case::quoted_name("\"ESTIMATOR_X\"=hunter2", "line 1 must be")]
    #[case::list("- ESTIMATOR_X=7d", "line 1 must be")]
    #[case::declare("declare -x ESTIMATOR_X=7d", "line 1 must be")]
    #[case::second_byte_order_mark("A=1\n\u{feff}ESTIMATOR_X=7d", "line 2 must be")]
    // The last one wins, also an empty one.
    #[case::duplicate("ESTIMATOR_X=a\n\nESTIMATOR_X=", "lines 1 and 3 both set ESTIMATOR_X; remove one of them")]
    // Reads `1h 30m`, `it's` and `#hunter2`.
    #[case::spaces("# c\nESTIMATOR_X=1h 30m", "line 2: ESTIMATOR_X: a value with spaces, quotes or #")]
    #[case::quote_within("ESTIMATOR_X=it's", "line 1: ESTIMATOR_X: a value with spaces, quotes or #")]
    #[case::hash_first("ESTIMATOR_X=#hunter2", "line 1: ESTIMATOR_X: a value with spaces, quotes or #")]
    // The comment is the value.
    #[case::comment_alone("ESTIMATOR_X= # c", "line 1: ESTIMATOR_X: a value with spaces, quotes or #")]
    // The comment is a part of the value.
    #[case::comment_after_a_tab("ESTIMATOR_X=a\t# c", "line 1: ESTIMATOR_X: a value with spaces, quotes or #")]
    // Takes the lines as one value.
    #[case::several_lines("ESTIMATOR_X='a\nX=hunter2\nb'", "line 1: ESTIMATOR_X: a value with spaces, quotes or #")]
    // Takes ESTIMATOR_Y as well.
    #[case::two_in_a_line("ESTIMATOR_X='a' ESTIMATOR_Y=b", "line 1: ESTIMATOR_X: a value with spaces, quotes or #")]
    #[case::open_quote("ESTIMATOR_X='redis://:hunter2@h", "line 1: ESTIMATOR_X: a value with spaces, quotes or #")]
    #[case::after_the_quotes("ESTIMATOR_X=\"7d\"x", "line 1: ESTIMATOR_X: a value with spaces, quotes or #")]
    // Replaces them, an unset one by nothing, and `$$` by `$`.
    #[case::reference("A=1\nESTIMATOR_X=$A", "line 2: ESTIMATOR_X: a value with $ or a backslash")]
    #[case::reference_with_a_default("ESTIMATOR_X=\"${A:-7d}\"", "line 1: ESTIMATOR_X: a value with $ or a backslash")]
    #[case::dollars("ESTIMATOR_X=:pa$$hunter2", "line 1: ESTIMATOR_X: a value with $ or a backslash")]
    // Knows other escapes than shells do: not `\'` or a space, and none without quotes.
    #[case::escape(r"ESTIMATOR_X=a\ hunter2", "line 1: ESTIMATOR_X: a value with $ or a backslash")]
    #[case::escape_in_double_quotes(r#"ESTIMATOR_X="a\"b""#, "line 1: ESTIMATOR_X: a value with $ or a backslash")]
    // Takes the quote for escaped, and looks for another one on later lines.
    #[case::escape_in_single_quotes(r"ESTIMATOR_X='a\'", "line 1: ESTIMATOR_X: a value with $ or a backslash")]
    // Passes over the settings in the quotes.
    #[case::in_quotes("X: \"\nESTIMATOR_X=1\n\"", "line 1 opens a quote, and a setting is named behind it")]
    #[case::in_single_quotes("X='a\\'\nESTIMATOR_X=1\nb'", "line 1 opens a quote, and a setting")]
    #[case::in_quotes_left_open("A=\"x\nESTIMATOR_X=7d\nB=\"\"\n", "line 1 opens a quote, and a setting")]
    #[case::in_quotes_that_never_close("A='x ESTIMATOR_X=7d\n", "line 1 opens a quote, and a setting")]
    // Takes ESTIMATOR_X.
    #[case::after_quotes("\nA='x'ESTIMATOR_X=7d", "line 2 opens a quote, and a setting")]
    // Takes all as the value of A, or as a comment.
    #[case::carriage_return("A=1\rESTIMATOR_X=hunter2", "line 1 has a carriage return within")]
    #[case::carriage_return_in_a_comment("A=1\n# c\rESTIMATOR_X=hunter2\n", "line 2 has a carriage return within")]
    // Takes the bytes as they are.
    #[case::latin_1("ESTIMATOR_X=M\u{fffd}ller", "line 1: ESTIMATOR_X: the value is not UTF-8")]
    #[case::utf_16("E\0S\0T\0I\0M\0A\0T\0O\0R\0_\0X\0=\x001\0", "the file is not UTF-8; save it as UTF-8")]
    fn parse_settings_refuses(#[case] text: &str, #[case] message: &str) {
        let error = parse_settings(text).unwrap_err();
        assert!(error.starts_with(message) && !error.contains("hunter2") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn read_passes_over_a_missing_file_and_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join(".env")).unwrap(), []);
        assert_eq!(read(folder.path()).unwrap(), []);
    }

    #[rstest]
    #[case::pipe("pipe")]
    #[case::device("/dev/zero")]
    fn read_refuses_a_file_without_an_end(#[case] target: &str) {
        let folder = tempfile::tempdir().unwrap();
        assert!(std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
        let path = folder.path().join(".env");
        symlink(target, &path).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.ends_with(".env: it is a pipe or a device, and must be a file; put one in its place or remove it")
        );
    }
}
