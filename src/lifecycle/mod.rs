//! Start, drain and stop of the daemon, and its reports to systemd.

mod heartbeat;
pub mod notify;
mod signal;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::heartbeat::Heartbeats;
use self::signal::Registry;

pub use self::heartbeat::Heartbeat;
pub use self::signal::{Registration, SessionSignal, Signal};

/// How long a task may take to end after the signal to end at once.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Shared by every task. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    drain: CancellationToken,
    abandon: CancellationToken,
    ended: CancellationToken,
    tasks: TaskTracker,
    registry: Registry,
    heartbeats: Heartbeats,
}

impl Lifecycle {
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

    /// Registers a session for the signals to drain and to end at once.
    pub fn register(&self) -> Registration {
        let registration = self.registry.register();
        // A session registered after the broadcast gets the signal here.
        if self.abandon.is_cancelled() {
            registration.signal.send(Signal::Abandon);
        } else if self.drain.is_cancelled() {
            registration.signal.send(Signal::Drain);
        }
        registration
    }

    /// Resolves once nothing new may begin: tasks finish current work and end.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves once even current work must end.
    pub async fn abandoned(&self) {
        self.abandon.cancelled().await;
    }

    /// Resolves once no task is left.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Starts the heartbeat of a loop that must run until draining begins; `name` is for the log.
    pub fn heartbeat(&self, name: impl Into<String>) -> Heartbeat {
        self.heartbeats.begin(name.into())
    }

    /// Pings every loop that has a [`Heartbeat`] and returns the names of loops that do not answer
    /// within `patience`. An ended loop counts as unresponsive, except while draining.
    pub async fn unresponsive(&self, patience: Duration) -> Vec<String> {
        if self.drain.is_cancelled() {
            self.heartbeats.forget_ended();
        }
        self.heartbeats.unresponsive(patience).await
    }

    /// Ends all current work at once.
    pub fn abandon(&self) {
        self.abandon.cancel();
        self.registry.send(Signal::Abandon);
    }

    /// Waits up to `timeout` for tasks to finish, then ends them. Returns whether all tasks
    /// finished in time.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.drain.cancel();
        self.registry.send(Signal::Drain);
        self.tasks.close();
        let in_time = tokio::time::timeout(timeout, self.tasks.wait())
            .await
            .is_ok();
        if !in_time {
            self.abandon();
            // The tasks only have to send a last reply; a task that takes longer is left behind.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.tasks.wait()).await;
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
        let session = lifecycle.register();
        assert_eq!(session.signal.current(), None);
        assert!(!lifecycle.drain(Duration::from_millis(10)).await);
        let late = lifecycle.register();
        let told = [session, late].map(|each| each.signal.current());
        assert_eq!(told, [Some(Signal::Abandon); 2]);
    }
}
