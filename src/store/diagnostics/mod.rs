//! Diagnostics: the properties of Redis that the service depends on, and the content of a data set.

mod eviction;
mod permissions;
mod resources;
mod server;
mod survey;

pub use self::eviction::{Eviction, EvictionPolicy};
pub use self::permissions::Permissions;
pub use self::resources::Resources;
pub use self::server::{HiddenSettings, Server};
pub use self::survey::{Survey, list_first};
