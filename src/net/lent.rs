//! Buffers that belong to the thread: a session has one only while bytes are in it, so an idle one has none, and a busy
//! one finds a buffer that has grown already.

use std::cell::RefCell;

/// How many of them a thread keeps.
const SPARE: usize = 8;

/// A larger one is not kept, in octets. What a read of a message brings ([`super::buffer::BODY`]) has room in it.
const KEEP: usize = 256 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// One of the thread's in place of a buffer that has no room at all.
pub fn lend(to: &mut Vec<u8>) {
    if to.capacity() == 0 {
        *to = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    }
}

/// Takes the room of a buffer in which nothing is. Whatever was secret in it must have been wiped.
pub fn give_back(from: &mut Vec<u8>) {
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
    fn room_goes_round_within_bounds() {
        let mut first = Vec::with_capacity(100);
        let mut full = vec![1];
        give_back(&mut full);
        assert_eq!(full, [1]);
        give_back(&mut first);
        assert_eq!(first.capacity(), 0);
        lend(&mut full);
        assert_eq!(full, [1]);
        lend(&mut first);
        assert_eq!((first.len(), first.capacity()), (0, 100));

        give_back(&mut Vec::with_capacity(KEEP + 1));
        for _ in 0..2 * SPARE {
            give_back(&mut Vec::with_capacity(10));
        }
        let kept = BUFFERS.with_borrow(|buffers| buffers.iter().map(Vec::capacity).max());
        assert_eq!(kept, Some(10));
        assert_eq!(BUFFERS.with_borrow(Vec::len), SPARE);
    }
}
