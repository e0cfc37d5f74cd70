//! `[upstream]`: the MTA behind the gate.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

use super::{Endpoint, duration, text};

/// How the MTA is reached, told of the client, and waited for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Where it listens.
    #[serde(deserialize_with = "reachable_endpoint")]
    pub address: Endpoint,
    /// How it learns who the client is.
    #[serde(default)]
    pub identity: IdentityBy,
    /// For a connection to be made.
    #[serde(
        default = "default_connect_timeout",
        deserialize_with = "duration::positive"
    )]
    pub connect_timeout: Duration,
    /// For the reply to a command.
    #[serde(
        default = "default_command_timeout",
        deserialize_with = "duration::positive"
    )]
    pub command_timeout: Duration,
    /// For the reply to the end of a message (RFC 5321 section 4.5.3.2.6 asks for ten minutes).
    #[serde(
        default = "default_end_of_data_timeout",
        deserialize_with = "duration::positive"
    )]
    pub end_of_data_timeout: Duration,
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_command_timeout() -> Duration {
    Duration::from_secs(300)
}

fn default_end_of_data_timeout() -> Duration {
    Duration::from_secs(600)
}

/// How the upstream learns who the client is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IdentityBy {
    /// By Postfix's XCLIENT command.
    #[default]
    Xclient,
}

impl FromStr for IdentityBy {
    /// What is wrong with the text, and what to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "xclient" => Ok(Self::Xclient),
            _ => Err(format!("unknown value {text:?}; use \"xclient\"")),
        }
    }
}

impl<'de> Deserialize<'de> for IdentityBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, "\"xclient\"", str::parse)
    }
}

/// To listen on port 0 means any port; to connect to it means nothing.
fn reachable_endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
    match Endpoint::deserialize(deserializer)? {
        Endpoint::Tcp(address) if address.port() == 0 => Err(D::Error::custom(format!(
            "{address} has port 0; use the port on which the MTA listens"
        ))),
        endpoint => Ok(endpoint),
    }
}
