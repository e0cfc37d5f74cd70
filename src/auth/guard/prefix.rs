//! The prefixes that failures are counted by: the client and the network around the client.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::policy;

/// The bits before an IPv4 address in IPv6 form.
const MAPPED: u8 = 96;

const LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A client (an IPv4 address, or the IPv6 /64 of one subscriber) or the network around the client
/// (/24 or /48).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Prefix {
    /// In IPv6 form; IPv4 is mapped. The bits after the prefix are zero.
    octets: [u8; 16],
    /// Of the IPv6 form.
    length: u8,
}

impl Prefix {
    pub(crate) fn client(address: IpAddr) -> Self {
        Self::of(address, MAPPED + 32, 64)
    }

    pub(crate) fn network(address: IpAddr) -> Self {
        Self::of(address, MAPPED + 24, 48)
    }

    fn of(address: IpAddr, v4: u8, v6: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::cut(address.to_ipv6_mapped(), v4),
            IpAddr::V6(address) => Self::cut(address, v6),
        }
    }

    fn cut(address: Ipv6Addr, length: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Self {
            octets: (address.to_bits() & mask).to_be_bytes(),
            length,
        }
    }

    /// Whether the prefix is wider than one client.
    pub(crate) fn is_network(self) -> bool {
        match self.address() {
            IpAddr::V4(_) => self.length < MAPPED + 32,
            IpAddr::V6(_) => self.length < 64,
        }
    }

    /// Whether the prefix stands for clients without a known address (0.0.0.0 and ::).
    pub(crate) fn is_unattributed(self) -> bool {
        self.address().is_unspecified()
    }

    /// Whether `other` lies in this prefix. No IPv6 prefix covers IPv4, although both have IPv6
    /// form.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.is_v4() == other.is_v4()
            && other.length >= self.length
            && Self::cut(other.octets.into(), self.length) == self
    }

    fn is_v4(self) -> bool {
        self.length >= MAPPED && matches!(self.address(), IpAddr::V4(_))
    }

    pub(crate) fn last(self) -> IpAddr {
        let host = u128::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
        let last = IpAddr::V6((u128::from_be_bytes(self.octets) | host).into());
        match self.length {
            MAPPED.. => last.to_canonical(),
            _ => last,
        }
    }

    pub(crate) fn address(self) -> IpAddr {
        let address = IpAddr::V6(self.octets.into());
        match self.length {
            MAPPED.. => address.to_canonical(),
            _ => address,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address();
        let length = match address {
            IpAddr::V4(_) => self.length - MAPPED,
            IpAddr::V6(_) => self.length,
        };
        write!(f, "{address}/{length}")
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidPrefix(String);

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    /// A single address means the client at the address.
    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        if let Ok(address) = text.parse() {
            return Ok(Self::client(address));
        }
        let own = [Self::client(LOOPBACK), Self::network(LOOPBACK)];
        if let Some(own) = own.into_iter().find(|own| own.to_string() == text) {
            return Ok(own); // as a rule it is refused, since it seems to hold IPv4
        }
        let network: policy::Network = text.parse().map_err(InvalidPrefix)?;
        Ok(match network.address() {
            IpAddr::V4(address) => {
                Self::cut(address.to_ipv6_mapped(), MAPPED + network.prefix_len())
            }
            IpAddr::V6(address) => Self::cut(address, network.prefix_len()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_and_its_network_are_cut_by_family() {
        for (address, client, network) in [
            ("203.0.113.7", "203.0.113.7/32", "203.0.113.0/24"),
            ("::ffff:203.0.113.7", "203.0.113.7/32", "203.0.113.0/24"),
            (
                "2001:db8:1:2:3:4:5:6",
                "2001:db8:1:2::/64",
                "2001:db8:1::/48",
            ),
            ("::1", "::/64", "::/48"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let (own, around) = (Prefix::client(address), Prefix::network(address));
            assert_eq!(own.to_string(), client);
            assert_eq!(around.to_string(), network);
            assert!(!own.is_network() && around.is_network());
            assert!(around.covers(own) && !own.covers(around) && own.covers(own));
            assert_eq!(
                (client.parse::<Prefix>().unwrap(), network.parse().unwrap()),
                (own, around)
            );
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "host",
            "10.0.0.1/33",
            "2001:db8::/129",
            "10/8",
            "1.2.3.4/",
            "10.0.0.1/8",
            "::ffff:0:0/90",
        ] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.covers("192.0.2.1".parse().unwrap()));
        assert!(!all.covers("2001:db8::1".parse().unwrap()));
        let all: Prefix = "::/0".parse().unwrap();
        assert!(all.covers("2001:db8::1".parse().unwrap()));
        assert!(!all.covers("192.0.2.1".parse().unwrap()));
        let loopback = Prefix::network("::1".parse().unwrap());
        assert!(!loopback.covers("192.0.2.1".parse().unwrap()));
        let mapped: Prefix = "::ffff:10.0.0.0/104".parse().unwrap();
        assert_eq!(mapped, "10.0.0.0/8".parse().unwrap());
    }
}
