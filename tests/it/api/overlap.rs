//! `GET /overlap`: the number of users that several segments have in common.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::panic::Location;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use segment_estimator::domain::{Estimate, SegmentName, Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::estimator::overlap::{Overlap, OverlapLimits, Overlaps, Pair, Region};
use segment_estimator::store::Store;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::start_nine_overlaps;
use crate::helpers::{
    Proxy, Redis, TIMEOUT, TestApp, binary, eventually, in_time, problem, segment, settings, success, visit,
};

/// Segments and their users.
type Sets = [(&'static str, BTreeSet<u32>)];

/// Records all users in their segments.
async fn record(app: &TestApp, sets: &Sets) {
    let mut lines = String::new();
    for (segment, users) in sets {
        for user in users {
            lines.push_str(&format!("{{\"user_id\":\"u{user}\",\"segment\":\"{segment}\"}}\n"));
        }
    }
    success(app.lines_request(lines).send().await.unwrap()).await;
}

/// Returns the response without `as_of`. Panics with the caller's location if it is not 200.
#[track_caller]
fn overlap(app: &TestApp, query: &str) -> impl Future<Output = Value> {
    let caller = Location::caller();
    async move {
        let response = app.get(&format!("/overlap?{query}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{caller}: {query}");
        let mut answer: Value = response.json().await.unwrap();
        assert!(answer["as_of"].as_str().unwrap().ends_with('Z'), "{caller}: {answer}");
        answer.as_object_mut().unwrap().retain(|name, _| name != "as_of");
        answer
    }
}

/// Computes the response from the sets.
fn expected(sets: &Sets, window_seconds: u64) -> Value {
    let mut pairs = Vec::new();
    for (at, (first, users)) in sets.iter().enumerate() {
        for (second, others) in &sets[at + 1..] {
            pairs.push(
                json!({ "segments": [first, second], "count": users.intersection(others).count(), "exact": true }),
            );
        }
    }
    let any: BTreeSet<_> = sets.iter().flat_map(|(_, users)| users).collect();
    let all = any.iter().filter(|user| sets.iter().all(|(_, users)| users.contains(user))).count();
    let segments = sets.iter().map(
        |(name, users)| json!({ "segment": name, "count": users.len(), "exact": true, "known": !users.is_empty() }),
    );
    let segments: Vec<_> = segments.collect();
    json!({
        "segments": segments, "exact": true, "any": any.len(), "all": all, "pairs": pairs, "regions": regions(sets),
        "window_seconds": window_seconds,
    })
}

/// Computes the regions from the sets: subtracts from the users of each combination those of all other segments.
fn regions(sets: &Sets) -> Value {
    let mut regions = Vec::new();
    for mask in 1..1_usize << sets.len() {
        let (inside, outside): (Vec<_>, Vec<_>) = sets.iter().enumerate().partition(|(at, _)| mask >> at & 1 == 1);
        let (_, first) = inside[0].1;
        let is_exact = |user: &&u32| {
            inside.iter().all(|(_, (_, users))| users.contains(user))
                && !outside.iter().any(|(_, (_, users))| users.contains(user))
        };
        let names: Vec<_> = inside.iter().map(|(_, (name, _))| name).collect();
        regions.push((first.iter().filter(is_exact).count(), names));
    }
    regions.retain(|(count, _)| *count > 0);
    // Stable: equal counts stay in the order of the masks.
    regions.sort_by_key(|(count, _)| Reverse(*count));
    regions.into_iter().map(|(count, names)| json!({ "in": names, "count": count, "exact": true })).collect()
}

/// Returns overlaps on `redis`, with `memory` for each.
fn overlaps(redis: &Redis, memory: usize) -> Overlaps {
    overlaps_of(redis.store(), TIMEOUT, memory)
}

/// Returns overlaps on `store`, with `memory` for each.
fn overlaps_of(store: Store, timeout: Duration, memory: usize) -> Overlaps {
    Overlaps::new(store, two_weeks(), OverlapLimits { timeout, concurrency: 1, wait: TIMEOUT, memory })
}

fn two_weeks() -> Window {
    Window::parse("14d").unwrap()
}

/// Writes users of these numbers to `segment`, seen at different times of the last minutes.
fn fill(redis: &Redis, segment: &str, users: impl Iterator<Item = u32>) {
    redis.record_data_set();
    let (mut connection, now) = (redis.connection(), Timestamp::now().as_score());
    for some in users.collect::<Vec<_>>().chunks(10_000) {
        let mut command = redis::cmd("ZADD");
        command.arg(format!("segment:{segment}"));
        for user in some {
            command.arg(now - f64::from(*user % 9_973) / 100.0).arg(format!("u{user}"));
        }
        command.exec(&mut connection).unwrap();
    }
}

fn two() -> [SegmentName<'static>; 2] {
    ["sports", "news"].map(segment)
}

async fn sports_and_news(overlaps: &Overlaps) -> Overlap {
    overlaps.overlap(&two(), two_weeks(), async { Ok(Timestamp::now()) }).await.unwrap().0
}

#[tokio::test]
async fn overlap_equals_that_of_the_sets_in_one_partition_and_in_many() {
    for partitions in ["1", "64"] {
        let redis = Redis::start();
        let app = TestApp::spawn_with(&redis, settings([("partitions", partitions)])).await;
        let sets = [
            ("sports", (0..5_000).collect()),
            ("news", (2_500..6_001).collect()),
            ("third", (0..9_000).step_by(3).collect()),
            ("nobody", BTreeSet::new()),
        ];
        record(&app, &sets).await;
        let query = "segment=sports&segment=news&segment=third";
        assert_eq!(overlap(&app, query).await, expected(&sets[..3], 1_209_600), "{partitions}");
        let answer = overlap(&app, &format!("window=7d&{query}&segment=nobody")).await;
        assert_eq!(answer, expected(&sets, 604_800), "{partitions}");
    }
}

#[tokio::test]
async fn overlap_of_eight_segments_takes_any_names() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let names = ["a", "b", "спорт", "{x}", "segments", "layout", "1", "2"];
    let sets: Vec<_> =
        (0..8).map(|n| (names[n as usize], (0..100).filter(|user| user >> n & 1 == 0).collect())).collect();
    record(&app, &sets).await;
    let query: Vec<_> = sets.iter().map(|(name, _)| format!("segment={name}")).collect();
    assert_eq!(overlap(&app, &query.join("&")).await, expected(&sets, 1_209_600));
}

#[tokio::test]
async fn overlap_omits_users_seen_before_the_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    // Expired users before the first page, within it and after it, and as many users of the last two days.
    let (mut connection, now) = (redis.connection(), Timestamp::now().as_score());
    for name in ["sports", "news"] {
        let mut command = redis::cmd("ZADD");
        command.arg(format!("segment:{name}"));
        for user in 0..1_300 {
            command.arg(now - 14.0 * 86_400.0 - f64::from(user)).arg(format!("gone{user}"));
            command.arg(now - 2.0 * 86_400.0).arg(format!("{name}-lately{user}"));
        }
        command.exec(&mut connection).unwrap();
    }
    fill(&redis, "sports", 0..10);
    fill(&redis, "news", 5..15);
    let answer = overlap(&app, "segment=sports&segment=news&window=1d").await;
    assert_eq!((&answer["any"], &answer["all"]), (&json!(15), &json!(5)));
    let answer = overlap(&app, "segment=sports&segment=news").await;
    assert_eq!((&answer["any"], &answer["all"]), (&json!(2_615), &json!(5)));
}

#[tokio::test]
async fn overlap_with_little_memory_takes_more_passes_to_the_same_result() {
    let redis = Redis::start();
    fill(&redis, "sports", 0..4_000);
    fill(&redis, "news", 3_000..6_000);
    let figures = Overlap {
        any: 6_000.into(),
        all: 1_000.into(),
        counts: vec![4_000.into(), 3_000.into()],
        pairs: vec![Pair { first: 0, second: 1, both: 1_000.into() }],
        regions: [(0b01, 3_000), (0b10, 2_000), (0b11, 1_000)]
            .map(|(mask, count)| Region { mask, count: count.into() })
            .to_vec(),
    };
    let reads = async |memory| {
        let before = redis.calls("zrange");
        assert_eq!(sports_and_news(&overlaps(&redis, memory)).await, figures);
        redis.calls("zrange") - before
    };
    let once = reads(Overlaps::MAX_MEMORY).await;
    let often = reads(24_000).await;
    assert!(often > 4 * once, "{often} pages, and {once} with enough memory");
}

#[tokio::test]
async fn overlap_reads_at_most_a_thousand_members_per_command() {
    let redis = Redis::start();
    fill(&redis, "sports", 0..4_000);
    fill(&redis, "news", 2_000..6_000);
    let commands = redis.monitor();
    sports_and_news(&overlaps(&redis, Overlaps::MAX_MEMORY)).await;
    redis.call::<()>(&["ECHO", "the end"]);
    let mut pages = 0;
    for line in commands.take_while(|line| !line.contains("the end")) {
        let words: Vec<_> = line.split('"').skip(1).step_by(2).collect();
        assert!(["ZRANGE", "ZCOUNT", "GET", "SET", "EXISTS", "INFO", "CLIENT", "EVAL"].contains(&words[0]), "{line}");
        if words[0] == "ZRANGE" {
            let ranks: Vec<usize> = words[2..4].iter().map(|rank| rank.parse().unwrap()).collect();
            assert!(ranks[1] - ranks[0] < 1_000, "{line}");
            pages += 1;
        }
    }
    assert!(pages >= 8, "{pages}");
}

#[tokio::test]
async fn overlap_continues_while_writes_are_blocked() {
    let redis = Redis::start();
    fill(&redis, "sports", 0..4_000);
    fill(&redis, "news", 2_000..6_000);
    let store = redis.store();
    let overlaps = overlaps_of(store.clone(), TIMEOUT, Overlaps::MAX_MEMORY);
    let estimator = Estimator::new(store.clone(), two_weeks());
    // The first visit writes the layout, too.
    let now = Timestamp::now();
    estimator.record(visit("early", "news", now), now).await.unwrap();
    assert!(!store.is_writing());
    // Redis blocks writes and answers reads.
    redis.call::<()>(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    let writing = tokio::spawn(async move { estimator.record(visit("late", "news", now), now).await });
    eventually("a visit is blocked", async || store.is_writing()).await;
    let both = sports_and_news(&overlaps).await.all;
    redis.call::<()>(&["CLIENT", "UNPAUSE"]);
    writing.await.unwrap().unwrap();
    assert_eq!((both, store.is_writing()), (2_000.into(), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap_counts_users_seen_again_during_the_read_once() {
    let redis = Redis::start();
    fill(&redis, "sports", 0..20_000);
    fill(&redis, "news", 10_000..30_000);
    let (stop, mut connection) = (Arc::new(AtomicBool::new(false)), redis.connection());
    let writer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut written = 0;
            for n in (0_u32..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                // Each user several times, so that fewer move to the end than are read in the same time.
                let (user, now) = ((n / 50 * 7_919) % 20_000, Timestamp::now().as_score());
                let mut pipeline = redis::pipe();
                pipeline.cmd("ZADD").arg("segment:sports").arg("GT").arg(now).arg(format!("u{user}"));
                pipeline.cmd("ZADD").arg("segment:news").arg("GT").arg(now).arg(format!("u{}", user + 10_000));
                pipeline.exec(&mut connection).unwrap();
                written += 2;
            }
            written
        }
    });
    for memory in [Overlaps::MAX_MEMORY, 300_000] {
        let figures = sports_and_news(&overlaps(&redis, memory)).await;
        assert_eq!(
            (figures.any, figures.all, figures.counts),
            (30_000.into(), 10_000.into(), [20_000, 20_000].map(Into::into).to_vec())
        );
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap_is_consistent_when_users_arrive_during_the_read() {
    let redis = Redis::start();
    fill(&redis, "sports", 0..20_000);
    fill(&redis, "news", 10_000..30_000);
    let (stop, mut connection) = (Arc::new(AtomicBool::new(false)), redis.connection());
    let writer = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut written = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let mut pipeline = redis::pipe();
                for key in ["segment:sports", "segment:news"] {
                    pipeline.cmd("ZADD").arg(key).arg(Timestamp::now().as_score()).arg(format!("new{}", written / 50));
                }
                pipeline.exec(&mut connection).unwrap();
                written += 1;
            }
            written
        }
    });
    let figures = sports_and_news(&overlaps(&redis, Overlaps::MAX_MEMORY)).await;
    stop.store(true, Ordering::Relaxed);
    let arrived = writer.join().unwrap() / 50 + 1;
    let [sports, news] = figures.counts[..] else { panic!("{figures:?}") };
    let [sports, news, any, all, both] =
        [sports, news, figures.any, figures.all, figures.pairs[0].both].map(Estimate::count);
    for count in [sports, news] {
        assert!((20_000..=20_000 + arrived).contains(&count), "{figures:?}, {arrived} users arrived");
    }
    assert!((10_000..=10_000 + arrived).contains(&all), "{figures:?}");
    assert_eq!((any, both), (sports + news - all, all));
}

#[tokio::test(flavor = "multi_thread")]
async fn overlap_is_right_during_a_resharding() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    record(&app, &[("sports", (0..4_000).collect()), ("news", (3_000..6_000).collect())]).await;
    for to in ["8", "2", "1"] {
        let mut moving = binary(folder.path());
        moving.args(["repartition", "--to", to, "--redis-url", &redis.url()]).stdout(Stdio::null());
        let mut moving = moving.spawn().unwrap();
        loop {
            let answer = overlap(&app, "segment=sports&segment=news").await;
            assert_eq!((&answer["any"], &answer["all"]), (&json!(6_000), &json!(1_000)), "to {to}");
            if let Some(status) = moving.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
        }
    }
}

#[tokio::test]
async fn overlap_is_429_beyond_max_overlaps_and_the_queue_until_one_ends() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("max_overlaps", "1"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;
    let path = "/overlap?segment=sports&segment=news";
    assert_eq!(app.status_of(path).await, 200);

    proxy.hold_replies();
    let overlaps = start_nine_overlaps(&app);
    app.eventually_in_flight(9).await;
    let document = problem(in_time("the refusal", app.get(path)).await, 429, "too-many-overlaps").await;
    assert!(document["detail"].as_str().unwrap().starts_with("Nothing was done: 1 overlaps"), "{document}");

    overlaps.iter().for_each(JoinHandle::abort);
    proxy.release_replies();
    eventually("the request is served again", async || app.status_of(path).await == StatusCode::OK).await;
}

#[tokio::test]
async fn overlaps_and_audiences_of_the_same_segments_share_a_read_in_flight() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("max_overlaps", "2"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    record(&app, &[("a", (0..9).collect()), ("b", (5..11).collect()), ("c", (8..10).collect())]).await;
    let path = "/overlap?segment=a&segment=b&segment=c";
    let calls = redis.calls("zrange");
    assert_eq!(app.status_of(path).await, 200);
    let calls_of_a_read = redis.calls("zrange") - calls;

    proxy.hold_replies();
    let all = [
        ("/overlap?segment=a&segment=b&segment=c", "/segments", json!([9, 6, 2])),
        ("/overlap?segment=a&segment=b&segment=c", "/segments", json!([9, 6, 2])),
        ("/overlap?segment=c&segment=a&segment=b", "/segments", json!([2, 9, 6])),
        ("/overlap?segment=b&segment=c&segment=a", "/segments", json!([6, 2, 9])),
        ("/audience/count?all=c&any=b&none=a", "/count", json!(1)),
    ];
    let all = all.map(|(path, member, counts)| (tokio::spawn(app.request("GET", path).send()), member, counts));
    app.eventually_in_flight(5).await;
    proxy.release_replies();
    let mut times = BTreeSet::new();
    for (answer, member, counts) in all {
        let answer = in_time("the answer", answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().await.unwrap();
        let found = answer.pointer(member).unwrap();
        let found = match found.as_array() {
            Some(segments) => segments.iter().map(|segment| segment["count"].clone()).collect(),
            None => found.clone(),
        };
        assert_eq!(found, counts, "{answer}");
        times.insert(answer["as_of"].to_string());
    }
    assert_eq!((times.len(), redis.calls("zrange") - calls), (1, 2 * calls_of_a_read), "{times:?}");
    // A later request has a read of its own.
    assert_eq!(app.status_of(path).await, 200);
    assert_eq!(redis.calls("zrange") - calls, 3 * calls_of_a_read);
}

#[tokio::test]
async fn overlap_beyond_max_overlaps_waits_for_the_end_of_another() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("max_overlaps", "1"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;
    let path = "/overlap?segment=sports&segment=news";
    assert_eq!(app.status_of(path).await, 200);

    proxy.hold_replies();
    let all = ["/overlap?segment=sports&segment=news", "/audience/count?all=sports"]
        .map(|path| tokio::spawn(app.request("GET", path).send()));
    app.eventually_in_flight(2).await;
    proxy.release_replies();
    for answer in all {
        assert_eq!(in_time("the answer", answer).await.unwrap().unwrap().status(), 200);
    }
}

#[tokio::test]
async fn overlap_is_503_after_overlap_timeout() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("overlap_timeout", "200ms"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;
    let path = "/overlap?segment=sports&segment=news";

    proxy.hold_replies();
    let document =
        problem(in_time("the overlap ends at its deadline", app.get(path)).await, 503, "request-timeout").await;
    let detail = document["detail"].as_str().unwrap();
    assert!(detail.contains("within 200ms") && detail.contains("overlap_timeout"), "{detail}");
    proxy.release_replies();
    eventually("the overlap is 200 again", async || app.status_of(path).await == StatusCode::OK).await;
}

#[tokio::test]
async fn overlap_is_not_limited_by_request_timeout() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("request_timeout", "500ms"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;

    proxy.hold_replies();
    let asking = tokio::spawn(app.request("GET", "/overlap?segment=sports&segment=news").send());
    problem(in_time("a count ends at its deadline", app.get("/segments/sports/count")).await, 503, "request-timeout")
        .await;
    // A second deadline has passed since the overlap began.
    problem(in_time("a count ends at its deadline", app.get("/segments/sports/count")).await, 503, "request-timeout")
        .await;
    proxy.release_replies();
    assert_eq!(in_time("the overlap", asking).await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn overlap_is_503_without_redis_and_with_a_key_of_another_type() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    redis.call::<()>(&["SET", "segment:strange", "a key of another program"]);
    problem(app.get("/overlap?segment=sports&segment=strange").await, 503, "store-unavailable").await;
    assert_eq!(overlap(&app, "segment=sports&segment=news").await["any"], 1);
    redis.stop();
    problem(app.get("/overlap?segment=sports&segment=news").await, 503, "store-unavailable").await;
    redis.start_again();
    eventually("the overlap is 200 again", async || {
        app.status_of("/overlap?segment=sports&segment=news").await == StatusCode::OK
    })
    .await;
}

#[tokio::test]
async fn overlap_rejects_bad_parameters() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let nine: Vec<_> = (0..9).map(|n| format!("segment=s{n}")).collect();
    for (query, field, detail) in [
        ("", "segment", "must be given 2 to 8 times, as segment=a&segment=b, not 0"),
        ("segment=sports", "segment", "must be given 2 to 8 times, as segment=a&segment=b, not 1"),
        (nine.join("&").as_str(), "segment", "must be given 2 to 8 times, as segment=a&segment=b, not 9"),
        ("segment=a&segment=b&segment=a", "segment", "contains \"a\" more than once"),
        ("segment=a&segment=", "segment", "must not be empty"),
        ("segment=a&segment=b&window=15d", "window", "must not be longer than the configured window of 14d"),
        (
            "segment=a&segment=b&limit=1",
            "limit",
            "is not a parameter of this path; the parameters are segment, window, format",
        ),
    ] {
        let document = problem(app.get(&format!("/overlap?{query}")).await, 422, "invalid-request").await;
        assert_eq!(document["errors"], json!([{ "field": field, "detail": detail }]), "{query}");
    }
}

/// The deadline holds for many small steps together.
#[tokio::test]
async fn overlap_ends_at_its_timeout_even_if_it_makes_progress() {
    let redis = Redis::start();
    fill(&redis, "sports", 0..20_000);
    fill(&redis, "news", 0..20_000);
    let overlaps = overlaps_of(redis.store(), Duration::from_millis(1), Overlaps::MAX_MEMORY);
    let answer = overlaps.overlap(&two(), two_weeks(), async { Ok(Timestamp::now()) }).await;
    assert_eq!(answer.unwrap_err().to_string(), "the overlap was not known within 1ms");
}
