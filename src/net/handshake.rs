//! Explains failed TLS handshakes in plain words for the owner of the device.

use std::fmt;
use std::io;

use rustls::{AlertDescription, CipherSuite, Error, PeerIncompatible, ProtocolVersion};

use super::opening::{ClientHello, Opening};
use super::tls::provider;
use crate::metrics::HandshakeFailure;

/// How many of a client's cipher suites the log names.
const SUITES: usize = 6;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// For metrics and programs.
    pub reason: HandshakeFailure,
    pub why: String,
    /// The next step for the owner of the device; empty when none is known.
    pub hint: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Implicit TLS, from the first octet.
    AtOnce,
    ByStartTls,
}

/// A TLS error together with the first octets of the connection.
#[derive(Debug)]
pub(super) struct Broken {
    error: Error,
    /// The start of the connection, known only if the error concerns the first octets.
    opening: Option<Opening>,
}

/// The connection ended before the client sent anything.
#[derive(Debug)]
pub(super) struct Silent;

impl Broken {
    /// `begun` holds the client's first octets, unless more were read before.
    pub(super) fn new(error: Error, begun: Option<&[u8]>) -> Self {
        Self {
            error,
            opening: begun.map(Opening::of),
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection ended before anything was sent")
    }
}

impl std::error::Error for Broken {}
impl std::error::Error for Silent {}

const UPDATE: &str = "update the client's software; a device that gets no update can send through another mail server in its own network";

const CHAIN: &str = "see that tls.certificate holds the whole chain and the name that the client connects to: gatepost doctor; a device without current authorities needs an update, or the check switched off";

impl Failed {
    /// Explains a handshake that exceeded `timeouts.handshake`.
    pub fn timeout(begun: Begun) -> Self {
        Self::new(
            HandshakeFailure::Timeout,
            "the handshake was not over within timeouts.handshake",
            match begun {
                Begun::AtOnce => {
                    "a client that waits for a greeting here is set to STARTTLS: use port 587, or set the client to implicit TLS (SSL/TLS)"
                }
                Begun::ByStartTls => "",
            },
        )
    }

    /// Explains a TLS handshake on a port that starts in plain text.
    pub fn tls_first() -> Self {
        Self::new(
            HandshakeFailure::TlsFirst,
            "the client began with TLS on a port that begins in plain text",
            "set the client to STARTTLS, or use port 465 with implicit TLS (SSL/TLS)",
        )
    }

    /// Explains a handshake error; `None` if the client closed the connection before sending
    /// anything.
    pub fn of(error: &io::Error, begun: Begun) -> Option<Self> {
        let source = error.get_ref();
        let is_silent = source.is_some_and(|source| source.is::<Silent>());
        if is_silent && begun == Begun::AtOnce {
            return None;
        }
        let broken = source.and_then(|source| source.downcast_ref::<Broken>());
        Some(match broken {
            Some(broken) => broken.explain(begun),
            None => Self::new(
                HandshakeFailure::Gone,
                "the client closed the connection in the middle of the handshake",
                "many clients do so without a word where they do not trust the certificate: gatepost doctor",
            ),
        })
    }

    fn new(reason: HandshakeFailure, why: impl Into<String>, hint: &'static str) -> Self {
        Self {
            reason,
            why: why.into(),
            hint,
        }
    }
}

impl Broken {
    fn explain(&self, begun: Begun) -> Failed {
        match (&self.opening, &self.error) {
            (Some(Opening::ProxyHeader), _) => Failed::new(
                HandshakeFailure::ProxyHeader,
                "a PROXY header came from an address that is not in the listener's proxy_from",
                "if it is the load balancer's address, add it to proxy_from",
            ),
            (Some(Opening::Text), _) => Failed::new(
                HandshakeFailure::PlainText,
                match begun {
                    Begun::AtOnce => "the client sent plain text to a port that begins with TLS",
                    Begun::ByStartTls => "the client went on in plain text after STARTTLS",
                },
                match begun {
                    Begun::AtOnce => {
                        "use port 587 with STARTTLS, or set the client to implicit TLS (SSL/TLS)"
                    }
                    Begun::ByStartTls => "",
                },
            ),
            (Some(Opening::ClientHello(hello)), _) if is_too_old(hello) => no_version(hello),
            (Some(Opening::ClientHello(hello)), Error::PeerIncompatible(why)) => {
                incompatible(hello, why)
            }
            (_, Error::AlertReceived(alert)) => alerted(*alert),
            (_, Error::PeerIncompatible(why)) => incompatible(&ClientHello::default(), why),
            (Some(Opening::Other), Error::InvalidMessage(_)) => Failed::new(
                HandshakeFailure::NotTls,
                "the client sent something that is neither TLS nor SMTP",
                "",
            ),
            (_, Error::InvalidMessage(_)) => Failed::new(
                HandshakeFailure::NotTls,
                "the client sent a broken TLS message",
                "",
            ),
            (_, Error::General(why)) => Failed::new(HandshakeFailure::Other, why, ""),
            _ => Failed::new(
                HandshakeFailure::Other,
                "the client broke the protocol of TLS",
                "",
            ),
        }
    }
}

fn is_too_old(hello: &ClientHello) -> bool {
    let version = hello.newest.map(u16::from);
    version.is_some_and(|version| version < u16::from(ProtocolVersion::TLSv1_2))
}

fn no_version(hello: &ClientHello) -> Failed {
    let newest = match hello.newest {
        Some(ProtocolVersion::SSLv2) => "SSL 2.0",
        Some(ProtocolVersion::SSLv3) => "SSL 3.0",
        Some(ProtocolVersion::TLSv1_0) => "TLS 1.0",
        Some(ProtocolVersion::TLSv1_1) => "TLS 1.1",
        _ => "another version",
    };
    Failed::new(
        HandshakeFailure::NoVersion,
        format!(
            "no common version: the client offers at most {newest}, and Gatepost takes TLS 1.2 and 1.3"
        ),
        UPDATE,
    )
}

fn incompatible(hello: &ClientHello, why: &PeerIncompatible) -> Failed {
    use PeerIncompatible::{
        NoCipherSuitesInCommon, NoKxGroupsInCommon, NoSignatureSchemesInCommon, Tls12NotOffered,
        Tls12NotOfferedOrEnabled,
    };
    match why {
        // Without a common suite rustls may report a different mismatch first.
        _ if shares_no_suite(hello) => no_cipher(hello),
        Tls12NotOffered | Tls12NotOfferedOrEnabled => no_version(hello),
        NoCipherSuitesInCommon => no_cipher(hello),
        NoKxGroupsInCommon => Failed::new(
            HandshakeFailure::Incompatible,
            "no common group for the key exchange (Gatepost takes X25519, P-256 and P-384)",
            UPDATE,
        ),
        NoSignatureSchemesInCommon => Failed::new(
            HandshakeFailure::Incompatible,
            "the client cannot verify a signature of the certificate's kind of key",
            "give a certificate with the other kind of key (RSA or ECDSA) beside it, under [[tls.others]]",
        ),
        _ => Failed::new(
            HandshakeFailure::Incompatible,
            "the client does not offer something that TLS 1.2 and 1.3 need",
            UPDATE,
        ),
    }
}

/// Whether the client certainly offers no cipher suite that Gatepost supports.
fn shares_no_suite(hello: &ClientHello) -> bool {
    let ours = provider().cipher_suites;
    let is_ours = |suite: &CipherSuite| ours.iter().any(|own| own.suite() == *suite);
    !hello.suites.is_empty() && !hello.suites.iter().any(is_ours)
}

fn no_cipher(hello: &ClientHello) -> Failed {
    let names: Vec<_> = hello
        .suites
        .iter()
        .filter_map(CipherSuite::as_str)
        .collect();
    let mut offered = names
        .iter()
        .take(SUITES)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SUITES {
        offered += &format!(" and {} more", names.len() - SUITES);
    }
    let why = match names.is_empty() {
        true => "no common cipher suite".to_owned(),
        false => format!("no common cipher suite: the client offers {offered}"),
    };
    // ECDSA suites need an ECDSA key, so suites may be missing only because of the certificate.
    Failed::new(
        HandshakeFailure::NoCipher,
        why,
        "update the client's software; if the certificate has an ECDSA key, one with RSA under [[tls.others]] may be enough",
    )
}

fn alerted(alert: AlertDescription) -> Failed {
    let (reason, why, hint) = match alert {
        AlertDescription::UnknownCA => (
            HandshakeFailure::Certificate,
            "the client does not know the authority that signed the certificate",
            CHAIN,
        ),
        AlertDescription::CertificateExpired => (
            HandshakeFailure::Certificate,
            "the client holds the certificate for expired",
            "renew the certificate if it has expired; else the client's clock, or an expired authority that it knows, is wrong",
        ),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnobtainable
        | AlertDescription::UnsupportedCertificate => (
            HandshakeFailure::Certificate,
            "the client refuses the certificate",
            CHAIN,
        ),
        AlertDescription::ProtocolVersion => (
            HandshakeFailure::Alert,
            "the client refuses the version of TLS",
            UPDATE,
        ),
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => (
            HandshakeFailure::Alert,
            "the client finds nothing in common",
            UPDATE,
        ),
        _ => (HandshakeFailure::Alert, "", ""),
    };
    let name = alert_name(alert);
    let why = match why {
        "" => format!("the client ended the handshake with the alert {name}"),
        why => format!("{why} (alert {name})"),
    };
    Failed::new(reason, why, hint)
}

/// Returns the alert's name as in RFC 8446, section 6.
pub(super) fn alert_name(alert: AlertDescription) -> String {
    let Some(name) = alert.as_str() else {
        return u8::from(alert).to_string();
    };
    let mut words = String::new();
    let mut was_capital = true;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !was_capital {
            words.push('_');
        }
        was_capital = letter.is_ascii_uppercase();
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alert_names_match_rfc_8446() {
        for (alert, name) in [
            (AlertDescription::UnknownCA, "unknown_ca"),
            (AlertDescription::BadCertificate, "bad_certificate"),
            (AlertDescription::Unknown(200), "200"),
        ] {
            assert_eq!(alert_name(alert), name);
        }
    }

    #[test]
    fn closed_connection_is_no_tls_error() {
        let gone = io::Error::from(io::ErrorKind::ConnectionReset);
        let failed = Failed::of(&gone, Begun::AtOnce).unwrap();
        assert_eq!(failed.reason, HandshakeFailure::Gone);
        let silent = io::Error::new(io::ErrorKind::UnexpectedEof, Silent);
        assert_eq!(Failed::of(&silent, Begun::AtOnce), None);
    }

    #[test]
    fn first_octets_explain_more_than_the_error() {
        let explain = |begun: &[u8]| {
            let error = Error::General("x".to_owned());
            Broken::new(error, Some(begun))
                .explain(Begun::AtOnce)
                .reason
        };
        assert_eq!(explain(b"EHLO x\r\n"), HandshakeFailure::PlainText);
        assert_eq!(explain(b"PROXY TCP4 "), HandshakeFailure::ProxyHeader);
        assert_eq!(explain(&[0x80, 0x2e, 1]), HandshakeFailure::NoVersion);
        assert_eq!(explain(b"\0"), HandshakeFailure::Other);
    }
}
