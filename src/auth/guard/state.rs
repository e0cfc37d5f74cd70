//! What is held against whom: shown, cleared, written, and read back.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::log::Throttle;
use crate::metrics::{Label as _, Scope};
use crate::store::{Actor, PenaltyRow, Store, StoreError, TrustedNetwork};

use super::penalty::{self, Penalty};
use super::prefix::{NoNetwork, Prefix};
use super::{CLIENTS, Guard, NETWORKS, UNKNOWN, scope};
use crate::clock::{self, steady_ms};

/// What is older than this counts no more, in milliseconds.
const FORGOTTEN: i64 = 7 * 24 * 3_600_000;

/// How many penalties of addresses, and how many of networks, are written at a time; what is left waits for the next time.
const AT_ONCE: usize = 4_096;

/// What follows from what is held against a network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    /// Nobody of it may log in.
    Banned,
    /// Refusals come later.
    Slowed,
    /// Nothing yet.
    Counted,
}

impl Status {
    /// Its stable name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Slowed => "slowed",
            Self::Counted => "counted",
        }
    }
}

/// What is held against one network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PenaltyView {
    /// Whom it is about.
    pub(crate) network: Prefix,
    /// What it has run up.
    pub(crate) score: f64,
    /// When a failure last counted, in Unix milliseconds.
    pub(crate) at: i64,
    /// How many bans there were in a row.
    pub(crate) bans: u8,
    /// Until when it is banned, in Unix milliseconds.
    pub(crate) banned_until: Option<i64>,
    /// Whether somebody logged in from there lately.
    pub(crate) is_known: bool,
}

impl PenaltyView {
    fn of(network: Prefix, penalty: &Penalty, is_known: bool, now: i64) -> Option<Self> {
        let charge = Self {
            network,
            score: penalty.score(now),
            at: clock::wall_of(penalty.at()),
            bans: penalty.bans(),
            banned_until: penalty
                .banned_until(now)
                .filter(|_| !is_known)
                .map(clock::wall_of),
            is_known,
        };
        (charge.score > 0.0 || charge.banned_until.is_some()).then_some(charge)
    }

    /// What follows.
    pub(crate) fn standing(&self) -> Status {
        match self.banned_until {
            Some(_) => Status::Banned,
            None if self.slowness() > 1 => Status::Slowed,
            None => Status::Counted,
        }
    }

    /// What kind of network it is.
    pub(crate) fn scope(&self) -> &'static str {
        scope(self.network).as_str()
    }

    /// The same in words.
    pub(crate) fn why(&self) -> String {
        let banned = self.banned_until.is_some();
        match (scope(self.network), banned) {
            (Scope::Address, true) => {
                "Too many failed logins: its connections are closed before anything is said.".to_owned()
            }
            (Scope::Network, true) => {
                "Too many failed logins from its addresses: logins are answered with 421, except with credentials that were used from the same address before.".to_owned()
            }
            (Scope::Address, false) if self.is_known && self.slowness() > 1 => format!(
                "Failed logins: refusals come {} times later than usual. It is not banned, because somebody logged in from there within 30 days.",
                self.slowness()
            ),
            (_, false) if self.slowness() > 1 => {
                format!("Failed logins: refusals come {} times later than usual.", self.slowness())
            }
            (_, false) => "Failed logins, too few to have consequences.".to_owned(),
        }
    }

    fn slowness(&self) -> u32 {
        if self.network.is_network() {
            1 + penalty::slowness_of_network(self.score)
        } else {
            penalty::slowness(self.score)
        }
    }
}

/// The worst first.
fn sorted(mut charges: Vec<PenaltyView>) -> Vec<PenaltyView> {
    charges.sort_by(|one, other| {
        let rank = |charge: &PenaltyView| (charge.banned_until.is_some(), charge.score);
        let ((one_banned, one_score), (other_banned, other_score)) = (rank(one), rank(other));
        other_banned
            .cmp(&one_banned)
            .then(other_score.total_cmp(&one_score))
            .then(one.network.cmp(&other.network))
    });
    charges
}

/// Whose penalties are to be cleared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClearTarget {
    /// Those that keep this address out: its own and its network's.
    Address(IpAddr),
    /// All in this network.
    Network(Prefix),
}

impl ClearTarget {
    /// Whether `prefix` is one of them.
    pub(crate) fn takes(self, prefix: Prefix) -> bool {
        match self {
            Self::Address(address) => {
                prefix == Prefix::client(address) || prefix == Prefix::network(address)
            }
            Self::Network(network) => network.covers(prefix),
        }
    }
}

impl fmt::Display for ClearTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.to_canonical().fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl FromStr for ClearTarget {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => text.parse().map(Self::Network),
        }
    }
}

/// Reads the penalties of the store and dates them by the steady clock. Ignores a row whose network
/// is none.
pub(super) fn read(store: &Store, mut take: impl FnMut(Prefix, Penalty)) -> Result<(), StoreError> {
    let now = steady_ms();
    for row in store.penalties()? {
        if let Ok(network) = row.network.parse::<Prefix>() {
            // A failure of the future is one of now, and its ban lasts no longer than a ban.
            let at = row.at.saturating_sub(clock::offset_at(row.at));
            let at = at.clamp(now - FORGOTTEN, now);
            let longest = Penalty::length(row.bans, !network.is_network());
            let banned_until = row.banned_until.map(|until| {
                let lasts = until.saturating_sub(row.at);
                at.saturating_add(lasts).min(now + longest)
            });
            take(
                network,
                Penalty::stored(row.score, at, row.bans, banned_until),
            );
        }
    }
    Ok(())
}

/// What is held against whom according to the store, the worst first: what a daemon would begin with that exempts nobody.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn stored(store: &Store) -> Result<Vec<PenaltyView>, StoreError> {
    let now = steady_ms();
    let known = store.trusted_networks(clock::now_ms() - super::trust::REMEMBERED)?;
    let known: HashSet<_> = known.into_iter().map(|trusted| trusted.network).collect();
    let mut charges = Vec::new();
    read(store, |network, penalty| {
        let is_known = known.contains(&network.to_string());
        charges.extend(PenaltyView::of(network, &penalty, is_known, now));
    })?;
    Ok(sorted(charges))
}

impl Guard {
    /// What is held against whom, the worst first. Copies and sorts tens of thousands, where there are so many.
    pub(crate) fn list(&self) -> Vec<PenaltyView> {
        let now = steady_ms();
        let mut charges = Vec::new();
        for table in [&self.clients, &self.networks] {
            table.for_each(|network, penalty| {
                charges.extend(self.charge(network, penalty, now));
            });
        }
        sorted(charges)
    }

    /// The same of those who are wanted. Looks at two for an address, and at all for a network.
    pub(crate) fn among(&self, wanted: ClearTarget) -> Vec<PenaltyView> {
        let address = match wanted {
            ClearTarget::Address(address) => address,
            ClearTarget::Network(_) => {
                let mut charges = self.list();
                charges.retain(|charge| wanted.takes(charge.network));
                return charges;
            }
        };
        let now = steady_ms();
        let own = [Prefix::client(address), Prefix::network(address)];
        let charges = own.into_iter().filter_map(|network| {
            let charge = |penalty: &Penalty| self.charge(network, penalty, now);
            self.table(network).look(network, charge).flatten()
        });
        sorted(charges.collect())
    }

    fn charge(&self, network: Prefix, penalty: &Penalty, now: i64) -> Option<PenaltyView> {
        PenaltyView::of(network, penalty, self.is_known(network, now), now)
    }

    /// Whether it is a client from which somebody logged in lately: then no ban holds.
    fn is_known(&self, network: Prefix, now: i64) -> bool {
        !network.is_network() && self.trust.knows_client(network, now)
    }

    /// Holds nothing against them any more, from this moment on, and forgets who logged in from there. Returns against how many
    /// something was held. Blocks on the store.
    ///
    /// # Errors
    /// It could not be written; it counts until the process ends.
    pub(crate) fn clear(
        &self,
        wanted: ClearTarget,
        store: &Store,
        actor: &Actor,
    ) -> Result<usize, StoreError> {
        store.by(actor).may_change()?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cleared: BTreeSet<_> = [&self.clients, &self.networks]
            .into_iter()
            .flat_map(|table| table.remove(|prefix, _| wanted.takes(prefix)))
            .map(|prefix| prefix.to_string())
            .collect();
        self.trust.forget_clients(|client| wanted.takes(client));
        self.unwritten()
            .retain(|(_, client), _| !wanted.takes(*client));
        self.show(steady_ms());
        read(store, |prefix, _| {
            if wanted.takes(prefix) {
                cleared.insert(prefix.to_string());
            }
        })?;
        let networks: Vec<_> = cleared.iter().cloned().collect();
        let is_wanted = |network: &str| network.parse().is_ok_and(|network| wanted.takes(network));
        store
            .by(actor)
            .clear_networks(&wanted.to_string(), &networks, is_wanted)?;
        Ok(cleared.len())
    }

    /// Forgets where those credentials were used from that may not log in any more, if any credential has changed since this
    /// was last done. Blocks on the store.
    fn follow(&self, store: &Store) {
        let epoch = store.epoch();
        if self.followed.swap(epoch, Ordering::Relaxed) == epoch {
            return;
        }
        for keys in self.trust.keys().chunks(AT_ONCE) {
            let done = store.refused_among(keys).and_then(|refused| {
                if refused.is_empty() {
                    return Ok(());
                }
                let unwanted = refused.iter().copied().collect();
                self.trust.forget_credentials(&unwanted);
                self.unwritten()
                    .retain(|(credential, _), _| !unwanted.contains(credential));
                store.forget_trusted(&refused)
            });
            if let Err(error) = done {
                static UNFOLLOWED: Throttle = Throttle::new();
                if let Some(count) = UNFOLLOWED.due() {
                    tracing::warn!(
                        %error,
                        count,
                        "which networks are not trusted any more could not be brought up to date, trying again"
                    );
                }
                self.followed.store(UNKNOWN, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Writes all that has changed, once nothing changes any more. Blocks on the store.
    pub(crate) fn write_all(&self, store: &Store) {
        // Bounded, should something change after all.
        for _ in 0..=(CLIENTS + NETWORKS) / AT_ONCE {
            if !self.write(store) {
                return;
            }
        }
    }

    /// Writes what has changed, as much as is written at a time, and forgets what is over. Whether more may be left. Blocks
    /// on the store.
    pub(crate) fn write(&self, store: &Store) -> bool {
        let now = steady_ms();
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.follow(store);
        let (rows, trusted) = self.changes(now);
        self.show(now);
        if rows.is_empty() && trusted.is_empty() {
            return false;
        }
        let is_full = rows.len() >= AT_ONCE;
        if let Err(error) = store.write_penalties(&rows, &trusted, clock::now_ms()) {
            static UNWRITTEN: Throttle = Throttle::new();
            if let Some(count) = UNWRITTEN.due() {
                tracing::warn!(
                    %error,
                    count,
                    "what the guard holds against networks could not be written, keeping it"
                );
            }
            self.put_back(rows, trusted, now);
            return false;
        }
        is_full
    }

    /// Takes what is to be written: bans first, as they must not be lost.
    pub(super) fn changes(&self, now: i64) -> (Vec<PenaltyRow>, Vec<TrustedNetwork>) {
        let mut rows = Vec::new();
        for table in [&self.clients, &self.networks] {
            if table.len() == 0 {
                continue;
            }
            table.remove(|_, penalty| penalty.is_forgotten(now));
            let end = rows.len() + AT_ONCE;
            for bans in [true, false] {
                table.go_on(|network, penalty| {
                    let is_due = penalty.unwritten && penalty.banned_until(now).is_some() == bans;
                    if is_due && rows.len() < end {
                        penalty.unwritten = false;
                        rows.push(row(network, penalty));
                    }
                    rows.len() < end
                });
            }
        }
        let trusted = std::mem::take(&mut *self.unwritten());
        let trusted = trusted
            .into_iter()
            .map(|((credential, client), at)| TrustedNetwork {
                credential,
                network: client.to_string(),
                at: clock::wall_of(at),
            });
        (rows, trusted.collect())
    }

    /// Keeps what could not be written.
    pub(super) fn put_back(&self, rows: Vec<PenaltyRow>, trusted: Vec<TrustedNetwork>, now: i64) {
        for row in rows {
            if let Ok(network) = row.network.parse() {
                self.table(network)
                    .change(network, now, |penalty| penalty.unwritten = true);
            }
        }
        let mut unwritten = self.unwritten();
        for row in trusted {
            if let Ok(client) = row.network.parse() {
                let at = row.at.saturating_sub(clock::offset_at(row.at));
                unwritten.entry((row.credential, client)).or_insert(at); // one noted since is newer
            }
        }
    }

    /// Brings the gauges up to date.
    pub(super) fn show(&self, now: i64) {
        for (scope, table) in [
            (Scope::Address, &self.clients),
            (Scope::Network, &self.networks),
        ] {
            let mut banned = 0;
            if table.len() > 0 {
                table.for_each(|network, penalty| {
                    let until = penalty.banned_until(now);
                    banned += i64::from(until.is_some() && !self.is_known(network, now));
                });
            }
            self.metrics.guard_banned.of(scope).set(banned);
            let tracked = i64::try_from(table.len()).unwrap_or(i64::MAX);
            self.metrics.guard_tracked.of(scope).set(tracked);
        }
        let waiting = i64::try_from(self.admission.open()).unwrap_or(i64::MAX);
        self.metrics.guard_unauthenticated.set(waiting);
    }
}

fn row(network: Prefix, penalty: &Penalty) -> PenaltyRow {
    PenaltyRow {
        network: network.to_string(),
        score: penalty.score(penalty.at()),
        at: clock::wall_of(penalty.at()),
        bans: penalty.bans(),
        banned_until: penalty.last_ban().map(clock::wall_of),
    }
}
