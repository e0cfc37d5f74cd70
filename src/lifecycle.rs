//! Starting, serving, draining: who may still begin something, and what systemd is told.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a task may take to end once it was told to end at once.
const FAREWELL: Duration = Duration::from_secs(2);

/// Shared by everything that runs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    drain: CancellationToken,
    abandon: CancellationToken,
    ended: CancellationToken,
    tasks: TaskTracker,
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

    /// Resolves once nothing new may begin: finish what is under way, then end.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Resolves once even what is under way must end at once.
    pub async fn abandoned(&self) {
        self.abandon.cancelled().await;
    }

    /// Resolves once no task is left.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Gives up what is under way at once.
    pub fn abandon(&self) {
        self.abandon.cancel();
    }

    /// Lets tasks finish for at most `timeout`, then makes them end. Returns whether all of them
    /// ended by themselves.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.drain.cancel();
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

/// Tells systemd that the listeners are open (sd_notify(3); nothing without NOTIFY_SOCKET).
pub fn notify_ready(status: &str) {
    notify(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status(status),
    ]);
}

/// Tells systemd that draining has begun.
pub fn notify_stopping() {
    notify(&[sd_notify::NotifyState::Stopping]);
}

fn notify(states: &[sd_notify::NotifyState]) {
    // Without systemd nobody listens, and a service manager that is gone is no reason to end.
    let _ = sd_notify::notify(states);
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
        assert!(!lifecycle.drain(Duration::from_millis(10)).await);
    }
}
