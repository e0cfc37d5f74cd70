//! From credentials to a verdict.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::Semaphore;

use crate::metrics::{LoginOutcome, Metrics, Path, StoreOperation};
use crate::sasl::{Bar, Credentials, Identity, Outage, Reason, Secret, Verdict};
use crate::store::{LastUsed, Login, PreviousUse, Refusal, RefusedLogin, Retired, Store};

use super::cache::{Digest, Digester, Known, Slot, identity_of};
use super::containment::{contain, count};
use super::denial::Denials;
use super::guard::{Attempt, Guard, Held, Settings, Target};
use super::noted::NotedBatch;
use super::password::{Hasher, Match};
use super::quota::{self, Allowance, Quotas};
use super::refusal;
use super::refusals::claimed;

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
            denials: Arc::default(),
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
            refusal_delay,
        }
    }

    /// With a guard; without one, everybody may guess for ever.
    pub fn guarded_by(self, guard: Arc<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// Who counts what is refused.
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
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
        let begun = tokio::time::Instant::now();
        let metrics = &self.core.metrics;
        let attempt = self.guard.attempt(peer.address);
        let judged = tokio::time::timeout(PATIENCE, self.core.judge(&credentials, &attempt)).await;
        metrics.auth_seconds.observe(begun.elapsed().as_secs_f64());
        metrics
            .cache_entries
            .set(i64::try_from(self.remembered()).unwrap_or(i64::MAX));
        let mut judged = judged.unwrap_or(Err(Refused::Outage(Outage::Busy)));
        if let Ok(proven) = judged {
            let contained = contain(&proven.identity, peer, metrics, now_ms());
            judged = match (contained, session) {
                (Err(reason), _) => Err(Refused::Reason(reason, Some(proven.identity), None)),
                (Ok(()), None) => Ok(proven),
                (Ok(()), Some(allowance)) => self.enter(proven, epoch, allowance).await,
            };
        }
        match judged.map_err(|refused| barred(refused, &attempt)) {
            Ok(Proven { identity, slot }) => {
                metrics.logins(ACCEPT, "").inc();
                metrics.login_of(
                    &identity.organization,
                    &identity.username,
                    LoginOutcome::Accepted,
                );
                self.guard.accepted(&attempt, identity.key);
                let used = used(&credentials, peer);
                if slot == Slot::Previous {
                    self.noted.previous_used(identity.key, previous_use(&used));
                }
                self.noted.accepted(identity.key, used);
                Verdict::Accept(identity)
            }
            Err(Refused::Barred(bar)) => {
                metrics.logins(BARRED, bar.as_str()).inc();
                let refusal = refused_login(&credentials, peer, bar.as_str(), None);
                // Who has too many sessions has proven who they are.
                self.noted.turned_away(refusal, bar == Bar::Sessions);
                log_refusal(&credentials, peer, BARRED, bar.as_str());
                Verdict::Barred(bar)
            }
            Err(Refused::Reason(reason, claimed_identity, retired_at)) => {
                let key = claimed_identity.as_ref().map(|identity| identity.key);
                let digest = self.core.digest(&credentials);
                let follows = self.guard.refused(&attempt, reason, key, digest.mark());
                metrics.logins(REJECT, reason.as_str()).inc();
                let refusal = refused_login(&credentials, peer, reason.as_str(), retired_at);
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
                log_refusal(&credentials, peer, REJECT, reason.as_str());
                let delay = refusal::delay(self.refusal_delay * follows.slowness);
                tokio::time::sleep_until(begun + delay).await;
                match follows.barred {
                    true => Verdict::Barred(Bar::Guard),
                    false => Verdict::Reject(reason),
                }
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

/// The one line for each refused login; its form is documented for fail2ban and the like.
fn log_refusal(credentials: &Credentials, peer: &Peer, result: &str, reason: &str) {
    tracing::info!(
        target: "gatepost::auth",
        address = %peer.address.to_canonical(),
        // Bounded by SASL: at most 255 octets.
        username = claimed(&credentials.username),
        mechanism = credentials.mechanism.as_str(),
        result,
        reason,
        "login refused"
    );
}

/// The same for whoever asks later why.
fn refused_login(
    credentials: &Credentials,
    peer: &Peer,
    reason: &str,
    retired_at: Option<i64>,
) -> RefusedLogin {
    let now = now_ms();
    RefusedLogin {
        username: credentials.username.clone(),
        reason: reason.to_owned(),
        address: peer.address.to_canonical().to_string(),
        first_at: now,
        at: now,
        count: 1,
        retired_at,
    }
}

fn previous_use(used: &LastUsed) -> PreviousUse {
    PreviousUse {
        at: used.at,
        address: used.address.clone(),
        count: used.count,
    }
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
    Barred(Bar),
    Outage(Outage),
    /// With whom the client claimed to be, if there is such a credential, and when the password that it offered was replaced,
    /// if it once was the right one.
    Reason(Reason, Option<Arc<Identity>>, Option<i64>),
}

/// Yes.
struct Proven {
    identity: Arc<Identity>,
    /// By which of its passwords.
    slot: Slot,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Reason(reason, None, None)
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
    /// Judges by what is fresh, if that is enough. `tag` tells the offered password's.
    fn judge(
        &mut self,
        epoch: u64,
        digest: Digest,
        now_ms: i64,
        tag: impl Fn() -> u32,
    ) -> Option<Result<Proven, Refused>> {
        let slots = [Slot::Current, Slot::Previous].into_iter();
        let known = self.known.iter().zip(&mut self.ruled_out);
        for ((known, ruled_out), slot) in known.zip(slots) {
            let Some(known) = known.as_ref().filter(|known| known.is_fresh(epoch)) else {
                continue;
            };
            match known.judge(digest, now_ms) {
                None => *ruled_out = true,
                Some(judged) => {
                    let proven = |identity| Proven { identity, slot };
                    return Some(judged.map(proven).map_err(|reason| {
                        told_apart(reason, known.identity(), known.retired(), tag)
                    }));
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

/// A wrong password that once was right is not just any wrong one.
fn told_apart(
    reason: Reason,
    identity: Arc<Identity>,
    retired: &[Retired],
    tag: impl Fn() -> u32,
) -> Refused {
    if reason == Reason::WrongPassword && !retired.is_empty() {
        let tag = tag();
        if let Some(one) = retired.iter().find(|retired| retired.tag == tag) {
            return Refused::Reason(Reason::PreviousPassword, Some(identity), Some(one.at));
        }
    }
    Refused::Reason(reason, Some(identity), None)
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
    async fn judge(
        self: &Arc<Self>,
        credentials: &Credentials,
        attempt: &Attempt<'_>,
    ) -> Result<Proven, Refused> {
        if credentials.acts_for.is_some() {
            self.metrics.verdict_by(Path::Early);
            return Err(Reason::ActsForAnother.into());
        }
        let username = &credentials.username;
        let digest = self.digest(credentials);
        let mut path = Path::Cache;
        let mut flown = None;
        let mut turn = None;
        // Every round decides by what was true in `epoch`; if the store moved on meanwhile, the
        // next round looks again. Rounds that hash make an entry, so they do not repeat.
        loop {
            let epoch = self.store.epoch();
            if self.denials.contains(username) {
                self.metrics.verdict_by(Path::Early);
                return Err(Reason::Revoked.into());
            }
            let mut recalled = self.recall(username, flown.take()).await;
            let tag = || self.store.tag(credentials.password.expose());
            if let Some(judged) = recalled.judge(epoch, digest, now_ms(), tag) {
                self.metrics.verdict_by(path);
                return guarded(judged, &recalled, digest, attempt);
            }
            if attempt.is_barred_for_all() {
                self.metrics.verdict_by(Path::Early);
                return Err(Refused::Barred(Bar::Guard));
            }
            let Some(login) = self.lookup(username).await? else {
                let remembered = recalled.known.iter().flatten().count();
                self.metrics.cache_invalidations.inc_by(remembered as u64);
                self.forget(username).await;
                self.metrics.verdict_by(Path::Early);
                return Err(Reason::Unknown.into());
            };
            if attempt.is_barred_for(Some(login.key)) {
                self.metrics.verdict_by(Path::Early);
                return Err(Refused::Barred(Bar::Guard));
            }
            let refused = |reason| told_apart(reason, identity_of(&login), &login.retired, tag);
            let tag = tag();
            if let Some(refusal) = login.refusal(now_ms()) {
                self.metrics.verdict_by(Path::Early);
                attempt.excuse_if(login.tag == Some(tag));
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
            if turn.is_none() {
                turn = match attempt.turn(&login, tag, digest).await {
                    Ok(turn) => turn,
                    Err(held) => {
                        self.metrics.verdict_by(Path::Early);
                        return Err(match held {
                            Held::Outage(outage) => outage.into(),
                            Held::Refused => refused(Reason::WrongPassword),
                        });
                    }
                };
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
                    attempt.found_wrong(&login, digest);
                    return Err(refused(Reason::WrongPassword));
                }
                Flown::WithAnother => {}
                Flown::To(slot, known) => (flown, path) = (Some((slot, known)), Path::Argon2),
            }
        }
    }

    fn digest(&self, credentials: &Credentials) -> Digest {
        self.digester
            .digest(&credentials.username, &credentials.password)
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

/// What the guard makes of a verdict that the cache gave. A right password is never held up, except where people chose it and
/// too many guessed at it: then the guesses must not go on by what is remembered.
fn guarded(
    judged: Result<Proven, Refused>,
    recalled: &Recalled,
    digest: Digest,
    attempt: &Attempt,
) -> Result<Proven, Refused> {
    let known = || recalled.known.iter().flatten();
    let refused = |identity| Refused::Reason(Reason::WrongPassword, Some(identity), None);
    let target = |known: &Arc<Known>| Target {
        key: known.identity().key,
        version: known.version(),
    };
    match judged {
        Ok(Proven { identity, slot }) => {
            let known = recalled.known[slot as usize].as_ref();
            let chosen = known.filter(|known| !known.is_generated()).map(target);
            let is_closed = chosen.is_some_and(|chosen| attempt.is_closed_for(chosen));
            attempt.excuse_if(is_closed);
            match is_closed {
                true => Err(refused(identity)),
                false => Ok(Proven { identity, slot }),
            }
        }
        Err(Refused::Reason(reason, Some(identity), retired_at)) => {
            let latest = known().max_by_key(|known| known.version()).map(target);
            let chosen = latest.filter(|_| known().any(|known| !known.is_generated()));
            // Then a wrong one must look like the right one, which counts nothing.
            let is_closed = chosen.is_some_and(|chosen| attempt.is_closed_for(chosen));
            if let Some(chosen) = chosen.filter(|_| !is_closed) {
                attempt.may_guess(chosen);
            }
            attempt.excuse_if(is_closed || known().any(|known| known.is(digest)));
            Err(Refused::Reason(reason, Some(identity), retired_at))
        }
        judged => judged,
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
