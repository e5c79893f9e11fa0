//! The pages: what they show is what the API says, to those who may look, and nothing else.

use reqwest::Response;

use crate::helpers::{Redis, TestApp};

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

/// Checks that `response` is a page of this status, which lets a browser ask nobody else, and gives it.
async fn page(response: Response, status: u16) -> String {
    assert_eq!((response.status().as_u16(), header(&response, "content-type")), (status, "text/html; charset=utf-8"));
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(response.headers().contains_key("retry-after"), status == 503);
    let policy = header(&response, "content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    for directive in policy.split("; ") {
        assert!(directive.ends_with(" 'none'") || directive.ends_with(" 'self'"), "{directive}");
    }
    let id = header(&response, "x-request-id").to_owned();
    let page = response.text().await.unwrap();
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{page}");
    for link in page.split([' ', '<']).filter_map(|part| part.strip_prefix("href=").or(part.strip_prefix("src="))) {
        assert!(!link.contains("//"), "another host: {link}");
    }
    for inline in [" style=", "<style", " onclick=", "javascript:"] {
        assert!(!page.contains(inline), "the policy forbids {inline}");
    }
    assert_eq!(page.matches("<h1>").count(), 1, "{page}");
    assert_eq!(page.contains("id=\"trouble\""), status != 200, "{page}");
    assert!(status == 200 || page.contains(&id), "the request's id is on the page: {page}");
    page
}

#[tokio::test]
async fn the_files_of_the_pages_come_from_the_service_and_no_others() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (file, content_type) in
        [("style.css", "text/css"), ("refresh.js", "text/javascript"), ("icon.svg", "image/svg+xml")]
    {
        let response = app.get(&format!("/pages/{file}")).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, content_type));
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert_eq!(header(&response, "cache-control"), "no-cache");
        let text = response.text().await.unwrap();
        assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("://"), "{file} names another host");
    }
    let missing = page(app.get("/pages/nothing").await, 404).await;
    assert!(missing.contains("There is no such page") && missing.contains("href=\"../\""), "{missing}");
    // Whoever sends something is a program.
    let wrong = app.request("POST", "/pages/style.css").send().await.unwrap();
    assert_eq!(header(&wrong, "allow"), "GET,HEAD");
    crate::helpers::problem(wrong, 405, "method-not-allowed").await;
}
