//! Pruning: in slices, by anyone at any time, without ever removing a member that counts or a name that is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::redis::{Client, Limits, RedisUrl};
use segment_estimator::store::{KeySet, Partitions, Store};
use tokio::task::JoinSet;

use crate::helpers::{NOON, Redis, TIMEOUT, TestApp, eventually, noon_plus, segment, settings, visit};

const WINDOW: &str = "10s";
const WINDOW_MILLIS: i64 = 10_000;

/// Fills a segment with members straight away, the `n`th with the score that `score` gives it.
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

/// Prunes `name` slice by slice and gives the size of each.
async fn slices(store: &Store, name: &str, cutoff: Timestamp) -> Vec<u64> {
    let (plain, mut sizes) = (KeySet::first(Partitions::ONE).all().next().unwrap(), Vec::new());
    let layout = store.layout().await.unwrap();
    loop {
        let slice = store.prune_slice(&layout, plain, &segment(name), cutoff).await.unwrap();
        sizes.push(slice.removed);
        if slice.is_last {
            return sizes;
        }
    }
}

#[tokio::test]
async fn a_large_expired_segment_goes_in_slices() {
    let redis = Redis::start();
    fill(&redis, "sports", 100_000, |n| noon_plus(n as i64));
    fill(&redis, "alive", 3_000, |n| noon_plus(200_000 + n as i64));
    let estimator = redis.estimator(WINDOW);
    estimator.ready().await.unwrap();
    redis.call::<()>(&["CONFIG", "RESETSTAT"]);

    let report = estimator.prune(noon_plus(100_000 + WINDOW_MILLIS)).await.unwrap();

    assert_eq!((report.members_removed, report.segments_dropped), (100_000, 1));
    assert!(redis.calls("zremrangebyscore") >= 100, "{} slices", redis.calls("zremrangebyscore"));
    let slices = redis.calls("zremrangebyscore");
    assert_eq!(redis.calls("eval"), slices + 1, "each slice, and one look at the segment that has no members left");
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]), ["alive"]);
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:alive"]), 3_000);
}

#[tokio::test]
async fn no_slice_is_much_larger_than_a_thousand() {
    let redis = Redis::start();
    let store = redis.store();
    let cutoff = noon_plus(0);
    let most = 2 * Store::SLICE as u64;
    // How many members share a score: none, a few, more than a slice, all.
    for (name, ties) in
        [("distinct", 1), ("few", 7), ("half", 500), ("thousand", 1_000), ("many", 3_333), ("all", 20_000)]
    {
        fill(&redis, name, 20_000, |n| noon_plus(-((n / ties) as i64)));
        let sizes = slices(&store, name, cutoff).await;
        assert_eq!(sizes.iter().sum::<u64>(), 20_000, "{name}");
        assert!(sizes.iter().all(|size| *size <= most), "{name}: {sizes:?}");
        assert_eq!(redis.call::<u64>(&["EXISTS", &format!("segment:{name}")]), 0);
    }
}

#[tokio::test]
async fn ties_at_the_cutoff_go_and_those_a_millisecond_later_stay() {
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
async fn a_storm_of_refreshes_loses_nobody() {
    const USERS: usize = 20_000;
    let redis = Redis::start();
    let estimator = redis.estimator(WINDOW);
    // Everybody has expired, at a few moments only, so that slices are cut in both ways.
    fill(&redis, "sports", USERS, |n| noon_plus((n % 7) as i64));
    let now = noon_plus(6 + WINDOW_MILLIS);

    let mut tasks = JoinSet::new();
    for worker in 0..4 {
        let estimator = estimator.clone();
        tasks.spawn(async move {
            // Every second user comes back, just inside the window, while the others are being pruned.
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
async fn prune_goes_on_behind_segments_for_which_redis_refuses_a_command() {
    let redis = Redis::start();
    redis.record_data_set();
    // A page of the index that an ACL hides, and then some segments that it doesn't.
    let (hidden, open) = (250, 10);
    for n in 0..hidden {
        fill(&redis, &format!("a{n}"), 1, |_| NOON);
    }
    for n in 0..open {
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
    assert_eq!(redis.call::<Vec<String>>(&["KEYS", "segment:a*"]).len(), hidden);
    assert_eq!(redis.call::<usize>(&["ZCARD", "segments"]), hidden);
}

#[tokio::test]
async fn prune_names_a_command_that_redis_does_not_have() {
    let redis = Redis::start_with(&["--rename-command", "EVAL", ""]);
    redis.record_data_set();
    fill(&redis, "sports", 1, |_| NOON);
    let error = redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS)).await.unwrap_err().to_string();
    assert!(error.starts_with("Redis refused `EVAL`: ERR (it doesn't have this command"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_seen_again_between_the_look_and_the_removal_stays() {
    // Just a slice, so that one cut by rank would reach whoever comes back meanwhile.
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
async fn a_member_is_written_before_its_name() {
    let redis = Redis::start();
    let commands = redis.monitor();
    redis.estimator(WINDOW).record(visit("u1", "sports", NOON), NOON).await.unwrap();

    let written = commands.filter(|command| command.contains("\"ZADD\"")).take(2);
    let written: Vec<_> = tokio::task::spawn_blocking(move || written.collect()).await.unwrap();
    assert!(written[0].contains("\"segment:sports\"") && written[1].contains("\"segments\""), "{written:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_pruners_at_once_do_the_work_of_one() {
    let redis = Redis::start();
    for n in 0..20 {
        fill(&redis, &format!("s{n}"), 2_500, |member| noon_plus((member / 3) as i64));
    }
    fill(&redis, "alive", 2_500, |_| noon_plus(WINDOW_MILLIS));
    let now = noon_plus(WINDOW_MILLIS + 1_000);

    let mut pruners = JoinSet::new();
    for _ in 0..10 {
        // Each with a connection of its own, as replicas have.
        let estimator = redis.estimator(WINDOW);
        pruners.spawn(async move { estimator.prune(now).await.unwrap() });
    }
    let reports = pruners.join_all().await;

    assert_eq!(reports.iter().map(|report| report.members_removed).sum::<u64>(), 20 * 2_500);
    assert_eq!(reports.iter().map(|report| report.segments_dropped).sum::<u64>(), 20);
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]), ["alive"]);
    assert_eq!(redis.call::<u64>(&["ZCARD", "segment:alive"]), 2_500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_gets_a_member_while_it_is_dropped_stays_in_the_index() {
    let redis = Redis::start();
    let stop = Arc::new(AtomicBool::new(false));
    let mut pruners = JoinSet::new();
    for _ in 0..3 {
        let (estimator, stop) = (redis.estimator(WINDOW), Arc::clone(&stop));
        pruners.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // This clock is far ahead, so that whatever is there expires at once.
                estimator.prune(noon_plus(WINDOW_MILLIS)).await.unwrap();
            }
        });
    }
    let estimator: Estimator = redis.estimator(WINDOW);
    for round in 0..500 {
        // WriteOutcome and pruned again at once; then written to stay.
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
async fn an_index_of_more_than_one_page_is_pruned_to_its_end() {
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

    assert_eq!((report.segments_examined, report.members_removed, report.segments_dropped), (2_500, 2_500, 2_500));
    assert!(redis.sets().is_empty());
}

#[tokio::test]
async fn a_key_of_another_type_and_a_foreign_name_do_not_stop_the_run() {
    let redis = Redis::start();
    for name in ["a", "c"] {
        fill(&redis, name, 10, |_| NOON);
    }
    redis.call::<()>(&["SET", "segment:b", "not ours"]);
    redis.call::<()>(&["ZADD", "segments", "0", "b", "0", " not a name "]);

    let report = redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS)).await.unwrap();

    assert_eq!((report.segments_examined, report.segments_failed, report.members_removed), (3, 1, 20));
    assert_eq!(redis.call::<String>(&["GET", "segment:b"]), "not ours");
}

#[tokio::test]
async fn prune_drops_the_names_of_keys_of_another_type_and_leaves_the_keys() {
    let redis = Redis::start();
    let mut connection = redis.connection();
    let mut pipeline = redis::pipe();
    // More than a page of the index, with segments that somebody is in before and behind them.
    for n in 0..600 {
        pipeline.cmd("RPUSH").arg(format!("segment:m{n}")).arg("not ours").ignore();
        pipeline.cmd("ZADD").arg("segments").arg(0).arg(format!("m{n}")).ignore();
    }
    pipeline.exec(&mut connection).unwrap();
    for name in ["a", "z"] {
        fill(&redis, name, 10, |n| noon_plus(n as i64));
    }

    let report = redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS + 4)).await.unwrap();

    assert_eq!((report.segments_failed, report.segments_dropped, report.members_removed), (600, 600, 10));
    assert_eq!(redis.call::<Vec<String>>(&["ZRANGE", "segments", "0", "-1"]), ["a", "z"]);
    assert_eq!(redis.call::<Vec<String>>(&["KEYS", "segment:m*"]).len(), 600);
    assert_eq!(redis.estimator(WINDOW).prune(noon_plus(WINDOW_MILLIS + 4)).await.unwrap().segments_failed, 0);
}

#[tokio::test]
async fn the_job_prunes_on_its_schedule_and_survives_a_failed_run() {
    let mut redis = Redis::start();
    let every_second = settings([("window", "1s"), ("prune_schedule", "* * * * * *")]);
    let app = TestApp::spawn_with(&redis, every_second).await;
    app.record("u104010", "sports").await;
    eventually("the segment is pruned", async || redis.sets().is_empty()).await;

    redis.stop();
    // Some runs fail now: the job ticks every second.
    eventually("Redis is missed", async || app.status_of("/readyz").await == 503).await;
    redis.start_again();
    eventually("Redis is back", async || app.status_of("/readyz").await == 200).await;

    app.record("u104010", "sports").await;
    eventually("the segment is pruned again", async || redis.sets().is_empty()).await;
}
