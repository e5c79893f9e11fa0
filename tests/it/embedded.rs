//! The private Redis: it lives and dies with the service, and keeps its data.

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
async fn a_clean_stop_ends_redis_and_the_next_start_finds_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u104010", "sports").await;
    let redis = private_redis_pid(folder.path());

    assert!(service.terminate().success());
    assert!(!is_running(redis), "the service ends after its Redis");

    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 1);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn a_killed_service_leaves_no_redis_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let service = Service::start(folder.path(), &[]);
        assert_eq!(service.count("sports").await, round);
        service.record(&format!("u{round}"), "sports").await;
        let redis = private_redis_pid(folder.path());

        service.kill();
        // The next round starts at once and waits for this Redis by itself; the last one is waited for here.
        if round == 2 {
            eventually("Redis has ended", async || !is_running(redis)).await;
        }
    }
}

/// Without a name in the index a user would be counted, and a request to delete the user would find nothing.
#[rstest]
#[case::no_index(&["DEL", "segments", "layout"])]
#[case::an_index_of_some(&["EVAL", "redis.call('DEL', 'layout') redis.call('ZREM', 'segments', 'chess')", "0"])]
#[tokio::test]
async fn start_refuses_segments_that_no_index_names_until_they_are_adopted(#[case] lose: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    service.record("u0", "chess").await;
    service.record("u0", "sports").await;
    redis::cmd(lose[0]).arg(&lose[1..]).exec(&mut private_redis_connection(folder.path())).unwrap();
    // The service that runs would write the record back.
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
async fn killing_both_loses_nothing() {
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
async fn a_redis_that_heeds_nobody_is_killed_and_the_next_service_waits_for_that() {
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

    assert!(!is_running(redis), "two servers on the same files");
    assert!(busy.await.unwrap().is_err());
    assert_eq!(second.count("sports").await, 1);
    assert!(second.terminate().success());
}

#[tokio::test]
async fn a_redis_that_dies_alone_is_started_again() {
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
async fn redis_is_private() {
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
async fn start_limits_the_memory_of_redis_to_half_of_the_machines_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);

    let limit = max_memory(folder.path());
    assert!(limit > 0);
    assert!(service.has_logged(r#""max_memory":""#), "the limit is told");
    // Where Linux tells it in a file.
    if let Ok(meminfo) = fs::read_to_string("/proc/meminfo") {
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
        let total: u64 = total.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(limit <= total * 1024 / 2, "{limit} of {total} kB");
    }
    assert!(service.terminate().success());
}

#[tokio::test]
async fn start_and_restart_limit_the_memory_of_redis_as_set() {
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
async fn data_beyond_the_memory_of_redis_is_counted_and_visits_name_the_setting() {
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
fn two_services_on_one_folder_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert_eq!(error, "segment-estimator: data_dir: data is in use by another segment-estimator\n");
    assert!(service.terminate().success());
}

#[test]
fn a_missing_server_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("taken"), "").unwrap();
    // The second folder can't be made, as in an image that is read-only: that isn't the reason.
    for data_dir in ["data", "taken/data"] {
        let mut service = binary(folder.path());
        service.args(["--listen", "127.0.0.1:0", "--data-dir", data_dir]).env("PATH", folder.path());
        let error = refusal(&mut service);
        assert!(error.contains("apt-get install redis-server") && error.contains("ESTIMATOR_REDIS_URL"), "{error}");
    }
}

#[test]
fn a_path_too_long_for_a_socket_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(100);
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--data-dir", &long]));
    assert!(error.contains("too long a path for a Unix socket"), "{error}");
}

#[test]
fn a_folder_that_is_a_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("taken"), "").unwrap();
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--data-dir", "taken"]));
    assert!(error.starts_with("segment-estimator: data_dir: can't use taken: "), "{error}");
}

/// As in an image without Redis, whose user can write nowhere.
#[test]
fn a_missing_server_is_told_before_a_folder_that_cannot_be_made() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("taken"), "").unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--data-dir", "taken/data"];
    let error = refusal(binary(folder.path()).args(arguments).env("PATH", folder.path()));
    assert!(error.starts_with("segment-estimator: there is no redis-server or valkey-server on PATH: "), "{error}");
}

#[rstest]
#[case::the_folder("")]
#[case::the_log("redis.log")]
#[case::a_lock("service.lock")]
#[case::the_socket("redis.sock")]
#[case::the_append_only_file("appendonlydir")]
fn start_refuses_links_and_leaves_alone_what_they_lead_to(#[case] name: &str) {
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
#[case::a_pipe("redis.log", |_: &Path, path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()), "is a pipe")]
#[case::a_pipe_as_a_lock(
    "service.lock",
    |_: &Path, path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
    "is a pipe"
)]
#[case::a_pipe_as_the_list_of_parts(
    "appendonlydir/appendonly.aof.manifest",
    |_: &Path, path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
    "is a pipe"
)]
#[case::a_folder_for_everybody(
    "",
    |_: &Path, path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap(),
    "can be written by every user"
)]
fn start_refuses_what_is_no_file_of_its_own(#[case] name: &str, #[case] put: fn(&Path, &Path), #[case] message: &str) {
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

/// Links the files of the private Redis into `snapshot`, as `cp -al` does.
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
async fn a_snapshot_of_hard_links_stops_no_service_and_starts_no_second_redis() {
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
#[case::the_log("redis.log")]
#[case::the_lock_of_the_service("service.lock")]
#[case::the_lock_of_redis("redis.lock")]
fn start_leaves_alone_the_other_name_of_its_file(#[case] name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (precious, redis) = (folder.path().join("precious"), private_redis(folder.path()));
    fs::write(&precious, "precious").unwrap();
    fs::create_dir_all(&redis).unwrap();
    fs::hard_link(&precious, redis.join(name)).unwrap();
    assert!(Service::start(folder.path(), &[]).terminate().success());
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

#[rstest]
#[case::the_folder("data/redis")]
#[case::the_data_dir("data")]
#[case::a_file("data/redis/redis.log")]
#[tokio::test]
async fn start_refuses_what_belongs_to_another_user(#[case] name: &str) {
    const ANOTHER: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    assert!(Service::start(folder.path(), &[]).terminate().success());
    let path = folder.path().join(name).canonicalize().unwrap();
    // Only root can give something away. What an unprivileged user is refused, the unit tests of the folder have.
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
fn files_that_redis_cannot_read_are_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let redis = private_redis(folder.path());
    std::fs::create_dir_all(&redis).unwrap();
    std::fs::write(redis.join("appendonlydir"), "not a folder").unwrap();
    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    assert!(error.contains("the private Redis didn't start") && error.contains("redis.log"), "{error}");
}

/// Has a service in `folder` record five visits, one after the other, and kills it and its Redis. Gives the file that has them.
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
#[case::a_cut_in_the_last_visit(|file: &Path| {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
}, 4)]
#[case::half_a_command_behind_the_last_visit(|file: &Path| {
    OpenOptions::new().append(true).open(file).unwrap().write_all(b"*5\r\n$4\r\nZADD\r\n$14\r\nsegment:spo").unwrap();
}, 5)]
#[tokio::test]
async fn a_torn_end_of_the_file_is_told_once_and_costs_no_other_visit(#[case] tear: fn(&Path), #[case] expected: u64) {
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
async fn a_file_that_is_damaged_in_the_middle_stops_the_start_and_the_advice_repairs_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = append_only_file_of_five_visits(folder.path()).await;
    let mut content = fs::read(&file).unwrap();
    // The command of the third visit no longer begins as one.
    let third = content.windows(2).position(|window| window == b"u2").unwrap();
    let begin = content[..third].iter().rposition(|byte| *byte == b'*').unwrap();
    content[begin] = b'x';
    fs::write(&file, &content).unwrap();

    let error = refusal(binary(folder.path()).args(["--listen", "127.0.0.1:0", "--log-filter", "off"]));
    let file = file.canonicalize().unwrap();
    let fix = file.with_file_name("appendonly.aof.manifest");
    assert!(error.contains(&format!("{} is damaged", file.display())) && error.contains("backup"), "{error}");
    let advice = error.split('`').nth(1).unwrap();
    assert!(advice.ends_with(&format!("-check-aof --fix '{}'", fix.display())), "{error}");
    assert_eq!(fs::read(&file).unwrap(), content, "nothing was changed");

    assert!(Command::new("sh").args(["-c", &format!("echo y | {advice}")]).output().unwrap().status.success());
    let service = Service::start(folder.path(), &[]);
    assert_eq!(service.count("sports").await, 2);
    assert!(service.terminate().success());
}
