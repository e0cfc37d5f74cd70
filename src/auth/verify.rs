//! From credentials to a verdict.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;

use crate::metrics::{LoginOutcome, Metrics, Path, StoreOperation};
use crate::sasl::{Bar, Credentials, Identity, Outage, Reason, Secret, Verdict};
use crate::store::{LastUsed, Login, Refusal, Store};

use super::cache::{Digest, Digester, Known, Slot, identity_of};
use super::containment::{contain, count};
use super::denial::Denials;
use super::noted::NotedBatch;
use super::password::{Hasher, Match};
use super::quota::{self, Allowance, Quotas};
use super::refusal;

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
    noted: Arc<NotedBatch>,
    quotas: Arc<Quotas>,
    refusal_delay: Duration,
}

/// What a verification under way needs, also when nobody waits for it any more.
struct Core {
    store: Arc<Store>,
    cache: Cache<String, Arc<Known>>,
    /// The previous passwords of those credentials that are in an overlap.
    previous: Cache<String, Arc<Known>>,
    denials: Arc<Denials>,
    digester: Digester,
    hasher: Hasher,
    /// Held while a hash is renewed; one at a time, since each may wait for the store's writer.
    renewing: Semaphore,
    metrics: Arc<Metrics>,
}

/// How many previous passwords are remembered; overlaps are few and pass.
const PREVIOUS_ENTRIES: u64 = 10_000;

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
        for outage in Outage::ALL {
            metrics.logins(UNAVAILABLE, outage.as_str());
        }
        let core = Core {
            store,
            cache: Cache::new(cache_entries),
            previous: Cache::new(cache_entries.min(PREVIOUS_ENTRIES)),
            denials: Arc::default(),
            digester: Digester::new(),
            hasher,
            renewing: Semaphore::new(1),
            metrics,
        };
        Self {
            core: Arc::new(core),
            noted,
            quotas,
            refusal_delay,
        }
    }

    /// Whom to refuse although the store does not say so yet.
    pub fn denials(&self) -> Arc<Denials> {
        self.core.denials.clone()
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
        credentials: Credentials,
        peer: &Peer,
        session: Option<&mut Option<Allowance>>,
    ) -> Verdict {
        let epoch = self.core.store.epoch();
        let claimed = tokio::time::Instant::now();
        let metrics = &self.core.metrics;
        let judged = tokio::time::timeout(PATIENCE, self.core.judge(&credentials)).await;
        metrics
            .auth_seconds
            .observe(claimed.elapsed().as_secs_f64());
        metrics
            .cache_entries
            .set(i64::try_from(self.remembered()).unwrap_or(i64::MAX));
        let mut judged = judged.unwrap_or(Err(Refused::Outage(Outage::Busy)));
        if let Ok(identity) = judged {
            judged = match (contain(&identity, peer, metrics, now_ms()), session) {
                (Err(reason), _) => Err(Refused::Reason(reason, Some(identity))),
                (Ok(()), None) => Ok(identity),
                (Ok(()), Some(allowance)) => self.enter(identity, epoch, allowance).await,
            };
        }
        match judged {
            Ok(identity) => {
                metrics.logins(ACCEPT, "").inc();
                metrics.login_of(
                    &identity.organization,
                    &identity.username,
                    LoginOutcome::Accepted,
                );
                self.noted.accepted(identity.key, used(&credentials, peer));
                Verdict::Accept(identity)
            }
            Err(Refused::Reason(reason, claimed_identity)) => {
                metrics.logins(REJECT, reason.as_str()).inc();
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
                log_refusal(&credentials, peer, REJECT, reason.as_str());
                tokio::time::sleep_until(claimed + refusal::delay(self.refusal_delay)).await;
                Verdict::Reject(reason)
            }
            Err(Refused::Bar(bar)) => {
                metrics.logins(BARRED, bar.as_str()).inc();
                log_refusal(&credentials, peer, BARRED, bar.as_str());
                Verdict::Barred(bar)
            }
            Err(Refused::Outage(outage)) => {
                metrics.logins(UNAVAILABLE, outage.as_str()).inc();
                log_refusal(&credentials, peer, UNAVAILABLE, outage.as_str());
                Verdict::Unavailable(outage)
            }
        }
    }

    async fn enter(
        &self,
        identity: Arc<Identity>,
        epoch: u64,
        allowance: &mut Option<Allowance>,
    ) -> Result<Arc<Identity>, Refused> {
        match self.quotas.enter(&identity, epoch).await {
            Ok(entered) => *allowance = Some(entered),
            Err(quota::Refused::Barred(bar)) => return Err(Refused::Bar(bar)),
            Err(quota::Refused::Unknown(outage)) => return Err(Refused::Outage(outage)),
        }
        Ok(identity)
    }
}

/// The one line for each refused login; its form is documented for fail2ban and the like.
fn log_refusal(credentials: &Credentials, peer: &Peer, result: &str, reason: &str) {
    tracing::info!(
        target: "gatepost::auth",
        address = %peer.address.to_canonical(),
        // Bounded by SASL: at most 255 octets.
        username = credentials.username,
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
    Bar(Bar),
    Outage(Outage),
    /// With whom the client claimed to be, if there is such a credential.
    Reason(Reason, Option<Arc<Identity>>),
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason, None)
    }
}

impl From<Outage> for Refused {
    fn from(outage: Outage) -> Self {
        Self::Outage(outage)
    }
}

/// What is remembered of one username, by [`Slot`].
struct Recalled {
    known: [Option<Arc<Known>>; 2],
    /// Passwords that the offered one is known not to be.
    ruled_out: [bool; 2],
}

impl Recalled {
    /// Judges by what is fresh, if that is enough.
    fn judge(
        &mut self,
        epoch: u64,
        digest: Digest,
        now_ms: i64,
    ) -> Option<Result<Arc<Identity>, Refused>> {
        for (known, ruled_out) in self.known.iter().zip(&mut self.ruled_out) {
            let Some(known) = known.as_ref().filter(|known| known.is_fresh(epoch)) else {
                continue;
            };
            match known.judge(digest, now_ms) {
                None => *ruled_out = true,
                Some(judged) => {
                    return Some(
                        judged.map_err(|reason| Refused::Reason(reason, Some(known.identity()))),
                    );
                }
            }
        }
        None
    }

    fn stale(&self, epoch: u64) -> impl Iterator<Item = Slot> {
        let is_stale = move |known: &Option<Arc<Known>>| {
            known.as_ref().is_some_and(|known| !known.is_fresh(epoch))
        };
        let slots = [Slot::Current, Slot::Previous];
        slots
            .into_iter()
            .filter(move |slot| is_stale(&self.known[*slot as usize]))
    }

    /// Whether anything that was not fresh is so again, given the row as it was read in `epoch`.
    fn revalidate(&self, login: &Login, epoch: u64) -> bool {
        let stale = |known: &&Arc<Known>| !known.is_fresh(epoch);
        let known = self.known.iter().flatten().filter(stale);
        known.filter(|known| known.revalidate(login, epoch)).count() > 0
    }
}

/// Where a password was compared.
enum Flown {
    /// With everything that it could have been.
    InVain,
    /// With nothing: it can be none of them.
    Nowhere,
    /// It is the one in this slot.
    To(Slot, Arc<Known>),
    /// Somebody else's attempt was under way, and says nothing about this one.
    WithAnother,
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
            if self.denials.contains(username) {
                self.metrics.verdict_by(Path::Early);
                return Err(Reason::Revoked.into());
            }
            let mut recalled = self.recall(username, flown.take()).await;
            if let Some(judged) = recalled.judge(epoch, digest, now_ms()) {
                self.metrics.verdict_by(path);
                return judged;
            }
            let Some(login) = self.lookup(username).await? else {
                let remembered = recalled.known.iter().flatten().count();
                self.metrics.cache_invalidations.inc_by(remembered as u64);
                self.forget(username).await;
                self.metrics.verdict_by(Path::Early);
                return Err(Reason::Unknown.into());
            };
            let refused = |reason| Refused::Reason(reason, Some(identity_of(&login)));
            if let Some(refusal) = login.refusal(now_ms()) {
                self.metrics.verdict_by(Path::Early);
                return Err(refused(reason(refusal)));
            }
            if recalled.revalidate(&login, epoch) {
                continue;
            }
            // A flight would only find it again.
            for slot in recalled.stale(epoch) {
                self.metrics.cache_invalidations.inc();
                self.remembered(slot).invalidate(username).await;
            }
            match self
                .fly(&login, &recalled, epoch, &credentials.password, digest)
                .await?
            {
                Flown::Nowhere => {
                    self.metrics.verdict_by(if path == Path::Cache {
                        Path::Early
                    } else {
                        path
                    });
                    return Err(refused(Reason::WrongPassword));
                }
                Flown::InVain => {
                    self.metrics.verdict_by(Path::Argon2);
                    return Err(refused(Reason::WrongPassword));
                }
                Flown::WithAnother => {}
                Flown::To(slot, known) => (flown, path) = (Some((slot, known)), Path::Argon2),
            }
        }
    }

    /// What the cache knows of this username. What a flight brought counts even if the cache had no
    /// room for it.
    async fn recall(&self, username: &str, flown: Option<(Slot, Arc<Known>)>) -> Recalled {
        let mut known = [None, None];
        known[Slot::Current as usize] = self.cache.get(username).await;
        // There is nothing to look for unless the current one says so, or says nothing.
        known[Slot::Previous as usize] = match &known[Slot::Current as usize] {
            Some(current) if !current.overlaps() => None,
            _ => self.previous.get(username).await,
        };
        if let Some((slot, brought)) = flown {
            known[slot as usize] = Some(brought);
        }
        Recalled {
            known,
            ruled_out: [false; 2],
        }
    }

    async fn forget(&self, username: &str) {
        self.cache.invalidate(username).await;
        self.previous.invalidate(username).await;
    }

    /// Compares with every password that this one may be: as good as always the one whose tag it
    /// has.
    async fn fly(
        self: &Arc<Self>,
        login: &Login,
        recalled: &Recalled,
        epoch: u64,
        password: &Secret,
        digest: Digest,
    ) -> Result<Flown, Outage> {
        let tag = self.store.tag(password.expose());
        let now = now_ms();
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
        let mut outcome = Flown::Nowhere;
        for (slot, may_be) in candidates {
            if !may_be || recalled.ruled_out[slot as usize] {
                continue;
            }
            match self
                .flight(login.clone(), slot, epoch, password, digest)
                .await
            {
                Ok(known) => return Ok(Flown::To(slot, known)),
                Err(failure) if failure.digest != digest => return Ok(Flown::WithAnother),
                Err(failure) => match failure.outage {
                    Some(outage) => return Err(outage),
                    None => outcome = Flown::InVain,
                },
            }
        }
        Ok(outcome)
    }

    async fn lookup(&self, username: &str) -> Result<Option<Login>, Outage> {
        let (store, username) = (self.store.clone(), username.to_owned());
        let seconds = self.metrics.store_seconds.of(StoreOperation::Lookup);
        let _timer = seconds.start_timer();
        let found = tokio::task::spawn_blocking(move || store.lookup(&username)).await;
        found.map_err(|_| Outage::Store)?.map_err(|error| {
            tracing::error!(%error, "the store cannot be read, logins are put off");
            Outage::Store
        })
    }

    fn remembered(&self, slot: Slot) -> &Cache<String, Arc<Known>> {
        match slot {
            Slot::Current => &self.cache,
            Slot::Previous => &self.previous,
        }
    }

    /// One argon2 a username and slot at a time; who comes second waits for the first one's outcome.
    async fn flight(
        self: &Arc<Self>,
        login: Login,
        slot: Slot,
        epoch: u64,
        password: &Secret,
        digest: Digest,
    ) -> Result<Arc<Known>, Arc<Failure>> {
        let (core, password) = (self.clone(), password.clone());
        // A task of its own: should this client hang up, whoever waits for the outcome still gets
        // it, and a leader that nobody polls would hold all of them up.
        let flight = tokio::spawn(async move {
            let username = login.username.clone();
            let compared = core.clone().compare(login, slot, epoch, password, digest);
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

    async fn compare(
        self: Arc<Self>,
        login: Login,
        slot: Slot,
        epoch: u64,
        password: Secret,
        digest: Digest,
    ) -> Result<Arc<Known>, Failure> {
        let failure = |outage| Failure { digest, outage };
        let stored = match (slot, &login.previous) {
            (Slot::Previous, Some(previous)) => previous.password_hash.clone(),
            _ => login.password_hash.clone(),
        };
        let found = self.hasher.matches(password.clone(), stored).await;
        match found.map_err(|outage| failure(Some(outage)))? {
            Match::No => Err(failure(None)),
            Match::Yes { outdated } => {
                let known = Arc::new(Known::new(digest, &login, slot, epoch));
                // The previous password's time is nearly over.
                if outdated && slot == Slot::Current {
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
        let seconds = self.metrics.store_seconds.of(StoreOperation::Rehash);
        let _timer = seconds.start_timer();
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
