//! Polls the store for writes of other processes: the command line or sqlite3.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch::Sender;

use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Store, StoreError};

/// Between two polls. A change must take effect within 250 ms.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long the cache stays valid while polls fail.
const CACHE_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest wait of [`StorePoller::next`].
pub(super) const NEXT_POLL: Duration = Duration::from_millis(300);

/// Counts polls, so that a verification can wait for the next.
#[derive(Debug, Default)]
pub(crate) struct StorePoller {
    begun: AtomicU64,
    /// The number of the latest answered poll.
    answered: Sender<u64>,
}

impl StorePoller {
    /// Polls now. Blocks on the store.
    pub(crate) fn ask(&self, store: &Store) -> Result<(), StoreError> {
        let poll = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        store.poll()?;
        self.answered.send_replace(poll);
        Ok(())
    }

    /// Waits for the answer to a poll that begins from now on; false after [`NEXT_POLL`]. The
    /// epoch then covers every earlier write of another process.
    pub(crate) async fn next(&self) -> bool {
        let begun = self.begun.load(Ordering::Acquire);
        let mut answered = self.answered.subscribe();
        let next = answered.wait_for(|poll| *poll > begun);
        tokio::time::timeout(NEXT_POLL, next).await.is_ok()
    }
}

/// Polls until all other tasks have ended.
pub(crate) async fn poll_regularly(
    store: Arc<Store>,
    polls: Arc<StorePoller>,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
) {
    let mut last_success = Instant::now();
    let mut heartbeat = lifecycle.heartbeat("asking the store");
    loop {
        tokio::select! {
            () = lifecycle.ended() => return,
            () = heartbeat.while_waiting(tokio::time::sleep(INTERVAL)) => {}
        }
        let (asked, polls) = (store.clone(), polls.clone());
        let timer = metrics.store_seconds.of(StoreOperation::Poll).start_timer();
        let polled = tokio::task::spawn_blocking(move || polls.ask(&asked)).await;
        timer.observe_duration();
        match polled {
            Ok(Ok(())) => last_success = Instant::now(),
            Ok(Err(error)) => {
                metrics.store_poll_failures.inc();
                static UNSEEN: Throttle = Throttle::new();
                if let Some(count) = UNSEEN.due() {
                    tracing::warn!(%error, count, "cannot see whether the store was changed");
                }
                if last_success.elapsed() > CACHE_TIMEOUT {
                    store.advance_epoch();
                }
            }
            Err(error) => tracing::error!(%error, "polling the store panicked"),
        }
    }
}
