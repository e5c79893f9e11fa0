//! What surrounds the handlers: each endpoint, and the router as a whole.

pub mod answer;
pub mod cors;
pub mod endpoint;
pub mod request_id;
pub mod trace;
