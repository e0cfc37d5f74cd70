//! What has been read and not yet understood.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::lent;

/// One read takes at most this much, in octets: four whole records of TLS 1.3 (RFC 8446, 5.2), so that of a client that
/// sends such ones faster than they are taken no read brings a part of one.
const READ: usize = 4 * (5 + 16 * 1024 + 1 + 16);

/// Of a buffer with the beginning of something in it, more than this is given back while nothing comes, in octets.
const KEEP: usize = 1024;

thread_local! {
    // Reads go through here, so that a session waiting for bytes needs no buffer of its own.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// Where octets come from.
pub trait Fill {
    /// Waits for octets and appends them; how many those are, where 0 is the end of the stream.
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>>;
}

impl<R: AsyncRead + Unpin> Fill for R {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
    ) -> Poll<io::Result<usize>> {
        with_scratch(|scratch| {
            let count = ready!(poll_read(self, context, scratch))?;
            lent::lend(into);
            into.extend_from_slice(&scratch[..count]);
            // It may have been a password.
            scratch[..count].fill(0);
            Poll::Ready(Ok(count))
        })
    }
}

/// Lends the thread's room for one read.
pub(super) fn with_scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| read(scratch))
}

/// Reads into `room`; how many octets, where 0 is the end of the stream.
pub(super) fn poll_read(
    reader: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut read = ReadBuf::new(room);
    ready!(Pin::new(reader).poll_read(context, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

/// Octets in the order they arrived.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// What has not been consumed.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether everything has been consumed.
    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Removes the first `count` octets, and wipes them: they may have held a password.
    pub fn consume(&mut self, count: usize) {
        let end = (self.start + count).min(self.bytes.len());
        self.bytes[self.start..end].fill(0);
        self.pass(count);
    }

    /// Removes the first `count` octets. They were part of a message, which holds no password of ours.
    pub fn pass(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
            lent::give_back(&mut self.bytes);
        }
    }

    /// Removes a range of the unread octets.
    pub fn cut(&mut self, range: Range<usize>) {
        self.bytes
            .drain(self.start + range.start..self.start + range.end);
    }

    /// Forgets everything; returns how many octets that were.
    pub fn discard(&mut self) -> usize {
        let count = self.unread().len();
        self.consume(count);
        count
    }

    /// Waits for more; 0 is the end of the stream. Cancelling loses nothing.
    pub async fn read_from(&mut self, source: &mut impl Fill) -> io::Result<usize> {
        poll_fn(|context| self.poll_read_from(source, context)).await
    }

    /// [`Buffer::read_from`] as one poll.
    pub fn poll_read_from(
        &mut self,
        source: &mut impl Fill,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let polled = source.poll_fill(context, &mut self.bytes);
        if polled.is_pending() {
            self.bytes.shrink_to(KEEP);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_out_in_order_and_memory_is_given_back() {
        let mut buffer = Buffer::default();
        let long = vec![b'x'; READ];
        let (mut silent, _other) = tokio::io::duplex(1);
        assert_eq!(buffer.read_from(&mut &b"EHLO a\r\n"[..]).await.unwrap(), 8);
        buffer.consume(5);
        assert_eq!(buffer.read_from(&mut &long[..]).await.unwrap(), READ);
        assert!(buffer.unread().starts_with(b"a\r\nx"));
        buffer.cut(1..3);
        assert!(buffer.unread().starts_with(b"axx"));
        assert_eq!(buffer.discard(), READ + 1);
        let pending = |context: &mut Context<'_>| {
            Poll::Ready(buffer.poll_read_from(&mut silent, context).is_pending())
        };
        assert!(poll_fn(pending).await);
        assert!(buffer.is_empty() && buffer.bytes.capacity() == 0);
        assert_eq!(buffer.read_from(&mut &b""[..]).await.unwrap(), 0);
    }
}
