//! The name the gate goes by in SMTP.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::text;

/// A domain or an address literal (RFC 5321 sections 4.1.2 and 4.1.3); safe to put into a reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hostname(String);

impl Hostname {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The system's name, unless it could not stand in a greeting.
    pub(super) fn of_system() -> Option<Self> {
        rustix::system::uname()
            .nodename()
            .to_str()
            .ok()?
            .parse()
            .ok()
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Hostname {
    /// What is wrong with the text, and how to write it instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_domain(text) || is_address_literal(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is not a host name; use letters, digits, hyphens and dots, as in \
             \"mail.example.org\", or an address literal, as \"[192.0.2.1]\""
        ))
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(
            deserializer,
            "a host name such as \"mail.example.org\"",
            str::parse,
        )
    }
}

/// RFC 5321 section 4.1.2 for the form, RFC 1035 section 2.3.4 for the lengths.
pub(super) fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_address_literal(text: &str) -> bool {
    let Some(inner) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return false;
    };
    match inner.strip_prefix("IPv6:") {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => inner.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_greeting_may_say_is_a_host_name() {
        let longest = ["a".repeat(63).as_str(); 3].join(".") + "." + &"b".repeat(61);
        for good in [
            "mail.example.org",
            "a",
            "12345",
            "true",
            "x-1.y",
            "[192.0.2.1]",
            "[IPv6:::1]",
            &longest,
        ] {
            assert!(good.parse::<Hostname>().is_ok(), "{good:?}");
        }
        let too_long = longest + "b";
        for bad in [
            "", ".", "a.", "a..b", "-a", "a-", "my_host", "a b", "[::1]", "[a]", "é", "a\r\n",
            &too_long,
        ] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
    }
}
