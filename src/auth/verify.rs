//! From credentials to a verdict: carries out the steps that the machine names.

pub(super) mod cached;
pub(super) mod machine;
mod permit;
mod record;
mod single_flight;
mod verifier;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::clock::{self, Moment};
use crate::metrics::{LoginOutcome, Metrics, Path};
use crate::sasl::{Credentials, Outage, Reason, Throttled, Verdict};
use crate::store::Store;

use self::machine::{
    Accepted, Candidate, CompareOutcome, Input, Rejected, Request, Step, Verification,
};
use self::permit::Holder;
use self::record::{log_rejection, password_use, rejected_login, used};
use self::single_flight::Offer;
use self::verifier::Verifier;
use super::activity::ActivityBatch;
use super::cache::Digest;
use super::guard::{Attempt, Guard, HashPermit, Outcome, Settings, Target};
use super::issue;
use super::login_rules::{count_broken_rule, report_broken_rules};
use super::password::Hasher;
use super::peer::Peer;
use super::quota::{self, Quotas, SessionQuota};
use super::refusal_delay;
use super::store_poller::{self, StorePoller};

/// A login that is not judged by then is put off.
const JUDGED_WITHIN: Duration = Duration::from_secs(10);

// The results in logs and metrics.
const ACCEPT: &str = "accept";
const BARRED: &str = "barred";
const REJECT: &str = "reject";
const UNAVAILABLE: &str = "unavailable";

pub struct Authenticator {
    verifier: Arc<Verifier>,
    guard: Arc<Guard>,
    activity: Arc<ActivityBatch>,
    quotas: Arc<Quotas>,
    refusal_delay: Duration,
    folds_case: bool,
    /// Whether the store can be polled again before a rejection is due.
    may_await_poll: bool,
    /// How long an unknown client waits for a permit and a hash.
    permit_timeout: Duration,
}

impl Authenticator {
    /// Caches at most `cache_entries` right passwords, and answers rejections `refusal_delay`
    /// after the request.
    pub fn new(
        store: Arc<Store>,
        hasher: Hasher,
        activity: Arc<ActivityBatch>,
        quotas: Arc<Quotas>,
        metrics: Arc<Metrics>,
        cache_entries: u64,
        refusal_delay: Duration,
    ) -> Self {
        metrics.logins(ACCEPT, "");
        for reason in Reason::ALL {
            metrics.logins(REJECT, reason.as_str());
        }
        for bar in Throttled::ALL {
            metrics.logins(BARRED, bar.as_str());
        }
        for outage in Outage::ALL {
            metrics.logins(UNAVAILABLE, outage.as_str());
        }
        let guard = Guard::new(Settings::off(), metrics.clone());
        Self {
            verifier: Arc::new(Verifier::new(store, hasher, metrics, cache_entries)),
            guard: Arc::new(guard),
            activity,
            quotas,
            may_await_poll: refusal_delay::is_later_than(store_poller::NEXT_POLL, refusal_delay),
            permit_timeout: refusal_delay::permit_timeout(refusal_delay),
            refusal_delay,
            folds_case: false,
        }
    }

    /// With `folds`, ignores the case of usernames that Gatepost did not generate.
    pub(crate) fn folding_case(self, folds: bool) -> Self {
        Self {
            folds_case: folds,
            ..self
        }
    }

    pub(crate) fn folds_case(&self) -> bool {
        self.folds_case
    }

    /// Without a guard, clients may guess without limit.
    pub(crate) fn guarded_by(self, guard: Arc<Guard>) -> Self {
        Self { guard, ..self }
    }

    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    pub(crate) fn store_poller(&self) -> Arc<StorePoller> {
        self.verifier.poller.clone()
    }

    /// How many right passwords are cached.
    pub(crate) fn cached(&self) -> u64 {
        self.verifier.cached()
    }

    /// The verdict on a claim. A rejection comes at its time; dropping the future is safe.
    pub async fn verify(&self, credentials: Credentials, peer: &Peer) -> Verdict {
        self.decide(credentials, peer, None).await
    }

    /// The verdict on a claim that opens a session, and the quota of the session.
    pub(crate) async fn admit(
        &self,
        credentials: Credentials,
        peer: &Peer,
    ) -> (Verdict, Option<SessionQuota>) {
        let mut quota = None;
        let verdict = self.decide(credentials, peer, Some(&mut quota)).await;
        (verdict, quota)
    }

    async fn decide(
        &self,
        mut credentials: Credentials,
        peer: &Peer,
        quota: Option<&mut Option<SessionQuota>>,
    ) -> Verdict {
        // First of all, so that a credential has one username in caches, metrics and records.
        if self.folds_case {
            credentials.username = issue::folded(&credentials.username).into_owned();
        }
        let begun = Instant::now();
        let store = &self.verifier.store;
        let mut driver = Driver {
            authenticator: self,
            credentials: &credentials,
            peer,
            quota,
            begun,
            epoch: store.epoch(),
            digest: self.verifier.digest(&credentials),
            tag: store.tag(credentials.password.expose()),
            // An unknown client needs the time for a permit, if people chose the username.
            may_await_poll: self.may_await_poll && issue::is_generated(&credentials.username),
            polling: Duration::ZERO,
        };
        let request = Request {
            username: &credentials.username,
            has_authzid: credentials.authzid.is_some(),
            digest: driver.digest,
            tag: driver.tag,
            address: peer.address,
            may_await_poll: driver.may_await_poll,
        };
        let attempt = self.guard.attempt(peer.address);
        let (mut machine, mut step) = Verification::begin(request, attempt);
        loop {
            match driver.carry_out(step, machine.attempt()).await {
                ControlFlow::Break(verdict) => return verdict,
                ControlFlow::Continue(input) => step = machine.next(input, Moment::now()),
            }
        }
    }
}

/// One claim on its way to a verdict.
struct Driver<'a> {
    authenticator: &'a Authenticator,
    credentials: &'a Credentials,
    peer: &'a Peer,
    /// Where the quota of the session goes, if the claim opens a session.
    quota: Option<&'a mut Option<SessionQuota>>,
    begun: Instant,
    /// The store's epoch at the request.
    epoch: u64,
    digest: Digest,
    tag: u32,
    may_await_poll: bool,
    /// The time spent on waiting for polls.
    polling: Duration,
}

impl Driver<'_> {
    async fn carry_out(
        &mut self,
        step: Step,
        attempt: &Attempt<'_>,
    ) -> ControlFlow<Verdict, Input> {
        let Authenticator {
            verifier, guard, ..
        } = self.authenticator;
        let username = &self.credentials.username;
        let deadline = self.begun + JUDGED_WITHIN;
        let cut = self.begun + self.authenticator.permit_timeout;
        ControlFlow::Continue(match step {
            Step::Recall => {
                let epoch = verifier.store.epoch();
                Input::Cached(epoch, verifier.recall(username).await)
            }
            Step::AwaitPoll => {
                let since = Instant::now();
                let is_polled = timeout_at(deadline, verifier.poller.next()).await;
                self.polling += since.elapsed();
                let epoch = || verifier.store.epoch();
                Input::Polled(is_polled.unwrap_or(false).then(epoch))
            }
            Step::Lookup { epoch, may_reuse } => {
                let may_remember = self.may_await_poll;
                let row = verifier.row(username, self.tag, epoch, may_reuse, may_remember);
                in_time(timeout_at(deadline, row).await)
            }
            Step::AcquirePermit(client) => {
                let permit = timeout_at(cut, guard.hash_permit(client)).await;
                Input::Permit(permit.ok().and_then(Result::ok))
            }
            Step::Compare(candidate, permit) => {
                // Boxed, so that the future of every session stays small.
                let compared = Box::pin(self.compare(candidate, permit, attempt));
                in_time(timeout_at(deadline, compared).await)
            }
            Step::Measure(path) => {
                self.measure(path);
                Input::Measured
            }
            Step::SimulateHash(permit) => {
                let name = verifier.digest_of_name(username);
                let hash = verifier.simulate_hash(permit, name, self.digest, guard.clone(), cut);
                Input::Simulated(Box::pin(hash).await)
            }
            Step::Enter(accepted) => self.enter(accepted, attempt).await,
            Step::Count(rejected) => Input::Counted(self.count(rejected, attempt)),
            Step::Delay(slowness) => {
                let delay = self.authenticator.refusal_delay * slowness;
                sleep_until(self.begun + refusal_delay::jittered(delay)).await;
                Input::Delayed
            }
            Step::CountTimeout => Input::Counted(guard.hash_permit_timeout(attempt)),
            Step::Done(verdict) => return ControlFlow::Break(verdict),
        })
    }

    async fn compare(
        &self,
        candidate: Arc<Candidate>,
        permit: Option<HashPermit>,
        attempt: &Attempt<'_>,
    ) -> Result<Input, Outage> {
        let Authenticator {
            verifier, guard, ..
        } = self.authenticator;
        let offer = Offer {
            candidate,
            password: self.credentials.password.clone(),
            digest: self.digest,
        };
        let target = Target::of(&offer.candidate.login);
        let outcome = match permit {
            Some(permit) => {
                let holder = Holder {
                    guard: guard.clone(),
                    address: self.peer.address,
                    client: attempt.client(),
                    cut: self.begun + self.authenticator.permit_timeout,
                };
                verifier.compare_with_permit(permit, offer, holder).await?
            }
            None => verifier.compare_shared(offer).await?,
        };
        if let CompareOutcome::Mismatch = outcome {
            guard.remember_wrong(Some(target), self.digest);
        }
        Ok(Input::Compared(outcome))
    }

    fn measure(&self, path: Option<Path>) {
        let verifier = &self.authenticator.verifier;
        let metrics = &verifier.metrics;
        if let Some(path) = path {
            metrics.verdict_by(path);
        }
        let took = self.begun.elapsed().saturating_sub(self.polling);
        metrics.auth_seconds.observe(took.as_secs_f64());
        let cached = i64::try_from(verifier.cached());
        metrics.cache_entries.set(cached.unwrap_or(i64::MAX));
    }

    /// Opens the session and keeps the use of the credential.
    async fn enter(&mut self, accepted: Accepted, attempt: &Attempt<'_>) -> Input {
        let (metrics, activity) = (
            &self.authenticator.verifier.metrics,
            &self.authenticator.activity,
        );
        let identity = &accepted.identity;
        report_broken_rules(identity, self.peer, metrics, activity, clock::now_ms());
        if let Some(quota) = &mut self.quota {
            match self.authenticator.quotas.enter(identity, self.epoch).await {
                Ok(entered) => **quota = Some(entered),
                Err(quota::Refused::Throttled(bar)) => return Input::Throttled(bar),
                Err(quota::Refused::Unknown(outage)) => return Input::Failed(outage),
            }
        }
        metrics.logins(ACCEPT, "").inc();
        let accept = LoginOutcome::Accepted;
        metrics.login_of(&identity.organization, &identity.username, accept);
        self.authenticator.guard.accepted(attempt, identity.key);
        let used = used(self.credentials, self.peer);
        if accepted.overlaps {
            let own = password_use(&used);
            activity.used_in_overlap(identity.key, accepted.slot, own);
        }
        activity.accepted(identity.key, used);
        Input::Entered
    }

    /// Counts, logs and keeps a rejection.
    fn count(&self, rejected: Rejected, attempt: &Attempt<'_>) -> Outcome {
        let Authenticator {
            guard, activity, ..
        } = self.authenticator;
        let metrics = &self.authenticator.verifier.metrics;
        let (result, reason) = match &rejected {
            Rejected::NoHashPermit => (UNAVAILABLE, Outage::Busy.as_str()),
            Rejected::Reason { reason, .. } => (REJECT, reason.as_str()),
            Rejected::Throttled(bar) => (BARRED, bar.as_str()),
            Rejected::Unavailable(outage) => (UNAVAILABLE, outage.as_str()),
        };
        let keep = |retired_at, is_known| {
            let rejection = rejected_login(self.credentials, self.peer, reason, retired_at);
            activity.note_rejection(rejection, is_known);
        };
        let mut outcome = Outcome::default();
        match &rejected {
            // A client with too many sessions has proven its identity.
            Rejected::Throttled(bar) => keep(None, *bar == Throttled::Sessions),
            Rejected::Reason {
                reason,
                identity,
                retired_at,
            } => {
                let key = identity.as_ref().map(|identity| identity.key);
                outcome = guard.refused(attempt, *reason, key, self.digest.mark());
                keep(*retired_at, identity.is_some());
                count_broken_rule(*reason, metrics);
                // Clients make unknown usernames up; metrics must not keep a series for each.
                if let Some(identity) = identity {
                    let refused = LoginOutcome::Refused;
                    metrics.login_of(&identity.organization, &identity.username, refused);
                    activity.refused(identity.key, clock::now_ms());
                }
            }
            Rejected::NoHashPermit | Rejected::Unavailable(_) => {}
        }
        metrics.logins(result, reason).inc();
        log_rejection(self.credentials, self.peer, result, reason);
        outcome
    }
}

fn in_time(answer: Result<Result<Input, Outage>, Elapsed>) -> Input {
    match answer {
        Ok(Ok(input)) => input,
        Ok(Err(outage)) => Input::Failed(outage),
        Err(_) => Input::Failed(Outage::Busy),
    }
}

#[cfg(test)]
mod tests;
