//! One timer for a whole session. The deadline moves with every command; the timer underneath is
//! touched only when it fires early, so that a busy session costs the runtime nothing.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::task::coop::unconstrained;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// As [`timeout`], for what is nearly always done at once: the clock is only asked when it is not.
pub async fn within<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let at_once = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
    match at_once {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => timeout(limit, future).await,
    }
}

/// Runs `future`, and adds to `waited` how long that took, unless it was done at once.
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

/// The least rate at which a message must come, over each of the windows that follow one another;
/// the first window is free.
#[derive(Debug)]
pub struct Floor {
    /// When the window began.
    began: Instant,
    /// What has come in it.
    octets: u64,
    is_first: bool,
}

impl Floor {
    /// Of a message that begins at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            octets: 0,
            is_first: true,
        }
    }

    /// So many octets have come.
    pub fn add(&mut self, octets: usize) {
        self.octets = self.octets.saturating_add(octets as u64);
    }

    /// For so long the client could not send.
    pub fn pause(&mut self, time: Duration) {
        self.began += time;
    }

    /// When the window ends, if it is so long.
    pub fn end(&self, window: Duration) -> Instant {
        self.began + window
    }

    /// Whether the window is not over at `now`, or as many octets a second as `rate` have come in
    /// it; then the next one begins.
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

/// When something last happened, as far as whoever asks can tell: since they asked before. So the clock is read once for all
/// that happens between two questions.
#[derive(Debug)]
pub struct Latest {
    at: Instant,
    renewed: bool,
}

impl Latest {
    /// It happened then.
    pub fn at(at: Instant) -> Self {
        Self { at, renewed: false }
    }

    /// It has happened again.
    pub fn renew(&mut self) {
        self.renewed = true;
    }

    /// When each of two things last happened.
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

/// Resolves at a deadline that may be moved while nobody waits.
#[derive(Debug)]
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// Whom the runtime wakes when `sleep` is over.
    waker: Option<Waker>,
}

impl Timer {
    /// A timer that is first looked at for this deadline.
    pub fn new(deadline: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(deadline)),
            waker: None,
        }
    }

    /// Waits for `deadline`. Cancelling is fine.
    pub async fn until(&mut self, deadline: Instant) {
        if deadline < self.sleep.deadline() {
            self.reset(deadline);
        }
        poll_fn(|context| {
            if self.is_set_for(context.waker()) {
                return Poll::Pending;
            }
            loop {
                // Outside the task's budget: where that is used up, the runtime would take no note of the waker.
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

    /// It may say no although it is, but never yes although it is not.
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
    async fn a_deadline_may_be_moved_and_waited_for_by_another_task() {
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
    fn a_floor_is_met_by_its_rate_and_by_time_that_was_not_the_clients() {
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
    async fn only_what_is_not_done_at_once_is_timed() {
        let mut waited = Duration::ZERO;
        timed(std::future::ready(()), &mut waited).await;
        assert_eq!(waited, Duration::ZERO);
        timed(tokio::time::sleep(SECOND), &mut waited).await;
        timed(tokio::time::sleep(SECOND), &mut waited).await;
        assert_eq!(waited, 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_happened_since_the_last_question_happened_now() {
        let start = Instant::now();
        let (mut first, mut second) = (Latest::at(start), Latest::at(start));
        first.renew();
        tokio::time::advance(SECOND).await;
        let told = Latest::both(&mut first, &mut second);
        assert_eq!(told, (start + SECOND, start));
        tokio::time::advance(SECOND).await;
        second.renew();
        let told = Latest::both(&mut first, &mut second);
        assert_eq!(told, (start + SECOND, start + 2 * SECOND));
    }
}
