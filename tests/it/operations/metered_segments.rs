//! The gauges of the segments that `metered_segments` selects.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use segment_estimator::domain::Window;
use segment_estimator::estimator::Estimator;
use segment_estimator::estimator::clock::Clock;
use segment_estimator::jobs::{HealthMonitor, SegmentMeter, SegmentPattern};
use segment_estimator::store::{MaxMembers, NamedSample, Sample};

use crate::helpers::{NOON, Proxy, Redis, Toxic, eventually, in_time, segment, visit};

/// A meter of the segments that match a list of patterns, and its estimator.
fn meter(redis: &Redis, patterns: &str) -> (SegmentMeter, Estimator) {
    let estimator = redis.estimator("14d");
    (SegmentMeter::new(estimator.clone(), SegmentPattern::parse_list(patterns).unwrap()), estimator)
}

/// Records `users` users in a segment at noon.
async fn record(estimator: &Estimator, name: &str, users: usize) {
    for user in 0..users {
        estimator.record(visit(&format!("u{user}"), name, NOON), NOON).await.unwrap();
    }
}

/// Returns the values of the gauge `name` by segment.
fn gauges(estimator: &Estimator, name: &str) -> BTreeMap<String, f64> {
    let text = estimator.metrics().render();
    let samples = text.lines().filter_map(|line| {
        let (segment, value) = line.strip_prefix(name)?.strip_prefix("{segment=\"")?.rsplit_once("\"} ")?;
        Some((segment.to_owned(), value.parse().unwrap()))
    });
    samples.collect()
}

/// Returns the users of the segments with a gauge.
fn users(estimator: &Estimator) -> Vec<(String, f64)> {
    gauges(estimator, "estimator_segment_users").into_iter().collect()
}

fn expected<const N: usize>(users: [(&str, f64); N]) -> Vec<(String, f64)> {
    users.map(|(segment, users)| (segment.to_owned(), users)).into()
}

#[tokio::test]
async fn measure_selects_names_prefixes_and_the_largest() {
    let redis = Redis::start();
    let (mut meter, estimator) = meter(&redis, r"sports, nobody, news*, a\*, top:2");
    for (name, users) in [("news", 1), ("news-video", 2), ("sports", 3), ("a*", 1), ("ab", 1), ("food", 5), ("pets", 4)]
    {
        record(&estimator, name, users).await;
    }
    meter.measure(NOON).await;
    let named = [("a*", 1.0), ("food", 5.0), ("news", 1.0), ("news-video", 2.0), ("nobody", 0.0), ("pets", 4.0)];
    assert_eq!(users(&estimator), [&expected(named)[..], &expected([("sports", 3.0)])].concat());
}

#[tokio::test]
async fn segments_enter_and_leave_the_metric() {
    let redis = Redis::start();
    let (mut meter, estimator) = meter(&redis, "news*, top:1");
    record(&estimator, "food", 2).await;
    record(&estimator, "news-a", 1).await;
    meter.measure(NOON).await;
    assert_eq!(users(&estimator), expected([("food", 2.0), ("news-a", 1.0)]));

    // A new name with the prefix is found at once. The largest segments are found again after four measurements.
    record(&estimator, "news-b", 1).await;
    record(&estimator, "pets", 3).await;
    redis.call::<()>(&["DEL", "segment:news-a"]);
    redis.call::<()>(&["ZREM", "segments", "news-a"]);
    meter.measure(NOON).await;
    assert_eq!(users(&estimator), expected([("food", 2.0), ("news-b", 1.0)]));
    for _ in 0..3 {
        meter.measure(NOON).await;
    }
    assert_eq!(users(&estimator), expected([("news-b", 1.0), ("pets", 3.0)]));
}

#[tokio::test]
async fn gauges_are_nan_during_an_outage() {
    let mut redis = Redis::start();
    let (mut meter, estimator) = meter(&redis, "sports, news*");
    record(&estimator, "news", 1).await;
    meter.measure(NOON).await;
    redis.stop();
    meter.measure(NOON).await;
    let users = users(&estimator);
    assert!(users.iter().all(|(_, users)| users.is_nan()), "{users:?}");
    assert_eq!(users.into_iter().map(|(segment, _)| segment).collect::<Vec<_>>(), ["news", "sports"]);
}

#[tokio::test]
async fn week_before_is_that_of_the_history() {
    let redis = Redis::start();
    let (mut meter, estimator) = meter(&redis, "sports, news");
    record(&estimator, "sports", 2).await;
    record(&estimator, "news", 2).await;
    let week_before = NOON - Duration::from_secs(7 * 86_400);
    let sample = |at, count: u64| NamedSample {
        segment: segment("sports").into_owned(),
        sample: Sample { at, count: count.into() },
    };
    let store = redis.store();
    store.add_samples(&[sample(week_before, 7), sample(NOON, 3)]).await.unwrap();
    store.update_changes(&[(&segment("sports"), NOON)], Window::parse("14d").unwrap()).await.unwrap();
    meter.measure(NOON).await;
    let before = gauges(&estimator, "estimator_segment_users_week_before");
    assert_eq!(before["sports"], 7.0);
    assert!(before["news"].is_nan(), "it has no history");
    assert_eq!(users(&estimator), expected([("news", 2.0), ("sports", 2.0)]));
}

#[tokio::test]
async fn gauges_of_a_sampled_segment_have_its_depth_and_what_it_keeps() {
    let redis = Redis::start();
    let bound = Some(MaxMembers::parse("1024").unwrap());
    let estimator = Estimator::new(redis.store().with_max_members(bound), Window::parse("14d").unwrap());
    let mut meter = SegmentMeter::new(estimator.clone(), SegmentPattern::parse_list("sports, news").unwrap());
    record(&estimator, "news", 3).await;
    record(&estimator, "sports", 3_000).await;
    eventually("the segment keeps a sample", async || {
        let (sampled, fill) = estimator.samples();
        sampled == Some(1) && fill.is_some_and(|fill| fill <= 1.0)
    })
    .await;
    meter.measure(NOON).await;
    let depth = redis.call::<u32>(&["HGET", "depths", "sports"]);
    let kept = (depth..25).map(|level| redis.call::<u64>(&["ZCARD", &format!("segment@{level}:sports")])).sum::<u64>();
    assert!(depth > 0 && kept <= 1_024, "{depth} {kept}");
    let gauges = |name| gauges(&estimator, name).into_iter().collect::<Vec<_>>();
    assert_eq!(gauges("estimator_segment_depth"), expected([("news", 0.0), ("sports", f64::from(depth))]));
    assert_eq!(gauges("estimator_segment_members_kept"), expected([("news", 3.0), ("sports", kept as f64)]));
    assert_eq!(gauges("estimator_segment_users"), expected([("news", 3.0), ("sports", (kept << depth) as f64)]));

    // The prune measures the same.
    estimator.prune(NOON).await.unwrap();
    assert_eq!(estimator.samples(), (Some(1), Some(kept as f64 / 1_024.0)));
}

#[tokio::test]
async fn samples_of_an_exact_data_set_are_unknown() {
    let redis = Redis::start();
    let (mut meter, estimator) = meter(&redis, "sports");
    record(&estimator, "sports", 2).await;
    meter.measure(NOON).await;
    assert_eq!(estimator.samples(), (None, None));
    assert_eq!(gauges(&estimator, "estimator_segment_depth")["sports"], 0.0);
    assert_eq!(gauges(&estimator, "estimator_segment_members_kept")["sports"], 2.0);
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn measure_selects_at_most_a_hundred_segments_and_warns_once() {
    let redis = Redis::start();
    let (mut meter, estimator) = meter(&redis, "zoo, *");
    for n in 0..SegmentPattern::MAX_SEGMENTS {
        record(&estimator, &format!("segment-{n:03}"), 1).await;
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    meter.measure(NOON).await;
    meter.measure(NOON).await;
    drop(guard);
    let segments: Vec<_> = users(&estimator).into_iter().map(|(segment, _)| segment).collect();
    assert_eq!(segments.len(), SegmentPattern::MAX_SEGMENTS);
    assert_eq!(
        (segments[0].as_str(), segments[98].as_str(), segments[99].as_str()),
        ("segment-000", "segment-098", "zoo")
    );
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("selects more segments than the maximum").count(), 1, "{log}");
}

#[tokio::test]
async fn largest_segments_remain_while_too_many_lists_are_running() {
    let redis = Redis::start();
    let estimator = redis.estimator("14d").with_max_lists(1);
    let mut meter = SegmentMeter::new(estimator.clone(), SegmentPattern::parse_list("sports, top:1").unwrap());
    record(&estimator, "food", 2).await;
    let permit = estimator.acquire_list_permit().unwrap();
    meter.measure(NOON).await;
    assert_eq!(users(&estimator), expected([("sports", 0.0)]));
    // The next measurement finds them, not that of a minute later.
    drop(permit);
    meter.measure(NOON).await;
    assert_eq!(users(&estimator), expected([("food", 2.0), ("sports", 0.0)]));

    record(&estimator, "pets", 3).await;
    for _ in 0..3 {
        meter.measure(NOON).await;
    }
    let permit = estimator.acquire_list_permit().unwrap();
    meter.measure(NOON).await;
    assert_eq!(users(&estimator), expected([("food", 2.0), ("sports", 0.0)]));
    drop(permit);
    meter.measure(NOON).await;
    assert_eq!(users(&estimator), expected([("pets", 3.0), ("sports", 0.0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn evictions_are_reported_while_the_largest_segments_are_counted() {
    const SEGMENTS: usize = 5_000;
    let redis = Redis::start();
    redis.record_data_set();
    let mut pipeline = redis::pipe();
    for n in 0..SEGMENTS {
        pipeline.cmd("ZADD").arg(format!("segment:s{n}")).arg(NOON.as_score()).arg("u1");
        pipeline.cmd("ZADD").arg("segments").arg(0).arg(format!("s{n}"));
    }
    pipeline.exec(&mut redis.connection()).unwrap();
    let proxy = Proxy::start(&redis).await;
    // Each round trip takes a while, so that the walk is still running when the evictions are read.
    proxy.set_toxic(Toxic::Latency(Duration::from_millis(50)));
    let mut commands = redis.monitor();
    let patterns = SegmentPattern::parse_list("top:1").unwrap();
    let monitor = tokio::spawn(HealthMonitor::new(proxy.estimator(1_000), Clock::system(), patterns).run());
    let counted_before = tokio::task::spawn_blocking(move || {
        let before = commands.by_ref().take_while(|command| !command.contains(r#""INFO" "stats""#));
        before.filter(|command| command.contains("ZCOUNT")).count()
    });
    let counted_before = in_time("the report of evictions", counted_before).await.unwrap();
    assert!(counted_before < SEGMENTS, "all segments were counted first");
    monitor.abort();
}
