//! Replies: the table of Gatepost's own replies, and a strict parser for the upstream's replies.

use std::borrow::Cow;
use std::ops::Range;

use crate::policy::{Denial, Limit, Party, Rule};

/// An own reply: code (RFC 5321), enhanced status code (RFC 3463; empty in greetings and EHLO,
/// where RFC 2034 has none) and text. A `\n` in the text starts another line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub enhanced: &'static str,
    pub text: Cow<'static, str>,
}

macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident = $code:literal $enhanced:literal $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Reply =
            Reply { code: $code, enhanced: $enhanced, text: Cow::Borrowed($text) };)*

        /// Every fixed reply, for the page of the documents and the tests of the table.
        pub const FIXED: &[Reply] = &[$($name),*];
    };
}

replies! {
    /// HELP (RFC 5321, 4.1.1.8).
    HELP = 214 "2.0.0" "EHLO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY HELP QUIT";
    /// STARTTLS accepted (RFC 3207, 4).
    TLS_READY = 220 "2.0.0" "Ready to start TLS";
    BYE = 221 "2.0.0" "Bye";
    /// Authenticated and handed over to the upstream (RFC 4954, 6).
    AUTHENTICATED = 235 "2.7.0" "Authentication successful";
    OK = 250 "2.0.0" "OK";
    /// VRFY reveals nothing (RFC 5321, 7.3).
    CANNOT_VERIFY = 252 "2.5.0" "Send a message and see";
    /// The upstream was lost while a command waited for its reply.
    UPSTREAM_LOST = 421 "4.3.0" "The mail system behind this server went away, try again later";
    SHUTTING_DOWN = 421 "4.3.2" "Shutting down, try again in a moment";
    /// The client was silent for too long (RFC 5321, 4.5.3.2.7).
    IDLE = 421 "4.4.2" "Timeout, closing";
    /// A message arrived below the minimum rate.
    TOO_SLOW = 421 "4.4.2" "The message comes too slowly, closing";
    /// The client sent data before the greeting (RFC 5321, 4.3.1).
    SPOKE_FIRST = 421 "4.7.0" "You spoke before the greeting";
    /// An administrator ended the session.
    DISCONNECTED = 421 "4.7.0" "Disconnected by an administrator";
    /// Too many client errors.
    TOO_MANY_ERRORS = 421 "4.7.0" "Too many errors, closing";
    TOO_MANY_COMMANDS = 421 "4.7.0" "Too many commands in one session, reconnect";
    /// The connection limit is reached.
    TOO_MANY_CONNECTIONS = 421 "4.7.0" "Too many connections, try again later";
    TOO_MANY_FAILURES = 421 "4.7.0" "Too many failed logins from your network, try again later";
    /// The organization exceeds its messages per second.
    ORGANIZATION_TOO_FAST = 421 "4.7.0" "Your organization sends too many messages at once, try again in a moment";
    /// The credential or its organization has reached the limit of sessions.
    TOO_MANY_SESSIONS = 421 "4.7.0" "Too many sessions with this account, try again later";
    /// The upstream was lost inside a message, or before answering the message.
    MESSAGE_LOST = 451 "4.3.0" "The mail system behind this server went away during the message, try again later";
    /// No new upstream session for the next message.
    UPSTREAM_UNAVAILABLE = 451 "4.3.2" "The mail system behind this server is not available, try again later";
    /// The limits or the usage cannot be read now.
    LIMITS_UNKNOWN = 451 "4.3.0" "Your limits cannot be read now, try again later";
    TOO_MANY_A_SECOND = 451 "4.7.1" "Too many messages at once, try again in a moment";
    TOO_MANY_AN_HOUR = 451 "4.7.1" "Too many messages in an hour, try again later";
    TOO_MANY_A_DAY = 451 "4.7.1" "Too many messages in a day, try again later";
    /// The organization's monthly messages are used up.
    QUOTA_EXHAUSTED = 452 "4.5.3" "Your organization has sent as many messages as it may in a month";
    /// More recipients than a message may have (RFC 5321, 4.5.3.1.10): the client sends to the rest
    /// in another message.
    TOO_MANY_RECIPIENTS = 452 "4.5.3" "Too many recipients for one message, send it to the others separately";
    TOO_MANY_RECIPIENTS_A_DAY = 452 "4.5.3" "Too many recipients in a day, try again later";
    /// No verdict, or no upstream for the session (RFC 4954, 6).
    CANNOT_AUTHENTICATE = 454 "4.7.0" "Temporary authentication failure, try again later";
    UNKNOWN_COMMAND = 500 "5.5.1" "Unknown command";
    LINE_TOO_LONG = 500 "5.5.2" "Line too long";
    /// A bare CR or LF, a NUL or another control character in a command.
    BAD_LINE = 500 "5.5.2" "Lines end in CRLF and hold no control characters";
    /// A SASL response beyond the limit (RFC 4954, 4).
    RESPONSE_TOO_LONG = 500 "5.5.6" "Authentication response too long";
    /// A response that is not base64 or malformed for the mechanism (RFC 4954, 4).
    BAD_RESPONSE = 501 "5.5.2" "Cannot decode the authentication response";
    BAD_ARGUMENTS = 501 "5.5.4" "Syntax error in the arguments";
    /// The client sent `*` (RFC 4954, 4).
    CANCELLED = 501 "5.7.0" "Authentication cancelled";
    NOT_OFFERED = 502 "5.5.1" "Command not offered";
    /// A command at the wrong moment (RFC 5321, 4.1.4).
    OUT_OF_ORDER = 503 "5.5.1" "Not now: command out of order";
    /// A second AUTH (RFC 4954, 4).
    ALREADY_AUTHENTICATED = 503 "5.5.1" "Already authenticated";
    /// STARTTLS inside TLS (RFC 3207, 4.2).
    ALREADY_TLS = 503 "5.5.1" "TLS is active already";
    EHLO_FIRST = 503 "5.5.1" "Send EHLO first";
    /// An unknown mechanism (RFC 4954, 4).
    UNKNOWN_MECHANISM = 504 "5.5.4" "Mechanism not offered, use PLAIN or LOGIN";
    /// A command that needs TLS, before TLS (RFC 3207, 4).
    TLS_REQUIRED = 530 "5.7.0" "Must issue a STARTTLS command first";
    /// Mail before AUTH (RFC 4954, 6).
    AUTH_REQUIRED = 530 "5.7.0" "Authentication required";
    /// Every rejected login, for any reason (RFC 4954, 6).
    BAD_CREDENTIALS = 535 "5.7.8" "Authentication credentials invalid";
    /// Eight-bit data for an upstream without 8BITMIME (RFC 6152, 3; RFC 3463, 3.7).
    NO_EIGHT_BIT_MIME = 554 "5.6.3" "8BITMIME is not offered, and nothing is converted here";
    /// A reverse-path that the credential may not use (RFC 3463, 3.8).
    SENDER_NOT_ALLOWED = 550 "5.7.1" "This account may not send as this sender";
    /// A From header that the credential may not use.
    FROM_NOT_ALLOWED = 550 "5.7.1" "This account may not send with this From header";
    /// Larger than SIZE, at MAIL or while streaming (RFC 1870, 6.1).
    TOO_LARGE = 552 "5.3.4" "Message larger than this server accepts";
    /// A non-ASCII address for an upstream without SMTPUTF8 (RFC 6531, 3.5).
    NO_SMTPUTF8 = 553 "5.6.7" "Address needs SMTPUTF8, which is not offered";
    /// An unsupported parameter of MAIL or RCPT (RFC 5321, 4.1.1.11).
    UNKNOWN_PARAMETER = 555 "5.5.4" "Parameter not offered";
}

/// The usual size of codes and line ends in a reply, in octets.
const ROOM: usize = 64;

impl Reply {
    /// The greeting (RFC 5321, 4.2).
    pub fn greeting(hostname: &str) -> Self {
        Self::plain(220, format!("{hostname} ESMTP Gatepost"))
    }

    pub fn helo(hostname: &str) -> Self {
        Self::plain(250, hostname.to_owned())
    }

    /// Builds the answer to EHLO: the host name, then a keyword per line.
    pub fn ehlo(hostname: &str, keywords: &[Cow<'static, str>]) -> Self {
        let length = keywords
            .iter()
            .map(|keyword| keyword.len() + 1)
            .sum::<usize>();
        let mut text = String::with_capacity(hostname.len() + length);
        text.push_str(hostname);
        for keyword in keywords {
            text.push('\n');
            text.push_str(keyword);
        }
        Self::plain(250, text)
    }

    /// Builds a SASL challenge (RFC 4954, 4); an empty challenge keeps the space.
    pub fn challenge(challenge: &'static str) -> Self {
        Self {
            code: 334,
            enhanced: "",
            text: Cow::Borrowed(challenge),
        }
    }

    /// The body has a bare CR or LF; `line` counts from 1.
    pub fn bare_newline(line: u64) -> Self {
        Self::unfit_body(format!(
            "Bare CR or LF in line {line} of the message, lines must end in CRLF"
        ))
    }

    /// The body has a NUL; `line` counts from 1.
    pub fn nul(line: u64) -> Self {
        Self::unfit_body(format!(
            "NUL in line {line} of the message, which may hold none"
        ))
    }

    /// Returns the reply for a command denied by a limit or a rule.
    pub fn denied(denial: Denial) -> Self {
        match denial {
            Denial::Over(Party::Organization, Limit::MessagesPerSecond) => ORGANIZATION_TOO_FAST,
            Denial::Over(_, Limit::MessageSize) => TOO_LARGE,
            Denial::Over(_, Limit::MessagesPerDay) => TOO_MANY_A_DAY,
            Denial::Over(_, Limit::MessagesPerHour) => TOO_MANY_AN_HOUR,
            Denial::Over(_, Limit::MessagesPerMonth) => QUOTA_EXHAUSTED,
            Denial::Over(_, Limit::MessagesPerSecond) => TOO_MANY_A_SECOND,
            Denial::Over(_, Limit::RecipientsPerDay) => TOO_MANY_RECIPIENTS_A_DAY,
            Denial::Over(_, Limit::RecipientsPerMessage) => TOO_MANY_RECIPIENTS,
            Denial::Over(_, Limit::Sessions) => TOO_MANY_SESSIONS,
            Denial::Against(Rule::HeaderFrom) => FROM_NOT_ALLOWED,
            Denial::Against(_) => SENDER_NOT_ALLOWED,
            Denial::Unknown => LIMITS_UNKNOWN,
        }
    }

    fn unfit_body(text: String) -> Self {
        Self {
            code: 550,
            enhanced: "5.6.0",
            text: Cow::Owned(text),
        }
    }

    fn plain(code: u16, text: String) -> Self {
        Self {
            code,
            enhanced: "",
            text: Cow::Owned(text),
        }
    }

    /// Appends the reply in wire format.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.reserve(self.text.len() + ROOM);
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            out.extend_from_slice(&digits(self.code));
            out.push(if lines.peek().is_some() { b'-' } else { b' ' });
            if !self.enhanced.is_empty() {
                out.extend_from_slice(self.enhanced.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn digits(code: u16) -> [u8; 3] {
    // The remainder is below ten, so the cast is lossless.
    [code / 100 % 10, code / 10 % 10, code % 10].map(|digit| b'0' + digit as u8)
}

/// The longest line read from the upstream, in octets with its end. RFC 5321 allows 512; Postfix
/// itself reads 2,048, and an administrator's reject text may need more than 512.
pub const MAX_REPLY_LINE: usize = 2048;

/// The line limit of an upstream reply.
pub const MAX_REPLY_LINES: usize = 64;

/// The upstream broke the protocol, so no further reply can be matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    #[error("the lines of one reply have different codes")]
    MixedCodes,
    /// No reply at all, or a line without CRLF.
    #[error("not an SMTP reply")]
    NotAReply,
    /// A line exceeds [`MAX_REPLY_LINE`], or the reply exceeds [`MAX_REPLY_LINES`].
    #[error("a reply of excessive length")]
    TooLong,
}

/// A whole reply at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawReply<'a> {
    pub code: u16,
    /// The unchanged octets of the reply.
    pub bytes: &'a [u8],
}

impl<'a> RawReply<'a> {
    /// Returns the first whole reply in `input`, or `None` if incomplete.
    pub fn parse(input: &'a [u8]) -> Result<Option<Self>, ReplyFault> {
        let mut code = None;
        let mut start = 0;
        for _ in 0..MAX_REPLY_LINES {
            let window = &input[start..input.len().min(start + MAX_REPLY_LINE)];
            let Some(end) = memchr::memchr(b'\n', window) else {
                return if window.len() == MAX_REPLY_LINE {
                    Err(ReplyFault::TooLong)
                } else {
                    Ok(None)
                };
            };
            let (line_code, last) = reply_line(&window[..end])?;
            if code
                .replace(line_code)
                .is_some_and(|code| code != line_code)
            {
                return Err(ReplyFault::MixedCodes);
            }
            start += end + 1;
            if last {
                return Ok(Some(Self {
                    code: line_code,
                    bytes: &input[..start],
                }));
            }
        }
        Err(ReplyFault::TooLong)
    }

    /// Returns the text of each line after its code.
    pub fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let text = |line: &'a [u8]| line.get(4..).unwrap_or_default();
        self.bytes
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(move |line| text(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

/// Parses a line without LF: the code, and whether the line is the last of its reply.
fn reply_line(line: &[u8]) -> Result<(u16, bool), ReplyFault> {
    const TEXT: Range<u8> = b' '..0x7f;
    let Some((text, b"\r")) = line.split_at_checked(line.len().wrapping_sub(1)) else {
        return Err(ReplyFault::NotAReply);
    };
    let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = text else {
        return Err(ReplyFault::NotAReply);
    };
    // Texts may contain UTF-8 (RFC 6531, 3.7.4) but no control characters except tabs. Branch-free,
    // so that the compiler vectorizes the loop.
    let bad = |byte: u8| !TEXT.contains(&byte) & (byte != b'\t') & (byte < 0x80);
    if rest.iter().fold(false, |any, byte| any | bad(*byte)) {
        return Err(ReplyFault::NotAReply);
    }
    let code = [a, b, c]
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(**digit - b'0'));
    match rest.first() {
        None | Some(b' ') => Ok((code, true)),
        Some(b'-') => Ok((code, false)),
        Some(_) => Err(ReplyFault::NotAReply),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_reply_of_the_table_is_well_formed() {
        for reply in FIXED {
            let class = reply.code / 100;
            // RFC 2034, 4: the enhanced code has the class of the reply.
            assert!(
                reply.enhanced.starts_with(&format!("{class}.")),
                "{reply:?}"
            );
            let wire = wire(reply);
            assert!(wire.len() <= 512, "{wire}");
            let parsed = RawReply::parse(wire.as_bytes()).unwrap().unwrap();
            assert_eq!((parsed.code, parsed.bytes), (reply.code, wire.as_bytes()));
        }
    }

    #[test]
    fn replies_match_the_rfcs() {
        assert_eq!(
            wire(&AUTHENTICATED),
            "235 2.7.0 Authentication successful\r\n"
        );
        assert_eq!(wire(&Reply::challenge("")), "334 \r\n");
        let ehlo = Reply::ehlo("mx.test", &["PIPELINING".into(), "SIZE 10".into()]);
        assert_eq!(
            wire(&ehlo),
            "250-mx.test\r\n250-PIPELINING\r\n250 SIZE 10\r\n"
        );
    }

    #[test]
    fn broken_replies_are_distinguished() {
        let cases: [(&[u8], ReplyFault); 9] = [
            (b"250-a\r\n251 b\r\n", ReplyFault::MixedCodes),
            (b"250 a\n", ReplyFault::NotAReply),
            (b"\r\n", ReplyFault::NotAReply),
            (b"\n", ReplyFault::NotAReply),
            (b"25 a\r\n", ReplyFault::NotAReply),
            (b"150 a\r\n", ReplyFault::NotAReply),
            (b"250+a\r\n", ReplyFault::NotAReply),
            (b"250 a\rb\r\n", ReplyFault::NotAReply),
            (&[b'2'; MAX_REPLY_LINE], ReplyFault::TooLong),
        ];
        for (input, fault) in cases {
            assert_eq!(
                RawReply::parse(input),
                Err(fault),
                "{}",
                input.escape_ascii()
            );
        }
        assert_eq!(
            RawReply::parse(&b"250-x\r\n".repeat(65)),
            Err(ReplyFault::TooLong)
        );
    }

    #[test]
    fn lines_are_the_texts() {
        let reply = RawReply::parse(b"250-mx\r\n250-SIZE 1\r\n250\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(
            reply.lines().collect::<Vec<_>>(),
            [&b"mx"[..], b"SIZE 1", b""]
        );
    }

    proptest! {
        #[test]
        fn a_reply_is_found_only_when_whole(code in 200u16..560, lines in proptest::collection::vec("[ -~]{0,80}", 1..9)) {
            let reply = Reply { code, enhanced: "", text: lines.join("\n").into() };
            let bytes = wire(&reply).into_bytes();
            for cut in 0..bytes.len() {
                prop_assert_eq!(RawReply::parse(&bytes[..cut]), Ok(None));
            }
            prop_assert_eq!(RawReply::parse(&bytes), Ok(Some(RawReply { code, bytes: &bytes })));
        }

        #[test]
        fn any_octets_are_handled(input: Vec<u8>) {
            let _ = RawReply::parse(&input);
        }
    }
}
