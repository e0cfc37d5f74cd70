//! The upstream's EHLO extensions, and the subset offered to clients.
//!
//! Unknown extensions are dropped: an extension may change the framing of a session, and a relay
//! that ignores the change would lose track.

use std::borrow::Cow;

use crate::sasl::Mechanism;

use super::reply::RawReply;
use super::xclient;

/// The relevant extensions of an upstream. The default assumes nothing, for an upstream not yet
/// probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// AUTH (RFC 4954), which allows `AUTH=<>` in MAIL.
    pub auth: bool,
    pub dsn: bool,
    pub eight_bit_mime: bool,
    pub enhanced_status_codes: bool,
    /// LIMITS (RFC 9422), as stated by the upstream.
    pub limits: Option<String>,
    /// The mechanism for a configured account: PLAIN, or else LOGIN.
    pub mechanism: Option<Mechanism>,
    pub pipelining: bool,
    /// SIZE (RFC 1870); `Some(0)` means no fixed limit.
    pub size: Option<u64>,
    pub smtputf8: bool,
    pub starttls: bool,
    /// XCLIENT with the supported attributes.
    pub xclient: Option<xclient::Attributes>,
}

impl Extensions {
    /// Parses the reply to EHLO. Keywords are case-insensitive (RFC 5321, 4.1.1.1).
    pub fn parse(reply: &RawReply) -> Self {
        let mut extensions = Self::default();
        for line in reply
            .lines()
            .skip(1)
            .filter_map(|line| std::str::from_utf8(line).ok())
        {
            let end = memchr::memchr(b' ', line.as_bytes()).unwrap_or(line.len());
            let (keyword, parameters) = line.split_at(end);
            let parameters = parameters.get(1..).unwrap_or_default();
            let is = |name: &str| keyword.eq_ignore_ascii_case(name);
            if is("8BITMIME") {
                extensions.eight_bit_mime = true;
            } else if is("AUTH") {
                extensions.auth = true;
                extensions.mechanism = known_mechanism(parameters);
            } else if is("DSN") {
                extensions.dsn = true;
            } else if is("ENHANCEDSTATUSCODES") {
                extensions.enhanced_status_codes = true;
            } else if is("LIMITS") {
                extensions.limits = known_limits(parameters);
            } else if is("PIPELINING") {
                extensions.pipelining = true;
            } else if is("SIZE") {
                extensions.size = Some(parameters.trim().parse().unwrap_or(0));
            } else if is("SMTPUTF8") {
                extensions.smtputf8 = true;
            } else if is("STARTTLS") {
                extensions.starttls = true;
            } else if is("XCLIENT") {
                extensions.xclient = Some(xclient::Attributes::parse(parameters));
            }
        }
        extensions
    }

    /// Returns the largest accepted message: the lower of `own` and the upstream's limit, in
    /// octets.
    pub fn message_size(&self, own: u64) -> u64 {
        match self.size {
            None | Some(0) => own,
            Some(size) => size.min(own),
        }
    }

    /// Returns the keywords for clients, without Gatepost's own STARTTLS and AUTH.
    pub fn announced(&self, own_message_size: u64) -> Vec<Cow<'static, str>> {
        let size = format!("SIZE {}", self.message_size(own_message_size));
        let limits = self.limits.as_ref();
        let keyword = |offered: bool, keyword| offered.then_some(Cow::Borrowed(keyword));
        [
            keyword(self.pipelining, "PIPELINING"),
            Some(size.into()),
            keyword(self.eight_bit_mime, "8BITMIME"),
            keyword(self.smtputf8, "SMTPUTF8"),
            keyword(self.dsn, "DSN"),
            // The upstream's replies are forwarded, so the upstream decides (RFC 2034, 4).
            keyword(self.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
            limits.map(|limits| format!("LIMITS {limits}").into()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Returns the preferred mechanism among the offered.
fn known_mechanism(parameters: &str) -> Option<Mechanism> {
    let offered = |mechanism: &Mechanism| {
        let name = mechanism.as_str();
        parameters
            .split(' ')
            .any(|word| word.eq_ignore_ascii_case(name))
    };
    Mechanism::ALL.into_iter().find(offered)
}

/// Keeps the limits defined in RFC 9422; the meaning of others is unknown.
fn known_limits(parameters: &str) -> Option<String> {
    let known = |limit: &&str| {
        let (name, value) = limit.split_once('=').unwrap_or((limit, ""));
        matches!(name, "MAILMAX" | "RCPTMAX" | "RCPTDOMAINMAX")
            && matches!(value.len(), 1..=6)
            && value.bytes().all(|byte| byte.is_ascii_digit())
    };
    let limits: Vec<_> = parameters.split(' ').filter(known).collect();
    (!limits.is_empty()).then(|| limits.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Extensions {
        let bytes = text.replace('\n', "\r\n").into_bytes();
        Extensions::parse(&RawReply::parse(&bytes).unwrap().unwrap())
    }

    #[test]
    fn only_known_extensions_are_passed_on() {
        let extensions = parse(
            "250-mx.test\n250-pipelining\n250-SIZE 1000\n250-VRFY\n250-ETRN\n250-STARTTLS\n\
             250-AUTH PLAIN\n250-CHUNKING\n250-BINARYMIME\n250-XCLIENT NAME ADDR LOGIN\n\
             250-LIMITS RCPTMAX=100 FOO=1 MAILMAX=x\n250 8BITMIME\n",
        );
        assert_eq!(
            extensions.announced(5000),
            ["PIPELINING", "SIZE 1000", "8BITMIME", "LIMITS RCPTMAX=100"]
        );
        assert!(extensions.auth);
        assert!(extensions.xclient.is_some());
    }

    #[test]
    fn the_lower_size_holds() {
        for (theirs, own, expected) in [
            ("SIZE 1000", 500, 500),
            ("SIZE 1000", 5000, 1000),
            ("SIZE 0", 500, 500),
            ("SIZE", 500, 500),
            ("DSN", 500, 500),
        ] {
            let extensions = parse(&format!("250-mx\n250 {theirs}\n"));
            assert_eq!(extensions.message_size(own), expected, "{theirs}");
        }
    }
}
