//! The page of all segments.

use std::process::Command;

use serde_json::json;
use thirtyfour::Key;

use crate::browser::Browser;
use crate::patience::eventually;
use crate::service::Service;

/// The rows of the list: name and count.
const ROWS: &str = "#segments tbody tr";

/// The names and the counts of the list, as they are shown.
async fn listed(browser: &Browser) -> Vec<(String, String)> {
    let rows = browser.rows(ROWS).await;
    rows.into_iter().map(|cells| (cells[1].clone(), cells[2].clone())).collect()
}

/// The names of the list.
async fn names(browser: &Browser) -> Vec<String> {
    listed(browser).await.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn a_newcomer_sends_the_visit_that_the_page_shows_and_sees_it_without_loading_the_page_again() {
    let service = Service::start(&[]);
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    browser.value("window.isTheSame = true").await;
    browser.look_at_ours("empty").await;

    let command = browser.all("#first-visit pre", "element.textContent").await[0].as_str().unwrap().to_owned();
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("204 No Content"), "{command}: {output:?}");

    // By itself: the page asks every 15 seconds.
    eventually("the visit appears", async || names(&browser).await == ["sports"]).await;
    assert_eq!(listed(&browser).await[0].1, "1");
    assert_eq!(browser.value("window.isTheSame").await, json!(true), "the page was loaded again");
    browser.close().await;
}

#[tokio::test]
async fn the_list_is_sorted_by_count_or_by_name_and_searched() {
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
    eventually("sorted by name", async || names(&browser).await == ["news", "spa", "sports"]).await;
    assert_eq!(browser.text("#segments th[aria-sort=ascending]").await, "Segment ↑");

    browser.click("#prefix").await;
    browser.press("sp").await;
    browser.press(Key::Enter + "").await;
    eventually("searched", async || names(&browser).await == ["spa", "sports"]).await;
    assert_eq!(browser.value("document.getElementById('prefix').value").await, json!("sp"));
    assert_eq!(browser.text("#segments th[aria-sort=ascending]").await, "Segment ↑", "the order stays");

    browser.click("#segments thead th.number a").await;
    eventually("sorted by count", async || browser.texts("#segments th[aria-sort=descending]").await.len() == 1).await;
    assert_eq!(names(&browser).await, ["spa", "sports"], "what is looked for stays");

    browser.click("#prefix").await;
    browser.press("x").await;
    browser.press(Key::Enter + "").await;
    eventually("nothing is found", async || !browser.texts("#nothing").await.is_empty()).await;
    assert!(browser.text("#nothing").await.contains("“spx”"));
    browser.look_at_ours("nothing-found").await;
    browser.close().await;
}

#[tokio::test]
async fn the_list_goes_on_where_a_page_ends() {
    let service = Service::start(&[]);
    let all: Vec<_> = (0..130).map(|at| format!("segment {at:03}")).collect();
    service.record(all.iter().map(|name| ("u1".to_owned(), name.as_str(), 0))).await;
    let browser = Browser::start(&service).await;
    browser.open("/?sort=name").await;
    let first = names(&browser).await;
    assert_eq!(first, all[..100]);
    browser.click("#next").await;
    eventually("the rest is shown", async || names(&browser).await == all[100..]).await;
    assert!(browser.texts("#next").await.is_empty(), "there is no more");
    browser.close().await;
}

#[tokio::test]
async fn names_are_text_whatever_they_are() {
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
    browser.look_at_ours("hostile-names").await;
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
    browser.look_at_ours("hostile-segment").await;
    browser.close().await;
}

#[tokio::test]
async fn the_list_is_walked_with_the_keyboard_alone() {
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
        assert_ne!(outline, json!("none"), "the focus isn't seen at {walked:?}");
        let rectangle = browser.value(&format!("{here}.getBoundingClientRect().top >= 0")).await;
        assert_eq!(rectangle, json!(true), "what has the focus isn't seen at {walked:?}");
        assert!(walked.len() < 50, "{walked:?}");
    }
    let expected = [
        "Skip to the content",
        "Segment estimator",
        "Segments",
        "Overlap",
        "API",
        "prefix",
        "Search",
        "Segment ↑",
        "Users",
        "Compare news",
        "news",
        "Compare sports",
        "sports",
        "Compare selected segments",
    ];
    assert_eq!(walked, expected);

    browser.press(Key::Tab + "").await;
    browser.press(Key::Enter + "").await;
    assert_eq!(browser.value("document.activeElement.id").await, json!("main"), "the head was skipped");
    browser.close().await;
}
