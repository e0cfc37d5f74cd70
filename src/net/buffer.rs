//! Input received and not yet parsed.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::buffer_pool;

/// The largest read of commands, replies and handshakes, in octets: the largest TLS 1.3 record (RFC
/// 8446, 5.2).
pub const LINES: usize = 5 + 16 * 1024 + 1 + 16;

/// The largest read of a message, in octets: a whole number of the largest records, so a fast
/// client's reads end at record boundaries.
pub const BODY: usize = 8 * LINES;

/// A waiting buffer with unread input shrinks to this capacity, in octets.
const KEEP: usize = 1024;

thread_local! {
    // Shared by all reads of the thread, so a waiting session needs no buffer.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; BODY]);
}

/// A source of octets.
pub trait ReadInto {
    /// Waits for octets, appends at most `most` of them and returns their number; 0 is the end of
    /// the stream.
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>>;
}

impl<R: AsyncRead + Unpin> ReadInto for R {
    fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        with_scratch(|scratch| {
            let count = ready!(poll_read(self, context, &mut scratch[..most]))?;
            buffer_pool::take(into);
            into.extend_from_slice(&scratch[..count]);
            // The octets may hold a password.
            scratch[..count].fill(0);
            Poll::Ready(Ok(count))
        })
    }
}

/// Runs a read with the thread's scratch buffer.
pub(super) fn with_scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| read(scratch))
}

/// Reads into `room` and returns the number of octets; 0 is the end of the stream.
pub(super) fn poll_read(
    reader: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    room: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut read = ReadBuf::new(room);
    ready!(Pin::new(reader).poll_read(context, &mut read))?;
    Poll::Ready(Ok(read.filled().len()))
}

/// Octets in the order of arrival.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    /// Removes the first `count` octets and wipes them, because they may hold a password.
    pub fn consume(&mut self, count: usize) {
        let end = (self.start + count).min(self.bytes.len());
        self.bytes[self.start..end].fill(0);
        self.skip(count);
    }

    /// Removes the first `count` octets without wiping; only for message octets, which hold no
    /// credential.
    pub fn skip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.is_empty() {
            self.bytes.clear();
            self.start = 0;
            buffer_pool::put(&mut self.bytes);
        }
    }

    /// Moves the first `count` octets to the end of `out`. If `out` is empty and gets most of the
    /// buffer, the two swap their memory and only the rest is copied.
    pub fn drain_into(&mut self, count: usize, out: &mut Vec<u8>) {
        let count = count.min(self.unread().len());
        if out.is_empty() && self.start == 0 && count > self.bytes.len() / 2 {
            std::mem::swap(&mut self.bytes, out);
            self.bytes.extend_from_slice(&out[count..]);
            out.truncate(count);
            buffer_pool::put(&mut self.bytes);
        } else {
            out.extend_from_slice(&self.unread()[..count]);
            self.skip(count);
        }
    }

    /// Removes a range of the unread octets.
    pub fn cut(&mut self, range: Range<usize>) {
        self.bytes
            .drain(self.start + range.start..self.start + range.end);
    }

    /// Removes and wipes everything; returns the number of octets.
    pub fn discard(&mut self) -> usize {
        let count = self.unread().len();
        self.consume(count);
        count
    }

    /// Waits for input and reads at most `most` octets ([`LINES`] or [`BODY`]); returns 0 at the
    /// end of the stream. Safe to cancel.
    pub async fn read_from(
        &mut self,
        source: &mut impl ReadInto,
        most: usize,
    ) -> io::Result<usize> {
        poll_fn(|context| self.poll_read_from(source, context, most)).await
    }

    pub fn poll_read_from(
        &mut self,
        source: &mut impl ReadInto,
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
    async fn bytes_stay_in_order_and_memory_is_released() {
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
    async fn drained_octets_follow_existing_output() {
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
            buffer.skip(consumed);
            buffer.drain_into(count, &mut out);
            let (moved, left) = b"0123456789"[consumed..].split_at(count.min(10 - consumed));
            assert_eq!(out, [begun.as_bytes(), moved].concat());
            assert_eq!(buffer.unread(), left);
        }
    }
}
