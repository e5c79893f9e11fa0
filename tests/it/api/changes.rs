//! Changes of counts in lists, and the records that the sampler writes for them.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::history::{History, HistorySampler, Interval};
use segment_estimator::estimator::{Change, Changes, Estimator, List, ListCursor, ListQuery, Order};
use segment_estimator::redis::{Client, Deployment, Limits, RedisUrl};
use segment_estimator::store::{NamedSample, Partitions, Sample, Store};
use serde_json::{Value, json};

use super::segments::record_sizes;
use crate::helpers::{NOON, Redis, RedisCluster, TIMEOUT, TestApp, noon_plus, segment, visit};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn estimator(store: &Store) -> Estimator {
    Estimator::new(store.clone(), Window::parse("14d").unwrap())
}

/// Samples all segments at `tick`.
async fn sample(store: &Store, tick: Timestamp) {
    sample_over(store, "14d", tick).await;
}

/// Samples all segments at `tick`, as an instance that counts over `window`.
async fn sample_over(store: &Store, window: &str, tick: Timestamp) {
    let estimator = Estimator::new(store.clone(), Window::parse(window).unwrap());
    let history = History::new(store.clone(), Interval::parse("1h").unwrap());
    HistorySampler::new(estimator, history).sample(tick, tick).await.unwrap();
}

/// Records users in a segment at noon.
async fn record_users(store: &Store, name: &str, users: usize) {
    for user in 0..users {
        estimator(store).record(visit(&format!("u{user}"), name, NOON), NOON).await.unwrap();
    }
}

/// Adds earlier samples to the history of a segment: times before noon in hours, and counts.
async fn add_history(store: &Store, name: &str, samples: &[(i64, u64)]) {
    let samples: Vec<_> = samples
        .iter()
        .map(|&(hours, count)| NamedSample {
            segment: segment(name).into_owned(),
            sample: Sample { at: noon_plus(-hours * HOUR), count: count.into() },
        })
        .collect();
    assert_eq!(store.add_samples(&samples).await, Ok(samples.len() as u64));
}

async fn changes(store: &Store, name: &str, now: Timestamp) -> Changes {
    estimator(store).changes_of(&[&segment(name)], now).await.unwrap()[0]
}

fn query(order: Order, limit: usize, cursor: Option<ListCursor>) -> ListQuery {
    let window = Window::parse("14d").unwrap();
    ListQuery { prefix: String::new(), contains: String::new(), order, limit, cursor, window }
}

async fn list(store: &Store, order: Order) -> List {
    estimator(store).list(&query(order, 100, None), NOON).await.unwrap()
}

/// A change from some hours before noon to noon.
fn change(hours: i64, before: u64, after: u64) -> Option<Change> {
    Some(Change { before: before.into(), after: after.into(), from: noon_plus(-hours * HOUR), to: NOON })
}

#[rstest]
#[case::exact(&[(200, 1), (168, 5), (30, 2), (24, 7)], change(24, 7, 3), change(168, 5, 3))]
#[case::new(&[], None, None)]
#[case::a_day_old(&[(24, 7)], change(24, 7, 3), None)]
#[case::gap_at_that_time(&[(169, 1), (160, 6), (25, 2), (22, 8)], change(22, 8, 3), change(160, 6, 3))]
#[case::gap_too_long(&[(169, 1), (146, 6), (25, 2), (20, 8)], None, None)]
#[case::born_within_an_eighth(&[(160, 6), (22, 8)], None, None)]
#[case::came_back_after_being_pruned(&[(400, 9), (160, 6), (30, 8), (22, 8)], None, None)]
#[case::zero_before(&[(168, 0), (24, 0)], change(24, 0, 3), change(168, 0, 3))]
#[tokio::test]
async fn sample_compares_with_a_day_and_a_week_before(
    #[case] samples: &[(i64, u64)],
    #[case] day: Option<Change>,
    #[case] week: Option<Change>,
    #[values(false, true)] is_stream: bool,
) {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "sports", 3).await;
    // A long history is a stream.
    let long: Vec<_> = (0..=Store::MAX_LIST_SAMPLES as i64).map(|n| (2_000 - n, 99)).collect();
    if is_stream {
        add_history(&store, "sports", &long).await;
        assert_eq!(redis.call::<String>(&["TYPE", "history:sports"]), "stream");
    }
    add_history(&store, "sports", samples).await;
    sample(&store, NOON).await;
    let changes = changes(&store, "sports", NOON).await;
    assert_eq!((changes.day, changes.week), (day, week));
    assert_eq!(changes.last_sample, Some(Sample { at: NOON, count: 3.into() }));
    let first = if is_stream { -2_000 } else { samples.first().map_or(0, |(hours, _)| -hours) };
    assert_eq!(changes.first_sampled_at, Some(noon_plus(first * HOUR)));
}

#[tokio::test]
async fn changes_are_read_by_any_instance_and_survive_a_gap_of_a_day() {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "sports", 3).await;
    add_history(&store, "sports", &[(24, 1)]).await;
    sample(&store, NOON).await;
    assert_eq!(changes(&redis.store(), "sports", noon_plus(DAY)).await.day, change(24, 1, 3));
    let late = changes(&redis.store(), "sports", noon_plus(2 * DAY)).await;
    assert_eq!((late.day, late.first_sampled_at), (None, Some(noon_plus(-DAY))));
    // A retry of the same tick changes nothing.
    let window = Window::parse("14d").unwrap();
    store.update_changes(&[(&segment("sports"), NOON)], window).await.unwrap();
    assert_eq!(changes(&store, "sports", NOON).await.day, change(24, 1, 3));
    // A segment without a sample at the tick keeps its record.
    store.update_changes(&[(&segment("sports"), noon_plus(HOUR))], window).await.unwrap();
    assert_eq!(changes(&store, "sports", NOON).await.day, change(24, 1, 3));
}

#[tokio::test]
async fn samples_of_another_window_are_not_compared() {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "sports", 3).await;
    for hours in [0, 24] {
        sample_over(&store, "30d", noon_plus(hours * HOUR)).await;
    }
    // The changes of an instance with another window are unknown until it samples.
    let over_month = Estimator::new(store.clone(), Window::parse("30d").unwrap());
    let known = over_month.changes_of(&[&segment("sports")], noon_plus(DAY)).await.unwrap()[0];
    assert_eq!(known.day.unwrap().from, NOON);
    assert_eq!(changes(&store, "sports", noon_plus(DAY)).await.day, None);

    // A day after the first sample over the new window, there is one to compare with. At 48 h, it replaces that of 24 h.
    for (hours, before) in [(25, None), (26, None), (47, None), (48, Some(25)), (49, Some(25)), (50, Some(26))] {
        let tick = noon_plus(hours * HOUR);
        sample(&store, tick).await;
        let changes = changes(&store, "sports", tick).await;
        assert_eq!(changes.day.map(|day| day.from), before.map(|hours| noon_plus(hours * HOUR)), "after {hours} h");
        assert_eq!(changes.week, None, "after {hours} h");
        assert_eq!(changes.first_sampled_at, Some(NOON));
    }
}

#[tokio::test]
async fn samples_before_the_first_record_count_as_of_the_same_window() {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "sports", 3).await;
    add_history(&store, "sports", &[(25, 1), (24, 2)]).await;
    // A record of an earlier version.
    redis.call::<()>(&["SET", "history: sports", "1795345200 2 1795258800 1 -"]);
    assert_eq!(changes(&store, "sports", NOON).await.day.map(|day| day.before), Some(1.into()));
    sample(&store, NOON).await;
    assert_eq!(changes(&store, "sports", NOON).await.day, change(24, 2, 3));
    assert!(redis.call::<String>(&["GET", "history: sports"]).ends_with(" 2 - 1209600"));
}

#[tokio::test]
async fn a_repeated_tick_keeps_the_window_of_its_sample() {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "sports", 3).await;
    sample_over(&store, "30d", NOON).await;
    // An instance with another window repeats a tick that the first one didn't complete.
    store.update_changes(&[(&segment("sports"), NOON)], Window::parse("14d").unwrap()).await.unwrap();
    assert!(redis.call::<String>(&["GET", "history: sports"]).ends_with(" 2592000"));
}

#[tokio::test]
async fn record_expires_with_the_history_and_takes_little_memory() {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "sports", 3).await;
    add_history(&store, "sports", &[(168, 1_000_000), (24, 1_000_000)]).await;
    sample(&store, NOON).await;
    let ttl: u64 = redis.call(&["TTL", "history: sports"]);
    let kept = Store::RETENTION_AFTER_LAST.as_secs();
    assert!((kept - 60..=kept).contains(&ttl), "{ttl}");
    let bytes: usize = redis.call(&["MEMORY", "USAGE", "history: sports"]);
    assert!(bytes <= 160, "{bytes}");
}

#[rstest]
#[case::text(&["SET", "theirs"])]
#[case::seven_words(&["SET", "1 2 3 4 5 6 7"])]
#[case::window_since_nothing(&["SET", "1 2 3 4 5 6@"])]
#[case::signs(&["SET", "1 2 3 +- --"])]
#[case::list(&["RPUSH", "x"])]
#[tokio::test]
async fn update_changes_leaves_keys_of_other_programs_unchanged(#[case] command: &[&str]) {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "sports", 3).await;
    redis.call::<()>(&[&command[..1], &["history: sports"], &command[1..]].concat());
    let before: Vec<u8> = redis.call(&["DUMP", "history: sports"]);
    sample(&store, NOON).await;
    assert_eq!(redis.call::<Vec<u8>>(&["DUMP", "history: sports"]), before);
    assert_eq!(changes(&store, "sports", NOON).await, Changes::default());
    assert_eq!(list(&store, Order::Growth).await.segments.len(), 1);
}

#[rstest]
#[case::words(&[b"RPUSH" as &[u8], b"a", b"b", b"c"])]
#[case::binary_list(&[b"RPUSH" as &[u8], b"\xff", b"\xff"])]
#[case::binary_list_before_a_sample(&[b"RPUSH" as &[u8], b"\xff", b"\xff", b"1795345200000", b"1"])]
#[case::binary_stream(&[b"XADD" as &[u8], b"1795262400000-0", b"n", b"\xff"])]
#[tokio::test]
async fn update_changes_skips_a_foreign_history(#[case] command: &[&[u8]]) {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "news", 1).await;
    record_users(&store, "sports", 1).await;
    let command = [&command[..1], &[b"history:news"], &command[1..]].concat();
    redis::cmd(str::from_utf8(command[0]).unwrap()).arg(&command[1..]).exec(&mut redis.connection()).unwrap();
    sample(&store, NOON).await;
    assert_eq!(changes(&store, "news", NOON).await.day, None);
    assert!(changes(&store, "sports", NOON).await.last_sample.is_some());
}

/// Fills segments that grow, shrink, stay, or are new.
async fn fill(store: &Store) {
    for (name, users, samples) in [
        ("grows", 9, &[(300, 1), (168, 4)][..]),
        ("shrinks", 2, &[(200, 1), (168, 8)]),
        ("stays", 5, &[(168, 5)]),
        ("younger", 3, &[(24, 1)]),
    ] {
        record_users(store, name, users).await;
        add_history(store, name, samples).await;
    }
    sample(store, NOON).await;
    // They appeared after the sample.
    record_users(store, "latest", 1).await;
    record_users(store, "just now", 1).await;
}

#[rstest]
#[case::growth(Order::Growth, ["grows", "stays", "shrinks", "just now", "latest", "younger"])]
#[case::decline(Order::Decline, ["shrinks", "stays", "grows", "just now", "latest", "younger"])]
#[case::newest(Order::Newest, ["just now", "latest", "younger", "stays", "shrinks", "grows"])]
#[tokio::test]
async fn list_is_in_the_order_of_changes(
    #[case] order: Order,
    #[case] expected: [&str; 6],
    #[values("1", "8")] partitions: &str,
) {
    let redis = Redis::start();
    let store = redis.store().with_partitions(Some(Partitions::parse(partitions).unwrap()));
    fill(&store).await;
    let all = list(&store, order).await;
    let names: Vec<_> = all.segments.iter().map(|counted| counted.segment.as_str()).collect();
    assert_eq!(names, expected);
    // In pages.
    let (mut names, mut cursor) = (Vec::new(), None);
    let last = loop {
        let page = estimator(&store).list(&query(order, 2, cursor), NOON).await.unwrap();
        names.extend(page.segments.iter().map(|counted| counted.segment.to_string()));
        cursor = page.next.clone();
        if cursor.is_none() {
            break page;
        }
    };
    assert_eq!(names, expected);
    // And back.
    let (mut names, mut page) = (Vec::new(), last);
    loop {
        names.extend(page.segments.iter().rev().map(|counted| counted.segment.to_string()));
        let Some(previous) = page.previous else { break };
        page = estimator(&store).list(&query(order, 2, Some(previous)), NOON).await.unwrap();
    }
    names.reverse();
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_work_on_a_cluster() {
    let cluster = RedisCluster::start().await;
    let seeds = cluster.urls().split(',').map(|url| RedisUrl::parse(url).unwrap()).collect();
    let limits = Limits { connect: TIMEOUT, answer: TIMEOUT, max_pending: 100 };
    let store = Store::new(Client::new(Deployment::Cluster(seeds), limits, Arc::default()).unwrap());
    fill(&store).await;
    let all = list(&store, Order::Growth).await;
    assert_eq!(all.segments[0].changes.week, change(168, 4, 9));
    assert_eq!(all.segments[2].changes.week, change(168, 8, 2));
    let by_name = list(&store, Order::Name).await;
    assert_eq!(by_name.segments[0].segment.as_str(), "grows");
    assert_eq!(by_name.segments[0].changes.week, change(168, 4, 9));
}

#[tokio::test]
async fn list_and_counts_show_changes() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    record_sizes(&app, &[("news", 1), ("sports", 3), ("zoo", 2)]).await;
    let store = redis.store();
    let tick = Interval::DEFAULT.tick(Timestamp::now());
    let samples: Vec<_> = [("news", 7, 3), ("sports", 7, 9), ("sports", 1, 0)]
        .map(|(name, days, count)| NamedSample {
            segment: segment(name).into_owned(),
            sample: Sample { at: tick - Duration::from_secs(days * 86_400), count: count.into() },
        })
        .into();
    store.add_samples(&samples).await.unwrap();
    sample(&store, tick).await;

    let before = |days: u64| (tick - Duration::from_secs(days * 86_400)).to_string();
    let (day, week, to) = (before(1), before(7), tick.to_string());
    let sports = json!({
        "segment": "sports", "count": 3, "exact": true, "change_1d": { "absolute": 3, "relative": null, "from": day, "to": to },
        "change_7d": { "absolute": -6, "relative": -0.6667, "from": week, "to": to },
    });
    let news = json!({
        "segment": "news", "count": 1, "exact": true, "change_1d": null,
        "change_7d": { "absolute": -2, "relative": -0.6667, "from": week, "to": to },
    });
    let zoo = json!({ "segment": "zoo", "count": 2, "exact": true, "change_1d": null, "change_7d": null });
    let list = async |query: &str| -> Value {
        let answer: Value = app.get(&format!("/segments{query}")).await.json().await.unwrap();
        answer["segments"].clone()
    };
    assert_eq!(list("").await, json!([news, sports, zoo]));
    assert_eq!(list("?sort=count").await, json!([sports, zoo, news]));
    assert_eq!(list("?sort=change").await, json!([news, sports, zoo]));
    assert_eq!(list("?sort=-change").await, json!([sports, news, zoo]));
    assert_eq!(list("?sort=new").await, json!([zoo, news, sports]));
    let counts: Value = app.get("/counts?segment=zoo&segment=sports").await.json().await.unwrap();
    let known = |mut count: Value| {
        count["known"] = json!(true);
        count
    };
    assert_eq!(counts["counts"], json!([known(zoo), known(sports)]));
}

#[tokio::test]
async fn counts_and_summary_show_the_change_to_zero_of_an_emptied_segment() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let (store, now) = (redis.store(), Timestamp::now());
    let hour_ago = now - Duration::from_secs(3_600);
    let samples: Vec<_> = [("gone", 86_400, 4), ("gone", 0, 3), ("kept", 86_400, 1), ("kept", 0, 1)]
        .map(|(name, seconds, count)| NamedSample {
            segment: segment(name).into_owned(),
            sample: Sample { at: hour_ago - Duration::from_secs(seconds), count: count.into() },
        })
        .into();
    store.add_samples(&samples).await.unwrap();
    let estimator = estimator(&store);
    let segments = [(&segment("gone"), hour_ago), (&segment("kept"), hour_ago)];
    store.update_changes(&segments, estimator.window()).await.unwrap();
    let seen_at = now - Duration::from_secs(2 * 86_400);
    estimator.record(visit("u1", "kept", seen_at), now).await.unwrap();
    let counts: Value = app.get("/counts?segment=gone&segment=kept&window=1d").await.json().await.unwrap();
    let summary: Value = app.get("/segments/gone?window=1d").await.json().await.unwrap();
    for gone in [&counts["counts"][0], &summary] {
        let day = &gone["change_1d"];
        assert_eq!((&gone["count"], &day["absolute"], &day["relative"]), (&json!(0), &json!(-4), &json!(-1.0)));
        assert!(day["to"].as_str() >= Some(&now.to_string()), "{day}");
    }
    // It has no users in the requested window, and one in the configured one.
    let kept = &counts["counts"][1];
    assert_eq!((&kept["count"], &kept["change_1d"]["absolute"]), (&json!(0), &json!(0)));
    assert_eq!(kept["change_1d"]["to"].as_str().unwrap()[..19], hour_ago.to_string()[..19]);
}

#[tokio::test]
async fn a_foreign_change_record_is_reported() {
    let redis = Redis::start();
    let store = redis.store();
    record_users(&store, "sports", 3).await;
    sample(&store, NOON).await;
    assert_eq!(store.foreign_keys(None).await.unwrap().0, Vec::<String>::new());
    redis.call::<()>(&["SET", "history: sports", "theirs"]);
    sample(&store, noon_plus(HOUR)).await;
    assert_eq!(store.foreign_keys(None).await.unwrap().0, ["history: sports"]);
}
