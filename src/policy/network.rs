//! Networks of addresses, in a single notation for rules, the guard and the configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// The IPv6 form of IPv4 addresses (RFC 4291, section 2.5.5.2): `::ffff:0:0/96`.
const MAPPED: Ipv6Addr = Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
const MAPPED_LENGTH: u8 = 96;

/// The longest part of a text that an error quotes.
const QUOTED: usize = 64;

/// A network or a single address. Mapped IPv4 counts as IPv4, as for client addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the network contains `address`; mapped IPv4 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether the network contains all of `other`.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// Returns the first address.
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// Returns the number of bits shared by all addresses.
    pub fn prefix_len(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether the network is a single address.
    pub fn is_single(&self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// Parses a network from the store. Older versions stored networks that match no client; such a
    /// row must not make its credential unreadable.
    pub(super) fn stored(text: &str) -> Result<Self, String> {
        text.parse().or_else(|error| match text.parse::<IpNet>() {
            Ok(network) if network == network.trunc() => Ok(Self(network)),
            _ => Err(error),
        })
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl From<IpNet> for Network {
    fn from(network: IpNet) -> Self {
        Self(canonical(network.trunc()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_single() {
            true => self.0.addr().fmt(f),
            false => self.0.fmt(f),
        }
    }
}

impl FromStr for Network {
    /// The fault of the text, with the text to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::from(address));
        }
        let quoted: String = text.chars().take(QUOTED).collect();
        let Ok(written) = text.parse::<IpNet>() else {
            return Err(format!(
                "{quoted:?} is not a network; write it as \"192.0.2.7\" or \"10.0.0.0/8\""
            ));
        };
        let network = canonical(written.trunc());
        if holds_all_of_ipv4(network) {
            return Err(format!(
                "{quoted:?} holds all of IPv4 in its IPv6 form; name IPv4 networks as \"10.0.0.0/8\", all of IPv4 as \
                 \"0.0.0.0/0\" and all of IPv6 as \"::/0\""
            ));
        }
        if written != written.trunc() {
            return Err(format!(
                "{quoted:?} has bits behind its prefix; write \"{network}\""
            ));
        }
        Ok(Self(network))
    }
}

/// Converts a network of mapped addresses to IPv4.
fn canonical(network: IpNet) -> IpNet {
    let (IpAddr::V6(address), length) = (network.addr(), network.prefix_len()) else {
        return network;
    };
    let v4 = address.to_ipv4_mapped();
    let v4 = v4.zip(length.checked_sub(MAPPED_LENGTH));
    let v4 = v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    v4.map_or(network, IpNet::V4)
}

/// Whether an IPv6 network other than `::/0` contains the mapped addresses. Client addresses never
/// have that form, so the network would not match the IPv4 addresses that it seems to contain.
fn holds_all_of_ipv4(network: IpNet) -> bool {
    let length = network.prefix_len();
    (1..MAPPED_LENGTH).contains(&length) && network.contains(&IpAddr::V6(MAPPED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_has_one_form_and_contains_its_addresses() {
        for (written, form, inside, outside) in [
            ("10.0.0.0/8", "10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/8", "10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.7", "192.0.2.8"),
            (
                "2001:db8::/32",
                "2001:db8::/32",
                "2001:db8::1",
                "2001:db9::1",
            ),
            ("::1", "::1", "::1", "127.0.0.1"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("::ffff:c000:207/128", "192.0.2.7", "192.0.2.7", "::1"),
            (
                "::ffff:127.0.0.0/104",
                "127.0.0.0/8",
                "127.1.2.3",
                "128.0.0.1",
            ),
            ("::ffff:0:0/96", "0.0.0.0/0", "192.0.2.7", "2001:db8::1"),
            ("0.0.0.0/0", "0.0.0.0/0", "::ffff:192.0.2.7", "::1"),
            ("::/0", "::/0", "2001:db8::1", "192.0.2.7"),
            ("::/96", "::/96", "::1", "::ffff:192.0.2.7"),
        ] {
            let network: Network = written.parse().unwrap();
            assert_eq!(network.to_string(), form, "{written}");
            assert!(network.contains(inside.parse().unwrap()), "{written}");
            assert!(!network.contains(outside.parse().unwrap()), "{written}");
            assert_eq!(form.parse(), Ok(network));
        }
    }

    #[test]
    fn error_of_a_malformed_network_shows_the_right_form() {
        for (text, remedy) in [
            ("", "write it as"),
            ("10/8", "write it as"),
            ("10.0.0.0/33", "write it as"),
            ("::/129", "write it as"),
            ("10.0.0.0/", "write it as"),
            (" 10.0.0.0/8", "write it as"),
            ("proxy.example", "write it as"),
            ("10.0.0.1/8", "write \"10.0.0.0/8\""),
            ("0.0.0.1/0", "write \"0.0.0.0/0\""),
            ("2001:db8::1/32", "write \"2001:db8::/32\""),
            ("::ffff:10.0.0.1/104", "write \"10.0.0.0/8\""),
            ("::/1", "as \"10.0.0.0/8\""),
            ("::/64", "as \"10.0.0.0/8\""),
            ("::ffff:0:0/95", "as \"10.0.0.0/8\""),
            ("::ffff:10.0.0.0/88", "as \"10.0.0.0/8\""),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(remedy), "{text}: {error}");
        }
        let long = format!("{}/8", "1".repeat(1000));
        assert!(long.parse::<Network>().unwrap_err().len() < 200);
    }

    #[test]
    fn stored_network_without_clients_stays_readable() {
        let stored = Network::stored("::/64").unwrap();
        assert!(!stored.contains("192.0.2.7".parse().unwrap()));
        let mapped = Network::stored("::ffff:127.0.0.0/104").unwrap();
        assert_eq!(mapped.to_string(), "127.0.0.0/8");
        assert!(Network::stored("10.0.0.1/8").is_err());
    }
}
