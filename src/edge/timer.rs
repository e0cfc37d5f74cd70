//! Timers for a session. The deadline moves with every command, but tokio's timer is reset only
//! when it fires early, so a busy session costs the runtime nothing.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// Like [`timeout`], for futures that are nearly always ready: reads the clock only when the first
/// poll is pending.
pub async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let at_once = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    match at_once {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => timeout(limit, future).await,
    }
}

/// Runs `future` and adds its duration to `waited`, unless the first poll was ready.
pub async fn timed<F: Future>(future: F, waited: &mut Duration) -> F::Output {
    let mut future = pin!(future);
    let at_once = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    if let Poll::Ready(output) = at_once {
        return output;
    }
    let begun = Instant::now();
    let output = future.await;
    *waited += begun.elapsed();
    output
}

/// The minimum rate of a message, measured over consecutive windows; the first window is free.
#[derive(Debug)]
pub struct Floor {
    /// When the current window began.
    began: Instant,
    /// Octets received in the current window.
    octets: u64,
    is_first: bool,
}

impl Floor {
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            octets: 0,
            is_first: true,
        }
    }

    pub fn add(&mut self, octets: usize) {
        self.octets = self.octets.saturating_add(octets as u64);
    }

    /// Excludes a period in which the client could not send.
    pub fn pause(&mut self, time: Duration) {
        self.began += time;
    }

    pub fn end(&self, window: Duration) -> Instant {
        self.began + window
    }

    /// Whether the current window is still open, or received at least `rate` octets a second; a met
    /// window starts the next.
    pub fn is_met(&mut self, now: Instant, window: Duration, rate: u64) -> bool {
        if now < self.end(window) {
            return true;
        }
        let least = u128::from(rate) * window.as_millis() / 1000;
        let is_met = self.is_first || u128::from(self.octets) >= least;
        if is_met {
            *self = Self {
                is_first: false,
                ..Self::new(now)
            };
        }
        is_met
    }
}

/// The time of the latest activity, read from the clock at the next query: one clock reading covers
/// all activity between two queries.
#[derive(Debug)]
pub struct LastActivity {
    at: Instant,
    renewed: bool,
}

impl LastActivity {
    pub fn at(at: Instant) -> Self {
        Self { at, renewed: false }
    }

    pub fn renew(&mut self) {
        self.renewed = true;
    }

    /// Returns the latest times of two activities from one clock reading.
    pub fn both(first: &mut Self, second: &mut Self) -> (Instant, Instant) {
        if first.renewed || second.renewed {
            let now = Instant::now();
            for each in [&mut *first, &mut *second] {
                if std::mem::take(&mut each.renewed) {
                    each.at = now;
                }
            }
        }
        (first.at, second.at)
    }
}

/// Resolves at a deadline that may move between two waits.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// The waker registered with the runtime for `sleep`.
    waker: Option<Waker>,
}

impl Timer {
    /// Creates a timer for the first deadline.
    pub fn new(deadline: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(deadline)),
            waker: None,
        }
    }

    /// Waits for `deadline`; safe to cancel.
    pub async fn until(&mut self, deadline: Instant) {
        if deadline < self.sleep.deadline() {
            self.reset(deadline);
        }
        poll_fn(|context| {
            if self.is_set_for(context.waker()) {
                return Poll::Pending;
            }
            loop {
                // Polled outside the task's budget: with the budget used up, tokio would not
                // register the waker.
                let polled = pin!(unconstrained(self.sleep.as_mut())).poll(context);
                if polled.is_pending() {
                    self.waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                if Instant::now() >= deadline {
                    return Poll::Ready(());
                }
                self.reset(deadline);
            }
        })
        .await;
    }

    /// Whether `sleep` will wake `waker`. A false negative is possible, a false positive is not.
    fn is_set_for(&self, waker: &Waker) -> bool {
        let is_known = |known: &Waker| known.will_wake(waker);
        self.waker.as_ref().is_some_and(is_known) && !self.sleep.is_elapsed()
    }

    fn reset(&mut self, deadline: Instant) {
        self.sleep.as_mut().reset(deadline);
        self.waker = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn deadline_may_move_between_waits_and_tasks() {
        let start = Instant::now();
        let mut timer = Timer::new(start + 10 * SECOND);
        for (given_up, reached) in [(10, 30), (200, 50)] {
            let given_up = timer.until(start + given_up * SECOND);
            timeout(SECOND, given_up).await.unwrap_err();
            timer.until(start + reached * SECOND).await;
            assert_eq!(Instant::now(), start + reached * SECOND);
        }
        let deadline = start + 60 * SECOND;
        timeout(SECOND, timer.until(deadline)).await.unwrap_err();
        let elsewhere = async move { timer.until(deadline).await };
        tokio::spawn(elsewhere).await.unwrap();
        assert_eq!(Instant::now(), deadline);
    }

    #[test]
    fn minimum_rate_ignores_pauses_of_the_server() {
        let (begin, window) = (Instant::now(), 60 * SECOND);
        let mut floor = Floor::new(begin);
        assert!(floor.is_met(begin + 59 * SECOND, window, 1024));
        assert!(
            floor.is_met(begin + 60 * SECOND, window, 1024),
            "the first is free"
        );
        floor.add(60 * 1024);
        assert!(floor.is_met(begin + 119 * SECOND, window, 1024));
        assert!(floor.is_met(begin + 120 * SECOND, window, 1024));
        floor.add(60 * 1024 - 1);
        floor.pause(30 * SECOND);
        assert!(floor.is_met(begin + 209 * SECOND, window, 1024));
        assert!(!floor.is_met(begin + 210 * SECOND, window, 1024));
        assert!(
            !floor.is_met(begin + 211 * SECOND, window, 1024),
            "nor later"
        );
        floor.add(1);
        assert!(floor.is_met(begin + 212 * SECOND, window, 1024));
    }

    #[tokio::test(start_paused = true)]
    async fn ready_futures_are_not_timed() {
        let mut waited = Duration::ZERO;
        timed(std::future::ready(()), &mut waited).await;
        assert_eq!(waited, Duration::ZERO);
        timed(tokio::time::sleep(SECOND), &mut waited).await;
        timed(tokio::time::sleep(SECOND), &mut waited).await;
        assert_eq!(waited, 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn activity_is_dated_at_the_next_query() {
        let start = Instant::now();
        let (mut first, mut second) = (LastActivity::at(start), LastActivity::at(start));
        first.renew();
        tokio::time::advance(SECOND).await;
        let told = LastActivity::both(&mut first, &mut second);
        assert_eq!(told, (start + SECOND, start));
        tokio::time::advance(SECOND).await;
        second.renew();
        let told = LastActivity::both(&mut first, &mut second);
        assert_eq!(told, (start + SECOND, start + 2 * SECOND));
    }
}
