//! Reading the files that settings name: keys, certificates and passwords.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::OFlags;

/// The largest size of a file, in bytes. It has room for 100,000 API keys.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Reads the regular file at `path`.
///
/// A service reads its files again while it runs. It must not wait for the writer of a pipe, nor read without end.
///
/// # Errors
///
/// An error of the file, and one that says what it is if it isn't a regular file of at most 16 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe waits for its writer otherwise.
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(content)
}

/// Reads the regular file at `path`, a text.
///
/// # Errors
///
/// As [`read`], and if the file isn't UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| not_utf8())
}

fn not_utf8() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")
}

/// The contents of several files, read once, so that what is compared is what is loaded. Not `Debug`: they are secrets.
pub struct Contents(BTreeMap<PathBuf, io::Result<Vec<u8>>>);

/// A digest of the contents of several files. A file that can't be read counts by its error.
pub type Fingerprint = Vec<u8>;

impl Contents {
    /// Reads the files at `paths`.
    #[must_use]
    pub fn read(paths: &[PathBuf]) -> Self {
        Self(paths.iter().map(|path| (path.clone(), read(path))).collect())
    }

    /// Returns the content of the file at `path`.
    ///
    /// # Errors
    ///
    /// As [`read`].
    pub fn of(&self, path: &Path) -> io::Result<&[u8]> {
        match self.0.get(path) {
            Some(Ok(content)) => Ok(content),
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Returns the content of the file at `path`, a text.
    ///
    /// # Errors
    ///
    /// As [`read_to_string`].
    pub fn text_of(&self, path: &Path) -> io::Result<&str> {
        str::from_utf8(self.of(path)?).map_err(|_| not_utf8())
    }

    /// Returns a digest of all contents.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut digest = Context::new(&SHA256);
        for content in self.0.values() {
            let error = content.as_ref().err().map(|error| error.to_string().into_bytes());
            let (tag, bytes) = match (content, &error) {
                (Ok(content), _) => (b'+', content.as_slice()),
                (Err(_), error) => (b'-', error.as_deref().unwrap_or_default()),
            };
            digest.update(&[tag]);
            digest.update(&bytes.len().to_le_bytes());
            digest.update(bytes);
        }
        digest.finish().as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{FileType, Mode, mknodat};
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn read_refuses_pipes_devices_folders_and_large_files() {
        let folder = tempdir().unwrap();
        let [pipe, large, fits] = ["pipe", "large", "fits"].map(|name| folder.path().join(name));
        mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        File::create(&fits).unwrap().set_len(MAX_BYTES).unwrap();
        for path in [&pipe, folder.path(), Path::new("/dev/zero")] {
            assert_eq!(read(path).unwrap_err().to_string(), "it is not a regular file", "{}", path.display());
        }
        assert_eq!(read(&large).unwrap_err().to_string(), "it is larger than 16 MiB");
        assert_eq!(read(&fits).unwrap().len() as u64, MAX_BYTES);
    }
}
