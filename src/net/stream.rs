//! The streams of a session: the client's and the upstream's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client;

use super::buffer::ReadInto;
use super::tls_server::TlsServerStream;

pub enum ClientStream {
    Clear(TcpStream),
    /// A handshake in progress owns the socket, or has failed.
    Gone,
    Tls(Box<TlsServerStream>),
}

impl ClientStream {
    /// Returns the TLS version as written in logs, if TLS is active.
    pub fn tls_version(&self) -> Option<&'static str> {
        let Self::Tls(stream) = self else { return None };
        stream.version().map(|version| match version {
            ProtocolVersion::TLSv1_2 => "TLSv1.2",
            ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => "TLS",
        })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Clear(stream) => stream.write_all(bytes).await,
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
            Self::Tls(stream) => stream.send(bytes).await,
        }
    }

    /// Sends the last octets, with close_notify under TLS.
    pub async fn send_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.send_last(bytes).await,
            _ => self.send(bytes).await,
        }
    }
}

impl ReadInto for ClientStream {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Clear(stream) => stream.poll_fill(context, into, most),
            Self::Gone => gone(),
            Self::Tls(stream) => stream.poll_fill(context, into, most),
        }
    }
}

/// A connection to a local service: the upstream, or an smtpd asking for verdicts.
#[derive(Debug)]
pub enum LocalStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Debug)]
pub enum UpstreamStream {
    Clear(LocalStream),
    /// A handshake in progress owns the socket, or has failed.
    Gone,
    Tls(Box<client::TlsStream<LocalStream>>),
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

macro_rules! delegate {
    ($stream:ident: $($variant:ident),* $(; $gone:ident)?) => {
        impl AsyncRead for $stream {
            fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(inner) => Pin::new(inner).poll_read(context, buffer),)* $(Self::$gone => gone(),)? }
            }
        }

        impl AsyncWrite for $stream {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(inner) => Pin::new(inner).poll_write(context, bytes),)* $(Self::$gone => gone(),)? }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(inner) => Pin::new(inner).poll_flush(context),)* $(Self::$gone => gone(),)? }
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(inner) => Pin::new(inner).poll_shutdown(context),)* $(Self::$gone => gone(),)? }
            }
        }
    };
}

delegate!(LocalStream: Tcp, Unix);
delegate!(UpstreamStream: Clear, Tls; Gone);
