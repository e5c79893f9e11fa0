//! The page that compares segments.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::json;

use crate::browser::Browser;
use crate::looks::command;
use crate::service::Service;
use crate::wait::eventually;

/// Three segments and their users.
const SEGMENTS: [(&str, Range<u32>); 3] = [("a & b", 0..1_500), ("news", 1_000..1_800), ("tiny", 1_490..1_495)];

async fn service() -> Service {
    let service = Service::start(&[]);
    let visits = SEGMENTS.into_iter().flat_map(|(name, users)| users.map(move |user| (format!("u{user}"), name, 0)));
    service.record(visits).await;
    service
}

/// Returns the number of users in all segments or in any.
async fn figure(browser: &Browser, id: &str) -> u64 {
    let count = browser.value(&format!("Number(document.getElementById('{id}').dataset.count)")).await;
    count.as_u64().unwrap()
}

#[tokio::test]
async fn overlap_compares_the_segments_of_the_form() {
    let service = service().await;
    let browser = Browser::start(&service).await;
    browser.open("/pages/overlap").await;
    let mut offered = browser.all("#names option", "element.value").await;
    offered.sort_by_key(ToString::to_string);
    assert_eq!(offered, SEGMENTS.map(|(name, _)| json!(name)));
    browser.check_page("overlap-empty").await;

    for (at, (name, _)) in SEGMENTS.iter().enumerate() {
        browser.click(&format!("#segment-{}", at + 1)).await;
        browser.press(*name).await;
    }
    browser.click("#pick button").await;
    eventually("the result is shown", async || !browser.texts("#matrix").await.is_empty()).await;

    let users = SEGMENTS.map(|(_, users)| users.collect::<BTreeSet<_>>());
    let any: BTreeSet<_> = users.iter().flatten().collect();
    assert_eq!(figure(&browser, "any").await, any.len() as u64);
    assert_eq!(figure(&browser, "all").await, 5);
    let rows = browser
        .all("#matrix tbody tr", "Array.from(element.querySelectorAll('td'), cell => Number(cell.dataset.count))")
        .await;
    let expected = users.each_ref().map(|row| users.each_ref().map(|column| row.intersection(column).count()));
    assert_eq!(json!(rows), json!(expected));
    assert_eq!(browser.texts("#matrix tr:first-child td.self").await, ["1,500total"]);

    // Users 0 to 999, 1000 to 1489 with news, 1490 to 1494 in all, 1495 to 1499 with news, 1500 to 1799.
    let regions = browser
        .all("#regions tbody tr", "[element.querySelector('.said').textContent, Number(element.dataset.count)]")
        .await;
    let expected = [
        ("only “a & b”", 1_000),
        ("only “a & b” and “news”", 495),
        ("only “news”", 300),
        ("“a & b”, “news” and “tiny”", 5),
    ];
    assert_eq!(regions, expected.map(|(name, count)| json!([name, count])));

    let api = service.json("/overlap?segment=a%20%26%20b&segment=news&segment=tiny").await;
    assert_eq!((api["any"].as_u64(), api["all"].as_u64()), (Some(any.len() as u64), Some(5)), "{api}");
    browser.check_page("overlap").await;
    browser.close().await;
}

#[tokio::test]
async fn overlap_compares_the_segments_selected_in_the_list() {
    let service = service().await;
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    for name in ["news", "tiny"] {
        browser.click(&format!("#segments input[value='{name}']")).await;
    }
    browser.click(".list button").await;
    eventually("the result is shown", async || !browser.texts("#matrix").await.is_empty()).await;
    assert_eq!((figure(&browser, "any").await, figure(&browser, "all").await), (800, 5));
    browser.close().await;
}

#[tokio::test]
async fn overlap_explains_invalid_segments_and_keeps_them_in_the_form() {
    let service = service().await;
    let mut browser = Browser::start(&service).await;
    browser.expect_error("status of 422");
    browser.open("/pages/overlap?segment=news").await;
    assert_eq!(browser.texts("#one-more").await.len(), 1);
    assert!(browser.texts("#matrix").await.is_empty());

    browser.open("/pages/overlap?segment=news&segment=%20news%20").await;
    assert_eq!(browser.texts("#error h1").await.len(), 1);
    assert!(browser.texts("#matrix").await.is_empty());
    // The form keeps the segments for correction.
    assert_eq!(browser.value("document.getElementById('segment-1').value").await, json!("news"));
    browser.check_page("overlap-refused").await;
    browser.close().await;
}

#[tokio::test]
async fn overlap_of_eight_segments_is_no_wider_than_a_telephone() {
    let service = Service::start(&[]);
    let names: Vec<_> = (0..8).map(|at| format!("a longer name {at}")).collect();
    for name in &names {
        service.fill(name, 1_200).await;
    }
    let browser = Browser::start(&service).await;
    let metrics = json!({ "width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": true });
    command(&browser, "Emulation.setDeviceMetricsOverride", metrics).await;
    let query: Vec<_> = names.iter().map(|name| format!("segment={}", name.replace(' ', "+"))).collect();
    browser.open(&format!("/pages/overlap?{}", query.join("&"))).await;
    assert_eq!(browser.rows("#matrix tbody tr").await.len(), 8);
    assert_eq!(browser.texts("#regions tbody tr .said").await.len(), 1);
    let widths = "[document.documentElement.scrollWidth, document.querySelector('.scroll').scrollWidth > 320]";
    assert_eq!(browser.value(widths).await, json!([320, true]));
    browser.check_page("overlap-of-eight").await;
    browser.close().await;
}
