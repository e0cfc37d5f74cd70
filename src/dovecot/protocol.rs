//! The subset of Dovecot's auth protocol used by Postfix: tab-separated fields, lines ended by LF.
//! Pure.

use std::net::IpAddr;

use crate::sasl::{ExchangeError, Mechanism};

/// The longest line read, in octets; Postfix sends a SASL response of at most 12,288.
pub const MAX_LINE: usize = 16 * 1024;

/// Returns the server's greeting. `connection` numbers the connection; `cookie` is a unique value
/// of 32 hexadecimal digits.
pub fn greeting(process: u32, connection: u64, cookie: u128) -> String {
    let mut text = String::from("VERSION\t1\t1\n");
    for mechanism in Mechanism::ALL {
        text += &format!("MECH\t{}\tplaintext\n", mechanism.as_str());
    }
    text + &format!("SPID\t{process}\nCUID\t{connection}\nCOOKIE\t{cookie:032x}\nDONE\n")
}

#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Auth(Begin<'a>),
    /// Continues an exchange, with its number and the response in base64.
    Continue(&'a str, &'a str),
    /// CPID: the client's process id, which ends its introduction.
    Process,
    Version,
}

/// The relevant parameters of AUTH.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Begin<'a> {
    /// The exchange's number, repeated in the answer.
    pub id: &'a str,
    pub mechanism: &'a str,
    /// The mail client's address, as Postfix saw it.
    pub remote: Option<IpAddr>,
    /// Whether the mail client's connection is inside TLS.
    pub secured: bool,
    /// The initial response in base64; `Some("")` is an empty response.
    pub response: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a line of the auth protocol")]
pub struct Malformed;

impl<'a> Request<'a> {
    /// Parses a line, given without LF.
    pub fn parse(line: &'a [u8]) -> Result<Self, Malformed> {
        let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
        let mut fields = line.split('\t');
        match fields.next() {
            // A later major version may change anything.
            Some("VERSION") if fields.next() == Some("1") => Ok(Self::Version),
            Some("CPID") => Ok(Self::Process),
            Some("AUTH") => Begin::parse(fields).map(Self::Auth),
            Some("CONT") => match (number(fields.next())?, fields.next()) {
                (id, Some(response)) => Ok(Self::Continue(id, response)),
                (_, None) => Err(Malformed),
            },
            _ => Err(Malformed),
        }
    }
}

impl<'a> Begin<'a> {
    fn parse(mut fields: impl Iterator<Item = &'a str>) -> Result<Self, Malformed> {
        let id = number(fields.next())?;
        let mechanism = fields.next().ok_or(Malformed)?;
        let mut begin = Self {
            id,
            mechanism,
            ..Self::default()
        };
        for field in fields {
            match field.split_once('=') {
                // The last field; base64 may contain equals signs.
                Some(("resp", response)) => begin.response = Some(response),
                Some(("rip", address)) => begin.remote = address.parse().ok(),
                None if field == "secured" => begin.secured = true,
                _ => {}
            }
        }
        Ok(begin)
    }
}

/// Parses an exchange number. Answers repeat the number, so no other text is allowed.
fn number(field: Option<&str>) -> Result<&str, Malformed> {
    let good = |field: &&str| {
        matches!(field.len(), 1..=10) && field.bytes().all(|byte| byte.is_ascii_digit())
    };
    field.filter(good).ok_or(Malformed)
}

/// The exchange needs a response to the challenge (base64).
pub fn challenge(id: &str, challenge: &str) -> String {
    format!("CONT\t{id}\t{challenge}\n")
}

pub fn accept(id: &str, username: &str) -> String {
    format!("OK\t{id}\tuser={username}\n")
}

pub fn reject(id: &str) -> String {
    format!("FAIL\t{id}\n")
}

/// No verdict was possible; the mail client should try again.
pub fn unavailable(id: &str) -> String {
    format!("FAIL\t{id}\ttemp\n")
}

/// The exchange failed with an error.
pub fn broken_off(id: &str, error: ExchangeError) -> String {
    format!("FAIL\t{id}\treason={error}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_postfix_parse() {
        let line = b"AUTH\t7\tPLAIN\tservice=smtp\tnologin\tlip=127.0.0.1\trip=203.0.113.7\tsecured\tresp=AGEAYg==";
        let begin = Begin {
            id: "7",
            mechanism: "PLAIN",
            remote: Some("203.0.113.7".parse().unwrap()),
            secured: true,
            response: Some("AGEAYg=="),
        };
        assert_eq!(Request::parse(line), Ok(Request::Auth(begin)));
        assert_eq!(Request::parse(b"VERSION\t1\t1"), Ok(Request::Version));
        assert_eq!(Request::parse(b"CPID\t4242"), Ok(Request::Process));
        assert_eq!(
            Request::parse(b"CONT\t7\tYQ=="),
            Ok(Request::Continue("7", "YQ=="))
        );
    }

    #[test]
    fn malformed_lines_are_rejected() {
        for line in [
            "",
            "VERSION\t2\t0",
            "AUTH",
            "AUTH\tx\tPLAIN",
            "AUTH\t1",
            "CONT\t1",
            "HELO",
            "CONT\t1\u{b2}\tx",
        ] {
            assert_eq!(Request::parse(line.as_bytes()), Err(Malformed), "{line:?}");
        }
    }

    #[test]
    fn the_greeting_lists_the_mechanisms() {
        let text = greeting(1, 2, 3);
        assert!(text.starts_with(
            "VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t1\n"
        ));
        assert!(text.ends_with("CUID\t2\nCOOKIE\t00000000000000000000000000000003\nDONE\n"));
    }

    proptest! {
        #[test]
        fn no_line_upsets_the_parser(line: Vec<u8>) {
            let _ = Request::parse(&line);
        }
    }
}
