//! The guard: failed logins cost the client that causes them, and no other client.
//!
//! Failures count against the client's address and the network around the address, never against a
//! username: otherwise an attacker could lock an owner out by knowing the username. A credential's
//! owner does not pay for the failures of other clients at an address from which the credential was
//! used lately.

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
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
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

/// The most clients, and the most networks, with a penalty.
const CLIENTS: usize = 65_536;
const NETWORKS: usize = 16_384;

/// The most trusted clients that wait to be written.
const UNWRITTEN: usize = 65_536;

/// The store never reaches this epoch.
const UNKNOWN: u64 = u64::MAX;

/// The configured limits and exemptions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether failures have consequences. Connections are limited in any case.
    pub enabled: bool,
    /// Networks whose failures and connections never count.
    pub exempt: Vec<Network>,
    /// Limits on open connections before login.
    pub connections: ConnectionLimits,
    /// The most TLS handshakes under way.
    pub handshakes: usize,
    /// The number of hashing threads.
    pub threads: usize,
    /// The most passwords that wait for a hashing thread.
    pub queue: usize,
}

impl Settings {
    /// No limits and no consequences.
    pub(crate) fn off() -> Self {
        Self {
            enabled: false,
            exempt: Vec::new(),
            connections: ConnectionLimits {
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

/// Counts failures, and limits clients before their login.
pub struct Guard {
    settings: Settings,
    clients: Table,
    networks: Table,
    trust: Trust,
    /// Trusted clients that are not written yet: the credential's key and the client, and when.
    unwritten: Mutex<HashMap<(i64, Prefix), i64>>,
    hash_admission: HashAdmission,
    imported_guesses: ImportedGuessLimiter,
    wrong: WrongPasswords,
    admission: Arc<Admission>,
    handshakes: Handshakes,
    /// The store's epoch when trust was last compared with the store.
    trust_epoch: AtomicU64,
    /// Held during writes: a penalty cleared meanwhile must not come back.
    writing: Mutex<()>,
    metrics: Arc<Metrics>,
}

impl Guard {
    /// Without penalties.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        Self {
            clients: Table::new(CLIENTS),
            networks: Table::new(NETWORKS),
            trust: Trust::default(),
            unwritten: Mutex::default(),
            hash_admission: HashAdmission::new(settings.threads, settings.queue),
            imported_guesses: ImportedGuessLimiter::default(),
            wrong: WrongPasswords::default(),
            admission: Arc::new(Admission::new(settings.connections)),
            handshakes: Handshakes::new(settings.handshakes),
            trust_epoch: AtomicU64::new(UNKNOWN),
            writing: Mutex::default(),
            settings,
            metrics,
        }
    }

    /// With the penalties and the trust of the previous process.
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
            // A penalty from another configuration may be exempt under this configuration.
            if guard.counts(network) {
                guard
                    .table(network)
                    .change(network, now, |place| *place = penalty);
            }
        })?;
        // Latest first: the oldest rows find no room.
        for row in store.trusted_networks(clock::now_ms() - trust::REMEMBERED)? {
            if let Ok(client) = row.network.parse() {
                let at = row.at.saturating_sub(clock::offset_at(row.at)).min(now);
                guard.trust.note(row.credential, client, at);
            }
        }
        guard.update_gauges(now);
        Ok(guard)
    }

    /// Admits a connection until its login. `None`: the client is exempt.
    ///
    /// # Errors
    /// The reason for closing the connection.
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

    /// Waits for a handshake permit. A whole network may flood the handshakes, so clients that
    /// logged in before have a share of their own.
    pub(crate) async fn handshake(&self, address: IpAddr) -> Handshake {
        let is_known = self.is_exempt(address)
            || self
                .trust
                .knows_client(Prefix::client(address), steady_ms());
        self.handshakes.begin(is_known).await
    }

    /// Counts bytes that are no SMTP or SASL as a small failure.
    pub(crate) fn protocol_noise(&self, address: IpAddr) {
        let attempt = self.attempt(address);
        if let Some([client, network]) = attempt.prefixes().filter(|_| !attempt.is_barred()) {
            let now = attempt.now();
            let is_known = self.trust.knows_client(client, now);
            self.count(client, Failure::Noise, !is_known, now);
            self.count(network, Failure::Noise, true, now);
        }
    }

    /// Begins a login from `address`.
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

    /// Counts a success.
    pub fn accepted(&self, attempt: &Attempt, credential: i64) {
        self.imported_guesses.succeeded(credential);
        if let Some([client, _]) = attempt.prefixes() {
            self.trust_from_now(credential, client, attempt.now());
        }
    }

    /// Trusts an unknown client whose password proved right after its timeout. The next attempt
    /// succeeds.
    pub(crate) fn late_success(&self, client: Prefix, target: Target) {
        let now = steady_ms();
        if !self.imported_guesses.is_closed(target, now) {
            self.imported_guesses.succeeded(target.key);
            self.trust_from_now(target.key, client, now);
        }
    }

    fn trust_from_now(&self, credential: i64, client: Prefix, now: i64) {
        if client.is_unattributed() {
            return;
        }
        if self.trust.note(credential, client, now) {
            let mut unwritten = self.unwritten.lock();
            if unwritten.len() < UNWRITTEN {
                unwritten.insert((credential, client), now);
            }
        }
    }

    /// Counts a failed login for `reason`; `mark` stands for the username and password.
    pub fn refused(
        &self,
        attempt: &Attempt,
        reason: Reason,
        credential: Option<i64>,
        mark: u32,
    ) -> Outcome {
        let failure = match reason {
            Reason::ActsForAnother => Failure::Noise,
            // A device with an old password, or at another place.
            Reason::PreviousPassword | Reason::Network => Failure::Benign,
            _ if attempt.is_benign() => Failure::Benign,
            // Unknown usernames count too; otherwise bans would reveal which usernames exist.
            _ => Failure::Guess(mark),
        };
        // Guesses at a human-chosen password count from every address.
        if let Some(target) = attempt.guessed().filter(|_| failure != Failure::Benign) {
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

    /// Counts that an unknown client got no hash permit in time, unless a login succeeded from
    /// there before. The weight is small: a flood must end in a ban, and clients with the right
    /// password must not be banned because a flood keeps them waiting.
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

    /// Records the time of a hash for an unknown client.
    pub(crate) fn record_hash_time(&self, took: Duration) {
        self.hash_admission.record_time(took);
    }

    /// The likely time of a hash for a username; always about the same for the same username.
    pub(crate) fn hash_time(&self, name: u32) -> Duration {
        self.hash_admission.hash_time(name)
    }

    /// Remembers a wrong password, for any unknown username and for the credential if `target` is
    /// one. The password is not hashed again.
    pub(crate) fn remember_wrong(&self, target: Option<Target>, digest: Digest) {
        let now = steady_ms();
        for target in target.into_iter().chain([Target::UNKNOWN]) {
            self.wrong.note(attempt::mark_of(target, digest), now);
        }
    }

    /// Counts a wrong guess at a human-chosen password.
    pub(crate) fn guessed(&self, target: Target) {
        let credential = target.key;
        match self.imported_guesses.failed(target, steady_ms()) {
            Some(imported_guesses::SUSPICIOUS) => tracing::warn!(
                target: "gatepost::guard",
                credential,
                "clients guess the password of an imported credential; rotate the credential to a generated password"
            ),
            Some(imported_guesses::LIMIT) => tracing::warn!(
                target: "gatepost::guard",
                credential,
                "after 100 wrong passwords in a row, unknown clients cannot use this imported credential for an hour"
            ),
            _ => {}
        }
    }

    /// Counts a failure of one client or network.
    fn count(&self, prefix: Prefix, failure: Failure, may_ban: bool, now: i64) {
        if failure == Failure::Benign {
            return;
        }
        let is_network = prefix.is_network();
        // A ban would hit every client without a known address.
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
            // The form of this line is documented for fail2ban.
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
            .with(prefix, |penalty| penalty.score(now));
        score.unwrap_or(0.0)
    }

    fn is_banned(&self, prefix: Prefix, now: i64) -> bool {
        let until = |penalty: &Penalty| penalty.banned_until(now);
        self.settings.enabled && self.table(prefix).with(prefix, until).flatten().is_some()
    }

    /// Whether failures of `address` never count. All clients without a known address count
    /// together, exempt or not: otherwise an attacker could omit the address.
    fn is_exempt(&self, address: IpAddr) -> bool {
        let mut exempt = self.settings.exempt.iter();
        !Prefix::client(address).is_unattributed()
            && exempt.any(|network| network.contains(address))
    }

    /// Whether any failure in `prefix` counts.
    fn counts(&self, prefix: Prefix) -> bool {
        let mut exempt = self.settings.exempt.iter();
        let is_exempt = exempt
            .any(|network| network.contains(prefix.address()) && network.contains(prefix.last()));
        self.settings.enabled && !is_exempt
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
