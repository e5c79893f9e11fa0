//! The page that lists the segments.

use std::process::Command;

use serde_json::json;
use thirtyfour::Key;

use crate::browser::Browser;
use crate::service::Service;
use crate::wait::eventually;

/// Selector of the rows of the list.
const ROWS: &str = "#segments tbody tr";

/// Returns the names and counts that the list shows.
async fn listed(browser: &Browser) -> Vec<(String, String)> {
    let rows = browser.rows(ROWS).await;
    rows.into_iter().map(|cells| (cells[1].clone(), cells[2].clone())).collect()
}

/// Returns the names that the list shows.
async fn names(browser: &Browser) -> Vec<String> {
    listed(browser).await.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn list_shows_the_visit_of_its_own_curl_without_a_reload() {
    let service = Service::start(&[]);
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    browser.value("window.isKept = true").await;
    browser.check_page("empty").await;

    let command = browser.all("#first-visit pre", "element.textContent").await[0].as_str().unwrap().to_owned();
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("204 No Content"), "{command}: {output:?}");

    // The script refreshes the page every 15 seconds.
    eventually("the visit appears", async || names(&browser).await == ["sports"]).await;
    assert_eq!(listed(&browser).await[0].1, "1");
    assert_eq!(browser.value("window.isKept").await, json!(true), "the page was reloaded");
    browser.close().await;
}

#[tokio::test]
async fn list_can_be_sorted_and_searched() {
    let service = Service::start(&[]);
    for (segment, users) in [("sports", 3), ("spa", 1_200), ("news", 20)] {
        service.fill(segment, users).await;
    }
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    let counts = [("spa", "1,200"), ("news", "20"), ("sports", "3")].map(|(name, count)| (name.into(), count.into()));
    assert_eq!(listed(&browser).await, counts);
    assert_eq!(browser.text("#segments th[aria-sort=descending]").await, "Users ↓");

    browser.click("#segments thead th.name a").await;
    eventually("the list is sorted by name", async || names(&browser).await == ["news", "spa", "sports"]).await;
    assert_eq!(browser.text("#segments th[aria-sort=ascending]").await, "Segment ↑");

    browser.click("#search").await;
    browser.press("sp").await;
    browser.press(Key::Enter + "").await;
    eventually("the list has the matching segments", async || names(&browser).await == ["spa", "sports"]).await;
    assert_eq!(browser.value("document.getElementById('search').value").await, json!("sp"));
    assert_eq!(browser.text("#segments th[aria-sort=ascending]").await, "Segment ↑", "the search keeps the order");

    browser.click("#segments thead th.number a").await;
    eventually("the list is sorted by count", async || {
        browser.texts("#segments th[aria-sort=descending]").await.len() == 1
    })
    .await;
    assert_eq!(names(&browser).await, ["spa", "sports"], "sorting keeps the search");

    browser.click("#search").await;
    browser.press("x").await;
    browser.press(Key::Enter + "").await;
    eventually("the list is empty", async || !browser.texts("#nothing").await.is_empty()).await;
    assert!(browser.text("#nothing").await.contains("“spx”"));
    browser.check_page("nothing-found").await;
    browser.close().await;
}

#[tokio::test]
async fn list_continues_on_the_next_page() {
    let service = Service::start(&[]);
    let all: Vec<_> = (0..130).map(|at| format!("segment {at:03}")).collect();
    service.record(all.iter().map(|name| ("u1".to_owned(), name.as_str(), 0))).await;
    let browser = Browser::start(&service).await;
    browser.open("/?sort=name").await;
    let first = names(&browser).await;
    assert_eq!(first, all[..100]);
    browser.click("#next").await;
    eventually("the second page is shown", async || names(&browser).await == all[100..]).await;
    assert!(browser.texts("#next").await.is_empty(), "the second page is the last");
    browser.click("#segments tbody th a").await;
    browser.click(".back a").await;
    eventually("the link back leads to the second page", async || names(&browser).await == all[100..]).await;
    browser.click("#previous").await;
    eventually("the first page is shown", async || names(&browser).await == all[..100]).await;
    assert!(browser.texts("#previous").await.is_empty(), "the first page has no previous one");
    browser.close().await;
}

#[tokio::test]
async fn list_and_segment_page_show_any_name_as_text() {
    let service = Service::start(&[]);
    let hostile = [
        "<script>console.error('run')</script>",
        "\"><img src=/nothing onerror=\"console.error('run')\">",
        "a&b=c#d?e/../f%2Fg+h",
        "'; window.isBroken = true; '",
        "музыка ⚽️ 음악",
        &"w".repeat(128),
    ];
    service.record(hostile.iter().map(|name| ("u1".to_owned(), *name, 0))).await;
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    browser.check_page("hostile-names").await;
    let mut shown = names(&browser).await;
    let mut expected = hostile.map(str::to_owned);
    shown.sort();
    expected.sort();
    assert_eq!(shown, expected);

    let links = browser.all(&format!("{ROWS} th a"), "element.href").await;
    assert_eq!(links.len(), hostile.len());
    for (name, link) in names(&browser).await.iter().zip(links) {
        browser.goto(link.as_str().unwrap()).await.unwrap();
        assert_eq!(browser.all("h1", "element.textContent").await, [json!(name)]);
        assert_eq!(browser.value("document.getElementById('count').dataset.count").await, json!("1"), "{name}");
    }
    browser.check_page("hostile-segment").await;
    browser.close().await;
}

#[tokio::test]
async fn list_can_be_used_with_the_keyboard_alone() {
    let service = Service::start(&[]);
    service.record(["news", "sports"].map(|name| ("u1".to_owned(), name, 0))).await;
    let browser = Browser::start(&service).await;
    browser.open("/?sort=name").await;
    let mut walked = Vec::new();
    loop {
        browser.press(Key::Tab + "").await;
        let here = "document.activeElement";
        if browser.value(&format!("{here} === document.body")).await == json!(true) {
            break;
        }
        let name = format!("({here}.getAttribute('aria-label') || {here}.textContent.trim() || {here}.id)");
        walked.push(browser.value(&name).await.as_str().unwrap().to_owned());
        let outline = browser.value(&format!("getComputedStyle({here}).outlineStyle")).await;
        assert_ne!(outline, json!("none"), "no visible focus after {walked:?}");
        let rectangle = browser.value(&format!("{here}.getBoundingClientRect().top >= 0")).await;
        assert_eq!(rectangle, json!(true), "the focused element is not visible after {walked:?}");
        assert!(walked.len() < 50, "{walked:?}");
    }
    let expected = [
        "Skip to content",
        "Segment estimator",
        "Segments",
        "Overlap",
        "Audience",
        "API",
        "search",
        "Search",
        "14 days",
        "7 days",
        "1 day",
        "1 hour",
        "Largest",
        "Largest gain",
        "Largest loss",
        "Newest",
        "Name",
        "Segment ↑",
        "Users",
        "Compare news",
        "news",
        "Compare sports",
        "sports",
        "Compare selected segments",
        "Download CSV of all these segments",
    ];
    assert_eq!(walked, expected);

    browser.press(Key::Tab + "").await;
    browser.press(Key::Enter + "").await;
    assert_eq!(browser.value("document.activeElement.id").await, json!("main"), "the link skips the head");
    browser.close().await;
}

#[tokio::test]
async fn list_lets_no_more_than_eight_segments_be_ticked() {
    let service = Service::start(&[]);
    let all: Vec<_> = (0..10).map(|at| format!("segment{at}")).collect();
    service.record(all.iter().map(|name| ("u1".to_owned(), name.as_str(), 0))).await;
    let browser = Browser::start(&service).await;
    browser.open("/?sort=name").await;
    let disabled = async || browser.all("#segments input:disabled", "element.value").await;
    for (at, name) in all[..8].iter().enumerate() {
        assert!(disabled().await.is_empty(), "after {at}");
        browser.click(&format!("#segments input[value='{name}']")).await;
    }
    assert_eq!(disabled().await, [json!("segment8"), json!("segment9")]);
    assert_eq!(browser.text(".list button").await, "Compare 8 segments");
    browser.click("#segments input[value='segment3']").await;
    assert!(disabled().await.is_empty());
    assert_eq!(browser.text(".list button").await, "Compare 7 segments");
    browser.close().await;
}

#[tokio::test]
async fn list_is_dense_and_keeps_its_headings_and_its_number_of_rows() {
    let service = Service::start(&[]);
    let names: Vec<_> = (0..120).map(|at| format!("segment{at:03}")).collect();
    service.record(names.iter().map(|name| ("u1".to_owned(), name.as_str(), 0))).await;
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    assert!(browser.text("#segments caption").await.starts_with("1–100 of 120 segments"));
    let heights = browser.all(ROWS, "element.getBoundingClientRect().height").await;
    assert!(heights.iter().all(|height| height.as_f64().unwrap() <= 34.0), "{heights:?}");
    browser.value("document.querySelector('#segments tbody tr:nth-child(80)').scrollIntoView()").await;
    let top = "[scrollY > 1000, Math.round(document.querySelector('#segments thead th').getBoundingClientRect().top)]";
    assert_eq!(browser.value(top).await, json!([true, 0]), "the headings stay in the window");

    browser.click("#next").await;
    let caption = async || browser.text("#segments caption").await;
    eventually("the second page is shown", async || caption().await.starts_with("101–120 of 120 segments")).await;
    browser.click("#sizes a[href='./?limit=500']").await;
    eventually("all are on one page", async || caption().await.starts_with("120 segments")).await;
    assert_eq!(browser.text("#sizes a[aria-current]").await, "500");
    browser.check_page("list-dense").await;
    browser.close().await;
}
