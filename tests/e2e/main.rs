//! Browser tests of the pages, on a service with a private Redis.
//!
//! `make e2e` installs chromedriver and chromium, builds the service and runs these tests. Each has a service and a
//! browser of its own. Every test also fails if the browser's console has an error, if a page sends a request to
//! another host, or if axe finds a violation of accessibility rules. Screenshots of the checked pages are in
//! `target/e2e/`.

#![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

mod audience;
mod axe;
mod browser;
mod charts;
mod checks;
mod docs;
mod download;
mod driver;
mod errors;
mod estimates;
mod list;
mod looks;
mod overlap;
mod pictures;
mod print;
mod proxy;
mod redis;
mod segment;
mod service;
mod tasks;
mod wait;
