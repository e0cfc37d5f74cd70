//! A strict parser for mail addresses: an accepted text has a single reading in every program, and
//! any other text is no address.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

/// An address (RFC 5321, 4.1.2), without angle brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// The local part. A quoted string keeps its quotes only if needed.
    pub local: &'a str,
    /// The domain; never an address literal.
    pub domain: &'a str,
}

impl<'a> Address<'a> {
    /// The longest address, in characters (RFC 5321, 4.5.3.1.3, leaves 254).
    const LONGEST: usize = 254;

    /// Parses an address; returns `None` unless the text is unambiguous. Source routes, address
    /// literals and an unquoted second @ are rejected.
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.chars().count() > Self::LONGEST {
            return None;
        }
        let (local, domain) = text.rsplit_once('@')?;
        let local = without_quotes(local);
        let local_is_one = is_dot_atom(local) || is_quoted(local);
        (local_is_one && is_domain(domain)).then_some(Self { local, domain })
    }
}

/// RFC 5322, 3.2.3, and beyond ASCII RFC 6532. Encoded words are excluded, because some programs
/// decode them.
fn is_dot_atom(text: &str) -> bool {
    let is_atext = |c: char| {
        c.is_ascii_alphanumeric()
            || "!#$%&'*+-/=?^_`{|}~".contains(c)
            || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
    };
    let is_atom = |atom: &str| !atom.is_empty() && atom.chars().all(is_atext);
    !text.contains("=?") && text.split('.').all(is_atom)
}

/// Quotes around an atom mean nothing (RFC 5321, 4.1.2): both spellings are the same address.
fn without_quotes(local: &str) -> &str {
    let inside = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inside.filter(|inside| is_dot_atom(inside)).unwrap_or(local)
}

/// Whether the text is a quoted string without escapes; programs disagree about backslashes.
fn is_quoted(text: &str) -> bool {
    let inside = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let is_plain = |c: char| !c.is_control() && c != '"' && c != '\\';
    inside.is_some_and(|inside| !inside.contains("=?") && inside.chars().all(is_plain))
}

fn is_domain(text: &str) -> bool {
    let is_letter = |c: char| {
        c.is_ascii_alphanumeric()
            || c == '-'
            || c == '_'
            || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
    };
    let is_label = |label: &str| !label.is_empty() && label.chars().all(is_letter);
    text.split('.').all(is_label)
}

/// A sender that a credential may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    Address(String),
    /// Every address of the domain, but not of its subdomains.
    Domain(String),
    /// The empty reverse-path of bounces.
    Null,
}

impl Sender {
    /// Whether the sender covers an address. ASCII case is ignored.
    pub fn allows(&self, address: Address) -> bool {
        match self {
            Self::Address(own) => Address::parse(own).is_some_and(|own| {
                own.local.eq_ignore_ascii_case(address.local)
                    && own.domain.eq_ignore_ascii_case(address.domain)
            }),
            Self::Domain(domain) => domain.eq_ignore_ascii_case(address.domain),
            Self::Null => false,
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(text) | Self::Domain(text) => f.write_str(text),
            Self::Null => f.write_str("<>"),
        }
    }
}

impl FromStr for Sender {
    /// The fault of the text, with the text to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "<>" {
            return Ok(Self::Null);
        }
        if Address::parse(text).is_some() {
            return Ok(Self::Address(text.to_owned()));
        }
        // "@example.com" is a common spelling of a whole domain.
        let domain = text.strip_prefix('@').unwrap_or(text);
        if domain.chars().count() <= Address::LONGEST && is_domain(domain) {
            return Ok(Self::Domain(domain.to_owned()));
        }
        Err(format!(
            "{text:?} is no sender; write an address, a domain, or \"<>\" for the empty one of bounces"
        ))
    }
}

impl Serialize for Sender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sender {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needless_quotes_are_ignored() {
        let plain = Address::parse("a.b@c.test");
        assert_eq!(Address::parse("\"a.b\"@c.test"), plain);
        let quoted = Address::parse("\"a b\"@c.test").unwrap();
        assert_eq!(quoted.local, "\"a b\"");
        assert!(
            "\"a.b\"@c.test"
                .parse::<Sender>()
                .unwrap()
                .allows(plain.unwrap())
        );
    }

    #[test]
    fn ambiguous_text_is_no_address() {
        for good in [
            "a@b.test",
            "a.b+c@b",
            "\"a b\"@b.test",
            "\"a@c\"@b.test",
            "ü@b.test",
        ] {
            assert!(Address::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "a",
            "@b.test",
            "a@",
            "a@b.test.",
            "a@.b",
            ".a@b",
            "a..b@c",
            "a@c@b.test",
            "@c:a@b.test",
            "a@[192.0.2.1]",
            "a b@c",
            "a@b c",
            "\"a@b",
            "\"a\"b\"@c",
            "\"a\\\"@c",
            "=?utf-8?q?a?=@b",
            "a\u{a0}@b",
            "a,c@b",
            "<a@b>",
        ] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sender_is_an_address_or_a_domain() {
        let allows = |sender: &str, address: &str| {
            let sender: Sender = sender.parse().unwrap();
            Address::parse(address).is_some_and(|address| sender.allows(address))
        };
        assert!(allows("me@ok.test", "ME@Ok.Test"));
        assert!(
            !allows("me@ok.test", "me@not.ok.test") && !allows("me@ok.test", "\"m e\"@ok.test")
        );
        for domain in ["ok.test", "@ok.test"] {
            assert!(allows(domain, "you@OK.test") && allows(domain, "\"a@b\"@ok.test"));
            assert!(!allows(domain, "you@sub.ok.test") && !allows(domain, "you@nok.test"));
            assert!(!allows(domain, "\"me@ok.test\"@evil.test"));
        }
        assert!(!allows("<>", "me@ok.test"));
        for wrong in ["", "<me@ok.test>", "*", "*.ok.test", "a b", "ok.test.", "@"] {
            assert!(wrong.parse::<Sender>().is_err(), "{wrong:?}");
        }
    }
}
