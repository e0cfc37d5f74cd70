//! One end of a connection, with TLS or without. It holds no buffers of its own while nothing waits in it: what is read
//! goes through buffers of the thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use rustls::{Connection, HandshakeKind};
use socket2::{Domain, SockAddr, Socket, Type};

/// What one read takes: enough that a full socket buffer needs few.
const SCRATCH: usize = 64 * 1024;

/// What a thread reads into and hands on.
pub struct Buffers {
    scratch: Vec<u8>,
    /// What the last [`Link::receive`] brought, without TLS.
    pub plain: Vec<u8>,
}

impl Buffers {
    pub fn new() -> Buffers {
        Buffers {
            scratch: vec![0; SCRATCH],
            plain: Vec::with_capacity(2 * SCRATCH),
        }
    }
}

/// What is left after a read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Nothing will come any more.
    Closed,
    /// Nothing until the next event.
    Drained,
    /// Perhaps something.
    More,
}

/// A connection in either direction.
pub struct Link {
    stream: TcpStream,
    tls: Option<Box<Connection>>,
    unsent: Vec<u8>,
}

impl Link {
    /// Without TLS. `stream` must not block.
    pub fn plain(stream: TcpStream) -> Link {
        Link {
            stream,
            tls: None,
            unsent: Vec::new(),
        }
    }

    /// With TLS from the next byte on.
    pub fn secure(&mut self, tls: impl Into<Connection>) {
        let mut tls = tls.into();
        tls.set_buffer_limit(None);
        self.tls = Some(Box::new(tls));
    }

    /// Has both directions reported under `token`, each time something changes.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(
            &mut self.stream,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Whether TLS has begun.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the handshake was a resumed one, once it is over.
    pub fn is_resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Reads once; what came is in [`Buffers::plain`].
    ///
    /// `to_end` says that the other side has closed: otherwise a read that fills less than the buffer was the last one.
    pub fn receive(&mut self, buffers: &mut Buffers, to_end: bool) -> io::Result<Received> {
        buffers.plain.clear();
        let read = match self.stream.read(&mut buffers.scratch) {
            Ok(0) => return Ok(Received::Closed),
            Ok(read) => read,
            Err(error) if is_not_now(&error) => return Ok(Received::Drained),
            Err(error) => return Err(error),
        };
        match &mut self.tls {
            Some(tls) => decrypt(tls, &buffers.scratch[..read], &mut buffers.plain)?,
            None => buffers.plain.extend_from_slice(&buffers.scratch[..read]),
        }
        Ok(if read == SCRATCH || to_end {
            Received::More
        } else {
            Received::Drained
        })
    }

    /// Sends as much as the socket takes and keeps the rest for [`Link::flush`].
    pub fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.tls.is_none() && self.unsent.is_empty() {
            match self.stream.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if is_not_now(&error) => {}
                Err(error) => return Err(error),
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
        self.put(bytes)?;
        self.flush()
    }

    /// Takes `bytes` to be sent with what comes next.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None => self.unsent.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> io::Result<()> {
        let result = match &mut self.tls {
            Some(tls) => drain(tls, &mut self.stream),
            None => drain_plain(&mut self.unsent, &mut self.stream),
        };
        match result {
            Err(error) if is_not_now(&error) => Ok(()),
            other => other,
        }
    }

    /// Whether something waits that the socket did not take.
    pub fn is_blocked(&self) -> bool {
        let wants = self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        wants || !self.unsent.is_empty()
    }

    /// Says goodbye to the other side's reader.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        let _ = self.flush();
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

fn decrypt(tls: &mut Connection, mut wire: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    while !wire.is_empty() {
        tls.read_tls(&mut wire)?;
        let state = tls
            .process_new_packets()
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let start = plain.len();
        plain.resize(start + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plain[start..])?;
    }
    Ok(())
}

fn drain(tls: &mut Connection, stream: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(stream)?;
    }
    Ok(())
}

fn drain_plain(unsent: &mut Vec<u8>, stream: &mut TcpStream) -> io::Result<()> {
    let mut sent = 0;
    let result = loop {
        if sent == unsent.len() {
            break Ok(());
        }
        match stream.write(&unsent[sent..]) {
            Ok(more) => sent += more,
            Err(error) => break Err(error),
        }
    };
    unsent.drain(..sent);
    if unsent.is_empty() {
        *unsent = Vec::new();
    }
    result
}

/// Not yet connected, or full: an event says when to go on.
fn is_not_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}

/// Begins to connect, from this address where one is given.
pub fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<Link> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(from) = from {
        socket.bind(&SockAddr::from(SocketAddr::from((from, 0))))?;
    }
    match socket.connect(&SockAddr::from(to)) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error),
        _ => {}
    }
    Ok(Link::plain(TcpStream::from_std(socket.into())))
}

/// EINPROGRESS on Linux.
const IN_PROGRESS: i32 = 115;

/// Listens beside others on the same address.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The next connection that waits, if any.
pub fn accept(listener: &TcpListener) -> io::Result<Option<(Link, SocketAddr)>> {
    match listener.accept() {
        Ok((stream, peer)) => {
            stream.set_nodelay(true)?;
            Ok(Some((Link::plain(stream), peer)))
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
