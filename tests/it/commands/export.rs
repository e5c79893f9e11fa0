//! `segment-estimator export`: writes all live visits in the format that `import` reads.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use segment_estimator::domain::Timestamp;
use serde_json::Value;

use crate::helpers::{Redis, RedisCluster, TestApp, binary, run, settings};

/// Writes `count` visits of the last hour to each of 3 segments, and 100 expired ones.
fn fill(redis: &Redis, count: i64) {
    redis.record_data_set();
    let now = Timestamp::now().as_millis();
    let mut connection = redis.connection();
    for segment in ["news", "sports", "a \"b\" {c}:\\"] {
        redis.call::<()>(&["ZADD", "segments", "0", segment]);
        for chunk in (0..count).collect::<Vec<_>>().chunks(10_000) {
            let mut command = redis::cmd("ZADD");
            command.arg(format!("segment:{segment}"));
            for n in chunk {
                command.arg((now - n % 3_600_000) as f64 / 1_000.0).arg(format!("u{n}"));
            }
            command.exec(&mut connection).unwrap();
        }
    }
    for n in 0..100 {
        let seen_at = (now / 1_000 - 14 * 86_400 - n).to_string();
        redis.call::<()>(&["ZADD", "segment:news", &seen_at, &format!("gone{n}")]);
    }
}

/// Returns the live members of a segment with their scores.
fn live(redis: &Redis, key: &str) -> Vec<(String, f64)> {
    let all: Vec<(String, f64)> = redis.call(&["ZRANGE", key, "0", "-1", "WITHSCORES"]);
    all.into_iter().filter(|(name, _)| !name.starts_with("gone")).collect()
}

fn export(folder: &Path, redis: &Redis, arguments: &[&str]) -> Command {
    let mut command = binary(folder);
    command.args(["export", "--redis-url", &redis.url()]).args(arguments);
    command
}

#[test]
fn export_and_import_copy_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to, split) = (Redis::start(), Redis::start(), Redis::start());
    fill(&from, 5_000);
    for (target, partitions) in [(&to, "1"), (&split, "16")] {
        let mut exporting =
            export(folder.path(), &from, &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let piped = exporting.stdout.take().unwrap();
        let mut import = binary(folder.path());
        import.args(["import", "-", "--redis-url", &target.url(), "--partitions", partitions]).stdin(piped);
        let Output { status, stderr, .. } = run(&mut import);
        assert!(status.success() && exporting.wait().unwrap().success(), "{}", String::from_utf8_lossy(&stderr));
    }
    for key in ["segment:news", "segment:sports", "segment:a \"b\" {c}:\\"] {
        let expected = live(&from, key);
        assert_eq!(expected.len(), 5_000);
        assert_eq!(live(&to, key), expected);
        let mut all: Vec<_> = (0..16).flat_map(|n| live(&split, &format!("{{p{n:02}}}:{key}"))).collect();
        all.sort_by(|(one, at), (other, when)| at.total_cmp(when).then(one.cmp(other)));
        assert_eq!(all, expected);
    }
    // From partitions into a file.
    let Output { status, stdout, stderr } = run(&mut export(folder.path(), &split, &["--output", "all"]));
    assert!(status.success() && stdout.is_empty());
    assert_eq!(String::from_utf8(stderr).unwrap(), "15000 visits exported\n");
    let lines = fs::read_to_string(folder.path().join("all")).unwrap();
    assert_eq!(lines.lines().collect::<BTreeSet<_>>().len(), 15_000);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the folder has other files");
}

#[test]
fn export_writes_only_the_chosen_segments() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    fill(&redis, 1);
    let arguments = ["--segment", "news", "--segment", "a \"b\" {c}:\\"];
    let Output { status, stdout, .. } = run(&mut export(folder.path(), &redis, &arguments));
    assert!(status.success());
    let visits: Vec<Value> =
        BufReader::new(&*stdout).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let found: Vec<_> = visits.iter().map(|visit| (&visit["user_id"], &visit["segment"])).collect();
    assert_eq!(found, [(&"u0".into(), &"news".into()), (&"u0".into(), &"a \"b\" {c}:\\".into())]);
    assert!(visits[0]["seen_at"].is_f64());
}

#[test]
fn export_refuses_unknown_segments_and_leaves_no_file() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    fill(&redis, 1);
    let arguments = ["--output", "out", "--segment", "news", "--segment", "sport", "--segment", "nobody"];
    let Output { status, stdout, stderr } = run(&mut export(folder.path(), &redis, &arguments));
    let expected = "segment-estimator: the data set has no segment sport (did you mean sports?), nobody\n";
    assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(1), expected));
    assert!(stdout.is_empty() && fs::read_dir(folder.path()).unwrap().count() == 0);
    // A segment without users that count is known.
    redis.call::<()>(&["DEL", "segment:news"]);
    assert!(run(&mut export(folder.path(), &redis, &["--segment", "news"])).status.success());
}

#[test]
fn export_without_a_data_set_fails_and_creates_none() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let error = |command: &mut Command| {
        let Output { status, stdout, stderr } = run(command);
        assert!(status.code() == Some(1) && stdout.is_empty(), "{status}");
        String::from_utf8(stderr).unwrap()
    };
    for arguments in [&[][..], &["--segment", "sports"]] {
        let stderr = error(&mut export(folder.path(), &redis, arguments));
        assert!(stderr.starts_with("segment-estimator: there is no data set; give the redis_url"), "{stderr}");
        assert_eq!(redis.call::<u64>(&["DBSIZE"]), 0);
        let stderr = error(binary(folder.path()).arg("export").args(arguments));
        assert_eq!(
            stderr,
            "segment-estimator: data_dir: data has no data; give the data_dir or redis_url of the service\n"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn export_uses_the_window_of_the_settings() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    fill(&redis, 5);
    let app = TestApp::spawn_with(&redis, settings([("window", "30d")])).await;
    let Output { stdout, .. } = run(&mut export(folder.path(), &redis, &["--window", "30d", "--segment", "news"]));
    assert_eq!(BufReader::new(&*stdout).lines().count() as u64, app.count("news").await);
}

#[test]
fn export_into_a_closed_pipe_prints_no_error() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    fill(&redis, 20_000);
    let mut command = export(folder.path(), &redis, &[]);
    let mut exporting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut start = [0; 100];
    exporting.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let Output { status, stderr, .. } = exporting.wait_with_output().unwrap();
    assert_eq!((status.code(), String::from_utf8(stderr).unwrap().as_str()), (Some(1), ""));
}

#[test]
fn export_skips_a_key_of_another_type_and_reports_it() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    fill(&redis, 7);
    redis.call::<()>(&["SET", "segment:news", "a key of another program"]);
    let Output { status, stdout, stderr } = run(&mut export(folder.path(), &redis, &[]));
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(
        !status.success() && stderr.ends_with("skipped keys of segments that are not sorted sets: 1\n"),
        "{stderr}"
    );
    assert_eq!(BufReader::new(&*stdout).lines().count(), 14);
}

#[test]
fn export_without_redis_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let Output { status, stderr, .. } =
        run(binary(folder.path()).args(["export", "--output", "all", "--redis-url", "redis://127.0.0.1:1"]));
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && stderr.starts_with("segment-estimator: Redis can't serve: "), "{stderr}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn export_and_import_copy_a_data_set_to_a_cluster_and_back() {
    let (from, to, folder) = (Redis::start(), Redis::start(), tempfile::tempdir().unwrap());
    let cluster = RedisCluster::start_without_failover(&[]).await;
    fill(&from, 3_000);
    let (from_url, urls, to_url) = (from.url(), cluster.urls(), to.url());
    let copies = [
        [["--redis-url", &from_url], ["--redis-cluster", &urls]],
        [["--redis-cluster", &urls], ["--redis-url", &to_url]],
    ];
    for [source, target] in copies {
        let mut export = binary(folder.path());
        export.arg("export").args(source).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut exporting = export.spawn().unwrap();
        let piped = exporting.stdout.take().unwrap();
        let Output { status, stderr, .. } = run(binary(folder.path()).args(["import", "-"]).args(target).stdin(piped));
        assert!(status.success() && exporting.wait().unwrap().success(), "{}", String::from_utf8_lossy(&stderr));
    }
    assert!(cluster.masters().into_iter().all(|node| cluster[node].call::<u64>(&["DBSIZE"]) > 10));
    for key in ["segment:news", "segment:sports"] {
        assert_eq!(live(&from, key), live(&to, key));
    }
}
