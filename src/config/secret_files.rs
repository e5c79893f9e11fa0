//! Files with secrets or settings, and whether everybody on this machine may read or write them.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// A file that not everybody may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The setting, or `settings` for a file that has them.
    pub setting: &'static str,
    /// Where the file is.
    pub path: PathBuf,
    /// Whether nobody may read it either: public keys, digests and settings are no secrets.
    pub is_secret: bool,
}

/// What everybody on this machine may do with a file: one line that names its setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    setting: &'static str,
    path: PathBuf,
    deed: &'static str,
    chmod: &'static str,
}

impl SecretFile {
    /// What everybody may do with it that only few should; `None` also if it can't be looked at, which its reader reports.
    #[must_use]
    pub fn exposure(&self) -> Option<Exposure> {
        const READ: u32 = 0o004;
        const WRITE: u32 = 0o002;
        let mode = fs::metadata(&self.path).ok()?.permissions().mode();
        let (deed, chmod) = match (self.is_secret && mode & READ != 0, mode & WRITE != 0) {
            (false, false) => return None,
            (true, false) => ("read", "o-r"),
            (false, true) => ("write", "o-w"),
            (true, true) => ("read and write", "o-rw"),
        };
        Some(Exposure { setting: self.setting, path: self.path.clone(), deed, chmod })
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, path, deed, chmod } = self;
        let path = path.display();
        write!(f, "{setting}: {path}: everybody on this machine may {deed} it; run chmod {chmod} {path}")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::of_its_owner(true, 0o600, None)]
    #[case::of_its_group(true, 0o660, None)]
    #[case::readable(true, 0o644, Some("may read it; run chmod o-r "))]
    #[case::writable(true, 0o602, Some("may write it; run chmod o-w "))]
    #[case::both(true, 0o666, Some("may read and write it; run chmod o-rw "))]
    #[case::digests_readable(false, 0o644, None)]
    #[case::digests_writable(false, 0o666, Some("may write it; run chmod o-w "))]
    fn exposure_is_what_everybody_may_do(#[case] is_secret: bool, #[case] mode: u32, #[case] message: Option<&str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let secret = SecretFile { setting: "jwt_key_file", path: file.path().to_owned(), is_secret };
        let exposure = secret.exposure().map(|exposure| exposure.to_string());
        assert_eq!(exposure.is_some(), message.is_some(), "{exposure:?}");
        assert!(exposure.is_none_or(|shown| shown.starts_with("jwt_key_file: ") && shown.contains(message.unwrap())));
    }

    #[test]
    fn exposure_of_a_file_that_is_not_there_is_none() {
        let path = PathBuf::from("/nowhere/secret");
        assert_eq!(SecretFile { setting: "jwt_key_file", path, is_secret: true }.exposure(), None);
    }
}
