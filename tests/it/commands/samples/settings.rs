//! The setting `max_members`.

use rstest::rstest;

use super::{record, refuses, says};
use crate::helpers::{Redis, Service};

fn start(redis: &Redis, arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let url = redis.url();
    assert!(Service::start(folder.path(), &[&["--redis-url", &url], arguments].concat()).terminate().success());
}

#[test]
fn start_records_the_maximum_and_refuses_another() {
    let redis = Redis::start();
    start(&redis, &["--max-members", "65536"]);
    let recorded = r#"{"epoch":1,"keys":"plain@65536","window_seconds":1209600}"#;
    assert_eq!(redis.call::<String>(&["GET", "layout"]), recorded);
    for arguments in [&["--max-members", "65536"][..], &[]] {
        start(&redis, arguments);
    }
    let message = "the segments of the data set keep up to 65536 members, but max_members is 1024: unset it, or move the data with \
                   `segment-estimator repartition --max-members 1024`\n";
    let error = refuses(&redis, &["--max-members", "1024", "--listen", "127.0.0.1:0"]);
    assert!(error.ends_with(&format!("segment-estimator: max_members: {message}")), "{error}");
    let error = refuses(&redis, &["check", "--max-members", "1024"]);
    assert!(error.ends_with(&format!(" can't serve: {message}")), "{error}");
    let table = says(&redis, &["check"]);
    assert!(
        table.lines().any(|line| line.starts_with("max_members ") && line.contains(" that of the data set ")),
        "{table}"
    );
    assert_eq!(redis.call::<String>(&["GET", "layout"]), recorded);
}

#[test]
fn start_refuses_a_maximum_for_a_data_set_that_keeps_all_members() {
    let redis = Redis::start();
    start(&redis, &[]);
    let error = refuses(&redis, &["--max-members", "1024", "--listen", "127.0.0.1:0"]);
    let expected = "max_members: the segments of the data set keep all members, but max_members is 1024: unset it, or move the data \
                    with `segment-estimator repartition --max-members 1024`\n";
    assert!(error.ends_with(expected), "{error}");
}

#[rstest]
#[case::export(&["export"])]
#[case::import(&["import", "visits.ndjson"])]
#[case::demo(&["demo", "--users", "100", "--segments", "1"])]
fn command_refuses_another_maximum(#[case] command: &[&str]) {
    let redis = Redis::start();
    record(&redis, "plain@65536");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("visits.ndjson"), r#"{"user_id":"u1","segment":"sports"}"#).unwrap();
    let mut binary = crate::helpers::binary(folder.path());
    let output = crate::helpers::run(binary.args(command).args(["--redis-url", &redis.url(), "--max-members", "1024"]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("but max_members is 1024: unset it"), "{error}");
    assert_eq!(redis.call::<u64>(&["DBSIZE"]), 1);
}
