//! Resolvers: where the address of a server comes from.

use std::fmt;
use std::future::ready;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::{Error, RedisUrl};

/// Resolves the address of a server each time a connection is made.
pub(crate) trait Resolver: fmt::Display + Send + Sync {
    /// Returns the address to connect to.
    ///
    /// # Errors
    ///
    /// An [`Error`] if the address isn't found within `timeout`.
    fn resolve(&self, timeout: Duration) -> BoxFuture<'_, Result<RedisUrl, Error>>;

    /// Returns whether the address is no longer the one that was resolved last; `false` if that isn't known within
    /// `timeout`.
    fn has_moved(&self, timeout: Duration) -> BoxFuture<'_, bool> {
        let _ = timeout;
        ready(false).boxed()
    }

    /// Returns the address that was resolved last.
    fn address(&self) -> Option<String>;

    /// Whether there are other servers, so that errors must name this one.
    fn is_one_of_several(&self) -> bool;
}

/// A server whose address never changes.
pub(crate) struct FixedAddress {
    url: RedisUrl,
    is_one_of_several: bool,
}

impl FixedAddress {
    /// Returns the address of the only server.
    pub(crate) fn only(url: RedisUrl) -> Self {
        Self { url, is_one_of_several: false }
    }

    /// Returns the address of one of several servers.
    pub(crate) fn one_of_several(url: RedisUrl) -> Self {
        Self { url, is_one_of_several: true }
    }
}

impl Resolver for FixedAddress {
    fn resolve(&self, _: Duration) -> BoxFuture<'_, Result<RedisUrl, Error>> {
        ready(Ok(self.url.clone())).boxed()
    }

    fn address(&self) -> Option<String> {
        Some(self.url.to_string())
    }

    fn is_one_of_several(&self) -> bool {
        self.is_one_of_several
    }
}

impl fmt::Display for FixedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}
