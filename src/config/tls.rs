//! `[tls]`: the certificates shown to clients.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, SeqAccess, Visitor};

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
    /// Further certificates, for other names or with another kind of key.
    #[serde(default, deserialize_with = "others")]
    pub others: Vec<Certificate>,
}

/// One more certificate.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The certificate chain in PEM, the server's own first.
    #[serde(deserialize_with = "text::path")]
    pub certificate: PathBuf,
    /// The private key in PEM.
    #[serde(deserialize_with = "text::path")]
    pub key: PathBuf,
}

/// Deserializes the list, with a hint for whoever wrote `[tls.others]`.
fn others<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Certificate>, D::Error> {
    deserializer.deserialize_seq(Others)
}

struct Others;

impl<'de> Visitor<'de> for Others {
    type Value = Vec<Certificate>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[[tls.others]] in double brackets, once for each certificate,")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, certificates: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(certificates))
    }
}

fn default_reload_interval() -> Duration {
    Duration::from_secs(30)
}
