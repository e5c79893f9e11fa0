//! `POST /segments/batch`: records many visits in one request, as a JSON array or as a stream of lines.

pub mod array;
mod handler;
pub mod problems;

pub use self::handler::{__path_record, record};
