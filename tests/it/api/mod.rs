//! The HTTP API and the pages: a file per route (`count` is `GET /segments/{name}/count`, `visits` is `POST
//! /segments`), and a file per rule that holds for several routes.

mod api_keys;
mod audience;
mod batch;
mod changes;
mod compression;
mod cors;
mod count;
mod counts;
mod docs;
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
mod overlap;
mod pages;
mod paths;
mod pictures;
mod segment_page;
mod segments;
mod users;
mod visits;
mod window;
