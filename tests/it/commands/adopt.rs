//! `segment-estimator adopt`: adopts a data set without a record, and hides or loses none of it.

use std::process::Command;

use rstest::rstest;
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::store::{Error, Partitions, Store};

use crate::helpers::{NOON, Redis, Service, binary, refusal, run, segment, visit};

const USERS: u64 = 300;

fn estimator(store: Store, partitions: Option<&str>) -> Estimator {
    let partitions = partitions.map(|partitions| Partitions::parse(partitions).unwrap());
    Estimator::new(store.with_partitions(partitions), Window::parse("14d").unwrap())
}

/// Writes a data set with `partitions`, in which each user is in one of three segments.
async fn fill(redis: &Redis, partitions: &str, seen_at: Timestamp) {
    let estimator = estimator(redis.store(), Some(partitions));
    let mut batch = segment_estimator::store::Batch::default();
    for n in 0..USERS {
        batch.add(&visit(&format!("u{n}"), &format!("s{}", n % 3), seen_at));
    }
    estimator.acquire_bulk_permit().await.unwrap().write(&batch).await.into_result().unwrap();
}

/// Deletes all keys whose names end in one of `ends`.
fn lose(redis: &Redis, ends: &[&str]) {
    for end in ends {
        for key in redis.call::<Vec<String>>(&["KEYS", &format!("*{end}")]) {
            redis.call::<()>(&["DEL", &key]);
        }
    }
}

/// Returns the sum of the counts.
async fn users(redis: &Redis) -> u64 {
    let (estimator, mut users) = (estimator(redis.store(), None), 0);
    for name in ["s0", "s1", "s2"] {
        users += estimator.estimate(&segment(name), NOON).await.unwrap().count();
    }
    users
}

fn command(redis: &Redis, arguments: &[&str]) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.args(arguments).args(["--redis-url", &redis.url()]);
    (folder, command)
}

fn says(redis: &Redis, arguments: &[&str]) -> String {
    let (_folder, mut command) = command(redis, arguments);
    let output = run(&mut command);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn refuses(redis: &Redis, arguments: &[&str]) -> String {
    let (_folder, mut command) = command(redis, arguments);
    let message = refusal(&mut command);
    assert!(message.contains("nothing was changed: "), "{message}");
    assert_eq!(redis.call::<Option<String>>(&["GET", "layout"]), None);
    message
}

#[rstest]
#[case::without_partitions("1")]
#[case::too_few("2")]
#[case::half("4")]
#[case::twice("16")]
#[case::maximum("1024")]
#[tokio::test]
async fn adopt_refuses_a_number_of_partitions_that_would_hide_users(
    #[case] wrong: &str,
    #[values(&["layout"][..], &["layout", "segments"])] lost: &[&str],
) {
    let redis = Redis::start();
    fill(&redis, "8", NOON).await;
    lose(&redis, lost);
    let message = refuses(&redis, &["adopt", "--yes", "--partitions", wrong]);
    let words = if wrong == "1" { "1 partition" } else { &format!("{wrong} partitions") };
    assert!(message.contains(&format!("no keys fit {words}, and they do fit 8")), "{message}");
    says(&redis, &["adopt", "--yes", "--partitions", "8"]);
    assert_eq!(users(&redis).await, USERS);
}

/// The first segment of a partition has one user, so by that segment alone several numbers could fit by chance.
#[tokio::test]
async fn adopt_considers_the_users_of_several_segments() {
    let redis = Redis::start();
    fill(&redis, "4", NOON).await;
    estimator(redis.store(), None).record(visit("u1", "a", NOON), NOON).await.unwrap();
    redis.call::<()>(&["ZADD", "{p00}:segments", "0", "a"]);
    redis.call::<()>(&["SET", "{p00}:segment:a", "theirs"]);
    lose(&redis, &["layout"]);
    let said = says(&redis, &["adopt", "--yes"]);
    assert!(said.contains("adopted: the data set has 4 partitions"), "{said}");
    assert!(said.contains("; 1 key of another type left alone: {p00}:segment:a\n"), "{said}");
}

/// The records are lost while a part of the old keys is deleted.
#[rstest]
#[case::between_partitions("2", "4")]
#[case::from_one_partition("1", "4")]
#[case::to_one_partition("4", "1")]
#[tokio::test]
async fn adopt_chooses_the_keys_of_a_move_with_the_most_members(#[case] from: &str, #[case] to: &str) {
    let (redis, now) = (Redis::start(), Timestamp::now());
    fill(&redis, from, now).await;
    let old = redis.sets();
    says(&redis, &["repartition", "--to", to]);
    for key in old.iter().filter(|key| key.ends_with("segments")) {
        redis.call::<()>(&["ZADD", key, "0", "s1"]);
        let users: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
        let partitions = Partitions::parse(from).unwrap();
        for user in users {
            let user = segment_estimator::domain::UserId::parse(user).unwrap();
            let shard = segment_estimator::store::shard_of(&user, partitions);
            if from == "1" || key.contains(&format!("p{shard:02}")) {
                let left = key.replace("segments", "segment:s1");
                redis.call::<()>(&["ZADD", &left, &now.as_score().to_string(), user.as_str()]);
            }
        }
    }
    lose(&redis, &["layout"]);
    let message = refuses(&redis, &["adopt", "--yes"]);
    assert!(message.contains("fit several numbers of partitions"), "{message}");
    let message = refuses(&redis, &["adopt", "--yes", "--partitions", from]);
    assert!(message.contains(" fewer unexpired members than other keys, which would be hidden"), "{message}");
    says(&redis, &["adopt", "--yes", "--partitions", to]);
    assert_eq!(users(&redis).await, USERS);
}

/// Keys beside those of a data set of 4 partitions.
#[derive(Clone, Copy)]
enum Beside {
    PlainIndex,
    PlainSegments,
    PartitionsOfAnotherTag,
}

/// Renames all keys whose names begin with `from`.
fn rename(redis: &Redis, from: &str, to: &str) {
    for key in redis.call::<Vec<String>>(&["KEYS", &format!("{from}*")]) {
        redis.call::<()>(&["RENAME", &key, &key.replacen(from, to, 1)]);
    }
}

/// With a stray user in a wrong partition, the users fit no number exactly.
#[rstest]
#[tokio::test]
async fn adopt_hides_no_keys_beside_those_of_the_data_set(
    #[values(Beside::PlainIndex, Beside::PlainSegments, Beside::PartitionsOfAnotherTag)] beside: Beside,
    #[values(false, true)] has_stray: bool,
) {
    let (redis, now) = (Redis::start(), Timestamp::now());
    let score = now.as_score().to_string();
    fill(&redis, "4", now).await;
    lose(&redis, &["layout"]);
    if has_stray {
        let is_at_home =
            |n: &usize| redis.call::<Option<f64>>(&["ZSCORE", &format!("{{p{n:02}}}:segment:s0"), "u0"]).is_some();
        let other = (0..4).find(|n| !is_at_home(n)).unwrap();
        redis.call::<()>(&["ZADD", &format!("{{p{other:02}}}:segment:s0"), &score, "u0"]);
    }
    let wrong = match beside {
        Beside::PlainIndex => {
            redis.call::<()>(&["ZADD", "segments", "0", "s0"]);
            redis.call::<()>(&["ZADD", "segment:s0", &score, "u0"]);
            "1"
        }
        Beside::PlainSegments => {
            redis.call::<()>(&["ZADD", "segment:s0", &score, "u0"]);
            "1"
        }
        Beside::PartitionsOfAnotherTag => {
            rename(&redis, "{p", "x{p");
            fill(&redis, "8", now).await;
            lose(&redis, &["layout"]);
            rename(&redis, "{p", "{q");
            for key in redis.call::<Vec<String>>(&["KEYS", "{q*:segment:s[12]"]) {
                redis.call::<()>(&["DEL", &key]);
            }
            rename(&redis, "x{p", "{p");
            "8"
        }
    };
    let message = refuses(&redis, &["adopt", "--yes"]);
    let numbers = if wrong == "1" { "1, 4" } else { "4, 8" };
    assert!(message.contains(&format!("the keys fit several numbers of partitions ({numbers})")), "{message}");
    let message = refuses(&redis, &["adopt", "--yes", "--partitions", wrong]);
    assert!(message.contains(" fewer unexpired members than other keys, which would be hidden ({p*}:*)"), "{message}");
    says(&redis, &["adopt", "--yes", "--partitions", "4"]);
    assert_eq!(users(&redis).await, USERS + u64::from(has_stray));
}

#[tokio::test]
async fn adopt_prints_patterns_with_the_key_prefix() {
    let redis = Redis::start();
    fill(&redis, "2", NOON).await;
    lose(&redis, &["layout"]);
    rename(&redis, "{", "prod*:{");
    for key in redis.call::<Vec<String>>(&["KEYS", "prod*:{p*"]) {
        redis.call::<()>(&["COPY", &key, &key.replace("{p", "{q")]);
    }
    let adopt = ["adopt", "--yes", "--redis-key-prefix", "prod*:"];
    let message = refuses(&redis, &adopt);
    let patterns = r"two data sets with so many partitions, prod\*:{p*}:* and prod\*:{q*}:*; remove";
    assert!(message.contains(patterns), "{message}");

    lose(&redis, &["}:segments", "}:segment:s0"]);
    redis.call::<()>(&["ZADD", "prod*:segment:s0", "9999999999", "u0"]);
    for user in ["u0", "u1", "u2", "u3"] {
        redis.call::<()>(&["ZADD", "prod*:{q02}:segment:s0", "9999999999", user]);
    }
    let message = refuses(&redis, &[&adopt[..], &["--partitions", "1"]].concat());
    assert!(message.contains(r"which would be hidden (prod\*:{p*}:*, prod\*:{q*}:*); name"), "{message}");
    lose(&redis, &["s1", "s2"]);
    let (_folder, mut command) = command(&redis, &adopt);
    let shown = String::from_utf8(run(&mut command).stdout).unwrap();
    assert!(shown.contains("\nprod\\*:{q*}:*, which fit no number of partitions: "), "{shown}");
}

#[tokio::test]
async fn adopt_hides_no_users_that_fit_no_number_of_partitions() {
    let (redis, score) = (Redis::start(), Timestamp::now().as_score().to_string());
    for n in 0..40 {
        redis.call::<()>(&["ZADD", &format!("{{q{:02}}}:segment:s0", n % 3), &score, &format!("u{n}")]);
    }
    redis.call::<()>(&["ZADD", "segment:s0", &score, "u0"]);
    let message = refuses(&redis, &["adopt", "--yes"]);
    assert!(
        message.contains("the keys fit 1 partition, and there are others, which would be hidden ({q*}:*)"),
        "{message}"
    );
    let message = refuses(&redis, &["adopt", "--yes", "--partitions", "1"]);
    assert!(message.contains("if the others are leftovers or another program's, rename or remove them"), "{message}");
    rename(&redis, "{q", "theirs{q");
    says(&redis, &["adopt", "--yes"]);
}

/// Keys that the scan misses would be hidden.
#[rstest]
#[case::forbidden(&[])]
#[case::missing(&["--rename-command", "SCAN", ""])]
#[tokio::test]
async fn adopt_refuses_if_it_cannot_scan_all_keys(
    #[case] options: &[&str],
    #[values(&["layout", "{p02}:segments", "{p03}:segments"][..], &["layout", "segments"])] lost: &[&str],
) {
    let redis = Redis::start_with(options);
    fill(&redis, "4", Timestamp::now()).await;
    lose(&redis, lost);
    let is_forbidden = options.is_empty();
    if is_forbidden {
        redis.call::<()>(&["ACL", "SETUSER", "default", "-scan"]);
    }
    let message = refuses(&redis, &["adopt", "--yes", "--partitions", "2"]);
    assert!(message.contains("not all keys were scanned") && message.contains("; grant +scan"), "{message}");
    if is_forbidden {
        redis.call::<()>(&["ACL", "SETUSER", "default", "+scan"]);
        let message = refuses(&redis, &["adopt", "--yes", "--partitions", "2"]);
        assert!(message.contains("no keys fit 2 partitions, and they do fit 4"), "{message}");
    }
}

#[tokio::test]
async fn adopt_scans_all_keys_and_check_reports_that_it_does_not() {
    let redis = Redis::start_with_debug_command();
    fill(&redis, "4", Timestamp::now()).await;
    redis.call::<()>(&["DEBUG", "POPULATE", "1050000", "theirs", "1"]);
    let table = says(&redis, &["check"]);
    assert!(table.contains("\nnot all keys were scanned: a server has more than a million\n"), "{table}");
    lose(&redis, &["layout", "segments"]);
    says(&redis, &["adopt", "--yes"]);
    assert_eq!(users(&redis).await, USERS);
}

/// The next prune removes all members of the hidden segment.
#[tokio::test]
async fn adopt_accepts_the_chosen_number_if_all_hidden_members_have_expired() {
    let (redis, now) = (Redis::start(), Timestamp::now());
    fill(&redis, "4", now).await;
    for n in 0..=USERS {
        redis.call::<()>(&["ZADD", "segment:theirs", "1", &format!("u{n}")]);
    }
    redis.call::<()>(&["ZADD", "segments", "0", "theirs"]);
    lose(&redis, &["layout"]);
    says(&redis, &["adopt", "--yes", "--partitions", "4"]);
    assert_eq!(users(&redis).await, USERS);
}

#[rstest]
#[case::one_partition("1", None)]
#[case::several_partitions("8", None)]
#[case::after_a_move("2", Some("4"))]
#[tokio::test]
async fn adopt_indexes_segments_that_no_index_names(#[case] partitions: &str, #[case] moved_to: Option<&str>) {
    let redis = Redis::start();
    fill(&redis, partitions, NOON).await;
    if let Some(to) = moved_to {
        says(&redis, &["repartition", "--to", to]);
    }
    lose(&redis, &["layout", "segments"]);
    for store in [redis.store(), redis.store().on_private_redis()] {
        let count = estimator(store, None).estimate(&segment("s1"), NOON).await;
        assert!(matches!(count, Err(Error::Unrecorded { .. })), "{count:?}");
    }
    assert_eq!(redis.call::<Option<String>>(&["GET", "layout"]), None);

    let said = says(&redis, &["adopt", "--yes"]);
    assert!(said.contains("with 300 members") && said.contains(" missing in the index are added to it"), "{said}");
    assert_eq!(users(&redis).await, USERS);
    // A move follows the indexes.
    says(&redis, &["repartition", "--to", "16"]);
    assert_eq!(users(&redis).await, USERS);
}

#[rstest]
#[case::shorter("4s", 1_209_600, "14d; to keep them for less, run `segment-estimator window set 4s`")]
#[case::default("14d", 1_209_600, "14d")]
#[case::longer("30d", 2_592_000, "30d")]
#[tokio::test]
async fn adopt_records_the_default_window_or_a_longer_one(#[case] own: &str, #[case] seconds: u64, #[case] said: &str) {
    let redis = Redis::start();
    let an_hour_ago = Timestamp::from_millis(Timestamp::now().as_millis() - 3_600_000);
    fill(&redis, "2", an_hour_ago).await;
    lose(&redis, &["layout"]);
    let text = says(&redis, &["adopt", "--yes", "--window", own]);
    assert!(
        text.ends_with(&format!("adopted: the data set has 2 partitions, and keeps visits for {said}\n")),
        "{text}"
    );
    assert!(text.contains("; the next prune removes 0, which are older than"), "{text}");
    let record: String = redis.call(&["GET", "layout"]);
    assert!(record.contains(&format!(r#""window_seconds":{seconds}"#)), "{record}");
    let pruned = redis.estimator("4s").prune(Timestamp::now()).await.unwrap();
    assert_eq!(pruned.members_removed, 0);
}

#[tokio::test]
async fn adopt_keeps_a_longer_window_that_a_partition_has_recorded() {
    let redis = Redis::start();
    fill(&redis, "2", NOON).await;
    redis.estimator("40d").ready().await.unwrap();
    // An index without partitions beside them, so that the record isn't restored automatically.
    redis.call::<()>(&["ZADD", "segments", "0", "x"]);
    redis.call::<()>(&["DEL", "layout"]);
    says(&redis, &["adopt", "--yes", "--partitions", "2"]);
    let record: String = redis.call(&["GET", "layout"]);
    assert!(record.contains(r#""window_seconds":3456000"#), "{record}");
}

#[tokio::test]
async fn check_and_adopt_name_every_foreign_key() {
    let redis = Redis::start();
    fill(&redis, "1", NOON).await;
    redis.call::<()>(&["MSET", "segment:foo", "x", "history:s2", "x", "forgotten", "x", "{p01}:segment:not", "x"]);
    redis.call::<()>(&["ZADD", "segments", "0", "foo"]);
    redis.call::<()>(&["RPUSH", "segment:bar", "x"]);
    redis.call::<()>(&["RPUSH", "history:s1", "1", "1"]);
    let table = says(&redis, &["check"]);
    let line = "4 of them hold data that this service did not write, and will be left alone: \
                forgotten, history:s2, segment:bar, segment:foo\n";
    assert!(table.contains(line), "{table}");
    redis.call::<()>(&["DEL", "{p01}:segment:not"]);
    lose(&redis, &["layout"]);
    let said = says(&redis, &["adopt", "--yes"]);
    assert!(said.contains("; 2 keys of another type left alone: segment:foo, segment:bar\n"), "{said}");

    for n in 0..20 {
        redis.call::<()>(&["SET", &format!("segment:x{n:02}"), "x"]);
    }
    let table = says(&redis, &["check"]);
    assert!(table.contains("\n24 of them hold") && table.contains(", segment:x05 and 14 more\n"), "{table}");
}

#[rstest]
#[case::from_one_partition("1", "segment:s9")]
#[case::from_several_partitions("2", "{p01}:segment:s1")]
#[tokio::test]
async fn repartition_skips_keys_of_other_types(#[case] partitions: &str, #[case] foreign: &str) {
    let redis = Redis::start();
    fill(&redis, partitions, NOON).await;
    let before = users(&redis).await;
    let hidden: u64 = redis.call(&["ZCARD", foreign]);
    redis.call::<()>(&["SET", foreign, "theirs"]);
    let (index, name) = foreign.rsplit_once("segment:").unwrap();
    redis.call::<()>(&["ZADD", &format!("{index}segments"), "0", name]);
    let (_folder, mut moving) = command(&redis, &["repartition", "--to", "4"]);
    let output = run(&mut moving);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("skipping keys of another type, which `check` names: 1"), "{stderr}");
    assert_eq!(users(&redis).await, before - hidden);
    assert_eq!(redis.call::<String>(&["GET", foreign]), "theirs");
}

/// A move can't be undone once it has begun, and it needs these keys.
#[rstest]
#[case::tombstones("4", "1", &["SET", "forgotten", "theirs"])]
#[case::tombstones_of_a_partition("1", "4", &["HSET", "{p03}:forgotten", "a", "b"])]
#[case::index("1", "4", &["HSET", "{p01}:segments", "a", "b"])]
#[case::segment("1", "4", &["SET", "{p02}:segment:s1", "theirs"])]
#[case::layout_copy_of_other_type("1", "4", &["RPUSH", "{p01}:layout", "theirs"])]
#[case::layout_copy_of_other_json("1", "4", &["SET", "{p01}:layout", r#"{"epoch":7}"#])]
#[case::sorted_set_of_tombstones("1", "4", &["ZADD", "{p00}:forgotten", "0", "u1"])]
#[case::sorted_set_of_an_index("1", "4", &["ZADD", "{p01}:segments", "0", "s1"])]
#[case::sorted_set_of_a_segment("1", "4", &["ZADD", "{p02}:segment:s1", "9999999999", "theirs"])]
#[tokio::test]
async fn repartition_refuses_a_foreign_key_before_it_begins(
    #[case] from: &str,
    #[case] to: &str,
    #[case] foreign: &[&str],
) {
    let redis = Redis::start();
    fill(&redis, from, NOON).await;
    redis.call::<()>(foreign);
    let record: String = redis.call(&["GET", "layout"]);
    let (_folder, mut moving) = command(&redis, &["repartition", "--to", to]);
    let message = refusal(&mut moving);
    let key = foreign[1];
    assert!(
        message.contains(&format!("`{key}` holds data that no move of this data set wrote, and this")),
        "{message}"
    );
    assert!(message.contains("rename or delete that key, and run the same command again"), "{message}");
    assert_eq!(redis.call::<String>(&["GET", "layout"]), record, "the move has not begun");
    let user = segment_estimator::domain::UserId::parse("u0").unwrap();
    assert_eq!(estimator(redis.store(), None).delete_user(&user).await, Ok(1));

    redis.call::<()>(&["RENAME", key, "theirs"]);
    says(&redis, &["repartition", "--to", to]);
    assert_eq!(users(&redis).await, USERS - 1);
}

/// An earlier move may have left sorted sets, so their content decides.
#[rstest]
#[case::tombstones_without_ttl("{p00}:forgotten", &["0", "u1"], None)]
#[case::tombstones_with_scores("{p03}:forgotten", &["7", "u1"], Some("9999"))]
#[case::index_with_scores("{p01}:segments", &["7", "s1"], None)]
#[case::index_with_an_invalid_name("{p01}:segments", &["0", "s1", "0", ""], None)]
#[case::segment_that_no_index_names("{p02}:segment:s1", &["7", "u1"], None)]
#[tokio::test]
async fn repartition_refuses_a_foreign_sorted_set_after_an_earlier_move(
    #[case] key: &str,
    #[case] members: &[&str],
    #[case] ttl: Option<&str>,
) {
    let redis = Redis::start();
    fill(&redis, "4", NOON).await;
    says(&redis, &["repartition", "--to", "1"]);
    redis.call::<()>(&[&["ZADD", key], members].concat());
    if let Some(ttl) = ttl {
        redis.call::<()>(&["EXPIRE", key, ttl]);
    }
    let before: Vec<u8> = redis.call(&["DUMP", key]);
    let record: String = redis.call(&["GET", "layout"]);
    let (_folder, mut moving) = command(&redis, &["repartition", "--to", "4"]);
    let message = refusal(&mut moving);
    assert!(
        message.contains(&format!("`{key}` holds data that no move of this data set wrote, and this")),
        "{message}"
    );
    assert_eq!(redis.call::<String>(&["GET", "layout"]), record, "the move has not begun");
    assert_eq!(redis.call::<Vec<u8>>(&["DUMP", key]), before);
}

#[tokio::test]
async fn repartition_deletes_the_leftovers_of_an_earlier_move() {
    let redis = Redis::start();
    fill(&redis, "4", NOON).await;
    says(&redis, &["repartition", "--to", "1"]);
    redis.call::<()>(&["ZADD", "{p00}:forgotten", "0", "u1"]);
    redis.call::<()>(&["EXPIRE", "{p00}:forgotten", "9999"]);
    redis.call::<()>(&["ZADD", "{p02}:segments", "0", "s1", "0", "stray"]);
    redis.call::<()>(&["ZADD", "{p02}:segment:s1", "9999999999", "stray"]);
    redis.call::<()>(&["ZADD", "{p02}:segment:stray", "9999999999", "stray"]);
    says(&redis, &["repartition", "--to", "4"]);
    assert_eq!(users(&redis).await, USERS);
    assert_eq!(redis.call::<u64>(&["EXISTS", "{p00}:forgotten", "{p02}:segment:stray"]), 0);
}

#[tokio::test]
async fn repartition_leaves_a_foreign_sorted_set_of_tombstones() {
    let redis = Redis::start();
    fill(&redis, "1", NOON).await;
    let moving = r#"{"epoch":5,"keys":"plain","move":{"to":"p4","phase":"cleaning"},"window_seconds":1209600}"#;
    redis.call::<()>(&["SET", "layout", moving]);
    let foreign = ["{p00}:forgotten", "{p01}:forgotten", "forgotten"];
    for key in foreign {
        redis.call::<()>(&["ZADD", key, if key.contains("p01") { "0" } else { "7" }, "theirs"]);
    }
    redis.call::<()>(&["ZADD", "{p02}:forgotten", "0", "u1"]);
    redis.call::<()>(&["EXPIRE", "{p02}:forgotten", "9999"]);
    says(&redis, &["repartition", "--to", "4"]);
    for key in foreign {
        assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", key, "0", "-1"]), ["theirs"], "{key}");
    }
    assert_eq!(redis.call::<u64>(&["EXISTS", "{p02}:forgotten"]), 0);
}

#[tokio::test]
async fn repartition_names_the_remedy_for_a_foreign_key_that_appears_later() {
    let redis = Redis::start();
    fill(&redis, "1", NOON).await;
    let moving = r#"{"epoch":3,"keys":"plain","move":{"to":"p4","phase":"copying"},"window_seconds":1209600}"#;
    redis.call::<()>(&["MSET", "layout", moving, "{p00}:forgotten", "theirs"]);
    let (_folder, mut command) = command(&redis, &["repartition", "--to", "4"]);
    let message = String::from_utf8(run(&mut command).stderr).unwrap();
    assert!(message.contains(" {p00}:forgotten` found a key of another type"), "{message}");
    assert!(message.ends_with("rename or delete that key, and run the same command again\n"), "{message}");
    redis.call::<()>(&["DEL", "{p00}:forgotten"]);
    says(&redis, &["repartition", "--to", "4"]);
    assert_eq!(users(&redis).await, USERS);
}

#[tokio::test]
async fn repartition_ignores_a_foreign_key_that_it_does_not_write() {
    let redis = Redis::start();
    fill(&redis, "1", NOON).await;
    redis.call::<()>(&[
        "MSET",
        "{p01}:segment:other",
        "theirs",
        "{p09}:segment:s1",
        "theirs",
        "{q01}:segments",
        "theirs",
    ]);
    says(&redis, &["repartition", "--to", "4"]);
    assert_eq!(users(&redis).await, USERS);
}

#[tokio::test]
async fn start_refuses_partitions_without_an_index_until_they_are_adopted() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    fill(&redis, "4", Timestamp::now()).await;
    lose(&redis, &["layout", "segments"]);
    let serve = ["--redis-url", &redis.url(), "--listen", "127.0.0.1:0", "--log-filter", "off"];
    let message = refusal(binary(folder.path()).args(serve));
    assert!(message.contains("}:segment:*` and no data set of this service"), "{message}");
    says(&redis, &["adopt", "--yes"]);
    let service = Service::start(folder.path(), &["--redis-url", &redis.url()]);
    assert_eq!(service.count("s1").await, 100);
    assert!(service.terminate().success());
}
