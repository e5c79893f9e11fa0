//! The private Redis starts and stops with the service, and keeps its data.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use serde_json::json;

use crate::helpers::{
    Service, binary, eventually, is_running, kill, private_redis, private_redis_connection, private_redis_pid, problem,
    refusal, run,
};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn stop_ends_redis_and_the_next_start_finds_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u104010", "sports").await;
    let redis = private_redis_pid(folder.path());

    assert!(service.terminate().success());
    assert!(!is_running(redis), "the service ended before its Redis");

    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 1);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn kill_of_the_service_ends_redis_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let service = Service::start(folder.path(), &[]);
        assert_eq!(service.count("sports").await, round);
        service.record(&format!("u{round}"), "sports").await;
        let redis = private_redis_pid(folder.path());

        service.kill();
        // The service of the next round waits for this Redis. The last one has no next round.
        if round == 2 {
            eventually("Redis has ended", async || !is_running(redis)).await;
        }
    }
}

/// A user of a segment that the index lacks would be counted, but a request to delete the user would not find the
/// segment.
#[rstest]
#[case::without_index(&["DEL", "segments", "layout"])]
#[case::incomplete_index(&["EVAL", "redis.call('DEL', 'layout') redis.call('ZREM', 'segments', 'chess')", "0"])]
#[tokio::test]
async fn start_refuses_segments_that_no_index_names_until_they_are_adopted(#[case] lose: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u0", "chess").await;
    service.record("u0", "sports").await;
    redis::cmd(lose[0]).arg(&lose[1..]).exec(&mut private_redis_connection(folder.path())).unwrap();
    // A running service would write the record back.
    service.kill();

    let message = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert!(message.contains("a segment that is missing from `segments`, and no data set"), "{message}");
    assert!(message.contains("run `segment-estimator adopt`"), "{message}");
    let adopted = run(binary(folder.path()).args(["adopt", "--yes"]));
    assert!(adopted.status.success(), "{adopted:?}");

    let service = Service::start(folder.path(), &[]);
    let list: serde_json::Value = service.request("GET", "/segments").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["segments"].as_array().unwrap().len(), 2, "{list}");
    let deleted = service.request("DELETE", "/users/u0").send().await.unwrap();
    assert_eq!(deleted.status(), 200);
    assert_eq!(deleted.json::<serde_json::Value>().await.unwrap()["segments_removed"], 2);
    assert_eq!(service.count("sports").await, 0);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn kill_of_service_and_redis_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let service = Service::start(folder.path(), &[]);
        assert_eq!(service.count("sports").await, round);
        service.record(&format!("u{round}"), "sports").await;
        kill("-KILL", private_redis_pid(folder.path()));
        service.kill();
    }
    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 3);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn start_waits_until_a_redis_that_ignores_sigterm_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let first = Service::start(folder.path(), &[]);
    first.record("u104010", "sports").await;
    let redis = private_redis_pid(folder.path());
    let mut connection = private_redis_connection(folder.path());
    let busy =
        tokio::task::spawn_blocking(move || redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection));
    eventually("Redis is busy", async || first.status_of("/readyz").await == 503).await;

    first.kill();
    let second = Service::start(folder.path(), &[]);

    assert!(!is_running(redis), "two servers run on the same files");
    assert!(busy.await.unwrap().is_err());
    assert_eq!(second.count("sports").await, 1);
    assert!(second.terminate().success());
}

#[tokio::test]
async fn service_restarts_a_redis_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u104010", "sports").await;
    let first = private_redis_pid(folder.path());

    kill("-KILL", first);
    eventually("another Redis answers", async || {
        let is_ready = service.status_of("/readyz").await == 200;
        is_ready && private_redis_pid(folder.path()) != first
    })
    .await;

    assert_eq!(service.count("sports").await, 1);
    let second = private_redis_pid(folder.path());
    assert!(service.terminate().success());
    assert!(!is_running(second));
}

#[tokio::test]
async fn start_makes_redis_private_and_durable() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let redis = private_redis(folder.path());
    assert_eq!(mode(&folder.path().join("data")), 0o700);
    assert_eq!(mode(&redis), 0o700);
    assert_eq!(mode(&redis.join("redis.sock")), 0o700);

    let mut connection = private_redis_connection(folder.path());
    let mut config =
        |name: &str| -> Vec<String> { redis::cmd("CONFIG").arg("GET").arg(name).query(&mut connection).unwrap() };
    assert_eq!(config("port")[1], "0");
    assert_eq!(config("appendonly")[1], "yes");
    assert_eq!(config("appendfsync")[1], "always");
    assert!(service.terminate().success());
}

fn max_memory(folder: &Path) -> u64 {
    let mut connection = private_redis_connection(folder);
    let answer: Vec<String> = redis::cmd("CONFIG").arg("GET").arg("maxmemory").query(&mut connection).unwrap();
    answer[1].parse().unwrap()
}

#[tokio::test]
async fn start_limits_redis_to_half_of_the_memory_of_the_machine_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);

    let limit = max_memory(folder.path());
    assert!(limit > 0);
    assert!(service.has_logged(r#""max_memory":""#), "the limit is not logged");
    // Linux only.
    if let Ok(meminfo) = fs::read_to_string("/proc/meminfo") {
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
        let total: u64 = total.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(limit <= total * 1024 / 2, "{limit} of {total} kB");
    }
    assert!(service.terminate().success());
}

#[tokio::test]
async fn start_and_restart_set_the_memory_limit_of_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--redis-max-memory", "100mb"];
    let service = Service::start(folder.path(), &arguments);
    assert_eq!(max_memory(folder.path()), 100 << 20);
    assert!(service.has_logged(r#""max_memory":"100mb""#));

    let first = private_redis_pid(folder.path());
    kill("-KILL", first);
    eventually("another Redis answers", async || {
        let is_ready = service.status_of("/readyz").await == 200;
        is_ready && private_redis_pid(folder.path()) != first
    })
    .await;
    assert_eq!(max_memory(folder.path()), 100 << 20);
    assert!(service.terminate().success());

    let output = run(binary(folder.path()).arg("check").args(arguments));
    let table = String::from_utf8(output.stdout).unwrap();
    let line = table.lines().find(|line| line.starts_with("redis_max_memory ")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words, ["redis_max_memory", "100mb", "--redis-max-memory"]);
}

#[tokio::test]
async fn count_works_beyond_the_memory_limit_and_record_names_the_setting() {
    const USERS: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let lines: String =
        (0..USERS).map(|user| format!("{{\"user_id\":\"u{user}\",\"segment\":\"sports\"}}\n")).collect();
    assert_eq!(service.post_lines(lines).await.status(), 200);
    assert!(service.terminate().success());

    let service = Service::start(folder.path(), &["--redis-max-memory", "1mb"]);
    let response = service.post_visit(&json!({ "user_id": "late", "segment": "sports" })).await;
    let document = problem(response, 503, "store-unavailable").await;
    assert!(document["detail"].as_str().unwrap().contains("redis_max_memory"), "{document}");
    assert_eq!(service.count("sports").await, USERS);
    assert!(service.terminate().success());

    let service = Service::start(folder.path(), &["--redis-max-memory", "100mb"]);
    service.record("late", "sports").await;
    assert_eq!(service.count("sports").await, USERS + 1);
    assert!(service.terminate().success());
}

#[test]
fn start_refuses_a_folder_that_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert_eq!(error, "segment-estimator: data_dir: data is in use by another segment-estimator\n");
    assert!(service.terminate().success());
}

#[test]
fn start_without_a_server_names_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("taken"), "").unwrap();
    // The second folder can't be created, as in a read-only image. The missing server is still the reason.
    for data_dir in ["data", "taken/data"] {
        let mut service = binary(folder.path());
        service.args(["--listen", "127.0.0.1:0", "--data-dir", data_dir]).env("PATH", folder.path());
        let error = refusal(&mut service);
        assert!(error.contains("apt-get install redis-server") && error.contains("ESTIMATOR_REDIS_URL"), "{error}");
    }
}

#[test]
fn start_refuses_a_path_that_is_too_long_for_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--data-dir", &long]));
    assert!(error.contains("is too long for a Unix socket"), "{error}");
}

#[test]
fn start_refuses_a_folder_below_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("taken"), "").unwrap();
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--data-dir", "taken"]));
    assert!(error.starts_with("segment-estimator: data_dir: failed to use taken: "), "{error}");
}

/// As in an image without Redis, whose user can't write anywhere.
#[test]
fn start_without_a_server_reports_it_before_a_folder_that_cannot_be_created() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("taken"), "").unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--data-dir", "taken/data"];
    let error = refusal(binary(folder.path()).args(arguments).env("PATH", folder.path()));
    assert!(error.starts_with("segment-estimator: there is no redis-server or valkey-server on PATH: "), "{error}");
}

#[rstest]
#[case::folder("")]
#[case::log("redis.log")]
#[case::lock("service.lock")]
#[case::socket("redis.sock")]
#[case::append_only_dir("appendonlydir")]
fn start_refuses_a_link_and_leaves_its_target_unchanged(#[case] name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let link = match name {
        "" => private_redis(folder.path()),
        name => private_redis(folder.path()).join(name),
    };
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    if ["", "appendonlydir"].contains(&name) { fs::create_dir(&target) } else { fs::write(&target, "precious") }
        .unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();

    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    let link = folder.path().canonicalize().unwrap().join(link.strip_prefix(folder.path()).unwrap());
    assert!(error.starts_with(&format!("segment-estimator: data_dir: {} is a link", link.display())), "{error}");
    assert_eq!(mode(&target), 0o755);
    if target.is_dir() {
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    } else {
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}

#[rstest]
#[case::pipe_as_log("redis.log", |_: &Path, path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()), "is a pipe")]
#[case::pipe_as_lock(
    "service.lock",
    |_: &Path, path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
    "is a pipe"
)]
#[case::pipe_as_manifest(
    "appendonlydir/appendonly.aof.manifest",
    |_: &Path, path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
    "is a pipe"
)]
#[case::folder_that_every_user_can_write(
    "",
    |_: &Path, path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap(),
    "can be written by every user"
)]
fn start_refuses_an_untrusted_entry(#[case] name: &str, #[case] put: fn(&Path, &Path), #[case] message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = private_redis(folder.path()).join(name);
    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::create_dir_all(if name.is_empty() { &path } else { path.parent().unwrap() }).unwrap();
    put(&precious, &path);
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert!(error.starts_with("segment-estimator: data_dir: ") && error.contains(message), "{error}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

/// Hard-links the files of the private Redis into `snapshot`, as `cp -al` does.
fn take_snapshot(folder: &Path, snapshot: &Path) {
    let redis = private_redis(folder);
    fs::create_dir_all(snapshot.join("appendonlydir")).unwrap();
    let parts = fs::read_dir(redis.join("appendonlydir")).unwrap();
    let parts = parts.map(|part| format!("appendonlydir/{}", part.unwrap().file_name().display()));
    for name in ["redis.log", "redis.lock", "service.lock"].map(str::to_owned).into_iter().chain(parts) {
        fs::hard_link(redis.join(&name), snapshot.join(name)).unwrap();
    }
}

#[tokio::test]
async fn snapshot_of_hard_links_neither_stops_a_service_nor_allows_a_second_redis() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u104010", "sports").await;
    let snapshot = folder.path().join("snapshot");
    take_snapshot(folder.path(), &snapshot);
    let log = fs::read_to_string(snapshot.join("redis.log")).unwrap();

    let first = private_redis_pid(folder.path());
    kill("-KILL", first);
    eventually("another Redis answers", async || {
        let is_ready = service.status_of("/readyz").await == 200;
        is_ready && private_redis_pid(folder.path()) != first
    })
    .await;
    assert_eq!(service.count("sports").await, 1);
    assert_eq!(fs::read_to_string(snapshot.join("redis.log")).unwrap(), log);

    let output = run(binary(folder.path()).arg("check"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert_eq!(error, "segment-estimator: data_dir: data is in use by another segment-estimator\n");
    assert!(service.terminate().success());

    take_snapshot(folder.path(), &folder.path().join("second"));
    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 1);
    assert!(service.terminate().success());
}

#[rstest]
#[case::log("redis.log")]
#[case::service_lock("service.lock")]
#[case::redis_lock("redis.lock")]
fn start_leaves_a_hard_link_to_its_file_unchanged(#[case] name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (precious, redis) = (folder.path().join("precious"), private_redis(folder.path()));
    fs::write(&precious, "precious").unwrap();
    fs::create_dir_all(&redis).unwrap();
    fs::hard_link(&precious, redis.join(name)).unwrap();
    assert!(Service::start(folder.path(), &[]).terminate().success());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[rstest]
#[case::folder("data/redis")]
#[case::data_dir("data")]
#[case::file("data/redis/redis.log")]
#[tokio::test]
async fn start_refuses_files_of_another_user(#[case] name: &str) {
    const ANOTHER: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    assert!(Service::start(folder.path(), &[]).terminate().success());
    let path = folder.path().join(name).canonicalize().unwrap();
    // Only root can change an owner. The unit tests of the folder cover unprivileged users.
    if std::os::unix::fs::chown(&path, Some(ANOTHER), None).is_err() {
        return;
    }
    for arguments in [&["--listen", "127.0.0.1:0"][..], &["check"], &["export"]] {
        let error = refusal(binary(folder.path()).args(arguments).args(["--log-filter", "off"]));
        let expected = format!("segment-estimator: data_dir: {} belongs to the user {ANOTHER}", path.display());
        assert!(error.starts_with(&expected), "{error}");
    }
    std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    assert!(Service::start(folder.path(), &[]).terminate().success());
}

#[test]
fn start_reports_files_that_redis_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let redis = private_redis(folder.path());
    std::fs::create_dir_all(&redis).unwrap();
    std::fs::write(redis.join("appendonlydir"), "not a folder").unwrap();
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert!(error.contains("the private Redis failed to start") && error.contains("redis.log"), "{error}");
}

/// Records five visits in a service on `folder`, then kills the service and its Redis. Returns the append-only file.
async fn append_only_file_of_five_visits(folder: &Path) -> PathBuf {
    let service = Service::start(folder, &[]);
    for user in 0..5 {
        service.record(&format!("u{user}"), "sports").await;
    }
    kill("-KILL", private_redis_pid(folder));
    service.kill();
    let files = fs::read_dir(private_redis(folder).join("appendonlydir")).unwrap().map(|file| file.unwrap().path());
    files.into_iter().find(|file| file.to_string_lossy().ends_with(".incr.aof")).unwrap()
}

#[rstest]
#[case::last_visit_is_cut_off(|file: &Path| {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
}, 4)]
#[case::half_a_command_follows_the_last_visit(|file: &Path| {
    OpenOptions::new().append(true).open(file).unwrap().write_all(b"*5\r\n$4\r\nZADD\r\n$14\r\nsegment:spo").unwrap();
}, 5)]
#[tokio::test]
async fn start_warns_once_of_a_file_that_ends_within_a_command(#[case] tear: fn(&Path), #[case] expected: u64) {
    let folder = tempfile::tempdir().unwrap();
    let file = append_only_file_of_five_visits(folder.path()).await;
    tear(&file);
    let torn_bytes = fs::metadata(&file).unwrap().len();

    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, expected);
    let kept_bytes = fs::metadata(&file).unwrap().len();
    let log = service.terminate_for_log();
    let warnings: Vec<_> = log.iter().filter(|line| line.contains(r#""WARN""#)).collect();
    assert_eq!(warnings.len(), 1, "{log:#?}");
    let warning: serde_json::Value = serde_json::from_str(warnings[0]).unwrap();
    assert!(
        warning["message"].as_str().unwrap().starts_with("the append-only file ended within a command"),
        "{warning}"
    );
    assert_eq!(warning["file"], file.canonicalize().unwrap().display().to_string());
    assert_eq!(
        (&warning["kept_bytes"], &warning["cut_off_bytes"]),
        (&kept_bytes.into(), &(torn_bytes - kept_bytes).into())
    );

    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, expected);
    let log = service.terminate_for_log();
    assert!(log.iter().all(|line| line.contains(r#""INFO""#)), "{log:#?}");
}

#[tokio::test]
async fn start_refuses_a_file_that_is_damaged_in_the_middle_and_names_its_repair() {
    let folder = tempfile::tempdir().unwrap();
    let file = append_only_file_of_five_visits(folder.path()).await;
    let mut content = fs::read(&file).unwrap();
    // Damages the beginning of the command of the third visit.
    let third = content.windows(2).position(|window| window == b"u2").unwrap();
    let begin = content[..third].iter().rposition(|byte| *byte == b'*').unwrap();
    content[begin] = b'x';
    fs::write(&file, &content).unwrap();

    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    let file = file.canonicalize().unwrap();
    assert!(error.contains(&format!("{} is damaged", file.display())) && error.contains("backup"), "{error}");
    let advice = error.split('`').nth(1).unwrap();
    let is_of_valkey = advice.starts_with("valkey-");
    let fix = if is_of_valkey { file.clone() } else { file.with_file_name("appendonly.aof.manifest") };
    assert!(advice.ends_with(&format!("-check-aof --fix '{}'", fix.display())), "{error}");
    assert_eq!(fs::read(&file).unwrap(), content, "the file was changed");

    let repair = Command::new("sh").args(["-c", &format!("echo y | {advice}")]).output().unwrap();
    assert!(repair.status.success(), "{repair:?}");
    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 2);
    assert!(service.terminate().success());
}
