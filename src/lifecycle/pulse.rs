//! Whether the loops still turn: each is asked, and answers while it waits for its own events.
//!
//! Asking costs nothing while nobody asks, and a loop that is stuck in its work does not answer,
//! however often it would otherwise wake.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// Where a loop answers.
type Question = oneshot::Sender<()>;

/// A loop's own end. Dropped when the loop ends.
#[derive(Debug)]
pub struct Pulse {
    questions: mpsc::UnboundedReceiver<Question>,
}

impl Pulse {
    /// Waits for `event`, and answers meanwhile.
    pub async fn during<T>(&mut self, event: impl Future<Output = T>) -> T {
        let mut event = pin!(event);
        loop {
            tokio::select! {
                biased;
                Some(question) = self.questions.recv() => {
                    // Whoever asked may have lost patience.
                    let _ = question.send(());
                }
                happened = &mut event => return happened,
            }
        }
    }
}

/// All loops that were ever begun and have not ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulses {
    loops: Arc<Mutex<Vec<Loop>>>,
}

#[derive(Debug)]
struct Loop {
    name: String,
    questions: mpsc::UnboundedSender<Question>,
}

impl Pulses {
    pub(super) fn begin(&self, name: String) -> Pulse {
        let (asking, questions) = mpsc::unbounded_channel();
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Loop {
                name,
                questions: asking,
            });
        Pulse { questions }
    }

    /// Forgets the loops that have ended.
    pub(super) fn forget_ended(&self) {
        self.loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|each| !each.questions.is_closed());
    }

    /// Asks all at once; the names of those that have not answered within `patience`, or ended.
    pub(super) async fn silent(&self, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut silent = Vec::new();
        for (name, answer) in self.ask() {
            if !matches!(timeout_at(deadline, answer).await, Ok(Ok(()))) {
                silent.push(name);
            }
        }
        silent
    }

    fn ask(&self) -> Vec<(String, oneshot::Receiver<()>)> {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let ask = |each: &Loop| {
            let (question, answer) = oneshot::channel();
            // Of a loop that has ended the answer fails at once.
            let _ = each.questions.send(question);
            (each.name.clone(), answer)
        };
        loops.iter().map(ask).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Lifecycle;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_waits_answers_and_one_that_works_does_not() {
        let lifecycle = Lifecycle::new();
        let (mut waiting, _working) = (lifecycle.pulse("waiting"), lifecycle.pulse("working"));
        tokio::spawn(async move { waiting.during(std::future::pending::<()>()).await });
        for _ in 0..2 {
            assert_eq!(lifecycle.silent(PATIENCE).await, ["working"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_recovers_answers_again() {
        let lifecycle = Lifecycle::new();
        let mut pulse = lifecycle.pulse("slow");
        let (done, work) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _ = work.await;
            pulse.during(std::future::pending::<()>()).await;
        });
        assert_eq!(lifecycle.silent(PATIENCE).await, ["slow"]);
        done.send(()).unwrap();
        assert!(lifecycle.silent(PATIENCE).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_may_end_only_while_draining() {
        let lifecycle = Lifecycle::new();
        drop(lifecycle.pulse("panicked"));
        assert_eq!(lifecycle.silent(PATIENCE).await, ["panicked"]);
        lifecycle.drain(PATIENCE).await;
        assert!(lifecycle.silent(PATIENCE).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn answering_does_not_put_off_the_event() {
        let lifecycle = Lifecycle::new();
        let mut pulse = lifecycle.pulse("timer");
        let timer = tokio::spawn(async move { pulse.during(tokio::time::sleep(PATIENCE)).await });
        for _ in 0..10 {
            assert!(lifecycle.silent(PATIENCE).await.is_empty());
            tokio::time::sleep(PATIENCE / 10).await;
        }
        tokio::time::timeout(PATIENCE / 10, timer)
            .await
            .unwrap()
            .unwrap();
    }
}
