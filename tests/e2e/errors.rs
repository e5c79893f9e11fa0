//! The pages when there are no numbers, and signing in.

use serde_json::json;

use crate::browser::Browser;
use crate::redis::Redis;
use crate::service::Service;
use crate::wait::eventually;

/// Makes the script refresh the page, as it does when its tab becomes visible.
async fn refresh(browser: &Browser) {
    browser.value("document.dispatchEvent(new Event('visibilitychange'))").await;
}

#[tokio::test]
async fn page_without_redis_shows_no_numbers_until_it_is_back() {
    let mut redis = Redis::start();
    let service =
        Service::start(&["--redis-url", &redis.url(), "--redis-timeout", "200ms", "--redis-connect-timeout", "200ms"]);
    service.fill("sports", 1_234).await;
    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 503");
    browser.open("/").await;
    let shows = async |text: &str| browser.text("main").await.contains(text);
    assert!(shows("1,234").await);

    redis.kill();
    refresh(&browser).await;
    let title = "Counts are unavailable right now";
    eventually("the page shows the failure", async || !browser.text("#connection").await.is_empty()).await;
    for path in ["/", "/pages/segment?name=sports", "/pages/overlap?segment=sports&segment=news"] {
        browser.open(path).await;
        assert_eq!(browser.texts("#error h1").await, [title], "{path}");
        assert!(!shows("1,234").await, "{path}");
    }
    browser.open("/").await;
    browser.check_page("redis-away").await;

    redis.start_again();
    eventually("the numbers are back", async || {
        refresh(&browser).await;
        shows("1,234").await
    })
    .await;
    browser.close().await;
}

#[tokio::test]
async fn page_keeps_its_numbers_with_their_time_while_redis_is_away() {
    let mut redis = Redis::start();
    let service =
        Service::start(&["--redis-url", &redis.url(), "--redis-timeout", "200ms", "--redis-connect-timeout", "200ms"]);
    service.record((0..80).map(|at| (format!("u{at}"), "sports", 0))).await;
    let names: Vec<_> = (0..80).map(|at| format!("segment{at}")).collect();
    service.record(names.iter().map(|name| ("u1".to_owned(), name.as_str(), 0))).await;
    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 503");
    browser.open("/").await;
    let time = browser.text(".as-of time").await;
    browser.value("window.scrollTo(0, 1500)").await;

    redis.kill();
    refresh(&browser).await;
    let says = format!("Counts are unavailable right now. Showing data from {time}. Retrying…");
    eventually("the notice is shown", async || browser.text("#connection").await == says).await;
    assert_eq!(browser.rows("#segments tbody tr").await.len(), 81, "the numbers are kept");
    // The browser adds the height of the notice, so that the rows stay in their place.
    assert!(browser.value("window.scrollY").await.as_f64().unwrap() >= 1500.0);
    let place = "document.getElementById('connection').getBoundingClientRect().top";
    assert_eq!(browser.value(place).await, json!(0), "the notice is not seen");
    let color = |of: &str| format!("getComputedStyle(document.querySelector('{of}')).color");
    assert_eq!(browser.value(&color("#segments td.number")).await, browser.value(&color(".muted")).await, "not grey");
    browser.check_page("redis-away-kept").await;
    // Retries after 1, 2 and 4 seconds. Every 15 seconds, there would be one more within the time of a test.
    let requests = "performance.getEntriesByType('resource').filter(entry => entry.initiatorType === 'fetch').length";
    eventually("it retries", async || browser.value(requests).await.as_u64().unwrap() >= 4).await;

    redis.start_again();
    eventually("the notice is gone", async || browser.text("#connection").await.is_empty()).await;
    assert_ne!(browser.text(".as-of time").await, time);
    browser.close().await;
}

#[tokio::test]
async fn error_page_retries_soon_and_shows_the_numbers_by_itself() {
    let mut redis = Redis::start();
    let service =
        Service::start(&["--redis-url", &redis.url(), "--redis-timeout", "200ms", "--redis-connect-timeout", "200ms"]);
    service.fill("sports", 12).await;
    service.fill("news", 10).await;
    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 503");
    redis.kill();
    browser.open("/pages/overlap?segment=sports&segment=news").await;
    assert_eq!(browser.text("#retries").await, "Trying again in 1 s.");
    redis.start_again();
    eventually("the result is shown", async || !browser.texts("#matrix").await.is_empty()).await;
    browser.close().await;
}

#[tokio::test]
async fn notice_is_true_while_segments_are_selected() {
    let mut redis = Redis::start();
    let service =
        Service::start(&["--redis-url", &redis.url(), "--redis-timeout", "200ms", "--redis-connect-timeout", "200ms"]);
    service.fill("sports", 12).await;
    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 503");
    browser.open("/").await;
    let time = browser.text(".as-of time").await;
    redis.kill();
    refresh(&browser).await;
    eventually("the notice is shown", async || !browser.text("#connection").await.is_empty()).await;
    browser.click("#segments input[value='sports']").await;
    redis.start_again();
    let says = format!("Counts are available again. Showing data from {time}. Paused while you select or type.");
    eventually("the notice says that the page is paused", async || browser.text("#connection").await == says).await;
    browser.click("#segments input[value='sports']").await;
    browser.value("document.activeElement.blur()").await;
    refresh(&browser).await;
    eventually("the notice is gone", async || browser.text("#connection").await.is_empty()).await;
    browser.close().await;
}

#[tokio::test]
async fn refresh_keeps_the_focus_open_details_and_typed_text() {
    let service = Service::start(&[]);
    service.fill("sports", 12).await;
    let browser = Browser::start(&service).await;
    browser.open("/pages/segment?name=sports").await;
    browser.click("#histogram-figures summary").await;
    browser.value("document.querySelector('pre').focus()").await;
    service.fill("sports", 13).await;
    refresh(&browser).await;
    eventually("the new figure is shown", async || browser.text("#count").await == "13").await;
    let is_kept = "document.activeElement === document.querySelector('pre') \
                         && document.querySelector('#histogram-figures').open";
    assert_eq!(browser.value(is_kept).await, json!(true));

    // Text in a field without the focus is kept, too.
    browser.open("/").await;
    browser.value("document.querySelector('input[type=search]').value = 'spo'").await;
    service.fill("news", 20).await;
    refresh(&browser).await;
    eventually("the new segment is shown", async || browser.texts("#segments tbody th").await == ["news", "sports"])
        .await;
    assert_eq!(browser.value("document.querySelector('input[type=search]').value").await, json!("spo"));
    browser.close().await;
}

#[tokio::test]
async fn page_without_the_service_shows_the_time_of_its_numbers() {
    let service = Service::start(&[]);
    service.fill("sports", 12).await;
    let mut browser = Browser::start(&service).await;
    browser.expect_error("net::ERR_CONNECTION_REFUSED");
    browser.open("/").await;
    let time = browser.text(".as-of time").await;
    drop(service);
    refresh(&browser).await;
    let message = async || browser.text("#connection").await;
    eventually("the page shows the failure", async || !message().await.is_empty()).await;
    assert_eq!(message().await, format!("The service can’t be reached. Showing data from {time}. Retrying…"));
    browser.check_page("service-away").await;
    browser.close().await;
}

#[tokio::test]
async fn page_lets_a_browser_sign_in_with_a_key() {
    let (service, [reader, writer]) = Service::start_with_keys();
    let client = service.http.post(service.url("/segments")).bearer_auth(&reader);
    let visit = client.json(&json!({ "user_id": "u1", "segment": "sports" }));
    assert_eq!(visit.send().await.unwrap().status(), 204);

    // A browser asks for a name and a password before it shows this page.
    let closed = service.http.get(service.url("/")).send().await.unwrap();
    assert_eq!(closed.status(), 401);
    assert!(closed.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let page = closed.text().await.unwrap();
    assert!(page.contains("<h1>Sign in</h1>") && !page.contains("sports"), "{page}");

    let browser = Browser::start(&service).await;
    let address = service.origin.strip_prefix("http://").unwrap().to_owned();
    browser.goto(format!("http://any:{reader}@{address}/")).await.unwrap();
    assert_eq!(browser.texts("#segments tbody th").await, ["sports"]);
    // The script refreshes the page although its URL has a password. A new figure shows that it did.
    let visit = json!({ "user_id": "u2", "segment": "sports" });
    let visit = service.http.post(service.url("/segments")).bearer_auth(&reader).json(&visit);
    assert_eq!(visit.send().await.unwrap().status(), 204);
    refresh(&browser).await;
    eventually("the new figure is shown", async || browser.texts("#segments td.number").await == ["2"]).await;
    assert_eq!(browser.text("#connection").await, "");
    // The browser now sends the password by itself.
    browser.open("/pages/segment?name=sports").await;
    assert_eq!(browser.texts("h1").await, ["sports"]);
    browser.close().await;

    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 403");
    browser.goto(format!("http://any:{writer}@{address}/")).await.unwrap();
    assert_eq!(browser.texts("#error h1").await, ["This key can’t read segments"]);
    browser.close().await;
}

#[tokio::test]
async fn unknown_page_says_that_it_does_not_exist() {
    let service = Service::start(&[]);
    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 404");
    browser.open("/pages/nothing").await;
    assert_eq!(browser.texts("#error h1").await, ["Page not found"]);
    browser.check_page("no-such-page").await;
    browser.close().await;
}
