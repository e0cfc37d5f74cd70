//! Comparing an offered password with what is stored: once for all who offer it at the same time.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::cache::{Digest, Known, Slot};
use crate::auth::password::Match;
use crate::clock;
use crate::log::Throttle;
use crate::metrics::StoreOperation;
use crate::sasl::{Outage, Secret};
use crate::store::Login;

use super::core::Core;
use super::recalled::Recalled;

/// A password, and the credential as it was read in `epoch`.
#[derive(Clone)]
pub(super) struct Offered {
    pub(super) login: Login,
    pub(super) epoch: u64,
    pub(super) password: Secret,
    pub(super) digest: Digest,
}

/// Where a password was compared.
pub(super) enum Flown {
    /// With everything that it could have been.
    InVain,
    /// With nothing: it can be none of them.
    Nowhere,
    /// It is the one in this slot.
    To(Slot, Arc<Known>),
    /// Somebody else's attempt was under way, and says nothing about this one.
    WithAnother,
}

/// Why the leader of a flight has nothing to share but this.
pub(super) struct Failure {
    digest: Digest,
    outage: Option<Outage>,
}

impl Offered {
    /// The passwords that this one may be: as good as always the one whose tag it has.
    pub(super) fn candidates(&self, tag: u32, recalled: &Recalled) -> Vec<Slot> {
        let (login, now) = (&self.login, clock::steady_ms());
        let may_be = |stored: Option<u32>| stored.is_none_or(|stored| stored == tag);
        let previous = login
            .previous
            .as_ref()
            .filter(|previous| previous.until > now);
        let candidates = [
            (Slot::Current, may_be(login.tag)),
            (
                Slot::Previous,
                previous.is_some_and(|previous| may_be(previous.tag)),
            ),
        ];
        let candidates = candidates.into_iter();
        candidates
            .filter(|(slot, may_be)| *may_be && !recalled.is_ruled_out(*slot))
            .map(|(slot, _)| slot)
            .collect()
    }
}

impl Core {
    /// Compares with each of `candidates`.
    pub(super) async fn fly(
        self: &Arc<Self>,
        offered: &Offered,
        candidates: &[Slot],
    ) -> Result<Flown, Outage> {
        let mut outcome = Flown::Nowhere;
        for slot in candidates {
            match self.flight(offered.clone(), *slot).await {
                Ok(known) => return Ok(Flown::To(*slot, known)),
                Err(failure) if failure.digest != offered.digest => return Ok(Flown::WithAnother),
                Err(failure) => match failure.outage {
                    Some(outage) => return Err(outage),
                    None => outcome = Flown::InVain,
                },
            }
        }
        Ok(outcome)
    }

    /// One argon2 a username and slot at a time; who comes second waits for the first one's outcome.
    async fn flight(
        self: &Arc<Self>,
        offered: Offered,
        slot: Slot,
    ) -> Result<Arc<Known>, Arc<Failure>> {
        let (core, digest) = (self.clone(), offered.digest);
        // A task of its own: should this client hang up, whoever waits for the outcome still gets
        // it, and a leader that nobody polls would hold all of them up.
        let flight = tokio::spawn(async move {
            let username = offered.login.username.clone();
            let compared = async {
                match core.clone().compare(offered, slot, |_| ()).await {
                    Ok(Some(known)) => Ok(known),
                    Ok(None) => Err(None),
                    Err(outage) => Err(Some(outage)),
                }
            };
            let compared = async { compared.await.map_err(|outage| Failure { digest, outage }) };
            core.remembered(slot).try_get_with(username, compared).await
        });
        let panicked = |_| {
            Arc::new(Failure {
                digest,
                outage: Some(Outage::Hash),
            })
        };
        flight.await.map_err(panicked)?
    }

    /// Whether it is the one in `slot`; `took` is told how long the hash took.
    pub(super) async fn compare(
        self: Arc<Self>,
        offered: Offered,
        slot: Slot,
        took: impl FnOnce(Duration),
    ) -> Result<Option<Arc<Known>>, Outage> {
        let Offered {
            login,
            epoch,
            password,
            digest,
        } = offered;
        let stored = match (slot, &login.previous) {
            (Slot::Previous, Some(previous)) => previous.password_hash.clone(),
            _ => login.password_hash.clone(),
        };
        let compared = self.hasher.matches(password.clone(), stored).await?;
        took(compared.took);
        let Match::Yes { outdated } = compared.found else {
            return Ok(None);
        };
        let known = Arc::new(Known::new(digest, &login, slot, epoch));
        // The previous password's time is nearly over.
        if outdated && slot == Slot::Current {
            tokio::spawn(self.rehash(login, password));
        }
        Ok(Some(known))
    }

    /// Brings a hash up to today's cost. If that fails, the next login that is not cached tries
    /// again.
    async fn rehash(self: Arc<Self>, login: Login, password: Secret) {
        let Ok(_permit) = self.renewing.try_acquire() else {
            return;
        };
        let Ok(hash) = self.hasher.rehash(password).await else {
            return;
        };
        let store = self.store.clone();
        let seconds = self.metrics.store_seconds.of(StoreOperation::Rehash);
        let _timer = seconds.start_timer();
        let written =
            tokio::task::spawn_blocking(move || store.rehash(login.key, login.version, &hash));
        if let Ok(Err(error)) = written.await {
            static UNRENEWED: Throttle = Throttle::new();
            if let Some(count) = UNRENEWED.due() {
                tracing::warn!(%error, count, "a password's hash could not be renewed");
            }
        }
    }
}
