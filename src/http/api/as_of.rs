//! Window and time of an answer.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{Timestamp, Window};
use crate::http::table::Cell;

/// Window and time of an answer, flattened into it.
#[derive(Serialize, ToSchema)]
pub struct AsOf {
    /// The length of the window.
    #[schema(minimum = 1)]
    window_seconds: u64,
    /// The time for which the answer is true, by the service's clock.
    #[schema(format = DateTime)]
    as_of: String,
}

impl AsOf {
    /// The names of the columns of [`Self::cells`].
    pub const COLUMNS: [&str; 2] = ["window_seconds", "as_of"];

    pub fn new(window: Window, now: Timestamp) -> Self {
        Self { window_seconds: window.as_secs(), as_of: now.to_string() }
    }

    /// Returns the time, in RFC 3339.
    pub fn as_of(&self) -> &str {
        &self.as_of
    }

    pub fn cells(&self) -> [Cell<'_>; 2] {
        [self.window_seconds.into(), self.as_of().into()]
    }
}
