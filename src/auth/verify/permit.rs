//! Work under a hash permit, for unknown clients and usernames that people chose.
//!
//! A rejection must not reveal which of these usernames exist. Where one exists, its password may
//! have to be hashed under a permit for which unknown clients wait. Every rejection of such a
//! username therefore takes a permit and the time of a hash. Work under a permit runs to its end
//! even if the client gives up: its result answers the next attempt.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::auth::cache::Digest;
use crate::auth::guard::{Guard, HashPermit, Prefix, Target};
use crate::sasl::Outage;

use super::machine::{CompareOutcome, may_come_from};
use super::single_flight::Offer;
use super::verifier::Verifier;

/// By how much a timer may be late.
const TICK: Duration = Duration::from_millis(1);

/// The client on whose behalf a permit is used.
pub(super) struct Holder {
    pub(super) guard: Arc<Guard>,
    pub(super) address: IpAddr,
    /// `None` if the client is exempt.
    pub(super) client: Option<Prefix>,
    /// Until when the client waits for a hash.
    pub(super) cut: Instant,
}

impl Verifier {
    pub(super) async fn compare_with_permit(
        self: &Arc<Self>,
        permit: HashPermit,
        offer: Offer,
        holder: Holder,
    ) -> Result<CompareOutcome, Outage> {
        let Holder {
            guard,
            address,
            client,
            cut,
        } = holder;
        let target = Target::of(&offer.candidate.login);
        let (verifier, own_guard) = (self.clone(), guard.clone());
        let (late_verifier, epoch) = (self.clone(), offer.candidate.epoch);
        let compare = async move {
            let digest = offer.digest;
            let outcome = verifier.compare_each(offer, &own_guard).await;
            if let Ok(CompareOutcome::Mismatch) = outcome {
                own_guard.remember_wrong(Some(target), digest);
            }
            outcome
        };
        // A wrong guess counts even if the client did not wait for the result, and a client with
        // the right password is known from now on.
        let late = move |outcome| match (outcome, client) {
            (Ok(CompareOutcome::Mismatch), _) => guard.guessed(target),
            (Ok(CompareOutcome::Match(_, entry)), Some(client))
                if late_verifier.store.epoch() == epoch
                    && may_come_from(&entry.identity(), address) =>
            {
                guard.late_success(client, target);
            }
            _ => {}
        };
        match run(permit, cut, compare, late).await {
            Some(Err(Outage::Busy)) | None => Ok(CompareOutcome::TooLate),
            Some(outcome) => outcome,
        }
    }

    async fn compare_each(
        self: Arc<Self>,
        offer: Offer,
        guard: &Guard,
    ) -> Result<CompareOutcome, Outage> {
        let (mut outcome, mut is_compared) = (CompareOutcome::NoCandidate, true);
        for slot in offer.candidate.slots.iter().copied() {
            let report = |took| guard.record_hash_time(took);
            match self.clone().compare(offer.clone(), slot, report).await {
                // The hasher logs the cause. The client gets the answer for an unknown username.
                Err(Outage::Hash) => is_compared = false,
                Err(outage) => return Err(outage),
                Ok(None) => outcome = CompareOutcome::Mismatch,
                Ok(Some(entry)) => {
                    let username = offer.candidate.login.username.clone();
                    self.cache(slot).insert(username, entry.clone()).await;
                    return Ok(CompareOutcome::Match(slot, entry));
                }
            }
        }
        // A password that met an unusable hash must not be remembered as wrong.
        match is_compared {
            true => Ok(outcome),
            false => Ok(CompareOutcome::NoCandidate),
        }
    }

    /// Takes as long as a hash for the username with the digest `name`, without a thread's time.
    /// Returns whether the client still waited.
    pub(super) async fn simulate_hash(
        self: &Arc<Self>,
        permit: HashPermit,
        name: Digest,
        digest: Digest,
        guard: Arc<Guard>,
        cut: Instant,
    ) -> bool {
        let verifier = self.clone();
        let simulate = async move {
            verifier.hasher.wait_for_thread().await?;
            let time = guard.hash_time(name.mark()).saturating_sub(TICK);
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            guard.remember_wrong(None, digest);
            Ok::<_, Outage>(())
        };
        let done = run(permit, cut, simulate, |_| ()).await;
        matches!(done, Some(Ok(())))
    }
}

/// Does the work under the permit and to its end. `None` if the work ends after `cut`; `late` then
/// gets the result.
async fn run<T: Send + 'static>(
    permit: HashPermit,
    cut: Instant,
    work: impl Future<Output = T> + Send + 'static,
    late: impl FnOnce(T) + Send + 'static,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    tokio::spawn(async move {
        let done = work.await;
        drop(permit);
        if let Err(done) = answer.send(done) {
            late(done);
        }
    });
    timeout_at(cut, answered).await.ok()?.ok()
}
