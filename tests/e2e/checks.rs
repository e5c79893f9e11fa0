//! The checks themselves: on a page that is bad on purpose, they find it.

use crate::browser::Browser;
use crate::service::Service;

/// A browser with a page that has `body`. The service's address for probes has no policy that forbids anything.
async fn browser_with(service: &Service, body: &str) -> Browser {
    let browser = Browser::start(service).await;
    browser.open("/healthz").await;
    let body = serde_json::Value::from(body);
    browser.execute(format!("document.body.innerHTML = {body}"), []).await.unwrap();
    browser
}

#[tokio::test]
async fn what_somebody_cannot_use_is_found() {
    let service = Service::start(&[]);
    let browser = browser_with(&service, "<p style='width: 2000px'>wide</p><img src='/nothing.png'>").await;
    let broken = browser.broken_rules().await;
    assert!(broken.iter().any(|line| line.starts_with("image-alt: ")), "{broken:#?}");
    assert!(broken.iter().any(|line| line.starts_with("the page is ")), "{broken:#?}");
    let faults = browser.close_with_faults().await;
    assert!(faults.iter().any(|fault| fault.contains("/nothing.png - Failed to load")), "{faults:#?}");
}

#[tokio::test]
async fn a_request_to_another_host_is_found() {
    let service = Service::start(&[]);
    let browser = browser_with(&service, "<img src='http://other.example/it.png' alt='it'>").await;
    let faults = browser.close_with_faults().await;
    assert!(faults.contains(&"http://other.example/it.png".to_owned()), "{faults:#?}");
}
