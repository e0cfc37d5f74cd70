//! The names by which a listener may be asked. A browser that a page had look its own name up anew
//! (DNS rebinding) still sends that name, and gets nothing.

use std::net::IpAddr;

use axum::extract::Request;

use crate::net::listener::Neighbour;

use super::gate::{host, neighbour};
use super::problem::{Code, Problem};

/// The names of one listener.
#[derive(Debug)]
pub struct Hosts {
    /// Lower case; loopback's names and every loopback address are allowed anyhow.
    names: Vec<String>,
    /// Whether it listens on every address of this machine, and so is asked by any.
    all_addresses: bool,
    /// The configuration's key for further names.
    key: &'static str,
}

impl Hosts {
    /// For a listener on `address`, these `names` besides it and those of loopback. `key` is where
    /// the configuration has such names.
    pub fn new(
        address: Option<IpAddr>,
        names: impl IntoIterator<Item = String>,
        key: &'static str,
    ) -> Hosts {
        let own = address.map(|address| address.to_string());
        let names = names.into_iter().chain(own);
        Hosts {
            names: names
                .map(|name| bare(&name.to_ascii_lowercase()).to_owned())
                .collect(),
            all_addresses: address.is_some_and(|address| address.is_unspecified()),
            key,
        }
    }

    /// The request must be for one of these names. Over the unix socket it may be for any.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        if !matches!(neighbour(request)?, Neighbour::Tcp(_)) {
            return Ok(());
        }
        let host = host(request)?;
        let name = host.host().to_ascii_lowercase();
        let bare = bare(&name);
        let address: Option<IpAddr> = bare.parse().ok();
        // No DNS server answers for an address.
        let is_address = address
            .is_some_and(|address| self.all_addresses || address.to_canonical().is_loopback());
        if is_address || name == "localhost" || self.names.iter().any(|own| own == bare) {
            return Ok(());
        }
        Err(Problem::new(
            Code::ForeignHost,
            format!(
                "{name:?} is not a name of this Gatepost; if it should be, add it to {}",
                self.key
            ),
        ))
    }
}

/// An address without the brackets that it has in URLs, or in SMTP with "IPv6:".
fn bare(host: &str) -> &str {
    let literal = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let literal = literal.map(|inner| inner.strip_prefix("ipv6:").unwrap_or(inner));
    literal.unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::Body;

    use super::*;

    #[test]
    fn a_listener_is_asked_by_its_own_names_and_addresses_alone() {
        let names = || ["mail.example.org", "[ipv6:2001:db8::7]"].map(str::to_owned);
        for (listen, host, is_own) in [
            ("127.0.0.1", "localhost:9587", true),
            ("127.0.0.1", "127.0.0.9", true),
            ("127.0.0.1", "[::1]:9587", true),
            ("127.0.0.1", "Mail.Example.Org:9587", true),
            ("127.0.0.1", "[2001:db8::7]:9587", true),
            ("127.0.0.1", "192.0.2.7:9587", false),
            ("192.0.2.7", "192.0.2.7:9587", true),
            ("0.0.0.0", "192.0.2.7:9587", true),
            ("::", "[2001:db8::8]", true),
            ("0.0.0.0", "rebound.example.test:9587", false),
            ("127.0.0.1", "127.0.0.1.example.test", false),
        ] {
            let hosts = Hosts::new(Some(listen.parse().unwrap()), names(), "metrics.hosts");
            let mut request = Request::builder().header("host", host).body(Body::empty());
            let peer = Neighbour::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
            request.as_mut().unwrap().extensions_mut().insert(peer);
            let checked = hosts.check(&request.unwrap());
            assert_eq!(checked.is_ok(), is_own, "{host} at {listen}");
        }
    }
}
