//! Window and time of an answer.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{Timestamp, Window};

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
    pub fn new(window: Window, now: Timestamp) -> Self {
        Self { window_seconds: window.as_secs(), as_of: now.to_string() }
    }
}
