//! What a session that runs is told from outside: to come to its end, soon or at once.
//!
//! To ask costs a session next to nothing, however often it wakes and on whatever thread. A token shared by all would
//! take the same lock in each of them, every time.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use slab::Slab;

/// The later ones go before the earlier.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Order {
    /// Finish what is under way, then end.
    Drain = 1,
    /// End at once, as everybody else.
    Abandon,
    /// End at once, because somebody wants this one to.
    Disconnect,
}

/// What one task was told. Cheap to clone. Only one task may wait for orders.
#[derive(Clone, Debug, Default)]
pub struct Orders(Arc<Inbox>);

#[derive(Debug, Default)]
struct Inbox {
    /// Changes only while `waiting` is locked.
    order: AtomicU8,
    /// Left there by who waits, until the next order.
    waiting: Mutex<Option<Waker>>,
}

impl Orders {
    /// Tells it this, unless it was told this already or something more urgent. Whoever waits is woken by each order that
    /// is news, also one that is not urgent enough to end the wait.
    pub fn give(&self, order: Order) {
        let mut waiting = self.0.lock();
        if self.given() < Some(order) {
            self.0.order.store(order as u8, Ordering::Release);
            if let Some(waker) = waiting.take() {
                drop(waiting);
                waker.wake();
            }
        }
    }

    /// What it was told, if anything.
    pub fn given(&self) -> Option<Order> {
        let order = self.0.order.load(Ordering::Acquire);
        [Order::Disconnect, Order::Abandon, Order::Drain]
            .into_iter()
            .find(|each| *each as u8 == order)
    }

    /// Resolves once it was told this or something more urgent; to what. One may wait at a time.
    pub async fn at_least(&self, order: Order) -> Order {
        // The waker that was left, and what had been told by then: only a further order takes it away.
        let mut left: Option<(Waker, Option<Order>)> = None;
        poll_fn(|context| {
            let waker = context.waker();
            let is_left = |(known, told): &(Waker, Option<Order>)| {
                *told == self.given() && known.will_wake(waker)
            };
            if self.given() < Some(order) && !left.as_ref().is_some_and(is_left) {
                let mut waiting = self.0.lock();
                *waiting = Some(waker.clone());
                left = Some((waker.clone(), self.given()));
            }
            match self.given().filter(|given| *given >= order) {
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

/// All who take orders.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster(Arc<Mutex<Slab<Orders>>>);

impl Roster {
    pub(super) fn enlist(&self) -> Enlisted {
        let orders = Orders::default();
        let place = self.with(|all| all.insert(orders.clone()));
        Enlisted {
            roster: self.clone(),
            place,
            orders,
        }
    }

    pub(super) fn give(&self, order: Order) {
        self.with(|all| {
            for (_, each) in &*all {
                each.give(order);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Slab<Orders>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes orders until it is dropped.
#[derive(Debug)]
pub struct Enlisted {
    roster: Roster,
    place: usize,
    /// What it is told.
    pub orders: Orders,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.roster.with(|all| drop(all.remove(self.place)));
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
    async fn orders_are_awaited_and_the_more_urgent_one_counts() {
        let orders = Orders::default();
        let waiting = tokio::spawn({
            let orders = orders.clone();
            async move {
                // Begun elsewhere, the wait is woken where it goes on.
                let mut wait = Box::pin(orders.at_least(Order::Abandon));
                let begun = poll_once(wait.as_mut());
                assert!(begun.is_pending());
                wait.await
            }
        });
        tokio::task::yield_now().await;
        orders.give(Order::Drain);
        tokio::task::yield_now().await;
        assert_eq!(orders.at_least(Order::Drain).await, Order::Drain);
        assert!(!waiting.is_finished());
        orders.give(Order::Disconnect);
        orders.give(Order::Abandon);
        assert_eq!(waiting.await.unwrap(), Order::Disconnect);
        assert_eq!(orders.given(), Some(Order::Disconnect));
    }

    #[test]
    fn whoever_has_left_is_told_nothing() {
        let roster = Roster::default();
        let (left, stays) = (roster.enlist(), roster.enlist());
        let told = left.orders.clone();
        drop(left);
        roster.give(Order::Drain);
        assert_eq!(
            (told.given(), stays.orders.given()),
            (None, Some(Order::Drain))
        );
        drop(stays);
        assert!(roster.with(|all| all.is_empty()));
    }
}
