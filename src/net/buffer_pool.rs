//! Per-thread buffer pools. A session holds a buffer only while bytes are in it: an idle session
//! holds none, and a busy session gets a buffer that has already grown.

use std::cell::RefCell;

/// Buffers kept per thread.
const SPARE: usize = 8;

/// Larger buffers are freed, in octets. A full read of a message ([`super::buffer::BODY`]) fits.
const KEEP: usize = 256 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Replaces a buffer without capacity by a pooled buffer.
pub fn take(to: &mut Vec<u8>) {
    if to.capacity() == 0 {
        *to = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    }
}

/// Returns an empty buffer's memory to the pool. The caller must have wiped secrets.
pub fn put(from: &mut Vec<u8>) {
    if !from.is_empty() || from.capacity() == 0 {
        return;
    }
    let room = std::mem::take(from);
    if room.capacity() <= KEEP {
        BUFFERS.with_borrow_mut(|buffers| {
            if buffers.len() < SPARE {
                buffers.push(room);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_reuses_buffers_within_bounds() {
        let mut first = Vec::with_capacity(100);
        let mut full = vec![1];
        put(&mut full);
        assert_eq!(full, [1]);
        put(&mut first);
        assert_eq!(first.capacity(), 0);
        take(&mut full);
        assert_eq!(full, [1]);
        take(&mut first);
        assert_eq!((first.len(), first.capacity()), (0, 100));

        put(&mut Vec::with_capacity(KEEP + 1));
        for _ in 0..2 * SPARE {
            put(&mut Vec::with_capacity(10));
        }
        let kept = BUFFERS.with_borrow(|buffers| buffers.iter().map(Vec::capacity).max());
        assert_eq!(kept, Some(10));
        assert_eq!(BUFFERS.with_borrow(Vec::len), SPARE);
    }
}
