//! A database with bounded segments and no record is never taken for an exact data set.

use rstest::rstest;
use segment_estimator::store::Error;

use super::{fill, members, record, refuses, says};
use crate::helpers::{Redis, Service, binary, run};

#[rstest]
#[case::level(&["ZADD", "segment@3:sports", "9999999999", "u1"], "segment@3:sports")]
#[case::level_of_a_partition(&["ZADD", "{q02}:segment@0:sports", "9999999999", "u1"], "{q02}:segment@0:sports")]
#[tokio::test]
async fn start_and_adopt_refuse_bounded_segments_without_a_record(
    #[case] key: &[&str],
    #[case] name: &str,
    #[values(false, true)] has_index: bool,
) {
    let redis = Redis::start();
    redis.call::<()>(key);
    if has_index {
        redis.call::<()>(&["ZADD", "segments", "0", "sports"]);
        redis.call::<()>(&["ZADD", "segment:sports", "9999999999", "u1"]);
    }
    let before = redis.call::<u64>(&["DBSIZE"]);
    assert!(matches!(redis.store().layout().await, Err(Error::Unrecorded { .. })));
    let error = refuses(&redis, &["--listen", "127.0.0.1:0"]);
    let found = if has_index { "segments" } else { name };
    assert!(error.contains(&format!("the database has `{found}` and no data set of this service")), "{error}");
    let error = refuses(&redis, &["adopt", "--yes"]);
    let expected = format!(
        "segment-estimator: nothing was changed: `{name}` is a key of bounded segments, and only the lost record has their maximum number \
         of members; restore the key `layout`, "
    );
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(redis.call::<u64>(&["DBSIZE"]), before);
}

/// All keys of a private Redis belong to the service, which takes over exact ones without asking.
#[tokio::test]
async fn private_redis_refuses_bounded_segments_without_a_record() {
    let redis = Redis::start();
    redis.call::<()>(&["ZADD", "segment@3:sports", "9999999999", "u1"]);
    let store = || redis.store().on_private_redis();
    let refused = |result: Result<_, Error>| match result {
        Err(Error::Unrecorded { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(store().layout().await), "`segment@3:sports`");
    redis.call::<()>(&["ZADD", "segments", "0", "sports"]);
    assert_eq!(refused(store().layout().await), "`segment@3:sports`");
}

/// Another program may have a key of this name.
#[tokio::test]
async fn key_named_as_depths_is_no_evidence_of_a_data_set() {
    let redis = Redis::start();
    redis.call::<()>(&["SET", "depths", "theirs"]);
    assert!(redis.store().layout().await.is_ok());
    assert_eq!(redis.call::<String>(&["GET", "depths"]), "theirs");
}

#[tokio::test]
async fn record_of_a_partition_restores_the_maximum() {
    let redis = Redis::start();
    record(&redis, "p2@1024");
    fill(&redis.estimator("14d"), "sports", 0..100).await;
    let kept = members(&redis, "sports");
    redis.call::<()>(&["DEL", "layout"]);
    let said = says(&redis, &["adopt", "--yes"]);
    assert_eq!(said, "nothing to do: the data set has a record, of 2 partitions and up to 1024 members in a segment\n");
    // Beside an index without partitions, an operator chooses.
    redis.call::<()>(&["ZADD", "segments", "0", "theirs"]);
    let said = says(&redis, &["adopt", "--yes", "--partitions", "2"]);
    let expected = "2 partitions and up to 1024 members in a segment: 2 segments with 100 members; ";
    assert!(said.contains(expected), "{said}");
    assert!(redis.call::<String>(&["GET", "layout"]).contains(r#""keys":"p2@1024""#));
    assert_eq!(members(&redis, "sports"), kept);
}

/// The index that has no tag isn't that of the one partition.
#[tokio::test]
async fn start_refuses_a_plain_index_beside_one_tagged_partition() {
    let redis = Redis::start();
    record(&redis, "p1@1024");
    fill(&redis.estimator("14d"), "sports", 0..10).await;
    redis.call::<()>(&["DEL", "layout"]);
    redis.call::<()>(&["ZADD", "segments", "0", "theirs"]);
    let error = refuses(&redis, &["--listen", "127.0.0.1:0"]);
    assert!(error.contains("the database has `segments` beside partitions and no data set of this service"), "{error}");
}

#[tokio::test]
async fn written_record_brings_bounded_segments_back() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    record(&redis, "plain@1024");
    fill(&redis.estimator("14d"), "sports", 0..100).await;
    let recorded: String = redis.call(&["GET", "layout"]);
    redis.call::<()>(&["DEL", "layout"]);
    assert_eq!(run(binary(folder.path()).args(["check", "--redis-url", &redis.url()])).status.code(), Some(1));
    redis.call::<()>(&["SET", "layout", &recorded, "NX"]);
    let service = Service::start(folder.path(), &["--redis-url", &redis.url()]);
    assert_eq!(service.count("sports").await, 100);
    assert!(service.terminate().success());
}
