//! Networks of addresses, such as "10.0.0.0/8".

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use super::text;
use crate::policy;

/// Addresses that begin alike, or a single one; never all there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network(policy::Network);

impl Network {
    /// This machine itself.
    pub(super) fn loopback() -> Vec<Self> {
        let v4 = IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8);
        let v6 = IpNet::from(IpAddr::V6(Ipv6Addr::LOCALHOST));
        vec![Self(v4.into()), Self(v6.into())]
    }

    /// Whether `address` is in it; IPv4 in IPv6 form counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Network {
    /// Why the text is not a network, and the text to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network: policy::Network = text.parse()?;
        if network.prefix_len() == 0 {
            return Err(format!(
                "{text:?} is everybody; name those that may speak for others"
            ));
        }
        Ok(Self(network))
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, "a network such as \"10.0.0.0/8\"", str::parse)
    }
}

/// Deserializes a list of networks.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Network>, D::Error> {
    deserializer.deserialize_seq(Networks)
}

struct Networks;

impl<'de> Visitor<'de> for Networks {
    type Value = Vec<Network>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of networks such as [\"10.0.0.0/8\"]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Network>, A::Error> {
        let mut networks = Vec::new();
        while let Some(network) = list.next_element()? {
            networks.push(network);
        }
        Ok(networks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_like_it() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("2001:db8::/32", "2001:db8::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
            ("::ffff:127.0.0.0/104", "127.1.2.3", "128.0.0.1"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn what_is_no_network_says_how_to_write_it() {
        for (text, remedy) in [
            ("10.0.0.1/8", "write \"10.0.0.0/8\""),
            ("10/8", "write it as"),
            ("proxy.example", "write it as"),
            ("0.0.0.0/0", "name those"),
            ("::ffff:0:0/96", "name those"),
            ("::/64", "holds all of IPv4"),
            ("::/0", "name those"),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }
}
