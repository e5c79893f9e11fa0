//! Handlers of the API, a file per resource.

mod accuracy;
mod as_of;
pub mod audience;
mod audit;
pub mod batch;
mod change;
pub mod count;
pub mod counts;
pub mod delete_segment;
pub mod health;
pub mod histogram;
pub mod histories;
pub mod history;
mod key_metrics;
pub mod members;
pub mod metrics;
pub mod overlap;
pub mod pictures;
pub mod remove_user;
pub mod segments;
pub mod summary;
pub mod users;
pub mod visits;
