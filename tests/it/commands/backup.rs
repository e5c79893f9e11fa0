//! `deploy/backup/backup.sh` and `segment-estimator restore`: a backup that was taken while visits arrive has the counts of
//! one moment.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::helpers::{Redis, Service, binary, eventually, kill, run};

const PASSWORD: &str = "secret";

/// Starts a Redis with a password that sends a backup at once.
fn start_redis() -> Redis {
    Redis::start_with(&["--requirepass", PASSWORD, "--repl-diskless-sync-delay", "0"])
}

/// Runs the script in `folder`, with `password` in a file.
fn back_up(folder: &Path, password: &str, arguments: &[&str], redis: &Redis) -> Output {
    let file = folder.join("password");
    fs::write(&file, password).unwrap();
    run(&mut script(folder, &file, arguments, redis))
}

/// Returns the script with `password_file`, to be run in `folder`.
fn script(folder: &Path, password_file: &Path, arguments: &[&str], redis: &Redis) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/backup/backup.sh");
    let mut command = Command::new("sh");
    command.arg(script).args(arguments).arg("-s").arg(redis.url().strip_prefix("redis+unix://").unwrap());
    command.env("REDIS_PASSWORD_FILE", password_file).env("BACKUP_KEEP", "3").current_dir(folder);
    command
}

/// Runs a command with the password.
fn call(redis: &Redis, command: &[&str]) {
    let url = redis.url() + "?pass=" + PASSWORD;
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    redis::cmd(command[0]).arg(&command[1..]).exec(&mut connection).unwrap();
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
fn backup_of_a_redis_that_hangs_ends_at_its_timeout() {
    let (redis, folder) = (start_redis(), tempfile::tempdir().unwrap());
    let (backups, password) = (folder.path().join("backups"), folder.path().join("password"));
    fs::create_dir(&backups).unwrap();
    fs::write(&password, PASSWORD).unwrap();
    kill("-STOP", redis.pid());
    let output = run(script(folder.path(), &password, &["backups"], &redis).env("BACKUP_TIMEOUT", "1"));
    kill("-CONT", redis.pid());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(
        last_line(&output),
        "backup: failed to take a backup: Redis did not send it within 1 s (BACKUP_TIMEOUT)"
    );
    assert_eq!(files(&backups), [""; 0].map(PathBuf::from));
    for invalid in ["0", "1h", "-1", "1000000"] {
        let output = run(script(folder.path(), &password, &["backups"], &redis).env("BACKUP_TIMEOUT", invalid));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(last_line(&output).starts_with("backup: BACKUP_TIMEOUT must be"), "{output:?}");
    }
}

#[tokio::test]
async fn backup_leaves_the_file_of_another_run_alone_until_its_processes_end() {
    let (redis, folder) = (start_redis(), tempfile::tempdir().unwrap());
    let (backups, pipe) = (folder.path().join("backups"), folder.path().join("pipe"));
    fs::create_dir(&backups).unwrap();
    let partial = backups.join("segment-estimator.partial");
    fs::write(&partial, vec![b'x'; 1 << 20]).unwrap();
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut first = script(folder.path(), &pipe, &["backups"], &redis).spawn().unwrap();
    // Opening succeeds once the run reads the password.
    let writer = fs::File::options().write(true).open(&pipe).unwrap();
    let second = || back_up(folder.path(), PASSWORD, &["backups"], &redis);
    let refused = |output: &Output| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(last_line(output), "backup: another run is writing ./backups/segment-estimator.partial");
    };
    refused(&second());
    assert!(partial.exists());
    kill("-KILL", first.id());
    first.wait().unwrap();
    refused(&second());
    drop(writer);
    eventually("the other run has ended", async || second().status.success()).await;
    let size = files(&backups).pop().unwrap().metadata().unwrap().len();
    assert!(size < 1 << 20, "the end of the killed run's file is in the backup: {size}");
    assert_eq!(files(&backups).len(), 1);
}

#[test]
fn backup_keeps_the_newest_and_removes_partial_files() {
    let (redis, folder) = (start_redis(), tempfile::tempdir().unwrap());
    let backups = folder.path().join("backups");
    fs::create_dir(&backups).unwrap();
    call(&redis, &["SET", "layout", "{}"]);
    // The last one was written by a machine whose clock was wrong.
    let old = ["20260101", "20260102", "20260103", "20360104"];
    let old = old.map(|day| format!("segment-estimator-{day}T021700Z.rdb"));
    let partial = "segment-estimator-20260105T021700Z.rdb.partial".to_owned();
    for name in old.iter().chain([&partial, &"notes.txt".to_owned()]) {
        fs::write(backups.join(name), "").unwrap();
    }
    std::os::unix::fs::symlink("backups", folder.path().join("link")).unwrap();
    let output = back_up(folder.path(), PASSWORD, &["link"], &redis);
    assert!(output.status.success(), "{output:?}");
    let names = || -> Vec<_> {
        files(&backups).iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let kept = names();
    assert_eq!((kept.len(), &kept[0], &kept[1], &kept[3]), (4, &"notes.txt".to_owned(), &old[2], &old[3]), "{kept:?}");
    assert!(back_up(folder.path(), PASSWORD, &["--check", "1", "link"], &redis).status.success());

    call(&redis, &["FLUSHALL"]);
    fs::write(backups.join(&old[0]), "").unwrap();
    assert!(back_up(folder.path(), PASSWORD, &["backups"], &redis).status.success());
    assert!(names().contains(&old[0]), "an empty Redis costs no backup of data: {:?}", names());
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
