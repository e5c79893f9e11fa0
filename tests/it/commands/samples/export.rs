//! Exports and imports of segments that keep a sample.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;

use segment_estimator::domain::{Level, Timestamp};
use serde_json::Value;

use super::{Members, command, depth, fill, fill_until_sampled, members, record, refuses};
use crate::helpers::{Redis, binary, run};

/// Returns the users of a segment in the lines of an export, with their scores and weights.
fn lines_of(export: &str, name: &str) -> Vec<(String, f64, u64)> {
    let lines = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines = lines.filter(|line| line["segment"] == name);
    lines
        .map(|line| {
            let (user, weight) = (line["user_id"].as_str().unwrap(), line["weight"].as_u64().unwrap());
            (user.to_owned(), line["seen_at"].as_f64().unwrap(), weight)
        })
        .collect()
}

#[tokio::test]
async fn export_refuses_samples_and_writes_nothing() {
    let redis = Redis::start();
    record(&redis, "plain@1024");
    fill(&redis.estimator("14d"), "news", 0..100).await;
    fill_until_sampled(&redis, "sports", 0..6_000, 1_024).await;
    let weight = 1_u64 << depth(&redis, "sports");
    let expected = format!(
        "segment-estimator: sports keeps one user in {weight}, so the export would lack the others; with --sample it has the users that are \
         kept, and each line says how many users it stands for\n"
    );
    for arguments in [&["export"][..], &["export", "--segment", "sports"], &["export", "--output", "out"]] {
        let (folder, mut command) = command(&redis, arguments);
        let output = run(&mut command);
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), expected.clone()));
        assert!(output.stdout.is_empty() && fs::read_dir(folder.path()).unwrap().count() == 0);
    }
    let (_folder, mut command) = command(&redis, &["export", "--segment", "news"]);
    let output = run(&mut command);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && lines.lines().count() == 100 && !lines.contains("weight"), "{lines}");
}

#[tokio::test]
async fn export_of_samples_has_the_kept_users_and_their_weights() {
    let redis = Redis::start();
    record(&redis, "p2@2048");
    fill(&redis.estimator("14d"), "news", 0..100).await;
    fill_until_sampled(&redis, "sports", 0..8_000, 2_048).await;
    // A level below the depth is left over.
    redis.call::<()>(&["ZADD", "{p00}:segment@0:sports", "9999999999", "u1"]);
    let (_folder, mut command) = command(&redis, &["export", "--sample"]);
    let export = String::from_utf8(run(&mut command).stdout).unwrap();

    let news = lines_of(&export, "news");
    assert!(news.len() == 100 && news.iter().all(|(.., weight)| *weight == 1), "{news:?}");
    let (sports, kept) = (lines_of(&export, "sports"), members(&redis, "sports"));
    let written: Members = sports.iter().map(|(user, score, _)| (user.clone(), (kept[user].0, *score))).collect();
    assert_eq!((sports.len(), written), (kept.len(), kept));
    let sum: u64 = sports.iter().map(|(.., weight)| weight).sum();
    assert_eq!(sum, super::estimate(&redis, "sports").await.count());
}

/// The depth falls to 0, and one of two users of level 0 was seen since.
#[tokio::test]
async fn export_weighs_members_since_a_fall_by_the_lower_depth() {
    let redis = Redis::start();
    record(&redis, "plain@1024");
    fill_until_sampled(&redis, "sports", 0..6_000, 1_024).await;
    let since = Timestamp::now().as_millis() / 1_000 - 2;
    let depth = depth(&redis, "sports");
    redis.call::<()>(&["HSET", "depths", "sports", &format!("{depth}>0@{since}")]);
    let of_level_0: Vec<_> =
        (10_000..).map(|user| format!("u{user}")).filter(|user| Level::of(user).number() == 0).take(2).collect();
    for (user, seen_at) in of_level_0.iter().zip([since, since - 1]) {
        redis.call::<()>(&["ZADD", "segment@0:sports", &seen_at.to_string(), user]);
    }
    let (_folder, mut command) = command(&redis, &["export", "--sample"]);
    let export = String::from_utf8(run(&mut command).stdout).unwrap();
    let sports = lines_of(&export, "sports");
    let weight_of = |user: &str| sports.iter().find(|(name, ..)| name == user).map(|(.., weight)| *weight);
    assert_eq!([&of_level_0[0], &of_level_0[1]].map(|user| weight_of(user)), [Some(1), None]);
    for (user, seen_at, weight) in &sports {
        assert_eq!(*weight, if *seen_at >= since as f64 { 1 } else { 1 << depth }, "{user}");
    }
    let sum: u64 = sports.iter().map(|(.., weight)| weight).sum();
    assert_eq!(sum, super::estimate(&redis, "sports").await.count());
}

#[tokio::test]
async fn import_refuses_lines_of_a_sample() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        r#"{"user_id":"u1","segment":"sports","weight":1}"#,
        r#"{"user_id":"u2","segment":"sports","weight":128}"#,
        r#"{"user_id":"u3","segment":"sports"}"#,
    ];
    fs::write(folder.path().join("sample"), lines.join("\n")).unwrap();
    let output =
        run(binary(folder.path()).args(["import", "sample", "--errors", "errors", "--redis-url", &redis.url()]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("2 accepted, 0 expired, 1 rejected; "), "{error}");
    let rejected: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("errors")).unwrap()).unwrap();
    let detail = "is 128: the file is a sample, from `export --sample`, and this line stands for 128 users, so importing it would count \
                  too few";
    assert_eq!(
        (&rejected["line"], &rejected["field"], &rejected["detail"]),
        (&2.into(), &"weight".into(), &detail.into())
    );
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segment:sports", "0", "-1"]), ["u1", "u3"]);
}

/// An export with weights of segments that keep all users is complete.
#[tokio::test]
async fn import_accepts_an_export_with_weights_of_all_users() {
    let (from, to) = (Redis::start(), Redis::start());
    record(&from, "p2@1024");
    record(&to, "plain@1024");
    fill(&from.estimator("14d"), "news", 0..500).await;
    let (folder, mut exporting) = command(&from, &["export", "--sample", "--output", "all"]);
    assert!(run(&mut exporting).status.success());
    assert!(run(binary(folder.path()).args(["import", "all", "--redis-url", &to.url()])).status.success());
    assert_eq!(members(&from, "news"), members(&to, "news"));
    assert_eq!(members(&to, "news").len(), 500);
}

#[tokio::test]
async fn export_reports_an_unknown_segment_before_a_sample() {
    let redis = Redis::start();
    record(&redis, "plain@1024");
    fill_until_sampled(&redis, "sports", 0..4_000, 1_024).await;
    let error = refuses(&redis, &["export", "--segment", "sport"]);
    assert!(error.contains("the data set has no segment sport (did you mean sports?)"), "{error}");
}

/// The pipe is full when a level is deleted.
#[tokio::test]
async fn export_fails_if_a_segment_begins_to_keep_fewer_users() {
    let redis = Redis::start();
    record(&redis, "plain@65536");
    fill(&redis.estimator("14d"), "sports", 0..20_000).await;
    let (_folder, mut command) = command(&redis, &["export"]);
    let mut exporting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = exporting.stdout.take().unwrap();
    out.read_exact(&mut [0; 1_000]).unwrap();
    redis.call::<()>(&["HSET", "depths", "sports", "1"]);
    redis.call::<()>(&["UNLINK", "segment@0:sports"]);
    std::io::copy(&mut out, &mut std::io::sink()).unwrap();
    let output = exporting.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = "segment-estimator: sports grew beyond the maximum of users that it keeps during the export, so visits are missing; run \
                    the export again\n";
    assert_eq!((output.status.code(), error.as_str()), (Some(1), expected));
}
