//! Middleware: code around the router and around each handler.

pub mod answer;
pub mod compression;
pub mod cors;
pub mod endpoint;
pub mod request_id;
pub mod trace;
