//! The connection to the upstream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};

use crate::net::buffer::{Buffer, LINES};
use crate::net::connector::Connector;
use crate::net::stream::{LocalStream, UpstreamStream};
use crate::net::tls::io_error_text;
use crate::net::upstream_pool::UpstreamHost;
use crate::smtp::relay::{Expect, Relay};
use crate::smtp::reply::{RawReply, ReplyFault};
use crate::smtp::upstream::FailureCause;

/// An upstream connection. After the handover the connection serves a single client until closed.
#[derive(Debug)]
pub struct Upstream {
    pub host: Arc<UpstreamHost>,
    stream: UpstreamStream,
    input: Buffer,
    /// The length of the reply found at the front of `input`.
    found: usize,
    /// Queued for the next send.
    pub output: Vec<u8>,
    /// Octets of `output` already sent by a cancelled send.
    sent: usize,
    /// Where the last end of data stops in `output`.
    end_of_data: usize,
    /// The replies due from the upstream.
    pub relay: Relay,
}

impl Upstream {
    pub fn new(stream: LocalStream, host: Arc<UpstreamHost>) -> Self {
        Self {
            host,
            stream: UpstreamStream::Clear(stream),
            input: Buffer::default(),
            found: 0,
            output: Vec::new(),
            sent: 0,
            end_of_data: 0,
            relay: Relay::default(),
        }
    }

    /// Queues a command, given without CRLF.
    pub fn forward(&mut self, line: &[u8], expect: Expect) {
        self.output.extend_from_slice(line);
        self.output.extend_from_slice(b"\r\n");
        self.relay.expect(expect);
    }

    /// Marks the queued octets as a complete message.
    pub fn end_message(&mut self) {
        self.end_of_data = self.output.len();
        self.relay.expect(Expect::EndOfData);
    }

    /// Whether the upstream has received a complete message without answering. The upstream may
    /// then deliver the message even if the connection breaks.
    pub fn has_message(&self) -> bool {
        self.relay.awaits_message() && self.sent >= self.end_of_data
    }

    /// Sends the queued output. Reads replies meanwhile, so that an upstream waiting for its reader
    /// cannot block the send. Safe to cancel and call again.
    pub async fn send(&mut self) -> io::Result<()> {
        // TLS may hold records back, so the loop ends with a flush.
        while !poll_fn(|context| self.poll_send(context)).await? {}
        self.output.clear();
        (self.sent, self.end_of_data) = (0, 0);
        Ok(())
    }

    /// Returns true once everything is flushed.
    fn poll_send(&mut self, context: &mut Context) -> Poll<io::Result<bool>> {
        let stream = Pin::new(&mut self.stream);
        let rest = &self.output[self.sent..];
        let written = if rest.is_empty() {
            stream.poll_flush(context).map_ok(|()| true)
        } else {
            stream.poll_write(context, rest).map(|written| {
                self.sent += zero_is_eof(written?)?;
                Ok(false)
            })
        };
        if let Poll::Ready(Ok(_)) = written {
            return written;
        }
        // Without a pending reply, as inside a body, input is unsolicited; such an upstream may
        // have stopped reading.
        let due = !self.relay.is_idle();
        let read = self.input.poll_read_from(&mut self.stream, context, LINES);
        if written.is_ready() {
            return written;
        }
        read.map(|read| match zero_is_eof(read?)? {
            _ if due => Ok(false),
            _ => Err(io::ErrorKind::InvalidData.into()),
        })
    }

    /// Waits for more input. Safe to cancel.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.input
            .read_from(&mut self.stream, LINES)
            .await
            .and_then(zero_is_eof)
            .map(drop)
    }

    /// Reads until a whole reply or a malformed reply is buffered. Safe to cancel.
    pub async fn rest_of_reply(&mut self) -> io::Result<()> {
        while matches!(RawReply::parse(self.input.unread()), Ok(None)) {
            self.readable().await?;
        }
        Ok(())
    }

    /// Returns the reply at the front of the buffer, if complete.
    pub fn reply(&mut self) -> Result<Option<(RawReply<'_>, &mut Relay)>, ReplyFault> {
        let reply = RawReply::parse(self.input.unread())?;
        self.found = reply.map_or(0, |reply| reply.bytes.len());
        Ok(reply.map(|reply| (reply, &mut self.relay)))
    }

    /// Removes the reply found by [`Upstream::reply`].
    pub fn consume_reply(&mut self) {
        self.input.consume(std::mem::take(&mut self.found));
    }

    /// Writes and flushes `bytes` at once.
    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Starts TLS on the connection.
    pub async fn secure(&mut self, connector: &Connector) -> io::Result<()> {
        match std::mem::replace(&mut self.stream, UpstreamStream::Gone) {
            UpstreamStream::Clear(stream) => {
                self.stream = connector.connect(stream).await?;
                Ok(())
            }
            UpstreamStream::Gone | UpstreamStream::Tls(_) => {
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    /// Whether unread input is buffered.
    pub fn has_unread_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Waits for a whole reply.
    pub async fn next_reply(&mut self) -> Result<RawReply<'_>, FailureCause> {
        while RawReply::parse(self.input.unread())?.is_none() {
            match self.input.read_from(&mut self.stream, LINES).await {
                Ok(0) => return Err(FailureCause::Closed),
                Ok(_) => {}
                Err(error) => return Err(FailureCause::Io(io_error_text(&error))),
            }
        }
        self.reply()?
            .map(|(reply, _)| reply)
            .ok_or(FailureCause::Closed)
    }

    /// Sends QUIT without waiting for the reply.
    pub async fn quit(&mut self) {
        // A failed write means that the connection is already closed.
        let _ = self.say(b"QUIT\r\n").await;
    }
}

fn zero_is_eof(count: usize) -> io::Result<usize> {
    if count == 0 {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(count)
    }
}
