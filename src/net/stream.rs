//! The two connections of a session, whatever they are made of.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// A client's connection.
#[derive(Debug)]
pub enum ClientStream {
    /// Before STARTTLS.
    Clear(TcpStream),
    /// Between the two: the handshake has the connection, or has lost it.
    Gone,
    /// Inside TLS.
    Tls(Box<server::TlsStream<TcpStream>>),
}

impl ClientStream {
    /// The version of TLS, as people write it, if there is TLS.
    pub fn tls_version(&self) -> Option<&'static str> {
        let Self::Tls(stream) = self else { return None };
        stream
            .get_ref()
            .1
            .protocol_version()
            .map(|version| match version {
                rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
                rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
                _ => "TLS",
            })
    }
}

/// A connection to a neighbour: the upstream, or an smtpd that asks.
#[derive(Debug)]
pub enum LocalStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// A connection to the upstream.
#[derive(Debug)]
pub enum UpstreamStream {
    /// As it is.
    Clear(LocalStream),
    /// Between the two: the handshake has the connection, or has lost it.
    Gone,
    /// Inside TLS.
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

delegate!(ClientStream: Clear, Tls; Gone);
delegate!(LocalStream: Tcp, Unix);
delegate!(UpstreamStream: Clear, Tls; Gone);
