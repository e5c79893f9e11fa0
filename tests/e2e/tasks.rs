//! What analysts do with the pages: each task takes at most two actions, on a wide screen and on a telephone, and its
//! result is printed.

use serde_json::{Value, json};
use thirtyfour::Key;

use crate::browser::Browser;
use crate::looks::command;
use crate::service::Service;
use crate::wait::eventually;

/// Widths of a telephone and of a laptop.
const WIDTHS: [u32; 2] = [320, 1_280];

/// Service with the demo's population, and a browser whose screen has this width.
async fn start(width: u32) -> (Service, Browser) {
    let (service, _) = Service::start_with_history().await;
    let browser = Browser::start(&service).await;
    let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500 });
    command(&browser, "Emulation.setDeviceMetricsOverride", metrics).await;
    (service, browser)
}

/// Returns the names and counts of the first `count` rows of the list.
async fn first_rows(browser: &Browser, count: usize) -> Vec<Value> {
    let rows = browser.all("#segments tbody tr", "[element.cells[1].innerText, element.cells[2].innerText]").await;
    rows.into_iter().take(count).collect()
}

/// Returns the names and counts of the first segments that the API lists.
async fn first_segments(service: &Service, query: &str) -> Vec<Value> {
    let list = service.json(&format!("/segments?{query}")).await;
    let number = |count: &Value| {
        let digits = count.to_string();
        if digits.len() > 3 {
            format!("{},{}", &digits[..digits.len() - 3], &digits[digits.len() - 3..])
        } else {
            digits
        }
    };
    let segments = list["segments"].as_array().unwrap();
    segments.iter().map(|segment| json!([segment["segment"], number(&segment["count"])])).collect()
}

/// Asserts that the page fits the screen, and that `selector` is visible there and on paper.
async fn assert_shown(browser: &Browser, selector: &str) {
    let width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(browser.value(width).await, json!(true), "{selector}: the page is wider than the screen");
    for media in ["", "print"] {
        command(browser, "Emulation.setEmulatedMedia", json!({ "media": media })).await;
        let visible = browser.all(selector, "element.checkVisibility()").await;
        assert!(!visible.is_empty() && visible.iter().all(|shown| *shown == json!(true)), "{selector}: {media}");
    }
    command(browser, "Emulation.setEmulatedMedia", json!({ "media": "" })).await;
}

#[tokio::test]
async fn lists_answer_what_is_large_grows_shrinks_is_new_or_has_a_name() {
    for width in WIDTHS {
        lists_answer_in_one_action(width).await;
    }
}

async fn lists_answer_in_one_action(width: u32) {
    let (service, browser) = start(width).await;
    // The ten largest: no action. This week against last is in the same rows.
    browser.open("/").await;
    assert_eq!(first_rows(&browser, 10).await, first_segments(&service, "sort=count&limit=10").await);
    assert_shown(&browser, "#segments tbody tr:nth-child(-n + 10) td.change").await;
    let api = service.json("/segments?sort=count&limit=1").await;
    let change = api["segments"][0]["change_7d"]["absolute"].as_i64().unwrap().unsigned_abs().to_string();
    let shown = browser.text("#segments tbody td.change").await.replace(',', "");
    assert!(shown.contains(&format!("{change} (")), "{shown}: {change}");

    // Growing, shrinking, new: one action each.
    for (label, sort) in [("Largest gain", "change"), ("Largest loss", "-change"), ("Newest", "new")] {
        browser.click(&format!("#orders a[href*='sort={sort}']")).await;
        eventually("the order is shown", async || browser.text("#orders a[aria-current]").await == label).await;
        let expected = first_segments(&service, &format!("sort={sort}&limit=5")).await;
        assert_eq!(first_rows(&browser, 5).await, expected, "{label}");
        assert_shown(&browser, "#segments tbody td.number").await;
    }

    // By a part of the name: one action.
    browser.click("#search").await;
    let name = api["segments"][0]["segment"].as_str().unwrap();
    browser.press(name[1..].to_uppercase() + Key::Enter).await;
    eventually("the search is shown", async || browser.text("#segments caption").await.contains("containing")).await;
    assert!(first_rows(&browser, 40).await.iter().any(|row| row[0] == name), "{name}");
    browser.close().await;
}

#[tokio::test]
async fn segment_page_answers_a_chart_a_sheet_and_a_watch() {
    for width in WIDTHS {
        segment_page_answers(width).await;
    }
}

async fn segment_page_answers(width: u32) {
    let (service, browser) = start(width).await;
    browser.open("/").await;
    let name = first_rows(&browser, 1).await[0][0].as_str().unwrap().to_owned();
    browser.click("#segments tbody th a").await;
    eventually("the segment is shown", async || !browser.texts("#count").await.is_empty()).await;
    // Watch one: the count is in the title of the tab.
    let title = browser.value("document.title").await;
    assert_eq!(title, json!(format!("{} · {name} – Segment estimator", browser.text("#count").await)));
    assert_shown(&browser, "#count, #trend, #history").await;
    // A link to what is seen: the address has all of it.
    browser.click("main a[href*='days=7']").await;
    eventually("a week is shown", async || browser.value("location.search").await.as_str().unwrap().contains("days=7"))
        .await;
    // A chart for a report: the link has fixed times.
    let pictures = browser.all("a[href*='history.svg']", "element.href").await;
    let picture = pictures[0].as_str().unwrap();
    assert!(picture.contains("from=") && picture.contains("to="), "{picture}");
    let svg = service.http.get(picture).send().await.unwrap();
    assert_eq!(svg.headers()["content-type"], "image/svg+xml");
    // A spreadsheet: the link gives the chart's numbers.
    let tables = browser.all("a[href*='history'][href*='format=csv']", "element.href").await;
    let csv = service.http.get(tables[0].as_str().unwrap()).send().await.unwrap().text().await.unwrap();
    assert!(csv.lines().next().unwrap().contains("count") && csv.lines().count() > 24, "{csv}");
    browser.close().await;
}
