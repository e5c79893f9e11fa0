//! Pruning: in slices, by any instance at any time, without removing a member that counts or the name of an occupied
//! segment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::redis::{Client, Limits, RedisUrl};
use segment_estimator::store::{KeySet, Store};
use tokio::task::JoinSet;

use crate::helpers::{NOON, Redis, TIMEOUT, TestApp, eventually, noon_plus, segment, settings, visit};

const WINDOW: &str = "10s";
const WINDOW_MILLIS: i64 = 10_000;

/// Fills a segment past the service. Member `n` gets the score `score(n)`.
fn fill(redis: &Redis, name: &str, members: usize, score: impl Fn(usize) -> Timestamp) {
    redis.record_data_set();
    let key = format!("segment:{name}");
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    for chunk in (0..members).collect::<Vec<_>>().chunks(10_000) {
        let mut command = redis::cmd("ZADD");
        command.arg(&key);
        for &n in chunk {
            command.arg(score(n).as_score()).arg(format!("u{n}"));
        }
        command.exec(&mut connection).unwrap();
    }
    redis.call::<()>(&["ZADD", "segments", "0", name]);
}

/// Prunes `name` slice by slice, and returns the size of each slice.
async fn slices(store: &Store, name: &str, cutoff: Timestamp) -> Vec<u64> {
    let (plain, mut sizes) = (KeySet::plain().all().next().unwrap(), Vec::new());
    let layout = store.layout().await.unwrap();
    loop {
        let slice = store
            .remove_expired_slice(&layout, plain.segment_keys().next().unwrap(), &segment(name), cutoff)
            .await
            .unwrap();
        sizes.push(slice.removed);
        if slice.is_done {
            return sizes;
        }
    }
}

#[tokio::test]
async fn prune_removes_a_large_segment_in_slices() {
    let redis = Redis::start();
    fill(&redis, "sports", 100_000, |n| noon_plus(n as i64));
    fill(&redis, "alive", 3_000, |n| noon_plus(200_000 + n as i64));
    let estimator = redis.estimator(WINDOW);
    estimator.ready().await.unwrap();
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);

    let report = estimator.prune(noon_plus(100_000 + WINDOW_MILLIS)).await.unwrap();

    assert_eq!((report.members_removed, report.names_dropped), (100_000, 1));
    assert!(redis.calls("zremrangebyscore") >= 100, "{} slices", redis.calls("zremrangebyscore"));
    let slices = redis.calls("zremrangebyscore");
    assert_eq!(redis.calls("eval"), slices + 1, "one for each slice, and one to drop the name");
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]), ["alive"]);
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:alive"]), 3_000);
}

#[tokio::test]
async fn remove_expired_slice_removes_two_thousand_members_at_most() {
    let redis = Redis::start();
    let store = redis.store();
    let cutoff = noon_plus(0);
    let max = 2 * Store::SLICE as u64;
    // The number of members that share a score.
    for (name, ties) in
        [("distinct", 1), ("few", 7), ("half", 500), ("thousand", 1_000), ("many", 3_333), ("all", 20_000)]
    {
        fill(&redis, name, 20_000, |n| noon_plus(-((n / ties) as i64)));
        let sizes = slices(&store, name, cutoff).await;
        assert_eq!(sizes.iter().sum::<u64>(), 20_000, "{name}");
        assert!(sizes.iter().all(|size| *size <= max), "{name}: {sizes:?}");
        assert_eq!(redis.call::<u64>(&["EXISTS", &format!("segment:{name}")]), 0);
    }
}

#[tokio::test]
async fn remove_expired_slice_removes_ties_at_the_cutoff_and_keeps_later_members() {
    let redis = Redis::start();
    let store = redis.store();
    for (name, members) in [("few", 10), ("slice", 1_000), ("plateau", 5_000)] {
        fill(&redis, name, members, |_| NOON);
        let key = format!("segment:{name}");
        redis.call::<()>(&["ZADD", &key, &noon_plus(1).as_score().to_string(), "alive"]);

        let sizes = slices(&store, name, NOON).await;

        assert_eq!(sizes.iter().sum::<u64>(), members as u64, "{name}");
        assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", &key, "0", "-1"]), ["alive"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prune_keeps_members_that_are_refreshed_concurrently() {
    const USERS: usize = 20_000;
    let redis = Redis::start();
    let estimator = redis.estimator(WINDOW);
    // All members have expired. They share seven scores, so that slices are cut by score and by number.
    fill(&redis, "sports", USERS, |n| noon_plus((n % 7) as i64));
    let now = noon_plus(6 + WINDOW_MILLIS);

    let mut tasks = JoinSet::new();
    for worker in 0..4 {
        let estimator = estimator.clone();
        tasks.spawn(async move {
            // Every second user is seen again, just inside the window, while the others are pruned.
            for n in (0..USERS).filter(|n| n % 2 == 0 && n / 2 % 4 == worker) {
                estimator.record(visit(&format!("u{n}"), "sports", noon_plus(7)), now).await.unwrap();
            }
        });
    }
    for _ in 0..2 {
        let estimator = estimator.clone();
        tasks.spawn(async move {
            for _ in 0..5 {
                estimator.prune(now).await.unwrap();
            }
        });
    }
    tasks.join_all().await;

    assert_eq!(estimator.estimate(&segment("sports"), now).await.unwrap(), USERS as u64 / 2);
    estimator.prune(now).await.unwrap();
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:sports"]), USERS as u64 / 2);
}

#[tokio::test]
async fn prune_continues_after_segments_with_a_refused_command() {
    let redis = Redis::start();
    redis.record_data_set();
    // An ACL forbids the segments of the first page of the index, and permits those after it.
    let (forbidden, permitted) = (250, 10);
    for n in 0..forbidden {
        fill(&redis, &format!("a{n}"), 1, |_| NOON);
    }
    for n in 0..permitted {
        fill(&redis, &format!("b{n}"), 1, |_| NOON);
    }
    redis.call::<()>(&["ACL", "SETUSER", "me", "on", ">hunter2", "+@all", "~segment:b*", "~segments", "~layout"]);
    let url = RedisUrl::parse(&format!("{}?user=me&pass=hunter2", redis.url())).unwrap();
    let limits = Limits { connect: TIMEOUT, answer: TIMEOUT, max_pending: 1 };
    let store = Store::new(Client::new(url, limits, Arc::default()).unwrap());
    let estimator = Estimator::new(store, Window::parse(WINDOW).unwrap());

    let error = estimator.prune(noon_plus(WINDOW_MILLIS)).await.unwrap_err();

    assert!(error.to_string().starts_with("Redis refused `ZCOUNT segment:a"), "{error}");
    assert_eq!(redis.call::<Vec<String>>(&["KEYS", "segment:b*"]), [""; 0]);
    assert_eq!(redis.call::<Vec<String>>(&["KEYS", "segment:a*"]).len(), forbidden);
    assert_eq!(redis.call::<usize>(&["ZCARD", "segments"]), forbidden);
}

#[tokio::test]
async fn prune_names_a_missing_command() {
    let redis = Redis::start_with(&["--rename-command", "EVAL", ""]);
    redis.record_data_set();
    fill(&redis, "sports", 1, |_| NOON);
    let error = redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS)).await.unwrap_err().to_string();
    assert!(error.starts_with("Redis refused `EVAL`: ERR (it doesn't have this command"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prune_keeps_a_member_seen_again_before_the_removal() {
    // Exactly a slice: one that was cut by rank would contain members that are seen again in the meantime.
    const USERS: usize = Store::SLICE;
    let redis = Redis::start();
    let (pruner, estimator) = (redis.estimator(WINDOW), redis.estimator(WINDOW));
    let now = noon_plus(USERS as i64 + WINDOW_MILLIS);
    for round in 0..200 {
        fill(&redis, "sports", USERS, |n| noon_plus(n as i64));
        let back: Vec<_> = (0..USERS).filter(|n| n % 5 == round % 5).collect();
        let (expected, estimator) = (back.len() as u64, estimator.clone());
        let refreshing = tokio::spawn(async move {
            for n in back {
                estimator.record(visit(&format!("u{n}"), "sports", now), now).await.unwrap();
            }
        });
        pruner.prune(now).await.unwrap();
        refreshing.await.unwrap();

        let count = pruner.estimate(&segment("sports"), now).await.unwrap();
        assert_eq!(count, expected, "round {round}");
        redis.call::<()>(&["DEL", "segment:sports"]);
    }
}

#[tokio::test]
async fn record_writes_the_member_before_its_name() {
    let redis = Redis::start();
    let commands = redis.monitor();
    redis.estimator(WINDOW).record(visit("u1", "sports", NOON), NOON).await.unwrap();

    let written = commands.filter(|command| command.contains("\"ZADD\"")).take(2);
    let written: Vec<_> = tokio::task::spawn_blocking(move || written.collect()).await.unwrap();
    assert!(written[0].contains("\"segment:sports\"") && written[1].contains("\"segments\""), "{written:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prune_by_ten_instances_removes_each_member_once() {
    let redis = Redis::start();
    for n in 0..20 {
        fill(&redis, &format!("s{n}"), 2_500, |member| noon_plus((member / 3) as i64));
    }
    fill(&redis, "alive", 2_500, |_| noon_plus(WINDOW_MILLIS));
    let now = noon_plus(WINDOW_MILLIS + 1_000);

    let mut pruners = JoinSet::new();
    for _ in 0..10 {
        // Each has its own connection, as separate instances do.
        let estimator = redis.estimator(WINDOW);
        pruners.spawn(async move { estimator.prune(now).await.unwrap() });
    }
    let reports = pruners.join_all().await;

    assert_eq!(reports.iter().map(|report| report.members_removed).sum::<u64>(), 20 * 2_500);
    assert_eq!(reports.iter().map(|report| report.names_dropped).sum::<u64>(), 20);
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]), ["alive"]);
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:alive"]), 2_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prune_keeps_the_name_of_a_segment_that_gains_a_member() {
    let redis = Redis::start();
    let stop = Arc::new(AtomicBool::new(false));
    let mut pruners = JoinSet::new();
    for _ in 0..3 {
        let (estimator, stop) = (redis.estimator(WINDOW), Arc::clone(&stop));
        pruners.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // The clock is far ahead, so that all members have expired.
                estimator.prune(noon_plus(WINDOW_MILLIS)).await.unwrap();
            }
        });
    }
    let estimator: Estimator = redis.estimator(WINDOW);
    for round in 0..500 {
        // Pruning may remove the first visit at once, concurrently with the second one.
        estimator.record(visit("u1", "sports", NOON), NOON).await.unwrap();
        estimator.record(visit("u2", "sports", noon_plus(1)), NOON).await.unwrap();
        let index: Vec<String> = redis.call(&["ZRANGE", "segments", "0", "-1"]);
        assert_eq!(index, ["sports"], "round {round}");
        redis.call::<()>(&["ZADD", "segment:sports", &NOON.as_score().to_string(), "u2"]);
    }
    stop.store(true, Ordering::Relaxed);
    pruners.join_all().await;
}

#[tokio::test]
async fn prune_reads_all_pages_of_the_index() {
    let redis = Redis::start();
    redis.record_data_set();
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut pipeline = redis::pipe();
    for n in 0..2_500 {
        pipeline.cmd("ZADD").arg(format!("segment:s{n}")).arg(NOON.as_score()).arg("u1").ignore();
        pipeline.cmd("ZADD").arg("segments").arg(0).arg(format!("s{n}")).ignore();
    }
    pipeline.exec(&mut connection).unwrap();

    let report = redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS)).await.unwrap();

    assert_eq!((report.segments_examined, report.members_removed, report.names_dropped), (2_500, 2_500, 2_500));
    assert!(redis.sets().is_empty());
}

#[tokio::test]
async fn prune_continues_after_a_key_of_another_type_and_a_foreign_name() {
    let redis = Redis::start();
    for name in ["a", "c"] {
        fill(&redis, name, 10, |_| NOON);
    }
    redis.call::<()>(&["SET", "segment:b", "theirs"]);
    redis.call::<()>(&["ZADD", "segments", "0", "b", "0", " not a name "]);

    let report = redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS)).await.unwrap();

    assert_eq!((report.segments_examined, report.segments_of_wrong_type, report.members_removed), (3, 1, 20));
    assert_eq!(redis.call::<String>(&["GET", "segment:b"]), "theirs");
}

#[tokio::test]
async fn prune_drops_names_of_keys_of_another_type_and_keeps_the_keys() {
    let redis = Redis::start();
    let mut connection = redis.connection();
    let mut pipeline = redis::pipe();
    // More names than a page of the index, between two segments with members.
    for n in 0..600 {
        pipeline.cmd("RPUSH").arg(format!("segment:m{n}")).arg("theirs").ignore();
        pipeline.cmd("ZADD").arg("segments").arg(0).arg(format!("m{n}")).ignore();
    }
    pipeline.exec(&mut connection).unwrap();
    for name in ["a", "z"] {
        fill(&redis, name, 10, |n| noon_plus(n as i64));
    }

    let report = redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS + 4)).await.unwrap();

    assert_eq!((report.segments_of_wrong_type, report.names_dropped, report.members_removed), (600, 0, 10));
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]), ["a", "z"]);
    assert_eq!(redis.call::<Vec<String>>(&["KEYS", "segment:m*"]).len(), 600);
    assert_eq!(redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS + 4)).await.unwrap().segments_of_wrong_type, 0);
}

#[tokio::test]
async fn prune_job_runs_on_schedule_and_survives_a_failed_run() {
    let mut redis = Redis::start();
    let every_second = settings([("window", "1s"), ("prune_schedule", "* * * * * *")]);
    let app = TestApp::spawn_with(&redis, every_second).await;
    app.record("u104010", "sports").await;
    eventually("the segment is pruned", async || redis.sets().is_empty()).await;

    redis.stop();
    // Runs fail until Redis is back. The job runs every second.
    eventually("the service is not ready", async || app.status_of("/readyz").await == 503).await;
    redis.start_again();
    eventually("the service is ready", async || app.status_of("/readyz").await == 200).await;

    app.record("u104010", "sports").await;
    eventually("the segment is pruned again", async || redis.sets().is_empty()).await;
}
