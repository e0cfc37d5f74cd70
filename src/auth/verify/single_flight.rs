//! Compares an offered password with the stored hashes, once for all clients that offer the same
//! password at the same time.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::cache::{CacheEntry, Digest, PasswordSlot};
use crate::auth::password::Match;
use crate::log::Throttle;
use crate::metrics::StoreOperation;
use crate::sasl::{Outage, Secret};

use super::machine::{Candidate, CompareOutcome};
use super::verifier::Verifier;

/// An offered password, and the row and slots to compare it with.
#[derive(Clone)]
pub(super) struct Offer {
    pub(super) candidate: Arc<Candidate>,
    pub(super) password: Secret,
    pub(super) digest: Digest,
}

/// The shared result of a comparison that found no match. Means nothing to a client with another
/// digest.
struct Failure {
    digest: Digest,
    outage: Option<Outage>,
}

impl Verifier {
    pub(super) async fn compare_shared(
        self: &Arc<Self>,
        offer: Offer,
    ) -> Result<CompareOutcome, Outage> {
        let mut outcome = CompareOutcome::NoCandidate;
        for slot in &offer.candidate.slots {
            match self.fly(offer.clone(), *slot).await {
                Ok(entry) => return Ok(CompareOutcome::Match(*slot, entry)),
                Err(failure) if failure.digest != offer.digest => {
                    return Ok(CompareOutcome::OtherInFlight);
                }
                Err(failure) => match failure.outage {
                    Some(outage) => return Err(outage),
                    None => outcome = CompareOutcome::Mismatch,
                },
            }
        }
        Ok(outcome)
    }

    /// Runs one hash per username and slot at a time; later clients wait for its result.
    async fn fly(
        self: &Arc<Self>,
        offer: Offer,
        slot: PasswordSlot,
    ) -> Result<Arc<CacheEntry>, Arc<Failure>> {
        let (verifier, digest) = (self.clone(), offer.digest);
        let failure = move |outage| Failure { digest, outage };
        // A task of its own: a client that hangs up must not hold up the waiting clients.
        let flight = tokio::spawn(async move {
            let username = offer.candidate.login.username.clone();
            let compared = async {
                match verifier.clone().compare(offer, slot, |_| ()).await {
                    Ok(Some(entry)) => Ok(entry),
                    Ok(None) => Err(failure(None)),
                    Err(outage) => Err(failure(Some(outage))),
                }
            };
            verifier.cache(slot).try_get_with(username, compared).await
        });
        let panicked = |_| Arc::new(failure(Some(Outage::Hash)));
        flight.await.map_err(panicked)?
    }

    /// Compares with the hash in `slot`, and passes the hashing time to `report`.
    pub(super) async fn compare(
        self: Arc<Self>,
        offer: Offer,
        slot: PasswordSlot,
        report: impl FnOnce(Duration),
    ) -> Result<Option<Arc<CacheEntry>>, Outage> {
        let Offer {
            candidate,
            password,
            digest,
        } = offer;
        let login = &candidate.login;
        let stored = match (slot, &login.previous) {
            (PasswordSlot::Previous, Some(previous)) => previous.password_hash.clone(),
            _ => login.password_hash.clone(),
        };
        let compared = self.hasher.matches(password.clone(), stored).await?;
        report(compared.took);
        let Match::Yes { outdated } = compared.found else {
            return Ok(None);
        };
        let entry = Arc::new(CacheEntry::new(digest, login, slot, candidate.epoch));
        // The previous password's time is nearly over.
        if outdated && slot == PasswordSlot::Current {
            tokio::spawn(self.rehash(login.key, login.version, password));
        }
        Ok(Some(entry))
    }

    /// Brings a hash up to the configured cost. If that fails, the next comparison tries again.
    async fn rehash(self: Arc<Self>, key: i64, version: i64, password: Secret) {
        let Ok(_permit) = self.renewing.try_acquire() else {
            return;
        };
        let Ok(hash) = self.hasher.rehash(password).await else {
            return;
        };
        let store = self.store.clone();
        let seconds = self.metrics.store_seconds.of(StoreOperation::Rehash);
        let _timer = seconds.start_timer();
        let written = tokio::task::spawn_blocking(move || store.rehash(key, version, &hash));
        if let Ok(Err(error)) = written.await {
            static UNRENEWED: Throttle = Throttle::new();
            if let Some(count) = UNRENEWED.due() {
                tracing::warn!(%error, count, "a password's hash could not be renewed");
            }
        }
    }
}
