//! The folder of the private Redis. It belongs to this user alone. It is refused if another user could have put
//! something there.
//!
//! ssh and PostgreSQL do the same. The append-only file holds every user's id, and the service trusts any answer from
//! the socket.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::EmbeddedError;
use super::log::APPEND_ONLY_DIR;

const ROOT: u32 = 0;
const WRITABLE_BY_ALL: u32 = 0o002;
/// In a folder with this bit, only the owner of an entry can rename or remove it.
const STICKY: u32 = 0o1000;

/// The remedy for an entry that should be a file. Removing the lock of a running service would let a second Redis
/// start.
const REMOVE: &str = "when no service runs on this folder, remove it";

/// Returns the folder of the private Redis in `data_dir`.
pub(super) fn dir_in(data_dir: &Path) -> PathBuf {
    data_dir.join("redis")
}

/// Creates `data_dir` and the folder `redis` in it. Returns the path of the latter. A `data_dir` that exists keeps its
/// permissions, and may be a link or a mount.
///
/// # Errors
///
/// [`EmbeddedError::Folder`] if a folder can't be made or used, [`EmbeddedError::Untrusted`] if another user could
/// change its content.
pub(super) fn prepare(data_dir: &Path) -> Result<PathBuf, EmbeddedError> {
    prepare_as(data_dir, rustix::process::geteuid().as_raw())
}

/// As [`prepare`], for a process whose effective user is `user`.
fn prepare_as(data_dir: &Path, user: u32) -> Result<PathBuf, EmbeddedError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| EmbeddedError::Folder { path, source }
    };
    // The path as it is written is checked before anything is created there. The path without links is checked
    // afterwards.
    check_path(&std::path::absolute(data_dir).map_err(failed(data_dir))?, user)?;
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed(data_dir))?;
    let data_dir = data_dir.canonicalize().map_err(failed(data_dir))?;
    check_path(&data_dir, user)?;

    let dir = dir_in(&data_dir);
    match DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&dir)(error)),
        _ => {}
    }
    let found = fs::symlink_metadata(&dir).map_err(failed(&dir))?;
    check_entry(&dir, &found, &[user], user)?;
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    let handle = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&dir);
    let set = handle.and_then(|handle| handle.set_permissions(Permissions::from_mode(0o700)));
    set.map_err(failed(&dir))?;
    for folder in [dir.clone(), dir.join(APPEND_ONLY_DIR)] {
        check_entries(&folder, user).map_err(failed(&folder))??;
    }
    Ok(dir)
}

/// Opens a file in the folder, and creates it if needed. Anything else of that name is an error. Opening a pipe doesn't
/// block.
pub(super) fn open(path: &Path, options: &mut OpenOptions) -> Result<File, EmbeddedError> {
    let failed = |source| EmbeddedError::Folder { path: path.to_owned(), source };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.create(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(untrusted(path, format!("is not a file; {REMOVE}, and the service creates it again")));
    }
    Ok(file)
}

/// Opens a file in the folder to append to it. If the file has further hard links, such as a snapshot, a new file
/// replaces it, so that the snapshot stays as it is.
pub(super) fn open_to_append(path: &Path) -> Result<File, EmbeddedError> {
    let failed = |source| EmbeddedError::Folder { path: path.to_owned(), source };
    let file = open(path, OpenOptions::new().append(true))?;
    if file.metadata().map_err(failed)?.nlink() <= 1 {
        return Ok(file);
    }
    fs::remove_file(path).map_err(failed)?;
    open(path, OpenOptions::new().append(true))
}

/// Refuses a path if another user could rename a part of it. Parts that don't exist yet are not checked.
///
/// A group may write: Kubernetes (`fsGroup`) and systems with a group for each user grant that by default, and the
/// administrator chooses the members of the group.
fn check_path(path: &Path, user: u32) -> Result<(), EmbeddedError> {
    let parts: Vec<_> = path.ancestors().collect();
    for part in parts.into_iter().rev() {
        let Ok(found) = fs::symlink_metadata(part) else { return Ok(()) };
        if ![ROOT, user].contains(&found.uid()) {
            let why = format!(
                "belongs to the user {}, who could put other data in its place; choose a folder below those of root and \
                 of the user {user}, which the service runs as",
                found.uid()
            );
            return Err(untrusted(part, why));
        }
        if found.is_dir() && found.mode() & (WRITABLE_BY_ALL | STICKY) == WRITABLE_BY_ALL {
            const WHY: &str = "can be written by every user, who could put other data in its place; choose another folder, or \
                               take that right away with `chmod o-w`";
            return Err(untrusted(part, WHY.to_owned()));
        }
    }
    Ok(())
}

/// Refuses a folder that contains a link, a pipe, a device, or an entry that belongs to neither `user` nor root.
fn check_entries(folder: &Path, user: u32) -> io::Result<Result<(), EmbeddedError>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
        // Redis reports that it is not a folder.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Ok(())),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // A running Redis may have removed it in the meantime.
        let Ok(found) = entry.metadata() else { continue };
        if let Err(error) = check_entry(&entry.path(), &found, &[ROOT, user], user) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn check_entry(path: &Path, found: &Metadata, owners: &[u32], user: u32) -> Result<(), EmbeddedError> {
    if found.is_symlink() {
        const WHY: &str = "is a link, which could lead to files of another user; replace it with its target, or make data_dir itself \
                           the link";
        return Err(untrusted(path, WHY.to_owned()));
    }
    let kind = found.file_type();
    if kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        let what = if kind.is_fifo() { "a pipe" } else { "a device" };
        return Err(untrusted(path, format!("is {what}, but must be a file; {REMOVE}")));
    }
    // Redis's folder was created with mode 0700.
    if found.is_dir() && found.mode() & WRITABLE_BY_ALL != 0 {
        const WHY: &str = "can be written by every user, who could have put something there; look at what it holds, and take that \
                           right away with `chmod o-w`";
        return Err(untrusted(path, WHY.to_owned()));
    }
    if owners.contains(&found.uid()) {
        return Ok(());
    }
    let why = format!(
        "belongs to the user {}, and the service runs as {user}; run it as that user, or look at what it holds and `chown -R \
         {user}` it",
        found.uid()
    );
    Err(untrusted(path, why))
}

fn untrusted(path: &Path, why: String) -> EmbeddedError {
    EmbeddedError::Untrusted { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use rstest::rstest;

    use super::*;

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    /// Returns a folder `data/redis` with the files of a Redis that has run in it.
    fn used() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let redis = prepare(&folder.path().join("data")).unwrap();
        fs::create_dir(redis.join(APPEND_ONLY_DIR)).unwrap();
        for name in ["redis.log", "service.lock", "redis.sock", "appendonlydir/appendonly.aof.manifest"] {
            fs::write(redis.join(name), "").unwrap();
        }
        (folder, redis)
    }

    fn refusal(data_dir: &Path, user: u32) -> String {
        let error = prepare_as(data_dir, user).unwrap_err();
        assert!(matches!(error, EmbeddedError::Untrusted { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn prepare_accepts_the_folder_that_it_created() {
        let (folder, redis) = used();
        fs::set_permissions(&redis, Permissions::from_mode(0o2770)).unwrap();
        assert_eq!(prepare(&folder.path().join("data")).unwrap(), redis);
        assert_eq!(fs::metadata(&redis).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn prepare_accepts_a_data_dir_that_is_a_link_or_that_a_group_may_write() {
        let (folder, redis) = used();
        let link = folder.path().join("link");
        symlink(folder.path().join("data"), &link).unwrap();
        assert_eq!(prepare(&link).unwrap(), redis);
        fs::set_permissions(folder.path().join("data"), Permissions::from_mode(0o2775)).unwrap();
        assert_eq!(prepare(&link).unwrap(), redis);
    }

    #[rstest]
    #[case::folder("redis")]
    #[case::log("redis/redis.log")]
    #[case::lock("redis/service.lock")]
    #[case::socket("redis/redis.sock")]
    #[case::append_only_dir("redis/appendonlydir")]
    #[case::append_only_file("redis/appendonlydir/appendonly.aof.manifest")]
    fn prepare_refuses_a_link_and_leaves_its_target_unchanged(#[case] name: &str) {
        let (folder, _) = used();
        let (path, moved) = (folder.path().join("data").join(name), folder.path().join("elsewhere"));
        fs::rename(&path, &moved).unwrap();
        fs::set_permissions(&moved, Permissions::from_mode(0o755)).unwrap();
        symlink(&moved, &path).unwrap();
        let error = refusal(&folder.path().join("data"), own_uid());
        assert!(error.starts_with(&format!("data_dir: {} is a link", path.display())), "{error}");
        assert_eq!(fs::metadata(&moved).unwrap().mode() & 0o777, 0o755);
    }

    #[rstest]
    #[case::parent_folder("above")]
    #[case::data_dir("above/data")]
    fn prepare_refuses_a_folder_that_every_user_can_write(#[case] name: &str) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("above/data");
        fs::create_dir_all(&data).unwrap();
        let open = folder.path().join(name);
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let error = refusal(&data, own_uid());
        assert!(error.starts_with(&format!("data_dir: {} can be written by every user", open.display())), "{error}");
        assert!(!data.join("redis").exists());

        fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
        prepare(&data).unwrap();
    }

    #[rstest]
    #[case::folder("redis")]
    #[case::append_only_dir("redis/appendonlydir")]
    fn prepare_refuses_a_folder_of_redis_that_every_user_can_write(#[case] name: &str) {
        let (folder, _) = used();
        let open = folder.path().join("data").join(name);
        for mode in [0o777, 0o1777] {
            fs::set_permissions(&open, Permissions::from_mode(mode)).unwrap();
            let error = refusal(&folder.path().join("data"), own_uid());
            assert!(
                error.starts_with(&format!("data_dir: {} can be written by every user", open.display())),
                "{error}"
            );
            assert_eq!(fs::metadata(&open).unwrap().mode() & 0o7777, mode);
        }
    }

    #[rstest]
    #[case::log("redis/redis.log")]
    #[case::lock("redis/service.lock")]
    #[case::socket("redis/redis.sock")]
    #[case::rdb_file("redis/dump.rdb")]
    #[case::append_only_file_of_redis_6("redis/appendonly.aof")]
    #[case::append_only_dir("redis/appendonlydir")]
    #[case::manifest("redis/appendonlydir/appendonly.aof.manifest")]
    fn prepare_refuses_a_pipe(#[case] name: &str) {
        let (folder, _) = used();
        let path = folder.path().join("data").join(name);
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir_all(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = refusal(&folder.path().join("data"), own_uid());
        assert!(error.starts_with(&format!("data_dir: {} is a pipe", path.display())), "{error}");
    }

    #[test]
    fn prepare_accepts_hard_links_to_the_files_of_redis() {
        let (folder, redis) = used();
        let manifest = redis.join("appendonlydir/appendonly.aof.manifest");
        fs::hard_link(manifest, folder.path().join("backup")).unwrap();
        prepare(&folder.path().join("data")).unwrap();
    }

    #[test]
    fn prepare_refuses_files_of_another_user() {
        let (folder, _) = used();
        let another = own_uid() + 1;
        let error = refusal(&folder.path().join("data"), another);
        // Root may own the folders above, but not the data.
        let first = if own_uid() == ROOT { folder.path().join("data/redis") } else { folder.path().to_owned() };
        assert!(
            error.starts_with(&format!("data_dir: {} belongs to the user {}", first.display(), own_uid())),
            "{error}"
        );
        assert!(error.contains(&another.to_string()), "{error}");
    }

    #[rstest]
    #[case::link(|target: &Path, path: &Path| symlink(target, path).unwrap(), "failed to use")]
    #[case::pipe(
        |_: &Path, path: &Path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
        "failed to use"
    )]
    #[case::device(|_: &Path, path: &Path| symlink("/dev/null", path).unwrap(), "failed to use")]
    #[case::folder(|_: &Path, path: &Path| fs::create_dir(path).unwrap(), "failed to use")]
    fn open_accepts_only_files(#[case] make: fn(&Path, &Path), #[case] message: &str) {
        let (folder, redis) = used();
        let (target, path) = (folder.path().join("target"), redis.join("redis.log"));
        fs::write(&target, "precious").unwrap();
        fs::remove_file(&path).unwrap();
        make(&target, &path);
        let error = open(&path, OpenOptions::new().append(true)).unwrap_err().to_string();
        assert!(error.starts_with("data_dir: ") && error.contains(message), "{error}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
        assert!(open(&redis.join("redis.lock"), OpenOptions::new().write(true)).is_ok());
    }

    #[test]
    fn open_keeps_a_lock_with_further_hard_links() {
        let (folder, redis) = used();
        let (path, other) = (redis.join("service.lock"), folder.path().join("snapshot"));
        fs::hard_link(&path, &other).unwrap();
        let lock = open(&path, OpenOptions::new().write(true)).unwrap();
        assert_eq!(lock.metadata().unwrap().ino(), fs::metadata(&other).unwrap().ino());
    }

    #[test]
    fn open_to_append_replaces_a_file_with_further_hard_links() {
        let (folder, redis) = used();
        let (path, other) = (redis.join("redis.log"), folder.path().join("snapshot"));
        fs::write(&path, "before").unwrap();
        fs::hard_link(&path, &other).unwrap();
        for expected in ["x", "xx"] {
            open_to_append(&path).unwrap().write_all(b"x").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert_eq!(fs::read_to_string(&other).unwrap(), "before");
        }
    }

    #[test]
    fn open_refuses_a_pipe_with_a_reader() {
        let (_folder, redis) = used();
        let path = redis.join("redis.log");
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader =
            OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&path).unwrap();
        let error = open(&path, OpenOptions::new().append(true)).unwrap_err().to_string();
        assert!(error.contains("is not a file; when no service runs"), "{error}");
        drop(reader);
    }
}
