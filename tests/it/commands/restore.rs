//! `segment-estimator restore`: replaces the data of the private Redis with a backup, or changes nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;

use crate::helpers::{Redis, Service, binary, eventually, private_redis, private_redis_connection, refusal, run};

const BACKUP: &str = "backup.rdb";

/// The command that records a data set.
const RECORD: &str =
    "*3\r\n$3\r\nSET\r\n$6\r\nlayout\r\n$51\r\n{\"epoch\":1,\"keys\":\"plain\",\"window_seconds\":1209600}\r\n";

/// Takes a backup of the private Redis of the running service in `folder`, as docs/backup.md does.
fn back_up(folder: &Path) {
    // Without this Redis waits for further replicas.
    let mut connection = private_redis_connection(folder);
    redis::cmd("CONFIG").arg(&["SET", "repl-diskless-sync-delay", "0"]).exec(&mut connection).unwrap();
    dump(&private_redis(folder).join("redis.sock"), folder);
}

/// Writes the backup of the Redis on `socket` into `folder`.
fn dump(socket: &Path, folder: &Path) {
    let cli = Command::new("redis-cli").arg("-s").arg(socket).args(["--rdb", BACKUP]).current_dir(folder).output();
    let cli = cli.unwrap();
    assert!(cli.status.success(), "{cli:?}");
}

fn restore(folder: &Path) -> Command {
    let mut command = binary(folder);
    command.args(["restore", BACKUP]);
    command
}

/// Returns the entries that restores have left in the folder of the private Redis.
fn traces(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(private_redis(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains("restore")).collect();
    names.sort();
    names
}

/// Returns the folder of a stopped service with two users in sports, and a backup with the first of them.
async fn stopped_service() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u1", "sports").await;
    back_up(folder.path());
    service.record("u2", "sports").await;
    assert!(service.terminate().success());
    folder
}

/// Returns the count of sports in a service on the data in `folder`.
async fn count(folder: &Path) -> u64 {
    let service = Service::start(folder, &[]);
    let count = service.count("sports").await;
    assert!(service.terminate().success());
    count
}

#[tokio::test]
async fn restore_replaces_the_data_and_keeps_the_old_data_each_time() {
    let folder = stopped_service().await;
    let mut replaced = Vec::new();
    for _ in 0..5 {
        let Output { status, stdout, stderr } = run(&mut restore(folder.path()));
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        let stdout = String::from_utf8(stdout).unwrap();
        assert!(
            stdout.starts_with(
                "restored backup.rdb: Redis serves its data (keys: 3, members: 2, segments: 1); the data from before is in "
            ),
            "{stdout}"
        );
        let old_data = PathBuf::from(stdout.trim().rsplit_once(" is in ").unwrap().1);
        assert!(old_data.join("appendonlydir").is_dir() || old_data.join("appendonly.aof").is_file(), "{stdout}");
        replaced.push(old_data.file_name().unwrap().to_str().unwrap().to_owned());
        assert_eq!(traces(folder.path()), replaced, "each has a name of its own");

        let service = Service::start(folder.path(), &[]);
        assert_eq!(service.count("sports").await, 1);
        service.record("u3", "sports").await;
        assert_eq!(service.count("sports").await, 2);
        assert!(service.terminate().success());
    }
}

#[tokio::test]
async fn restore_creates_a_data_set_in_a_new_folder() {
    let folder = stopped_service().await;
    fs::remove_dir_all(folder.path().join("data")).unwrap();
    assert!(run(&mut restore(folder.path())).status.success());
    assert_eq!(count(folder.path()).await, 1);
}

#[tokio::test]
async fn restore_accepts_an_append_only_file_of_commands() {
    let folder = stopped_service().await;
    let zadd = format!("*4\r\n$4\r\nZADD\r\n$14\r\nsegment:sports\r\n$10\r\n{}\r\n", "9999999999");
    let commands: String = ["$1\r\na\r\n", "$1\r\nb\r\n", "$1\r\nc\r\n"].map(|user| format!("{zadd}{user}")).concat();
    fs::write(folder.path().join(BACKUP), commands + RECORD).unwrap();
    let Output { status, stdout, stderr } = run(&mut restore(folder.path()));
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert!(String::from_utf8(stdout).unwrap().contains("its data (keys: 2, members: 3, segments: 0)"));
}

#[rstest]
#[case::cut_off(|file: Vec<u8>| file[..file.len() - 20].to_vec(), "the backup is damaged, or of a later version than this Redis: ")]
#[case::changed_byte(|mut file: Vec<u8>| { let middle = file.len() - 30; file[middle] ^= 1; file }, "the backup is damaged, ")]
#[case::later_version(|mut file: Vec<u8>| { file[5..9].copy_from_slice(b"9999"); file }, "version than this Redis: ")]
#[case::trailing_bytes(
    |file: Vec<u8>| [&file[..], b"trailing bytes"].concat(),
    "14 bytes stand behind the end of the RDB file, as `redis-cli --rdb -` writes them; take the backup again, into a file; no"
)]
#[case::trailing_commands(
    |file: Vec<u8>| [&file[..], RECORD.as_bytes()].concat(),
    "the file is an append-only file that begins as an RDB file and goes on with commands, as appendonly.aof of Redis 6 is; start a Redis on it"
)]
#[case::empty(|_| Vec::new(), "the file is no backup: it begins neither as an RDB file nor as an append-only file")]
#[case::compressed(|_| vec![0x1f, 0x8b, 8, 0, 0], "(unpack a packed one)")]
#[case::empty_redis(|_| b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n".to_vec(), "the backup is empty; ")]
#[case::truncated_commands(
    |_| b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\na".to_vec(),
    "Redis doesn't load the backup: it breaks off within a command; no data"
)]
#[case::commands_and_other_bytes(
    |_| [RECORD.as_bytes(), b"nonsense\r\n"].concat(),
    "Redis doesn't load the backup: something in it is no command; no data"
)]
#[case::another_database(
    |_| [b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n", RECORD.as_bytes()].concat(),
    "the backup has 1 keys in database 3, and the private Redis has database 0 alone; no data"
)]
#[case::another_program(
    |_| b"*4\r\n$4\r\nZADD\r\n$8\r\nsegments\r\n$1\r\n7\r\n$1\r\na\r\n".to_vec(),
    "the backup has no record of a data set of this service (layout), but 1 keys, among them 1 segments; with --unrecorded"
)]
#[case::another_program_with_a_layout(
    |_| b"*3\r\n$3\r\nSET\r\n$6\r\nlayout\r\n$4\r\nwide\r\n".to_vec(),
    "the backup has no record of a data set of this service (layout), but 1 keys, among them 0 segments"
)]
#[case::another_program_with_a_layout_in_json(
    |_| b"*3\r\n$3\r\nSET\r\n$6\r\nlayout\r\n$26\r\n{\"epoch\":1,\"rows\":[1,2,3]}\r\n".to_vec(),
    "the backup has no record of a data set of this service (layout), but 1 keys, among them 0 segments"
)]
#[case::data_set_without_segments(
    |_| [RECORD.as_bytes(), b"*4\r\n$4\r\nZADD\r\n$6\r\ntheirs\r\n$1\r\n7\r\n$1\r\na\r\n"].concat(),
    "the backup has no segment and no history of the data set with redis_key_prefix \"\", and would replace the data that is there; with --empty"
)]
#[tokio::test]
async fn restore_changes_nothing_if_the_backup_is_invalid(#[case] spoil: fn(Vec<u8>) -> Vec<u8>, #[case] reason: &str) {
    let folder = stopped_service().await;
    let backup = folder.path().join(BACKUP);
    fs::write(&backup, spoil(fs::read(&backup).unwrap())).unwrap();
    let error = refusal(&mut restore(folder.path()));
    assert!(error.contains(reason) && error.ends_with("; no data was changed\n"), "{error}");
    assert_eq!(traces(folder.path()), [""; 0], "{error}");
    assert_eq!(count(folder.path()).await, 2);
}

/// Restores an RDB file of a Redis after these commands.
fn restore_of(commands: &[&[&str]], arguments: &[&str]) -> Output {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    commands.iter().for_each(|command| drop(redis.call::<::redis::Value>(command)));
    redis.call::<()>(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    dump(Path::new(redis.url().strip_prefix("redis+unix://").unwrap()), folder.path());
    run(restore(folder.path()).args(arguments))
}

const INDEX: &[&str] = &["ZADD", "segments", "0", "sports", "0", "news"];
const SPORTS: &[&str] = &["ZADD", "segment:sports", "9999999999", "u1"];

#[test]
fn restore_accepts_a_backup_without_a_record_only_with_unrecorded() {
    let output = restore_of(&[INDEX, SPORTS], &[]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains(
            "has no record of a data set of this service (layout), but 2 keys, among them 2 segments; with --"
        ),
        "{error}"
    );
    let Output { status, stdout, stderr } = restore_of(&[INDEX, SPORTS], &["--unrecorded"]);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    assert!(String::from_utf8(stdout).unwrap().contains("its data (keys: 2, members: 3, segments: 2);"));
}

/// A data set with another prefix would be restored, but not counted.
#[rstest]
#[case::segments(&[&["ZADD", "prod:segment:sports", "9999999999", "u1"][..]], "prod:", &[])]
#[case::index_of_a_partition(&[&["ZADD", "a-b:{q03}:segments", "0", "sports"][..]], "a-b:", &[])]
#[case::segments_without_prefix(&[SPORTS, &["ZADD", "segment:segments", "7", "u1"]], "", &["--redis-key-prefix", "prod:"])]
#[case::prefix_with_the_most_keys(&[SPORTS, &["ZADD", "a:segments", "0", "x"], &["ZADD", "b:segments", "0", "x"], &["ZADD", "b:segment:x", "7", "u1"]], "b:",
    &["--redis-key-prefix", "prod:"])]
#[case::record(&[&["SET", "ё x:layout", r#"{"epoch":1,"keys":"plain"}"#][..]], "ё x:", &[])]
fn restore_names_the_other_prefix_of_an_unrecorded_backup(
    #[case] commands: &[&[&str]],
    #[case] prefix: &str,
    #[case] arguments: &[&str],
    #[values(&[], &["--unrecorded"])] unrecorded: &[&str],
) {
    let output = restore_of(commands, &[arguments, unrecorded].concat());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && !error.contains("--unrecorded"), "{error}");
    assert!(error.contains(&format!("data set with redis_key_prefix \"{prefix}\"")), "{error}");
    assert!(error.contains(&format!("is to be restored; set redis_key_prefix to \"{prefix}\"; no data")), "{error}");
}

#[test]
fn restore_accepts_an_unrecorded_data_set_beside_another() {
    let other = &["SET", "prod:layout", r#"{"epoch":1,"keys":"plain"}"#][..];
    let Output { status, stderr, .. } = restore_of(&[INDEX, SPORTS, other], &["--unrecorded"]);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
}

#[tokio::test]
async fn restore_accepts_a_backup_without_segments_only_with_empty() {
    let folder = stopped_service().await;
    fs::write(folder.path().join(BACKUP), RECORD).unwrap();
    let error = refusal(&mut restore(folder.path()));
    assert!(error.contains("; with --empty it does; no data was changed\n"), "{error}");
    assert_eq!(count(folder.path()).await, 2);
    assert!(run(restore(folder.path()).arg("--empty")).status.success());
    assert_eq!(count(folder.path()).await, 0);
}

#[tokio::test]
async fn restore_accepts_a_backup_with_only_histories() {
    let folder = stopped_service().await;
    let history = "*4\r\n$5\r\nRPUSH\r\n$14\r\nhistory:sports\r\n$1\r\n7\r\n$1\r\n7\r\n";
    fs::write(folder.path().join(BACKUP), [RECORD, history].concat()).unwrap();
    assert!(run(&mut restore(folder.path())).status.success());
    assert_eq!(count(folder.path()).await, 0);
}

#[rstest]
#[case::prefix("prod:layout", &[], "redis_key_prefix \"prod:\" (prod:layout), and the one with \"\" is")]
#[case::another_prefix("prod:layout", &["--redis-key-prefix", "test:"], "and the one with \"test:\" is to be restored; set redis_key_prefix to \"prod:\"")]
#[case::no_prefix("layout", &["--redis-key-prefix", "test:"], "set redis_key_prefix to \"\"")]
#[case::partition_of_a_prefix("prod:{p07}:layout", &[], "set redis_key_prefix to \"prod:\"")]
fn restore_names_the_other_prefix_of_a_data_set(#[case] key: &str, #[case] arguments: &[&str], #[case] expected: &str) {
    let record = ["SET", key, r#"{"epoch":1,"keys":"plain"}"#];
    let output = restore_of(&[&["SET", "x:layout", "wide"], &record], arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains(expected) && !error.contains("--unrecorded"), "{error}");
}

#[rstest]
#[case::one_partition(&["SET", "layout", r#"{"epoch":1,"keys":"plain"}"#], &[], "members: 2, segments: 2);")]
#[case::prefix(&["SET", "prod:layout", r#"{"epoch":1,"keys":"plain"}"#], &["--redis-key-prefix", "prod:"], "segments: 0);")]
#[case::copy_of_a_partition(&["SET", "{p07}:layout", r#"{"epoch":1,"keys":"p8"}"#], &[], "segments: 2);")]
fn restore_accepts_a_record(#[case] record: &[&str], #[case] arguments: &[&str], #[case] expected: &str) {
    let Output { status, stdout, stderr } = restore_of(&[INDEX, record], arguments);
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let stdout = String::from_utf8(stdout).unwrap();
    assert!(stdout.contains(expected), "{stdout}");
}

#[test]
fn restore_counts_a_segment_of_several_partitions_once() {
    let record = &["SET", "layout", r#"{"epoch":1,"keys":"p2"}"#][..];
    let indices =
        [&["ZADD", "{p0}:segments", "0", "a", "0", "b"][..], &["ZADD", "{p1}:segments", "0", "b", "0", "c"][..]];
    let output = restore_of(&[record, indices[0], indices[1]], &[]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("its data (keys: 3, members: 4, segments: 3);"));
}

#[test]
fn restore_refuses_a_pipe_and_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = |name: &str| refusal(binary(folder.path()).args(["restore", name]));
    assert!(Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap().success());
    assert_eq!(refuse("pipe"), "segment-estimator: failed to read pipe: it is not a file\n");
    assert_eq!(refuse("."), "segment-estimator: failed to read .: it is not a file\n");
}

#[rstest]
fn restore_refuses_a_part_of_an_append_only_file_by_name(
    #[values("1.incr.aof", "1.base.aof", "2.base.rdb")] end: &str,
) {
    let (folder, name) = (tempfile::tempdir().unwrap(), format!("appendonly.aof.{end}"));
    fs::write(folder.path().join(&name), RECORD).unwrap();
    let error = refusal(binary(folder.path()).args(["restore", &name]));
    assert!(error.contains("this is a part of an append-only file, which lacks what the others have"), "{error}");
    assert!(!folder.path().join("data").exists());
}

/// The base lacks the visits since the last rewrite.
#[tokio::test]
async fn restore_refuses_the_base_of_an_append_only_file_under_another_name() {
    let folder = stopped_service().await;
    let parts = private_redis(folder.path()).join("appendonlydir");
    let service = Service::start(folder.path(), &[]);
    redis::cmd("BGREWRITEAOF").exec(&mut private_redis_connection(folder.path())).unwrap();
    let base = parts.join("appendonly.aof.2.base.rdb");
    eventually("it is rewritten", async || base.exists()).await;
    fs::copy(base, folder.path().join(BACKUP)).unwrap();
    service.record("u3", "sports").await;
    assert!(service.terminate().success());
    let error = refusal(&mut restore(folder.path()));
    assert!(error.contains("the backup is the base of an append-only file, which lacks all that"), "{error}");
    assert_eq!(count(folder.path()).await, 3);
}

#[test]
fn script_of_compose_runs_the_same_program() {
    let script = include_str!("../../../scripts/restore");
    let (_, rest) = script.split_once("program=$(cat ").unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(rest.split_once(')').unwrap().0);
    assert_eq!(fs::read_to_string(program).unwrap(), include_str!("../../../src/embedded_redis/restore.sh"));
}

#[tokio::test]
async fn restore_brings_the_old_data_back_if_redis_fails_to_start() {
    let folder = stopped_service().await;
    // Keeps Redis from listening.
    let socket = private_redis(folder.path()).join("redis.sock");
    fs::create_dir(&socket).unwrap();
    let error = refusal(&mut restore(folder.path()));
    assert!(
        error.contains("the private Redis failed to start") && error.ends_with("; no data was changed\n"),
        "{error}"
    );
    assert_eq!(traces(folder.path()), [""; 0], "{error}");
    fs::remove_dir(&socket).unwrap();
    assert_eq!(count(folder.path()).await, 2);
}

#[tokio::test]
async fn restore_refuses_while_a_service_runs() {
    let folder = stopped_service().await;
    let service = Service::start(folder.path(), &[]);
    let error = refusal(&mut restore(folder.path()));
    assert_eq!(
        error,
        "segment-estimator: data_dir: data is in use by another segment-estimator; stop it first; no data was changed\n"
    );
    assert_eq!(service.count("sports").await, 2);
    assert!(service.terminate().success());
}

#[test]
fn restore_refuses_another_redis_a_missing_file_and_missing_tools() {
    let folder = tempfile::tempdir().unwrap();
    let error = refusal(restore(folder.path()).args(["--redis-url", "redis://127.0.0.1:1"]));
    assert!(error.contains("restore is for the private Redis, and redis_url names another"), "{error}");
    let error = refusal(&mut restore(folder.path()));
    assert!(error.starts_with("segment-estimator: failed to read backup.rdb: No such file"), "{error}");
    fs::write(folder.path().join(BACKUP), "REDIS").unwrap();
    let error = refusal(restore(folder.path()).env("PATH", folder.path()));
    assert!(error.contains("there is no redis-cli or valkey-cli on PATH"), "{error}");
}

/// As with Debian's packages `valkey-server` and `redis-tools`: those tools don't read the files of that server.
#[tokio::test]
async fn restore_uses_the_tools_of_the_installed_server() {
    const OF_THE_SYSTEM: &str = "cat cp date echo grep head ln ls mkdir mv rm rmdir sed sleep sync tail tr wc";
    let (folder, tools) = (stopped_service().await, tempfile::tempdir().unwrap());
    let find = |program: &str| {
        let find = ["-c", "command -v redis-$0 || command -v valkey-$0 || command -v $0", program];
        String::from_utf8(Command::new("sh").args(find).output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let write = |name: &str, script: &str| {
        let path = tools.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for (name, program) in [("valkey-server", "server"), ("redis-cli", "cli")] {
        symlink(find(program), tools.path().join(name)).unwrap();
    }
    // A link would change the name by which the program knows that it is this tool.
    write("valkey-check-rdb", &format!("exec {} \"$@\"", find("check-rdb")));
    write("redis-check-rdb", "echo 'Can not handle this RDB format version'; exit 1");
    OF_THE_SYSTEM.split(' ').for_each(|name| symlink(find(name), tools.path().join(name)).unwrap());
    let output = run(restore(folder.path()).env("PATH", tools.path()));
    assert!(output.status.success(), "{output:?}");
}

/// The second `undo` completes the first, at whichever line that was killed.
#[test]
fn undo_resumes_after_it_was_killed() {
    let script = include_str!("../../../src/embedded_redis/restore.sh");
    let lines: Vec<_> = script.lines().collect();
    let begin = lines.iter().position(|line| *line == "undo() {").unwrap();
    let end = begin + lines[begin..].iter().position(|line| *line == "}").unwrap();
    let commands = ["mkdir", "sync", "rmdir", "rm", ":", "if", "for"];
    let is_command = |place: &usize| {
        commands.iter().any(|name| lines[*place].trim().starts_with(&format!("{name} ")))
            || lines[*place].trim() == "sync"
    };
    let mut kills = 0;
    for place in (begin..end).filter(is_command) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in
            [("before-restore-1/appendonlydir/data", "old"), ("appendonlydir/data", "new"), ("appendonly.aof", "new")]
        {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let undo = |script: &str| {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", script, "restore", "undo", "before-restore-1"]).current_dir(&folder);
            shell.status().unwrap().success()
        };
        let mut killed = lines.clone();
        killed.insert(place, "kill -KILL $$");
        kills += usize::from(!undo(&killed.join("\n")));
        assert!(undo(script) && undo(script), "line {place}");
        assert_eq!(fs::read_to_string(folder.path().join("appendonlydir/data")).unwrap(), "old", "line {place}");
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["appendonlydir"], "line {place}");
    }
    assert!(kills > 7, "{kills} kills");
}
