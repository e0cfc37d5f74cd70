//! Clocks that a test drives in its own thread.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::{Clock, Source};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Clock>>> = const { RefCell::new(None) };
}

/// A test's control over both clocks. The thread gets the system's clocks back on drop.
pub struct Driven(Arc<Hands>);

pub struct Hands {
    wall: AtomicI64,
    passed: AtomicI64,
    boots: AtomicU32,
}

impl Driven {
    /// Starts with the wall clock at a Unix millisecond.
    pub fn at(wall: i64) -> Self {
        let hands = Arc::new(Hands {
            wall: AtomicI64::new(wall),
            passed: AtomicI64::new(3_600_000),
            boots: AtomicU32::new(0),
        });
        let driven = Self(hands);
        driven.restart();
        driven
    }

    pub fn wall(&self) -> i64 {
        self.0.wall()
    }

    /// Advances both clocks, in milliseconds.
    pub fn pass(&self, milliseconds: i64) {
        self.0.passed.fetch_add(milliseconds, Ordering::Relaxed);
        self.step(milliseconds);
    }

    /// Steps the wall clock alone.
    pub fn step(&self, milliseconds: i64) {
        self.0.wall.fetch_add(milliseconds, Ordering::Relaxed);
    }

    /// Starts a new process: the clocks forget their history.
    pub fn restart(&self) {
        let clock = Clock::new(Source::new(super::Hands::Driven(self.0.clone())));
        CURRENT.set(Some(Arc::new(clock)));
    }

    /// Reboots the machine: the steady clock restarts.
    pub fn reboot(&self) {
        self.0.boots.fetch_add(1, Ordering::Relaxed);
        self.0.passed.store(1_000, Ordering::Relaxed);
        self.restart();
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

impl Hands {
    pub(super) fn wall(&self) -> i64 {
        self.wall.load(Ordering::Relaxed)
    }

    pub(super) fn since_boot_us(&self) -> i64 {
        self.passed.load(Ordering::Relaxed) * 1_000
    }

    pub(super) fn boot(&self) -> String {
        self.boots.load(Ordering::Relaxed).to_string()
    }
}

pub(super) fn current() -> Option<Arc<Clock>> {
    CURRENT.with_borrow(Clone::clone)
}
