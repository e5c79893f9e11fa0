//! The charts of a segment: they are read by pointer, finger and keys.

use serde_json::{Value, json};
use thirtyfour::Key;
use thirtyfour::support::base64_decode;

use crate::browser::Browser;
use crate::looks::command;
use crate::service::Service;
use crate::wait::eventually;

const HISTORY: &str = "#history";
const HISTOGRAM: &str = "#histogram";

/// Returns a browser of this width on the page of the segment `name`.
async fn browser_on(service: &Service, name: &str, width: u32) -> Browser {
    let browser = Browser::start(service).await;
    set_width(&browser, width).await;
    browser.open(&format!("/pages/segment?name={name}")).await;
    browser
}

async fn set_width(browser: &Browser, width: u32) {
    let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500 });
    command(browser, "Emulation.setDeviceMetricsOverride", metrics).await;
}

/// Returns the tooltips of a chart's marks.
async fn titles(browser: &Browser, chart: &str) -> Vec<String> {
    browser.texts(&format!("{chart} .mark > title")).await
}

async fn reading(browser: &Browser, chart: &str) -> String {
    browser.text(&format!("{chart} .reading")).await
}

/// Returns what assistive technology is told about a chart.
async fn slider(browser: &Browser, chart: &str) -> [Value; 4] {
    let attributes =
        "['role', 'aria-valuenow', 'aria-valuemax', 'aria-valuetext'].map(name => element.getAttribute(name))";
    serde_json::from_value(browser.all(&format!("{chart} .graph"), attributes).await[0].clone()).unwrap()
}

/// Returns whether the crosshair is visible, and its position as a part of the width.
async fn crosshair(browser: &Browser, chart: &str) -> (bool, f64) {
    let position = "[getComputedStyle(element).visibility == 'visible', parseFloat(element.getAttribute('x1')) / 100]";
    serde_json::from_value(browser.all(&format!("{chart} .crosshair"), position).await[0].clone()).unwrap()
}

/// Scrolls to a chart, and returns the point of the screen at this part of its width, in the middle of its height.
async fn place(browser: &Browser, chart: &str, part: f64) -> (f64, f64) {
    let plot = format!("document.querySelector('{chart} .plot')");
    browser.value(&format!("{plot}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")).await;
    let area = format!("(area => [area.left, area.width, area.top, area.height])({plot}.getBoundingClientRect())");
    let area = browser.value(&area).await;
    let [left, width, top, height]: [f64; 4] = serde_json::from_value(area).unwrap();
    (left + part * width, top + height / 2.0)
}

async fn move_mouse(browser: &Browser, (x, y): (f64, f64)) {
    command(browser, "Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": x, "y": y })).await;
}

async fn touch(browser: &Browser, kind: &str, points: &[(f64, f64)]) {
    let points: Vec<_> = points.iter().map(|(x, y)| json!({ "x": x, "y": y })).collect();
    command(browser, "Input.dispatchTouchEvent", json!({ "type": kind, "touchPoints": points })).await;
}

async fn press(browser: &Browser, key: Key) {
    browser.press(key + "").await;
}

#[tokio::test]
async fn pointer_reads_the_nearest_mark() {
    let (service, name) = Service::start_with_history().await;
    for width in [1280, 320] {
        let browser = browser_on(&service, &name, width).await;
        for chart in [HISTORY, HISTOGRAM] {
            let titles = titles(&browser, chart).await;
            let at_rest = reading(&browser, chart).await;
            assert_eq!(at_rest, if chart == HISTORY { &titles[titles.len() - 1] } else { &titles[0] }.as_str());
            assert!(!crosshair(&browser, chart).await.0, "{chart}");
            for part in [0.01, 0.4, 0.99] {
                let place = place(&browser, chart, part).await;
                move_mouse(&browser, place).await;
                let (is_visible, at) = crosshair(&browser, chart).await;
                let distance = 0.51 / if chart == HISTORY { 84.0 } else { 14.0 };
                assert!(is_visible && (at - part).abs() < distance, "{chart} at {width}: {at} is not {part}");
                let [role, now, max, text] = slider(&browser, chart).await;
                let index = now.as_str().unwrap().parse::<usize>().unwrap() - 1;
                assert_eq!((role, max), (json!("slider"), json!(titles.len().to_string())));
                assert_eq!(reading(&browser, chart).await, titles[index]);
                assert_eq!(text, json!(titles[index]));
                let read = browser.texts(&format!("{chart} .read > title")).await;
                assert_eq!(read, [titles[index].as_str()]);
            }
            move_mouse(&browser, (1.0, 1.0)).await;
            assert_eq!((reading(&browser, chart).await, crosshair(&browser, chart).await.0), (at_rest, false));
        }
        browser.close().await;
    }
}

#[tokio::test]
async fn finger_reads_a_mark_and_leaves_its_reading() {
    let (service, name) = Service::start_with_history().await;
    let browser = browser_on(&service, &name, 320).await;
    command(&browser, "Emulation.setTouchEmulationEnabled", json!({ "enabled": true, "maxTouchPoints": 1 })).await;
    let (x, y) = place(&browser, HISTORY, 0.3).await;
    touch(&browser, "touchStart", &[(x, y)]).await;
    let first = reading(&browser, HISTORY).await;
    for step in 1..=8 {
        touch(&browser, "touchMove", &[(x + 10.0 * f64::from(step), y)]).await;
    }
    let (end, _) = place(&browser, HISTORY, 1.0).await;
    let (begin, _) = place(&browser, HISTORY, 0.0).await;
    let part = (x + 80.0 - begin) / (end - begin);
    eventually("the crosshair is under the finger", async || {
        (crosshair(&browser, HISTORY).await.1 - part).abs() < 0.01
    })
    .await;
    assert_ne!(reading(&browser, HISTORY).await, first);
    let moved = reading(&browser, HISTORY).await;
    touch(&browser, "touchEnd", &[]).await;
    assert_eq!((reading(&browser, HISTORY).await, crosshair(&browser, HISTORY).await.0), (moved, true));
    browser.close().await;
}

#[tokio::test]
async fn keys_read_mark_by_mark_and_a_refresh_keeps_the_place() {
    let (service, name) = Service::start_with_history().await;
    let browser = browser_on(&service, &name, 1280).await;
    let titles = titles(&browser, HISTORY).await;
    let last = titles.len() - 1;
    // One stop: from the link before the chart to the table after it.
    browser.value("document.querySelector('nav[aria-label=\"Time shown\"] a[href]').focus()").await;
    let focused = "document.activeElement.matches('#history .graph')";
    for _ in 0..5 {
        press(&browser, Key::Tab).await;
        if browser.value(focused).await == json!(true) {
            break;
        }
    }
    assert_eq!(browser.value(focused).await, json!(true), "the chart is a stop of the Tab key");
    assert_ne!(browser.value("getComputedStyle(document.activeElement).outlineStyle").await, json!("none"));
    assert_eq!(reading(&browser, HISTORY).await, titles[last]);
    for (key, index) in [
        (Key::Left, last - 1),
        (Key::Down, last - 2),
        (Key::Right, last - 1),
        (Key::Up, last),
        (Key::Right, last),
        (Key::PageDown, last - (last + 1).div_ceil(10)),
        (Key::Home, 0),
        (Key::Left, 0),
        (Key::PageUp, (last + 1).div_ceil(10)),
        (Key::End, last),
        (Key::Left, last - 1),
    ] {
        press(&browser, key).await;
        assert_eq!(reading(&browser, HISTORY).await, titles[index]);
        assert_eq!(slider(&browser, HISTORY).await[3], json!(titles[index]));
        assert!(crosshair(&browser, HISTORY).await.0);
    }

    press(&browser, Key::Escape).await;
    assert_eq!((reading(&browser, HISTORY).await, crosshair(&browser, HISTORY).await.0), (titles[last].clone(), false));
    press(&browser, Key::Left).await;
    assert_eq!(reading(&browser, HISTORY).await, titles[last - 1]);

    // A page in use is refreshed in place, with a new count.
    service.record([("somebody-new".to_owned(), name.as_str(), 0)]).await;
    let count = browser.text("#count").await;
    browser.value("void document.dispatchEvent(new Event('visibilitychange'))").await;
    eventually("the page is refreshed", async || browser.text("#count").await != count).await;
    assert_eq!(reading(&browser, HISTORY).await, titles[last - 1]);
    assert_eq!((browser.value(focused).await, crosshair(&browser, HISTORY).await.0), (json!(true), true));

    // If the mark is missing on the next page, the nearest one in time is read.
    browser.value("void (document.querySelector('#history .graph').dataset.reading -= 1000)").await;
    let count = browser.text("#count").await;
    service.record([("somebody-else".to_owned(), name.as_str(), 0)]).await;
    browser.value("void document.dispatchEvent(new Event('visibilitychange'))").await;
    eventually("the page is refreshed", async || browser.text("#count").await != count).await;
    assert_eq!(reading(&browser, HISTORY).await, titles[last - 1]);
    press(&browser, Key::Right).await;
    assert!(reading(&browser, HISTORY).await.starts_with("Now, "));
    assert_ne!(reading(&browser, HISTORY).await, titles[last], "the live count has changed");
    assert!(browser.violations().await.is_empty(), "{:#?}", browser.violations().await);

    press(&browser, Key::Left).await;
    press(&browser, Key::Tab).await;
    assert_eq!(browser.value("document.activeElement.textContent").await, json!("Chart of the history as SVG"));
    press(&browser, Key::Tab).await;
    assert_eq!(browser.value("document.activeElement.textContent").await, json!("Download CSV of the history"));
    press(&browser, Key::Tab).await;
    assert_eq!(browser.value("document.activeElement.textContent").await, json!("Show as table"));
    assert!(reading(&browser, HISTORY).await.starts_with("Now, ") && !crosshair(&browser, HISTORY).await.0);
    browser.close().await;
}

#[tokio::test]
async fn printed_charts_have_their_readings_and_no_controls() {
    let (service, name) = Service::start_with_history().await;
    for width in [1280, 320] {
        let browser = browser_on(&service, &name, width).await;
        command(&browser, "Emulation.setEmulatedMedia", json!({ "media": "print" })).await;
        for (parts, is_shown) in [("figure", true), (".reading", true), (".picture", false), ("nav", false)] {
            let shown = browser.all(parts, "element.checkVisibility()").await;
            assert!(shown.len() >= 2 && shown.iter().all(|shown| *shown == json!(is_shown)), "{parts}: {shown:?}");
        }
        let printed = command(&browser, "Page.printToPDF", json!({ "paperWidth": 8.27, "paperHeight": 11.69 })).await;
        let pdf = base64_decode(printed["data"].as_str().unwrap()).unwrap();
        let sheets = String::from_utf8_lossy(&pdf).matches("/Type /Page\n").count();
        assert!((1..=2).contains(&sheets), "{sheets} sheets");
        browser.close().await;
    }
}

#[tokio::test]
async fn charts_without_scripts_are_images_with_tooltips_and_tables() {
    let (service, name) = Service::start_with_history().await;
    let browser = Browser::start(&service).await;
    command(&browser, "Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    browser.open(&format!("/pages/segment?name={name}")).await;
    for chart in [HISTORY, HISTOGRAM] {
        let [role, now, ..] = slider(&browser, chart).await;
        assert_eq!((role, now), (json!("img"), Value::Null));
        assert!(titles(&browser, chart).await.contains(&reading(&browser, chart).await));
        let figures = format!("{chart}-figures");
        browser.click(&format!("{figures} summary")).await;
        let rows = browser.all(&format!("{figures} tbody tr"), "element.checkVisibility()").await;
        assert!(rows.len() >= 14 && rows.iter().all(|is_shown| *is_shown == json!(true)), "{chart}: {rows:?}");
    }
    browser.close().await;
}

#[tokio::test]
async fn charts_are_beside_each_other_on_a_wide_screen_alone() {
    let (service, name) = Service::start_with_history().await;
    let browser = browser_on(&service, &name, 1440).await;
    for chart in [HISTOGRAM, HISTORY] {
        browser.click(&format!("{chart}-figures summary")).await;
    }
    let places = "(box => [box.left, box.top, box.width])(element.getBoundingClientRect())";
    for (width, are_beside) in [(1440, true), (1920, true), (1280, false), (320, false)] {
        set_width(&browser, width).await;
        let places: Vec<[f64; 3]> = serde_json::from_value(browser.all(".plot", places).await.into()).unwrap();
        let [[left, top, size], [other_left, other_top, other_size]] = places[..] else { panic!("{places:?}") };
        assert_eq!(size, other_size);
        let is_beside = top == other_top && other_left > left + size;
        let is_below = left == other_left && other_top > top + 100.0;
        assert_eq!((is_beside, is_below), (are_beside, !are_beside), "{width}: {places:?}");
        assert!(browser.violations().await.is_empty(), "{width}: {:#?}", browser.violations().await);
        let hidden = browser.all("details", "element.scrollWidth - element.clientWidth").await;
        assert_eq!(hidden, [json!(0), json!(0)], "{width}: a table is cut off");
    }
    browser.close().await;
}
