//! `GET /segments/{name}/history`, and the sampler that records it.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use segment_estimator::domain::{Estimate, SegmentName, Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::estimator::clock::Clock;
use segment_estimator::estimator::history::{History, HistorySampler, Interval, SampleOutcome};
use segment_estimator::jobs::HistoryRecorder;
use segment_estimator::redis::{Client, Deployment, Limits, RedisUrl};
use segment_estimator::store::{Lease, LeaseRequest, NamedSample, Partitions, Sample, Store};
use serde_json::{Value, json};

use crate::helpers::{
    NOON, Redis, RedisCluster, TIMEOUT, TestApp, eventually, noon_plus, problem, segment, settings, visit,
};

const HOUR: i64 = 3_600_000;
const STEP: Duration = Duration::from_secs(3_600);

fn history(store: Store) -> History {
    History::new(store, Interval::parse("1h").unwrap())
}

fn sampler(store: Store) -> HistorySampler {
    let estimator = Estimator::new(store.clone(), Window::parse("14d").unwrap());
    HistorySampler::new(estimator, history(store))
}

async fn record_visits(store: &Store, visits: &[(&str, &str)]) {
    let estimator = Estimator::new(store.clone(), Window::parse("14d").unwrap());
    for (user, name) in visits {
        estimator.record(visit(user, name, NOON), NOON).await.unwrap();
    }
}

async fn counts(store: Store, name: &str, from: i64, to: i64) -> Vec<Option<u64>> {
    let points = history(store).of(&segment(name), noon_plus(from), noon_plus(to), STEP).await.unwrap();
    points.into_iter().map(|point| Some(point.count?.count())).collect()
}

fn sample(name: &str, at: Timestamp, count: u64) -> NamedSample {
    NamedSample { segment: SegmentName::parse(name.to_owned()).unwrap(), sample: Sample { at, count: count.into() } }
}

#[tokio::test]
async fn sample_records_a_tick_once_among_several_instances() {
    let redis = Redis::start();
    // More segments than a page of the index has.
    let names: Vec<_> = (0..1_200).map(|n| format!("s{n}")).collect();
    for name in &names {
        record_visits(&redis.store(), &[("u1", name)]).await;
    }
    record_visits(&redis.store(), &[("u2", "s7")]).await;

    let samplers: Vec<_> = (0..4).map(|_| sampler(redis.store())).collect();
    let all = samplers.iter().map(|sampler| sampler.sample(NOON, noon_plus(40)));
    let all: Vec<_> = futures_util::future::join_all(all).await.into_iter().map(Result::unwrap).collect();

    let points: Vec<_> = all.iter().filter(|recorded| matches!(recorded, SampleOutcome::Points(_))).collect();
    assert_eq!(points, [&SampleOutcome::Points(1_200)], "{all:?}");
    assert_eq!(samplers[0].sample(NOON, noon_plus(80)).await, Ok(SampleOutcome::AlreadyComplete));
    assert_eq!(samplers[1].sample(noon_plus(-HOUR), noon_plus(80)).await, Ok(SampleOutcome::AlreadyComplete));
    for name in &names {
        let elements: Vec<String> = redis.call(&["LRANGE", &format!("history:{name}"), "0", "-1"]);
        assert_eq!(elements.len(), 2, "{name} has a time and a count");
    }
    assert_eq!(counts(redis.store(), "s7", 0, 0).await, [Some(2)]);
    // The next tick.
    assert_eq!(samplers[1].sample(noon_plus(HOUR), noon_plus(HOUR + 5)).await, Ok(SampleOutcome::Points(1_200)));
}

#[tokio::test]
async fn sample_completes_an_aborted_tick_of_another_instance() {
    let redis = Redis::start();
    let store = redis.store();
    record_visits(&store, &[("u1", "news"), ("u1", "sports")]).await;
    let request = LeaseRequest { tick: NOON, now: NOON, until: noon_plus(1_000), holder: "dead" };
    assert_eq!(store.acquire_lease(&request).await, Ok(Lease::Acquired));
    assert_eq!(
        store.acquire_lease(&request).await,
        Ok(Lease::Acquired),
        "the same holder acquires it again, as after a lost reply"
    );
    assert_eq!(store.add_samples(&[sample("news", NOON, 17)]).await, Ok(1));

    let other = sampler(store.clone());
    assert_eq!(other.sample(NOON, noon_plus(999)).await, Ok(SampleOutcome::LeasedByAnother));
    assert_eq!(other.sample(NOON, noon_plus(1_000)).await, Ok(SampleOutcome::Points(1)));
    assert_eq!(counts(store.clone(), "news", 0, 0).await, [Some(17)]);
    assert_eq!(counts(store.clone(), "sports", 0, 0).await, [Some(1)]);
    // The first holder, taken for dead, changes nothing.
    assert_eq!(store.acquire_lease(&request).await, Ok(Lease::Completed));
}

#[tokio::test]
async fn sample_continues_when_a_clock_that_was_ahead_is_set_back() {
    let redis = Redis::start();
    let store = redis.store();
    let samplers = [sampler(store.clone()), sampler(store.clone())];
    let year = 365 * 24 * HOUR;
    assert_eq!(samplers[0].sample(noon_plus(year), noon_plus(year)).await, Ok(SampleOutcome::Points(0)));

    record_visits(&store, &[("u1", "sports")]).await;
    assert_eq!(samplers[1].sample(NOON, noon_plus(80)).await, Ok(SampleOutcome::Points(1)));
    assert_eq!(samplers[0].sample(NOON, noon_plus(90)).await, Ok(SampleOutcome::AlreadyComplete));
    assert_eq!(samplers[0].sample(noon_plus(HOUR), noon_plus(HOUR)).await, Ok(SampleOutcome::Points(1)));
    assert_eq!(counts(store, "sports", 0, HOUR).await, [Some(1), Some(1)]);
    // A tick that is behind by less than clocks may differ is complete.
    assert_eq!(samplers[1].sample(NOON, noon_plus(HOUR - 1_999)).await, Ok(SampleOutcome::AlreadyComplete));
}

#[tokio::test]
async fn history_has_null_for_a_gap_and_zero_for_no_users() {
    let redis = Redis::start();
    let store = redis.store();
    record_visits(&store, &[("u1", "sports")]).await;
    let sampler = sampler(store.clone());
    let fourteen_days = 14 * 24 * HOUR;
    sampler.sample(NOON, NOON).await.unwrap();
    sampler.sample(noon_plus(2 * HOUR), noon_plus(2 * HOUR)).await.unwrap();
    let later = noon_plus(fourteen_days);
    sampler.sample(later, later).await.unwrap();

    assert_eq!(counts(store.clone(), "sports", -HOUR, 3 * HOUR).await, [None, Some(1), None, Some(1), None]);
    assert_eq!(counts(store.clone(), "sports", fourteen_days, fourteen_days).await, [Some(0)]);
    assert_eq!(counts(store, "nobody", 0, HOUR).await, [None, None]);
}

#[tokio::test]
async fn sample_skips_keys_of_another_type() {
    let redis = Redis::start();
    record_visits(&redis.store(), &[("u1", "sports"), ("u1", "news"), ("u1", "art")]).await;
    redis.call::<()>(&["SET", "segment:news", "x"]);
    redis.call::<()>(&["SET", "history:art", "x"]);
    assert_eq!(sampler(redis.store()).sample(NOON, NOON).await, Ok(SampleOutcome::Points(1)));
    assert_eq!(counts(redis.store(), "sports", 0, 0).await, [Some(1)]);
}

#[tokio::test]
async fn sample_adds_up_all_partitions() {
    let redis = Redis::start();
    let store = redis.store().with_partitions(Some(Partitions::parse("8").unwrap()));
    let users: Vec<_> = (0..100).map(|n| format!("u{n}")).collect();
    for user in &users {
        record_visits(&store, &[(user, "sports")]).await;
    }
    assert_eq!(sampler(store.clone()).sample(NOON, NOON).await, Ok(SampleOutcome::Points(1)));
    assert_eq!(counts(store, "sports", 0, 0).await, [Some(100)]);
}

#[tokio::test]
async fn history_keeps_thirteen_months_and_is_read_in_pages() {
    let redis = Redis::start();
    let store = redis.store();
    // Half a month more than the history keeps.
    let samples: Vec<_> = (0..410 * 24).map(|n| sample("sports", noon_plus(n * HOUR), n as u64)).collect();
    assert_eq!(store.add_samples(&samples).await, Ok(samples.len() as u64));
    assert_eq!(store.add_samples(&samples[5_000..]).await, Ok(0), "all samples are stored already");

    let kept: i64 = redis.call(&["XLEN", "history:sports"]);
    let needed = 396 * 24;
    assert!((needed..needed + 100).contains(&kept), "{kept} samples, and only whole nodes are dropped");
    let last = 410 * 24 - 1;
    let first = last - needed;
    let all = counts(store.clone(), "sports", first * HOUR, last * HOUR).await;
    assert_eq!(all, (first..=last).map(|n| Some(n as u64)).collect::<Vec<_>>());

    // Of a longer step only the last sample is kept, also if the samples of a step are on two pages.
    let (first, last) = (noon_plus(first * HOUR), noon_plus(last * HOUR));
    let days = store.samples(&[segment("sports")], first, last, Duration::from_secs(86_400), needed as usize).await;
    let days = days.unwrap().pop().unwrap().unwrap();
    let expected: Vec<_> =
        samples[samples.len() - 1 - needed as usize..].chunks(24).map(|day| day[day.len() - 1].sample).collect();
    assert_eq!(days, expected);

    // The history of a segment without visits expires.
    assert_ttl(&redis, "history:sports", Store::RETENTION_AFTER_LAST);
}

#[track_caller]
fn assert_ttl(redis: &Redis, key: &str, kept: Duration) {
    let ttl: u64 = redis.call(&["TTL", key]);
    assert!((kept.as_secs() - 60..=kept.as_secs()).contains(&ttl), "{key}: {ttl}");
}

fn memory(redis: &Redis, key: &str) -> usize {
    redis.call(&["MEMORY", "USAGE", key, "SAMPLES", "0"])
}

#[tokio::test]
async fn history_of_few_samples_takes_little_memory_and_becomes_a_stream_when_it_grows() {
    let redis = Redis::start();
    let store = redis.store();
    let max = Store::MAX_LIST_SAMPLES as i64;
    let samples: Vec<_> = (0..max + 700).map(|n| sample("sports", noon_plus(n * HOUR), 300_000 + n as u64)).collect();
    let kind = || redis.call::<String>(&["TYPE", "history:sports"]);
    for n in 0..max {
        assert_eq!(store.add_samples(&samples[n as usize..=n as usize]).await, Ok(1), "{n}");
        if n < 6 {
            assert!(memory(&redis, "history:sports") <= 300, "{n}: {}", memory(&redis, "history:sports"));
        }
    }
    assert_eq!(kind(), "list");
    assert!(memory(&redis, "history:sports") / max as usize <= 24, "{}", memory(&redis, "history:sports"));
    assert_ttl(&redis, "history:sports", Store::RETENTION_AFTER_LAST);
    let all = |until: i64| (0..until).map(|n| Some(300_000 + n as u64)).collect::<Vec<_>>();
    assert_eq!(counts(store.clone(), "sports", 0, (max - 1) * HOUR).await, all(max));
    assert_eq!(counts(store.clone(), "sports", 5 * HOUR, 6 * HOUR).await, [Some(300_005), Some(300_006)]);

    // One call with stored samples, the one that makes the list a stream, and the next one.
    assert_eq!(store.add_samples(&samples[max as usize - 2..max as usize + 2]).await, Ok(2));
    assert_eq!(kind(), "stream");
    assert_eq!(counts(store.clone(), "sports", 0, (max + 1) * HOUR).await, all(max + 2));
    assert_eq!(store.add_samples(&samples).await, Ok(698));
    assert_eq!(store.add_samples(&samples).await, Ok(0), "all samples are stored already");
    assert_eq!(counts(store.clone(), "sports", 0, (max + 699) * HOUR).await, all(max + 700));
    assert_ttl(&redis, "history:sports", Store::RETENTION_AFTER_LAST);
}

#[tokio::test]
async fn history_that_began_as_a_stream_stays_a_stream() {
    let redis = Redis::start();
    let store = redis.store();
    let id = |hour: i64| format!("{}-0", noon_plus(hour * HOUR).as_millis());
    redis.call::<String>(&["XADD", "history:sports", &id(0), "n", "7"]);
    assert_eq!(store.add_samples(&[sample("sports", noon_plus(-HOUR), 5)]).await, Ok(0), "samples are appended only");
    assert_eq!(redis.call::<i64>(&["TTL", "history:sports"]), -1, "the key is unchanged");
    assert_eq!(store.add_samples(&[sample("sports", noon_plus(HOUR), 8)]).await, Ok(1));
    assert_eq!(redis.call::<u64>(&["XLEN", "history:sports"]), 2);
    assert_eq!(counts(store, "sports", 0, HOUR).await, [Some(7), Some(8)]);
    assert_ttl(&redis, "history:sports", Store::RETENTION_AFTER_LAST);
}

#[tokio::test]
async fn history_drops_samples_that_are_older_than_thirteen_months() {
    let redis = Redis::start();
    let store = redis.store();
    let month = 30 * 24 * HOUR;
    for n in 0..20 {
        assert_eq!(store.add_samples(&[sample("sports", noon_plus(n * month), n as u64)]).await, Ok(1));
    }
    let elements: Vec<u64> = redis.call(&["LRANGE", "history:sports", "0", "-1"]);
    let kept: Vec<_> = elements.chunks(2).map(|sample| sample[1]).collect();
    assert_eq!(kept, (6..20).collect::<Vec<_>>(), "13 months and the newest sample");
}

#[rstest]
#[case::text(&["SET", "x"])]
#[case::text_that_expires(&["SETEX", "60", "x"])]
#[case::list_of_one(&["RPUSH", "x"])]
#[case::list_of_texts(&["RPUSH", "a", "b"])]
#[case::list_with_a_number(&["RPUSH", "1", "b"])]
#[case::hash(&["HSET", "a", "b"])]
#[case::set(&["SADD", "a"])]
#[case::sorted_set(&["ZADD", "1", "a"])]
#[case::stream(&["XADD", "1-0", "temperature", "20"])]
#[tokio::test]
async fn add_samples_leaves_other_keys_unchanged(#[case] command: &[&str]) {
    let redis = Redis::start();
    let store = redis.store();
    redis.call::<()>(&[&command[..1], &["history:b"], &command[1..]].concat());
    let before: Vec<u8> = redis.call(&["DUMP", "history:b"]);
    let ttl: i64 = redis.call(&["TTL", "history:b"]);
    let samples = ["a", "b", "c"].map(|name| sample(name, NOON, 7));
    assert_eq!(store.add_samples(&samples).await, Ok(2));
    assert_eq!(redis.call::<Vec<u8>>(&["DUMP", "history:b"]), before);
    assert!((ttl - 30..=ttl).contains(&redis.call::<i64>(&["TTL", "history:b"])), "the time to live is unchanged");
    assert_eq!(counts(store, "c", 0, 0).await, [Some(7)]);
}

#[tokio::test]
async fn history_of_each_keeps_the_given_order() {
    let redis = Redis::start();
    let store = redis.store();
    let names: Vec<_> = (0..30_u64).map(|n| format!("s{n}")).collect();
    for (n, name) in (0..).zip(&names) {
        let samples: Vec<_> =
            (0..336).map(|hour| sample(name, noon_plus(hour * HOUR), n * 1_000 + hour as u64)).collect();
        store.add_samples(&samples).await.unwrap();
    }
    let segments: Vec<SegmentName<'static>> =
        names.iter().rev().chain(&["none".to_owned()]).map(|name| SegmentName::parse(name.clone()).unwrap()).collect();
    let day = Duration::from_secs(24 * 3_600);
    let midnight = noon_plus(12 * HOUR);
    let histories = history(store).of_each(&segments, midnight, noon_plus(60 * HOUR - 1), day).await.unwrap();

    assert_eq!(histories.len(), 31);
    let histories: Vec<_> = histories.into_iter().map(Result::unwrap).collect();
    for (n, points) in (0..30).rev().zip(&histories) {
        // The last sample of each of the two days.
        let counts: Vec<_> = points.iter().map(|point| point.count.map(Estimate::count)).collect();
        assert_eq!(counts, [Some(n * 1_000 + 35), Some(n * 1_000 + 59)], "{n}");
        assert_eq!(points[0].at, midnight);
    }
    assert!(histories[30].iter().all(|point| point.count.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn recorders_of_two_services_record_each_tick_once() {
    let redis = Redis::start();
    let every_second = || settings([("history_interval", "1s")]);
    let apps = [TestApp::spawn_with(&redis, every_second()).await, TestApp::spawn_with(&redis, every_second()).await];
    apps[0].record("u1", "sports").await;
    apps[1].record("u2", "sports").await;

    let history = async |app: &TestApp| -> Value {
        let to = Timestamp::now();
        let from = Timestamp::from_millis(to.as_millis() - 60_000);
        app.get(&format!("/segments/sports/history?from={from}&to={to}&step=1s")).await.json().await.unwrap()
    };
    let known = |history: &Value| {
        let points = history["points"].as_array().unwrap();
        points.iter().filter(|point| !point["count"].is_null()).cloned().collect::<Vec<_>>()
    };
    eventually("three ticks are recorded", async || known(&history(&apps[0]).await).len() >= 3).await;

    let history = history(&apps[1]).await;
    let points = known(&history);
    assert!(points.len() >= 3 && points[2]["count"] == 2, "{points:?}");
    assert_eq!((&history["segment"], &history["step_seconds"]), (&json!("sports"), &json!(1)));
    // All times are whole seconds and distinct.
    let elements: Vec<u64> = redis.call(&["LRANGE", "history:sports", "0", "-1"]);
    let times: Vec<_> = elements.chunks(2).map(|sample| sample[0]).collect();
    assert!(times.iter().all(|at| at % 1_000 == 0) && times.is_sorted_by(|one, next| one < next), "{times:?}");
    let metric = async |app: &TestApp| -> usize {
        let text = app.get("/metrics").await.text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("estimator_history_points_total ")).unwrap();
        line.parse().unwrap()
    };
    // Both services together added as many samples as there are. One more may arrive during the test.
    let added = metric(&apps[0]).await + metric(&apps[1]).await;
    let there = redis.call::<usize>(&["LLEN", "history:sports"]) / 2;
    assert!((times.len() - 1..=there).contains(&added), "{} <= {added} <= {there}", times.len());
}

#[tokio::test]
async fn history_survives_a_restart_of_redis_and_is_read_in_steps() {
    let mut redis = Redis::start();
    let hourly = settings([("history_interval", "1h")]);
    let app = TestApp::spawn_with(&redis, hourly).await;
    let samples = [(0, 40), (2, 42), (26, 43)].map(|(hour, count)| sample("a/b", noon_plus(hour * HOUR), count));
    redis.store().add_samples(&samples).await.unwrap();
    redis.stop();
    redis.start_again();

    let from = NOON.as_millis() / 1_000;
    let get = async |query: &str| -> Value {
        app.get(&format!("/segments/a%2Fb/history?{query}")).await.json().await.unwrap()
    };
    let hourly = get(&format!("from={from}&to={}", noon_plus(3 * HOUR + 1))).await;
    let time = |hour: i64| noon_plus(hour * HOUR).to_string();
    let point = |hour: i64, hours: i64, sampled_at: Option<i64>, count: Value| {
        let (from, to) = (time(hour), time(hour + hours));
        let mut point =
            json!({ "at": from, "from": from, "to": to, "sampled_at": sampled_at.map(time), "count": count });
        if !count.is_null() {
            point["exact"] = json!(true);
        }
        point
    };
    let expected = [(0, json!(40)), (1, json!(null)), (2, json!(42)), (3, json!(null))];
    let expected = expected.map(|(hour, count)| point(hour, 1, (!count.is_null()).then_some(hour), count));
    assert_eq!(hourly["points"], json!(expected));
    assert_eq!(hourly["step_seconds"], 3_600);
    assert_eq!((&hourly["from"], &hourly["to"]), (&json!(NOON.to_string()), &json!(noon_plus(3 * HOUR).to_string())));

    let daily = get(&format!("from={from}&to={}&step=1d", noon_plus(36 * HOUR - 1))).await;
    let expected = [point(-12, 24, Some(2), json!(42)), point(12, 24, Some(26), json!(43))];
    assert_eq!(daily["points"], json!(expected), "by days of UTC");
    let weekly = get(&format!("from={from}&to={from}&step=1w")).await;
    let monday = NOON.as_millis().div_euclid(86_400_000) - 4;
    let monday = (monday - monday.rem_euclid(7) + 4) * 24 - NOON.as_millis() / HOUR;
    assert_eq!(weekly["from"], time(monday), "a week begins on Monday");
    assert_eq!(weekly["points"][0]["to"], time(monday + 7 * 24));

    // A date is its midnight.
    let by_date = get("from=2026-11-21&to=2026-11-22&step=1h").await;
    assert_eq!(
        (&by_date["from"], &by_date["to"]),
        (&json!("2026-11-21T00:00:00.000Z"), &json!("2026-11-22T00:00:00.000Z"))
    );
    let ago = get("from=-3d&to=-1d&step=1d").await;
    assert_eq!(ago["points"].as_array().unwrap().len(), 3);

    // Without parameters: the last 14 days.
    let by_default = get("").await;
    assert_eq!(by_default["points"].as_array().unwrap().len(), 14 * 24 + 1);
}

#[tokio::test]
async fn history_says_when_its_samples_began() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let get = async || app.get("/segments/sports/history").await.json::<Value>().await.unwrap();
    let new = get().await;
    // This instance doesn't sample.
    assert_eq!((&new["first_sampled_at"], &new["next_sample_at"]), (&Value::Null, &Value::Null));
    let now = Timestamp::now();
    let tick = Interval::parse("1h").unwrap().unwrap().tick(now);
    sampler(redis.store()).sample(tick, now).await.unwrap();
    assert_eq!(get().await["first_sampled_at"], json!(tick.to_string()));
}

#[tokio::test]
async fn history_says_when_the_next_sample_is_due() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("history_interval", "1h")])).await;
    let interval = Interval::parse("1h").unwrap().unwrap();
    let get = async || {
        let history: Value = app.get("/segments/sports/history").await.json().await.unwrap();
        ["as_of", "next_sample_at"].map(|name| Timestamp::from_rfc3339(history[name].as_str().unwrap()).unwrap())
    };
    let [now, next] = get().await;
    let tick = interval.tick(now);
    assert_eq!(next, if now < interval.deadline(tick) { tick } else { tick + STEP }, "{now}");
    // One that is complete is not the next one.
    sampler(redis.store()).sample(tick, now).await.unwrap();
    let [now, next] = get().await;
    assert!(interval.tick(now) != tick || next == tick + STEP, "{now} {next}");
}

#[tokio::test]
async fn next_sample_is_the_one_that_is_due_until_it_is_complete_or_its_deadline_is_over() {
    let redis = Redis::start();
    record_visits(&redis.store(), &[("u1", "sports")]).await;
    let history = history(redis.store());
    let next = async |millis| history.next_sample_at(noon_plus(millis)).await.unwrap().unwrap();
    assert_eq!(next(-1).await, NOON, "the deadline of 11:00 is over");
    let deadline = HOUR / 6;
    for due in [0, deadline - 1] {
        assert_eq!(next(due).await, NOON, "not taken yet");
    }
    assert_eq!(next(deadline).await, noon_plus(HOUR), "left out");

    // A lease alone is no sample.
    let request = LeaseRequest { tick: NOON, now: NOON, until: noon_plus(1_000), holder: "another" };
    assert_eq!(redis.store().acquire_lease(&request).await.unwrap(), Lease::Acquired);
    assert_eq!(next(500).await, NOON);
    sampler(redis.store()).sample(NOON, noon_plus(2_000)).await.unwrap();
    assert_eq!(next(2_001).await, noon_plus(HOUR));

    // Another program's key holds no tick.
    for command in [&["SET", "history:", "theirs"][..], &["DEL", "history:"], &["RPUSH", "history:", "theirs"]] {
        redis.call::<()>(command);
        assert_eq!(next(2_001).await, NOON);
    }
}

#[tokio::test]
async fn every_step_that_ends_before_the_first_sample_is_null() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let ten = noon_plus(-2 * HOUR);
    sampler(redis.store()).sample(ten, ten).await.unwrap();
    let query = format!("from={}&to={NOON}&step=1d", noon_plus(-24 * HOUR));
    let get = async || {
        let history = app.get(&format!("/segments/sports/history?{query}")).await.json::<Value>().await.unwrap();
        let first = history["first_sampled_at"].clone();
        let points = history["points"].as_array().unwrap();
        (first, points.iter().map(|point| (point["at"].clone(), point["count"].clone())).collect::<Vec<_>>())
    };
    let midnight = |millis| json!(noon_plus(-12 * HOUR + millis).to_string());
    let points = vec![(midnight(-24 * HOUR), Value::Null), (midnight(0), json!(1))];
    assert_eq!(get().await, (json!(ten.to_string()), points.clone()), "the step of a day begins before its sample");

    // Samples of an earlier version, or those of a tick in progress, have no change record.
    redis.call::<()>(&["DEL", "history: sports"]);
    assert_eq!(get().await, (json!(ten.to_string()), points));
}

#[tokio::test]
async fn history_rejects_bad_parameters() {
    let redis = Redis::start();
    let hourly = settings([("history_interval", "1h")]);
    let app = TestApp::spawn_with(&redis, hourly).await;
    for (query, field, why) in [
        ("from=yesterday", "from", "must be Unix seconds or an RFC 3339 time"),
        ("to=2026-11-31", "to", "must be Unix seconds or an RFC 3339 time"),
        ("to=1e300", "to", "must be Unix seconds or an RFC 3339 time"),
        ("from=NaN", "from", "must be Unix seconds or an RFC 3339 time"),
        ("from=200&to=100", "from", "must not be later than to, which is 1970-01-01T00:01:40.000Z"),
        ("step=90m", "step", "must be a multiple of the interval of 1h"),
        ("step=0s", "step", "must be longer than zero"),
        ("from=0&to=7200000&step=1h", "step", "gives 2001 points, and the maximum is 2000; choose a longer step"),
        ("from=0&from=1", "from", "is given more than once"),
        ("window=1d", "window", "is not a parameter of this path; the parameters are from, to, step, format"),
    ] {
        let document =
            problem(app.get(&format!("/segments/sports/history?{query}")).await, 422, "invalid-request").await;
        let error = &document["errors"][0];
        assert_eq!(error["field"], field, "{query}: {document}");
        assert!(error["detail"].as_str().unwrap().starts_with(why), "{query}: {document}");
    }
    let longest = app.get("/segments/sports/history?from=0&to=7196400&step=1h").await;
    let longest: Value = longest.json().await.unwrap();
    assert_eq!(longest["points"].as_array().unwrap().len(), 2_000);
}

#[tokio::test]
async fn history_is_503_without_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    redis.stop();
    problem(app.get("/segments/sports/history").await, 503, "store-unavailable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn history_works_on_a_cluster_for_any_segment_name() {
    let cluster = RedisCluster::start().await;
    let seeds = cluster.urls().split(',').map(|url| RedisUrl::parse(url).unwrap()).collect();
    let limits = Limits { connect: TIMEOUT, answer: TIMEOUT, max_pending: 100 };
    let store = Store::new(Client::new(Deployment::Cluster(seeds), limits, Arc::default()).unwrap());
    let names = ["sports", "{a}b", "{}", "}{", "x{y}z{w}", "news", "art"];
    for name in names {
        record_visits(&store, &[("u1", name), ("u2", name)]).await;
    }
    assert_eq!(sampler(store.clone()).sample(NOON, NOON).await, Ok(SampleOutcome::Points(7)));
    let segments = names.map(|name| SegmentName::parse(name.to_owned()).unwrap());
    let histories = history(store).of_each(&segments, NOON, NOON, STEP).await.unwrap();
    for (name, points) in names.iter().zip(histories) {
        assert_eq!(points.unwrap()[0].count, Some(2.into()), "{name}");
    }
}

#[tokio::test]
async fn recorder_with_a_clock_ahead_samples_the_present() {
    let redis = Redis::start();
    let (store, interval) = (redis.store(), Interval::parse("1s").unwrap());
    let two_weeks = Window::parse("14d").unwrap();
    let estimator = Estimator::new(store.clone(), two_weeks);
    let now = Timestamp::now();
    estimator.record(visit("u1", "sports", now), now).await.unwrap();
    let history = History::new(store, interval);
    // The first tick is computed by this clock. Only then is it compared with Redis's.
    let month_ahead = Clock::ahead_by(30 * 24 * 60 * 60 * 1_000);
    let running = tokio::spawn(HistoryRecorder::new(estimator, month_ahead, history.clone()).run());
    eventually("there are samples of the present", async || {
        let points = history.of(&segment("sports"), now, Timestamp::now(), Duration::from_secs(1)).await.unwrap();
        points.iter().any(|point| point.count == Some(1.into()))
    })
    .await;
    running.abort();
}
