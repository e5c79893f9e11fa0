//! The pages of a data set whose large segments keep a sample.

use crate::browser::Browser;
use crate::service::Service;
use crate::wait::eventually;

#[tokio::test]
async fn pages_mark_estimates_and_say_what_they_mean() {
    let service = Service::start(&["--max-members", "1024"]);
    for (segment, users) in [("front page", 60_000), ("sports", 20_000), ("newsletter", 300)] {
        service.fill(segment, users).await;
    }
    eventually("the large segments keep samples", async || {
        service.json("/segments/sports/count").await["exact"] == false
    })
    .await;
    let browser = Browser::start(&service).await;
    let pages = [
        ("/", "estimates-list"),
        ("/pages/segment?name=front%20page", "estimates-segment"),
        ("/pages/overlap?segment=front%20page&segment=sports", "estimates-overlap"),
        ("/pages/audience?all=front%20page&none=newsletter", "estimates-audience"),
    ];
    for (path, name) in pages {
        browser.open(path).await;
        let note = browser.text("#estimate").await;
        assert!(note.starts_with("≈ marks an estimate: ") && note.contains("95 of 100 cases"), "{note}");
        let main = browser.text("main").await;
        assert!(main.matches('≈').count() > 1, "{path}: {main}");
        browser.check_page(name).await;
    }
    browser.open("/pages/segment?name=newsletter").await;
    let main = browser.text("main").await;
    assert!(!main.contains('≈'), "a small segment is exact: {main}");
    browser.close().await;
}
