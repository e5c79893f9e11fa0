//! Answers about segments that keep a sample of their users, on a data set whose segments keep up to 1,024 members.

mod changes;
mod counts;
mod lists;
mod overlaps;
mod pages;
mod users;

use std::collections::HashMap;
use std::panic::Location;

use csv::Reader;
use segment_estimator::domain::{Timestamp, Window};
use segment_estimator::estimator::Estimator;
use segment_estimator::store::{MaxMembers, Partitions, Store};
use serde_json::{Value, json};

use crate::helpers::{Redis, TestApp, settings, success};

/// The number of users of a large segment.
const USERS: u32 = 20_000;

/// A service whose segments keep up to 1,024 members.
struct Bounded {
    redis: Redis,
    app: TestApp,
    store: Store,
}

impl Bounded {
    /// Starts the service on a data set without segments.
    async fn start(partitions: &str) -> Self {
        let redis = Redis::start();
        let max_members = MaxMembers::parse("1024").unwrap();
        let store = redis.store().with_window(Window::parse("14d").unwrap()).with_max_members(Some(max_members));
        let store = store.with_partitions(Some(Partitions::parse(partitions).unwrap()));
        store.layout().await.unwrap();
        let app = TestApp::spawn_with(&redis, settings([])).await;
        Self { redis, app, store }
    }

    /// Starts the service on a data set in which `few` has the first 300 users, `many` the first 20,000, and `others`
    /// those from 10,000 on.
    async fn filled(partitions: &str) -> Self {
        let bounded = Self::start(partitions).await;
        bounded.record("few", 0..300).await;
        bounded.record("many", 0..USERS).await;
        bounded.record("others", USERS / 2..USERS / 2 * 3).await;
        bounded.settle().await;
        bounded
    }

    /// Records users, who were seen in the last ten days.
    async fn record(&self, segment: &str, users: impl Iterator<Item = u32>) {
        let now = Timestamp::now().as_millis();
        let lines = users.map(|user| {
            let seen_at = Timestamp::from_millis(now - 3_600_000 - i64::from(user % 10) * 86_400_000);
            json!({ "user_id": id(user), "segment": segment, "seen_at": seen_at.to_string() }).to_string()
        });
        success(self.app.post_lines(lines.collect::<Vec<_>>().join("\n")).await).await;
    }

    /// Raises the depths of segments that keep more members than their bound.
    async fn settle(&self) {
        let estimator = Estimator::new(self.store.clone(), Window::parse("14d").unwrap());
        estimator.prune(Timestamp::now()).await.unwrap();
    }

    /// Returns the JSON at `path`. Panics with the caller's location if the response is not a success.
    #[track_caller]
    fn json(&self, path: &str) -> impl Future<Output = Value> {
        let (caller, request) = (Location::caller(), self.app.request("GET", path));
        async move {
            let response = request.send().await.unwrap();
            let (status, text) = (response.status(), response.text().await.unwrap());
            assert_eq!(status, 200, "{caller}: {text}");
            serde_json::from_str(&text).unwrap()
        }
    }

    /// Returns the rows of the CSV at `path`.
    async fn csv(&self, path: &str) -> Vec<HashMap<String, String>> {
        let request = self.app.request("GET", path).header("accept", "text/csv");
        let text = success(request.send().await.unwrap()).await.text().await.unwrap();
        Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
    }
}

fn id(user: u32) -> String {
    format!("u{user}")
}

/// Asserts that `answer` is the exact count `users`.
#[track_caller]
fn assert_exact(answer: &Value, users: u64) {
    assert_eq!((&answer["count"], &answer["exact"]), (&json!(users), &json!(true)), "{answer}");
    assert!(answer.get("error_95").is_none(), "{answer}");
}

/// Asserts that `answer` is an estimate of `users`, within three standard errors. Ids and samples are the same in each
/// run.
#[track_caller]
fn assert_estimate(answer: &Value, users: u32) {
    assert_eq!(answer["exact"], false, "{answer}");
    assert_close(&answer["count"], &answer["error_95"], users);
}

#[track_caller]
fn assert_close(count: &Value, error_95: &Value, users: u32) {
    let (count, error) = (count.as_f64().unwrap(), error_95.as_f64().unwrap());
    assert!(error > 0.0 && error < 0.3, "{error}");
    assert!((count - f64::from(users)).abs() <= 1.5 * error * count, "{count} ± {error} of {users}");
}
