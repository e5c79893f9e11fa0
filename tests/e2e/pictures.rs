//! The charts as pictures of their own.

use serde_json::json;

use crate::browser::{Browser, signed_in_on_the_page_of_sports};
use crate::looks::LOOKS;
use crate::service::Service;
use crate::wait::eventually;

#[tokio::test]
async fn pictures_are_linked_and_show_in_another_site() {
    let (service, name) = Service::start_with_history().await;
    let other = Service::start(&[]);
    let browser = Browser::start(&service).await;
    browser.open(&format!("/pages/segment?name={name}")).await;
    let links = browser.all(".picture a", "element.href").await;
    assert_eq!(links.len(), 2, "one for each chart");
    for (link, chart) in links.iter().zip(["histogram", "history"]) {
        let link = link.as_str().unwrap();
        browser.goto(link).await.unwrap();
        assert_eq!(browser.value("document.contentType").await, json!("image/svg+xml"));
        // The policy has the hash of the styles.
        let title = "getComputedStyle(document.querySelector('text.title')).fontSize";
        assert_eq!(browser.value(title).await, json!("18px"), "{link}");
        let texts = "[...document.querySelectorAll('text')].filter(text => { const box = text.getBoundingClientRect(); \
                     return box.left < 0 || box.right > 800 || box.bottom > 400; }).map(text => text.textContent)";
        assert_eq!(browser.value(texts).await, json!([]), "{link}: texts are cut off");
        for theme in ["light", "dark"] {
            browser.goto(format!("{link}&theme={theme}")).await.unwrap();
            LOOKS[0].screenshot(&browser, &format!("picture-{chart}-{theme}")).await;
        }
        browser.goto(other.url("/healthz")).await.unwrap();
        let image = json!(format!("<img src='{link}'>"));
        browser.execute(format!("document.body.innerHTML = {image}"), []).await.unwrap();
        let is_shown = "document.images[0].complete && document.images[0].naturalWidth == 800";
        eventually("the picture is shown", async || browser.value(is_shown).await == json!(true)).await;
    }
    let faults = browser.close_for_faults().await;
    assert!(faults.iter().all(|url| url.starts_with(&other.origin)), "{faults:#?}");
}

#[tokio::test]
async fn labels_of_a_picture_do_not_overlap() {
    let service = Service::start(&[]);
    service.fill("sports", 1).await;
    let browser = Browser::start(&service).await;
    for query in ["buckets=14", "buckets=28", "buckets=56", "buckets=100", "buckets=100&width=2000"] {
        let width = if query.contains("width") { "" } else { "&width=480" };
        browser.open(&format!("/segments/sports/histogram.svg?{query}{width}")).await;
        let boxes = browser
            .all("text", "(box => [box.left, box.top, box.right, box.bottom])(element.getBoundingClientRect())")
            .await;
        let boxes: Vec<[f64; 4]> = boxes.into_iter().map(|found| serde_json::from_value(found).unwrap()).collect();
        for (index, [left, top, right, bottom]) in boxes.iter().enumerate() {
            let is_beside =
                |other: &[f64; 4]| other[0] >= *right || other[2] <= *left || other[1] >= *bottom || other[3] <= *top;
            assert!(boxes[..index].iter().all(is_beside), "{query}: {boxes:?}");
        }
        assert!(boxes.len() > 8, "{query}: {boxes:?}");
    }
    browser.close().await;
}

#[tokio::test]
async fn pictures_of_hostile_names_are_well_formed() {
    let service = Service::start(&[]);
    let names = ["<script>'\"&amp;</svg>", "a\u{fffe}\u{202e}b", &"w".repeat(128), "]]>--!", "музыка ⚽️ 음악"];
    service.record(names.iter().map(|name| ("u1".to_owned(), *name, 0))).await;
    let browser = Browser::start(&service).await;
    for name in names {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        browser.open(&format!("/segments/{encoded}/histogram.svg?width=480")).await;
        let faults = "document.querySelectorAll('parsererror, script').length";
        assert_eq!(browser.value(faults).await, json!(0), "{name}");
        let [left, right]: [f64; 2] = serde_json::from_value(
            browser
                .value("(box => [box.left, box.right])(document.querySelector('text.title').getBoundingClientRect())")
                .await,
        )
        .unwrap();
        assert!(left >= 0.0 && right > left + 10.0 && right <= 480.0, "{name}: {left} to {right}");
    }
    browser.close().await;
}

#[tokio::test]
async fn pictures_ask_for_a_password() {
    let (_service, browser) = signed_in_on_the_page_of_sports().await;
    browser.click("#histogram .picture a").await;
    eventually("the picture is shown", async || browser.value("document.contentType").await == json!("image/svg+xml"))
        .await;
    assert_eq!(browser.text("text.title").await, "sports");
    browser.close().await;
}
