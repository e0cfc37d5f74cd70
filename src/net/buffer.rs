//! What has been read and not yet understood.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::lent;

/// One read takes at most this much of commands, replies and a handshake, in octets: the largest record of TLS 1.3 (RFC 8446, 5.2).
pub const LINES: usize = 5 + 16 * 1024 + 1 + 16;

/// One read takes at most this much of a message, in octets. Of a client that sends the largest records, and those faster
/// than they are taken, no read brings a part of one.
pub const BODY: usize = 8 * LINES;

/// Of a buffer with the beginning of something in it, more than this is given back while nothing comes, in octets.
const KEEP: usize = 1024;

thread_local! {
    // Reads go through here, so that a session waiting for bytes needs no buffer of its own.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BODY]);
}

/// Where octets come from.
pub trait Fill {
    /// Waits for octets, reads at most so many, and appends them; how many those are, where 0 is the end of the stream.
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>>;
}

impl<R: AsyncRead + Unpin> Fill for R {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        with_scratch(|scratch| {
            let count = ready!(poll_read(self, context, &mut scratch[..most]))?;
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

    /// Moves the first `count` octets behind those in `out`. If that is empty and these are most of what is here, the two
    /// exchange their room, and only the rest is copied.
    pub fn move_to(&mut self, count: usize, out: &mut Vec<u8>) {
        let count = count.min(self.unread().len());
        if out.is_empty() && self.start == 0 && count > self.bytes.len() / 2 {
            std::mem::swap(&mut self.bytes, out);
            self.bytes.extend_from_slice(&out[count..]);
            out.truncate(count);
            lent::give_back(&mut self.bytes);
        } else {
            out.extend_from_slice(&self.unread()[..count]);
            self.pass(count);
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

    /// Waits for more, and reads at most [`LINES`] or [`BODY`]; 0 is the end of the stream. Cancelling loses nothing.
    pub async fn read_from(&mut self, source: &mut impl Fill, most: usize) -> io::Result<usize> {
        poll_fn(|context| self.poll_read_from(source, context, most)).await
    }

    /// [`Buffer::read_from`] as one poll.
    pub fn poll_read_from(
        &mut self,
        source: &mut impl Fill,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let polled = source.poll_fill(context, &mut self.bytes, most);
        if polled.is_pending() {
            self.bytes.shrink_to(KEEP);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(buffer: &mut Buffer, mut from: &[u8], most: usize) -> usize {
        buffer.read_from(&mut from, most).await.unwrap()
    }

    #[tokio::test]
    async fn bytes_come_out_in_order_and_memory_is_given_back() {
        let mut buffer = Buffer::default();
        let long = vec![b'x'; BODY];
        let (mut silent, _other) = tokio::io::duplex(1);
        assert_eq!(read(&mut buffer, b"EHLO a\r\n", LINES).await, 8);
        buffer.consume(5);
        assert_eq!(read(&mut buffer, &long, BODY).await, BODY);
        assert_eq!(read(&mut buffer, &long, LINES).await, LINES);
        assert!(buffer.unread().starts_with(b"a\r\nx"));
        buffer.cut(1..3);
        assert!(buffer.unread().starts_with(b"axx"));
        assert_eq!(buffer.discard(), BODY + LINES + 1);
        let pending = |context: &mut Context<'_>| {
            Poll::Ready(
                buffer
                    .poll_read_from(&mut silent, context, LINES)
                    .is_pending(),
            )
        };
        assert!(poll_fn(pending).await);
        assert!(buffer.is_empty() && buffer.bytes.capacity() == 0);
        assert_eq!(read(&mut buffer, b"", LINES).await, 0);
    }

    #[tokio::test]
    async fn what_is_moved_comes_behind_what_is_there() {
        for (begun, consumed, count) in [
            ("", 0, 10),
            ("", 0, 9),
            ("", 0, 3),
            ("", 0, 0),
            ("", 0, 99),
            ("", 2, 7),
            ("x", 0, 10),
            ("x", 1, 2),
        ] {
            let mut buffer = Buffer::default();
            let mut out = begun.as_bytes().to_vec();
            read(&mut buffer, b"0123456789", LINES).await;
            buffer.pass(consumed);
            buffer.move_to(count, &mut out);
            let (moved, left) = b"0123456789"[consumed..].split_at(count.min(10 - consumed));
            assert_eq!(out, [begun.as_bytes(), moved].concat());
            assert_eq!(buffer.unread(), left);
        }
    }
}
