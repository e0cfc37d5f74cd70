//! The client whose claim is verified.

use std::net::IpAddr;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// The TLS version; `None` without TLS.
    pub tls: Option<&'static str>,
    /// The client's name in EHLO.
    pub helo: Arc<str>,
}
