//! From a claim to a verdict, cheapest first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::auth::cache::{Digest, Digester, Known, Slot, identity_of};
use crate::auth::guard::{Attempt, Guard, Held, Target};
use crate::auth::issue;
use crate::auth::password::Hasher;
use crate::auth::watch::Polls;
use crate::clock::Moment;
use crate::log::Throttle;
use crate::metrics::{Metrics, Path, StoreOperation};
use crate::sasl::{Bar, Credentials, Outage, Reason, Secret};
use crate::store::{Login, Refusal, Store};

use super::flight::{Flown, Offered};
use super::recalled::Recalled;
use super::refused::{Proven, Refused};
use super::strangers;
use super::{Peer, now_ms};

/// What a verification under way needs, also when nobody waits for it any more.
pub(super) struct Core {
    pub(super) store: Arc<Store>,
    pub(super) cache: Cache<String, Arc<Known>>,
    /// The previous passwords of those credentials that are in an overlap.
    pub(super) previous: Cache<String, Arc<Known>>,
    /// The rows, or their absence, by which generated names were refused last, each with the epoch in which it was read.
    pub(super) refused: Cache<String, (u64, Option<Arc<Login>>)>,
    pub(super) polls: Arc<Polls>,
    /// Whether there is time to ask the store again before a refusal is due.
    pub(super) may_ask_again: bool,
    pub(super) digester: Digester,
    pub(super) hasher: Hasher,
    /// Held while a hash is renewed; one at a time, since each may wait for the store's writer.
    pub(super) renewing: Semaphore,
    pub(super) metrics: Arc<Metrics>,
}

/// A claim, and who looks at it.
pub(super) struct Asked<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) digest: Digest,
    pub(super) attempt: &'a Attempt<'a>,
    pub(super) peer: &'a Peer,
    pub(super) guard: &'a Arc<Guard>,
    /// Until when a stranger waits for what a hash shows.
    pub(super) cut: Instant,
    /// For how many microseconds a refusal was held back until the store was asked again.
    pub(super) held_back: AtomicU64,
}

impl Core {
    pub(super) async fn judge(self: &Arc<Self>, asked: &Asked<'_>) -> Result<Proven, Refused> {
        let Asked {
            credentials,
            digest,
            attempt,
            ..
        } = *asked;
        if credentials.acts_for.is_some() {
            self.metrics.verdict_by(Path::Early);
            return Err(Reason::ActsForAnother.into());
        }
        let username = &credentials.username;
        let mut path = Path::Cache;
        let mut flown = None;
        let mut turn = None;
        let mut asked_again = !self.may_be_held_back(username);
        // Every round decides by what was true in `epoch`; if the store moved on meanwhile, the
        // next round looks again. Rounds that hash make an entry, so they do not repeat.
        loop {
            let epoch = self.store.epoch();
            let mut recalled = self.recall(username, flown.take()).await;
            let tag = || self.store.tag(credentials.password.expose());
            if let Some(judged) = recalled.judge(epoch, digest, Moment::now(), tag) {
                // Another process may have made it right a moment ago; a refusal can wait for that.
                if judged.is_err() && !asked_again {
                    asked_again = true;
                    self.ask_again(asked).await;
                    continue;
                }
                self.metrics.verdict_by(path);
                return recalled.guarded(judged, digest, attempt);
            }
            if attempt.is_barred_for_all() {
                self.metrics.verdict_by(Path::Early);
                return Err(Refused::Barred(Bar::Guard));
            }
            let Some(login) = self.row(asked, epoch, tag()).await? else {
                let remembered = recalled.count();
                self.metrics.cache_invalidations.inc_by(remembered as u64);
                self.forget(username).await;
                self.metrics.verdict_by(Path::Early);
                return Err(Reason::Unknown.into());
            };
            if attempt.is_barred_for(Some(login.key)) {
                self.metrics.verdict_by(Path::Early);
                return Err(Refused::Barred(Bar::Guard));
            }
            let refused = |login: &Login, reason| {
                Refused::told_apart(reason, identity_of(login), &login.retired, tag)
            };
            if let Some(refusal) = login.refusal(now_ms()) {
                self.metrics.verdict_by(Path::Early);
                attempt.excuse_if(login.tag == Some(tag()));
                return Err(refused(&login, reason(refusal)));
            }
            if recalled.revalidate(&login, epoch) {
                continue;
            }
            // A flight would only find it again.
            for slot in recalled.stale(epoch) {
                self.metrics.cache_invalidations.inc();
                self.remembered(slot).invalidate(username).await;
            }
            let offered = Offered {
                login,
                epoch,
                password: credentials.password.clone(),
                digest,
            };
            if turn.is_none() {
                match strangers::turn(&offered, tag(), attempt, asked.cut).await {
                    // Somebody else may have found it meanwhile.
                    Ok(Some(taken)) => {
                        turn = Some(taken);
                        continue;
                    }
                    Ok(None) => {}
                    Err(held) => {
                        self.metrics.verdict_by(Path::Early);
                        return Err(match held {
                            Held::Busy => Refused::Unheard,
                            Held::Refused => refused(&offered.login, Reason::WrongPassword),
                        });
                    }
                }
            }
            let login = offered.login.clone();
            let candidates = offered.candidates(tag(), &recalled);
            let found = match turn.take() {
                Some(turn) => {
                    self.compare_in_turn(turn, offered, candidates, asked)
                        .await?
                }
                None => self.fly(&offered, &candidates).await?,
            };
            match found {
                Flown::Nowhere => {
                    self.metrics.verdict_by(if path == Path::Cache {
                        Path::Early
                    } else {
                        path
                    });
                    return Err(refused(&login, Reason::WrongPassword));
                }
                Flown::InVain => {
                    self.metrics.verdict_by(Path::Argon2);
                    asked.guard.found_wrong(Some(Target::of(&login)), digest);
                    return Err(refused(&login, Reason::WrongPassword));
                }
                Flown::WithAnother => {}
                Flown::To(slot, known) => (flown, path) = (Some((slot, known)), Path::Argon2),
            }
        }
    }

    pub(super) fn digest(&self, credentials: &Credentials) -> Digest {
        self.digester
            .digest(&credentials.username, &credentials.password)
    }

    /// What stands for a name whatever password is offered with it.
    pub(super) fn digest_of_name(&self, credentials: &Credentials) -> Digest {
        self.digester
            .digest(&credentials.username, &Secret::new(""))
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
        Recalled::new(known)
    }

    async fn forget(&self, username: &str) {
        self.cache.invalidate(username).await;
        self.previous.invalidate(username).await;
    }

    /// Whether nobody can tell that a refusal of this name waits until the store has been asked again. Where people choose
    /// the name, strangers wait for turns, which who comes late has less time for.
    fn may_be_held_back(&self, username: &str) -> bool {
        self.may_ask_again && issue::is_generated(username)
    }

    /// Waits until the store has been asked again; false if that takes too long.
    async fn ask_again(&self, asked: &Asked<'_>) -> bool {
        let began = Instant::now();
        let is_answered = self.polls.next().await;
        let held_back = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        asked.held_back.fetch_add(held_back, Ordering::Relaxed);
        is_answered
    }

    /// The row as it is now. One that refuses this password, too, is not read again as long as nothing was written.
    async fn row(&self, asked: &Asked<'_>, epoch: u64, tag: u32) -> Result<Option<Login>, Outage> {
        let username = &asked.credentials.username;
        let may_remember = self.may_be_held_back(username);
        if may_remember
            && let Some((read, row)) = self.refused.get(username).await
            && read == epoch
            && refuses(row.as_deref(), tag)
            && self.ask_again(asked).await
            && self.store.epoch() == epoch
        {
            return Ok(row.as_deref().cloned());
        }
        let row = self.lookup(username).await?;
        if may_remember && refuses(row.as_ref(), tag) {
            let refused = (epoch, row.clone().map(Arc::new));
            self.refused.insert(username.to_owned(), refused).await;
        }
        Ok(row)
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

    pub(super) fn remembered(&self, slot: Slot) -> &Cache<String, Arc<Known>> {
        match slot {
            Slot::Current => &self.cache,
            Slot::Previous => &self.previous,
        }
    }
}

/// Whether this row refuses a password with this tag, without a look at any hash.
fn refuses(row: Option<&Login>, tag: u32) -> bool {
    let may_be = |stored: Option<u32>| stored.is_none_or(|stored| stored == tag);
    row.is_none_or(|login| {
        let previous = login.previous.as_ref();
        let is_another = !may_be(login.tag) && !previous.is_some_and(|own| may_be(own.tag));
        is_another || login.refusal(now_ms()).is_some()
    })
}

fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Expired => Reason::Expired,
        Refusal::Revoked => Reason::Revoked,
        Refusal::Suspended => Reason::Suspended,
    }
}
