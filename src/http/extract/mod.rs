//! Extractors: typed parts of a request.

pub mod auth;
pub mod body;
mod gunzip;
pub mod if_none_match;
pub mod list;
pub mod password;
pub mod path;
pub mod prefer;
pub mod query;
pub mod scope;
pub mod time;
