//! The memory and the store behind a verification. Comparisons outlive the client that asked for
//! them, so they hold the verifier themselves.

use std::sync::Arc;

use moka::future::Cache;
use tokio::sync::Semaphore;

use crate::auth::cache::{CacheEntry, Digest, Digester, PasswordSlot};
use crate::auth::password::Hasher;
use crate::auth::store_poller::StorePoller;
use crate::clock;
use crate::log::Throttle;
use crate::metrics::{Metrics, StoreOperation};
use crate::sasl::{Credentials, Outage, Secret};
use crate::store::{Login, Store};

use super::cached::CachedSecrets;
use super::machine::{Input, rejects_unhashed};

/// The epoch in which a row was read, and the row, if it exists.
type ReadRow = (u64, Option<Arc<Login>>);

/// Overlaps are few and pass.
const PREVIOUS_ENTRIES: u64 = 10_000;

/// Few usernames are rejected again and again: those of devices with an old password, and those
/// that attackers try.
const REJECTED_ENTRIES: u64 = 1_000;

pub(super) struct Verifier {
    pub(super) store: Arc<Store>,
    current: Cache<String, Arc<CacheEntry>>,
    /// The previous passwords of credentials in an overlap.
    previous: Cache<String, Arc<CacheEntry>>,
    /// The rows, or their absence, that last rejected generated usernames.
    rejected: Cache<String, ReadRow>,
    pub(super) poller: Arc<StorePoller>,
    digester: Digester,
    pub(super) hasher: Hasher,
    /// One hash is renewed at a time, because each may wait for the store's writer.
    pub(super) renewing: Semaphore,
    pub(super) metrics: Arc<Metrics>,
}

impl Verifier {
    pub(super) fn new(
        store: Arc<Store>,
        hasher: Hasher,
        metrics: Arc<Metrics>,
        cache_entries: u64,
    ) -> Self {
        Self {
            store,
            current: Cache::new(cache_entries),
            previous: Cache::new(cache_entries.min(PREVIOUS_ENTRIES)),
            rejected: Cache::new(cache_entries.min(REJECTED_ENTRIES)),
            poller: Arc::default(),
            digester: Digester::new(),
            hasher,
            renewing: Semaphore::new(1),
            metrics,
        }
    }

    pub(super) fn digest(&self, credentials: &Credentials) -> Digest {
        self.digester
            .digest(&credentials.username, &credentials.password)
    }

    /// Stands for a username whatever the password.
    pub(super) fn digest_of_name(&self, username: &str) -> Digest {
        self.digester.digest(username, &Secret::new(""))
    }

    /// How many right passwords are cached.
    pub(super) fn cached(&self) -> u64 {
        self.current.entry_count() + self.previous.entry_count()
    }

    pub(super) fn cache(&self, slot: PasswordSlot) -> &Cache<String, Arc<CacheEntry>> {
        match slot {
            PasswordSlot::Current => &self.current,
            PasswordSlot::Previous => &self.previous,
        }
    }

    pub(super) async fn recall(&self, username: &str) -> CachedSecrets {
        let current = self.current.get(username).await;
        // The current password's entry tells whether the row has a previous one.
        let may_overlap = current.as_ref().is_none_or(|entry| entry.overlaps());
        let previous = match may_overlap {
            true => self.previous.get(username).await,
            false => None,
        };
        CachedSecrets::new([current, previous])
    }

    /// Removes the entries that the row, read in `epoch`, contradicts. The entries of a revoked or
    /// expired credential stay, because the guard tells its owner by them.
    async fn forget_outdated(&self, username: &str, row: Option<&Login>, epoch: u64) {
        if row.is_some_and(|row| row.refusal(clock::now_ms()).is_some()) {
            return;
        }
        for cache in [&self.current, &self.previous] {
            let Some(entry) = cache.get(username).await else {
                continue;
            };
            let is_current = row.is_some_and(|row| entry.is_fresh(epoch) || entry.is_of(row));
            if !is_current && cache.remove(username).await.is_some() {
                self.metrics.cache_invalidations.inc();
            }
        }
    }

    /// Reads the row. With `may_remember`, reuses a row that was read in `epoch` and rejects the
    /// password, and remembers one that does.
    pub(super) async fn row(
        &self,
        username: &str,
        tag: u32,
        epoch: u64,
        may_reuse: bool,
        may_remember: bool,
    ) -> Result<Input, Outage> {
        let rejects = |row: Option<&Login>| rejects_unhashed(row, tag, clock::now_ms());
        if may_reuse
            && may_remember
            && let Some((read, row)) = self.rejected.get(username).await
            && read == epoch
            && rejects(row.as_deref())
        {
            return Ok(Input::RememberedRow(row));
        }
        let row = self.lookup(username).await?.map(Arc::new);
        self.forget_outdated(username, row.as_deref(), epoch).await;
        if may_remember && rejects(row.as_deref()) {
            let read = (epoch, row.clone());
            self.rejected.insert(username.to_owned(), read).await;
        }
        Ok(Input::Row(row))
    }

    async fn lookup(&self, username: &str) -> Result<Option<Login>, Outage> {
        let (store, username) = (self.store.clone(), username.to_owned());
        let seconds = self.metrics.store_seconds.of(StoreOperation::Lookup);
        let _timer = seconds.start_timer();
        let found = tokio::task::spawn_blocking(move || store.lookup(&username)).await;
        found.map_err(|_| Outage::Store)?.map_err(|error| {
            static UNREADABLE: Throttle = Throttle::new();
            if let Some(count) = UNREADABLE.due() {
                tracing::error!(%error, count, "the store cannot be read, logins are put off");
            }
            Outage::Store
        })
    }
}
