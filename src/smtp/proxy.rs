//! The PROXY header for an upstream, sent before anything else (HAProxy's proxy-protocol.txt). The
//! header carries addresses only: no name and no username.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader};

use super::xclient::Client;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    V2,
}

/// Builds the header for a client's session.
pub fn header(client: &Client, version: Version) -> Vec<u8> {
    let (source, destination) = one_family(client.address, client.destination);
    let addresses = ProxiedAddress::stream(source, destination);
    encode(&ProxyHeader::with_address(addresses), version)
}

/// Builds the header for Gatepost's own session, such as a probe.
pub fn local_header(version: Version) -> Vec<u8> {
    match version {
        // Postfix does not support `PROXY UNKNOWN`, so the header names the loopback address.
        Version::V1 => b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n".to_vec(),
        Version::V2 => encode(&ProxyHeader::with_local(), version),
    }
}

fn encode(header: &ProxyHeader, version: Version) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    // Writing to a Vec cannot fail, and a header without extensions always fits.
    let _ = match version {
        Version::V1 => header.encode_v1(&mut out),
        Version::V2 => header.encode_v2(&mut out),
    };
    out
}

/// Converts both addresses to IPv4 if possible, or else to IPv6: a header has a single family.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (source, destination) = (canonical(source), canonical(destination));
    if source.is_ipv4() == destination.is_ipv4() {
        return (source, destination);
    }
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (wide(source), wide(destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str, destination: &str) -> Client {
        Client {
            address: address.parse().unwrap(),
            destination: destination.parse().unwrap(),
            helo: "client.test".into(),
            login: "smtp_x".into(),
        }
    }

    fn text(address: &str, destination: &str) -> String {
        let header = header(&client(address, destination), Version::V1);
        String::from_utf8(header).unwrap()
    }

    #[test]
    fn a_line_names_both_ends() {
        assert_eq!(
            text("203.0.113.7:40000", "192.0.2.1:587"),
            "PROXY TCP4 203.0.113.7 192.0.2.1 40000 587\r\n"
        );
        assert_eq!(
            text("[2001:db8::7]:40000", "[2001:db8::1]:587"),
            "PROXY TCP6 2001:db8::7 2001:db8::1 40000 587\r\n"
        );
    }

    #[test]
    fn ipv4_inside_ipv6_is_ipv4_unless_the_other_end_is_not() {
        assert_eq!(
            text("[::ffff:203.0.113.7]:40000", "[::ffff:192.0.2.1]:587"),
            "PROXY TCP4 203.0.113.7 192.0.2.1 40000 587\r\n"
        );
        assert_eq!(
            text("203.0.113.7:40000", "[2001:db8::1]:587"),
            "PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 40000 587\r\n"
        );
    }

    #[test]
    fn the_binary_form_reads_back() {
        let header = header(&client("203.0.113.7:40000", "192.0.2.1:587"), Version::V2);
        let (read, length) = ProxyHeader::parse(&header, Default::default()).unwrap();
        assert_eq!(length, header.len());
        let addresses = read.proxied_address().unwrap();
        assert_eq!(addresses.source, "203.0.113.7:40000".parse().unwrap());
        assert_eq!(addresses.destination, "192.0.2.1:587".parse().unwrap());
    }

    #[test]
    fn own_sessions_carry_no_client_address() {
        let header = local_header(Version::V1);
        let (read, _) = ProxyHeader::parse(&header, Default::default()).unwrap();
        assert!(read.proxied_address().unwrap().source.ip().is_loopback());
        let header = local_header(Version::V2);
        let (read, _) = ProxyHeader::parse(&header, Default::default()).unwrap();
        assert_eq!(read.proxied_address(), None);
    }
}
