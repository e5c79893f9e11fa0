//! The pages as people meet them: a browser, driven by chromedriver, looks at a service with a private Redis.
//!
//! `make e2e` installs what is needed, builds the service and runs these tests. Each has a service and a browser of its own. Whatever a
//! test is about, it fails, too, if the browser's console has an error, if a page asks another host for anything, or if axe finds a page
//! that somebody can't use. Pictures of every page that was looked at are in `target/e2e/`.

#![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

mod axe;
mod browser;
mod checks;
mod docs;
mod driver;
mod errors;
mod list;
mod looks;
mod overlap;
mod patience;
mod redis;
mod segment;
mod service;
