//! `/docs`, Swagger UI within the layout of the pages.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::looks::command;
use crate::proxy;
use crate::service::Service;
use crate::wait::eventually;

/// Opens the page at `path` and waits until it shows `count` operations.
async fn open_docs(browser: &Browser, path: &str, count: usize) {
    browser.open(path).await;
    eventually("all operations are shown", async || browser.texts(".opblock").await.len() == count).await;
}

async fn count_of_operations(service: &Service) -> usize {
    let document = service.json("/openapi.json").await;
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().keys()).count();
    assert!(operations > 5, "{document}");
    operations
}

/// Opens an operation, given as `tag-operation`, and presses "Try it out".
async fn try_out(browser: &Browser, operation: &str) {
    let operation = format!("#operations-{operation}");
    browser.click(&format!("{operation} .opblock-summary-control")).await;
    let button = format!("{operation} .try-out__btn");
    eventually("the operation is open", async || !browser.texts(&button).await.is_empty()).await;
    browser.click(&button).await;
    eventually("it can be executed", async || !browser.texts(&format!("{operation} .execute")).await.is_empty()).await;
}

/// Executes the operation that counts a segment. Returns the URL of the request and the answer.
async fn executed_count(browser: &Browser) -> (String, Value) {
    try_out(browser, "counts-count_segment").await;
    browser.click("#operations-counts-count_segment .execute").await;
    let body = "#operations-counts-count_segment .live-responses-table .highlight-code pre";
    eventually("the answer is shown", async || !browser.texts(body).await.is_empty()).await;
    let url = browser.text("#operations-counts-count_segment .request-url pre").await;
    (url, serde_json::from_str(&browser.text(body).await).unwrap())
}

#[tokio::test]
async fn docs_show_every_operation_without_another_host() {
    let service = Service::start(&[]);
    let browser = Browser::start(&service).await;
    let operations = count_of_operations(&service).await;
    for path in ["/docs/", "/docs"] {
        open_docs(&browser, path, operations).await;
        assert_eq!(browser.texts("h1").await, ["API"], "{path}");
        assert_eq!(browser.text("header [aria-current]").await, "API", "{path}");
    }
    browser.check_page("docs").await;

    for path in ["/docs/", "/docs"] {
        browser.open(path).await;
        browser.click("header nav a").await;
        eventually("the list is shown", async || {
            browser.current_url().await.unwrap().as_str() == format!("{}/", service.origin)
        })
        .await;
    }
    browser.close().await;
}

#[tokio::test]
async fn docs_with_open_operations_are_accessible() {
    let service = Service::start(&[]);
    service.fill("sports", 12).await;
    let browser = Browser::start(&service).await;
    open_docs(&browser, "/docs", count_of_operations(&service).await).await;
    let (_, answer) = executed_count(&browser).await;
    assert_eq!((&answer["segment"], &answer["count"]), (&json!("sports"), &json!(12)), "{answer}");
    for operation in ["visits-record_visit", "counts-count_segments", "users-forget_user", "pages-page_list"] {
        try_out(&browser, operation).await;
    }
    // An operation as it is read, with the schema of its answer.
    browser.click("#operations-counts-segment_histogram .opblock-summary-control").await;
    let schema = "#operations-counts-segment_histogram [data-code='200'] [data-name='model']";
    eventually("the schema can be chosen", async || !browser.texts(schema).await.is_empty()).await;
    browser.click(schema).await;
    browser.click("#operations-counts-segment_histogram .json-schema-2020-12-expand-deep-button").await;
    browser.click(".models .json-schema-2020-12-expand-deep-button").await;
    browser.check_page("docs-open").await;
    browser.close().await;
}

#[tokio::test]
async fn docs_ask_for_a_token_in_a_dialog() {
    let (service, [reader, _]) = Service::start_with_keys();
    let mut browser = Browser::start(&service).await;
    // The first request has no token.
    browser.expect_error("status of 401");
    open_docs(&browser, "/docs", count_of_operations(&service).await).await;
    let (_, answer) = executed_count(&browser).await;
    assert_eq!(answer["status"], 401, "{answer}");

    browser.click(".btn.authorize").await;
    eventually("the dialog is shown", async || !browser.texts("dialog[open] form").await.is_empty()).await;
    browser.check_page("docs-authorize").await;
    let has_focus = "document.activeElement.closest('dialog') !== null";
    assert_eq!(browser.value(has_focus).await, json!(true));
    browser.press("\u{e00c}").await;
    eventually("Escape closes the dialog", async || browser.texts("dialog").await.is_empty()).await;
    assert_eq!(browser.value("document.activeElement.matches('.btn.authorize')").await, json!(true));

    browser.click(".btn.authorize").await;
    eventually("the dialog is shown", async || !browser.texts("dialog[open] form").await.is_empty()).await;
    browser.click("dialog #auth-bearer-value").await;
    browser.press(reader.as_str()).await;
    browser.click("dialog .auth-btn-wrapper .authorize").await;
    browser.click("dialog .close-modal").await;
    eventually("the dialog is closed", async || browser.texts("dialog").await.is_empty()).await;
    browser.click("#operations-counts-count_segment .execute").await;
    let status = "#operations-counts-count_segment .live-responses-table .response-col_status";
    eventually("the answer has the count", async || browser.texts(status).await.contains(&"200".to_owned())).await;
    browser.close().await;
}

#[tokio::test]
async fn try_it_out_keeps_the_prefix_of_a_proxy() {
    let service = Service::start(&[]);
    service.fill("sports", 12).await;
    let origin = proxy::start_with_prefix(&service, "/team/seg").await;
    let browser = Browser::start_at(&origin).await;
    for path in ["/team/seg/docs", "/team/seg/docs/"] {
        open_docs(&browser, path, count_of_operations(&service).await).await;
        let (url, answer) = executed_count(&browser).await;
        assert_eq!(url, format!("{origin}/team/seg/segments/sports/count?window=7d"));
        assert_eq!(answer["count"], 12, "{answer}");
        browser.click("header .brand").await;
        eventually("the list is shown", async || browser.texts("#segments tbody th").await == ["sports"]).await;
    }
    browser.close().await;
}

#[tokio::test]
async fn printed_docs_are_light_and_have_no_controls() {
    let service = Service::start(&[]);
    let browser = Browser::start(&service).await;
    open_docs(&browser, "/docs", count_of_operations(&service).await).await;
    try_out(&browser, "counts-count_segment").await;
    let color = "getComputedStyle(document.querySelector('.opblock-summary-path')).color";
    let light = browser.value(color).await;
    let dark = json!([{ "name": "prefers-color-scheme", "value": "dark" }]);
    command(&browser, "Emulation.setEmulatedMedia", json!({ "features": dark })).await;
    assert_ne!(browser.value(color).await, light, "the screen is dark");
    command(&browser, "Emulation.setEmulatedMedia", json!({ "media": "print", "features": dark })).await;
    assert_eq!(browser.value(color).await, light);
    // An operation's heading is a button.
    let controls = browser.all("button:not(.opblock-summary-control), nav a", "element.checkVisibility()").await;
    assert!(!controls.is_empty() && controls.iter().all(|shown| *shown == Value::Bool(false)), "{controls:?}");
    let headings = browser.all(".opblock-summary-control", "element.checkVisibility()").await;
    assert!(!headings.is_empty() && headings.iter().all(|shown| *shown == Value::Bool(true)), "{headings:?}");
    browser.close().await;
}
