//! Our lines of a `.env` file. The file may be another program's, so other lines are passed over, whatever they look like.
//!
//! Readers of such files differ. A line of ours that they read differently is refused, so that no setting is lost or made up. What
//! stands within another variable's quotes is no line, as for docker compose.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use super::SettingsError;
use super::source::PREFIX;

/// What editors on Windows put in front of UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns our variables in a `.env` file; none when there is no such file, or a folder of that name, such as a virtual environment of
/// Python.
pub(super) fn read(path: &Path) -> Result<Vec<(OsString, OsString)>, SettingsError> {
    let failed = |why: String| SettingsError(format!("{}: {why}", path.display()));
    let content = content(path).map_err(|error| failed(error.to_string()))?;
    own_variables(&content, |name| std::env::var(name).ok()).map_err(failed)
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // A pipe that nobody writes to would be waited for.
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

/// A line that is meant for us, from the name on.
struct OwnLine<'a> {
    text: &'a str,
    /// Whether nothing but `export` stands in front of it.
    is_plain: bool,
}

const QUOTES: &str = "a value with spaces, quotes or # must be in quotes, and quotes must be closed";
const ESCAPE: &str =
    "behind a backslash only \\, \", ', $, n and a space are understood; single quotes take a value as it is";
const REFERENCE: &str = "a $ must be followed by the name of a variable that is set, as in ${NAME}; a $ itself is \\$, or stands in single quotes";

/// Parses our lines. An error says which line, and repeats nothing of it but the name: it may hold a password.
fn own_variables(
    content: &[u8],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Vec<(OsString, OsString)>, String> {
    const ENCODING: &str = "not UTF-8; save it as UTF-8";
    let text = String::from_utf8_lossy(content).replace("\r\n", "\n").replace('\r', "\n");
    if text.contains('\0') {
        // ASCII in UTF-16, which PowerShell writes, has a NUL beside each character.
        let text = text.replace('\0', "");
        let is_ours = text.lines().any(|line| own_line(line).is_some());
        return if is_ours { Err(format!("the file is {ENCODING}")) } else { Ok(Vec::new()) };
    }
    let lines: Vec<_> = text.lines().collect();
    let (mut own, mut others, mut next) = (Vec::new(), HashMap::new(), 0);
    while next < lines.len() {
        let (number, count) = (next + 1, line_count(&lines[next..]));
        let statement = lines[next..next + count].join("\n");
        next += count;
        let look_up = |name: &str| environment(name).or_else(|| others.get(name).cloned());
        let Some(OwnLine { text, is_plain }) = own_line(&statement) else {
            if let Some((name, value)) = assignment(&statement)
                && let Ok(value) = parse(value, look_up)
            {
                others.insert(name.to_owned(), value);
            }
            continue;
        };
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return Err(format!("line {number} of the file is {ENCODING}"));
        }
        let (name, value) = assignment(text).ok_or_else(|| format!("line {number} is not NAME=value"))?;
        let value = if !is_plain {
            Err("nothing but export may stand in front of it")
        } else if statement.lines().skip(1).any(|line| assignment(line).is_some()) {
            // A quote that was left open would take another variable with it.
            Err(QUOTES)
        } else {
            parse(value, look_up)
        };
        let value = value.map_err(|why| format!("line {number}: {name}: {why}"))?;
        others.insert(name.to_owned(), value.clone());
        own.push((name.into(), value.into()));
    }
    Ok(own)
}

fn own_line(line: &str) -> Option<OwnLine<'_>> {
    let is_blank = |char: char| char.is_whitespace() || [BYTE_ORDER_MARK, char::REPLACEMENT_CHARACTER].contains(&char);
    let is_word = |word: &str| word.chars().all(|char| char.is_ascii_alphabetic() || char == '-');
    let (mut text, mut is_plain) = (line.trim_start_matches(is_blank), true);
    loop {
        if text.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) {
            return Some(OwnLine { text, is_plain });
        }
        let (word, rest) = text.split_once(char::is_whitespace).filter(|(word, _)| is_word(word))?;
        is_plain &= word == "export";
        text = rest.trim_start();
    }
}

/// Returns the name and the rest of `NAME=` and anything, with or without `export`.
fn assignment(statement: &str) -> Option<(&str, &str)> {
    let (name, value) = statement.split_once('=')?;
    let name = name.trim_matches(|char: char| char.is_whitespace() || char == BYTE_ORDER_MARK);
    let exported = name.strip_prefix("export").filter(|name| name.starts_with(char::is_whitespace));
    let name = exported.map_or(name, str::trim_start);
    let is_name = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
    (!name.is_empty() && name.chars().all(is_name)).then_some((name, value))
}

/// Returns how many of `lines` the first variable takes: several if a quote encloses its value, and is closed on a later one.
///
/// A quote that is never closed, or with more behind it, as an apostrophe has, ends with its line, so that no setting on a later one is
/// lost.
fn line_count(lines: &[&str]) -> usize {
    let value = assignment(lines[0]).map_or("", |(_, value)| value.trim_start());
    let Some(quote) = value.chars().next().filter(|char| ['"', '\'', '`'].contains(char)) else { return 1 };
    let texts = std::iter::once(&value[1..]).chain(lines[1..].iter().copied());
    for (index, text) in texts.enumerate() {
        if let Some(behind) = behind_quote(text, quote) {
            return if is_empty_or_comment(behind) { index + 1 } else { 1 };
        }
    }
    1
}

/// Returns what stands behind the first `quote` in `text`.
fn behind_quote(text: &str, quote: char) -> Option<&str> {
    let mut is_escaped = false;
    for (index, char) in text.char_indices() {
        if char == quote && !is_escaped {
            return Some(&text[index + 1..]);
        }
        is_escaped = quote == '"' && char == '\\' && !is_escaped;
    }
    None
}

fn is_empty_or_comment(text: &str) -> bool {
    text.trim().is_empty() || (text.starts_with(char::is_whitespace) && text.trim_start().starts_with('#'))
}

/// Parses what stands behind `NAME=`.
fn parse(text: &str, look_up: impl Fn(&str) -> Option<String>) -> Result<String, &'static str> {
    if is_empty_or_comment(text) {
        return Ok(String::new());
    }
    let text = text.trim();
    if let Some(text) = text.strip_prefix('\'') {
        let (value, behind) = text.split_once('\'').ok_or(QUOTES)?;
        return if is_empty_or_comment(behind) { Ok(value.to_owned()) } else { Err(QUOTES) };
    }
    let (mut rest, is_quoted) = text.strip_prefix('"').map_or((text, false), |text| (text, true));
    let mut value = String::new();
    while let Some(char) = rest.chars().next() {
        let behind = &rest[char.len_utf8()..];
        rest = behind;
        match char {
            '"' if is_quoted => return if is_empty_or_comment(behind) { Ok(value) } else { Err(QUOTES) },
            '\\' => {
                let escaped = behind.chars().next().filter(|char| "\\\"'$n ".contains(*char)).ok_or(ESCAPE)?;
                value.push(if escaped == 'n' { '\n' } else { escaped });
                rest = &behind[1..];
            }
            '$' => {
                let (name, behind) = reference(behind).ok_or(REFERENCE)?;
                value += &look_up(name).ok_or(REFERENCE)?;
                rest = behind;
            }
            '"' | '\'' | '`' if !is_quoted => return Err(QUOTES),
            _ if char.is_whitespace() && !is_quoted => {
                return if behind.trim_start().starts_with('#') { Ok(value) } else { Err(QUOTES) };
            }
            '#' if value.is_empty() && !is_quoted => return Err(QUOTES),
            _ => value.push(char),
        }
    }
    if is_quoted { Err(QUOTES) } else { Ok(value) }
}

/// Returns the name behind a `$`, and what stands behind the name.
fn reference(text: &str) -> Option<(&str, &str)> {
    let end = |text: &str| text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(text.len());
    let (name, behind) = match text.strip_prefix('{') {
        Some(text) => {
            text.split_at_checked(end(text)).and_then(|(name, rest)| Some((name, rest.strip_prefix('}')?)))?
        }
        None => text.split_at(end(text)),
    };
    name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_').then_some((name, behind))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::*;

    /// What a `.env` file with these bytes sets of ours, where the environment has `HOME_DAYS`.
    fn variables(content: &[u8]) -> Result<Vec<(String, String)>, String> {
        let own = own_variables(content, |name| (name == "HOME_DAYS").then(|| "7d".to_owned()))?;
        let text = |text: OsString| text.into_string().unwrap();
        Ok(own.into_iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn window(value: &str) -> Vec<(String, String)> {
        vec![("ESTIMATOR_WINDOW".to_owned(), value.to_owned())]
    }

    #[rstest]
    #[case::byte_order_mark(b"\xef\xbb\xbfESTIMATOR_WINDOW=7d\n")]
    #[case::export(b"export ESTIMATOR_WINDOW=7d")]
    #[case::blanks(b"  export\tESTIMATOR_WINDOW = 7d \t")]
    #[case::a_comment_behind(b"ESTIMATOR_WINDOW=7d # it's a week, or ${X:-7d}")]
    #[case::latin_1_elsewhere(b"NAME=M\xfcller\nESTIMATOR_WINDOW=7d")]
    #[case::a_variable_of_another(b"DAYS=7d\nESTIMATOR_WINDOW=$DAYS\n")]
    #[case::a_variable_with_a_comment_behind(b"DAYS=7d\nESTIMATOR_WINDOW=$DAYS # a week\n")]
    #[case::a_variable_in_quotes(b"export MY_DAYS='7d'\nESTIMATOR_WINDOW=\"$MY_DAYS\"\n")]
    #[case::a_variable_in_braces(b"MY_DAYS=\"7\"\nESTIMATOR_WINDOW=\"${MY_DAYS}d\"\n")]
    #[case::a_variable_of_the_environment(b"HOME_DAYS=9d\nESTIMATOR_WINDOW=${HOME_DAYS}\n")]
    #[case::single_quotes(b"ESTIMATOR_WINDOW='7d'")]
    #[case::double_quotes(b"ESTIMATOR_WINDOW=\"7d\" # a week\n")]
    fn lines_of_ours_are_read(#[case] content: &[u8]) {
        assert_eq!(variables(content).unwrap(), window("7d"));
    }

    #[rstest]
    #[case::spaces("\"1h 30m\"", "1h 30m")]
    #[case::two_lines("\"redis://a,\n  redis://b\"", "redis://a,\n  redis://b")]
    #[case::single_quotes_take_all(r#"'a"\$b ${X} #c'"#, r#"a"\$b ${X} #c"#)]
    #[case::escapes(r#""a\"\\\$\n\' ""#, "a\"\\$\n' ")]
    #[case::escapes_without_quotes(r"a\$b\ c", "a$b c")]
    #[case::a_hash_within("a#b", "a#b")]
    #[case::empty("", "")]
    #[case::a_comment_alone(" # 7d", "")]
    fn a_value_is_parsed(#[case] text: &str, #[case] value: &str) {
        let content = format!("ESTIMATOR_WINDOW={text}\nOTHER='x'\n");
        assert_eq!(variables(content.as_bytes()).unwrap(), window(value));
    }

    #[rstest]
    #[case::a_value_with_spaces("DATABASE_URL=postgres://x y z")]
    #[case::yaml("FOO: bar")]
    #[case::no_name("hello world")]
    #[case::an_open_quote("MOTD='it is")]
    #[case::an_apostrophe("MOTD=it's")]
    #[case::a_bad_escape(r"PATTERN=\d+")]
    #[case::a_folder_of_windows(r"FOLDER='C:\'")]
    #[case::a_name_with_a_dash("MY-VAR=1")]
    #[case::a_value_of_several_lines("KEY=\"-----BEGIN\nab cd\n-----END\"")]
    #[case::a_name_that_ends_in_ours("MY_ESTIMATOR_WINDOW=x y")]
    #[case::a_comment("# ESTIMATOR_WINDOW=1s")]
    #[case::a_reference("X=${UNSET:-1}")]
    #[case::ours_in_double_quotes("NOTE=\"for example:\nESTIMATOR_WINDOW=1s\nESTIMATOR_WNDOW\n\"")]
    #[case::ours_in_single_quotes("export NOTE='\n  ESTIMATOR_WINDOW=1s' # as an example")]
    #[case::ours_behind_an_escaped_quote("NOTE=\"a \\\"\nESTIMATOR_WINDOW=1s\nb \\d \\\"\"")]
    #[case::ours_in_backquotes("NOTE=`\nESTIMATOR_WINDOW=1s\n`")]
    fn lines_of_other_programs_are_passed_over(#[case] line: &str) {
        for content in [format!("{line}\nESTIMATOR_WINDOW=7d\n"), format!("ESTIMATOR_WINDOW=7d\n{line}")] {
            for content in [content.clone(), content.replace('\n', "\r\n"), content.replace('\n', "\r")] {
                assert_eq!(variables(content.as_bytes()).unwrap(), window("7d"), "{content:?}");
            }
        }
    }

    #[rstest]
    #[case::an_open_quote_and_another("A='it is\nESTIMATOR_WINDOW=7d\nB='it is'\n")]
    #[case::two_apostrophes("A=it's\nESTIMATOR_WINDOW=7d\nB=it's\n")]
    #[case::an_open_quote_and_an_empty_value("A=\"x\nESTIMATOR_WINDOW=7d\nB=\"\"\n")]
    fn no_quote_that_was_left_open_hides_a_setting(#[case] content: &str) {
        assert_eq!(variables(content.as_bytes()).unwrap(), window("7d"));
    }

    #[rstest]
    #[case::spaces(
        "# c\nESTIMATOR_WINDOW=4s\nESTIMATOR_PRUNE_SCHEDULE=0 * * * *\n",
        "line 3: ESTIMATOR_PRUNE_SCHEDULE: a value"
    )]
    #[case::an_open_quote("ESTIMATOR_REDIS_URL='redis://:hunter2@localhost", "line 1: ESTIMATOR_REDIS_URL: a value")]
    #[case::an_open_quote_before_another(
        "ESTIMATOR_REDIS_URL='redis://:hunter2@h\nX=1\nESTIMATOR_WINDOW='4s'",
        "line 1: ESTIMATOR_REDIS_URL: a value"
    )]
    #[case::a_quote_that_takes_another(
        "ESTIMATOR_JWT_ISSUER='a\nX=hunter2\nb'",
        "line 1: ESTIMATOR_JWT_ISSUER: a value"
    )]
    #[case::two_words(
        "X=1\r\n\r\nexport ESTIMATOR_REDIS_URL=redis://h :hunter2\r\n",
        "line 3: ESTIMATOR_REDIS_URL: a value"
    )]
    #[case::an_apostrophe_elsewhere(
        "ESTIMATOR_WINDOW='7d\nPASSWORD=hunter2\nMOTD=it's\n",
        "line 1: ESTIMATOR_WINDOW: a value"
    )]
    #[case::text_behind_a_quote("ESTIMATOR_WINDOW=\"7d\"x", "line 1: ESTIMATOR_WINDOW: a value")]
    #[case::a_comment_at_a_quote("ESTIMATOR_WINDOW='7d'#x", "line 1: ESTIMATOR_WINDOW: a value")]
    #[case::a_quote_within("ESTIMATOR_JWT_ISSUER=it's", "line 1: ESTIMATOR_JWT_ISSUER: a value")]
    #[case::a_hash_first("ESTIMATOR_JWT_ISSUER=#hunter2", "line 1: ESTIMATOR_JWT_ISSUER: a value")]
    #[case::no_equals("ESTIMATOR_REDIS_URL redis://:hunter2@h?db=3", "line 1 is not NAME=value")]
    #[case::a_colon("ESTIMATOR_REDIS_URL: redis://:hunter2=x@h", "line 1 is not NAME=value")]
    #[case::lower_case("\u{feff}estimator_redis_url redis://:hunter2@h", "line 1 is not NAME=value")]
    #[case::a_name_alone("X=1\nexport ESTIMATOR_WINDOW\n", "line 2 is not NAME=value")]
    #[case::a_default("A=1\nESTIMATOR_WINDOW=${X:-7d}", "line 2: ESTIMATOR_WINDOW: a $ must be followed by the name")]
    #[case::a_default_in_quotes("ESTIMATOR_WINDOW=\"${X-7d}\"", "line 1: ESTIMATOR_WINDOW: a $ must be")]
    #[case::a_variable_that_is_not_set("ESTIMATOR_WINDOW=$X", "line 1: ESTIMATOR_WINDOW: a $ must be")]
    #[case::a_variable_set_later("ESTIMATOR_WINDOW=$X\nX=7d", "line 1: ESTIMATOR_WINDOW: a $ must be")]
    #[case::a_variable_that_is_not_understood("X=a b\nESTIMATOR_WINDOW=$X\n", "line 2: ESTIMATOR_WINDOW: a $ must be")]
    #[case::a_command("ESTIMATOR_WINDOW=$(hunter2)", "line 1: ESTIMATOR_WINDOW: a $ must be")]
    #[case::a_password_with_a_dollar("ESTIMATOR_REDIS_URL=redis://:pa$$hunter2@h", "line 1: ESTIMATOR_REDIS_URL: a $")]
    #[case::a_dollar_last("ESTIMATOR_JWT_ISSUER=hunter2$", "line 1: ESTIMATOR_JWT_ISSUER: a $ must be")]
    #[case::another_escape(r"ESTIMATOR_JWT_ISSUER=\hunter2", "line 1: ESTIMATOR_JWT_ISSUER: behind a backslash only")]
    #[case::a_backslash_last("ESTIMATOR_WINDOW=7\\\nd", "line 1: ESTIMATOR_WINDOW: behind a backslash only")]
    #[case::a_list("- ESTIMATOR_WINDOW=7d", "line 1: ESTIMATOR_WINDOW: nothing but export may stand in front of it")]
    #[case::declare("declare -x ESTIMATOR_WINDOW=7d", "line 1: ESTIMATOR_WINDOW: nothing but export may")]
    #[case::another_encoding(
        "X=1\nESTIMATOR_JWT_ISSUER=M\u{fffd}ller\n",
        "line 2 of the file is not UTF-8; save it as UTF-8"
    )]
    fn a_line_of_ours_that_is_not_understood_is_named_and_not_repeated(#[case] text: &str, #[case] message: &str) {
        let error = variables(text.as_bytes()).unwrap_err();
        assert!(error.starts_with(message) && !error.contains("hunter2") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn utf_16_is_named_if_it_has_a_setting() {
        let utf_16 = |text: &str| -> Vec<u8> {
            std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
        };
        let error = variables(&utf_16("OTHER=1\r\nESTIMATOR_WINDOW=7d\r\n")).unwrap_err();
        assert_eq!(error, "the file is not UTF-8; save it as UTF-8");
        assert_eq!(variables(&utf_16("OTHER=x y\r\n")).unwrap(), []);
    }

    #[test]
    fn a_missing_file_and_a_folder_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join(".env")).unwrap(), []);
        assert_eq!(read(folder.path()).unwrap(), []);
    }

    #[rstest]
    #[case::a_pipe("pipe")]
    #[case::a_device("/dev/zero")]
    fn what_would_never_end_is_refused(#[case] target: &str) {
        let folder = tempfile::tempdir().unwrap();
        let mkfifo = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
        assert!(mkfifo.success());
        let path = folder.path().join(".env");
        symlink(target, &path).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.ends_with(".env: it is a pipe or a device, and must be a file; put one in its place or remove it")
        );
    }
}
