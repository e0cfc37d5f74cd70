//! XCLIENT: hands the client's identity to Postfix (Postfix's XCLIENT_README).
//!
//! A single command carries all attributes. Postfix rejects a second command once ADDR is set, and
//! a command without LOGIN clears the login.

use std::net::{IpAddr, SocketAddr};

use super::xtext;

/// The longest command that Postfix reads, in octets without CRLF.
const MAX_COMMAND: usize = 512;

/// The longest value before encoding, in octets.
const MAX_VALUE: usize = 255;

/// Stands for an unknown value.
const UNAVAILABLE: &str = "[UNAVAILABLE]";

/// The attributes in the order sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute {
    Addr,
    Port,
    Name,
    ReverseName,
    Helo,
    Proto,
    Login,
    DestAddr,
    DestPort,
}

impl Attribute {
    const ALL: [Self; 9] = [
        Self::Addr,
        Self::Port,
        Self::Name,
        Self::ReverseName,
        Self::Helo,
        Self::Proto,
        Self::Login,
        Self::DestAddr,
        Self::DestPort,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Addr => "ADDR",
            Self::Port => "PORT",
            Self::Name => "NAME",
            Self::ReverseName => "REVERSE_NAME",
            Self::Helo => "HELO",
            Self::Proto => "PROTO",
            Self::Login => "LOGIN",
            Self::DestAddr => "DESTADDR",
            Self::DestPort => "DESTPORT",
        }
    }
}

/// Without these the upstream would attribute the session to Gatepost, or to no user.
const NEEDED: [Attribute; 2] = [Attribute::Addr, Attribute::Login];

/// The attributes supported by an upstream; Postfix rejects any other attribute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(u16);

impl Attributes {
    /// Parses the parameters of `XCLIENT` in the reply to EHLO.
    pub fn parse(text: &str) -> Self {
        let named = |word: &str| {
            Attribute::ALL
                .into_iter()
                .find(|attribute| word.eq_ignore_ascii_case(attribute.as_str()))
        };
        let mask = text
            .split(' ')
            .filter_map(named)
            .fold(0, |mask, name| mask | 1 << name as u16);
        Self(mask)
    }

    /// Whether the attributes suffice to hand over a client's identity.
    pub fn are_enough(self) -> bool {
        NEEDED.into_iter().all(|attribute| self.holds(attribute))
    }

    /// Returns the names of unsupported attributes that Gatepost would send.
    pub fn missing(self) -> impl Iterator<Item = &'static str> {
        let all = Attribute::ALL.into_iter();
        all.filter(move |&attribute| !self.holds(attribute))
            .map(Attribute::as_str)
    }

    fn holds(self, attribute: Attribute) -> bool {
        self.0 & 1 << attribute as u16 != 0
    }
}

/// The identity of a session.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    /// The address the client connected to.
    pub destination: SocketAddr,
    /// The client's name from EHLO.
    pub helo: String,
    pub login: String,
}

/// The handover would lose the client's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XclientError {
    /// Without the attribute the upstream would attribute the session to another user.
    #[error("the upstream takes no {0} by XCLIENT")]
    Missing(&'static str),
    #[error("the username is longer than XCLIENT can carry")]
    LoginTooLong,
}

impl Client {
    /// Builds the XCLIENT command, with CRLF, from the attributes in `offered`.
    pub fn command(&self, offered: Attributes) -> Result<String, XclientError> {
        for needed in NEEDED {
            if !offered.holds(needed) {
                return Err(XclientError::Missing(needed.as_str()));
            }
        }
        if self.login.len() > MAX_VALUE {
            return Err(XclientError::LoginTooLong);
        }
        let command = self.with_helo(offered, &self.helo);
        // Only the client's EHLO name has an arbitrary length.
        let fits = self.helo.len() <= MAX_VALUE && command.len() <= MAX_COMMAND;
        Ok(if fits {
            command
        } else {
            self.with_helo(offered, UNAVAILABLE)
        } + "\r\n")
    }

    fn with_helo(&self, offered: Attributes, helo: &str) -> String {
        let mut command = String::from("XCLIENT");
        for attribute in Attribute::ALL
            .into_iter()
            .filter(|&attribute| offered.holds(attribute))
        {
            command.push(' ');
            command.push_str(attribute.as_str());
            command.push('=');
            match attribute {
                Attribute::Addr => command.push_str(&address(self.address.ip())),
                Attribute::Port => command.push_str(&self.address.port().to_string()),
                // With either missing, Postfix logs the proxy's name beside the client address.
                Attribute::Name | Attribute::ReverseName => command.push_str(UNAVAILABLE),
                Attribute::Helo => xtext::encode(helo, &mut command),
                // Without ESMTP, Postfix treats pipelined commands as an attack.
                Attribute::Proto => command.push_str("ESMTP"),
                Attribute::Login => xtext::encode(&self.login, &mut command),
                Attribute::DestAddr => command.push_str(&address(self.destination.ip())),
                Attribute::DestPort => command.push_str(&self.destination.port().to_string()),
            }
        }
        command
    }
}

/// Formats IPv6 with Postfix's tag (RFC 5321, 4.1.3) and mapped IPv4 as IPv4.
fn address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTFIX: &str = "NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT";

    fn client(helo: &str) -> Client {
        Client {
            address: "203.0.113.7:40000".parse().unwrap(),
            destination: "[2001:db8::1]:587".parse().unwrap(),
            helo: helo.into(),
            login: "smtp_a b".into(),
        }
    }

    #[test]
    fn one_command_holds_everything_that_is_offered() {
        let command = client("mx.test").command(Attributes::parse(POSTFIX));
        assert_eq!(
            command.as_deref(),
            Ok("XCLIENT ADDR=203.0.113.7 PORT=40000 NAME=[UNAVAILABLE] \
                REVERSE_NAME=[UNAVAILABLE] HELO=mx.test PROTO=ESMTP LOGIN=smtp_a+20b \
                DESTADDR=IPV6:2001:db8::1 DESTPORT=587\r\n")
        );
        let command = client("mx.test").command(Attributes::parse("addr login unknown"));
        assert_eq!(
            command.as_deref(),
            Ok("XCLIENT ADDR=203.0.113.7 LOGIN=smtp_a+20b\r\n")
        );
    }

    #[test]
    fn missing_attributes_are_named() {
        assert_eq!(Attributes::parse(POSTFIX).missing().next(), None);
        let old = Attributes::parse("NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN");
        assert_eq!(old.missing().collect::<Vec<_>>(), ["DESTADDR", "DESTPORT"]);
    }

    #[test]
    fn handover_needs_addr_and_login() {
        for offered in ["", "NAME ADDR", "LOGIN"] {
            let error = client("mx")
                .command(Attributes::parse(offered))
                .unwrap_err();
            assert!(matches!(error, XclientError::Missing(_)), "{offered}");
        }
    }

    #[test]
    fn overlong_helo_is_unavailable() {
        for helo in ["x".repeat(300), "+".repeat(150)] {
            let command = client(&helo).command(Attributes::parse(POSTFIX)).unwrap();
            assert!(command.contains(" HELO=[UNAVAILABLE] "), "{command}");
            assert!(command.len() <= MAX_COMMAND + 2);
        }
    }

    #[test]
    fn nothing_in_a_value_starts_a_command() {
        let command = client("a\r\nMAIL FROM:<>")
            .command(Attributes::parse(POSTFIX))
            .unwrap();
        assert_eq!(command.matches(['\r', '\n']).count(), 2);
        assert!(command.ends_with("\r\n"));
    }

    #[test]
    fn ipv4_inside_ipv6_is_ipv4() {
        assert_eq!(address("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1");
    }
}
