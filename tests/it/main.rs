//! Integration tests: the service as its users meet it, on real Redis processes of each test's own.
//!
//! One binary, so that there is one link step. One file per behaviour; `helpers` has what they share.

#![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

mod access;

mod adopt;
mod architecture;
mod batch;
mod check;
mod clock;
mod cluster;
mod cors;
mod data_window;
mod demo;
mod deploy;
mod docs;
mod documents;
mod embedded;
mod export;
mod faults;
mod helpers;
mod histogram;
mod history;
mod host;
mod import;
mod jwt;
mod limits;
mod lists;
mod max_lists;
mod max_segments;
mod metrics;
mod model;
mod openapi;
mod outage;
mod overlap;
mod pages;
mod paths;
mod probes;
mod problems;
mod prune;
mod redis_access;
mod redis_tls;
mod repartition;
mod restore;
mod rounds;
mod scan;
mod sentinel;
mod settings;
mod shared_redis;
mod shutdown;
mod supply_chain;
mod tls;
mod traces;
mod users;
mod visits;
mod window;
mod write_acks;
