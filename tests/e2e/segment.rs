//! The page of a segment: its charts have the numbers of the API.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::service::Service;
use crate::wait::eventually;

const DAY: u64 = 86_400;

/// Returns the number of `text` after `before`: 1234 of `1,234 users`.
fn number_after(text: &str, before: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(before)?;
    let digits = rest.split([' ', '.']).next()?.replace(',', "");
    digits.parse().ok()
}

/// Sends the request that the page shows with `part` in its path, and returns the response.
async fn send_shown_request(browser: &Browser, service: &Service, part: &str) -> Value {
    let calls = browser.all("main pre", "element.textContent").await[0].as_str().unwrap().to_owned();
    let urls: Vec<_> = calls.split('\'').filter_map(|text| text.strip_prefix(service.origin.as_str())).collect();
    let url = urls.iter().find(|url| url.contains(part));
    service.json(url.unwrap_or_else(|| panic!("no {part} in {urls:?}"))).await
}

fn counts(answer: &Value, list: &str) -> Vec<Option<u64>> {
    answer[list].as_array().unwrap().iter().map(|item| item["count"].as_u64()).collect()
}

#[tokio::test]
async fn histogram_has_the_numbers_of_the_api() {
    let service = Service::start(&[]);
    // A hundred users more on each earlier day, seen in the middle of the day, and none on the third.
    let of_day = |day: u64| if day == 2 { 0 } else { (day + 1) * 100 };
    let visits = (0..14).flat_map(|day| (0..of_day(day)).map(move |user| (day, user)));
    service.record(visits.map(|(day, user)| (format!("u{day}-{user}"), "sports", day * DAY + DAY / 2))).await;
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    browser.click("#segments tbody th a").await;
    assert_eq!(browser.texts("h1").await, ["sports"]);

    let expected: Vec<_> = (0..14).rev().map(of_day).collect();
    let api = send_shown_request(&browser, &service, "/histogram").await;
    assert_eq!(counts(&api, "buckets"), expected.iter().copied().map(Some).collect::<Vec<_>>());
    let titles = browser.texts("#histogram .bar > title").await;
    let shown: Vec<_> = titles.iter().map(|title| number_after(title, "UTC: ").unwrap()).collect();
    assert_eq!(shown, expected, "{titles:#?}");

    // The heights of bars are proportional to their counts, to the pixel.
    let heights = browser.all("#histogram .bar .fill", "element.getBoundingClientRect().height").await;
    let heights: Vec<_> = heights.iter().map(|height| height.as_f64().unwrap()).collect();
    for (height, count) in heights.iter().zip(&expected) {
        let expected = heights[0] * *count as f64 / expected[0] as f64;
        assert!((height - expected).abs() < 1.0, "{count} users are {height} pixels high, not {expected}");
    }

    browser.click("#histogram-figures summary").await;
    let rows = browser.rows("#histogram-table tbody tr").await;
    let table: Vec<u64> = rows.iter().rev().map(|cells| cells[2].replace(',', "").parse().unwrap()).collect();
    assert_eq!(table, expected);
    let count = service.json("/segments/sports/count").await["count"].clone();
    assert_eq!(browser.value("Number(document.getElementById('count').dataset.count)").await, count);
    assert_eq!(browser.text("#count").await, "10,200");
    browser.check_page("segment-without-history").await;
    browser.close().await;
}

#[tokio::test]
async fn window_link_shows_the_numbers_of_a_shorter_window() {
    let service = Service::start(&[]);
    service.record((0..9).map(|user| (format!("u{user}"), "sports", user * DAY + DAY / 2))).await;
    let browser = Browser::start(&service).await;
    browser.open("/pages/segment?name=sports").await;
    assert_eq!(browser.text("#count").await, "9");
    browser.find(thirtyfour::By::LinkText("7 days")).await.unwrap().click().await.unwrap();
    assert_eq!(browser.texts("nav[aria-label=Window] [aria-current]").await, ["7 days"]);
    assert_eq!(browser.text("#count").await, "7");
    assert_eq!(send_shown_request(&browser, &service, "/count").await["count"], json!(7));
    let titles = browser.texts("#histogram .bar > title").await;
    let shown: u64 = titles.iter().map(|title| number_after(title, "UTC: ").unwrap()).sum();
    assert_eq!(shown, 7, "{titles:#?}");
    browser.close().await;
}

#[tokio::test]
async fn history_has_the_numbers_of_the_api() {
    let service = Service::start(&[]);
    service.run(&["demo", "--segments", "40", "--users", "20000"]);
    let browser = Browser::start(&service).await;
    browser.open("/").await;
    assert_eq!(browser.rows("#segments tbody tr").await.len(), 40);
    assert_eq!(
        browser.all("#segments .spark .line", "element.getAttribute('d').length > 20").await,
        vec![json!(true); 40]
    );
    browser.check_page("list").await;

    browser.click("#segments tbody th a").await;
    let api = counts(&send_shown_request(&browser, &service, "/history").await, "points");
    let titles = browser.texts("#history .point > title").await;
    let shown: Vec<_> = titles.iter().map(|title| number_after(title, ": ")).collect();
    let live = service.json(&format!("/segments/{}/count", browser.text("h1").await)).await["count"].as_u64();
    assert_eq!(shown, [api, vec![live]].concat(), "{titles:#?}");
    let known: Vec<_> = shown.iter().flatten().collect();
    // A sample for every two hours.
    assert!(known.len() > 14 * 12 - 5, "{known:?}");

    // The heights of points are proportional to their counts, to the pixel.
    let bottoms = browser.all("#history .point circle", "Number(element.getAttribute('cy'))").await;
    let bottoms: Vec<_> = bottoms.iter().map(|bottom| bottom.as_f64().unwrap()).collect();
    assert_eq!(bottoms.len(), known.len());
    let base = browser.value("Number(document.querySelector('#history .plot .base').getAttribute('y1'))").await;
    let base = base.as_f64().unwrap();
    let scale = (base - bottoms[0]) / *known[0] as f64;
    for (bottom, count) in bottoms.iter().zip(known) {
        assert!((base - bottom - *count as f64 * scale).abs() < 1.0, "{count} users are at {bottom}");
    }

    browser.check_page("segment").await;
    browser.click("#histogram-figures summary").await;
    browser.click("#history-figures summary").await;
    let days = browser.rows("#history-table tbody tr").await;
    // Below the count of this moment.
    assert!(days[0][0] == "Now" && [15, 16].contains(&days.len()), "{days:?}");
    browser.check_page("segment-tables").await;
    browser.close().await;
}

#[tokio::test]
async fn count_at_a_moment_is_that_of_the_api() {
    let (service, name) = Service::start_with_history().await;
    let history = service.json(&format!("/segments/{name}/history?from=-9d&to=-9d&step=1h")).await;
    let point = &history["points"][0];
    let browser = Browser::start(&service).await;
    browser.open(&format!("/pages/segment?name={name}&window=7d")).await;
    // The value of the field, whatever the language of its parts: 2026-11-08T15:00.
    let value = &point["from"].as_str().unwrap()[..16];
    browser.value(&format!("void (document.getElementById('at').value = '{value}')")).await;
    browser.click(".moment button").await;
    eventually("the count is shown", async || !browser.texts("#moment").await.is_empty()).await;
    let shown = browser.text("#moment").await;
    assert_eq!(number_after(&shown, "UTC: "), point["count"].as_u64(), "{shown}");
    assert_eq!(browser.value("document.getElementById('at').value").await, json!(value));
    let bottom = "document.getElementById('moment').getBoundingClientRect().bottom <= innerHeight && scrollY > 0";
    assert_eq!(browser.value(bottom).await, json!(true), "the page is at the answer");
    assert_eq!(browser.texts("nav[aria-label=Window] [aria-current]").await, ["7 days"], "the window is kept");
    browser.check_page("segment-at-a-moment").await;
    browser.close().await;
}

#[tokio::test]
async fn unknown_segment_is_not_an_error_and_suggests_a_name() {
    let service = Service::start(&[]);
    let browser = Browser::start(&service).await;
    service.fill("somebody", 1).await;
    browser.open("/pages/segment?name=sombody").await;
    assert_eq!(browser.text("h1").await, "No segment called “sombody”");
    assert_eq!(browser.text("#unknown").await, "Did you mean somebody?");
    assert!(browser.texts("#histogram").await.is_empty());
    browser.check_page("segment-of-nobody").await;
    browser.close().await;
}
