//! Heartbeats of the daemon's loops: each loop answers pings while waiting for its own events.
//!
//! Heartbeats cost nothing between pings, and a loop stuck in its work does not answer, however
//! often other events wake the loop.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Carries the answer to a ping.
type Ping = oneshot::Sender<()>;

/// A loop's side of the heartbeat, dropped when the loop ends.
#[derive(Debug)]
pub struct Heartbeat {
    pings: mpsc::UnboundedReceiver<Ping>,
}

impl Heartbeat {
    /// Waits for `event` and answers pings meanwhile.
    pub async fn while_waiting<T>(&mut self, event: impl Future<Output = T>) -> T {
        let mut event = pin!(event);
        loop {
            tokio::select! {
                biased;
                Some(ping) = self.pings.recv() => {
                    // The watchdog may have stopped waiting.
                    let _ = ping.send(());
                }
                happened = &mut event => return happened,
            }
        }
    }
}

/// Every loop that has begun.
#[derive(Clone, Debug, Default)]
pub(super) struct Heartbeats {
    loops: Arc<Mutex<Vec<Loop>>>,
}

#[derive(Debug)]
struct Loop {
    name: String,
    pings: mpsc::UnboundedSender<Ping>,
}

impl Heartbeats {
    pub(super) fn begin(&self, name: String) -> Heartbeat {
        let (sender, pings) = mpsc::unbounded_channel();
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Loop {
                name,
                pings: sender,
            });
        Heartbeat { pings }
    }

    /// Removes the ended loops.
    pub(super) fn forget_ended(&self) {
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|each| !each.pings.is_closed());
    }

    /// Pings all loops at once and returns the names of loops that ended or did not answer within
    /// `patience`.
    pub(super) async fn unresponsive(&self, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut silent = Vec::new();
        for (name, answer) in self.ping_all() {
            if !matches!(timeout_at(deadline, answer).await, Ok(Ok(()))) {
                silent.push(name);
            }
        }
        silent
    }

    fn ping_all(&self) -> Vec<(String, oneshot::Receiver<()>)> {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let ping = |each: &Loop| {
            let (ping, answer) = oneshot::channel();
            // For an ended loop the receiver fails at once.
            let _ = each.pings.send(ping);
            (each.name.clone(), answer)
        };
        loops.iter().map(ping).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Lifecycle;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn waiting_loop_answers_and_busy_loop_does_not() {
        let lifecycle = Lifecycle::new();
        let (mut waiting, _working) = (
            lifecycle.heartbeat("waiting"),
            lifecycle.heartbeat("working"),
        );
        tokio::spawn(async move { waiting.while_waiting(std::future::pending::<()>()).await });
        for _ in 0..2 {
            assert_eq!(lifecycle.unresponsive(PATIENCE).await, ["working"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_recovers_answers_again() {
        let lifecycle = Lifecycle::new();
        let mut heartbeat = lifecycle.heartbeat("slow");
        let (done, work) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _ = work.await;
            heartbeat.while_waiting(std::future::pending::<()>()).await;
        });
        assert_eq!(lifecycle.unresponsive(PATIENCE).await, ["slow"]);
        done.send(()).unwrap();
        assert!(lifecycle.unresponsive(PATIENCE).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_may_end_only_while_draining() {
        let lifecycle = Lifecycle::new();
        drop(lifecycle.heartbeat("panicked"));
        assert_eq!(lifecycle.unresponsive(PATIENCE).await, ["panicked"]);
        lifecycle.drain(PATIENCE).await;
        assert!(lifecycle.unresponsive(PATIENCE).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn answering_does_not_put_off_the_event() {
        let lifecycle = Lifecycle::new();
        let mut heartbeat = lifecycle.heartbeat("timer");
        let timer =
            tokio::spawn(
                async move { heartbeat.while_waiting(tokio::time::sleep(PATIENCE)).await },
            );
        for _ in 0..10 {
            assert!(lifecycle.unresponsive(PATIENCE).await.is_empty());
            tokio::time::sleep(PATIENCE / 10).await;
        }
        tokio::time::timeout(PATIENCE / 10, timer)
            .await
            .unwrap()
            .unwrap();
    }
}
