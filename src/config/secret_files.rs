//! Files with secrets or settings, and their permissions.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// A file that not every user may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The setting that names the file: `config` or `settings` for a file of settings.
    pub setting: &'static str,
    /// The path of the file.
    pub path: PathBuf,
    /// Whether the content is secret. Public keys, digests and settings are not.
    pub is_secret: bool,
}

/// A file with too wide permissions. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    setting: &'static str,
    path: PathBuf,
    access: &'static str,
    chmod: &'static str,
}

impl SecretFile {
    /// Returns the permissions that every user has and should not have. `None` also if the file is unreadable: its
    /// reader reports that.
    #[must_use]
    pub fn exposure(&self) -> Option<Exposure> {
        const READ: u32 = 0o004;
        const WRITE: u32 = 0o002;
        let mode = fs::metadata(&self.path).ok()?.permissions().mode();
        let (access, chmod) = match (self.is_secret && mode & READ != 0, mode & WRITE != 0) {
            (false, false) => return None,
            (true, false) => ("read", "o-r"),
            (false, true) => ("write", "o-w"),
            (true, true) => ("read and write", "o-rw"),
        };
        Some(Exposure { setting: self.setting, path: self.path.clone(), access, chmod })
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, path, access, chmod } = self;
        let path = path.display();
        write!(f, "{setting}: {path}: every user of this machine can {access} it; run chmod {chmod} {path}")
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::owner_only(true, 0o600, None)]
    #[case::group_writable(true, 0o660, None)]
    #[case::secret_readable(true, 0o644, Some("can read it; run chmod o-r "))]
    #[case::secret_writable(true, 0o602, Some("can write it; run chmod o-w "))]
    #[case::secret_readable_and_writable(true, 0o666, Some("can read and write it; run chmod o-rw "))]
    #[case::digests_readable(false, 0o644, None)]
    #[case::digests_writable(false, 0o666, Some("can write it; run chmod o-w "))]
    fn exposure_names_what_every_user_can_do(
        #[case] is_secret: bool,
        #[case] mode: u32,
        #[case] message: Option<&str>,
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        let secret = SecretFile { setting: "jwt_key_file", path: file.path().to_owned(), is_secret };
        let exposure = secret.exposure().map(|exposure| exposure.to_string());
        assert_eq!(exposure.is_some(), message.is_some(), "{exposure:?}");
        assert!(exposure.is_none_or(|line| line.starts_with("jwt_key_file: ") && line.contains(message.unwrap())));
    }

    #[test]
    fn exposure_of_a_missing_file_is_none() {
        let path = PathBuf::from("/nowhere/secret");
        assert_eq!(SecretFile { setting: "jwt_key_file", path, is_secret: true }.exposure(), None);
    }
}
