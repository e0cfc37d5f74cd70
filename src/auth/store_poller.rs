//! Notices what other processes wrote into the store: the command line, or somebody's sqlite3.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch::Sender;

use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::{Store, StoreError};

/// How often the store is asked. A change must bite within 250 ms.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long the cache is believed while the store cannot be asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long [`StorePoller::next`] waits at most, if the store answers.
pub(super) const NEXT: Duration = Duration::from_millis(300);

/// How often the store was asked, for those who want to be sure that nothing has changed until now.
#[derive(Debug, Default)]
pub(crate) struct StorePoller {
    begun: AtomicU64,
    /// The latest that was answered.
    answered: Sender<u64>,
}

impl StorePoller {
    /// Asks now, and blocks until there is an answer.
    pub(crate) fn ask(&self, store: &Store) -> Result<(), StoreError> {
        let poll = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        store.poll()?;
        self.answered.send_replace(poll);
        Ok(())
    }

    /// Waits until the store has answered what it is asked from now on; false if that takes longer than [`NEXT`]. By then
    /// the epoch has moved on for whatever another process had written before.
    pub(crate) async fn next(&self) -> bool {
        let begun = self.begun.load(Ordering::Acquire);
        let mut answered = self.answered.subscribe();
        let next = answered.wait_for(|poll| *poll > begun);
        tokio::time::timeout(NEXT, next).await.is_ok()
    }
}

/// StorePoller until everything else has ended.
pub(crate) async fn poll_regularly(
    store: Arc<Store>,
    polls: Arc<StorePoller>,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
) {
    let mut last_success = Instant::now();
    let mut pulse = lifecycle.pulse("asking the store");
    loop {
        tokio::select! {
            () = lifecycle.ended() => return,
            () = pulse.during(tokio::time::sleep(INTERVAL)) => {}
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
                if last_success.elapsed() > PATIENCE {
                    store.advance_epoch();
                }
            }
            Err(error) => tracing::error!(%error, "polling the store panicked"),
        }
    }
}
