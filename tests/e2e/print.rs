//! The pages on paper: as the PDF of the browser, and in the style of print.

use serde_json::{Value, json};
use thirtyfour::support::base64_decode;

use crate::browser::Browser;
use crate::looks::command;
use crate::service::Service;

/// Returns the browser's PDF of the page. Its objects, such as links, are plain text. Only its streams are compressed.
async fn pdf(browser: &Browser) -> String {
    let printed = command(browser, "Page.printToPDF", json!({ "paperWidth": 8.27, "paperHeight": 11.69 })).await;
    String::from_utf8_lossy(&base64_decode(printed["data"].as_str().unwrap()).unwrap()).into_owned()
}

/// Returns the number of links in `pdf` whose URL contains `part`.
fn links(pdf: &str, part: &str) -> usize {
    pdf.split("/URI (").skip(1).filter(|link| link.split(')').next().unwrap().contains(part)).count()
}

#[tokio::test]
async fn printed_list_has_every_row_and_its_heading_on_each_sheet() {
    let service = Service::start(&[]);
    let names: Vec<_> = (0..90).map(|at| format!("segment{at:02}")).collect();
    service.record(names.iter().map(|name| ("u1".to_owned(), name.as_str(), 0))).await;
    let browser = Browser::start(&service).await;
    browser.open("/?sort=name").await;
    let pdf = pdf(&browser).await;
    for name in &names {
        assert_eq!(links(&pdf, &format!("name={name}")), 1, "{name} is not printed once");
    }
    let sheets = pdf.matches("/Type /Page\n").count();
    assert!(sheets > 1, "one sheet does not show whether headings repeat");
    // The browser notes a link of a repeated heading several times. A heading that does not repeat has its link once.
    assert!(links(&pdf, "sort=name") >= sheets, "a sheet has no heading");
    browser.close().await;
}

#[tokio::test]
async fn printed_page_is_light_and_has_no_controls() {
    let service = Service::start(&[]);
    service.record(["news", "sports"].map(|name| ("u1".to_owned(), name, 0))).await;
    let browser = Browser::start(&service).await;
    let color = "getComputedStyle(document.body).color";
    for path in [
        "/",
        "/pages/segment?name=news",
        "/pages/overlap?segment=news&segment=sports",
        "/pages/audience?all=news&none=sports",
    ] {
        browser.open(path).await;
        let light = browser.value(color).await;
        let dark = json!([{ "name": "prefers-color-scheme", "value": "dark" }]);
        command(&browser, "Emulation.setEmulatedMedia", json!({ "features": dark })).await;
        assert_ne!(browser.value(color).await, light, "the screen is dark");
        command(&browser, "Emulation.setEmulatedMedia", json!({ "media": "print", "features": dark })).await;
        assert_eq!(browser.value(color).await, light, "{path}");
        let controls = browser.all("button, input, nav a", "element.checkVisibility()").await;
        assert!(!controls.is_empty() && controls.iter().all(|shown| *shown == Value::Bool(false)), "{path}");
        assert!(
            browser.all("table", "element.checkVisibility()").await.contains(&Value::Bool(true))
                || path.contains("name=")
        );
        command(&browser, "Emulation.setEmulatedMedia", json!({ "media": "", "features": [] })).await;
    }
    browser.close().await;
}

#[tokio::test]
async fn current_page_is_underlined_alone_in_forced_colors() {
    let service = Service::start(&[]);
    let browser = Browser::start(&service).await;
    browser.open("/pages/overlap").await;
    let forced = json!([{ "name": "forced-colors", "value": "active" }]);
    command(&browser, "Emulation.setEmulatedMedia", json!({ "features": forced })).await;
    let lines = browser.all("header nav a", "getComputedStyle(element).borderBottomWidth").await;
    assert_eq!(lines, [json!("0px"), json!("2px"), json!("0px"), json!("0px")]);
    browser.close().await;
}
