//! Pages and pictures of segments that keep a sample of their users.

use serde_json::Value;

use crate::helpers::{Redis, TestApp, eventually};

/// The users of `sports`. Those of `news` are every second one of them. The bound is 1,024.
const USERS: u64 = 6_000;

/// What each page says once if it shows an estimate.
const NOTE: &str = "≈ marks an estimate";

/// Returns a service whose data set is bounded, with `sports` and `news`, which keep a sample, and `tiny`, which keeps all
/// users.
async fn service_with_samples(redis: &Redis) -> TestApp {
    redis.call::<()>(&["SET", "layout", r#"{"epoch":1,"keys":"plain@1024","window_seconds":1}"#]);
    let app = TestApp::spawn(redis).await;
    let line = |user: u64, segment: &str| format!("{{\"user_id\":\"u{user}\",\"segment\":\"{segment}\"}}\n");
    let news = (0..USERS).step_by(2).map(|user| line(user, "news"));
    let visits: String = (0..USERS).map(|user| line(user, "sports")).chain(news).chain([line(1, "tiny")]).collect();
    assert_eq!(app.post_lines(visits).await.status(), 200);
    for segment in ["sports", "news"] {
        eventually("the segment keeps a sample", async || {
            redis.call::<Option<String>>(&["HGET", "depths", segment]).is_some()
        })
        .await;
    }
    app
}

async fn text(app: &TestApp, path: &str) -> String {
    let response = app.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.unwrap()
}

/// Returns the full numbers of the page.
fn counts(page: &str) -> Vec<u64> {
    let counts = page.split("data-count=\"").skip(1);
    counts.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn segment_page_shows_the_estimate_of_the_api_and_says_once_what_it_means() {
    let redis = Redis::start();
    let app = service_with_samples(&redis).await;
    let count = app.count("sports").await;
    let page = text(&app, "/pages/segment?name=sports").await;
    assert_eq!(counts(&page), [count]);
    assert!(page.contains(&format!("data-count=\"{count}\">≈ ")) && page.contains("<small>± "), "{page}");
    assert!(page.contains("<title>≈ "), "{page}");
    assert_eq!(page.matches(NOTE).count(), 1, "{page}");

    let page = text(&app, "/pages/segment?name=tiny").await;
    assert!(counts(&page) == [1] && page.contains("data-count=\"1\">1</p>") && !page.contains('≈'), "{page}");
}

#[tokio::test]
async fn list_page_marks_the_segments_that_keep_a_sample() {
    let redis = Redis::start();
    let app = service_with_samples(&redis).await;
    let page = text(&app, "/").await;
    let users: Vec<_> =
        page.split("<td class=\"number\">").skip(1).map(|cell| cell.split("<svg").next().unwrap()).collect();
    let is_estimate = users.iter().map(|users| users.starts_with("<span title=\"± ") && users.contains(">≈ "));
    assert_eq!(is_estimate.collect::<Vec<_>>(), [true, true, false], "{users:?}");
    assert_eq!((users[2], page.matches(NOTE).count()), ("1", 1), "{page}");
}

#[tokio::test]
async fn overlap_and_audience_pages_show_the_estimates_of_the_api() {
    let redis = Redis::start();
    let app = service_with_samples(&redis).await;
    let overlap: Value = app.get("/overlap?segment=sports&segment=news").await.json().await.unwrap();
    let page = text(&app, "/pages/overlap?segment=sports&segment=news").await;
    let figures = ["all", "any"].map(|figure| overlap[figure].as_u64().unwrap());
    assert_eq!(counts(&page)[..2], figures, "{page}");
    assert!(page.matches("≈").count() > 8 && page.matches(NOTE).count() == 1, "{page}");

    let audience: Value = app.get("/audience/count?all=sports&none=news").await.json().await.unwrap();
    let page = text(&app, "/pages/audience?all=sports&none=news").await;
    assert_eq!(counts(&page), [audience["count"].as_u64().unwrap()], "{page}");
    assert!(page.contains("\">≈ ") && page.matches(NOTE).count() == 1, "{page}");
}

#[tokio::test]
async fn pictures_mark_estimates() {
    let redis = Redis::start();
    let app = service_with_samples(&redis).await;
    let picture = text(&app, "/segments/sports/histogram.svg").await;
    assert!(picture.contains(">≈ ") && picture.contains(" users ± "), "{picture}");
    assert!(!text(&app, "/segments/tiny/histogram.svg").await.contains('≈'));
}
