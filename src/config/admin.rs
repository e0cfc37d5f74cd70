//! `[admin]`: where the administration is served, and under which names.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::{Hostname, Network, ProxyAuth, address, flag, section, text};

/// Where the administration listens; either, both or none. With no address, Gatepost serves the
/// sockets that the service manager hands in.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
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
    /// The path below which a reverse proxy has the administration; empty for none, else it begins
    /// with a slash and ends without one.
    #[serde(default, deserialize_with = "base_path")]
    pub base_path: String,
    /// Reverse proxies that are believed who the client is.
    #[serde(default, deserialize_with = "networks")]
    pub trusted_proxies: Vec<Network>,
    /// A unix socket for such a reverse proxy alone. Requests over it have no rights of their own.
    #[serde(default, deserialize_with = "address::optional_unix_path")]
    pub proxy_socket: Option<PathBuf>,
    /// How a reverse proxy says which person it has signed in, if it may.
    #[serde(default, deserialize_with = "section::optional")]
    pub proxy_auth: Option<ProxyAuth>,
}

/// The first parts of the administration's own paths. A base path that begins with one could not be
/// told from it where the proxy strips the base path.
const OWN_PATHS: [&str; 12] = [
    "api",
    "assets",
    "audit",
    "guard",
    "healthz",
    "organizations",
    "readyz",
    "refusals",
    "sessions",
    "sign-in",
    "sign-out",
    "tokens",
];

/// The longest base path, in octets.
const BASE_PATH_LENGTH: usize = 200;

fn base_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::parsed(deserializer, "a path such as \"/gatepost\"", |text| {
        if matches!(text, "" | "/") {
            return Err(
                "there is no path in it; leave the key out to serve at the root".to_owned(),
            );
        }
        let is_plain = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !part.is_empty() && !matches!(part, "." | "..") && part.bytes().all(plain)
        };
        let parts = text.strip_prefix('/');
        let is_path = parts.is_some_and(|parts| parts.split('/').all(is_plain));
        if !is_path || text.len() > BASE_PATH_LENGTH {
            return Err(format!(
                "{text:?} is not a base path; begin it with \"/\", end it without one, and use letters, digits, \
                 \"-\", \".\", \"_\" and \"~\" between slashes, as in \"/gatepost\""
            ));
        }
        let first = text.split('/').nth(1).unwrap_or_default();
        if OWN_PATHS.contains(&first) {
            return Err(format!(
                "{text:?} begins as a path of the administration itself; use another, as \"/gatepost\""
            ));
        }
        Ok(text.to_owned())
    })
}

/// Deserializes a list of names. The environment knows text only and puts commas between them.
pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hostname>, D::Error> {
    deserializer.deserialize_any(Texts {
        expected: "a list of host names such as [\"admin.example.org\"]",
        parse: host,
    })
}

/// Deserializes a list of networks, in the environment with commas between them.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Network>, D::Error> {
    deserializer.deserialize_any(Texts {
        expected: "a list of networks such as [\"10.0.0.0/8\"]",
        parse: |text| match text {
            "unix" => Err(
                "every request over admin.socket may do everything; for a reverse proxy set admin.proxy_socket"
                    .to_owned(),
            ),
            network => network.parse(),
        },
    })
}

/// A name as it stands in a URL, where an IPv6 address is in brackets without the "IPv6:" of SMTP.
fn host(text: &str) -> Result<Hostname, String> {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if text.parse::<Ipv6Addr>().is_ok() {
        return format!("[IPv6:{text}]").parse();
    }
    if inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()) {
        return text.replace('[', "[IPv6:").parse();
    }
    let (name, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) && host(name).is_ok() {
        return Err(format!(
            "{text:?} has a port; write {name:?}, which holds for every port"
        ));
    }
    text.parse()
}

/// A list whose items are texts, each read by `parse`.
struct Texts<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<'de, T> Visitor<'de> for Texts<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(&self)? {
            items.push(item);
        }
        Ok(items)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        let items = items.map(|item| (self.parse)(item).map_err(E::custom));
        items.collect()
    }
}

/// One item of the list.
impl<'de, T> DeserializeSeed<'de> for &Texts<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        text::parsed(deserializer, self.expected, self.parse)
    }
}
