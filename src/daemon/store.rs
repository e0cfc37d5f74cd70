//! Watches the store: the placement of its file, the head of the audit log, and the number of
//! credentials that expire soon.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::ActivityBatch;
use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, Within};
use crate::store::{DaemonLock, Placement, Store, StoreError, Watch};

/// The pause between two checks.
const INTERVAL: Duration = Duration::from_millis(500);

/// The pause between two counts of the credentials that expire soon.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// The pause between two log lines about a missing file.
const REPEAT: Duration = Duration::from_secs(60);

/// The daemon's exclusive store.
pub(super) struct Own {
    lock: DaemonLock,
    watch: Watch,
}

impl Own {
    /// Opens the store under an exclusive lock against other daemons.
    pub(super) fn open(path: &Path) -> Result<(Arc<Store>, Own), StoreError> {
        let lock = DaemonLock::take(path)?;
        if let Some(aside) = lock.prepare()? {
            tracing::warn!(
                store = %path.display(),
                aside = %aside.display(),
                "another file was put in place of the store; the write-ahead log of the former one is set aside"
            );
        }
        let store = Arc::new(Store::open(path)?);
        lock.record(store.id())?;
        let watch = store.watch()?;
        Ok((store, Own { lock, watch }))
    }

    /// Checks the file regularly and returns once the daemon must end.
    pub(super) async fn keep(
        self,
        store: Arc<Store>,
        noted: Arc<ActivityBatch>,
        metrics: Arc<Metrics>,
        lifecycle: Lifecycle,
    ) -> StoreError {
        let mut own = self;
        let mut told: Option<Instant> = None;
        let mut is_saved = false;
        let mut counted: Option<Instant> = None;
        loop {
            tokio::select! {
                () = lifecycle.ended() => return std::future::pending().await,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let counts = counted.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL);
            if counts {
                counted = Some(Instant::now());
            }
            let (looked, counter) = (store.clone(), metrics.clone());
            let look = tokio::task::spawn_blocking(move || {
                // The poll task reports an unreadable store.
                if let Ok(head) = looked.audit_head() {
                    counter.audit_head_sequence.set(head);
                }
                if counts {
                    count_expiring(&looked, &counter);
                }
                let placement = own.watch.look();
                (own, placement)
            });
            let placement;
            (own, placement) = match look.await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::error!(%error, "watching the store's file panicked");
                    return std::future::pending().await;
                }
            };
            if placement == Placement::InPlace {
                if store.placement() != placement {
                    tracing::info!("the store's file is back in place; changes are taken again");
                    store.note_placement(placement);
                    metrics.store_in_place.set(1);
                    (told, is_saved) = (None, false);
                }
                continue;
            }
            metrics.store_in_place.set(0);
            let is_due = told.is_none_or(|at| at.elapsed() >= REPEAT);
            if placement == Placement::Missing && !is_due {
                continue;
            }
            told = Some(Instant::now());
            let error = store.displaced(placement);
            tracing::error!(%error, "the open file is not the store's any more");
            if placement != Placement::Overwritten && !is_saved {
                let (saved, noted) = (store.clone(), noted.clone());
                let save = tokio::task::spawn_blocking(move || {
                    noted.flush(&saved);
                    // Later changes are rejected; earlier changes are part of the copy.
                    saved.note_placement(placement);
                    let copy = own.watch.save();
                    (own, copy)
                });
                let Ok((back, copy)) = save.await else {
                    return std::future::pending().await;
                };
                own = back;
                is_saved = match copy {
                    Ok(copy) => {
                        let copy = copy.display();
                        tracing::error!(%copy, "what the open store held is saved; gatepost restore puts it back");
                        true
                    }
                    Err(error) => {
                        tracing::error!(%error, "what the open store holds could not be saved");
                        false
                    }
                };
            }
            store.note_placement(placement);
            if placement != Placement::Missing {
                if let Err(error) = own.watch.leave(placement, &own.lock) {
                    tracing::error!(%error, "the next start may meet the write-ahead log of the former store");
                }
                // SQLite removes the log at its last close, by a name that may now belong to
                // another file.
                std::mem::forget(store.clone());
                std::mem::forget(own.watch);
                std::mem::forget(own.lock);
                return error;
            }
        }
    }
}

/// Where the store cannot be read, the last count stays.
fn count_expiring(store: &Store, metrics: &Metrics) {
    let Ok(expiring) = store.expiring() else {
        return;
    };
    for (within, count) in [
        (Within::Week, expiring.week),
        (Within::Month, expiring.month),
    ] {
        let gauge = metrics.credentials_expiring.of(within);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
