//! What a connection to Redis needs beside the URL: who we are, and whom we trust.

use std::path::{Path, PathBuf};

/// Who we are to Redis, and whom we trust to be it. `Debug` shows names of files, never what is in them.
///
/// Files are read again whenever a connection is made, so that a secret that was renewed is used without a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The user of Redis's ACL.
    pub username: Option<String>,
    /// The file that holds the password.
    pub password_file: Option<PathBuf>,
    /// The file with the certificates that Redis's may be signed by; without it, those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate, for a Redis that asks for one.
    pub client_files: Option<ClientFiles>,
}

/// The two files of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate, and those between it and the CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The password in the file of the setting `redis_password_file`: all of it but a byte order mark and the end of its line.
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

/// Reads the file that the setting `name` names, without the byte order mark that editors on Windows put in front.
pub(crate) fn read_file(name: &str, path: &Path) -> Result<Vec<u8>, String> {
    let mut content = std::fs::read(path).map_err(|error| format!("{name}: can't read {}: {error}", path.display()))?;
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
    #[case(b"hunter2", "hunter2")]
    #[case(b"hunter2\n", "hunter2")]
    #[case(b"hunter2\r\n", "hunter2")]
    #[case(b"hunter2\n\n", "hunter2\n")]
    #[case(b" hunter 2\t\n", " hunter 2\t")]
    #[case::byte_order_mark(b"\xef\xbb\xbfhunter2", "hunter2")]
    #[case::byte_order_mark_and_crlf(b"\xef\xbb\xbfhunter2\r\n", "hunter2")]
    fn a_password_is_a_file_without_the_end_of_its_line(#[case] content: &[u8], #[case] password: &str) {
        assert_eq!(password_in(content).unwrap(), password);
    }

    #[rstest]
    #[case(b"", "is empty")]
    #[case(b"\n", "is empty")]
    #[case::byte_order_mark_alone(b"\xef\xbb\xbf\r\n", "is empty")]
    #[case(b"hunter2\xff", "is not UTF-8; save it as UTF-8")]
    #[case::utf_16(b"\xff\xfeh\0u\0", "is not UTF-8; save it as UTF-8")]
    #[case::utf_16_without_a_mark(b"h\0u\0n\0", "is not UTF-8; save it as UTF-8")]
    fn a_file_that_holds_no_password_is_named(#[case] content: &[u8], #[case] why: &str) {
        let error = password_in(content).unwrap_err();
        assert!(error.starts_with("redis_password_file: /") && error.ends_with(why), "{error}");
    }
}
