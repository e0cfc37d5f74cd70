//! A client's connection inside TLS: rustls over a socket, with as few system calls as the bytes allow.
//!
//! All buffers are the thread's. A session holds bytes of its own only while a record has come in part, or while its
//! client does not take what is sent.

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

use super::buffer::{self, Fill, LINES};
use super::handshake::{Broken, Silent};
use super::lent;

/// The most plaintext in one record, in octets (RFC 8446, 5.1).
const RECORD: usize = 16 * 1024;

/// The most that encryption adds to a record, in octets: header, nonce, inner type and tag.
const OVERHEAD: usize = 5 + 8 + 1 + 16;

/// Onto more than this of a record or a handshake message that is not whole nothing is read, in octets. It is the largest
/// message that rustls takes; who sends one in records of a few octets each does not want to send mail.
const PARTIAL: usize = 64 * 1024;

/// TLS over a client's connection.
pub struct Secured {
    tcp: TcpStream,
    engine: Engine,
    /// The beginning of a record, or of a handshake message, whose rest has not come.
    partial: Vec<u8>,
    /// What came together with the end of the handshake.
    early: Vec<u8>,
    /// Whether the greeting went out with the handshake.
    greeted: bool,
}

impl Secured {
    /// Shakes hands; with `turns`, each step of that waits for a permit. What is left to be said then, as session
    /// tickets, goes out with the first words.
    ///
    /// `greeting`, unless it is empty, goes out with our side of a handshake of TLS 1.3, a round trip before the client's
    /// side is complete (RFC 8446, 4.4.4). So it must be fit for anybody to read. TLS 1.2 has no such moment.
    ///
    /// # Errors
    /// The connection is lost, or the client breaks the protocol. [`super::handshake::Failed`] says
    /// why.
    pub async fn accept(
        config: Arc<ServerConfig>,
        tcp: TcpStream,
        turns: Option<&Semaphore>,
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
            let _turn = match turns {
                Some(turns) => turns.acquire().await.ok(),
                None => None,
            };
            // Not waited for: whoever sends slowly must not keep the turn.
            let read =
                poll_fn(|context| Poll::Ready(secured.poll_read(context, &mut early, LINES)));
            match read.await {
                Poll::Pending => {}
                // Without an error of TLS it is the connection's end.
                Poll::Ready(Ok(0)) if is_silent => return Err(silent()),
                Poll::Ready(Err(error)) if is_silent && error.get_ref().is_none() => {
                    return Err(silent());
                }
                Poll::Ready(count) => {
                    nothing_is_an_end(count?)?;
                    is_silent = false;
                }
            }
        }
        secured.early = early;
        secured.greeted = is_to_greet && std::mem::take(&mut secured.engine.greeting).is_empty();
        Ok(secured)
    }

    /// Whether the greeting went out with the handshake.
    pub fn has_greeted(&self) -> bool {
        self.greeted
    }

    /// The version agreed upon.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.engine.tls.protocol_version()
    }

    /// Sends this behind what is left of before.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(Words { bytes, last: false })?;
        self.flush().await
    }

    /// Sends this and close_notify, so that the client can tell our end from somebody else's (RFC 8446, 6.1).
    pub async fn send_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(Words { bytes, last: true })?;
        self.flush().await
    }

    /// Encrypts.
    fn write(&mut self, words: Words) -> io::Result<()> {
        let (engine, early) = (&mut self.engine, &mut self.early);
        let taken = engine.turn(&mut self.partial, early, Some(words))?;
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
            unsent.drain(..nothing_is_an_end(sent)?);
        }
        lent::give_back(unsent);
        Poll::Ready(Ok(()))
    }

    /// Reads once, at most so much, and appends to `into` what can be read then; how much came over the connection.
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
            lent::lend(into);
            into.reserve(incoming.len());
            let is_first = self.engine.tls.protocol_version().is_none();
            let taken = self.engine.turn(incoming, into, None);
            let taken = taken.map_err(|error| broken(error, is_first.then_some(incoming)));
            if taken.is_err() {
                // The alert that says why, if the connection takes it at once.
                let _ = self.poll_flush(context);
            }
            self.partial.clear();
            if let Ok(taken) = taken {
                self.partial.extend_from_slice(&incoming[taken..]);
            }
            // It was decrypted in place, and may have been a password.
            incoming.fill(0);
            lent::give_back(into);
            Poll::Ready(taken.map(|_| count))
        })
    }
}

impl Fill for Secured {
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
        lent::give_back(&mut self.early);
        while into.len() == before && !self.engine.ended {
            let Poll::Ready(count) = self.poll_read(context, into, most)? else {
                if self.partial.is_empty() {
                    self.partial = Vec::new();
                }
                return Poll::Pending;
            };
            if into.len() == before && !self.engine.ended {
                // Without close_notify it is not known whether this is all that was sent.
                nothing_is_an_end(count)?;
            }
        }
        Poll::Ready(Ok(into.len() - before))
    }
}

/// What is said next.
#[derive(Clone, Copy)]
struct Words<'a> {
    bytes: &'a [u8],
    /// Whether nothing comes behind it.
    last: bool,
}

/// TLS without the connection.
struct Engine {
    tls: UnbufferedServerConnection,
    /// Encrypted, and not sent.
    unsent: Vec<u8>,
    /// To be said as soon as there are keys for it.
    greeting: Vec<u8>,
    /// Whether the client has said that it sends no more.
    ended: bool,
    /// Whether the protocol was broken.
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

    /// Takes in all that is whole of `incoming`, and appends to `into` what can be read then; encrypts `words`. Returns
    /// how much of `incoming` is done with.
    fn turn(
        &mut self,
        incoming: &mut [u8],
        into: &mut Vec<u8>,
        words: Option<Words>,
    ) -> io::Result<usize> {
        if self.failed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let mut taken = 0;
        loop {
            // Known by the time that our side of the handshake is written. In TLS 1.2 nothing may be said before the client's.
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
                        encrypt(traffic, Words { bytes, last: false }, &mut self.unsent)?;
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
                    if let Some(words) = words {
                        encrypt(traffic, words, &mut self.unsent)?;
                    }
                    return Ok(taken);
                }
                Ok(_) if words.is_none() => return Ok(taken),
                Ok(_) => return Err(io::ErrorKind::NotConnected.into()),
                Err(error) => {
                    self.fail();
                    return Err(invalid(error));
                }
            }
        }
    }

    /// Queues the alert that says what was wrong. rustls must not be shown the same octets again.
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
    words: Words,
    unsent: &mut Vec<u8>,
) -> io::Result<()> {
    let length = words.bytes.len();
    let room = length + (length / RECORD + 1) * OVERHEAD;
    append(unsent, room, |room| {
        traffic.encrypt(words.bytes, room).map_err(Short::from)
    })?;
    if words.last {
        append(unsent, OVERHEAD, |room| {
            traffic.queue_close_notify(room).map_err(Short::from)
        })?;
    }
    Ok(())
}

/// Why rustls did not write: for want of so many octets of room, or not at all.
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

/// Appends what `write` makes, which is tried with so much room first.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Short>,
) -> io::Result<()> {
    lent::lend(out);
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

/// Adds the connection's first octets to the error: they tell why the client came here.
fn broken(error: io::Error, begun: Option<&mut [u8]>) -> io::Error {
    match error.downcast::<rustls::Error>() {
        Ok(error) => invalid(Broken::new(error, begun.as_deref())),
        Err(error) => error,
    }
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, Silent)
}

fn nothing_is_an_end(count: usize) -> io::Result<usize> {
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

    /// A client, and the engine it talks to.
    struct Pair {
        client: ClientConnection,
        engine: Engine,
        partial: Vec<u8>,
        /// What the client has said, as far as it could be read.
        heard: Vec<u8>,
    }

    /// A server's configuration and its certificate.
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

        /// What the client has to send.
        fn sent(&mut self) -> Vec<u8> {
            let mut sent = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut sent).unwrap();
            }
            sent
        }

        /// Brings this to the engine in pieces of so many octets.
        fn bring(&mut self, bytes: &[u8], pieces: usize) -> io::Result<()> {
            for piece in bytes.chunks(pieces) {
                let mut incoming = [&self.partial[..], piece].concat();
                let taken = self.engine.turn(&mut incoming, &mut self.heard, None)?;
                self.partial = incoming.split_off(taken);
            }
            Ok(())
        }

        fn say(&mut self, bytes: &[u8], last: bool) -> io::Result<()> {
            let words = Some(Words { bytes, last });
            let taken = self
                .engine
                .turn(&mut self.partial, &mut self.heard, words)?;
            self.partial.drain(..taken);
            Ok(())
        }

        /// Brings the client what is for it.
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
    fn what_is_said_arrives_however_it_is_cut() {
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
                    // Until the end is known there may be more to come.
                    let _ = pair.client.reader().read_to_end(&mut read);
                }
                assert_eq!(read, [&long[..40_000], b"221 Bye\r\n"].concat());
                assert_eq!(pair.client.reader().read(&mut [0]).unwrap(), 0);
            }
        }
    }

    #[test]
    fn a_greeting_goes_out_with_the_handshake_where_that_can_be() {
        const GREETING: &[u8] = b"220 mail.test ESMTP\r\n";
        for (version, greets) in [(&version::TLS12, false), (&version::TLS13, true)] {
            let mut pair = Pair::new(version);
            pair.engine.greeting = GREETING.to_vec();
            let hello = pair.sent();
            pair.bring(&hello, usize::MAX).unwrap();
            pair.answer().unwrap();
            assert_eq!(pair.engine.greeting.is_empty(), greets);
            // The client has not said the last word, and can read all the same.
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
    fn a_client_that_says_no_more_is_still_answered() {
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
    fn who_breaks_the_protocol_is_told_and_heard_no_more() {
        let mut pair = Pair::new(&version::TLS13);
        assert!(pair.bring(b"EHLO client.test\r\n", usize::MAX).is_err());
        // An alert (RFC 8446, 6): of its record the type, then level fatal.
        assert_eq!((pair.engine.unsent[0], pair.engine.unsent[5]), (21, 2));
        assert!(pair.bring(b"EHLO client.test\r\n", usize::MAX).is_err());
        assert!(pair.say(b"500\r\n", true).is_err());
    }

    #[tokio::test]
    async fn a_handshake_in_crumbs_is_not_collected_for_ever() {
        // A ClientHello of 65,535 octets, one in each record (RFC 8446, 4 and 5.1).
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
        let accepted = Secured::accept(Arc::new(config), tcp, None, Vec::new()).await;
        let error = accepted.err().expect("too long a message").to_string();
        assert!(error.contains("longer than any"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// At most the octets before the damage are taken for the client's, and no damage is our undoing.
        #[test]
        fn damage_is_noticed(at in 0_usize..2500, to: u8, pieces in 1_usize..3000, tls13: bool) {
            let mut pair = Pair::new(if tls13 { &version::TLS13 } else { &version::TLS12 });
            let words: Vec<u8> = (0..2000_u32).map(|at| at.to_le_bytes()[0]).collect();
            let mut position = 0;
            for turn in 0..8 {
                if turn == 4 && !pair.client.is_handshaking() {
                    // It may have given up.
                    let _ = pair.client.writer().write_all(&words);
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
            prop_assert!(words.starts_with(&pair.heard));
        }
    }
}
