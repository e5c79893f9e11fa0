//! TCP ports for servers of the tests' own.

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first of the ports that are given out. They end before those that systems give to connections: a server that is started
/// again finds its port free.
const FIRST: u16 = 10_000;

/// How many there are.
const PORTS: u16 = 20_000;

/// A TCP port that nobody listens on at the moment, and that no other test of this process gets.
pub fn free_port() -> String {
    // Tests of other processes begin elsewhere.
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..PORTS)));
    let ports = (0..PORTS).map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS);
    let free = ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("some port is free").to_string()
}
