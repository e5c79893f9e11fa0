//! The HTTP server: connections, their time limits, TLS, and the `Host` header.
//!
//! It speaks HTTP/1.1 only. hyper-util's detection of HTTP/2 has no timeout for the first bytes, so a client that sends
//! none would hold its connection forever. Behind a proxy HTTP/2 has no benefit.

mod connection;
mod head_timer;
mod host;
mod http2;
mod listener;
mod preface;
mod serve;
mod stream;
mod tls;

pub use self::host::AllowedHosts;
pub(super) use self::host::misdirected;
pub use self::serve::{ConnectionLimits, Server};
pub use self::tls::{Tls, TlsError, TlsFiles};
