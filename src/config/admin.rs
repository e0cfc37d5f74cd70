//! `[admin]`: where the administration is served, and under which names.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::{Hostname, address, flag};

/// Where the administration listens; either, both or none.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// A unix socket, whose mode and group say who may use it.
    #[serde(default, deserialize_with = "address::optional_unix_path")]
    pub socket: Option<PathBuf>,
    /// A TCP address, for requests that carry a token.
    #[serde(default, deserialize_with = "address::optional_socket_address")]
    pub listen: Option<SocketAddr>,
    /// Whether the TCP address speaks TLS, with the certificate of `[tls]`.
    #[serde(default, deserialize_with = "flag::flag")]
    pub tls: bool,
    /// Names that may stand in the URL, besides loopback, the address itself and `hostname`.
    #[serde(default, deserialize_with = "names")]
    pub hosts: Vec<Hostname>,
}

/// Deserializes a list of names; the environment, which knows text only, puts commas between.
pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hostname>, D::Error> {
    deserializer.deserialize_any(Names)
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Vec<Hostname>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of host names such as [\"admin.example.org\"]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Hostname>, A::Error> {
        let mut names = Vec::new();
        while let Some(name) = list.next_element()? {
            names.push(name);
        }
        Ok(names)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Hostname>, E> {
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        names.map(|name| name.parse().map_err(E::custom)).collect()
    }
}
