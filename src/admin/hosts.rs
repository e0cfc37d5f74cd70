//! The names by which a listener may be asked. A browser that a page had look its own name up anew
//! (DNS rebinding) still sends that name, and gets nothing.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use axum::extract::Request;
use axum::http::uri::Authority;

use crate::log::Throttle;
use crate::net::listener::Neighbour;

use super::gate::{named_host, neighbour, place};
use super::problem::{Code, Problem};

/// The longest value of a refused header that is repeated, in octets.
const REPEATED: usize = 255;

/// The names of one listener.
#[derive(Debug)]
pub struct Hosts {
    /// In their [`normal`] form. Loopback's names and addresses are allowed besides.
    names: Vec<String>,
    /// Whether the listener has every address of this machine, so that each is a name.
    all_addresses: bool,
    /// The configuration's key for further names.
    key: &'static str,
}

impl Hosts {
    /// For a listener on `address`, these `names` besides the address and the names of loopback.
    /// `key` is where the configuration has such names.
    pub fn new(
        address: Option<IpAddr>,
        names: impl IntoIterator<Item = String>,
        key: &'static str,
    ) -> Hosts {
        let own = address.map(|address| address.to_string());
        let names = names.into_iter().chain(own);
        Hosts {
            names: names.map(|name| normal(&name)).collect(),
            all_addresses: address.is_some_and(|address| address.is_unspecified()),
            key,
        }
    }

    /// The request must be for one of these names. Over the unix socket it may be for any.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        match neighbour(request)? {
            Neighbour::Unix { .. } => Ok(()),
            Neighbour::Tcp(_) => self.check_name(request, "Host", &named_host(request)?),
        }
    }

    /// The name that `header` holds must be one of these.
    pub(super) fn check_name(
        &self,
        request: &Request,
        header: &'static str,
        host: &Authority,
    ) -> Result<(), Problem> {
        let name = normal(host.host());
        // No DNS server answers for an address.
        let is_own_address = self.all_addresses && name.parse::<IpAddr>().is_ok();
        if is_own_address || is_loopback(&name) || self.names.contains(&name) {
            return Ok(());
        }
        let others = self.names.iter().filter(|name| !is_loopback(name));
        let others: String = others
            .map(|name| format!(", {}", bracketed(name)))
            .collect();
        Err(refuse(
            request,
            Code::ForeignHost,
            header,
            host.as_str().as_bytes(),
            &format!(
                "allowed are localhost, loopback addresses{others}; if this Gatepost has that name, add it to {}",
                self.key
            ),
        ))
    }
}

/// Tells the caller and the log which header refuses the request, its value and the allowed values.
pub(super) fn refuse(
    request: &Request,
    code: Code,
    header: &'static str,
    value: &[u8],
    remedy: &str,
) -> Problem {
    static REFUSED: Throttle = Throttle::new();
    let end = value.len().min(REPEATED);
    let value = value[..end].escape_ascii().to_string();
    if let Some(count) = REFUSED.due_for(&(header, &value)) {
        tracing::warn!(
            target: "gatepost::admin",
            from = %place(request),
            header,
            value,
            count,
            "request refused: {remedy}"
        );
    }
    Problem::new(code, format!("{header}: \"{value}\": {remedy}"))
}

/// A name, or an address as it stands in Host.
pub(super) fn bracketed(name: &str) -> Cow<'_, str> {
    match name.parse::<Ipv6Addr>() {
        Ok(address) => Cow::Owned(format!("[{address}]")),
        Err(_) => Cow::Borrowed(name),
    }
}

/// A name or an address in the one form in which names are compared.
pub(super) fn normal(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let bare = bare(&host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().to_string(),
        Err(_) => bare.to_owned(),
    }
}

/// Whether a name in its [`normal`] form is this machine's alone.
pub(super) fn is_loopback(name: &str) -> bool {
    let address = name.parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
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
    fn an_address_has_one_form() {
        for one in ["[2001:DB8:0::1]", "[IPv6:2001:db8::1]", "2001:db8:0:0::1"] {
            assert_eq!(normal(one), "2001:db8::1", "{one}");
        }
        assert_eq!(normal("Mail.Example.ORG"), "mail.example.org");
        assert!(is_loopback(&normal("[::ffff:127.0.0.1]")));
    }

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
