//! The handlers of the JSON API: a file for each resource.

pub mod batch;
pub mod health;
pub mod histogram;
pub mod history;
pub mod lists;
pub mod metrics;
pub mod overlap;
pub mod segments;
pub mod users;
