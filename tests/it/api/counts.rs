//! `GET /counts`. The tests in `segments` that name both routes cover the rules that they share.

use serde_json::Value;

use super::segments::{SIZES, pairs, record_sizes};
use crate::helpers::{Redis, TestApp, settings};

#[tokio::test]
async fn counts_keep_the_order_of_the_query() {
    let redis = Redis::start();
    let settings = settings([("partitions", "16")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    record_sizes(&app, &SIZES).await;
    let answer: Value =
        app.get("/counts?segment=sports&segment=nobody&segment=gr%C3%B6%C3%9Fe").await.json().await.unwrap();
    let expected = [("sports".to_owned(), 3), ("nobody".to_owned(), 0), ("größe".to_owned(), 2)];
    assert_eq!(pairs(&answer["counts"]), expected);
    assert!(answer["as_of"].is_string());
}
