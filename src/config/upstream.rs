//! `[upstream]`: the MTA behind the gate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{Hostname, Targets, duration, flag, number, section, text};

/// How the MTA is reached, told of the client, and waited for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Where it listens; at more than one address, it is the same service at all of them. Empty only
    /// where an organization has nothing but an account of its own.
    #[serde(default)]
    pub address: Targets,
    /// Which of several addresses a session goes to.
    #[serde(default)]
    pub order: Order,
    /// How it learns who the client is.
    #[serde(default)]
    pub identity: IdentityBy,
    /// Whether nobody but us can reach it, nor read what passes on the way.
    #[serde(default, deserialize_with = "flag::flag")]
    pub trusted: bool,
    /// Which form of the PROXY header it expects.
    #[serde(
        default = "default_proxy_version",
        deserialize_with = "number::within::<_, _, 1, 2>"
    )]
    pub proxy_version: u8,
    /// Our account there, for organizations without one of their own.
    #[serde(default, deserialize_with = "optional_username")]
    pub username: Option<String>,
    /// The file with the password of that account.
    #[serde(default, deserialize_with = "text::optional_path")]
    pub password_file: Option<PathBuf>,
    /// When TLS begins.
    #[serde(default)]
    pub tls: UpstreamTls,
    /// The name its certificate must have, instead of the address.
    #[serde(default, deserialize_with = "certificate_name")]
    pub tls_name: Option<String>,
    /// The PEM file with the authorities that may have signed its certificate, instead of the system's.
    #[serde(default, deserialize_with = "text::optional_path")]
    pub tls_ca: Option<PathBuf>,
    /// The certificate chain that we show, in PEM.
    #[serde(default, deserialize_with = "text::optional_path")]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    #[serde(default, deserialize_with = "text::optional_path")]
    pub tls_key: Option<PathBuf>,
    /// For a connection to be made, with TLS where that comes first. Where another address is left
    /// to be tried, its greeting must come in this time, too.
    #[serde(
        default = "default_connect_timeout",
        deserialize_with = "duration::positive"
    )]
    pub connect_timeout: Duration,
    /// For a session to be handed over, on a connection that is made.
    #[serde(
        default = "default_handoff_timeout",
        deserialize_with = "duration::positive"
    )]
    pub handoff_timeout: Duration,
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
    /// Outside of a transaction, until its session is given back.
    #[serde(
        default = "default_idle_release",
        deserialize_with = "duration::positive"
    )]
    pub idle_release: Duration,
    /// What is otherwise for single organizations, by their slug: an upstream of their own, or only
    /// an account of their own at this one.
    #[serde(default, deserialize_with = "section::map")]
    pub organizations: BTreeMap<String, Upstream>,
}

impl Upstream {
    /// With this account, and nothing else that was written.
    pub(super) fn of_account(username: Option<String>, password_file: Option<PathBuf>) -> Self {
        Self {
            address: Targets::default(),
            order: Order::default(),
            identity: IdentityBy::default(),
            trusted: false,
            proxy_version: default_proxy_version(),
            username,
            password_file,
            tls: UpstreamTls::default(),
            tls_name: None,
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            connect_timeout: default_connect_timeout(),
            handoff_timeout: default_handoff_timeout(),
            command_timeout: default_command_timeout(),
            end_of_data_timeout: default_end_of_data_timeout(),
            idle_release: default_idle_release(),
            organizations: BTreeMap::new(),
        }
    }
}

fn default_proxy_version() -> u8 {
    2
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_handoff_timeout() -> Duration {
    Duration::from_secs(30)
}

fn default_command_timeout() -> Duration {
    Duration::from_secs(300)
}

fn default_end_of_data_timeout() -> Duration {
    Duration::from_secs(600)
}

fn default_idle_release() -> Duration {
    Duration::from_secs(60)
}

/// How the upstream learns who the client is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum IdentityBy {
    /// Not of the client: we log in with an account of our own.
    Login,
    /// Not at all.
    None,
    /// By a PROXY header in front of the session.
    Proxy,
    /// By Postfix's XCLIENT command.
    #[default]
    Xclient,
}

const IDENTITIES: &str = "\"xclient\", \"proxy\", \"login\" or \"none\"";

impl FromStr for IdentityBy {
    /// What is wrong with the text, and what to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "login" => Ok(Self::Login),
            "none" => Ok(Self::None),
            "proxy" => Ok(Self::Proxy),
            "xclient" => Ok(Self::Xclient),
            _ => Err(format!("unknown value {text:?}; use {IDENTITIES}")),
        }
    }
}

impl<'de> Deserialize<'de> for IdentityBy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, IDENTITIES, str::parse)
    }
}

/// When TLS begins on the way to the upstream.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UpstreamTls {
    /// With the first byte.
    Implicit,
    /// Never.
    #[default]
    None,
    /// After STARTTLS, without which there is no session.
    StartTls,
}

const TLS: &str = "\"none\", \"starttls\" or \"implicit\"";

impl FromStr for UpstreamTls {
    /// What is wrong with the text, and what to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "implicit" => Ok(Self::Implicit),
            "none" => Ok(Self::None),
            "starttls" => Ok(Self::StartTls),
            _ => Err(format!("unknown value {text:?}; use {TLS}")),
        }
    }
}

impl<'de> Deserialize<'de> for UpstreamTls {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, TLS, str::parse)
    }
}

/// Which of several addresses a session goes to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    /// The first that answers.
    #[default]
    Failover,
    /// Each in turn.
    RoundRobin,
}

const ORDERS: &str = "\"failover\" or \"round-robin\"";

impl FromStr for Order {
    /// What is wrong with the text, and what to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "failover" => Ok(Self::Failover),
            "round-robin" => Ok(Self::RoundRobin),
            _ => Err(format!("unknown value {text:?}; use {ORDERS}")),
        }
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, ORDERS, str::parse)
    }
}

/// What a certificate can be made out for.
fn certificate_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    text::parsed(deserializer, "a host name or an IP address", |text| {
        let is_name = text.parse::<IpAddr>().is_ok()
            || text.parse::<Hostname>().is_ok() && !text.starts_with('[');
        match is_name {
            true => Ok(Some(text.to_owned())),
            false => Err(format!(
                "{text:?} is neither a host name nor an IP address; use the name in the certificate, \
                 such as \"smtp.example.org\""
            )),
        }
    })
}

/// RFC 4616 section 2: a name in PLAIN is not empty and holds no NUL.
fn username<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::parsed(deserializer, "a username", |text| match text {
        "" => Err("the username is empty; name the account, or leave this out".to_owned()),
        _ if text.len() > 255 => Err("the username is longer than 255 bytes".to_owned()),
        _ if text.chars().any(char::is_control) => {
            Err("the username holds a control character; leave it out".to_owned())
        }
        _ => Ok(text.to_owned()),
    })
}

fn optional_username<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    username(deserializer).map(Some)
}
