//! The PROXY header sent by a load balancer before the client's first byte (HAProxy's
//! proxy-protocol.txt), versions 1 and 2.
//!
//! The header sets the client address, so a forged header would impersonate any client. Gatepost
//! reads headers only from configured addresses, never guesses, and consumes exactly the header's
//! bytes: the rest belongs to the client.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::metrics::ProxyFailure;

/// The first octets of a version 2 header.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The first octets of a version 1 header, compared before the rest arrives.
const WORD: &[u8; 6] = b"PROXY ";

/// The longest version 1 header, in octets with CRLF.
const MAX_V1: usize = 107;

/// The most octets after the fixed part of a version 2 header: the size that the specification
/// promises to fit into a single segment.
const MAX_V2: usize = 536;

/// The fixed part of a version 2 header.
const FIXED_V2: usize = 16;

/// The longest accepted version 2 header, in octets.
const LONGEST_V2: usize = FIXED_V2 + MAX_V2;

/// The two addresses of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionAddresses {
    pub source: SocketAddr,
    /// The address the client connected to.
    pub destination: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection ended or failed inside the header.
    #[error("the connection ended inside the PROXY header")]
    Incomplete,
    #[error("the PROXY header is malformed")]
    Malformed,
    #[error("no PROXY header came but something else")]
    Missing,
    #[error(
        "the PROXY header is longer than {MAX_V1} octets (version 1) or {LONGEST_V2} octets (version 2)"
    )]
    Oversized,
    #[error("the connection ended before its PROXY header")]
    Silent,
}

impl ProxyError {
    /// Returns the metrics label; a connection without an octet is no failure.
    pub fn failure(&self) -> Option<ProxyFailure> {
        match self {
            Self::Incomplete => Some(ProxyFailure::Incomplete),
            Self::Malformed => Some(ProxyFailure::Malformed),
            Self::Missing => Some(ProxyFailure::Missing),
            Self::Oversized => Some(ProxyFailure::Oversized),
            Self::Silent => None,
        }
    }
}

/// Reads fail only inside the header.
impl From<io::Error> for ProxyError {
    fn from(_: io::Error) -> Self {
        Self::Incomplete
    }
}

/// Whether the first octets look like a PROXY header.
pub fn is_header(begun: &[u8]) -> bool {
    begun.starts_with(SIGNATURE) || begun.starts_with(WORD)
}

/// Reads the header and nothing behind it. Returns `None` for a connection of the load balancer
/// itself, such as a health check, or of unknown origin.
///
/// The caller limits the time.
pub async fn read_header(
    stream: &mut TcpStream,
) -> Result<Option<ConnectionAddresses>, ProxyError> {
    let mut header = [0; LONGEST_V2];
    let mut length = 0;
    // Both versions are longer than the signature, so this read takes nothing from the client.
    while length < SIGNATURE.len() {
        let room = &mut header[length..SIGNATURE.len()];
        match stream.read(room).await {
            Ok(0) | Err(_) if length == 0 => return Err(ProxyError::Silent),
            Ok(0) | Err(_) => return Err(ProxyError::Incomplete),
            Ok(count) => length += count,
        }
        let begun = &header[..length];
        if !begins(SIGNATURE, begun) && !begins(WORD, begun) {
            return Err(ProxyError::Missing);
        }
        if begun.starts_with(WORD) && begun.contains(&b'\n') {
            return Err(ProxyError::Malformed);
        }
    }
    let length = if header.starts_with(SIGNATURE) {
        rest_of_v2(stream, &mut header).await?
    } else {
        rest_of_v1(stream, &mut header, length).await?
    };
    parse(&header[..length])
}

/// Whether the octets so far are a prefix of `whole`.
fn begins(whole: &[u8], begun: &[u8]) -> bool {
    whole
        .iter()
        .zip(begun)
        .all(|(expected, came)| expected == came)
}

async fn rest_of_v2(stream: &mut TcpStream, header: &mut [u8]) -> Result<usize, ProxyError> {
    stream
        .read_exact(&mut header[SIGNATURE.len()..FIXED_V2])
        .await?;
    let rest = usize::from(u16::from_be_bytes([
        header[FIXED_V2 - 2],
        header[FIXED_V2 - 1],
    ]));
    let rest = header
        .get_mut(FIXED_V2..FIXED_V2 + rest)
        .ok_or(ProxyError::Oversized)?;
    stream.read_exact(rest).await?;
    Ok(FIXED_V2 + rest.len())
}

/// A version 1 line has no length prefix, so the socket is peeked before each read.
async fn rest_of_v1(
    stream: &mut TcpStream,
    header: &mut [u8],
    mut length: usize,
) -> Result<usize, ProxyError> {
    while length < MAX_V1 {
        let room = &mut header[length..MAX_V1];
        let seen = stream.peek(room).await?;
        let end = memchr::memchr(b'\n', &room[..seen]);
        let taken = end.map_or(seen, |end| end + 1);
        if taken == 0 {
            return Err(ProxyError::Incomplete);
        }
        stream.read_exact(&mut room[..taken]).await?;
        length += taken;
        if end.is_some() {
            return Ok(length);
        }
    }
    Err(ProxyError::Oversized)
}

/// Parses a complete header.
fn parse(header: &[u8]) -> Result<Option<ConnectionAddresses>, ProxyError> {
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(|_| ProxyError::Malformed)?;
    match parsed.proxied_address() {
        _ if length != header.len() => Err(ProxyError::Malformed),
        None => Ok(None),
        Some(addresses) if addresses.protocol == proxy_header::Protocol::Stream => {
            Ok(Some(ConnectionAddresses {
                source: addresses.source,
                destination: addresses.destination,
            }))
        }
        // Mail connections use TCP.
        Some(_) => Err(ProxyError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 587\r\n";
    const UNKNOWN: &[u8] = b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n";

    /// Builds a version 2 header; `kind` is the command, then family and protocol.
    fn binary(kind: [u8; 2], addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &kind, &length, addresses].concat()
    }

    const IPV4: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0x9c, 0x40, 0x02, 0x4b];

    fn of_the_client() -> ConnectionAddresses {
        ConnectionAddresses {
            source: "203.0.113.7:40000".parse().unwrap(),
            destination: "192.0.2.1:587".parse().unwrap(),
        }
    }

    /// Sends `pieces` as separate segments; returns the result and the octets left.
    async fn read(pieces: &[&[u8]]) -> (Result<Option<ConnectionAddresses>, ProxyError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        sender.set_nodelay(true).unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        let send = async {
            for piece in pieces {
                sender.write_all(piece).await.unwrap();
                // Enough yields for the runtime to poll its sockets in between.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }
            sender.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(read_header(&mut receiver), send);
        let mut rest = Vec::new();
        if read.is_ok() {
            receiver.read_to_end(&mut rest).await.unwrap();
        }
        (read, rest)
    }

    #[tokio::test]
    async fn a_header_is_read_to_the_byte_however_it_is_split() {
        let tlv = [IPV4, &[0x04, 0, 3, 0, 0, 0]].concat();
        let headers = [
            (LINE.to_vec(), Some(of_the_client())),
            (UNKNOWN.to_vec(), None),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (binary([0x21, 0x11], IPV4), Some(of_the_client())),
            (binary([0x21, 0x11], &tlv), Some(of_the_client())),
            (binary([0x20, 0x00], b""), None),
            (binary([0x20, 0x11], IPV4), None),
        ];
        for (header, expected) in headers {
            let whole = [&header[..], b"EHLO client.test\r\n"].concat();
            for at in 1..=header.len() + 1 {
                let (first, second) = whole.split_at(at);
                let (read, rest) = read(&[first, second]).await;
                assert_eq!(read.unwrap(), expected, "split at {at} of {header:?}");
                assert_eq!(rest, b"EHLO client.test\r\n", "split at {at} of {header:?}");
            }
            let bytes: Vec<_> = whole.chunks(1).collect();
            let (read, rest) = read(&bytes).await;
            assert_eq!(
                (read.unwrap(), &rest[..]),
                (expected, &b"EHLO client.test\r\n"[..])
            );
        }
    }

    #[tokio::test]
    async fn other_input_is_rejected_at_the_first_wrong_octet() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 120], b"\r\n"].concat();
        let datagram = binary([0x21, 0x12], IPV4);
        let (missing, malformed, oversized) = (
            ProxyFailure::Missing,
            ProxyFailure::Malformed,
            ProxyFailure::Oversized,
        );
        let cases: [(&[u8], ProxyFailure); 14] = [
            (b"EHLO client.test\r\n", missing),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00", missing),
            (b"proxy TCP4 203.0.113.7 192.0.2.1 40000 587\r\n", missing),
            (b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 587\n", malformed),
            (b"PROXY TCP4 203.0.113.7 192.0.2.1 40000\r\n", malformed),
            (
                b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 70000\r\n",
                malformed,
            ),
            (
                b"PROXY TCP4 2001:db8::7 2001:db8::1 40000 587\r\n",
                malformed,
            ),
            (b"PROXY TCP5 203.0.113.7 192.0.2.1 40000 587\r\n", malformed),
            (b"PROXY X\r\n", malformed),
            (&long, oversized),
            (&datagram, malformed),
            (&binary([0x31, 0x11], IPV4), malformed),
            (&binary([0x21, 0x11], &IPV4[..11]), malformed),
            (&binary([0x21, 0x11], &[0; 537]), oversized),
        ];
        for (case, expected) in cases {
            assert_eq!(why(&[case]).await, Some(expected), "{case:?}");
        }
        // The reader stops at the first octet that rules out a header.
        assert_eq!(why(&[b"PROX", b"IED"]).await, Some(missing));
    }

    /// Returns the failure for `pieces`; `None` if nothing arrived.
    async fn why(pieces: &[&[u8]]) -> Option<ProxyFailure> {
        read(pieces).await.0.expect_err("no header").failure()
    }

    #[tokio::test]
    async fn a_connection_that_ends_early_is_incomplete_unless_nothing_came() {
        assert_eq!(why(&[b""]).await, None);
        for begun in [
            &b"PRO"[..],
            b"PROXY TCP4 203.0",
            &SIGNATURE[..],
            &binary([0x21, 0x11], IPV4)[..20],
        ] {
            assert_eq!(why(&[begun]).await, Some(ProxyFailure::Incomplete));
        }
    }
}
