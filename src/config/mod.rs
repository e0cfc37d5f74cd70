//! The configuration: defaults, then the file, then the environment; typed, and refused as a whole
//! when anything in it is wrong.
//!
//! Every section has a file here. A value is parsed into its type where it is read, so that no
//! later code meets a bad one; only what concerns several keys together is looked at afterwards,
//! in [`check`]. What a key means for its user is written in `config.toml.example`.

mod address;
mod admin;
mod auth;
mod byte_size;
mod check;
mod dovecot_auth;
mod duration;
mod environment;
mod error;
mod explain;
mod flag;
mod guard;
mod hostname;
mod last_used;
mod limits;
mod listener;
mod log;
mod metrics;
mod network;
mod number;
mod proxy_auth;
mod quotas;
mod relay;
mod section;
mod source;
mod store;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod timeouts;
mod tls;
mod upstream;

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

pub use address::Endpoint;
pub use admin::Admin;
pub use auth::Auth;
pub use byte_size::parse as parse_byte_size;
pub use dovecot_auth::DovecotAuth;
pub use error::ConfigError;
pub use guard::Guard;
pub use hostname::Hostname;
pub use last_used::LastUsed;
pub use limits::Limits;
pub use listener::{Listener, ListenerKind};
pub use log::{Log, LogFormat};
pub use metrics::Metrics;
pub use network::Network;
pub use proxy_auth::{ProxyAuth, ScopeText};
pub use quotas::{CredentialLimits, OrganizationLimits};
pub use relay::{BareNewline, Relay};
pub use store::Store;
pub use target::{Target, Targets};
pub use timeouts::Timeouts;
pub use tls::Tls;
pub use upstream::{IdentityBy, Order, Upstream, UpstreamTls};

use environment::Environment;
use source::Sources;

/// The file that is read unless `--config` names another.
pub const DEFAULT_PATH: &str = "/etc/gatepost/config.toml";

/// Everything that can be configured.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name in the greeting and in EHLO, towards clients and upstream. Default: the system's.
    pub hostname: Hostname,
    /// How long transactions in flight may go on after SIGTERM; zero waits for none.
    #[serde(default = "default_drain_timeout", deserialize_with = "duration::any")]
    pub drain_timeout: Duration,
    /// The addresses for clients, all different; none where Postfix keeps its listeners.
    #[serde(rename = "listener", default, deserialize_with = "listener::list")]
    pub listeners: Vec<Listener>,
    /// The certificate that every listener shows; required with a listener.
    #[serde(default, deserialize_with = "section::optional")]
    pub tls: Option<Tls>,
    /// The MTA that sessions are handed over to; required with a listener.
    #[serde(default, deserialize_with = "section::optional")]
    pub upstream: Option<Upstream>,
    /// Where credentials are kept.
    #[serde(default, deserialize_with = "section::required")]
    pub store: Store,
    /// What verifying a password may cost.
    #[serde(default, deserialize_with = "section::required")]
    pub auth: Auth,
    /// How the time of last use reaches the disk.
    #[serde(default, deserialize_with = "section::required")]
    pub last_used: LastUsed,
    /// What is let through in message bodies.
    #[serde(default, deserialize_with = "section::required")]
    pub relay: Relay,
    /// How much one client, and all together, may ask for.
    #[serde(default, deserialize_with = "section::required")]
    pub limits: Limits,
    /// What failed logins have as a consequence.
    #[serde(default, deserialize_with = "section::required")]
    pub guard: Guard,
    /// The limits of credentials that have none of their own.
    #[serde(default, deserialize_with = "section::required")]
    pub credential_limits: CredentialLimits,
    /// The limits of organizations that have none of their own.
    #[serde(default, deserialize_with = "section::required")]
    pub organization_limits: OrganizationLimits,
    /// How long a client may be silent.
    #[serde(default, deserialize_with = "section::required")]
    pub timeouts: Timeouts,
    /// The socket on which Postfix asks for verdicts in Dovecot's protocol, if there is to be one.
    #[serde(default, deserialize_with = "section::optional")]
    pub dovecot_auth: Option<DovecotAuth>,
    /// Where the administration is served, if anywhere.
    #[serde(default, deserialize_with = "section::optional")]
    pub admin: Option<Admin>,
    /// Where Prometheus scrapes, if anywhere.
    #[serde(default, deserialize_with = "section::optional")]
    pub metrics: Option<Metrics>,
    /// What is logged, and how.
    #[serde(default, deserialize_with = "section::required")]
    pub log: Log,
}

impl Config {
    /// Reads the file at `path` and the process's `GATEPOST_` variables, which override it.
    ///
    /// # Errors
    ///
    /// The first mistake found, with its place and its remedy; nothing wrong is skipped over.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::from_layers(path, Environment::of_process()?)
    }

    fn from_layers(path: &Path, environment: Environment) -> Result<Self, ConfigError> {
        let text = source::read(path)?;
        let sources = Sources::new(path, &text, environment)?;
        let config = sources.extract()?;
        check::check(&config).map_err(|problem| sources.locate(problem))?;
        Ok(config)
    }
}

/// Whether an organization can have this slug; the store has the same rule.
fn is_slug(text: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_allowed)
}

fn default_drain_timeout() -> Duration {
    Duration::from_secs(30)
}
