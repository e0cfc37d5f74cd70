//! `[guard]`: what failed logins have as a consequence, and how many connections may be open that have not logged in.

use serde::Deserialize;

use super::network::{self, Network};
use super::{flag, number};

/// Whom the guard watches, and what strangers may have open.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Guard {
    /// Whether networks with many failed logins are slowed down and banned.
    #[serde(deserialize_with = "flag::flag")]
    pub enabled: bool,
    /// Networks that nothing is held against and whose connections are not counted.
    #[serde(deserialize_with = "network::list")]
    pub exempt: Vec<Network>,
    /// Connections that have not logged in, in all.
    #[serde(deserialize_with = "number::within::<_, _, 4, 1_000_000>")]
    pub unauthenticated: usize,
    /// The same from one IPv4 address or IPv6 /64.
    #[serde(deserialize_with = "number::within::<_, _, 1, 1_000_000>")]
    pub per_address: usize,
    /// The same from one IPv4 /24 or IPv6 /48.
    #[serde(deserialize_with = "number::within::<_, _, 1, 1_000_000>")]
    pub per_network: usize,
    /// TLS handshakes under way at a time.
    #[serde(deserialize_with = "number::within::<_, _, 4, 100_000>")]
    pub handshakes: usize,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            enabled: true,
            exempt: Network::loopback(),
            unauthenticated: 2048,
            per_address: 16,
            per_network: 64,
            handshakes: 512,
        }
    }
}
