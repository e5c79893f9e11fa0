//! The HTTP API and the pages: a file per route (`count` is `GET /segments/{name}/count`, `visits` is `POST
//! /segments`), and a file per rule that holds for several routes.

pub mod api_keys;
mod audience;
mod audit_log;
mod backfill;
mod batch;
mod changes;
mod compression;
mod cors;
mod count;
mod counts;
mod csv;
mod delete_segment;
mod docs;
mod dry_run;
mod estimates;
mod finding;
mod health;
mod histogram;
mod histories;
mod history;
mod host;
mod jwt;
mod known;
mod limits;
mod max_lists;
mod max_segments;
mod members;
mod overlap;
mod pages;
mod paths;
mod pictures;
mod remove_user;
mod segment_page;
mod segments;
mod several_segments;
mod users;
mod visits;
mod window;

use reqwest::Response;
use tokio::task::JoinHandle;

use crate::helpers::TestApp;

/// Starts the overlaps that one permit of `max_overlaps` admits: one runs and eight wait. The caller holds the replies
/// of Redis.
fn start_nine_overlaps(app: &TestApp) -> [JoinHandle<reqwest::Result<Response>>; 9] {
    let overlap = |n: usize| app.request("GET", &format!("/overlap?segment=sports&segment=other{n}"));
    std::array::from_fn(|n| tokio::spawn(overlap(n).send()))
}
