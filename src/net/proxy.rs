//! The PROXY header that a load balancer puts before a client's first byte (HAProxy's
//! proxy-protocol.txt), in both versions.
//!
//! It says whose connection this is, and whoever may send one can be anybody. So it is read only
//! from those who are configured, is never guessed at, and is taken off the connection to the byte:
//! what follows it is the client's.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::metrics::ProxyFailure;

/// What begins a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What begins a header of version 1, as far as it is compared before the rest has come.
const WORD: &[u8; 6] = b"PROXY ";

/// The longest header of version 1, in octets with its CRLF.
const MAX_V1: usize = 107;

/// The most that may follow the fixed part of a version 2 header, in octets: what the
/// specification promises to fit into one segment.
const MAX_V2: usize = 536;

/// The fixed part of a version 2 header.
const FIXED_V2: usize = 16;

/// The longest header of version 2 that is taken, in octets.
const LONGEST_V2: usize = FIXED_V2 + MAX_V2;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The client's own address.
    pub source: SocketAddr,
    /// The address the client connected to.
    pub destination: SocketAddr,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection ended inside the header, or failed there.
    #[error("the connection ended inside the PROXY header")]
    Incomplete,
    /// The header does not have the form that its version demands.
    #[error("the PROXY header is malformed")]
    Malformed,
    /// Something else came.
    #[error("no PROXY header came but something else")]
    Missing,
    /// The header is longer than a header may be.
    #[error(
        "the PROXY header is longer than {MAX_V1} octets (version 1) or {LONGEST_V2} octets (version 2)"
    )]
    Oversized,
    /// The connection ended before its first octet.
    #[error("the connection ended before its PROXY header")]
    Silent,
}

impl ProxyError {
    /// The same for metrics; a connection without an octet is no failure.
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

/// Only an end inside the header comes as an error of the connection.
impl From<io::Error> for ProxyError {
    fn from(_: io::Error) -> Self {
        Self::Incomplete
    }
}

/// Whether a connection begins with a header, as far as its first octets tell.
pub fn is_header(begun: &[u8]) -> bool {
    begun.starts_with(SIGNATURE) || begun.starts_with(WORD)
}

/// Takes the header off the connection and nothing behind it. `None` is a connection of the load
/// balancer's own, such as a health check, or one it knows nothing about.
///
/// There is no limit of time in here.
pub async fn read_header(stream: &mut TcpStream) -> Result<Option<Proxied>, ProxyError> {
    let mut header = [0; LONGEST_V2];
    let mut length = 0;
    // Both versions are longer than the signature, so this takes nothing of the client's.
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

/// Whether what has come so far agrees with `whole`.
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

/// A line has no length in front, so what has come is looked at before it is taken.
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

/// Reads a header that is whole; anything that is missing now is wrong.
fn parse(header: &[u8]) -> Result<Option<Proxied>, ProxyError> {
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let (parsed, length) = ProxyHeader::parse(header, config).map_err(|_| ProxyError::Malformed)?;
    match parsed.proxied_address() {
        _ if length != header.len() => Err(ProxyError::Malformed),
        None => Ok(None),
        Some(addresses) if addresses.protocol == proxy_header::Protocol::Stream => {
            Ok(Some(Proxied {
                source: addresses.source,
                destination: addresses.destination,
            }))
        }
        // Mail comes by TCP.
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

    /// A version 2 header; `kind` is command, then family and protocol.
    fn binary(kind: [u8; 2], addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &kind, &length, addresses].concat()
    }

    const IPV4: &[u8] = &[203, 0, 113, 7, 192, 0, 2, 1, 0x9c, 0x40, 0x02, 0x4b];

    fn of_the_client() -> Proxied {
        Proxied {
            source: "203.0.113.7:40000".parse().unwrap(),
            destination: "192.0.2.1:587".parse().unwrap(),
        }
    }

    /// What is read of `pieces`, each a segment of its own, and what is left of them.
    async fn read(pieces: &[&[u8]]) -> (Result<Option<Proxied>, ProxyError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        sender.set_nodelay(true).unwrap();
        let (mut receiver, _) = listener.accept().await.unwrap();
        let send = async {
            for piece in pieces {
                sender.write_all(piece).await.unwrap();
                // Often enough for the runtime to look at its sockets in between.
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
    async fn what_is_no_header_is_refused_at_once() {
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
        // Not one byte more is waited for than tells the two apart.
        assert_eq!(why(&[b"PROX", b"IED"]).await, Some(missing));
    }

    /// Why `pieces` are refused; `None` where nothing came.
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
