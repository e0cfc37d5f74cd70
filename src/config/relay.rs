//! `[relay]`: what is let through in message bodies.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::{byte_size, text};

/// How bodies are treated on their way upstream.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// What becomes of a body with a CR or LF that stands alone.
    pub bare_newline: BareNewline,
    /// The largest message in bytes; a smaller SIZE of the upstream wins.
    #[serde(deserialize_with = "byte_size::positive")]
    pub message_size: u64,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            bare_newline: BareNewline::Normalize,
            message_size: 50 << 20,
        }
    }
}

/// What becomes of a body with a CR or LF that stands alone, which others might take for a line's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BareNewline {
    /// It is made CRLF, and the lines stuffed anew.
    Normalize,
    /// The message is refused.
    Reject,
}

impl FromStr for BareNewline {
    /// What is wrong with the text, and what to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "normalize" => Ok(Self::Normalize),
            "reject" => Ok(Self::Reject),
            _ => Err(format!("unknown value {text:?}; use {BARE_NEWLINES}")),
        }
    }
}

const BARE_NEWLINES: &str = "\"reject\" or \"normalize\"";

impl<'de> Deserialize<'de> for BareNewline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, BARE_NEWLINES, str::parse)
    }
}
