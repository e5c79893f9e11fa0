//! `deploy/backup/backup.sh` and `segment-estimator restore`: a backup that was taken while visits arrive has the counts of
//! one moment.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::helpers::{Redis, Service, binary, run};

const PASSWORD: &str = "secret";

/// Starts a Redis with a password that sends a backup at once.
fn start_redis() -> Redis {
    Redis::start_with(&["--requirepass", PASSWORD, "--repl-diskless-sync-delay", "0"])
}

/// Runs the script in `folder`, with `password` in a file.
fn back_up(folder: &Path, password: &str, arguments: &[&str], redis: &Redis) -> Output {
    let file = folder.join("password");
    fs::write(&file, password).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/backup/backup.sh");
    let mut command = Command::new("sh");
    command.arg(script).args(arguments).env("REDIS_PASSWORD_FILE", file).env("BACKUP_KEEP", "3").current_dir(folder);
    run(command.arg("-s").arg(redis.url().strip_prefix("redis+unix://").unwrap()))
}

/// Returns the files in `folder`, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn last_line(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn backup_is_restored_five_times_with_its_counts() {
    let (redis, folder) = (start_redis(), tempfile::tempdir().unwrap());
    let backups = folder.path().join("backups");
    fs::create_dir(&backups).unwrap();
    fs::write(folder.path().join("redis-password"), PASSWORD).unwrap();
    let service =
        Service::start(folder.path(), &["--redis-url", &redis.url(), "--redis-password-file", "redis-password"]);
    for drill in 1..=5_u64 {
        service.record(&format!("u{drill}"), "sports").await;
        let output = back_up(folder.path(), PASSWORD, &["backups"], &redis);
        assert!(output.status.success(), "{output:?}");
        service.record("later", "sports").await;

        let backup = files(&backups).pop().unwrap();
        assert_eq!(backup.metadata().unwrap().permissions().mode() & 0o777, 0o600, "it has ids of users");
        let restored = run(binary(folder.path()).arg("restore").arg(&backup));
        assert!(restored.status.success(), "{restored:?}");
        let private = Service::start(folder.path(), &[]);
        assert_eq!(private.count("sports").await, drill + u64::from(drill > 1), "with `later` of the drill before");
        assert!(private.terminate().success());
        assert_eq!(service.count("sports").await, drill + 1, "a backup changes nothing");
        // A backup has the second of its time in its name.
        fs::rename(&backup, backups.join(format!("segment-estimator-20260101T00000{drill}Z.rdb"))).unwrap();
    }
}

#[test]
fn backup_keeps_the_newest_and_removes_partial_files() {
    let (redis, folder) = (start_redis(), tempfile::tempdir().unwrap());
    let backups = folder.path().join("backups");
    fs::create_dir(&backups).unwrap();
    let old = ["1", "2", "3", "4"].map(|day| format!("segment-estimator-2026010{day}T021700Z.rdb"));
    let partial = "segment-estimator-20260105T021700Z.rdb.partial".to_owned();
    for name in old.iter().chain([&partial, &"notes.txt".to_owned()]) {
        fs::write(backups.join(name), "").unwrap();
    }
    let output = back_up(folder.path(), PASSWORD, &["backups"], &redis);
    assert!(output.status.success(), "{output:?}");
    let names: Vec<_> =
        files(&backups).iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(names[..3], ["notes.txt", &old[2], &old[3]]);
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(back_up(folder.path(), PASSWORD, &["--check", "1", "backups"], &redis).status.success());
}

#[test]
fn backup_that_fails_says_why_and_removes_nothing() {
    let (redis, folder) = (start_redis(), tempfile::tempdir().unwrap());
    let backups = folder.path().join("backups");
    fs::create_dir(&backups).unwrap();
    let old = ["1", "2", "3", "4"].map(|day| backups.join(format!("segment-estimator-2026010{day}T021700Z.rdb")));
    for file in &old {
        fs::write(file, "").unwrap();
    }
    let expected = [
        (
            back_up(folder.path(), "wrong", &["backups"], &redis),
            "backup: failed to take a backup: AUTH failed: WRONGPASS",
        ),
        (back_up(folder.path(), PASSWORD, &["missing"], &redis), "backup: ./missing is no folder"),
        (back_up(folder.path(), PASSWORD, &["--every", "0", "backups"], &redis), "backup: usage: backup.sh "),
    ];
    for (output, message) in expected {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(last_line(&output).starts_with(message), "{output:?}");
    }
    let recent = tempfile::tempdir().unwrap();
    let check = back_up(folder.path(), PASSWORD, &["--check", "1", recent.path().to_str().unwrap()], &redis);
    assert_eq!(check.status.code(), Some(1), "{check:?}");
    assert!(last_line(&check).starts_with("backup: there is no backup of the last 1 hours in "), "{check:?}");
    assert_eq!(files(&backups), old);
}
