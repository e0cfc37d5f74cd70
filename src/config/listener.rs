//! `[[listener]]`: where clients are awaited.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::{Network, address, network, text};

/// One socket for clients.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// When TLS begins.
    pub kind: ListenerKind,
    /// Where to listen; `[::]` takes IPv6 only.
    #[serde(deserialize_with = "address::socket_address")]
    pub address: SocketAddr,
    /// Whose connections begin with a PROXY header, which says who the client is.
    #[serde(default, deserialize_with = "network::list")]
    pub proxy_from: Vec<Network>,
}

impl Listener {
    /// Whether whoever has this address speaks for others.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxy_from
            .iter()
            .any(|network| network.contains(address))
    }
}

/// As log lines name it.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.address)
    }
}

/// The two ways of submission (RFC 8314 section 3.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListenerKind {
    /// Plain text first, TLS after STARTTLS; port 587.
    Submission,
    /// TLS from the first byte; port 465.
    Submissions,
}

impl FromStr for ListenerKind {
    /// What is wrong with the text, and what to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "submission" => Ok(Self::Submission),
            "submissions" => Ok(Self::Submissions),
            _ => Err(format!("unknown value {text:?}; use {KINDS}")),
        }
    }
}

impl fmt::Display for ListenerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Submission => "submission",
            Self::Submissions => "submissions",
        })
    }
}

const KINDS: &str = "\"submission\" (STARTTLS) or \"submissions\" (implicit TLS)";

impl<'de> Deserialize<'de> for ListenerKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, KINDS, str::parse)
    }
}

/// Deserializes all listeners, with a hint for whoever wrote `[listener]`.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listener>, D::Error> {
    deserializer.deserialize_seq(ListVisitor)
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = Vec<Listener>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[[listener]] in double brackets, once for each address,")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, listeners: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(listeners))
    }
}
