//! The upstream's connection, while a session has it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};

use crate::net::buffer::{Buffer, LINES};
use crate::net::connector::Connector;
use crate::net::hosts::Host;
use crate::net::stream::{LocalStream, UpstreamStream};
use crate::net::tls::words_of_io;
use crate::smtp::relay::{Expect, Relay};
use crate::smtp::reply::{RawReply, ReplyFault};
use crate::smtp::upstream::FailureCause;

/// An upstream connection; after the hand-over it is one client's for ever.
#[derive(Debug)]
pub struct Upstream {
    /// Where it leads.
    pub host: Arc<Host>,
    stream: UpstreamStream,
    input: Buffer,
    /// How long the reply at the front of `input` is, once it has been found.
    found: usize,
    /// What goes out with the next send.
    pub output: Vec<u8>,
    /// How much of `output` is out, where a send was given up halfway.
    sent: usize,
    /// Where in `output` the last end of data ends.
    end_of_data: usize,
    /// Which replies are due.
    pub relay: Relay,
}

impl Upstream {
    /// Over a fresh connection to one of the upstream's places.
    pub fn new(stream: LocalStream, host: Arc<Host>) -> Self {
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

    /// Queues a command, given without its CRLF.
    pub fn forward(&mut self, line: &[u8], expect: Expect) {
        self.output.extend_from_slice(line);
        self.output.extend_from_slice(b"\r\n");
        self.relay.expect(expect);
    }

    /// Notes that what is queued ends with the end of a message.
    pub fn end_message(&mut self) {
        self.end_of_data = self.output.len();
        self.relay.expect(Expect::EndOfData);
    }

    /// Whether the upstream may have a whole message that it has not answered: then it may deliver
    /// the message, whatever becomes of this connection.
    pub fn has_message(&self) -> bool {
        self.relay.awaits_message() && self.sent >= self.end_of_data
    }

    /// Sends what is queued. Replies that come meanwhile are read, so that an upstream which
    /// waits for us to read them cannot block us. Cancelled, it goes on where it was.
    pub async fn send(&mut self) -> io::Result<()> {
        // What TLS still holds back is not sent, so the end is a flush.
        while !poll_fn(|context| self.poll_send(context)).await? {}
        self.output.clear();
        (self.sent, self.end_of_data) = (0, 0);
        Ok(())
    }

    /// True once everything is out.
    fn poll_send(&mut self, context: &mut Context) -> Poll<io::Result<bool>> {
        let stream = Pin::new(&mut self.stream);
        let rest = &self.output[self.sent..];
        let written = if rest.is_empty() {
            stream.poll_flush(context).map_ok(|()| true)
        } else {
            stream.poll_write(context, rest).map(|written| {
                self.sent += nothing_is_an_end(written?)?;
                Ok(false)
            })
        };
        if let Poll::Ready(Ok(_)) = written {
            return written;
        }
        // With no reply due, as inside a body, it speaks out of turn and may read no more.
        let due = !self.relay.is_idle();
        let read = self.input.poll_read_from(&mut self.stream, context, LINES);
        if written.is_ready() {
            return written;
        }
        read.map(|read| match nothing_is_an_end(read?)? {
            _ if due => Ok(false),
            _ => Err(io::ErrorKind::InvalidData.into()),
        })
    }

    /// Waits until there is more to read. Cancelling loses nothing.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.input
            .read_from(&mut self.stream, LINES)
            .await
            .and_then(nothing_is_an_end)
            .map(drop)
    }

    /// Reads on until there is a whole reply, or what has come is none. Cancelling loses nothing.
    pub async fn rest_of_reply(&mut self) -> io::Result<()> {
        while matches!(RawReply::parse(self.input.unread()), Ok(None)) {
            self.readable().await?;
        }
        Ok(())
    }

    /// The reply at the front of what has been read, if it is whole.
    pub fn reply(&mut self) -> Result<Option<(RawReply<'_>, &mut Relay)>, ReplyFault> {
        let reply = RawReply::parse(self.input.unread())?;
        self.found = reply.map_or(0, |reply| reply.bytes.len());
        Ok(reply.map(|reply| (reply, &mut self.relay)))
    }

    /// Removes the reply that [`Upstream::reply`] found.
    pub fn consume_reply(&mut self) {
        self.input.consume(std::mem::take(&mut self.found));
    }

    /// Sends at once.
    pub async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Puts the connection inside TLS.
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

    /// Whether something was read that nobody has looked at.
    pub fn has_said_more(&self) -> bool {
        !self.input.is_empty()
    }

    /// Waits for a whole reply.
    pub async fn next_reply(&mut self) -> Result<RawReply<'_>, FailureCause> {
        while RawReply::parse(self.input.unread())?.is_none() {
            match self.input.read_from(&mut self.stream, LINES).await {
                Ok(0) => return Err(FailureCause::Closed),
                Ok(_) => {}
                Err(error) => return Err(FailureCause::Io(words_of_io(&error))),
            }
        }
        self.reply()?
            .map(|(reply, _)| reply)
            .ok_or(FailureCause::Closed)
    }

    /// Takes leave without waiting for the answer.
    pub async fn quit(&mut self) {
        // It may be gone already, and then there is nobody to be polite to.
        let _ = self.say(b"QUIT\r\n").await;
    }
}

fn nothing_is_an_end(count: usize) -> io::Result<usize> {
    if count == 0 {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(count)
    }
}
