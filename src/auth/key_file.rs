//! Changing the file of API keys, which several processes may do at once.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aws_lc_rs::rand;
use data_encoding::HEXLOWER;

use super::keys::ApiKeys;
use crate::small_file;

/// Why the file of API keys can't be changed, in one line.
#[derive(Debug, thiserror::Error)]
#[error("api_keys_file: {0}")]
pub struct KeyFileError(String);

/// The number of attempts to lock the folder. A change takes milliseconds, but every user who may read a folder may
/// lock it for good.
const LOCK_ATTEMPTS: u32 = 1_500;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Appends `entry`, the entry of the key `name`, to the key file at `path`. Creates the file if there is none.
///
/// # Errors
///
/// A [`KeyFileError`] if the file can't be read or replaced, or has a key with this name.
pub(super) fn add(path: &Path, name: &str, entry: &str) -> Result<(), KeyFileError> {
    change(path, |text| {
        let text = text.unwrap_or_default();
        let keys = ApiKeys::parse(text)?;
        if keys.has(name) {
            return Err(format!("already has a key named {name}"));
        }
        let gap = match text {
            "" => "",
            text if text.ends_with("\n\n") => "",
            text if text.ends_with('\n') => "\n",
            _ => "\n\n",
        };
        let changed = format!("{text}{gap}{entry}");
        // An unusual file may have its keys in an inline list, to which no table can be added.
        let is_right = ApiKeys::parse(&changed).is_ok_and(|all| all.has(name) && all.len() == keys.len() + 1);
        if is_right { Ok(changed) } else { Err("its keys must be written as [[key]]".to_owned()) }
    })
}

/// Replaces the content of the key file at `path` with what `changed` returns for it, or for `None` if there is no
/// file. Concurrent changes wait for each other. No reader sees a part of the file, and a crash leaves the old content
/// or the new one.
///
/// # Errors
///
/// A [`KeyFileError`] if the file can't be read or replaced, and the error of `changed`.
pub(super) fn change(
    path: &Path,
    changed: impl FnOnce(Option<&str>) -> Result<String, String>,
) -> Result<(), KeyFileError> {
    let failed = |verb: &str, error: &io::Error| {
        KeyFileError(format!("failed to {verb} {}: {error}{}", path.display(), remedy(error)))
    };
    let (folder, name) = place_of(path).map_err(|error| failed("find", &error))?;
    let lock = lock(&folder)?;
    let file = folder.join(&name);
    let text = match small_file::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", &error)),
    };
    let text = changed(text.as_deref()).map_err(|why| KeyFileError(format!("{}: {why}", path.display())))?;
    replace(&file, &text).and_then(|()| lock.sync_all()).map_err(|error| failed("replace", &error))
}

/// Returns the folder and the name of the file at `path`, which may be missing. A symbolic link stays, and leads to the
/// new file.
fn place_of(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let path = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => return place_of(&folder_of(path).join(target)),
            Err(_) => path.to_owned(),
        },
        path => path?,
    };
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    Ok((folder_of(&path).canonicalize()?, name.into()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Locks `folder` until the returned handle is dropped. The file can't carry the lock, since a change replaces it, and a
/// lock file would stay behind.
fn lock(folder: &Path) -> Result<File, KeyFileError> {
    let failed = |why: &dyn std::fmt::Display| KeyFileError(format!("failed to lock {}: {why}", folder.display()));
    let handle = File::open(folder).map_err(|error| failed(&error))?;
    for _ in 0..LOCK_ATTEMPTS {
        match handle.try_lock() {
            Ok(()) => return Ok(handle),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
    Err(failed(&"another process has held its lock for 30 seconds; `lslocks` names it"))
}

/// Replaces or creates the file at `path`. An existing one keeps its owner and its mode.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let known = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        known => Some(known?),
    };
    // A name of its own: a killed process leaves its file behind.
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| io::Error::other("failed to get random numbers from the system"))?;
    let mut new = path.to_owned().into_os_string();
    new.push(format!(".{}.new", HEXLOWER.encode(&random)));
    // Write access to the file allows adding keys, so only its owner gets it, whatever the umask says.
    let mode = if known.is_some() { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    let mut write = || {
        file.write_all(text.as_bytes())?;
        if let Some(known) = &known {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (known.uid(), known.gid()) {
                fchown(&file, Some(known.uid()), Some(known.gid()))?;
            }
            file.set_permissions(known.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Returns what the user can do about `error`.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ResourceBusy => {
            "; the file is a mount of its own and can't be replaced: mount its folder instead"
        }
        io::ErrorKind::PermissionDenied => {
            "; a change replaces the file: run it as the file's owner, who needs write access to its folder"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tempfile::tempdir;

    use super::*;

    fn entry(name: &str) -> String {
        let digest = HEXLOWER.encode(&super::super::keys::digest_of(name));
        format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\nscopes = []\n")
    }

    #[test]
    fn add_keeps_the_keys_of_concurrent_changes() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        thread::scope(|scope| {
            for thread in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for number in 0..8 {
                        let name = format!("k{thread}-{number}");
                        add(path, &name, &entry(&name)).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        let names: BTreeSet<_> = text.lines().filter(|line| line.starts_with("name = ")).collect();
        assert_eq!((names.len(), ApiKeys::parse(&text).unwrap().len()), (64, 64));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn add_leads_through_links_and_keeps_the_mode_and_other_files() {
        let folder = tempdir().unwrap();
        let [file, link, stale] = ["file", "link", "file.new"].map(|name| folder.path().join(name));
        symlink("file", &link).unwrap();
        fs::write(&stale, "stale").unwrap();
        add(&link, "a", &entry("a")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        add(&link, "b", &entry("b")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{}\n{}", entry("a"), entry("b")));
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&stale).unwrap(), "stale");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn add_refuses_a_file_that_no_entry_can_be_appended_to() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        fs::write(&path, "key = []\n").unwrap();
        let error = add(&path, "a", &entry("a")).unwrap_err().to_string();
        assert!(error.ends_with("keys.toml: its keys must be written as [[key]]"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "key = []\n");
    }

    #[test]
    fn change_that_fails_leaves_the_file_and_the_folder() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        fs::write(&path, entry("a")).unwrap();
        let error = change(&path, |_| Err("why".to_owned())).unwrap_err().to_string();
        assert_eq!(error, format!("api_keys_file: {}: why", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), entry("a"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = change(&folder.path().join("missing/keys.toml"), |_| unreachable!()).unwrap_err().to_string();
        assert!(error.contains("missing/keys.toml: No such file"), "{error}");
    }

    #[test]
    fn remedy_of_a_mounted_file_is_its_folder() {
        let busy = io::Error::from_raw_os_error(rustix::io::Errno::BUSY.raw_os_error());
        assert!(remedy(&busy).ends_with("mount its folder instead"));
    }
}
