//! Where something listens or is reached: a TCP socket address or a unix socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::text;

/// What `sun_path` holds besides its closing NUL (unix(7)).
const UNIX_PATH_BYTES: usize = 107;

/// A TCP address, or a unix socket written `unix:/path`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The absolute path of a unix stream socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Endpoint {
    /// What is wrong with the text, and how to write it instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_unix_path(path).map(Self::Unix);
        }
        if text.starts_with('/') {
            return Err(format!(
                "{text:?} is a bare path; write \"unix:{text}\" for a unix socket"
            ));
        }
        parse_socket_address(text).map(Self::Tcp)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(
            deserializer,
            "an address such as \"127.0.0.1:10025\" or \"unix:/path\"",
            str::parse,
        )
    }
}

/// Deserializes an IP address with a port.
pub(super) fn socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddr, D::Error> {
    text::parsed(deserializer, SOCKET_ADDRESS, parse_socket_address)
}

/// As [`socket_address`], for a key that may be left out.
pub(super) fn optional_socket_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    socket_address(deserializer).map(Some)
}

/// Deserializes the path of a unix socket that may be left out.
pub(super) fn optional_unix_path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    text::parsed(deserializer, "an absolute path", parse_unix_path).map(Some)
}

const SOCKET_ADDRESS: &str =
    "an IP address with a port, such as \"127.0.0.1:9587\" or \"[::1]:9587\",";

/// Host names are refused rather than resolved: where we listen must not depend on who answers for a
/// name, nor change while we run.
fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    Err(match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("{text:?} has no port; write \"{ip}:PORT\""),
        Ok(IpAddr::V6(ip)) => format!("{text:?} has no port; write \"[{ip}]:PORT\""),
        Err(_) if is_host_and_port(text) => {
            format!("{text:?} is a host name; use an IP address, such as \"127.0.0.1:10025\"")
        }
        Err(_) => format!(
            "{text:?} is not an address; write IP:PORT, such as \"127.0.0.1:10025\" or \"[::1]:10025\""
        ),
    })
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok()
            && host.contains(|c: char| c.is_ascii_alphabetic())
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
    })
}

fn parse_unix_path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!(
            "{text:?} is not an absolute path; begin it with \"/\""
        ));
    }
    if text.len() > UNIX_PATH_BYTES {
        return Err(format!(
            "the path has {} bytes; a unix socket's may have {UNIX_PATH_BYTES}, choose a shorter one",
            text.len()
        ));
    }
    if text.contains('\0') {
        return Err("the path holds a NUL; leave it out".to_owned());
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_written_as_it_is_read() {
        for text in [
            "127.0.0.1:10025",
            "[::1]:10025",
            "unix:/run/gatepost/x.sock",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_bad_endpoint_says_how_to_write_it() {
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES));
        for (text, remedy) in [
            ("localhost:10025", "use an IP address"),
            ("127.0.0.1", "\"127.0.0.1:PORT\""),
            ("::1", "\"[::1]:PORT\""),
            ("[::1]", "\"[::1]:PORT\""),
            ("/run/x", "\"unix:/run/x\""),
            ("unix:run/x", "begin it with \"/\""),
            ("unix:", "begin it with \"/\""),
            ("", "IP:PORT"),
            ("127.0.0.1:99999", "IP:PORT"),
            (&long, "has 108 bytes"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(remedy), "{text}: {error}");
        }
    }
}
