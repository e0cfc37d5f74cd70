//! Who was last here, gathered in memory and written in batches.
//!
//! Nothing about this may cost a login anything: a full map or a store that cannot be written is
//! counted, and the login goes on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::store::{LastUsed, Store};

/// Uses that wait to be written, one entry a credential.
pub struct LastUsedBatch {
    pending: Mutex<HashMap<i64, LastUsed>>,
    limit: usize,
    metrics: Arc<Metrics>,
}

impl LastUsedBatch {
    /// At most `limit` credentials wait at a time.
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            pending: Mutex::default(),
            limit,
            metrics,
        }
    }

    /// Notes a use of the credential with this key.
    pub fn note(&self, key: i64, used: LastUsed) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        self.add(&mut pending, key, used);
        self.metrics.last_used_pending.set(pending.len() as i64);
    }

    fn add(&self, pending: &mut HashMap<i64, LastUsed>, key: i64, used: LastUsed) {
        let full = pending.len() >= self.limit;
        match pending.entry(key) {
            Entry::Occupied(mut entry) => {
                let count = entry.get().count + used.count;
                if used.at >= entry.get().at {
                    entry.insert(used);
                }
                entry.get_mut().count = count;
            }
            Entry::Vacant(_) if full => self.metrics.last_used_dropped.inc(),
            Entry::Vacant(entry) => drop(entry.insert(used)),
        }
    }

    /// Writes what waits. If that fails it waits on. Blocks on the store.
    pub fn flush(&self, store: &Store) {
        let taken =
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        let batch: Vec<_> = taken.into_iter().collect();
        if batch.is_empty() {
            return;
        }
        match store.flush(&batch) {
            Ok(()) => self.metrics.last_used_flushed.inc_by(batch.len() as u64),
            Err(error) => {
                self.metrics.last_used_flush_failures.inc();
                tracing::warn!(%error, "last-used times could not be written, keeping them");
                let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                for (key, used) in batch {
                    self.add(&mut pending, key, used);
                }
            }
        }
        let waiting = self
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len();
        self.metrics.last_used_pending.set(waiting as i64);
    }
}

/// Flushes every `interval` until everything else has ended.
pub async fn flush_regularly(
    batch: Arc<LastUsedBatch>,
    store: Arc<Store>,
    interval: Duration,
    lifecycle: Lifecycle,
) {
    loop {
        tokio::select! {
            () = lifecycle.ended() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let (batch, store) = (batch.clone(), store.clone());
        // It cannot fail but by panicking, which the next round survives.
        let _ = tokio::task::spawn_blocking(move || batch.flush(&store)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(at: i64) -> LastUsed {
        LastUsed {
            at,
            address: "192.0.2.1".into(),
            tls: None,
            mechanism: "PLAIN".into(),
            helo: "c".into(),
            count: 1,
        }
    }

    #[test]
    fn uses_of_one_credential_become_one() {
        let batch = LastUsedBatch::new(2, Arc::new(Metrics::new().unwrap()));
        for at in [5, 9, 7] {
            batch.note(1, used(at));
        }
        let pending = batch.pending.lock().unwrap();
        assert_eq!((pending[&1].at, pending[&1].count), (9, 3));
    }

    #[test]
    fn a_full_map_drops_and_counts() {
        let batch = LastUsedBatch::new(1, Arc::new(Metrics::new().unwrap()));
        batch.note(1, used(1));
        batch.note(2, used(2));
        batch.note(1, used(3));
        assert_eq!(batch.pending.lock().unwrap().len(), 1);
        assert_eq!(batch.metrics.last_used_dropped.get(), 1);
        assert_eq!(batch.metrics.last_used_pending.get(), 1);
    }
}
