//! `GET /docs`: the page and its files come from the service, and its policy allows no other host.

use std::io::Read as _;

use flate2::read::GzDecoder;
use reqwest::Response;

use crate::helpers::{Redis, TestApp, problem};

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn docs_come_from_the_service_alone() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for (path, folder) in [("/docs", "/"), ("/docs/", "/docs/")] {
        let response = app.get(path).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, "text/html; charset=utf-8"));
        assert_eq!(header(&response, "cache-control"), "no-cache");
        let page = response.text().await.unwrap();
        let parts = page.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css"));
        let files: Vec<_> = parts.map(str::to_owned).collect();
        assert_eq!(files.len(), 3, "{page}");
        assert!(!page.contains("//"), "the page names another host: {page}");
        for file in files {
            assert_eq!(app.status_of(&format!("{folder}{file}")).await, 200, "{path}: {file}");
        }
    }
    for (file, content_type, packed) in [
        ("start.js", "text/javascript", false),
        ("swagger-ui-bundle.js", "text/javascript", true),
        ("swagger-ui.css", "text/css", true),
        ("favicon-32x32.png", "image/png", true),
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
async fn docs_policy_allows_no_other_host() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for path in ["/docs", "/docs/", "/docs/start.js", "/docs/swagger-ui.css"] {
        let response = app.get(path).await;
        let policy = header(&response, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{path}: {policy}");
        for directive in policy.split("; ") {
            let mut sources = directive.split(' ').skip(1);
            assert!(sources.all(|source| ["'none'", "'self'", "data:"].contains(&source)), "{path}: {directive}");
        }
    }
}
