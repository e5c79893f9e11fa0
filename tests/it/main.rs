//! Integration tests: the service as its users meet it, on real Redis processes of each test's own.
//!
//! One binary, so that there is one link step. A folder per subject; `helpers` has what the tests share.

#![allow(clippy::unwrap_used, reason = "a panic is the failure report")]

mod api;
mod commands;
mod contracts;
mod faults;
mod helpers;
mod operations;
mod store;
