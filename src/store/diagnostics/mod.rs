//! Diagnostics: the properties of Redis that the service depends on, and the content of a data set.

mod engine;
mod eviction;
mod hidden_settings;
mod permissions;
mod resources;
mod sampled_segments;
mod server;
mod survey;

pub use self::eviction::{Eviction, EvictionPolicy};
pub use self::hidden_settings::HiddenSettings;
pub use self::permissions::Permissions;
pub use self::resources::Resources;
pub use self::sampled_segments::SampledSegments;
pub use self::server::Server;
pub use self::survey::{Survey, list_first};
