//! Free TCP ports.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The range ends below the ephemeral ports of the system. No outgoing connection takes the port of a server that
/// restarts.
const FIRST: u16 = 10_000;

const PORTS: u16 = 20_000;

/// Returns a TCP port without a listener. No other test of this process gets the same one.
pub fn free_port() -> String {
    // A random start, since test processes that run side by side share the range.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..PORTS)));
    let ports = (0..PORTS).map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS);
    let free = ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("some port is free").to_string()
}
