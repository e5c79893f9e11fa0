//! What is shown when there are no numbers to show.

use serde_json::json;

use crate::browser::Browser;
use crate::patience::eventually;
use crate::redis::Redis;
use crate::service::Service;

/// Has the script ask for the page now, as it does when somebody comes back to it.
async fn come_back(browser: &Browser) {
    browser.value("document.dispatchEvent(new Event('visibilitychange'))").await;
}

#[tokio::test]
async fn without_redis_there_are_no_numbers_until_it_is_back() {
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
    come_back(&browser).await;
    let title = "Redis can’t answer, so there are no numbers";
    eventually("the page says so", async || browser.texts("#error h1").await == [title]).await;
    assert!(!shows("1,234").await, "an old number is shown");
    assert!(browser.texts("#segments").await.is_empty());
    for path in ["/", "/pages/segment?name=sports", "/pages/overlap?segment=sports&segment=news"] {
        browser.open(path).await;
        assert_eq!(browser.texts("#error h1").await, [title], "{path}");
        assert!(!shows("1,234").await, "{path}");
    }
    browser.open("/").await;
    browser.look_at_ours("redis-away").await;

    redis.start_again();
    eventually("the numbers are back", async || {
        come_back(&browser).await;
        shows("1,234").await
    })
    .await;
    browser.close().await;
}

#[tokio::test]
async fn a_refresh_leaves_alone_what_somebody_has_opened_or_is_at() {
    let service = Service::start(&[]);
    service.fill("sports", 12).await;
    let browser = Browser::start(&service).await;
    browser.open("/pages/segment?name=sports").await;
    browser.click("#histogram-figures summary").await;
    browser.value("document.querySelector('pre').focus()").await;
    service.fill("sports", 13).await;
    come_back(&browser).await;
    eventually("the new figure is there", async || browser.text("#count").await == "13").await;
    let is_left_alone = "document.activeElement === document.querySelector('pre') \
                         && document.querySelector('#histogram-figures').open";
    assert_eq!(browser.value(is_left_alone).await, json!(true));

    // What was typed in a field that somebody has left.
    browser.open("/").await;
    browser.value("document.querySelector('input[type=search]').value = 'spo'").await;
    service.fill("news", 20).await;
    come_back(&browser).await;
    eventually("the new segment is there", async || browser.texts("#segments tbody th").await == ["news", "sports"])
        .await;
    assert_eq!(browser.value("document.querySelector('input[type=search]').value").await, json!("spo"));
    browser.close().await;
}

#[tokio::test]
async fn a_page_whose_service_is_gone_says_of_when_its_numbers_are() {
    let service = Service::start(&[]);
    service.fill("sports", 12).await;
    let mut browser = Browser::start(&service).await;
    browser.expect_error("net::ERR_CONNECTION_REFUSED");
    browser.open("/").await;
    let time = browser.text(".as-of time").await;
    drop(service);
    come_back(&browser).await;
    let said = async || browser.text("#connection").await;
    eventually("the page says so", async || !said().await.is_empty()).await;
    assert_eq!(said().await, format!("The service can’t be reached. The numbers are of {time}."));
    browser.look_at_ours("service-away").await;
    browser.close().await;
}

#[tokio::test]
async fn a_browser_signs_in_with_a_key() {
    let (service, [reader, writer]) = Service::start_with_keys();
    let client = service.http.post(service.url("/segments")).bearer_auth(&reader);
    let visit = client.json(&json!({ "user_id": "u1", "segment": "sports" }));
    assert_eq!(visit.send().await.unwrap().status(), 204);

    // A browser asks for a name and a password before it shows this.
    let closed = service.http.get(service.url("/")).send().await.unwrap();
    assert_eq!(closed.status(), 401);
    assert!(closed.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let page = closed.text().await.unwrap();
    assert!(page.contains("Sign in to see the numbers") && !page.contains("sports"), "{page}");

    let browser = Browser::start(&service).await;
    let address = service.origin.strip_prefix("http://").unwrap().to_owned();
    browser.goto(format!("http://anybody:{reader}@{address}/")).await.unwrap();
    assert_eq!(browser.texts("#segments tbody th").await, ["sports"]);
    // The script asks for it again, although its address has a password. The figure that it finds is a new one.
    let visit = json!({ "user_id": "u2", "segment": "sports" });
    let visit = service.http.post(service.url("/segments")).bearer_auth(&reader).json(&visit);
    assert_eq!(visit.send().await.unwrap().status(), 204);
    come_back(&browser).await;
    eventually("the new figure is there", async || browser.texts("#segments td.number").await == ["2"]).await;
    assert_eq!(browser.text("#connection").await, "");
    // From here on the browser sends it by itself.
    browser.open("/pages/segment?name=sports").await;
    assert_eq!(browser.texts("h1").await, ["sports"]);
    browser.close().await;

    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 403");
    browser.goto(format!("http://anybody:{writer}@{address}/")).await.unwrap();
    assert_eq!(browser.texts("#error h1").await, ["This token may not see the numbers"]);
    browser.close().await;
}

#[tokio::test]
async fn a_page_that_is_not_there_says_so() {
    let service = Service::start(&[]);
    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 404");
    browser.open("/pages/nothing").await;
    assert_eq!(browser.texts("#error h1").await, ["There is no such page"]);
    browser.look_at_ours("no-such-page").await;
    browser.close().await;
}
