//! Free loopback ports that stay free until a daemon binds them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's ephemeral range (32768 and up): a port handed out here cannot be taken by some
/// outgoing connection of a parallel test between the choice and the daemon's bind.
const FIRST: u16 = 12_000;

/// A run of the suite has a block of ports for itself, large enough that none is given out twice.
const BLOCKS: u16 = 10;
const BLOCK: u16 = 2_000;

/// The first port of this run's block, which is kept bound: another run on the same machine sees
/// by that whose the block is.
static OWN: LazyLock<(u16, TcpListener)> = LazyLock::new(|| {
    let mut firsts = (0..BLOCKS).map(|block| FIRST + block * BLOCK);
    let own = firsts.find_map(|first| Some((first, TcpListener::bind(loopback(first)).ok()?)));
    own.expect("a block of ports that no other run has")
});

static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address on 127.0.0.1 nobody listens on and no other test is given.
pub fn free_address() -> SocketAddr {
    for _ in 1..BLOCK {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % (BLOCK - 1);
        let address = loopback(OWN.0 + 1 + step);
        // Not asked by binding it: a process that another thread starts at that moment keeps the port bound until it has
        // closed what it was born with.
        if TcpStream::connect(address).is_err() {
            return address;
        }
    }
    panic!("no free port among the {BLOCK} from {} on", OWN.0);
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
