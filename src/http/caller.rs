//! The key of the request that this thread is polling.
//!
//! An extractor of a handler's arguments finds the key, and the middleware around the handler counts its error responses.
//! Both run in the same poll. The request's extensions would cost each request a lookup in a map.

use std::cell::Cell;
use std::sync::Arc;

use crate::auth::KeyUsage;

thread_local! {
    static CALLER: Cell<Option<Arc<KeyUsage>>> = const { Cell::new(None) };
}

/// Sets the key of the request.
pub fn set(usage: Arc<KeyUsage>) {
    CALLER.set(Some(usage));
}

/// Takes the key that was set since the last call.
pub fn take() -> Option<Arc<KeyUsage>> {
    CALLER.take()
}
