//! The page that counts an audience.

use serde_json::json;

use crate::browser::Browser;
use crate::service::Service;
use crate::wait::eventually;

/// Records users 0 to 99 as sports, 50 to 149 as news, and 90 to 99 as premium.
async fn service() -> Service {
    let service = Service::start(&[]);
    let segments = [("sports", 0..100), ("news", 50..150), ("premium", 90..100)];
    let visits = segments.into_iter().flat_map(|(name, users)| users.map(move |user| (format!("u{user}"), name, 0)));
    service.record(visits).await;
    service
}

#[tokio::test]
async fn audience_counts_the_users_in_segments_and_not_in_others() {
    let service = service().await;
    let browser = Browser::start(&service).await;
    browser.open("/pages/audience").await;
    browser.check_page("audience-empty").await;
    for (field, name) in [("all-1", "sports"), ("all-2", "news"), ("none-1", "premium")] {
        browser.click(&format!("#{field}")).await;
        browser.press(name).await;
    }
    browser.click("#pick button").await;
    eventually("the result is shown", async || !browser.texts("#count").await.is_empty()).await;
    assert_eq!(browser.text("#count").await, "40");
    assert_eq!(browser.text("#result h2").await, "In “sports” and “news”, not in “premium”");
    let sizes = browser.rows("#sizes tbody tr").await;
    assert_eq!(sizes, [["sports", "100", "40", "40.0%"], ["news", "100", "40", "40.0%"], ["premium", "10", "0", "0%"]]);
    let api = service.json("/audience/count?all=sports&all=news&none=premium").await;
    assert_eq!(api["count"], json!(40));
    browser.check_page("audience").await;

    browser.click("#combinations").await;
    eventually("the combinations are shown", async || !browser.texts("#regions").await.is_empty()).await;
    browser.close().await;
}

#[tokio::test]
async fn users_in_two_segments_and_not_in_a_third_take_two_actions_from_the_list() {
    let service = service().await;
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    for name in ["sports", "news", "premium"] {
        browser.click(&format!("#segments input[value='{name}']")).await;
    }
    browser.click(".list button").await;
    eventually("the combinations are shown", async || !browser.texts("#regions").await.is_empty()).await;
    let row = "//tr[.//span[text()='only “news” and “sports”']]";
    let count = format!("Number(document.evaluate(\"{row}\", document).iterateNext().dataset.count)");
    assert_eq!(browser.value(&count).await, json!(40));

    // The count links to its audience.
    let click = format!("document.evaluate(\"{row}//a\", document).iterateNext().click()");
    browser.value(&click).await;
    eventually("the audience is shown", async || browser.texts("#count").await == ["40"]).await;
    browser.close().await;
}

#[tokio::test]
async fn audience_explains_an_unknown_name_and_offers_a_similar_one() {
    let service = service().await;
    let browser = Browser::start(&service).await;
    browser.open("/pages/audience?any=sports&none=premuim").await;
    assert_eq!(browser.text("#unknown").await, "No segment is called “premuim”. Did you mean premium?");
    browser.click("#unknown a").await;
    eventually("the name is replaced", async || browser.texts("#count").await == ["90"]).await;
    browser.close().await;
}
