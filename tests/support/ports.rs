//! Free loopback ports that stay free until a daemon binds them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's ephemeral range (32768 and up): a port handed out here cannot be taken by some
/// outgoing connection of a parallel test between the choice and the daemon's bind.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address on 127.0.0.1 nobody listens on and no other test of this run is given.
pub fn free_address() -> SocketAddr {
    // Two runs on one machine start at different places.
    let start = std::process::id() % 200 * 97;
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u32::from(FIRST) + (start + step) % u32::from(COUNT);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
