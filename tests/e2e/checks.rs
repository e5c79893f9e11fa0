//! The checks themselves, on pages that violate them.

use crate::browser::Browser;
use crate::service::Service;

/// Returns a browser with a page that has `body`. It is made from `/healthz`, which has no content security policy.
async fn browser_with(service: &Service, body: &str) -> Browser {
    let browser = Browser::start(service).await;
    browser.open("/healthz").await;
    let body = serde_json::Value::from(body);
    browser.execute(format!("document.body.innerHTML = {body}"), []).await.unwrap();
    browser
}

#[tokio::test]
async fn checks_find_violations_of_accessibility_rules() {
    let service = Service::start(&[]);
    let browser = browser_with(&service, "<p style='width: 2000px'>wide</p><img src='/nothing.png'>").await;
    let violations = browser.violations().await;
    assert!(violations.iter().any(|line| line.starts_with("image-alt: ")), "{violations:#?}");
    assert!(violations.iter().any(|line| line.starts_with("the page is ")), "{violations:#?}");
    let faults = browser.close_for_faults().await;
    assert!(faults.iter().any(|fault| fault.contains("/nothing.png - Failed to load")), "{faults:#?}");
}

#[tokio::test]
async fn checks_find_a_request_to_another_host() {
    let service = Service::start(&[]);
    let browser = browser_with(&service, "<img src='http://other.example/it.png' alt='it'>").await;
    let faults = browser.close_for_faults().await;
    assert!(faults.contains(&"http://other.example/it.png".to_owned()), "{faults:#?}");
}
