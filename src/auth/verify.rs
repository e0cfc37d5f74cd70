//! From credentials to a verdict.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;

use crate::metrics::{Metrics, Path};
use crate::sasl::{Credentials, Identity, Outage, Reason, Secret, Verdict};
use crate::store::{LastUsed, Login, Refusal, Store};

use super::cache::{Digest, Digester, Known};
use super::last_used::LastUsedBatch;
use super::password::{Hasher, Match};
use super::refusal;

/// How long a login may wait for its turn before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

// The results in logs and metrics.
const ACCEPT: &str = "accept";
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
    last_used: Arc<LastUsedBatch>,
    refusal_delay: Duration,
}

/// What a verification under way needs, also when nobody waits for it any more.
struct Core {
    store: Arc<Store>,
    cache: Cache<String, Arc<Known>>,
    digester: Digester,
    hasher: Hasher,
    /// Held while a hash is renewed; one at a time, since each may wait for the store's writer.
    renewing: Semaphore,
    metrics: Arc<Metrics>,
}

/// Why the leader of a flight has nothing to share but this.
struct Failure {
    digest: Digest,
    outage: Option<Outage>,
}

impl Authenticator {
    /// Verifies against `store`, remembers at most `cache_entries` right passwords, and answers
    /// refusals `refusal_delay` after the claim.
    pub fn new(
        store: Arc<Store>,
        hasher: Hasher,
        last_used: Arc<LastUsedBatch>,
        metrics: Arc<Metrics>,
        cache_entries: u64,
        refusal_delay: Duration,
    ) -> Self {
        metrics.logins(ACCEPT, "");
        for reason in Reason::ALL {
            metrics.logins(REJECT, reason.as_str());
        }
        for outage in Outage::ALL {
            metrics.logins(UNAVAILABLE, outage.as_str());
        }
        let cache = Cache::new(cache_entries);
        let core = Core {
            store,
            cache,
            digester: Digester::new(),
            hasher,
            renewing: Semaphore::new(1),
            metrics,
        };
        Self {
            core: Arc::new(core),
            last_used,
            refusal_delay,
        }
    }

    /// The verdict on a claim. A refusal takes its time; dropping the future is fine.
    pub async fn verify(&self, credentials: Credentials, peer: &Peer) -> Verdict {
        let claimed = tokio::time::Instant::now();
        let metrics = &self.core.metrics;
        let judged = tokio::time::timeout(PATIENCE, self.core.judge(&credentials)).await;
        metrics
            .auth_seconds
            .observe(claimed.elapsed().as_secs_f64());
        metrics
            .cache_entries
            .set(i64::try_from(self.core.cache.entry_count()).unwrap_or(i64::MAX));
        match judged.unwrap_or(Err(Refused::Outage(Outage::Busy))) {
            Ok(identity) => {
                metrics.logins(ACCEPT, "").inc();
                self.last_used.note(identity.key, used(&credentials, peer));
                Verdict::Accept(identity)
            }
            Err(Refused::Reason(reason)) => {
                metrics.logins(REJECT, reason.as_str()).inc();
                log_refusal(&credentials, peer, REJECT, reason.as_str());
                tokio::time::sleep_until(claimed + refusal::delay(self.refusal_delay)).await;
                Verdict::Reject(reason)
            }
            Err(Refused::Outage(outage)) => {
                metrics.logins(UNAVAILABLE, outage.as_str()).inc();
                log_refusal(&credentials, peer, UNAVAILABLE, outage.as_str());
                Verdict::Unavailable(outage)
            }
        }
    }
}

/// The one line for each refused login; its form is documented for fail2ban and the like.
fn log_refusal(credentials: &Credentials, peer: &Peer, result: &str, reason: &str) {
    let username: String = credentials.username.chars().take(64).collect();
    tracing::info!(
        target: "gatepost::auth",
        address = %peer.address,
        username = ?username,
        mechanism = credentials.mechanism.as_str(),
        result,
        reason,
        "login refused"
    );
}

fn used(credentials: &Credentials, peer: &Peer) -> LastUsed {
    LastUsed {
        at: jiff::Timestamp::now().as_millisecond(),
        address: peer.address.to_canonical().to_string(),
        tls: peer.tls.map(str::to_owned),
        mechanism: credentials.mechanism.as_str().to_owned(),
        helo: peer.helo.to_string(),
        count: 1,
    }
}

/// No, or could not tell.
enum Refused {
    Outage(Outage),
    Reason(Reason),
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason)
    }
}

impl From<Outage> for Refused {
    fn from(outage: Outage) -> Self {
        Self::Outage(outage)
    }
}

impl Core {
    async fn judge(self: &Arc<Self>, credentials: &Credentials) -> Result<Arc<Identity>, Refused> {
        if credentials.acts_for.is_some() {
            self.metrics.verdict_by(Path::Early);
            return Err(Reason::ActsForAnother.into());
        }
        let username = &credentials.username;
        let digest = self.digester.digest(username, &credentials.password);
        let mut path = Path::Cache;
        let mut flown = None;
        // Every round decides by what was true in `epoch`; if the store moved on meanwhile, the
        // next round looks again. Rounds that hash make an entry, so they do not repeat.
        loop {
            let epoch = self.store.epoch();
            // What a flight brought counts even if the cache had no room for it.
            let known = match flown.take() {
                Some(known) => Some(known),
                None => self.cache.get(username).await,
            };
            if let Some(known) = known.as_ref().filter(|known| known.is_fresh(epoch)) {
                self.metrics.verdict_by(path);
                return Ok(known.judge(digest, now_ms())?);
            }
            let login = match self.lookup(username).await? {
                Some(login) => login,
                None => {
                    self.cache.invalidate(username).await;
                    self.metrics.verdict_by(Path::Early);
                    return Err(Reason::Unknown.into());
                }
            };
            if let Some(refusal) = login.refusal(now_ms()) {
                self.metrics.verdict_by(Path::Early);
                return Err(reason(refusal).into());
            }
            match known {
                Some(known) if known.revalidate(&login, epoch) => continue,
                Some(_) => self.cache.invalidate(username).await,
                None => {}
            }
            let tag = login
                .tag
                .filter(|&tag| tag != self.store.tag(credentials.password.expose()));
            if tag.is_some() {
                self.metrics.verdict_by(Path::Early);
                return Err(Reason::WrongPassword.into());
            }
            match self
                .flight(login, epoch, &credentials.password, digest)
                .await
            {
                Ok(known) => (flown, path) = (Some(known), Path::Argon2),
                Err(failure) if failure.digest == digest => {
                    self.metrics.verdict_by(Path::Argon2);
                    return Err(failure
                        .outage
                        .map_or(Reason::WrongPassword.into(), Refused::Outage));
                }
                // The flight was another password's; it says nothing about this one.
                Err(_) => {}
            }
        }
    }

    async fn lookup(&self, username: &str) -> Result<Option<Login>, Outage> {
        let (store, username) = (self.store.clone(), username.to_owned());
        let found = tokio::task::spawn_blocking(move || store.lookup(&username)).await;
        found.map_err(|_| Outage::Store)?.map_err(|error| {
            tracing::error!(%error, "the store cannot be read, logins are put off");
            Outage::Store
        })
    }

    /// One argon2 a username at a time; who comes second waits for the first one's outcome.
    async fn flight(
        self: &Arc<Self>,
        login: Login,
        epoch: u64,
        password: &Secret,
        digest: Digest,
    ) -> Result<Arc<Known>, Arc<Failure>> {
        let (core, password) = (self.clone(), password.clone());
        // A task of its own: should this client hang up, whoever waits for the outcome still gets
        // it, and a leader that nobody polls would hold all of them up.
        let flight = tokio::spawn(async move {
            let username = login.username.clone();
            let compared = core.clone().compare(login, epoch, password, digest);
            core.cache.try_get_with(username, compared).await
        });
        let panicked = |_| {
            Arc::new(Failure {
                digest,
                outage: Some(Outage::Hash),
            })
        };
        flight.await.map_err(panicked)?
    }

    async fn compare(
        self: Arc<Self>,
        login: Login,
        epoch: u64,
        password: Secret,
        digest: Digest,
    ) -> Result<Arc<Known>, Failure> {
        let failure = |outage| Failure { digest, outage };
        let stored = login.password_hash.clone();
        let found = self.hasher.matches(password.clone(), stored).await;
        match found.map_err(|outage| failure(Some(outage)))? {
            Match::No => Err(failure(None)),
            Match::Yes { outdated } => {
                let known = Arc::new(Known::new(digest, &login, epoch));
                if outdated {
                    tokio::spawn(self.rehash(login, password));
                }
                Ok(known)
            }
        }
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
        let written =
            tokio::task::spawn_blocking(move || store.rehash(login.key, login.version, &hash));
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "a password's hash could not be renewed");
        }
    }
}

fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Expired => Reason::Expired,
        Refusal::Revoked => Reason::Revoked,
        Refusal::Suspended => Reason::Suspended,
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests;
