//! The guard: what failed logins cost those who cause them, and nobody else.
//!
//! Failures are counted by the client's address and by the network around it, never by the login: whoever knows a username
//! could otherwise keep its owner out. Where a credential was used from lately, its owner is spared what others there did.

mod admission;
mod attempt;
mod handshakes;
mod hash_admission;
mod imported_guesses;
mod penalty;
mod prefix;
mod state;
mod table;
mod trust;
mod wrong;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::{self, steady_ms};
use crate::config::Network;
use crate::metrics::{Metrics, Scope, Shed};
use crate::sasl::Reason;
use crate::store::{Store, StoreError};

use self::admission::{Admission, LimitReached};
use self::handshakes::{Handshake, Handshakes};
use self::hash_admission::HashAdmission;
use self::imported_guesses::ImportedGuessLimiter;
use self::penalty::{CLIENT_BAN, Failure, NETWORK_BAN, Penalty};
use self::table::Table;
use self::trust::Trust;
use self::wrong::WrongPasswords;
use super::cache::Digest;

pub use self::admission::{ConnectionLimits, ConnectionSlot};
pub(crate) use self::attempt::MayHash;
pub use self::attempt::{Attempt, Outcome};
pub(crate) use self::hash_admission::{HashDenied, HashPermit};
pub(crate) use self::imported_guesses::Target;
pub(crate) use self::prefix::Prefix;
pub(crate) use self::state::{ClearTarget, PenaltyView, Status, stored};

/// How many clients are told apart, and how many networks.
const CLIENTS: usize = 65_536;
const NETWORKS: usize = 16_384;

/// How many networks wait at most to be written as trusted.
const UNWRITTEN: usize = 65_536;

/// An epoch that the store does not come to.
const UNKNOWN: u64 = u64::MAX;

/// As it is configured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether failures have consequences at all. Connections are limited in any case.
    pub enabled: bool,
    /// Who is never counted.
    pub exempt: Vec<Network>,
    /// How many connections that have not logged in may be open.
    pub room: ConnectionLimits,
    /// How many TLS handshakes may be under way.
    pub handshakes: usize,
    /// How many threads hash passwords.
    pub threads: usize,
    /// How many passwords may wait for them.
    pub queue: usize,
}

impl Settings {
    /// That let everybody do everything.
    pub(crate) fn off() -> Self {
        Self {
            enabled: false,
            exempt: Vec::new(),
            room: ConnectionLimits {
                total: usize::MAX,
                per_client: usize::MAX,
                per_network: usize::MAX,
            },
            handshakes: Semaphore::MAX_PERMITS,
            threads: 1,
            queue: 1,
        }
    }
}

/// Counts failures and says what follows from them.
pub struct Guard {
    settings: Settings,
    clients: Table,
    networks: Table,
    trust: Trust,
    /// What of it is to be written: the credential's key and the client.
    unwritten: Mutex<HashMap<(i64, Prefix), i64>>,
    hash_admission: HashAdmission,
    imported_guesses: ImportedGuessLimiter,
    wrong: WrongPasswords,
    admission: Arc<Admission>,
    handshakes: Handshakes,
    /// The epoch of the store at which trust was last compared with it.
    followed: AtomicU64,
    /// Held while something is written, so that nothing comes back that was cleared meanwhile.
    writing: Mutex<()>,
    metrics: Arc<Metrics>,
}

impl Guard {
    /// With nothing held against anybody.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            clients: Table::new(CLIENTS),
            networks: Table::new(NETWORKS),
            trust: Trust::default(),
            unwritten: Mutex::default(),
            hash_admission: HashAdmission::new(settings.threads, settings.queue),
            imported_guesses: ImportedGuessLimiter::default(),
            wrong: WrongPasswords::default(),
            admission: Arc::new(Admission::new(settings.room)),
            handshakes: Handshakes::new(settings.handshakes),
            followed: AtomicU64::new(UNKNOWN),
            writing: Mutex::default(),
            settings,
            metrics,
        }
    }

    /// With what was held against whom when the process before ended.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn load(
        settings: Settings,
        metrics: Arc<Metrics>,
        store: &Store,
    ) -> Result<Self, StoreError> {
        let guard = Self::new(settings, metrics);
        let now = steady_ms();
        state::read(store, |network, penalty| {
            // What was counted under another configuration has no consequences under this one.
            if guard.counts(network) {
                guard
                    .table(network)
                    .change(network, now, |place| *place = penalty);
            }
        })?;
        // The latest first, so that what has no room is the oldest.
        for row in store.trusted_networks(clock::now_ms() - trust::REMEMBERED)? {
            if let Ok(client) = row.network.parse() {
                let at = row.at.saturating_sub(clock::offset_at(row.at)).min(now);
                guard.trust.note(row.credential, client, at);
            }
        }
        guard.show(now);
        Ok(guard)
    }

    /// Whether a connection from `address` may go on, until it is known whose it is.
    ///
    /// # Errors
    /// Why it is closed.
    pub fn admit(&self, address: IpAddr) -> Result<Option<ConnectionSlot>, Shed> {
        let shed = |why| {
            self.metrics.guard_shed.of(why).inc();
            why
        };
        if self.is_exempt(address) {
            return Ok(None);
        }
        let (client, network) = (Prefix::client(address), Prefix::network(address));
        let now = steady_ms();
        let is_known = self.trust.knows_client(client, now);
        if !is_known && self.is_banned(client, now) {
            return Err(shed(Shed::Banned));
        }
        let entered = self.admission.enter(client, network, is_known);
        let place = entered.map_err(|full| {
            shed(match full {
                LimitReached::Client => Shed::PerAddress,
                LimitReached::Network => Shed::PerNetwork,
                LimitReached::Total => Shed::Unauthenticated,
            })
        })?;
        Ok(Some(place))
    }

    /// Waits for leave to shake hands. Somebody's whole network may be at it; those who logged in before have a share that
    /// strangers cannot use up.
    pub(crate) async fn handshake(&self, address: IpAddr) -> Handshake {
        let is_known = self.is_exempt(address)
            || self
                .trust
                .knows_client(Prefix::client(address), steady_ms());
        self.handshakes.begin(is_known).await
    }

    /// Somebody sent nonsense in the place of a login.
    pub(crate) fn protocol_noise(&self, address: IpAddr) {
        let attempt = self.attempt(address);
        if let Some([client, network]) = attempt.prefixes().filter(|_| !attempt.is_barred()) {
            let now = attempt.now();
            let is_known = self.trust.knows_client(client, now);
            self.count(client, Failure::Noise, !is_known, now);
            self.count(network, Failure::Noise, true, now);
        }
    }

    /// What `address` has to expect, before a login of its is looked at.
    pub fn attempt(&self, address: IpAddr) -> Attempt<'_> {
        let now = steady_ms();
        if !self.settings.enabled || self.is_exempt(address) {
            return Attempt::exempt(self, now);
        }
        let (client, network) = (Prefix::client(address), Prefix::network(address));
        let is_known = || self.trust.knows_client(client, now);
        let bar = if self.is_banned(client, now) && !is_known() {
            Some(client)
        } else {
            Some(network).filter(|network| self.is_banned(*network, now))
        };
        Attempt::new(self, [client, network], bar, now)
    }

    /// A login succeeded.
    pub fn accepted(&self, attempt: &Attempt, credential: i64) {
        self.imported_guesses.succeeded(credential);
        if let Some([client, _]) = attempt.prefixes() {
            self.trust_from_now(credential, client, attempt.now());
        }
    }

    /// A stranger's password turned out right when nobody waited for that any more. The next try is a login.
    pub(crate) fn late_success(&self, stranger: Prefix, target: Target) {
        let now = steady_ms();
        if !self.imported_guesses.is_closed(target, now) {
            self.imported_guesses.succeeded(target.key);
            self.trust_from_now(target.key, stranger, now);
        }
    }

    fn trust_from_now(&self, credential: i64, client: Prefix, now: i64) {
        if client.is_unattributed() {
            return;
        }
        if self.trust.note(credential, client, now) {
            let mut unwritten = self.unwritten();
            if unwritten.len() < UNWRITTEN {
                unwritten.insert((credential, client), now);
            }
        }
    }

    /// A login failed for this reason; `mark` tells names and passwords apart. What follows.
    pub fn refused(
        &self,
        attempt: &Attempt,
        reason: Reason,
        credential: Option<i64>,
        mark: u32,
    ) -> Outcome {
        let failure = match reason {
            Reason::ActsForAnother => Failure::Noise,
            // A device that somebody forgot, or took along.
            Reason::PreviousPassword | Reason::Network => Failure::Harmless,
            _ if attempt.is_benign() => Failure::Harmless,
            // Also of a name that there is not, or a ban would tell which there are.
            _ => Failure::Guess(mark),
        };
        // Where somebody chose the password, guesses are counted wherever they come from.
        if let Some(target) = attempt.guessed().filter(|_| failure != Failure::Harmless) {
            self.guessed(target);
        }
        let Some([client, network]) = attempt.prefixes() else {
            return Outcome::default();
        };
        let now = attempt.now();
        let is_trusted = credential.is_some_and(|credential| attempt.trusts(credential));
        let is_known = is_trusted || self.trust.knows_client(client, now);
        self.count(client, failure, !is_known, now);
        if is_trusted {
            let own = self.score(client, now) / penalty::LENIENCE;
            return Outcome {
                slowness: penalty::slowness(own),
                barred: false,
            };
        }
        self.count(network, failure, true, now);
        let slowness = penalty::slowness(self.score(client, now))
            + penalty::slowness_of_network(self.score(network, now));
        let barred = !is_known && self.is_banned(client, now);
        Outcome { slowness, barred }
    }

    /// A stranger was told to come back, since there was no turn or it took too long. That counts a little where nobody logged
    /// in before: a flood must not go on for as long as it keeps others from their turns, and those others, whose password may
    /// be right, must not be banned for coming again. Whether the client is to go away.
    pub(crate) fn hash_permit_timeout(&self, attempt: &Attempt) -> Outcome {
        let mut outcome = Outcome::default();
        let Some([client, network]) = attempt.prefixes() else {
            return outcome;
        };
        let now = attempt.now();
        if !self.trust.knows_client(client, now) {
            self.count(client, Failure::Noise, true, now);
            self.count(network, Failure::Noise, true, now);
            outcome.barred = self.is_banned(client, now);
        }
        outcome
    }

    /// Waits for the permit to hash for an unknown client.
    ///
    /// # Errors
    /// The client asks too often, or too many clients wait.
    pub(crate) async fn hash_permit(&self, client: Prefix) -> Result<HashPermit, HashDenied> {
        self.hash_admission.permit(client, steady_ms()).await
    }

    /// A stranger's password was hashed, which took so long.
    pub(crate) fn hashed(&self, took: Duration) {
        self.hash_admission.took(took);
    }

    /// How long hashing a stranger's password would take; always about the same for the same name.
    pub(crate) fn hash_time(&self, name: u32) -> Duration {
        self.hash_admission.hash_time(name)
    }

    /// A stranger's password is wrong, for the credential if there is one; the same need not be looked at again.
    pub(crate) fn remember_wrong(&self, target: Option<Target>, digest: Digest) {
        let now = steady_ms();
        for target in target.into_iter().chain([Target::NOBODY]) {
            self.wrong.note(attempt::mark_of(target, digest), now);
        }
    }

    /// A password that somebody chose was guessed, in vain.
    pub(crate) fn guessed(&self, target: Target) {
        let credential = target.key;
        match self.imported_guesses.failed(target, steady_ms()) {
            Some(imported_guesses::SUSPICIOUS) => tracing::warn!(
                target: "gatepost::guard",
                credential,
                "somebody guesses the password of a credential that was imported; rotate it to a generated one"
            ),
            Some(imported_guesses::LIMIT) => tracing::warn!(
                target: "gatepost::guard",
                credential,
                "after 100 wrong passwords in a row, an imported credential is for an hour refused where it was not used before"
            ),
            _ => {}
        }
    }

    /// Counts a failure of one network.
    fn count(&self, prefix: Prefix, failure: Failure, may_ban: bool, now: i64) {
        if failure == Failure::Harmless {
            return;
        }
        let is_network = prefix.is_network();
        // A ban would turn every client away whose address is unknown.
        let may_ban = may_ban && !prefix.is_unattributed();
        let threshold = if is_network { NETWORK_BAN } else { CLIENT_BAN };
        let counted = self.table(prefix).change(prefix, now, |penalty| {
            penalty.add(failure, now);
            let ban = may_ban.then(|| penalty.ban(threshold, !is_network, now));
            (ban.flatten(), penalty.bans())
        });
        let Some((ban, bans)) = counted else {
            self.metrics.guard_overflow.inc();
            return;
        };
        let scope = scope(prefix);
        let tracked = self.table(prefix).len();
        self.metrics.guard_tracked.of(scope).set(tracked as i64);
        if let Some(length) = ban {
            self.metrics.guard_bans.of(scope).inc();
            self.metrics.guard_banned.of(scope).inc();
            // Its form is documented for fail2ban and the like.
            tracing::warn!(
                target: "gatepost::guard",
                address = %prefix.address(),
                network = %prefix,
                bans,
                seconds = length.as_secs(),
                "network banned"
            );
        }
    }

    fn table(&self, prefix: Prefix) -> &Table {
        if prefix.is_network() {
            &self.networks
        } else {
            &self.clients
        }
    }

    fn score(&self, prefix: Prefix, now: i64) -> f64 {
        let score = self
            .table(prefix)
            .look(prefix, |penalty| penalty.score(now));
        score.unwrap_or(0.0)
    }

    fn is_banned(&self, prefix: Prefix, now: i64) -> bool {
        let until = |penalty: &Penalty| penalty.banned_until(now);
        self.settings.enabled && self.table(prefix).look(prefix, until).flatten().is_some()
    }

    /// Whether nothing is ever held against `address`. Clients whose address is unknown are counted
    /// together, whatever is exempt: otherwise guesses could leave the address out.
    fn is_exempt(&self, address: IpAddr) -> bool {
        let mut exempt = self.settings.exempt.iter();
        !Prefix::client(address).is_unattributed()
            && exempt.any(|network| network.contains(address))
    }

    /// Whether anything can be held against somebody in `prefix`.
    fn counts(&self, prefix: Prefix) -> bool {
        let mut exempt = self.settings.exempt.iter();
        let is_exempt = exempt
            .any(|network| network.contains(prefix.address()) && network.contains(prefix.last()));
        self.settings.enabled && !is_exempt
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<(i64, Prefix), i64>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn scope(prefix: Prefix) -> Scope {
    if prefix.is_network() {
        Scope::Network
    } else {
        Scope::Address
    }
}

#[cfg(test)]
mod tests;
