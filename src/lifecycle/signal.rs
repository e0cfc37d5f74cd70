//! Signals to a running session: drain soon or end at once.
//!
//! Checking the current signal costs a session one atomic load, on any thread. A cancellation token
//! shared by all sessions would take the same lock at every wake.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use slab::Slab;

/// In order of urgency: a later variant overrides an earlier one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Signal {
    /// Finish current work, then end.
    Drain = 1,
    /// End at once, because the daemon stops.
    Abandon,
    /// End at once, at an administrator's request.
    Disconnect,
}

/// The signal of one task. Cheap to clone. Only one task may wait for the signal.
#[derive(Clone, Debug, Default)]
pub struct SessionSignal(Arc<Inbox>);

#[derive(Debug, Default)]
struct Inbox {
    /// Changes only while `waiting` is locked.
    order: AtomicU8,
    /// The waiting task's waker, taken by the next signal.
    waiting: Mutex<Option<Waker>>,
}

impl SessionSignal {
    /// Sends a signal, unless an equal or more urgent signal was sent already. Each new signal
    /// wakes the waiting task, even if not urgent enough to end the wait.
    pub fn send(&self, order: Signal) {
        let mut waiting = self.0.lock();
        if self.current() < Some(order) {
            self.0.order.store(order as u8, Ordering::Release);
            if let Some(waker) = waiting.take() {
                drop(waiting);
                waker.wake();
            }
        }
    }

    /// Returns the most urgent signal so far.
    pub fn current(&self) -> Option<Signal> {
        let order = self.0.order.load(Ordering::Acquire);
        [Signal::Disconnect, Signal::Abandon, Signal::Drain]
            .into_iter()
            .find(|each| *each as u8 == order)
    }

    /// Waits for this signal or a more urgent one, and returns the signal. Only one task may wait.
    pub async fn at_least(&self, order: Signal) -> Signal {
        // The registered waker and the signal at registration: only a new signal removes the waker.
        let mut left: Option<(Waker, Option<Signal>)> = None;
        poll_fn(|context| {
            let waker = context.waker();
            let is_left = |(known, told): &(Waker, Option<Signal>)| {
                *told == self.current() && known.will_wake(waker)
            };
            if self.current() < Some(order) && !left.as_ref().is_some_and(is_left) {
                let mut waiting = self.0.lock();
                *waiting = Some(waker.clone());
                left = Some((waker.clone(), self.current()));
            }
            match self.current().filter(|given| *given >= order) {
                Some(given) => Poll::Ready(given),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Registry(Arc<Mutex<Slab<SessionSignal>>>);

impl Registry {
    pub(super) fn register(&self) -> Registration {
        let signal = SessionSignal::default();
        let place = self.with(|all| all.insert(signal.clone()));
        Registration {
            registry: self.clone(),
            place,
            signal,
        }
    }

    pub(super) fn send(&self, order: Signal) {
        self.with(|all| {
            for (_, each) in &*all {
                each.send(order);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Slab<SessionSignal>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A session's registration, removed on drop.
#[derive(Debug)]
pub struct Registration {
    registry: Registry,
    place: usize,
    pub signal: SessionSignal,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.with(|all| drop(all.remove(self.place)));
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Context;

    use super::*;

    fn poll_once(future: Pin<&mut impl Future>) -> Poll<()> {
        future
            .poll(&mut Context::from_waker(Waker::noop()))
            .map(drop)
    }

    #[tokio::test]
    async fn most_urgent_signal_wins() {
        let signal = SessionSignal::default();
        let waiting = tokio::spawn({
            let signal = signal.clone();
            async move {
                // The wait moves to another task and must wake there.
                let mut wait = Box::pin(signal.at_least(Signal::Abandon));
                let begun = poll_once(wait.as_mut());
                assert!(begun.is_pending());
                wait.await
            }
        });
        tokio::task::yield_now().await;
        signal.send(Signal::Drain);
        tokio::task::yield_now().await;
        assert_eq!(signal.at_least(Signal::Drain).await, Signal::Drain);
        assert!(!waiting.is_finished());
        signal.send(Signal::Disconnect);
        signal.send(Signal::Abandon);
        assert_eq!(waiting.await.unwrap(), Signal::Disconnect);
        assert_eq!(signal.current(), Some(Signal::Disconnect));
    }

    #[test]
    fn dropped_registration_gets_no_signal() {
        let registry = Registry::default();
        let (left, stays) = (registry.register(), registry.register());
        let told = left.signal.clone();
        drop(left);
        registry.send(Signal::Drain);
        assert_eq!(
            (told.current(), stays.signal.current()),
            (None, Some(Signal::Drain))
        );
        drop(stays);
        assert!(registry.with(|all| all.is_empty()));
    }
}
