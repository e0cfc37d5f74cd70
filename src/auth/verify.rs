//! From credentials to a verdict.

mod core;
mod flight;
mod recalled;
mod record;
mod refused;
mod strangers;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::metrics::{LoginOutcome, Metrics};
use crate::sasl::{Bar, Credentials, Outage, Reason, Verdict};
use crate::store::Store;

use self::core::{Asked, Core};
use self::record::{log_refusal, password_use, refused_login, used};
use self::refused::{Proven, Refused};
use super::cache::Digester;
use super::containment::{contain, count};
use super::guard::{Attempt, Guard, Settings};
use super::issue;
use super::noted::NotedBatch;
use super::password::Hasher;
use super::quota::{self, Allowance, Quotas};
use super::refusal;
use super::watch::{self, Polls};

/// How long a login may wait for its turn before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

// The results in logs and metrics.
const ACCEPT: &str = "accept";
const BARRED: &str = "barred";
const REJECT: &str = "reject";
const UNAVAILABLE: &str = "unavailable";

/// Where a claim comes from.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: IpAddr,
    /// The version of TLS, if there is TLS.
    pub tls: Option<&'static str>,
    /// What the client calls itself.
    pub helo: Arc<str>,
}

/// Answers whether clients are who they say they are.
pub struct Authenticator {
    core: Arc<Core>,
    guard: Arc<Guard>,
    noted: Arc<NotedBatch>,
    quotas: Arc<Quotas>,
    refusal_delay: Duration,
    folds_case: bool,
    /// How long a stranger waits for what a hash shows.
    patience: Duration,
}

/// How many previous passwords are remembered; overlaps are few and pass.
const PREVIOUS_ENTRIES: u64 = 10_000;

/// Of how many names it is remembered why they were refused. Of those that are tried again and again, by devices with an old
/// password or by people who guess, there are few.
const REFUSED_ENTRIES: u64 = 1_000;

impl Authenticator {
    /// Verifies against `store`, remembers at most `cache_entries` right passwords, and answers
    /// refusals `refusal_delay` after the claim.
    pub fn new(
        store: Arc<Store>,
        hasher: Hasher,
        noted: Arc<NotedBatch>,
        quotas: Arc<Quotas>,
        metrics: Arc<Metrics>,
        cache_entries: u64,
        refusal_delay: Duration,
    ) -> Self {
        metrics.logins(ACCEPT, "");
        metrics.logins(BARRED, Bar::Sessions.as_str());
        for reason in Reason::ALL {
            metrics.logins(REJECT, reason.as_str());
        }
        for bar in Bar::ALL {
            metrics.logins(BARRED, bar.as_str());
        }
        for outage in Outage::ALL {
            metrics.logins(UNAVAILABLE, outage.as_str());
        }
        let guard = Arc::new(Guard::new(Settings::off(), metrics.clone()));
        let core = Core {
            store,
            cache: Cache::new(cache_entries),
            previous: Cache::new(cache_entries.min(PREVIOUS_ENTRIES)),
            refused: Cache::new(cache_entries.min(REFUSED_ENTRIES)),
            polls: Arc::default(),
            may_ask_again: refusal::is_later_than(watch::NEXT, refusal_delay),
            digester: Digester::new(),
            hasher,
            renewing: Semaphore::new(1),
            metrics,
        };
        Self {
            core: Arc::new(core),
            guard,
            noted,
            quotas,
            patience: refusal::patience(refusal_delay),
            refusal_delay,
            folds_case: false,
        }
    }

    /// Takes usernames that Gatepost did not generate without regard to case, if `folds`.
    pub fn folding_case(self, folds: bool) -> Self {
        Self {
            folds_case: folds,
            ..self
        }
    }

    /// Whether usernames that Gatepost did not generate are taken without regard to case.
    pub fn folds_case(&self) -> bool {
        self.folds_case
    }

    /// With a guard; without one, everybody may guess for ever.
    pub fn guarded_by(self, guard: Arc<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// Who counts what is refused.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// When the store is asked whether another process wrote.
    pub fn polls(&self) -> Arc<Polls> {
        self.core.polls.clone()
    }

    /// How many right passwords are remembered.
    pub fn remembered(&self) -> u64 {
        self.core.cache.entry_count() + self.core.previous.entry_count()
    }

    /// The verdict on a claim. A refusal takes its time; dropping the future is fine.
    pub async fn verify(&self, credentials: Credentials, peer: &Peer) -> Verdict {
        self.decide(credentials, peer, None).await
    }

    /// The verdict on a claim that begins a session here, and what the session may do.
    pub async fn admit(
        &self,
        credentials: Credentials,
        peer: &Peer,
    ) -> (Verdict, Option<Allowance>) {
        let mut allowance = None;
        let verdict = self.decide(credentials, peer, Some(&mut allowance)).await;
        (verdict, allowance)
    }

    async fn decide(
        &self,
        mut credentials: Credentials,
        peer: &Peer,
        session: Option<&mut Option<Allowance>>,
    ) -> Verdict {
        // Before anything is kept or looked up by it, so that one credential has one name everywhere.
        if self.folds_case {
            credentials.username = issue::folded(&credentials.username).into_owned();
        }
        let epoch = self.core.store.epoch();
        let begun = Instant::now();
        let metrics = &self.core.metrics;
        let attempt = self.guard.attempt(peer.address);
        let asked = Asked {
            credentials: &credentials,
            digest: self.core.digest(&credentials),
            attempt: &attempt,
            peer,
            guard: &self.guard,
            cut: begun + self.patience,
            held_back: AtomicU64::new(0),
        };
        let judged = tokio::time::timeout(PATIENCE, self.core.judge(&asked)).await;
        let held_back = Duration::from_micros(asked.held_back.load(Ordering::Relaxed));
        let took = begun.elapsed().saturating_sub(held_back);
        metrics.auth_seconds.observe(took.as_secs_f64());
        metrics
            .cache_entries
            .set(i64::try_from(self.remembered()).unwrap_or(i64::MAX));
        let mut judged = judged.unwrap_or(Err(Refused::Outage(Outage::Busy)));
        if let Ok(proven) = judged {
            let contained = contain(&proven.identity, peer, metrics, &self.noted, now_ms());
            judged = match (contained, session) {
                (Err(reason), _) => Err(Refused::Reason(reason, Some(proven.identity), None)),
                (Ok(()), None) => Ok(proven),
                (Ok(()), Some(allowance)) => self.enter(proven, epoch, allowance).await,
            };
        }
        let judged = judged.map_err(|refused| barred(refused, &attempt));
        let judged = self.core.as_if_hashed(judged, &asked).await;
        let refused = match judged {
            Ok(proven) => return self.accept(proven, &asked, peer),
            Err(refused) => refused,
        };
        let is_unheard = matches!(refused, Refused::Unheard);
        let (verdict, due) = self.refuse(refused, &asked, peer);
        tokio::time::sleep_until(begun + due).await;
        // Counted now, because who came with others of whom one has logged in meanwhile does not guess.
        match is_unheard && self.guard.unheard(&attempt) {
            true => Verdict::Barred(Bar::Guard),
            false => verdict,
        }
    }

    fn accept(&self, proven: Proven, asked: &Asked, peer: &Peer) -> Verdict {
        let Proven {
            identity,
            slot,
            overlaps,
        } = proven;
        let metrics = &self.core.metrics;
        metrics.logins(ACCEPT, "").inc();
        metrics.login_of(
            &identity.organization,
            &identity.username,
            LoginOutcome::Accepted,
        );
        self.guard.accepted(asked.attempt, identity.key);
        let used = used(asked.credentials, peer);
        if overlaps {
            let own = password_use(&used);
            self.noted.used_in_overlap(identity.key, slot, own);
        }
        self.noted.accepted(identity.key, used);
        Verdict::Accept(identity)
    }

    /// Writes a refusal down. What to answer, and how long after the claim.
    fn refuse(&self, refused: Refused, asked: &Asked, peer: &Peer) -> (Verdict, Duration) {
        let (metrics, credentials) = (&self.core.metrics, asked.credentials);
        match refused {
            Refused::Barred(bar) => {
                metrics.logins(BARRED, bar.as_str()).inc();
                let refusal = refused_login(credentials, peer, bar.as_str(), None);
                // Who has too many sessions has proven who they are.
                self.noted.turned_away(refusal, bar == Bar::Sessions);
                log_refusal(credentials, peer, BARRED, bar.as_str());
                (Verdict::Barred(bar), Duration::ZERO)
            }
            Refused::Reason(reason, claimed_identity, retired_at) => {
                let key = claimed_identity.as_ref().map(|identity| identity.key);
                let mark = asked.digest.mark();
                let follows = self.guard.refused(asked.attempt, reason, key, mark);
                metrics.logins(REJECT, reason.as_str()).inc();
                let refusal = refused_login(credentials, peer, reason.as_str(), retired_at);
                self.noted.turned_away(refusal, claimed_identity.is_some());
                count(reason, metrics);
                // Unknown names are nobody's, and anybody's to make up.
                if let Some(identity) = claimed_identity {
                    metrics.login_of(
                        &identity.organization,
                        &identity.username,
                        LoginOutcome::Refused,
                    );
                    self.noted.refused(identity.key, now_ms());
                }
                log_refusal(credentials, peer, REJECT, reason.as_str());
                let verdict = match follows.barred {
                    true => Verdict::Barred(Bar::Guard),
                    false => Verdict::Reject(reason),
                };
                let delay = refusal::delay(self.refusal_delay * follows.slowness);
                (verdict, delay)
            }
            Refused::Unheard => self.put_off(Outage::Busy, asked, peer),
            Refused::Outage(outage) => self.put_off(outage, asked, peer),
        }
    }

    fn put_off(&self, outage: Outage, asked: &Asked, peer: &Peer) -> (Verdict, Duration) {
        let metrics = &self.core.metrics;
        metrics.logins(UNAVAILABLE, outage.as_str()).inc();
        log_refusal(asked.credentials, peer, UNAVAILABLE, outage.as_str());
        let delay = refusal::delay(self.refusal_delay);
        (Verdict::Unavailable(outage), delay)
    }

    async fn enter(
        &self,
        proven: Proven,
        epoch: u64,
        allowance: &mut Option<Allowance>,
    ) -> Result<Proven, Refused> {
        match self.quotas.enter(&proven.identity, epoch).await {
            Ok(entered) => *allowance = Some(entered),
            Err(quota::Refused::Barred(bar)) => return Err(Refused::Barred(bar)),
            Err(quota::Refused::Unknown(outage)) => return Err(Refused::Outage(outage)),
        }
        Ok(proven)
    }
}

/// Who is turned away is not told why: that would be one more guess.
fn barred(refused: Refused, attempt: &Attempt) -> Refused {
    match refused {
        Refused::Reason(_, claimed, _)
            if attempt.is_barred_for(claimed.as_ref().map(|identity| identity.key)) =>
        {
            Refused::Barred(Bar::Guard)
        }
        refused => refused,
    }
}

fn now_ms() -> i64 {
    crate::clock::now_ms()
}

#[cfg(test)]
mod tests;
