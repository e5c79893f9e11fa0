//! What handlers take out of a request.

pub mod auth;
pub mod body;
mod gunzip;
pub mod prefer;
pub mod query;
