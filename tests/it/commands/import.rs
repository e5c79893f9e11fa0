//! `segment-estimator import`: writes the visits of a file, names the rejected lines, and resumes an interrupted
//! import.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use hyper::Response;
use rstest::rstest;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use crate::helpers::{
    Redis, Service, StubServer, TestApp, binary, eventually, kill, private_redis_connection, run, settings,
};

/// Returns the Unix time so many seconds ago.
fn seconds_ago(seconds: i64) -> i64 {
    Timestamp::now().as_millis() / 1_000 - seconds
}

/// Returns `count` visits of as many users to 7 segments, as NDJSON. They are at most an hour old.
fn ndjson(count: i64) -> String {
    let start = seconds_ago(3_000);
    (0..count).fold(String::new(), |mut text, n| {
        let (segment, seen_at) = (n % 7, start + n % 1_000);
        writeln!(text, r#"{{"user_id":"u{n}","segment":"s{segment}","seen_at":{seen_at}.25}}"#).unwrap();
        text
    })
}

/// Returns the same visits as CSV.
fn csv(count: i64) -> String {
    let start = seconds_ago(3_000);
    (0..count).fold("seen_at,uid,tag\n".to_owned(), |mut text, n| {
        writeln!(text, "{}.25,u{n},s{}", start + n % 1_000, n % 7).unwrap();
        text
    })
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

/// Returns `import` in `folder` with these arguments. Its timeouts suit a busy machine.
fn import(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = binary(folder);
    command.args(["import", "--redis-timeout", "30s", "--redis-connect-timeout", "20s"]).args(arguments);
    command
}

/// Runs `command`. Returns whether it succeeded, and standard error.
fn outcome(command: &mut Command) -> (bool, String) {
    let Output { status, stdout, stderr } = run(command);
    assert!(stdout.is_empty());
    (status.success(), without_progress(&String::from_utf8(stderr).unwrap()))
}

/// Removes the lines of progress, which appear on a slow machine.
fn without_progress(stderr: &str) -> String {
    stderr.split_inclusive('\n').filter(|line| !line.contains(" visits, ")).collect()
}

fn members(redis: &Redis) -> u64 {
    (0..7).map(|n| redis.call::<u64>(&["ZCARD", &format!("segment:s{n}")])).sum()
}

#[rstest]
#[case::ndjson("visits.ndjson", &[], ndjson(20_000).into_bytes())]
#[case::ndjson_gzip("visits.ndjson.gz", &[], gzip(&ndjson(20_000)))]
#[case::ndjson_zstd("visits", &[], zstd::encode_all(ndjson(20_000).as_bytes(), 1).unwrap())]
#[case::csv("visits.csv", &["--columns", "user_id=uid,segment=tag"], csv(20_000).into_bytes())]
#[case::csv_gzip("visits.csv.gz", &["--columns", "user_id=uid,segment=tag"], gzip(&csv(20_000)))]
#[case::csv_zstd("visits", &["--format", "csv", "--columns", "user_id=2,segment=3"],
    zstd::encode_all(csv(20_000).as_bytes(), 1).unwrap())]
#[case::csv_other_delimiter("visits.csv", &["--columns=user_id=uid", "--columns=segment=tag", "--delimiter", ";"],
    csv(20_000).replace(',', ";").into_bytes())]
#[case::csv_no_header("visits.csv", &["--no-header", "--columns", "user_id=2,segment=3,seen_at=1"],
    csv(20_000).split_once('\n').unwrap().1.as_bytes().to_vec())]
#[case::csv_of_windows("visits.csv", &["--columns", "user_id=uid,segment=tag"],
    [b"\xEF\xBB\xBF", csv(20_000).replace('\n', "\r\n").as_bytes()].concat())]
fn import_writes_every_visit_of_a_file(#[case] name: &str, #[case] arguments: &[&str], #[case] content: Vec<u8>) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    fs::write(folder.path().join(name), content).unwrap();
    let url = redis.url();
    let all = [&[name, "--redis-url", &url], arguments].concat();
    for _ in 0..2 {
        let (succeeded, stderr) = outcome(&mut import(folder.path(), &all));
        assert!(succeeded, "{stderr}");
        assert!(stderr.starts_with("20000 accepted, 0 expired, 0 rejected; "), "{stderr}");
        // The second import changes nothing.
        assert_eq!(members(&redis), 20_000);
    }
    let score: f64 = redis.call(&["ZSCORE", "segment:s1", "u8"]);
    assert_eq!(score.fract(), 0.25);
    assert_eq!(redis.call::<u64>(&["ZCARD", "segments"]), 7);
    assert!(!folder.path().join(format!("{name}.import")).exists(), "the state is left");
}

#[test]
fn import_names_rejected_records_by_their_line() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let (old, new) = (seconds_ago(15 * 86_400), seconds_ago(60));
    let text = format!(
        "{{\"user_id\":\"u1\",\"segment\":\"s1\"}}\n\nnonsense\n{{\"user_id\":\"\",\"segment\":\"s1\",\"seen\":1}}\n\
         {{\"user_id\":\"u2\",\"segment\":\"s1\",\"seen_at\":{old}}}\n{{\"user_id\":\"u3\",\"segment\":\"full\"}}\n\
         {}\n{{\"user_id\":\"u4\",\"segment\":\"s1\",\"seen_at\":{new}}}",
        "x".repeat(20_000),
    );
    fs::write(folder.path().join("visits"), text).unwrap();
    redis.record_data_set();
    redis.call::<()>(&["SET", "segment:full", "a key of another program"]);
    let (succeeded, stderr) =
        outcome(&mut import(folder.path(), &["visits", "--errors", "errors", "--redis-url", &redis.url()]));
    assert!(!succeeded);
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines[0], "extended the window of the data set from 1s to 14d");
    let summary = "2 accepted, 1 expired, 4 rejected; 1 without seen_at took the time of the import; ";
    assert!(lines[1].starts_with(summary), "{stderr}");
    assert_eq!(lines[2..], ["segment-estimator: 4 lines were rejected; see errors"]);
    assert_eq!(members(&redis), 2);
    let errors = fs::read_to_string(folder.path().join("errors")).unwrap();
    let errors: Vec<Value> = errors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> = errors.iter().map(|error| (error["line"].as_u64().unwrap(), error["field"].as_str())).collect();
    let expected = [(3, None), (4, Some("seen")), (4, Some("user_id")), (6, Some("segment")), (7, None)];
    assert_eq!(found, expected, "{errors:#?}");
    let details: Vec<_> = errors.iter().map(|error| error["detail"].as_str().unwrap()).collect();
    assert_eq!(details[2], "must not be empty");
    assert_eq!(
        details[3],
        "was not written: `ZADD segment:full` found a key of another type: another program writes to this Redis"
    );
    assert_eq!(details[4], "is longer than 16384 bytes");
}

/// Returns 3,000 lines of as many users, each with 1 to 7 segments, and the number of visits.
fn several_segments() -> (String, u64) {
    let seen_at = seconds_ago(3_000);
    let (mut text, mut visits) = (String::new(), 0);
    for n in 0..3_000 {
        let segments: Vec<_> = (0..=n % 7).map(|segment| format!("\"s{segment}\"")).collect();
        writeln!(text, r#"{{"user_id":"u{n}","segments":[{}],"seen_at":{seen_at}}}"#, segments.join(",")).unwrap();
        visits += segments.len() as u64;
    }
    (text, visits)
}

#[tokio::test(flavor = "multi_thread")]
async fn import_writes_a_visit_to_each_of_several_segments() {
    let (text, visits) = several_segments();
    let (folder, redis, other) = (tempfile::tempdir().unwrap(), Redis::start(), Redis::start());
    let app = TestApp::spawn(&other).await;
    fs::write(folder.path().join("visits"), &text).unwrap();
    let (redis_url, service_url) = (redis.url(), format!("http://{}", app.address));
    for (target, redis) in [(["--redis-url", &redis_url], &redis), (["--url", &service_url], &other)] {
        let (succeeded, stderr) = outcome(import(folder.path(), &["visits"]).args(target));
        assert!(succeeded, "{stderr}");
        assert!(stderr.starts_with(&format!("{visits} accepted, 0 expired, 0 rejected; ")), "{stderr}");
        assert_eq!(members(redis), visits);
    }
    // The export has a line for each visit.
    let exported = run(binary(folder.path()).args(["export", "--redis-url", &redis_url])).stdout;
    assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count() as u64, visits);
    fs::write(folder.path().join("exported"), exported).unwrap();
    let (before, _) = (data_set(&redis), redis.call::<()>(&["FLUSHALL"]));
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["exported", "--redis-url", &redis_url]));
    assert!(succeeded, "{stderr}");
    assert_eq!(data_set(&redis), before);
}

/// A run that was interrupted within the file continues with the lines after it.
#[tokio::test(flavor = "multi_thread")]
async fn import_resumes_lines_of_several_segments() {
    let (text, visits) = several_segments();
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    fs::write(folder.path().join("visits"), &text).unwrap();
    let line = interrupt(folder.path(), &["--redis-url", &url], text.as_bytes()).await;
    assert!((1..3_000).contains(&line), "{line}");
    let resume = ["visits", "--resume", "--state", "state", "--redis-url", &url];
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &resume));
    assert!(succeeded, "{stderr}");
    assert!(stderr.contains(&format!("{visits} accepted, 0 expired, 0 rejected (")), "{stderr}");
    assert_eq!(members(&redis), visits);
}

#[rstest]
#[case::into_redis(false)]
#[case::into_a_service(true)]
#[tokio::test(flavor = "multi_thread")]
async fn import_names_the_segment_of_a_list_that_is_rejected(#[case] by_service: bool) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let limit = if by_service { "2" } else { "3" };
    let app = TestApp::spawn_with(&redis, settings([("max_segments", limit)])).await;
    let text = r#"{"user_id":"u0","segment":"s1"}
{"user_id":"u1","segments":["s0","","s1"]}
{"user_id":"u2","segments":["s0","s1","full"]}
{"user_id":"u3","segment":"s0","segments":["s1"]}
{"user_id":"u4","segments":["s0","s1","full"],"seen_at":1}
{"user_id":"u5","segment":"full"}
"#;
    fs::write(folder.path().join("visits"), text).unwrap();
    app.record("u9", "s0").await;
    app.record("u9", "s1").await;
    if !by_service {
        redis.call::<()>(&["SET", "segment:full", "a key of another program"]);
    }
    let (redis_url, service_url) = (redis.url(), format!("http://{}", app.address));
    let target = if by_service { ["--url", &service_url] } else { ["--redis-url", &redis_url] };
    let (succeeded, stderr) = outcome(import(folder.path(), &["visits", "--errors", "errors"]).args(target));
    assert!(!succeeded);
    let summary = "3 accepted, 3 expired, 4 rejected; 3 without seen_at took the time of the import; ";
    assert!(stderr.starts_with(summary), "{stderr}");
    let errors = fs::read_to_string(folder.path().join("errors")).unwrap();
    let errors: Vec<Value> = errors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> = errors.iter().map(|error| (error["line"].as_u64().unwrap(), error["field"].as_str())).collect();
    let expected = [(2, Some("segments[1]")), (3, Some("segments[2]")), (4, Some("segments")), (6, Some("segment"))];
    assert_eq!(found, expected, "{errors:#?}");
}

/// The service rejects each of the line's visits, in several requests.
#[rstest]
#[case::into_redis(false)]
#[case::into_a_service(true)]
#[tokio::test(flavor = "multi_thread")]
async fn import_counts_a_line_that_is_rejected_as_a_whole_once(#[case] by_service: bool) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let app = TestApp::spawn(&redis).await;
    let names: Vec<_> = (0..90).map(|n| format!("{n:0>120}")).collect();
    let line = |user: &str, seen_at: i64| json!({ "user_id": user, "segments": names, "seen_at": seen_at }).to_string();
    let lines = [line("u1", seconds_ago(1)), line("u2", seconds_ago(-1_000)), line("u3", seconds_ago(1))];
    fs::write(folder.path().join("visits"), lines.join("\n")).unwrap();
    let (redis_url, service_url) = (redis.url(), format!("http://{}", app.address));
    let target = ["--url", &service_url, "--batch-bytes", "16384"];
    let target = if by_service { &target[..] } else { &["--redis-url", &redis_url] };
    let (succeeded, stderr) = outcome(import(folder.path(), &["visits", "--errors", "errors"]).args(target));
    assert!(!succeeded);
    assert!(stderr.starts_with("180 accepted, 0 expired, 1 rejected; "), "{stderr}");
    let error: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("errors")).unwrap()).unwrap();
    assert_eq!((&error["line"], &error["field"]), (&json!(2), &json!("seen_at")), "{error}");
}

#[rstest]
#[case::ndjson(
    "visits",
    "{\"user_id\":\"u1\",\"segments\":[\"s1\",\"s2\"]}\n{\"user_id\":\"\",\"segment\":\"s1\"}\n\
    {\"user_id\":\"u2\",\"segment\":\"s1\",\"seen_at\":1}\n"
)]
#[case::csv("visits.csv", "user_id,segment,seen_at\nu1,s1,2001-09-09\nu1,s1,1\n")]
fn import_with_dry_run_validates_without_redis(#[case] name: &str, #[case] text: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    // The state of an earlier import stays.
    let state = folder.path().join(format!("{name}.import"));
    fs::write(&state, "a state").unwrap();
    // No Redis listens there.
    let arguments = [name, "--dry-run", "--errors", "errors", "--redis-url", "redis://127.0.0.1:1"];
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &arguments));
    assert!(!succeeded);
    let lines: Vec<_> = stderr.lines().collect();
    let (accepted, line, field) = if name == "visits" { (2, 2, "user_id") } else { (0, 2, "seen_at") };
    assert_eq!(lines[0], "dry run: no visit is written");
    assert!(lines[1].starts_with(&format!("{accepted} accepted, 1 expired, 1 rejected; ")), "{stderr}");
    assert_eq!(lines[2..], ["segment-estimator: 1 line was rejected; see errors"]);
    let error: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("errors")).unwrap()).unwrap();
    assert_eq!((&error["line"], &error["field"]), (&line.into(), &field.into()), "{error}");
    assert_eq!(fs::read_to_string(state).unwrap(), "a state");

    fs::write(folder.path().join(name), text.lines().next().unwrap()).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &[name, "--dry-run"]));
    assert!(succeeded && stderr.contains(", 0 rejected; "), "{stderr}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "a data folder was created");
}

#[rstest]
#[case::errors_into_the_input(&["--errors", "visits"], "--errors: visits is already in use; choose another file")]
#[case::errors_by_another_path(&["--errors", "./visits"], "--errors: ./visits is already in use; choose another file")]
#[case::state_into_the_input(&["--state", "visits"], "--state: visits is already in use; choose another file")]
#[case::one_file_for_both(&["--errors", "new", "--state", "new"], "--errors: new is already in use; choose another file")]
#[case::state_into_another_file(
    &["--state", "other"],
    "other is not the state of an import; remove it, or choose another file with --state"
)]
fn import_refuses_to_overwrite_other_files(#[case] arguments: &[&str], #[case] message: &str) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let visit = "{\"user_id\":\"u1\",\"segment\":\"s1\"}\n";
    for file in ["visits", "other"] {
        fs::write(folder.path().join(file), visit).unwrap();
    }
    let url = redis.url();
    let arguments = [&["visits", "--redis-url", &url], arguments].concat();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &arguments));
    assert!(!succeeded);
    assert_eq!(stderr, format!("segment-estimator: {message}\n"));
    for file in ["visits", "other"] {
        assert_eq!(fs::read_to_string(folder.path().join(file)).unwrap(), visit);
    }
    assert_eq!(redis.call::<usize>(&["EXISTS", "segment:s1"]), 0);
}

#[test]
fn import_without_errors_file_prints_the_first_errors_without_their_lines() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    fs::write(folder.path().join("visits.csv"), format!("user_id,segment\n{}", "secret, x\n".repeat(30))).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits.csv", "--redis-url", &redis.url()]));
    assert!(!succeeded && !stderr.contains("secret"), "{stderr}");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines[0], "line 2: segment must not start or end with white space");
    assert_eq!(lines[19], "line 21: segment must not start or end with white space");
    assert_eq!(lines[20], "further rejected lines are not shown; use --errors FILE to write all of them to FILE");
    assert!(lines[21].starts_with("0 accepted, 0 expired, 30 rejected; "), "{stderr}");
    let last = "segment-estimator: 30 lines were rejected; use --errors FILE to write the reasons to FILE";
    assert_eq!(lines[22..], [last]);
}

#[rstest]
#[case::missing_file(&["nothing"], "segment-estimator: nothing: No such file or directory (os error 2)\n")]
#[case::folder(&["."], "segment-estimator: .: it is a folder\n")]
#[case::redis_down(&["visits"], "Connection refused")]
#[case::service_down(&["visits", "--url", "http://127.0.0.1:1"], "segment-estimator: http://127.0.0.1:1/: Connection refused")]
#[case::invalid_url(&["visits", "--url", "redis://x"], "--url: redis://x is not the URL of a service, such as http://localhost:8080\n")]
#[case::csv_option_without_csv(&["visits", "--no-header"], "--columns, --seen-at, --no-header and --delimiter are for CSV: add --format csv\n")]
#[case::seen_at_without_csv(&["visits", "--seen-at", "now"], "--columns, --seen-at, --no-header and --delimiter are for CSV: add --format csv\n")]
#[case::column_twice(&["visits", "--format", "csv", "--columns", "user_id=a,segment=b,user_id=c"],
    "the column of user_id is set twice, by --columns or --seen-at; set it once\n")]
#[case::seen_at_twice(&["visits", "--format", "csv", "--columns", "seen_at=a", "--seen-at", "now"],
    "the column of seen_at is set twice, by --columns or --seen-at; set it once\n")]
#[case::batch_bytes_without_url(&["visits", "--batch-bytes", "20000"], "--url <URL>")]
#[case::batch_bytes_too_small(&["visits", "--url", "http://x", "--batch-bytes", "100"], "it must be at least 16384")]
#[case::missing_token_file(&["visits", "--url", "http://x", "--token-file", "nothing"], "--token-file: nothing: No such file")]
#[case::token_file_without_url(&["visits", "--token-file", "visits"], "--url <URL>")]
#[case::standard_input_without_state(&["-", "--resume"], "an import of standard input needs --state")]
fn import_that_cannot_begin_prints_one_line(#[case] arguments: &[&str], #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("visits"), "").unwrap();
    let redis = Redis::start();
    let url = if expected == "Connection refused" { "redis://127.0.0.1:1".to_owned() } else { redis.url() };
    let (succeeded, stderr) = outcome(import(folder.path(), arguments).args(["--redis-url", &url]));
    assert!(!succeeded && stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn import_writes_the_visits_before_the_end_of_a_truncated_file() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let packed = gzip(&ndjson(20_000));
    fs::write(folder.path().join("visits"), &packed[..packed.len() - 100]).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits", "--redis-url", &redis.url()]));
    assert!(!succeeded && members(&redis) > 10_000, "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("segment-estimator: visits: ") && last.contains("; completed through line 1"), "{stderr}");
    assert!(last.ends_with("; continue with --resume when the file is complete"), "{stderr}");

    fs::write(folder.path().join("visits"), packed).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits", "--resume", "--redis-url", &redis.url()]));
    assert!(succeeded && stderr.starts_with("resuming after line 1"), "{stderr}");
    assert_eq!(members(&redis), 20_000);
}

#[test]
fn import_fills_the_private_redis_with_and_without_a_service() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("visits"), ndjson(70)).unwrap();
    let members = || redis::cmd("ZCARD").arg("segment:s1").query::<u64>(&mut private_redis_connection(folder.path()));
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits"]));
    assert!(succeeded, "{stderr}");
    let service = Service::start(folder.path(), &[]);
    assert_eq!(members(), Ok(10));
    fs::write(folder.path().join("more"), r#"{"user_id":"x","segment":"s1"}"#).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["more"]));
    assert!(succeeded, "{stderr}");
    assert_eq!(members(), Ok(11));
    assert!(service.terminate().success());
}

/// An import whose standard input the test writes.
struct Fed(Child);

impl Fed {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn feed(&mut self, text: impl AsRef<[u8]>) {
        self.0.stdin.as_mut().unwrap().write_all(text.as_ref()).unwrap();
    }

    /// Stops the import while the pipe is open, and returns standard error.
    fn stop(mut self, signal: &str) -> String {
        let stdin = self.0.stdin.take();
        kill(signal, self.0.id());
        let output = self.0.wait_with_output().unwrap();
        drop(stdin);
        assert!(!output.status.success());
        without_progress(&String::from_utf8(output.stderr).unwrap())
    }

    /// Closes the pipe. Returns whether the import succeeded, and standard error.
    fn end(mut self) -> (bool, String) {
        self.0.stdin = None;
        let output = self.0.wait_with_output().unwrap();
        (output.status.success(), without_progress(&String::from_utf8(output.stderr).unwrap()))
    }
}

fn done_through_line(state: &Path) -> Option<u64> {
    let state: Value = serde_json::from_str(&fs::read_to_string(state).ok()?).unwrap();
    state["done_through_line"].as_u64()
}

/// The file is larger than the buffers between the import and Redis, and Redis is frozen when the import is killed.
#[tokio::test(flavor = "multi_thread")]
async fn import_resumes_after_it_was_killed() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let text = ndjson(300_000).replace("\"u100\"", "\"\"").replace("\"u299999\"", "\"\"");
    fs::write(folder.path().join("visits"), text).unwrap();
    let state = folder.path().join("visits.import");
    let url = redis.url();
    let arguments = ["visits", "--errors", "errors", "--redis-url", &url];
    let mut killed = import(folder.path(), &arguments).stderr(Stdio::null()).spawn().unwrap();
    eventually("something is done", async || done_through_line(&state).is_some()).await;
    kill("-STOP", redis.pid());
    killed.kill().unwrap();
    killed.wait().unwrap();
    kill("-CONT", redis.pid());
    let done = done_through_line(&state).expect("the import was complete");
    assert!(done > 0 && members(&redis) < 299_998, "everything was written");

    // Another file and another Redis are refused.
    fs::copy(folder.path().join("visits"), folder.path().join("other")).unwrap();
    let other_redis = Redis::start();
    for (arguments, what) in [
        (["other", "--redis-url", &url], "another file"),
        (["visits", "--redis-url", &other_redis.url()], "another target"),
    ] {
        if what == "another file" {
            fs::write(folder.path().join("other"), "{}").unwrap();
        }
        let resume = ["--resume", "--state", "visits.import"];
        let (succeeded, stderr) = outcome(import(folder.path(), &arguments).args(resume));
        let expected = format!("segment-estimator: --resume: visits.import is of {what}");
        assert!(!succeeded && stderr.starts_with(&expected), "{stderr}");
    }

    let (succeeded, stderr) = outcome(import(folder.path(), &arguments).arg("--resume"));
    let lines: Vec<_> = stderr.lines().collect();
    assert!(!succeeded);
    assert_eq!(lines[0], format!("resuming after line {done}"));
    let summary = format!("299998 accepted, 0 expired, 2 rejected ({done} of these in an earlier run); ");
    assert!(lines[1].starts_with(&summary), "{stderr}");
    assert_eq!(members(&redis), 299_998);
    // Each error is in the file once, from whichever run.
    let errors = fs::read_to_string(folder.path().join("errors")).unwrap();
    let errors: Vec<Value> = errors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(errors.iter().map(|error| error["line"].as_u64().unwrap()).collect::<Vec<_>>(), [101, 300_000]);
    assert!(!state.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn import_that_is_interrupted_says_how_to_continue() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let text = ndjson(100_000);
    let state = folder.path().join("state");
    let url = redis.url();
    let arguments = ["-", "--state", "state", "--redis-url", &url];
    let mut fed = Fed::start(&mut import(folder.path(), &arguments));
    fed.feed(&text[..text.len() / 2]);
    eventually("something is done", async || done_through_line(&state).is_some()).await;
    let stderr = fed.stop("-INT");
    let done = done_through_line(&state).unwrap();
    let last = format!("segment-estimator: stopped; completed through line {done}; continue with --resume\n");
    assert!(stderr.ends_with(&last), "{stderr}");

    let mut fed = Fed::start(import(folder.path(), &arguments).arg("--resume"));
    fed.feed(&text);
    let (succeeded, stderr) = fed.end();
    assert!(succeeded && stderr.contains(&format!("({done} of these in an earlier run)")), "{stderr}");
    assert_eq!(members(&redis), 100_000);
}

/// Imports the beginning of a file from standard input, and stops the import when the file `state` has some progress.
/// Returns the last completed line.
async fn interrupt(folder: &Path, arguments: &[&str], beginning: &[u8]) -> u64 {
    let state = folder.join("state");
    let mut fed = Fed::start(import(folder, &["-", "--state", "state"]).args(arguments));
    fed.feed(beginning);
    eventually("something is done", async || done_through_line(&state).is_some()).await;
    let stderr = fed.stop("-TERM");
    assert!(stderr.ends_with("; continue with --resume\n"), "{stderr}");
    done_through_line(&state).unwrap()
}

/// Returns every member of every segment, with its score.
fn data_set(redis: &Redis) -> Vec<Vec<(String, f64)>> {
    (0..7).map(|n| redis.call(&["ZRANGE", &format!("segment:s{n}"), "0", "-1", "WITHSCORES"])).collect()
}

#[rstest]
#[case::lf(&["\n"])]
#[case::crlf(&["\r\n"])]
#[case::cr(&["\r"])]
#[case::lf_header_over_cr(&["\n", "\r", "\r", "\r", "\r", "\r", "\r"])]
#[case::cr_header_over_lf(&["\r", "\n", "\n", "\n", "\n", "\n", "\n"])]
#[case::mixed(&["\r\n", "\r", "\n", "\n\r", "\r\r\n"])]
#[tokio::test(flavor = "multi_thread")]
async fn import_resumes_a_csv_with_any_line_ends(
    #[case] ends: &[&str],
    #[values("none", "gzip", "zstd")] compression: &str,
) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let mut records: Vec<_> = csv(20_000).lines().map(str::to_owned).collect();
    for (n, record) in records.iter_mut().enumerate() {
        record.push_str(if n % 3 == 0 { ",\"a\rb\r\nc\nd\"" } else { ",e" });
    }
    let records: Vec<_> = records.iter().zip(ends.iter().cycle()).map(|(text, end)| format!("{text}{end}")).collect();
    let pack = |text: String| match compression {
        "gzip" => gzip(&text),
        "zstd" => zstd::encode_all(text.as_bytes(), 1).unwrap(),
        _ => text.into_bytes(),
    };
    let beginning = pack(records[..12_000].concat());
    let all = [beginning.clone(), pack(records[12_000..].concat())].concat();
    fs::write(folder.path().join("visits"), all).unwrap();
    let url = redis.url();
    let arguments = ["--format", "csv", "--columns", "user_id=uid,segment=tag", "--redis-url", &url];
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &[&["visits"], &arguments[..]].concat()));
    assert!(succeeded && stderr.starts_with("20000 accepted, 0 expired, 0 rejected; "), "{stderr}");
    let expected = data_set(&redis);
    redis.call::<()>(&["FLUSHALL"]);

    let line = interrupt(folder.path(), &arguments, &beginning).await;
    let resume = ["visits", "--resume", "--state", "state"];
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &[&resume, &arguments[..]].concat()));
    assert!(succeeded, "{stderr}");
    let expected_stderr = format!(
        "resuming after line {line}\n20000 accepted, 0 expired, 0 rejected (8192 of these in an earlier run); "
    );
    assert!(stderr.starts_with(&expected_stderr), "{stderr}");
    assert!(data_set(&redis) == expected, "the data set differs from that of one run");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_resumes_into_a_service_with_cr_line_ends() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let app = TestApp::spawn(&redis).await;
    let url = format!("http://{}", app.address);
    let text = csv(120_000).replace('\n', "\r");
    fs::write(folder.path().join("visits"), &text).unwrap();
    let arguments = ["--format", "csv", "--columns", "user_id=uid,segment=tag", "--url", &url];
    let line = interrupt(folder.path(), &arguments, &text.as_bytes()[..text.len() / 2]).await;
    assert_eq!(line, 50_001);
    let resume = ["visits", "--resume", "--state", "state"];
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &[&resume, &arguments[..]].concat()));
    assert!(succeeded && stderr.contains("120000 accepted, 0 expired, 0 rejected (50000 of these"), "{stderr}");
    assert_eq!(members(&redis), 120_000);
}

#[rstest]
#[case::grown("more", &[], None)]
#[case::another_user("edited", &[], Some("another file"))]
#[case::record_removed("shorter", &[], Some("another file"))]
#[case::other_line_ends("windows", &[], Some("another file"))]
#[case::other_columns("visits", &["--columns", "seen_at=2"], Some("a file that was read with other options (csv --delimiter ',')"))]
#[case::another_delimiter("visits", &["--delimiter", ";"], Some("a file that was read with other options (csv --delimiter ',')"))]
#[case::another_time("visits", &["--seen-at", "now"], Some("a file that was read with other options (csv --delimiter ',')"))]
#[case::another_format("visits", &["--format", "ndjson"], Some("a file that was read with other options (csv --delimiter ',')"))]
#[tokio::test(flavor = "multi_thread")]
async fn import_resumes_a_file_with_the_same_beginning_and_refuses_another(
    #[case] file: &str,
    #[case] arguments: &[&str],
    #[case] refusal: Option<&str>,
) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    let text = csv(10_000).replacen("seen_at,uid,tag", "seen_at,user_id,segment", 1);
    let content = match file {
        "more" => format!("{text}{},more,s1\n", seconds_ago(10)),
        "edited" => text.replacen(",u7,", ",x7,", 1),
        "shorter" => text.replacen(&text.lines().nth(5).map(|line| format!("{line}\n")).unwrap(), "", 1),
        "windows" => text.replace('\n', "\r\n"),
        _ => text.clone(),
    };
    fs::write(folder.path().join(file), content).unwrap();
    interrupt(folder.path(), &["--format", "csv", "--redis-url", &url], text.as_bytes()).await;
    let state = fs::read_to_string(folder.path().join("state")).unwrap();
    fs::write(folder.path().join("errors"), "of an earlier run").unwrap();
    let mut resumed = import(folder.path(), &[file, "--resume", "--state", "state", "--errors", "errors"]);
    let format = if arguments.contains(&"--format") { &[][..] } else { &["--format", "csv"] };
    let (succeeded, stderr) = outcome(resumed.args(["--redis-url", &url]).args(format).args(arguments));
    let Some(refusal) = refusal else {
        assert!(succeeded, "{stderr}");
        assert_eq!(members(&redis), 10_001);
        return;
    };
    let what = format!("--resume: state is of {refusal}; without --resume the import starts at the beginning");
    assert!(!succeeded);
    assert_eq!(stderr, format!("segment-estimator: {what}\n"));
    assert_eq!(members(&redis), 8_192);
    assert_eq!(fs::read_to_string(folder.path().join("state")).unwrap(), state);
    assert_eq!(fs::read_to_string(folder.path().join("errors")).unwrap(), "of an earlier run");
}

/// These settings change the target, or which visits it gets.
#[rstest]
#[case::another_prefix("", &["--redis-key-prefix", "two:", "--window", "20d"], "another target, with redis_key_prefix \"\"")]
#[case::another_database("?db=1", &["--window", "20d"], "another target, ")]
#[case::longer_window("", &["--window", "30d"], "an import with the window 20d, and the window is 30d now, by which other visits expire")]
#[case::default_window("", &[], "an import with the window 20d, and the window is 14d now, by which other visits expire")]
#[tokio::test(flavor = "multi_thread")]
async fn import_refuses_to_resume_with_other_settings(
    #[case] database: &str,
    #[case] arguments: &[&str],
    #[case] what: &str,
) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    let text = ndjson(10_000);
    fs::write(folder.path().join("visits"), &text).unwrap();
    let first = ["--redis-url", &url, "--window", "20d"];
    interrupt(folder.path(), &first, text.as_bytes()).await;
    let (state, record) = (fs::read_to_string(folder.path().join("state")), redis.call::<String>(&["GET", "layout"]));
    let resume = ["visits", "--resume", "--state", "state"];
    let other_url = format!("{url}{database}");
    let other = [&resume[..], &["--redis-url", &other_url], arguments].concat();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &other));
    let expected = format!("segment-estimator: --resume: state is of {what}");
    assert!(!succeeded && stderr.starts_with(&expected) && stderr.lines().count() == 1, "{stderr}");
    assert!(stderr.ends_with("; without --resume the import starts at the beginning\n"), "{stderr}");
    // Neither the state nor any data set was touched.
    assert_eq!(fs::read_to_string(folder.path().join("state")).unwrap(), state.unwrap());
    assert_eq!(redis.call::<String>(&["GET", "layout"]), record);
    let databases: String = redis.call(&["INFO", "keyspace"]);
    assert!(redis.call::<u64>(&["EXISTS", "two:layout"]) == 0 && !databases.contains("db1"), "{databases}");

    let (succeeded, stderr) = outcome(&mut import(folder.path(), &[&resume[..], &first].concat()));
    assert!(succeeded && stderr.contains("10000 accepted"), "{stderr}");
    assert_eq!(members(&redis), 10_000);
}

#[rstest]
#[case::emptied(&[], 0..8_192, Some("a data set that has lost imported visits"))]
#[case::without_times(&["--format", "csv", "--columns", "user_id=uid,segment=tag", "--seen-at", "now"], 0..8_192,
    Some("a data set that has lost imported visits"))]
#[case::restored_from_an_older_backup(&[], 6_500..8_192, Some("a data set that has lost imported visits"))]
#[case::without_its_newest_visits(&[], 7_900..8_192, Some("a data set that has lost imported visits"))]
#[case::some_users_deleted(&[], 2_000..2_100, None)]
#[case::complete(&[], 0..0, None)]
#[tokio::test(flavor = "multi_thread")]
async fn import_refuses_to_resume_into_a_data_set_that_lost_visits(
    #[case] form: &[&str],
    #[case] lost: std::ops::Range<usize>,
    #[case] refusal: Option<&str>,
) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    let text = if form.is_empty() { ndjson(10_000) } else { csv(10_000) };
    fs::write(folder.path().join("visits"), &text).unwrap();
    let arguments = [&["--redis-url", &url][..], form].concat();
    interrupt(folder.path(), &arguments, text.as_bytes()).await;
    if lost.len() > 8_000 {
        redis.call::<()>(&["FLUSHALL"]);
    }
    for n in lost {
        redis.call::<()>(&["ZREM", &format!("segment:s{}", n % 7), &format!("u{n}")]);
    }
    // A service has recorded a visit in the meantime.
    redis.estimator("14d").record(crate::helpers::visit("u1", "s1", Timestamp::now()), Timestamp::now()).await.unwrap();
    let resume = [&["visits", "--resume", "--state", "state"], &arguments[..]].concat();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &resume));
    assert_eq!(succeeded, refusal.is_none(), "{stderr}");
    if let Some(refusal) = refusal {
        let expected =
            format!("segment-estimator: --resume: state is of {refusal}; without --resume the import starts");
        assert!(stderr.starts_with(&expected), "{stderr}");
        let (succeeded, stderr) = outcome(import(folder.path(), &["visits"]).args(&arguments));
        assert!(succeeded, "{stderr}");
        assert_eq!(members(&redis), 10_000);
    }
}

/// Times up to five minutes in the future are written as the time of the import.
#[tokio::test(flavor = "multi_thread")]
async fn import_resumes_visits_of_a_clock_that_was_ahead() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    let ahead = seconds_ago(-240);
    let text = (0..10_000).fold(String::new(), |mut text, n| {
        writeln!(text, r#"{{"user_id":"u{n}","segment":"s{}","seen_at":{ahead}}}"#, n % 7).unwrap();
        text
    });
    fs::write(folder.path().join("visits"), &text).unwrap();
    interrupt(folder.path(), &["--redis-url", &url], text.as_bytes()).await;
    let resume = ["visits", "--resume", "--state", "state", "--redis-url", &url];
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &resume));
    assert!(succeeded && stderr.contains("10000 accepted"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_resumes_a_file_with_a_segment_whose_key_is_of_another_type() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    redis.record_data_set();
    redis.call::<()>(&["SET", "segment:taken", "x"]);
    let mut text: String = (0..7).fold(ndjson(4_000), |text, n| text.replace(&format!("\"s{n}\""), "\"taken\""));
    text += &ndjson(6_000);
    fs::write(folder.path().join("visits"), &text).unwrap();
    interrupt(folder.path(), &["--redis-url", &url], text.as_bytes()).await;
    let resume = ["visits", "--resume", "--state", "state", "--redis-url", &url];
    let (_, stderr) = outcome(&mut import(folder.path(), &resume));
    assert!(stderr.contains("6000 accepted, 0 expired, 4000 rejected"), "{stderr}");
    assert_eq!(members(&redis), 6_000);
}

#[rstest]
#[case::empty_redis(true, "a data set that has lost imported visits")]
#[case::another_file(false, "another file")]
#[tokio::test(flavor = "multi_thread")]
async fn import_writes_nothing_before_it_refuses_to_resume(#[case] is_emptied: bool, #[case] what: &str) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    let text = ndjson(10_000);
    interrupt(folder.path(), &["--redis-url", &url], text.as_bytes()).await;
    let mut record: String = redis.call(&["GET", "layout"]);
    if is_emptied {
        redis.call::<()>(&["FLUSHALL"]);
        fs::write(folder.path().join("visits"), &text).unwrap();
    } else {
        fs::write(folder.path().join("visits"), text.replacen("u7", "x7", 1)).unwrap();
        record = record.replacen("1209600", "86400", 1);
        redis.call::<()>(&["SET", "layout", &record]);
    }
    let keys: u64 = redis.call(&["DBSIZE"]);
    let resume = ["visits", "--resume", "--state", "state", "--redis-url", &url];
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &resume));
    assert!(
        !succeeded && stderr.starts_with(&format!("segment-estimator: --resume: state is of {what}; ")),
        "{stderr}"
    );
    assert_eq!(redis.call::<u64>(&["DBSIZE"]), keys);
    let found: Option<String> = redis.call(&["GET", "layout"]);
    assert_eq!(found, (!is_emptied).then_some(record));
}

/// The lines are valid, so all of them must be written after the limit is raised.
#[rstest]
#[case::in_the_middle(9_000, "; completed through line 8192; continue with --resume\n")]
#[case::at_the_beginning(100, "\n")]
#[test]
fn import_ends_at_max_segments_and_resumes_with_a_higher_limit(#[case] before: i64, #[case] advice: &str) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let text = ndjson(before) + &ndjson(20_000).replace("\"s", "\"t").replace("\"teen_at", "\"seen_at");
    fs::write(folder.path().join("visits"), text.replace("\"tegment", "\"segment")).unwrap();
    let url = redis.url();
    let arguments = ["visits", "--redis-url", &url];
    let (succeeded, stderr) = outcome(import(folder.path(), &arguments).args(["--max-segments", "9"]));
    let why = "the data set reached the limit of 9 segments (max_segments); raise it, or correct the file";
    assert!(!succeeded && stderr.ends_with(&format!("{why}{advice}")), "{stderr}");
    let (succeeded, stderr) = outcome(import(folder.path(), &arguments).args(["--max-segments", "14", "--resume"]));
    assert!(succeeded, "{stderr}");
    let others: u64 = (0..7).map(|n| redis.call::<u64>(&["ZCARD", &format!("segment:t{n}")])).sum();
    assert_eq!((members(&redis), others), (before.cast_unsigned(), 20_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn import_names_a_port_of_another_protocol() {
    let (folder, port) = (tempfile::tempdir().unwrap(), crate::helpers::free_port());
    let _redis = Redis::start_primary(&port);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || silent.incoming().for_each(drop));
    fs::write(folder.path().join("visits"), ndjson(1)).unwrap();
    for port in [port, silent_port] {
        let url = format!("http://127.0.0.1:{port}");
        let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits", "--url", &url]));
        let expected = "; the server closed the connection without an answer, as one of another protocol does, such as Redis: check the port in --url\n";
        assert!(!succeeded && stderr.ends_with(expected) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn import_refuses_to_resume_from_a_state_of_another_version_and_replaces_it() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    fs::write(folder.path().join("visits"), ndjson(7)).unwrap();
    let state = r#"{"source":{"bytes":7,"head":1},"target":"x","done_through_line":1,"counts":{"accepted":1,"expired":0,"rejected":0},"errors_bytes":0}"#;
    fs::write(folder.path().join("visits.import"), state).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits", "--resume", "--redis-url", &url]));
    let what =
        "visits.import is of another version of this program; without --resume the import starts at the beginning";
    assert!(!succeeded);
    assert_eq!((stderr, members(&redis)), (format!("segment-estimator: --resume: {what}\n"), 0));
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits", "--redis-url", &url]));
    assert!(succeeded && stderr.starts_with("visits.import is of an earlier run; without --resume"), "{stderr}");
    assert_eq!(members(&redis), 7);
}

#[rstest]
#[case::lf("\n")]
#[case::crlf("\r\n")]
#[case::cr("\r")]
fn import_names_a_record_by_the_line_that_an_editor_shows(#[case] end: &str) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let lines = ["user_id,segment", "u1,s1", "\"u", "", "2\",s1", "", ",s1", "u3"];
    fs::write(folder.path().join("visits.csv"), lines.join(end)).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits.csv", "--redis-url", &redis.url()]));
    let found: Vec<_> = stderr.lines().filter_map(|line| line.strip_prefix("line ")?.split_once(':')).collect();
    assert!(!succeeded);
    assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), ["3", "7", "8"], "{stderr}");
}

#[test]
fn import_rejects_a_csv_record_with_an_empty_time() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let text = format!("user_id,segment,seen_at\nu1,s1,\nu2,s1,{}\n", seconds_ago(60));
    fs::write(folder.path().join("visits.csv"), text).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits.csv", "--redis-url", &redis.url()]));
    assert!(
        !succeeded
            && stderr.contains("line 2: seen_at must not be empty; for the time of the import, use --seen-at now"),
        "{stderr}"
    );
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segment:s1", "0", "-1"]), ["u2"]);
}

#[rstest]
#[case::another_name("timestamp", &[], Err("no column is named seen_at, but there are further columns: timestamp; use --seen-at COLUMN for the column with the time, or --seen-at now for the time of the import"))]
#[case::in_capitals("Seen_At", &[], Ok(true))]
#[case::named("timestamp", &["--seen-at", "Timestamp"], Ok(true))]
#[case::named_by_columns("timestamp", &["--columns", "seen_at=timestamp"], Ok(true))]
#[case::numbered("timestamp", &["--seen-at", "3"], Ok(true))]
#[case::now("timestamp", &["--seen-at", "now"], Ok(false))]
#[case::now_over_seen_at("seen_at", &["--seen-at", "now"], Ok(false))]
#[case::twice("seen_at,seen_at", &[], Err("the header has the column seen_at twice, as column 3 and as column 4; choose one by its number, as in --columns seen_at=3"))]
#[tokio::test(flavor = "multi_thread")]
async fn import_uses_the_time_of_the_import_only_with_seen_at_now(
    #[case] columns: &str,
    #[case] arguments: &[&str],
    #[case] expected: Result<bool, &str>,
    #[values("redis", "service")] target: &str,
) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let app = TestApp::spawn(&redis).await;
    let (url, address) = (redis.url(), format!("http://{}", app.address));
    let target = if target == "redis" { ["--redis-url", &url] } else { ["--url", &address] };
    let seen_at = seconds_ago(3_000);
    let times = columns.split(',').map(|_| seen_at.to_string()).collect::<Vec<_>>().join(",");
    fs::write(folder.path().join("visits.csv"), format!("user_id,segment,{columns}\nu1,s1,{times}\n")).unwrap();
    let (succeeded, stderr) = outcome(import(folder.path(), &["visits.csv"]).args(target).args(arguments));
    assert_eq!(succeeded, expected.is_ok(), "{stderr}");
    match expected {
        Ok(is_seen_then) => {
            let score: f64 = redis.call(&["ZSCORE", "segment:s1", "u1"]);
            assert_eq!(score == seen_at as f64, is_seen_then, "{score}");
            assert!(is_seen_then || score > seconds_ago(1_000) as f64);
        }
        Err(why) => {
            assert_eq!(stderr.lines().last().unwrap(), format!("segment-estimator: visits.csv: {why}"));
            assert_eq!(members(&redis), 0);
        }
    }
}

#[rstest]
#[case::csv("visits.csv", "user_id,segment\r\nu1,s1\r\n")]
#[case::ndjson("visits", "{\"user_id\":\"u1\",\"segment\":\"s1\"}\n")]
fn import_names_the_command_that_converts_utf_16(#[case] name: &str, #[case] text: &str) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let utf_16: Vec<_> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(folder.path().join(name), utf_16).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &[name, "--redis-url", &redis.url()]));
    let why = "it is UTF-16LE, but must be UTF-8; convert it to UTF-8, as in: iconv -f UTF-16LE -t UTF-8 OLD > NEW";
    assert!(!succeeded);
    assert_eq!(stderr, format!("segment-estimator: {name}: {why}\n"));
}

#[test]
fn import_skips_zeros_after_gzip_and_reports_other_bytes() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let url = redis.url();
    fs::write(folder.path().join("padded"), [gzip(&ndjson(70)), vec![0; 1_024]].concat()).unwrap();
    fs::write(folder.path().join("followed"), [gzip(&ndjson(140)), b"x".to_vec()].concat()).unwrap();
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["padded", "--redis-url", &url]));
    assert!(succeeded, "{stderr}");
    assert_eq!(members(&redis), 70);
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["followed", "--redis-url", &url]));
    assert!(!succeeded && stderr.contains("other bytes follow the gzip data; completed through line 140"), "{stderr}");
    assert_eq!(members(&redis), 140);
}

#[rstest]
#[case::limit_of_proxy(1_048_576, &[], 3_000_000)]
#[case::small_limit(30_000, &[], 3_000_000)]
#[case::batch_bytes(1_048_576, &["--batch-bytes", "100000"], 100_000)]
#[tokio::test(flavor = "multi_thread")]
async fn import_splits_requests_that_are_too_large(
    #[case] max_bytes: usize,
    #[case] arguments: &[&str],
    #[case] greatest: usize,
) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let app = TestApp::spawn(&redis).await;
    let sizes = Arc::<Mutex<Vec<usize>>>::default();
    let seen = Arc::clone(&sizes);
    let proxy = StubServer::limit(app.address, max_bytes, move |size| seen.lock().unwrap().push(size)).await;
    fs::write(folder.path().join("visits"), ndjson(60_000)).unwrap();
    let url = format!("http://{}", proxy.address);
    let (succeeded, stderr) = outcome(import(folder.path(), &["visits", "--url", &url]).args(arguments));
    assert!(succeeded && stderr.starts_with("60000 accepted, 0 expired, 0 rejected; "), "{stderr}");
    assert_eq!(members(&redis), 60_000);
    let sizes = sizes.lock().unwrap();
    assert!(sizes.iter().all(|size| *size <= greatest), "{sizes:?}");
    // The limit is remembered, so few requests are refused.
    let refused = sizes.iter().filter(|size| **size > max_bytes).count();
    assert!(refused <= 16, "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_ends_if_a_single_visit_is_too_large() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let app = TestApp::spawn(&redis).await;
    let proxy = StubServer::limit(app.address, 10, |_| {}).await;
    fs::write(folder.path().join("visits"), "{\"user_id\":\"u1\",\"segment\":\"s1\"}\n".repeat(3)).unwrap();
    let url = format!("http://{}", proxy.address);
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits", "--url", &url]));
    let last = format!("segment-estimator: {url}/: 413 Payload Too Large, for a request of 32 bytes");
    assert!(!succeeded);
    assert_eq!(stderr.lines().last(), Some(&last[..]), "{stderr}");
}

#[rstest]
#[case::redirect(302, ("location", "https://login.example/auth?secret=1#x"), "",
    "302 Found to https://login.example/auth is not followed; if the service is there, set --url to that address")]
#[case::moved(308, ("location", "https://u:p@est.example/x/segments/batch"), "",
    "308 Permanent Redirect to https://est.example/x/ is not followed; if the service is there, set --url to that address")]
#[case::login_page(200, ("content-type", "text/html; charset=utf-8"), "<html>", "the answer 200 OK (text/html) is not from")]
#[case::other_json(200, ("content-type", "application/json"), "{\"ok\":true}", "the answer 200 OK (application/json) is not from")]
#[case::report_of_other_visits(200, ("content-type", "application/json"), "{\"accepted\":7}", "the answer 200 OK (application/json) is not from")]
#[case::no_content(204, ("x", "x"), "", "the answer 204 No Content (no content type) is not from")]
#[case::not_found(404, ("content-type", "text/html"), "<html>", "the answer 404 Not Found (text/html) is not from")]
#[case::method_not_allowed(405, ("content-type", "text/html"), "<html>", "the answer 405 Method Not Allowed (text/html) is not from")]
#[case::forbidden(403, ("content-type", "text/html"), "<html>", "the answer 403 Forbidden (text/html) is not from")]
#[tokio::test(flavor = "multi_thread")]
async fn import_names_a_server_that_is_not_the_service(
    #[case] status: u16,
    #[case] header: (&'static str, &'static str),
    #[case] body: &'static str,
    #[case] expected: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let site = StubServer::start(move |_| async move {
        Response::builder().status(status).header(header.0, header.1).body(Full::from(body)).unwrap()
    })
    .await;
    fs::write(folder.path().join("visits"), ndjson(1)).unwrap();
    let url = format!("http://{}", site.address);
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits", "--url", &url]));
    assert!(!succeeded && stderr.starts_with(&format!("segment-estimator: {url}/: {expected}")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_names_a_wrong_path_and_a_wrong_protocol() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let app = TestApp::spawn(&redis).await;
    fs::write(folder.path().join("visits"), ndjson(1)).unwrap();
    for (url, expected) in [
        (format!("http://{}/x", app.address), "Check --url: it must be the address of the service's root.\n"),
        (
            format!("https://{}", app.address),
            "; the server does not speak TLS: check the port in --url, and whether it must begin with http://\n",
        ),
    ] {
        let (succeeded, stderr) = outcome(&mut import(folder.path(), &["visits", "--url", &url]));
        assert!(!succeeded && stderr.ends_with(expected) && stderr.lines().count() == 1, "{stderr}");
    }
}

/// Reads standard error until it reports a failure of the target.
fn wait_for_a_failure(stderr: &mut impl BufRead) {
    let mut line = String::new();
    while !line.contains("; retrying") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "the import has ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn import_survives_a_restart_of_redis() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let text = ndjson(100_000);
    let mut fed = Fed::start(&mut import(folder.path(), &["-", "--redis-url", &redis.url()]));
    let mut stderr = BufReader::new(fed.0.stderr.take().unwrap());
    fed.feed(&text[..text.len() / 2]);
    eventually("something is written", async || members(&redis) > 0).await;
    redis.stop();
    let writer = std::thread::spawn(move || {
        fed.feed(&text[text.len() / 2..]);
        fed.end()
    });
    wait_for_a_failure(&mut stderr);
    redis.start_again();
    assert!(writer.join().unwrap().0);
    let rest = without_progress(&std::io::read_to_string(stderr).unwrap());
    assert!(rest.starts_with("recovered\n100000 accepted"), "{rest}");
    assert_eq!(members(&redis), 100_000);
}

#[rstest]
#[case::without_seen_at("", "; 2 without seen_at took the time of the import; ")]
#[case::null(r#","seen_at":null"#, "; 2 without seen_at took the time of the import; ")]
#[case::with_seen_at(r#","seen_at":NOW"#, "; 0.")]
#[tokio::test(flavor = "multi_thread")]
async fn import_reports_how_many_visits_took_its_time(
    #[case] seen_at: &str,
    #[case] expected: &str,
    #[values("redis", "service")] target: &str,
) {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    redis.record_data_set();
    let app = TestApp::spawn_with(&redis, settings([("max_segments", "1")])).await;
    let (url, address) = (redis.url(), format!("http://{}", app.address));
    let target = if target == "redis" {
        redis.call::<()>(&["SET", "segment:other", "theirs"]);
        ["--redis-url", &url]
    } else {
        ["--url", &address]
    };
    let visit = |user: &str, segment: &str, seen_at: &str| {
        format!("{{\"user_id\":\"{user}\",\"segment\":\"{segment}\"{seen_at}}}\n")
    };
    // The third is rejected: its key is of another type, or its segment is beyond the limit.
    let text = visit("u1", "s1", seen_at)
        + &visit("u2", "s1", seen_at)
        + &visit("u3", "other", "")
        + &visit("u4", "s1", r#","seen_at":NOW"#);
    fs::write(folder.path().join("visits"), text.replace("NOW", &seconds_ago(0).to_string())).unwrap();
    let (_, stderr) = outcome(import(folder.path(), &["visits"]).args(target));
    assert!(stderr.contains(&format!("3 accepted, 0 expired, 1 rejected{expected}")), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_counts_visits_without_a_time_over_all_runs() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let text: String = (0..20_000).map(|n| format!("{{\"user_id\":\"u{n}\",\"segment\":\"s1\"}}\n")).collect();
    let arguments = ["-", "--redis-url", &redis.url(), "--state", "state"];
    let done = interrupt(folder.path(), &arguments[1..3], &text.as_bytes()[..text.len() / 2]).await;
    let mut fed = Fed::start(import(folder.path(), &arguments).arg("--resume"));
    fed.feed(&text);
    let (_, stderr) = fed.end();
    let expected = format!("({done} of these in an earlier run); 20000 without seen_at took the time of the import; ");
    assert!(stderr.contains(&expected), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_prints_progress_as_lines_without_a_terminal() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    let mut fed = Fed::start(&mut import(folder.path(), &["-", "--redis-url", &redis.url()]));
    fed.feed(ndjson(20_000));
    let mut stderr = BufReader::new(fed.0.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains(" visits, ") && line.trim_end().ends_with(" visits/s"), "{line:?}");
    assert!(!line.contains('\u{1b}') && !line.contains('\r'), "{line:?}");
    assert!(fed.end().0);
}

#[tokio::test(flavor = "multi_thread")]
async fn import_sends_visits_to_a_service() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), Redis::start());
    fs::write(folder.path().join("keys.toml"), "").unwrap();
    let token = run(binary(folder.path())
        .args(["token", "--name", "me", "--scope", "segments:write"])
        .args(["--api-keys-file", "keys.toml"]));
    fs::write(folder.path().join("token"), token.stdout).unwrap();
    let keys = folder.path().join("keys.toml").display().to_string();
    let app = TestApp::spawn_with(&redis, settings([("api_keys_file", &keys)])).await;
    // Only the service rejects visits in the future, and it reports at most a hundred of them.
    let ahead = seconds_ago(-3_600);
    let mut text = csv(120_000);
    (0..250).for_each(|n| writeln!(text, "{ahead},x{n},s1").unwrap());
    write!(text, "1,old,s1\n{},now,s1\n,,\n", seconds_ago(1)).unwrap();
    fs::write(folder.path().join("visits.csv"), text).unwrap();
    let url = format!("http://{}", app.address);
    let arguments = ["visits.csv", "--url", &url, "--columns", "user_id=uid,segment=tag", "--errors", "errors"];
    let (succeeded, stderr) = outcome(&mut import(folder.path(), &arguments));
    let expected = format!("segment-estimator: {url}/: 401: ");
    assert!(!succeeded && stderr.starts_with(&expected) && stderr.lines().count() == 1, "{stderr}");

    let (succeeded, stderr) = outcome(import(folder.path(), &arguments).args(["--token-file", "token"]));
    assert!(!succeeded && stderr.starts_with("120001 accepted, 1 expired, 251 rejected; "), "{stderr}");
    assert_eq!(members(&redis), 120_001);
    let errors = fs::read_to_string(folder.path().join("errors")).unwrap();
    let errors: Vec<Value> = errors.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut lines: Vec<_> = errors.iter().map(|error| error["line"].as_u64().unwrap()).collect();
    lines.dedup();
    assert_eq!(lines, (120_002..120_252).chain([120_254]).collect::<Vec<_>>());
    assert_eq!(errors[0]["field"], "seen_at");
}

#[tokio::test(flavor = "multi_thread")]
async fn import_retries_while_the_service_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let app = TestApp::spawn(&redis).await;
    fs::write(folder.path().join("visits"), ndjson(200_000)).unwrap();
    let url = format!("http://{}", app.address);
    let mut child = import(folder.path(), &["visits", "--url", &url]);
    let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    eventually("something is written", async || members(&redis) > 0).await;
    redis.stop();
    // The service runs in this process.
    let mut stderr = tokio::task::spawn_blocking(move || {
        wait_for_a_failure(&mut stderr);
        stderr
    })
    .await
    .unwrap();
    redis.start_again();
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        rest
    });
    let rest = without_progress(&rest.await.unwrap());
    assert!(child.wait().unwrap().success() && rest.starts_with("recovered\n200000 accepted"), "{rest}");
    assert_eq!(members(&redis), 200_000);
}
