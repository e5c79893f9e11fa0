//! What Redis says of itself, and whether the service can work with it.

mod eviction;
mod permissions;
mod server;
mod survey;

pub use self::eviction::{Eviction, EvictionPolicy};
pub use self::permissions::Permissions;
pub use self::server::Server;
pub use self::survey::{Survey, some_of};
