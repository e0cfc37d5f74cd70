//! Where the MTA is reached: addresses, host names and unix sockets.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::hostname::is_domain;
use super::{Endpoint, text};

/// An address, or a name that has to be looked up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// As it is connected to.
    Endpoint(Endpoint),
    /// Whatever addresses a host has at the time.
    Name {
        /// The host's name.
        host: String,
        /// The port at all of its addresses.
        port: u16,
    },
}

impl Target {
    /// Whether what is sent there leaves this machine, as far as the text tells.
    pub fn is_far(&self) -> bool {
        match self {
            Self::Endpoint(Endpoint::Tcp(address)) => !address.ip().to_canonical().is_loopback(),
            Self::Endpoint(Endpoint::Unix(_)) => false,
            // RFC 6761 section 6.3.
            Self::Name { host, .. } => !host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Target {
    /// What is wrong with the text, and how to write it instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let target = match name_and_port(text) {
            Some((host, port)) => Self::Name {
                host: host.to_owned(),
                port,
            },
            None => Self::Endpoint(text.parse().map_err(|error| explain(text, error))?),
        };
        // To listen on port 0 means any port; to connect to it means nothing.
        match &target {
            Self::Name { port: 0, .. } => Err(port_0(&target)),
            Self::Endpoint(Endpoint::Tcp(address)) if address.port() == 0 => Err(port_0(&target)),
            _ => Ok(target),
        }
    }
}

fn port_0(target: &Target) -> String {
    format!("{target} has port 0; use the port on which the MTA listens")
}

/// An address alone is explained by its own parser, which knows of no names.
fn explain(text: &str, error: String) -> String {
    let is_path = text.starts_with('/') || text.starts_with("unix:");
    let is_address = text.starts_with('[') || text.parse::<IpAddr>().is_ok();
    if is_path || is_address || !text.contains(|c: char| c.is_ascii_alphabetic()) {
        return error;
    }
    match text.rsplit_once(':') {
        None if is_domain(text) => format!("{text:?} has no port; write \"{text}:PORT\""),
        Some((host, port)) if is_domain(host) => {
            format!("{port:?} is not a port; write \"{host}:PORT\" with one from 1 to 65535")
        }
        _ => format!("{text:?} is not a host name with a port; write \"NAME:PORT\""),
    }
}

/// A name has a letter in it, or nobody could tell it from an address with a slip.
fn name_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // With a final dot, no search list of the resolver applies.
    let is_name = is_domain(host.strip_suffix('.').unwrap_or(host))
        && host.contains(|c: char| c.is_ascii_alphabetic());
    is_name.then_some((host, port.parse().ok()?))
}

const EXPECTED: &str = "an address such as \"127.0.0.1:10025\", \"mail.example.org:25\" or \"unix:/path\", or a list of them,";

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, EXPECTED, str::parse)
    }
}

/// Places of one and the same service, all different.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Targets(Vec<Target>);

impl Targets {
    /// Whether none was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, in the order in which they are written.
    pub fn iter(&self) -> impl Iterator<Item = &Target> {
        self.0.iter()
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.0.iter().map(Target::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TargetsVisitor).map(Self)
    }
}

struct TargetsVisitor;

impl<'de> Visitor<'de> for TargetsVisitor {
    type Value = Vec<Target>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Target>, E> {
        Ok(vec![text.parse().map_err(E::custom)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Target>, A::Error> {
        let mut all: Vec<Target> = Vec::new();
        while let Some(target) = list.next_element()? {
            if all.contains(&target) {
                let message = format!("{target} is listed twice; once will do");
                return Err(A::Error::custom(message));
            }
            all.push(target);
        }
        match all.is_empty() {
            true => Err(A::Error::custom(
                "the list is empty; write the address of the MTA",
            )),
            false => Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart_and_written_as_they_are_read() {
        for (text, is_name) in [
            ("mail.example.org:25", true),
            ("postfix:10025", true),
            ("mail.example.org.:25", true),
            ("127.0.0.1:10025", false),
            ("[::1]:10025", false),
            ("unix:/run/mta", false),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
            assert_eq!(matches!(target, Target::Name { .. }), is_name, "{text}");
        }
    }

    #[test]
    fn a_bad_target_says_how_to_write_it() {
        for (text, remedy) in [
            ("mail.example.org", "\"mail.example.org:PORT\""),
            ("mail.example.org:", "is not a port"),
            ("mail.example.org:99999", "is not a port"),
            ("2001:db8::1", "\"[2001:db8::1]:PORT\""),
            ("mail..org:25", "\"NAME:PORT\""),
            ("192.0.2.300:25", "IP:PORT"),
            ("192.0.2.3", "\"192.0.2.3:PORT\""),
            ("mail.example.org:0", "has port 0"),
            ("127.0.0.1:0", "has port 0"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }

    #[test]
    fn only_what_stays_on_this_machine_is_near() {
        for (text, is_far) in [
            ("localhost:25", false),
            ("127.1.2.3:25", false),
            ("[::1]:25", false),
            ("[::ffff:127.0.0.1]:25", false),
            ("unix:/run/mta", false),
            ("192.0.2.1:25", true),
            ("localhost.example.org:25", true),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().is_far(), is_far, "{text}");
        }
    }
}
