//! The HTTP API and the pages: one file per resource, and one per rule that holds for all of them.

mod access;
mod batch;
mod cors;
mod docs;
mod histogram;
mod history;
mod host;
mod jwt;
mod limits;
mod lists;
mod max_lists;
mod max_segments;
mod overlap;
mod pages;
mod paths;
mod probes;
mod users;
mod visits;
mod window;
