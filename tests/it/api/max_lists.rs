//! Requests that read every segment: lists by count share a walk, and `max_lists` limits the walks at a time.

use std::cmp::Reverse;
use std::panic::Location;

use reqwest::{Response, StatusCode};
use rstest::rstest;
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::{Error, Estimator, List, ListQuery, Order};
use tokio::task::{JoinHandle, yield_now};

use super::start_nine_overlaps;
use crate::helpers::{NOON, Proxy, Redis, TestApp, eventually, in_time, noon_plus, problem, settings};

/// Writes segments with 1 to 7 users each, seen at `seen_at`. Returns the segments in the order of a list by count.
fn fill(redis: &Redis, segments: usize, seen_at: Timestamp) -> Vec<(String, u64)> {
    redis.record_data_set();
    let mut pipeline = redis::pipe();
    let mut all = Vec::new();
    for n in 0..segments {
        let (name, users) = (format!("s{n:04}"), n % 7 + 1);
        let add = pipeline.cmd("ZADD").arg(format!("segment:{name}"));
        for user in 0..users {
            add.arg(seen_at.as_score()).arg(format!("u{user}"));
        }
        pipeline.cmd("ZADD").arg("segments").arg(0).arg(&name);
        all.push((name, users as u64));
    }
    pipeline.exec(&mut redis.connection()).unwrap();
    all.sort_by_key(|(name, users)| (Reverse(*users), name.clone()));
    all
}

/// Returns a proxy of this Redis and an estimator that is connected through it.
async fn behind_a_proxy(redis: &Redis) -> (Proxy, Estimator) {
    let proxy = Proxy::start(redis).await;
    let estimator = proxy.estimator(1_000);
    estimator.list(&ListQuery { prefix: "nothing".to_owned(), ..by_count(1) }, NOON).await.unwrap();
    (proxy, estimator)
}

fn by_count(limit: usize) -> ListQuery {
    let window = Window::parse("14d").unwrap();
    ListQuery { prefix: String::new(), contains: String::new(), order: Order::Count, limit, cursor: None, window }
}

fn pairs(list: &List) -> Vec<(String, u64)> {
    list.segments.iter().map(|one| (one.segment.to_string(), one.count.unwrap().count())).collect()
}

type Listing = JoinHandle<Result<List, Error>>;

/// Begins a list. Its walk is in flight when this returns, since the runtime of these tests has one thread.
async fn begin(estimator: &Estimator, query: ListQuery, now: Timestamp) -> Listing {
    let estimator = estimator.clone();
    let listing = tokio::spawn(async move { estimator.list(&query, now).await });
    for _ in 0..10 {
        yield_now().await;
    }
    listing
}

async fn outcome(listing: Listing) -> List {
    in_time("the list", listing).await.unwrap().unwrap()
}

#[tokio::test]
async fn list_by_count_shares_a_walk_in_flight() {
    let redis = Redis::start();
    let all = fill(&redis, 1_500, NOON);
    let (proxy, estimator) = behind_a_proxy(&redis).await;
    let before = redis.calls("zcount");
    proxy.hold_replies();
    let first = begin(&estimator, by_count(5), NOON).await;
    let second = begin(&estimator, by_count(1_000), noon_plus(3_000)).await;
    proxy.release_replies();
    let (first, second) = (outcome(first).await, outcome(second).await);
    assert_eq!((pairs(&first), pairs(&second)), (all[..5].to_vec(), all[..1_000].to_vec()));
    assert_eq!((first.as_of, second.as_of), (NOON, NOON));
    assert_eq!(redis.calls("zcount") - before, 1_500);
}

#[tokio::test]
async fn list_by_count_goes_on_when_another_caller_gives_up() {
    let redis = Redis::start();
    let all = fill(&redis, 1_500, NOON);
    let (proxy, estimator) = behind_a_proxy(&redis).await;
    let before = redis.calls("zcount");
    proxy.hold_replies();
    let gives_up = begin(&estimator, by_count(5), NOON).await;
    let stays = begin(&estimator, by_count(5), NOON).await;
    gives_up.abort();
    assert!(gives_up.await.unwrap_err().is_cancelled());
    proxy.release_replies();
    assert_eq!(pairs(&outcome(stays).await), all[..5]);
    assert_eq!(redis.calls("zcount") - before, 1_500);
}

#[tokio::test]
async fn list_by_count_ends_its_walk_when_all_callers_give_up() {
    let redis = Redis::start();
    fill(&redis, 1_500, NOON);
    let (proxy, estimator) = behind_a_proxy(&redis).await;
    let estimator = estimator.with_max_lists(1);
    proxy.hold_replies();
    for listing in [begin(&estimator, by_count(5), NOON).await, begin(&estimator, by_count(5), NOON).await] {
        assert!(estimator.acquire_list_permit().is_err());
        listing.abort();
        assert!(listing.await.unwrap_err().is_cancelled());
    }
    assert!(estimator.acquire_list_permit().is_ok());
    proxy.release_replies();
    assert_eq!(estimator.list(&by_count(5), NOON).await.unwrap().segments.len(), 5);
}

#[tokio::test]
async fn list_by_count_is_shared_for_a_second_after_its_as_of() {
    let redis = Redis::start();
    let all = fill(&redis, 1_500, NOON);
    let estimator = Estimator::new(redis.store(), Window::parse("14d").unwrap());
    let first = estimator.list(&by_count(900), NOON).await.unwrap();
    let costs = async |query: &ListQuery, now: Timestamp| {
        let before = redis.calls("zcount");
        let list = estimator.list(query, now).await.unwrap();
        (list, redis.calls("zcount") - before)
    };

    let (again, cost) = costs(&by_count(900), noon_plus(1_000)).await;
    assert_eq!((&again, cost), (&first, 0));
    let page = ListQuery { cursor: first.next.clone(), ..by_count(100) };
    let (page, cost) = costs(&page, noon_plus(1_000)).await;
    assert_eq!((pairs(&page), page.as_of, cost), (all[900..1_000].to_vec(), NOON, 0));

    // A page beyond the shared segments.
    let (beyond, cost) = costs(&ListQuery { cursor: page.next, ..by_count(100) }, noon_plus(500)).await;
    assert_eq!((pairs(&beyond), beyond.as_of, cost), (all[1_000..1_100].to_vec(), noon_plus(500), 1_500));
    let (long, cost) = costs(&by_count(1_200), noon_plus(500)).await;
    assert_eq!((pairs(&long), cost), (all[..1_200].to_vec(), 1_500));

    // Queries with another result.
    let day = Window::parse("1d").unwrap();
    assert_eq!(costs(&ListQuery { window: day, ..by_count(5) }, noon_plus(1_000)).await.1, 1_500);
    assert_eq!(costs(&ListQuery { prefix: "s00".to_owned(), ..by_count(5) }, noon_plus(1_000)).await.1, 100);
    let (late, cost) = costs(&by_count(5), noon_plus(1_001)).await;
    assert_eq!((pairs(&late), late.as_of, cost), (all[..5].to_vec(), noon_plus(1_001), 1_500));
}

#[tokio::test]
async fn list_by_count_keeps_the_eight_latest_answers() {
    let redis = Redis::start();
    fill(&redis, 1_500, NOON);
    let estimator = Estimator::new(redis.store(), Window::parse("14d").unwrap());
    let list = async |days: usize| {
        let window = Window::parse(&format!("{days}d")).unwrap();
        estimator.list(&ListQuery { window, ..by_count(1) }, NOON).await.unwrap();
    };
    for days in 1..=9 {
        list(days).await;
    }
    let before = redis.calls("zcount");
    for days in 2..=9 {
        list(days).await;
    }
    assert_eq!(redis.calls("zcount"), before);
    list(1).await;
    assert_eq!(redis.calls("zcount") - before, 1_500);
}

#[tokio::test]
async fn list_by_count_of_few_segments_has_every_visit_acknowledged_before() {
    let redis = Redis::start();
    fill(&redis, 900, NOON);
    let (proxy, estimator) = behind_a_proxy(&redis).await;
    let (counts, names) = (redis.calls("zcount"), redis.calls("zrange"));
    let add = |user: &str| redis.call::<()>(&["ZADD", "segment:new", &NOON.as_score().to_string(), user]);
    proxy.hold_replies();
    let first = begin(&estimator, by_count(1), NOON).await;
    eventually("the first names are read", async || redis.calls("zrange") > names).await;
    // Its name sorts among them.
    redis.call::<()>(&["ZADD", "segments", "0", "new"]);
    for user in 0..10 {
        add(&format!("u{user}"));
    }
    let second = begin(&estimator, by_count(1), NOON).await;
    let third = begin(&estimator, by_count(1), NOON).await;
    proxy.release_replies();
    assert_eq!(pairs(&outcome(first).await), [("s0006".to_owned(), 7)]);
    for listing in [second, third] {
        assert_eq!(pairs(&outcome(listing).await), [("new".to_owned(), 10)]);
    }
    assert_eq!(redis.calls("zcount") - counts, 900 + 901, "the second and the third share one walk");
    add("u10");
    assert_eq!(pairs(&estimator.list(&by_count(1), NOON).await.unwrap()), [("new".to_owned(), 11)]);
}

#[tokio::test]
async fn list_by_count_does_not_keep_an_error() {
    let redis = Redis::start();
    let all = fill(&redis, 1_500, NOON);
    let estimator = Estimator::new(redis.store(), Window::parse("14d").unwrap());
    redis.call::<()>(&["SET", "layout", "not a layout"]);
    assert!(matches!(estimator.list(&by_count(5), NOON).await, Err(Error::Store(_))));
    redis.call::<()>(&["SET", "layout", r#"{"epoch":1,"keys":"plain"}"#]);
    assert_eq!(pairs(&estimator.list(&by_count(5), NOON).await.unwrap()), all[..5]);
}

/// Requests that read every segment. No two share a walk, except the pages of the overlap.
const WALKS: [(&str, &str); 7] = [
    ("GET", "/segments"),
    ("GET", "/segments?sort=count&prefix=s"),
    ("GET", "/users/u1/segments"),
    ("DELETE", "/users/u2"),
    ("GET", "/?prefix=sp"),
    ("GET", "/pages/overlap"),
    ("GET", "/pages/overlap?segment=sports&segment=news"),
];

/// Asserts that `response` is 429 for `max_lists`, as a problem document or as a page.
#[track_caller]
fn assert_too_many(response: Response) -> impl Future<Output = ()> {
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    let caller = Location::caller();
    async move {
        if response.headers()["content-type"] == "application/problem+json" {
            let document = problem(response, 429, "too-many-lists").await;
            let detail = document["detail"].as_str().unwrap();
            let begin = "Nothing was done: 1 lists and requests for users are already running";
            assert!(detail.starts_with(begin), "{caller}: {detail}");
        } else {
            let page = response.text().await.unwrap();
            assert!(page.contains("The service is busy"), "{caller}: {page}");
        }
    }
}

#[rstest]
#[case::list_by_name(0)]
#[case::list_by_count(1)]
#[case::segments_of_a_user(2)]
#[case::delete_of_a_user(3)]
#[case::list_page(4)]
#[case::overlap_page_without_segments(5)]
#[case::overlap_page(6)]
#[tokio::test]
async fn max_lists_refuses_excess_requests_with_429(#[case] first: usize) {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("max_lists", "1"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;
    app.record("u2", "sports").await;
    let walk = |(method, path): (&str, &str)| app.request(method, path).send();
    assert_eq!(app.status_of("/segments").await, StatusCode::OK);

    proxy.hold_replies();
    let running = tokio::spawn(walk(WALKS[first]));
    app.eventually_in_flight(1).await;
    for (at, other) in WALKS.into_iter().enumerate() {
        // The pages of the overlap share one walk.
        if at != first && !(at >= 5 && first >= 5) {
            assert_too_many(in_time("the refusal", walk(other)).await.unwrap()).await;
        }
    }
    if first.is_multiple_of(2) {
        running.abort();
        proxy.release_replies();
    } else {
        proxy.release_replies();
        assert_eq!(in_time("the response", running).await.unwrap().unwrap().status(), StatusCode::OK);
    }
    for other in WALKS {
        eventually("the request is served again", async || walk(other).await.unwrap().status() == StatusCode::OK).await;
    }
}

#[tokio::test]
async fn max_lists_and_max_overlaps_are_independent() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis).await;
    let settings = settings([("max_lists", "1"), ("max_overlaps", "1"), ("redis_timeout", "1h")]);
    let app = TestApp::spawn_on(proxy.url(), settings).await;
    app.record("u1", "sports").await;
    let overlap = "/overlap?segment=sports&segment=news";
    assert_eq!((app.status_of("/segments").await, app.status_of(overlap).await), (StatusCode::OK, StatusCode::OK));

    proxy.hold_replies();
    let list = tokio::spawn(app.request("GET", "/segments").send());
    let overlaps = start_nine_overlaps(&app);
    app.eventually_in_flight(10).await;
    problem(in_time("the refusal", app.get("/segments")).await, 429, "too-many-lists").await;
    problem(in_time("the refusal", app.get(overlap)).await, 429, "too-many-overlaps").await;
    proxy.release_replies();
    for running in overlaps.into_iter().chain([list]) {
        assert_eq!(in_time("the response", running).await.unwrap().unwrap().status(), StatusCode::OK);
    }
}
