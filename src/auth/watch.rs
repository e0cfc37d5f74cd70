//! Notices what other processes wrote into the store: the command line, or somebody's sqlite3.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, StoreOperation};
use crate::store::Store;

/// How often the store is asked. A change must bite within 250 ms.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long the cache is believed while the store cannot be asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until everything else has ended.
pub async fn watch(store: Arc<Store>, metrics: Arc<Metrics>, lifecycle: Lifecycle) {
    let mut last_success = Instant::now();
    let mut pulse = lifecycle.pulse("asking the store");
    loop {
        tokio::select! {
            () = lifecycle.ended() => return,
            () = pulse.during(tokio::time::sleep(INTERVAL)) => {}
        }
        let asked = store.clone();
        let timer = metrics.store_seconds.of(StoreOperation::Poll).start_timer();
        let polled = tokio::task::spawn_blocking(move || asked.poll()).await;
        timer.observe_duration();
        match polled {
            Ok(Ok(_)) => last_success = Instant::now(),
            Ok(Err(error)) => {
                metrics.store_poll_failures.inc();
                tracing::warn!(%error, "cannot see whether the store was changed");
                if last_success.elapsed() > PATIENCE {
                    store.advance_epoch();
                }
            }
            Err(error) => tracing::error!(%error, "polling the store panicked"),
        }
    }
}
