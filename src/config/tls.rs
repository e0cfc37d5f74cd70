//! `[tls]`: the certificate shown to clients.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{duration, text};

/// The certificate's files, and how often they are looked at.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain in PEM, the server's own first.
    #[serde(deserialize_with = "text::path")]
    pub certificate: PathBuf,
    /// The private key in PEM.
    #[serde(deserialize_with = "text::path")]
    pub key: PathBuf,
    /// Between two looks for changed files.
    #[serde(
        default = "default_reload_interval",
        deserialize_with = "duration::positive"
    )]
    pub reload_interval: Duration,
}

fn default_reload_interval() -> Duration {
    Duration::from_secs(30)
}
