//! The server side of TLS: rustls over a socket, with as few system calls as possible.
//!
//! All buffers belong to the thread. A session holds memory only for a partial record or for output
//! that the client has not taken.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::buffer::{self, LINES, ReadInto};
use super::buffer_pool;
use super::handshake::{Broken, Silent};

/// The most plaintext in a record, in octets (RFC 8446, 5.1).
const RECORD: usize = 16 * 1024;

/// The most octets that encryption adds to a record: header, nonce, inner type and tag.
const OVERHEAD: usize = 5 + 8 + 1 + 16;

/// The limit of a partial record or handshake message, in octets: the largest message that rustls
/// accepts. A client that needs more sends tiny records and no mail.
const PARTIAL: usize = 64 * 1024;

/// A client's connection inside TLS.
pub struct TlsServerStream {
    tcp: TcpStream,
    engine: Engine,
    /// The start of a record or handshake message still incomplete.
    partial: Vec<u8>,
    /// Plaintext received together with the end of the handshake.
    early: Vec<u8>,
    greeted: bool,
}

impl TlsServerStream {
    /// Performs the handshake; with `permits`, each step waits for a permit. Remaining output, such
    /// as session tickets, goes out with the next send.
    ///
    /// A non-empty `greeting` goes out with the server's side of a TLS 1.3 handshake, a round trip
    /// before the client's side is complete (RFC 8446, 4.4.4), so any client may read the greeting.
    /// TLS 1.2 has no such moment.
    ///
    /// # Errors
    /// The connection is lost, or the client breaks the protocol; [`super::handshake::Failed`]
    /// explains the cause.
    pub async fn accept(
        config: Arc<ServerConfig>,
        tcp: TcpStream,
        permits: Option<&Semaphore>,
        greeting: Vec<u8>,
    ) -> io::Result<Self> {
        let is_to_greet = !greeting.is_empty();
        let mut secured = Self {
            tcp,
            engine: Engine::new(config, greeting)?,
            partial: Vec::new(),
            early: Vec::new(),
            greeted: false,
        };
        let mut early = Vec::new();
        let mut is_silent = true;
        while secured.engine.tls.is_handshaking() {
            secured.flush().await?;
            secured.tcp.readable().await?;
            let _permit = match permits {
                Some(permits) => permits.acquire().await.ok(),
                None => None,
            };
            // Polled once: a slow sender must not keep the permit.
            let read =
                poll_fn(|context| Poll::Ready(secured.poll_read(context, &mut early, LINES)));
            match read.await {
                Poll::Pending => {}
                // Without a TLS error, the connection itself ended.
                Poll::Ready(Ok(0)) if is_silent => return Err(silent()),
                Poll::Ready(Err(error)) if is_silent && error.get_ref().is_none() => {
                    return Err(silent());
                }
                Poll::Ready(count) => {
                    zero_is_eof(count?)?;
                    is_silent = false;
                }
            }
        }
        secured.early = early;
        secured.greeted = is_to_greet && std::mem::take(&mut secured.engine.greeting).is_empty();
        Ok(secured)
    }

    pub fn has_greeted(&self) -> bool {
        self.greeted
    }

    pub fn version(&self) -> Option<ProtocolVersion> {
        self.engine.tls.protocol_version()
    }

    /// Encrypts and sends `bytes` after any earlier output.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(Plaintext { bytes, last: false })?;
        self.flush().await
    }

    /// Sends `bytes` and close_notify, so that the client can tell the end from a truncation attack
    /// (RFC 8446, 6.1).
    pub async fn send_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(Plaintext { bytes, last: true })?;
        self.flush().await
    }

    fn write(&mut self, plaintext: Plaintext) -> io::Result<()> {
        let (engine, early) = (&mut self.engine, &mut self.early);
        let taken = engine.process(&mut self.partial, early, Some(plaintext))?;
        self.partial.drain(..taken);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let unsent = &mut self.engine.unsent;
        while !unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.tcp).poll_write(context, unsent))?;
            unsent.drain(..zero_is_eof(sent)?);
        }
        buffer_pool::put(unsent);
        Poll::Ready(Ok(()))
    }

    /// Reads at most `most` octets once and appends the plaintext to `into`. Returns the number of
    /// octets from the socket.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        buffer::with_scratch(|scratch| {
            let held = self.partial.len();
            if held > PARTIAL {
                return Poll::Ready(Err(invalid("a TLS message longer than any needs to be")));
            }
            let most = most.min(scratch.len() - held);
            let room = &mut scratch[held..][..most];
            let count = ready!(buffer::poll_read(&mut self.tcp, context, room))?;
            scratch[..held].copy_from_slice(&self.partial);
            let incoming = &mut scratch[..held + count];
            buffer_pool::take(into);
            into.reserve(incoming.len());
            let is_first = self.engine.tls.protocol_version().is_none();
            let taken = self.engine.process(incoming, into, None);
            let taken = taken.map_err(|error| broken(error, is_first.then_some(incoming)));
            if taken.is_err() {
                // Send the alert with the cause, if the socket takes the octets at once.
                let _ = self.poll_flush(context);
            }
            self.partial.clear();
            if let Ok(taken) = taken {
                self.partial.extend_from_slice(&incoming[taken..]);
            }
            // The octets were decrypted in place and may hold a password.
            incoming.fill(0);
            buffer_pool::put(into);
            Poll::Ready(taken.map(|_| count))
        })
    }
}

impl ReadInto for TlsServerStream {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let before = into.len();
        into.extend_from_slice(&self.early);
        self.early.fill(0);
        self.early.clear();
        buffer_pool::put(&mut self.early);
        while into.len() == before && !self.engine.ended {
            let Poll::Ready(count) = self.poll_read(context, into, most)? else {
                if self.partial.is_empty() {
                    self.partial = Vec::new();
                }
                return Poll::Pending;
            };
            if into.len() == before && !self.engine.ended {
                // Without close_notify the client's data may be truncated.
                zero_is_eof(count)?;
            }
        }
        Poll::Ready(Ok(into.len() - before))
    }
}

#[derive(Clone, Copy)]
struct Plaintext<'a> {
    bytes: &'a [u8],
    /// Whether to append close_notify.
    last: bool,
}

/// TLS without I/O: takes octets and returns plaintext and encrypted output.
struct Engine {
    tls: UnbufferedServerConnection,
    /// Encrypted output not yet sent.
    unsent: Vec<u8>,
    /// Sent as soon as keys exist.
    greeting: Vec<u8>,
    /// Whether the client sent close_notify.
    ended: bool,
    /// Whether the client broke the protocol.
    failed: bool,
}

impl Engine {
    fn new(config: Arc<ServerConfig>, greeting: Vec<u8>) -> io::Result<Self> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config).map_err(invalid)?,
            unsent: Vec::new(),
            greeting,
            ended: false,
            failed: false,
        })
    }

    /// Processes the complete records of `incoming`, appends their plaintext to `into`, and
    /// encrypts `plaintext`. Returns the number of octets processed.
    fn process(
        &mut self,
        incoming: &mut [u8],
        into: &mut Vec<u8>,
        plaintext: Option<Plaintext>,
    ) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut taken = 0;
        loop {
            // Known when the server writes its side of the handshake. Under TLS 1.2 the server must
            // wait for the client's side.
            let is_tls13 = self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
            let rest = &mut incoming[taken..];
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(rest);
            taken += discard;
            match state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.unsent)?,
                Ok(ConnectionState::TransmitTlsData(mut sending)) => {
                    if is_tls13
                        && !self.greeting.is_empty()
                        && let Some(traffic) = sending.may_encrypt_app_data()
                    {
                        let bytes = &std::mem::take(&mut self.greeting);
                        encrypt(traffic, Plaintext { bytes, last: false }, &mut self.unsent)?;
                    }
                    sending.done();
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        into.extend_from_slice(record.payload);
                        taken += record.discard;
                    }
                }
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    if let Some(plaintext) = plaintext {
                        encrypt(traffic, plaintext, &mut self.unsent)?;
                    }
                    return Ok(taken);
                }
                Ok(_) if plaintext.is_none() => return Ok(taken),
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(error) => {
                    self.fail();
                    return Err(invalid(error));
                }
            }
        }
    }

    /// Queues the alert with the cause. rustls must not process the same octets again.
    fn fail(&mut self) {
        self.failed = true;
        while self.tls.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(data)) =
                self.tls.process_tls_records(&mut []).state
            else {
                return;
            };
            if encode(data, &mut self.unsent).is_err() {
                return;
            }
        }
    }
}

fn encode(
    mut data: EncodeTlsData<'_, ServerConnectionData>,
    unsent: &mut Vec<u8>,
) -> io::Result<()> {
    append(unsent, 0, |room| data.encode(room).map_err(Short::from))
}

fn encrypt(
    mut traffic: WriteTraffic<'_, ServerConnectionData>,
    plaintext: Plaintext,
    unsent: &mut Vec<u8>,
) -> io::Result<()> {
    let length = plaintext.bytes.len();
    let room = length + (length / RECORD + 1) * OVERHEAD;
    append(unsent, room, |room| {
        traffic.encrypt(plaintext.bytes, room).map_err(Short::from)
    })?;
    if plaintext.last {
        append(unsent, OVERHEAD, |room| {
            traffic.queue_close_notify(room).map_err(Short::from)
        })?;
    }
    Ok(())
}

/// A failed write: the octets of room needed, or `None` for any other reason.
struct Short(Option<usize>);

impl From<EncodeError> for Short {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self(Some(size.required_size)),
            EncodeError::AlreadyEncoded => Self(None),
        }
    }
}

impl From<EncryptError> for Short {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self(Some(size.required_size)),
            EncryptError::EncryptExhausted => Self(None),
        }
    }
}

/// Appends the output of `write`, tried with `room` octets first.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Short>,
) -> io::Result<()> {
    buffer_pool::take(out);
    let before = out.len();
    loop {
        out.resize(before + room, 0);
        let written = write(&mut out[before..]);
        out.truncate(before + *written.as_ref().unwrap_or(&0));
        match written {
            Ok(_) => return Ok(()),
            Err(Short(Some(required))) if required > room => room = required,
            Err(Short(_)) => return Err(invalid("TLS can encrypt no more")),
        }
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Adds the connection's first octets to the error, for the explanation.
fn broken(error: io::Error, begun: Option<&mut [u8]>) -> io::Error {
    match error.downcast::<rustls::Error>() {
        Ok(error) => invalid(Broken::new(error, begun.as_deref())),
        Err(error) => error,
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, Silent)
}

fn zero_is_eof(count: usize) -> io::Result<usize> {
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use proptest::prelude::*;
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
    use rustls::{
        ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version,
    };
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::super::tls;
    use super::*;

    /// A client and the server engine under test.
    struct Pair {
        client: ClientConnection,
        engine: Engine,
        partial: Vec<u8>,
        /// The client's plaintext received by the engine.
        heard: Vec<u8>,
    }

    /// Returns a server configuration and its certificate.
    fn server(
        version: &'static SupportedProtocolVersion,
    ) -> (ServerConfig, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(["mail.test".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let certificate = made.cert.der().clone();
        let mut config = ServerConfig::builder_with_provider(Arc::new(tls::provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        config.send_half_rtt_data = true;
        (config, certificate)
    }

    impl Pair {
        fn new(version: &'static SupportedProtocolVersion) -> Self {
            let (server, certificate) = server(version);
            let mut roots = RootCertStore::empty();
            roots.add(certificate).unwrap();
            let client = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from("mail.test").unwrap();
            Self {
                client: ClientConnection::new(Arc::new(client), name).unwrap(),
                engine: Engine::new(Arc::new(server), Vec::new()).unwrap(),
                partial: Vec::new(),
                heard: Vec::new(),
            }
        }

        /// Returns the client's pending octets.
        fn sent(&mut self) -> Vec<u8> {
            let mut sent = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut sent).unwrap();
            }
            sent
        }

        /// Feeds octets to the engine in pieces.
        fn bring(&mut self, bytes: &[u8], pieces: usize) -> io::Result<()> {
            for piece in bytes.chunks(pieces) {
                let mut incoming = [&self.partial[..], piece].concat();
                let taken = self.engine.process(&mut incoming, &mut self.heard, None)?;
                self.partial = incoming.split_off(taken);
            }
            Ok(())
        }

        fn say(&mut self, bytes: &[u8], last: bool) -> io::Result<()> {
            let plaintext = Some(Plaintext { bytes, last });
            let taken = self
                .engine
                .process(&mut self.partial, &mut self.heard, plaintext)?;
            self.partial.drain(..taken);
            Ok(())
        }

        /// Feeds the engine's output to the client.
        fn answer(&mut self) -> io::Result<()> {
            let unsent = std::mem::take(&mut self.engine.unsent);
            let mut unsent = &unsent[..];
            while !unsent.is_empty() {
                self.client.read_tls(&mut unsent)?;
                self.client.process_new_packets().map_err(invalid)?;
            }
            Ok(())
        }

        fn shake_hands(&mut self, pieces: usize) {
            while self.engine.tls.is_handshaking() || self.client.is_handshaking() {
                let sent = self.sent();
                self.bring(&sent, pieces).unwrap();
                self.answer().unwrap();
            }
        }
    }

    #[test]
    fn plaintext_arrives_however_records_are_split() {
        for version in [&version::TLS12, &version::TLS13] {
            for pieces in [1, 7, 4096, usize::MAX] {
                let mut pair = Pair::new(version);
                pair.shake_hands(pieces);
                let long: Vec<u8> = (0..50_000_u32).map(|at| at.to_le_bytes()[0]).collect();
                pair.client.writer().write_all(&long).unwrap();
                let sent = pair.sent();
                pair.bring(&sent, pieces).unwrap();
                assert!(pair.heard == long && pair.partial.is_empty());

                pair.say(&long[..40_000], false).unwrap();
                pair.say(&[], false).unwrap();
                pair.say(b"221 Bye\r\n", true).unwrap();
                let once = pair.engine.unsent.len();
                pair.say(&[], true).unwrap();
                assert_eq!(pair.engine.unsent.len(), once, "close_notify is said once");
                let mut read = Vec::new();
                pair.client.set_buffer_limit(None);
                let unsent = std::mem::take(&mut pair.engine.unsent);
                for mut piece in unsent.chunks(1000) {
                    pair.client.read_tls(&mut piece).unwrap();
                    pair.client.process_new_packets().unwrap();
                    // Reports `WouldBlock` until close_notify arrives.
                    let _ = pair.client.reader().read_to_end(&mut read);
                }
                assert_eq!(read, [&long[..40_000], b"221 Bye\r\n"].concat());
                assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0);
            }
        }
    }

    #[test]
    fn greeting_goes_out_with_a_tls13_handshake() {
        const GREETING: &[u8] = b"220 mail.test ESMTP\r\n";
        for (version, greets) in [(&version::TLS12, false), (&version::TLS13, true)] {
            let mut pair = Pair::new(version);
            pair.engine.greeting = GREETING.to_vec();
            let hello = pair.sent();
            pair.bring(&hello, usize::MAX).unwrap();
            pair.answer().unwrap();
            assert_eq!(pair.engine.greeting.is_empty(), greets);
            // The client can read before its own side is complete.
            assert!(pair.engine.tls.is_handshaking());
            let mut read = [0; 100];
            let count = pair.client.reader().read(&mut read).unwrap_or(0);
            assert_eq!(&read[..count], if greets { GREETING } else { b"" });
            pair.shake_hands(usize::MAX);
            pair.say(b"250 OK\r\n", false).unwrap();
            pair.answer().unwrap();
            let count = pair.client.reader().read(&mut read).unwrap();
            assert_eq!(&read[..count], b"250 OK\r\n");
        }
    }

    #[test]
    fn client_still_gets_replies_after_its_close_notify() {
        let mut pair = Pair::new(&version::TLS13);
        pair.shake_hands(usize::MAX);
        pair.client.refresh_traffic_keys().unwrap();
        pair.client.writer().write_all(b"QUIT\r\n").unwrap();
        pair.client.send_close_notify();
        let sent = pair.sent();
        pair.bring(&sent, 3).unwrap();
        assert!(pair.heard == b"QUIT\r\n" && pair.engine.ended);
        pair.say(b"221 Bye\r\n", true).unwrap();
        pair.answer().unwrap();
        let mut read = Vec::new();
        pair.client.reader().read_to_end(&mut read).unwrap();
        assert_eq!(read, b"221 Bye\r\n");
    }

    #[test]
    fn protocol_violation_gets_an_alert_and_ends_the_engine() {
        let mut pair = Pair::new(&version::TLS13);
        assert!(pair.bring(b"EHLO client.test\r\n", usize::MAX).is_err());
        // An alert (RFC 8446, 6): the record type, then level fatal.
        assert_eq!((pair.engine.unsent[0], pair.engine.unsent[5]), (21, 2));
        assert!(pair.bring(b"EHLO client.test\r\n", usize::MAX).is_err());
        assert!(pair.say(b"500\r\n", true).is_err());
    }

    #[tokio::test]
    async fn oversized_handshake_message_in_tiny_records_is_rejected() {
        // A ClientHello of 65,535 octets, a single octet per record (RFC 8446, 4 and 5.1).
        let record = |octet| [22, 3, 3, 0, 1, octet];
        let mut crumbs = [1, 0, 0xff, 0xff].map(record).concat();
        crumbs.extend([record(0); 60_000].as_flattened());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _feeding = tokio::spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            let _ = client.write_all(&crumbs).await;
            client
        });
        let (tcp, _) = listener.accept().await.unwrap();
        let config = server(&version::TLS13).0;
        let accepted = TlsServerStream::accept(Arc::new(config), tcp, None, Vec::new()).await;
        let error = accepted.err().expect("too long a message").to_string();
        assert!(error.contains("longer than any"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Plaintext stays a prefix of the client's octets, and no damaged octet causes a panic.
        #[test]
        fn damaged_octets_are_never_accepted(at in 0_usize..2500, to: u8, pieces in 1_usize..3000, tls13: bool) {
            let mut pair = Pair::new(if tls13 { &version::TLS13 } else { &version::TLS12 });
            let plaintext: Vec<u8> = (0..2000_u32).map(|at| at.to_le_bytes()[0]).collect();
            let mut position = 0;
            for turn in 0..8 {
                if turn == 4 && !pair.client.is_handshaking() {
                    // The client may have failed already.
                    let _ = pair.client.writer().write_all(&plaintext);
                }
                let mut sent = pair.sent();
                if let Some(octet) = at.checked_sub(position).and_then(|at| sent.get_mut(at)) {
                    *octet = to;
                }
                position += sent.len();
                let brought = pair.bring(&sent, pieces);
                let said = pair.say(b"250 OK\r\n", turn == 7);
                if brought.is_err() {
                    prop_assert!(said.is_err());
                }
                let _ = pair.answer();
            }
            prop_assert!(plaintext.starts_with(&pair.heard));
        }
    }
}
