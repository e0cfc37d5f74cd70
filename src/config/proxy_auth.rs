//! `[admin.proxy_auth]`: the headers in which a reverse proxy names the person it has signed in,
//! and what that person may do.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::{section, text};

/// Which headers name a person, and the scopes of persons and their groups.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ProxyAuth {
    /// The header with the person's name.
    #[serde(deserialize_with = "header")]
    pub user_header: String,
    /// The header with the names of the person's groups.
    #[serde(default, deserialize_with = "optional_header")]
    pub groups_header: Option<String>,
    /// What stands between two groups.
    #[serde(default = "comma", deserialize_with = "separator")]
    pub groups_separator: char,
    /// The scope of each group, as tokens have them.
    #[serde(default, deserialize_with = "section::required")]
    pub groups: BTreeMap<String, ScopeText>,
    /// The scope of single persons.
    #[serde(default, deserialize_with = "section::required")]
    pub users: BTreeMap<String, ScopeText>,
}

/// A scope as the store reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScopeText(String);

impl ScopeText {
    /// The scope as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for ScopeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, "a scope such as \"instance:read\"", |text| {
            let (what, access) = text.rsplit_once(':').unwrap_or_default();
            let slug = what.strip_prefix("org:");
            let is_known = what == "instance" || slug.is_some_and(super::is_slug);
            match access {
                "admin" | "read" if is_known => Ok(ScopeText(text.to_owned())),
                _ => Err(format!(
                    "{text:?} is not a scope; write \"instance:admin\", \"instance:read\", \"org:SLUG:admin\" or \
                     \"org:SLUG:read\""
                )),
            }
        })
    }
}

/// Headers that mean something else to Gatepost.
const TAKEN: [&str; 10] = [
    "authorization",
    "cookie",
    "forwarded",
    "host",
    "origin",
    "sec-fetch-site",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "content-type",
];

fn header<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::parsed(deserializer, "a header such as \"Remote-User\"", |text| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || !text.bytes().all(allowed) {
            return Err(format!(
                "{text:?} is not the name of a header; use letters, digits and hyphens, as in \"Remote-User\""
            ));
        }
        if TAKEN.iter().any(|taken| text.eq_ignore_ascii_case(taken)) {
            return Err(format!(
                "{text:?} does not name a person; use the header that the reverse proxy sets, as \"Remote-User\""
            ));
        }
        Ok(text.to_owned())
    })
}

fn optional_header<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    header(deserializer).map(Some)
}

fn comma() -> char {
    ','
}

fn separator<'de, D: Deserializer<'de>>(deserializer: D) -> Result<char, D::Error> {
    text::parsed(deserializer, "\",\", \"|\" or \";\"", |text| match text {
        "," => Ok(','),
        "|" => Ok('|'),
        ";" => Ok(';'),
        _ => Err(format!("unknown value {text:?}; use \",\", \"|\" or \";\"")),
    })
}
