//! `[dovecot_auth]`: the socket that answers in Dovecot's auth protocol.

use serde::{Deserialize, Deserializer, de::Error};

use super::{Endpoint, flag, text};

/// Where Postfix asks for verdicts.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DovecotAuth {
    /// A unix socket, or a TCP address on loopback.
    #[serde(deserialize_with = "local_endpoint")]
    pub listen: Endpoint,
    /// The group that may use a unix socket which Gatepost opens: a name or a number.
    #[serde(default, deserialize_with = "group")]
    pub group: Option<String>,
    /// Whether only Postfix can reach the socket, so that the client addresses it names are true.
    #[serde(default, deserialize_with = "flag::flag")]
    pub trusted: bool,
}

impl DovecotAuth {
    /// The section that names only this address.
    pub fn at(listen: Endpoint) -> Self {
        Self {
            listen,
            group: None,
            trusted: false,
        }
    }
}

fn group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text::parsed(deserializer, "the name of a group", |text| match text {
        "" => Err("the name is empty; use \"postfix\", or leave the key out".to_owned()),
        _ => Ok(Some(text.to_owned())),
    })
}

/// The protocol has neither encryption nor a caller's proof: on a network anyone could read
/// passwords and try them.
fn local_endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    let endpoint = Endpoint::deserialize(deserializer)?;
    match endpoint {
        Endpoint::Tcp(address) if !address.ip().to_canonical().is_loopback() => {
            Err(D::Error::custom(format!(
                "{address} would hand verdicts to the network; use a loopback address, such as \
                 \"127.0.0.1:10026\", or \"unix:/path\""
            )))
        }
        _ => Ok(endpoint),
    }
}
