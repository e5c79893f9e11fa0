//! `GET /docs`: the page and its files come from the service, and its policy allows no other host.

use std::collections::BTreeSet;
use std::io::Read as _;

use flate2::read::GzDecoder;
use reqwest::{Response, Url};

use crate::helpers::{Redis, TestApp, problem};

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

/// Returns the values of the attributes `href` and `src` of the page.
fn references(page: &str) -> Vec<&str> {
    let values = page
        .split([' ', '>'])
        .filter_map(|part| part.strip_prefix("href=\"").or_else(|| part.strip_prefix("src=\""))?.strip_suffix('"'));
    values.filter(|value| !value.starts_with('#')).collect()
}

#[tokio::test]
async fn docs_come_from_the_service_alone() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for path in ["/docs", "/docs/"] {
        let response = app.get(path).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, "text/html; charset=utf-8"));
        assert_eq!(header(&response, "cache-control"), "no-cache");
        let page = response.text().await.unwrap();
        assert!(!page.contains("//"), "the page names another host: {page}");
        let base = Url::parse("http://service").unwrap().join(path).unwrap();
        let references = references(&page).into_iter().map(|reference| base.join(reference).unwrap());
        let found: BTreeSet<_> = references.map(|url| url.path().to_owned()).collect();
        let expected = [
            "/",
            "/docs",
            "/docs/accessibility.js",
            "/docs/docs.css",
            "/docs/start.js",
            "/docs/swagger-ui-bundle.js",
            "/openapi.json",
            "/pages/audience",
            "/pages/icon.svg",
            "/pages/overlap",
            "/pages/style.css",
        ];
        assert_eq!(found, expected.map(str::to_owned).into(), "{path}: {page}");
        for url in found {
            assert_eq!(app.status_of(&url).await, 200, "{path}: {url}");
        }
    }
    for (file, content_type, packed) in [
        ("start.js", "text/javascript", false),
        ("accessibility.js", "text/javascript", false),
        ("docs.css", "text/css", false),
        ("swagger-ui-bundle.js", "text/javascript", true),
    ] {
        let response = app.get(&format!("/docs/{file}")).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, content_type));
        assert_eq!(response.headers().contains_key("content-encoding"), packed, "{file}");
        let mut bytes = response.bytes().await.unwrap().to_vec();
        if packed {
            let mut unpacked = Vec::new();
            GzDecoder::new(bytes.as_slice()).read_to_end(&mut unpacked).unwrap();
            bytes = unpacked;
        }
        assert!(bytes.len() > 200, "{file}");
    }
    problem(app.get("/docs/swagger-initializer.js").await, 404, "not-found").await;
}

#[tokio::test]
async fn docs_have_the_header_of_the_pages() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let header = |page: &str| {
        let header = page.split("<header>").nth(1).unwrap().split("</header>").next().unwrap();
        header.replace(" aria-current=\"page\"", "")
    };
    let list = app.get("/").await.text().await.unwrap();
    let docs = app.get("/docs").await.text().await.unwrap();
    assert_eq!(header(&docs), header(&list));
    assert!(docs.contains("<a href=\"./docs\" aria-current=\"page\">API</a>"), "{docs}");
    assert!(docs.contains("<main id=\"main\"") && docs.contains("href=\"#main\""), "{docs}");
}

#[tokio::test]
async fn docs_that_the_browser_has_are_not_sent() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for path in ["/docs", "/docs/", "/docs/docs.css", "/docs/swagger-ui-bundle.js"] {
        let response = app.get(path).await;
        let known = app.request("GET", path).header("if-none-match", header(&response, "etag")).send().await.unwrap();
        assert_eq!(known.status(), 304, "{path}");
        assert_eq!(known.headers()["content-security-policy"], response.headers()["content-security-policy"], "{path}");
        assert!(known.bytes().await.unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn docs_policy_allows_no_other_host() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for path in ["/docs", "/docs/", "/docs/start.js", "/docs/docs.css"] {
        let response = app.get(path).await;
        let policy = header(&response, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{path}: {policy}");
        for directive in policy.split("; ") {
            let mut sources = directive.split(' ').skip(1);
            assert!(sources.all(|source| ["'none'", "'self'"].contains(&source)), "{path}: {directive}");
        }
    }
}
