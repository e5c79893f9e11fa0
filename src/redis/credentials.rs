//! Credentials and certificates that are set beside the URL.

use std::fmt;
use std::path::{Path, PathBuf};

use redis::RedisConnectionInfo;

use crate::small_file;

/// The user, and the file with the password. They replace those of the URL.
///
/// The file is read for each connection, so that a renewed password is used without a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The user of Redis's ACL.
    pub username: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
}

/// The files with certificates. They are read for each connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The file with the trusted CA certificates; the system's if `None`.
    pub ca_file: Option<PathBuf>,
    /// The client certificate, for a server that requires one.
    pub client_files: Option<ClientFiles>,
}

/// The files of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate and the intermediate ones.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// The user, the password and the database of a new connection, with the current content of the files. `Debug` shows
/// the database alone.
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) db: i64,
}

impl Login {
    /// Reads the login from `settings`.
    pub(crate) fn new(settings: &RedisConnectionInfo) -> Self {
        Self {
            username: settings.username().map(str::to_owned),
            password: settings.password().map(str::to_owned),
            db: settings.db(),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("db", &self.db).finish_non_exhaustive()
    }
}

/// Reads the password from the file of the setting `redis_password_file`, without a byte order mark and the line end.
///
/// # Errors
///
/// A line that names the setting and the file.
pub(crate) fn read_password(path: &Path) -> Result<String, String> {
    const NAME: &str = "redis_password_file";
    let text = String::from_utf8(read_file(NAME, path)?);
    // ASCII in UTF-16 is UTF-8 with a NUL beside each character.
    let mut text = text
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| format!("{NAME}: {} is not UTF-8; save it as UTF-8", path.display()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() { Err(format!("{NAME}: {} is empty", path.display())) } else { Ok(text) }
}

/// Reads the file of the setting `name`, without the byte order mark that editors on Windows write.
pub(crate) fn read_file(name: &str, path: &Path) -> Result<Vec<u8>, String> {
    let mut content =
        small_file::read(path).map_err(|error| format!("{name}: failed to read {}: {error}", path.display()))?;
    if content.starts_with(b"\xef\xbb\xbf") {
        content.drain(..3);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn password_in(content: &[u8]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read_password(file.path())
    }

    #[rstest]
    #[case::no_line_end(b"hunter2", "hunter2")]
    #[case::line_end(b"hunter2\n", "hunter2")]
    #[case::crlf(b"hunter2\r\n", "hunter2")]
    #[case::second_line_end(b"hunter2\n\n", "hunter2\n")]
    #[case::spaces(b" hunter 2\t\n", " hunter 2\t")]
    #[case::byte_order_mark(b"\xef\xbb\xbfhunter2", "hunter2")]
    #[case::byte_order_mark_and_crlf(b"\xef\xbb\xbfhunter2\r\n", "hunter2")]
    fn read_password_strips_one_line_end(#[case] content: &[u8], #[case] password: &str) {
        assert_eq!(password_in(content).unwrap(), password);
    }

    #[rstest]
    #[case::empty(b"", "is empty")]
    #[case::line_end_alone(b"\n", "is empty")]
    #[case::byte_order_mark_alone(b"\xef\xbb\xbf\r\n", "is empty")]
    #[case::not_utf_8(b"hunter2\xff", "is not UTF-8; save it as UTF-8")]
    #[case::utf_16(b"\xff\xfeh\0u\0", "is not UTF-8; save it as UTF-8")]
    #[case::utf_16_without_a_mark(b"h\0u\0n\0", "is not UTF-8; save it as UTF-8")]
    fn read_password_names_an_unusable_file(#[case] content: &[u8], #[case] why: &str) {
        let error = password_in(content).unwrap_err();
        assert!(error.starts_with("redis_password_file: /") && error.ends_with(why), "{error}");
    }
}
