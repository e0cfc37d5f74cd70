//! A blocking SMTP client that says exactly what a test wants said, byte for byte.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, StreamOwned};

use super::site::{Credential, Site};
use super::{PATIENCE, tls};

/// One session. Methods that expect something panic with what came instead.
pub struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    /// Connects without waiting for the greeting.
    pub fn dial(server: SocketAddr) -> io::Result<Client> {
        Client::dial_from(Ipv4Addr::LOCALHOST.into(), server)
    }

    /// Connects from a chosen loopback address, such as 127.0.0.7, which the upstream's log can
    /// then be searched for.
    pub fn dial_from(local: IpAddr, server: SocketAddr) -> io::Result<Client> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(local, 0).into())?;
        socket.connect(&server.into())?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Client {
            stream: BufReader::new(Stream::Plain(socket.into())),
        })
    }

    /// A greeted session in the clear on the STARTTLS listener.
    pub fn submission(site: &Site) -> Client {
        Client::greeted(Client::dial(site.submission).expect("connect"))
    }

    /// A greeted session on the implicit TLS listener.
    pub fn submissions(site: &Site) -> Client {
        Client::greeted(Client::dial(site.submissions).expect("connect").over_tls())
    }

    /// A session on the implicit TLS listener that has proved to be `credential`.
    pub fn logged_in(site: &Site, credential: &Credential) -> Client {
        let mut client = Client::submissions(site);
        client.log_in(credential);
        client
    }

    /// The same from a chosen loopback address.
    pub fn logged_in_from(address: &str, site: &Site, credential: &Credential) -> Client {
        let client = Client::dial_from(address.parse().unwrap(), site.submissions);
        let mut client = Client::greeted(client.expect("connect").over_tls());
        client.log_in(credential);
        client
    }

    fn greeted(mut self) -> Client {
        self.reply().expect("220");
        self
    }

    /// Does the TLS handshake now. Bytes the server sent in the clear beyond its last reply would
    /// be an injection into the session, so there must be none.
    pub fn over_tls(self) -> Client {
        self.over_tls_by(tls::session())
    }

    /// The same as the client that `session` is of.
    pub fn over_tls_by(self, mut session: ClientConnection) -> Client {
        assert!(
            self.stream.buffer().is_empty(),
            "clear text behind the reply to STARTTLS"
        );
        let Stream::Plain(mut socket) = self.stream.into_inner() else {
            panic!("TLS inside TLS")
        };
        while session.is_handshaking() {
            session.complete_io(&mut socket).expect("TLS handshake");
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(session, socket)));
        Client {
            stream: BufReader::new(stream),
        }
    }

    /// EHLO, STARTTLS, the handshake; the EHLO of the new session is left to the caller.
    pub fn starttls(self) -> Client {
        self.starttls_by(tls::session())
    }

    /// The same as the client that `session` is of.
    pub fn starttls_by(mut self, session: ClientConnection) -> Client {
        self.expect("EHLO client.example", "250");
        self.expect("STARTTLS", "220");
        self.over_tls_by(session)
    }

    /// The certificate the server showed.
    pub fn certificate(&self) -> CertificateDer<'static> {
        let Stream::Tls(tls) = self.stream.get_ref() else {
            panic!("no TLS here")
        };
        tls.conn.peer_certificates().expect("a certificate")[0]
            .clone()
            .into_owned()
    }

    /// Writes bytes as they are, in one write.
    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).expect("write");
    }

    /// Like [`Client::write`], for a peer that may be gone.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Writes each piece as a TLS record of its own, all of them in one write.
    pub fn write_records<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        let Stream::Tls(tls) = self.stream.get_mut() else {
            panic!("no TLS here")
        };
        for piece in pieces {
            tls.conn.writer().write_all(piece).expect("encrypt");
        }
        tls.flush().expect("write");
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn finish(&mut self) {
        let Stream::Tls(tls) = self.stream.get_mut() else {
            panic!("no TLS here")
        };
        tls.conn.send_close_notify();
        tls.flush().expect("flush");
    }

    /// Closes the connection in the way that says nothing, neither inside TLS nor outside.
    pub fn reset(self) {
        let socket = match self.stream.get_ref() {
            Stream::Plain(socket) => socket,
            Stream::Tls(tls) => &tls.sock,
        };
        let linger = socket2::SockRef::from(socket).set_linger(Some(std::time::Duration::ZERO));
        linger.expect("a reset at the close");
    }

    /// Sends one command line and reads the reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.write(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends one command line; the reply must begin with `start`, as in `"250 2.1.0"`.
    #[track_caller]
    pub fn expect(&mut self, line: &str, start: &str) -> Reply {
        let reply = self.command(line);
        assert!(
            reply.starts_with(start),
            "to {line:?} expected {start:?}, got {reply:?}"
        );
        reply
    }

    /// The next reply.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply, but the server closed")
    }

    /// The next reply, or `None` where the server closed.
    #[track_caller]
    pub fn try_reply(&mut self) -> Option<Reply> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line);
            if last {
                return Some(Reply { lines });
            }
        }
    }

    /// The next line of a reply without its CRLF, or `None` where the server closed.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if is_close(&error) => return None,
            Err(error) => panic!("reading a reply: {error}"),
        }
        let text = line
            .strip_suffix(b"\r\n")
            .expect("a reply line ends in CRLF");
        Some(String::from_utf8(text.to_vec()).expect("replies are ASCII or UTF-8"))
    }

    /// The server must have closed with nothing more to say.
    #[track_caller]
    pub fn expect_close(&mut self) {
        assert_eq!(self.line(), None, "expected the end of the connection");
    }

    /// EHLO and AUTH PLAIN, which must succeed.
    #[track_caller]
    pub fn log_in(&mut self, credential: &Credential) {
        self.expect("EHLO client.example", "250");
        self.auth_plain(credential).expect("235 2.7.0");
    }

    /// AUTH PLAIN with an initial response.
    #[track_caller]
    pub fn auth_plain(&mut self, credential: &Credential) -> Reply {
        self.command(&format!("AUTH PLAIN {}", credential.plain()))
    }

    /// AUTH LOGIN, challenge by challenge.
    #[track_caller]
    pub fn auth_login(&mut self, credential: &Credential) -> Reply {
        self.expect("AUTH LOGIN", "334 VXNlcm5hbWU6");
        self.expect(&STANDARD.encode(&credential.username), "334 UGFzc3dvcmQ6");
        self.command(&STANDARD.encode(&credential.password))
    }

    /// MAIL, RCPT and DATA up to the 354.
    #[track_caller]
    pub fn begin_message(&mut self) {
        self.expect("MAIL FROM:<sender@example.test>", "250");
        self.expect("RCPT TO:<box@example.test>", "250");
        self.expect("DATA", "354");
    }

    /// A whole message with dots stuffed; the reply to its end.
    #[track_caller]
    pub fn send_message(&mut self, body: &[u8]) -> Reply {
        self.begin_message();
        self.write(&stuffed(body));
        self.reply()
    }
}

/// A body as it travels: dots stuffed, `CRLF.CRLF` behind it. `body` ends in CRLF.
pub fn stuffed(body: &[u8]) -> Vec<u8> {
    assert!(
        body.ends_with(b"\r\n"),
        "the end of data needs a line of its own"
    );
    let mut wire = Vec::with_capacity(body.len() + 64);
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// One reply of one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The lines without CRLF.
    pub lines: Vec<String>,
}

impl Reply {
    /// Whether the last line begins with `start`.
    pub fn starts_with(&self, start: &str) -> bool {
        self.lines
            .last()
            .is_some_and(|line| line.starts_with(start))
    }

    /// Whether some line offers the extension `keyword`, as in `AUTH` or `AUTH PLAIN LOGIN`.
    pub fn offers(&self, keyword: &str) -> bool {
        self.lines.iter().skip(1).any(|line| {
            let rest = line[4..].strip_prefix(keyword);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
    }

    /// The reply must begin with `start`.
    #[track_caller]
    pub fn expect(self, start: &str) -> Reply {
        assert!(self.starts_with(start), "expected {start:?}, got {self:?}");
        self
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(buffer),
            Stream::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

/// A close that came as a reset, or without TLS's farewell, is a close all the same: whoever is
/// killed says neither.
fn is_close(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}
