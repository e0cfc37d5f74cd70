//! Starting, serving, draining: who may still begin something, who is still at work, and what
//! systemd is told of it.

pub mod notify;
mod orders;
mod pulse;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::orders::Roster;
use self::pulse::Pulses;

pub use self::orders::{Enlisted, Order, Orders};
pub use self::pulse::Pulse;

/// How long a task may take to end once it was told to end at once.
const FAREWELL: Duration = Duration::from_secs(2);

/// Shared by everything that runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    drain: CancellationToken,
    abandon: CancellationToken,
    ended: CancellationToken,
    tasks: TaskTracker,
    roster: Roster,
    pulses: Pulses,
}

impl Lifecycle {
    /// Everything may begin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that draining waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// For a session: it is told when draining begins, and when it must end at once.
    pub fn enlist(&self) -> Enlisted {
        let enlisted = self.roster.enlist();
        // Whoever enlists too late to be among those told has to see it here.
        if self.abandon.is_cancelled() {
            enlisted.orders.give(Order::Abandon);
        } else if self.drain.is_cancelled() {
            enlisted.orders.give(Order::Drain);
        }
        enlisted
    }

    /// Resolves once nothing new may begin: finish what is under way, then end.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves once even what is under way must end at once.
    pub async fn abandoned(&self) {
        self.abandon.cancelled().await;
    }

    /// Resolves once no task is left.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// For a loop that has to turn until draining begins; the name is for the log.
    pub fn pulse(&self, name: impl Into<String>) -> Pulse {
        self.pulses.begin(name.into())
    }

    /// Asks every loop that has a [`Pulse`] whether it still turns; the names of those that do not
    /// answer within `patience`. To have ended is no answer, but while draining nobody minds.
    pub async fn silent(&self, patience: Duration) -> Vec<String> {
        if self.drain.is_cancelled() {
            self.pulses.forget_ended();
        }
        self.pulses.silent(patience).await
    }

    /// Gives up what is under way at once.
    pub fn abandon(&self) {
        self.abandon.cancel();
        self.roster.give(Order::Abandon);
    }

    /// Lets tasks finish for at most `timeout`, then makes them end. Returns whether all of them
    /// ended by themselves.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.drain.cancel();
        self.roster.give(Order::Drain);
        self.tasks.close();
        let in_time = tokio::time::timeout(timeout, self.tasks.wait())
            .await
            .is_ok();
        if !in_time {
            self.abandon();
            // They only have to take leave; a task that does not is left behind.
            let _ = tokio::time::timeout(FAREWELL, self.tasks.wait()).await;
        }
        self.ended.cancel();
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_waits_for_tasks_and_then_ends_them() {
        let lifecycle = Lifecycle::new();
        let (done, finished) = tokio::sync::oneshot::channel();
        let task = lifecycle.clone();
        lifecycle.spawn(async move {
            task.draining().await;
            let _ = done.send(());
        });
        assert!(lifecycle.drain(Duration::from_secs(10)).await);
        finished.await.unwrap();

        let lifecycle = Lifecycle::new();
        let task = lifecycle.clone();
        lifecycle.spawn(async move { task.abandoned().await });
        let session = lifecycle.enlist();
        assert_eq!(session.orders.given(), None);
        assert!(!lifecycle.drain(Duration::from_millis(10)).await);
        let late = lifecycle.enlist();
        let told = [session, late].map(|each| each.orders.given());
        assert_eq!(told, [Some(Order::Abandon); 2]);
    }
}
