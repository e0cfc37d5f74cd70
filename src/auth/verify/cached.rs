//! The cache entries of one username.

use std::sync::Arc;

use crate::auth::cache::{CacheEntry, Digest, PasswordSlot};
use crate::auth::guard::Target;
use crate::clock::Moment;
use crate::sasl::Reason;
use crate::store::Login;

use super::machine::Accepted;

#[derive(Default)]
pub(crate) struct CachedSecrets {
    /// By [`PasswordSlot`].
    entries: [Option<Arc<CacheEntry>>; 2],
    /// Slots whose fresh entry is not the offered password.
    ruled_out: [bool; 2],
}

const SLOTS: [PasswordSlot; 2] = [PasswordSlot::Current, PasswordSlot::Previous];

impl CachedSecrets {
    pub(super) fn new(entries: [Option<Arc<CacheEntry>>; 2]) -> Self {
        Self {
            entries,
            ruled_out: [false; 2],
        }
    }

    pub(super) fn put(&mut self, slot: PasswordSlot, entry: Arc<CacheEntry>) {
        self.entries[slot as usize] = Some(entry);
    }

    pub(super) fn entry(&self, slot: PasswordSlot) -> Option<&CacheEntry> {
        self.entries[slot as usize].as_deref()
    }

    /// Judges a password by the entries that are fresh in `epoch`, if they suffice. A rejection
    /// names the entry that decides.
    pub(super) fn evaluate(
        &mut self,
        epoch: u64,
        digest: Digest,
        now: Moment,
    ) -> Option<Result<Accepted, (Reason, Arc<CacheEntry>)>> {
        for slot in SLOTS {
            let entry = self.entries[slot as usize].as_ref();
            let Some(entry) = entry.filter(|entry| entry.is_fresh(epoch)) else {
                continue;
            };
            match entry.evaluate(digest, now) {
                None => self.ruled_out[slot as usize] = true,
                Some(Ok(identity)) => {
                    return Some(Ok(Accepted {
                        identity,
                        slot,
                        overlaps: entry.overlaps_at(now),
                    }));
                }
                Some(Err(reason)) => return Some(Err((reason, entry.clone()))),
            }
        }
        None
    }

    pub(super) fn is_ruled_out(&self, slot: PasswordSlot) -> bool {
        self.ruled_out[slot as usize]
    }

    pub(super) fn stale(&self, epoch: u64) -> impl Iterator<Item = PasswordSlot> {
        let slots = SLOTS.into_iter();
        slots.filter(move |slot| {
            self.entry(*slot)
                .is_some_and(|entry| !entry.is_fresh(epoch))
        })
    }

    /// Makes the entries fresh again that are true of the row as read in `epoch`. Whether there was
    /// any.
    pub(super) fn revalidate(&self, login: &Login, epoch: u64) -> bool {
        let stale = self.stale(epoch).filter_map(|slot| self.entry(slot));
        stale.filter(|entry| entry.revalidate(login, epoch)).count() > 0
    }

    /// Whether the offered password is in a slot, even if its time is over.
    pub(super) fn holds(&self, digest: Digest) -> bool {
        self.entries.iter().flatten().any(|entry| entry.is(digest))
    }

    /// The credential, if people chose one of the cached passwords.
    pub(super) fn chosen_target(&self) -> Option<Target> {
        let entries = || self.entries.iter().flatten();
        let latest = entries().map(|entry| entry.target());
        let latest = latest.max_by_key(|target| target.version);
        latest.filter(|_| entries().any(|entry| !entry.is_generated()))
    }
}
