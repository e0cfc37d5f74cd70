//! The protocol of a connection, guessed from its first octets: enough to explain why a client came
//! to the wrong port.

use rustls::{CipherSuite, ProtocolVersion};

use super::proxy;

/// The kinds of first octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    ClientHello(ClientHello),
    Other,
    ProxyHeader,
    /// Letters, as in a command.
    Text,
}

impl Opening {
    /// Classifies the first octets of a connection.
    pub fn of(begun: &[u8]) -> Self {
        // TLS starts with content type "handshake" and the major version (RFC 8446, 5.1). SSL 2.0
        // starts with the length, highest bit set, then the message type.
        let is_tls = begun.starts_with(&[0x16, 0x03]);
        let is_ssl2 = begun.len() > 2 && begun[0] & 0x80 != 0 && begun[2] == 1;
        let word = begun.iter().take_while(|octet| octet.is_ascii_alphabetic());
        if is_tls || is_ssl2 {
            Self::ClientHello(ClientHello::parse(begun))
        } else if proxy::is_header(begun) {
            Self::ProxyHeader
        } else if word.count() >= 3 {
            Self::Text
        } else {
            Self::Other
        }
    }
}

/// The offers in a ClientHello, as far as received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    pub newest: Option<ProtocolVersion>,
    /// The cipher suites without signalling values.
    pub suites: Vec<CipherSuite>,
}

/// The extension that lists versions (RFC 8446, 4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;

impl ClientHello {
    fn parse(record: &[u8]) -> Self {
        if record.first() != Some(&0x16) {
            return Self {
                newest: Some(ProtocolVersion::SSLv2),
                suites: Vec::new(),
            };
        }
        let mut hello = Self::default();
        // The end may be missing, or sit in another record.
        let _ = hello.read(Reader(record));
        hello
    }

    /// Reads the available fields (RFC 8446, 4.1.2); returns `None` at an early end.
    fn read(&mut self, mut reader: Reader<'_>) -> Option<()> {
        reader.take(5 + 1 + 3)?; // the heads of the record and of the message
        let version = reader.number(2)?;
        self.newest = Some(ProtocolVersion::from(version as u16));
        reader.take(32)?; // random
        reader.vector(1)?; // session id
        let mut suites = Reader(reader.vector(2)?);
        while let Some(suite) = suites.number(2) {
            let suite = CipherSuite::from(suite as u16);
            let is_signal = suite == CipherSuite::TLS_EMPTY_RENEGOTIATION_INFO_SCSV;
            if suite.as_str().is_some() && !is_signal {
                self.suites.push(suite);
            }
        }
        reader.vector(1)?; // compression methods
        let mut extensions = Reader(reader.vector(2)?);
        while let Some(kind) = extensions.number(2) {
            let body = extensions.vector(2)?;
            if kind != u32::from(SUPPORTED_VERSIONS) {
                continue;
            }
            let mut versions = Reader(Reader(body).vector(1)?);
            let mut newest = None;
            while let Some(version) = versions.number(2) {
                // Unassigned values are GREASE, sent to be ignored (RFC 8701).
                let is_known = (0x0300..=0x0304).contains(&version);
                newest = newest.max(Some(version).filter(|_| is_known));
            }
            self.newest = newest.map(|version| ProtocolVersion::from(version as u16));
        }
        Some(())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads a number of up to 4 octets.
    fn number(&mut self, octets: usize) -> Option<u32> {
        let octets = self.take(octets)?.iter();
        Some(octets.fold(0, |number, octet| number << 8 | u32::from(*octet)))
    }

    /// Reads a vector after its length of `octets` octets.
    fn vector(&mut self, octets: usize) -> Option<&'a [u8]> {
        let length = self.number(octets)?;
        self.take(usize::try_from(length).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Builds a ClientHello with a legacy version, `suites` and, unless empty, `versions`.
    fn hello(legacy: u16, suites: &[u16], versions: &[u16]) -> Vec<u8> {
        let octets = |numbers: &[u16]| -> Vec<u8> {
            numbers
                .iter()
                .flat_map(|number| number.to_be_bytes())
                .collect()
        };
        let short = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
        let long = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let mut message = legacy.to_be_bytes().to_vec();
        message.extend([7; 32]);
        message.extend(short(&[]));
        message.extend(long(&octets(suites)));
        message.extend(short(&[0]));
        if !versions.is_empty() {
            let body = long(&short(&octets(versions)));
            message.extend(long(&[&octets(&[SUPPORTED_VERSIONS])[..], &body].concat()));
        }
        let length = (message.len() as u32).to_be_bytes();
        let handshake = [&[1], &length[1..], &message].concat();
        [&[0x16, 3, 1], &long(&handshake)[..]].concat()
    }

    #[test]
    fn a_client_hello_tells_its_newest_version_and_its_suites() {
        let offered = |bytes: &[u8]| match Opening::of(bytes) {
            Opening::ClientHello(hello) => hello,
            other => panic!("{other:?}"),
        };
        let old = offered(&hello(0x0301, &[0x002f, 0x00ff, 0x0a0a], &[]));
        assert_eq!(old.newest, Some(ProtocolVersion::TLSv1_0));
        assert_eq!(old.suites, [CipherSuite::TLS_RSA_WITH_AES_128_CBC_SHA]);
        let new = offered(&hello(0x0303, &[0x1301], &[0x3a3a, 0x0304, 0x0303]));
        assert_eq!(new.newest, Some(ProtocolVersion::TLSv1_3));
        let listed = offered(&hello(0x0303, &[0x002f], &[0x0302, 0x0301]));
        assert_eq!(listed.newest, Some(ProtocolVersion::TLSv1_1));
        let ancient = offered(&[0x80, 0x2e, 0x01, 0x00, 0x02]);
        assert_eq!(ancient.newest, Some(ProtocolVersion::SSLv2));
    }

    #[test]
    fn other_protocols_are_distinguished() {
        for (begun, expected) in [
            (&b"EHLO client.test\r\n"[..], Opening::Text),
            (b"GET / HTTP/1.1\r\n", Opening::Text),
            (b"PROXY TCP4 ", Opening::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Opening::ProxyHeader),
            (b"\r\n", Opening::Other),
            (b"\0\0\0\0", Opening::Other),
            (b"\x16", Opening::Other),
            (b"", Opening::Other),
        ] {
            assert_eq!(Opening::of(begun), expected, "{begun:?}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_can_be_classified(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            Opening::of(&octets);
            Opening::of(&[&[0x16, 3, 1][..], &octets].concat());
        }
    }
}
