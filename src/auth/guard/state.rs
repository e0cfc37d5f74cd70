//! Penalties shown, cleared, written and read back.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::Ordering;

use crate::log::Throttle;
use crate::metrics::{Label as _, Scope};
use crate::store::{Actor, PenaltyRow, Store, StoreError, TrustedNetwork};

use super::penalty::{self, Penalty};
use super::prefix::{InvalidPrefix, Prefix};
use super::{CLIENTS, Guard, NETWORKS, UNKNOWN, scope};
use crate::clock::{self, steady_ms};

/// Older failures no longer count, in milliseconds.
const FORGOTTEN: i64 = 7 * 24 * 3_600_000;

/// The most penalties of each kind in one write; the rest waits for the next write.
const AT_ONCE: usize = 4_096;

/// The consequence of a penalty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Status {
    /// No client of the network may log in.
    Banned,
    /// Rejections are delayed more.
    Slowed,
    /// No consequence yet.
    Counted,
}

impl Status {
    /// The stable name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Slowed => "slowed",
            Self::Counted => "counted",
        }
    }
}

/// The penalty of one network, for people.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PenaltyView {
    pub(crate) network: Prefix,
    pub(crate) score: f64,
    /// The time of the last counted failure, in Unix milliseconds.
    pub(crate) at: i64,
    /// The number of bans in a row.
    pub(crate) bans: u8,
    /// The end of the ban, in Unix milliseconds.
    pub(crate) banned_until: Option<i64>,
    /// Whether a login from there succeeded lately.
    pub(crate) is_known: bool,
}

impl PenaltyView {
    fn of(network: Prefix, penalty: &Penalty, is_known: bool, now: i64) -> Option<Self> {
        let penalty_view = Self {
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
        (penalty_view.score > 0.0 || penalty_view.banned_until.is_some()).then_some(penalty_view)
    }

    pub(crate) fn status(&self) -> Status {
        match self.banned_until {
            Some(_) => Status::Banned,
            None if self.slowness() > 1 => Status::Slowed,
            None => Status::Counted,
        }
    }

    /// The stable name of the kind of network.
    pub(crate) fn scope(&self) -> &'static str {
        scope(self.network).as_str()
    }

    /// The consequence as a sentence.
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
                "Failed logins: refusals come {} times later than usual. The address is not banned, because a login from there succeeded within 30 days.",
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
fn sorted(mut penalties: Vec<PenaltyView>) -> Vec<PenaltyView> {
    penalties.sort_by(|one, other| {
        let rank =
            |penalty_view: &PenaltyView| (penalty_view.banned_until.is_some(), penalty_view.score);
        let ((one_banned, one_score), (other_banned, other_score)) = (rank(one), rank(other));
        other_banned
            .cmp(&one_banned)
            .then(other_score.total_cmp(&one_score))
            .then(one.network.cmp(&other.network))
    });
    penalties
}

/// The penalties to show or clear.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ClearTarget {
    /// Those that affect an address: of the client and of the network.
    Address(IpAddr),
    /// All in this network.
    Network(Prefix),
}

impl ClearTarget {
    /// Whether the penalty of `prefix` is among these.
    pub(crate) fn includes(self, prefix: Prefix) -> bool {
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
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => text.parse().map(Self::Network),
        }
    }
}

/// Reads the stored penalties and dates them by the steady clock. Skips rows without a valid
/// network.
pub(super) fn read(store: &Store, mut take: impl FnMut(Prefix, Penalty)) -> Result<(), StoreError> {
    let now = steady_ms();
    for row in store.penalties()? {
        if let Ok(network) = row.network.parse::<Prefix>() {
            // A failure in the future counts as present, and its ban is no longer than a new ban.
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

/// The stored penalties, the worst first, as a daemon without exemptions would load them.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn stored(store: &Store) -> Result<Vec<PenaltyView>, StoreError> {
    let now = steady_ms();
    let known = store.trusted_networks(clock::now_ms() - super::trust::REMEMBERED)?;
    let known: HashSet<_> = known.into_iter().map(|trusted| trusted.network).collect();
    let mut penalties = Vec::new();
    read(store, |network, penalty| {
        let is_known = known.contains(&network.to_string());
        penalties.extend(PenaltyView::of(network, &penalty, is_known, now));
    })?;
    Ok(sorted(penalties))
}

impl Guard {
    /// All penalties, the worst first. May copy and sort tens of thousands.
    pub(crate) fn list(&self) -> Vec<PenaltyView> {
        let now = steady_ms();
        let mut penalties = Vec::new();
        for table in [&self.clients, &self.networks] {
            table.for_each(|network, penalty| {
                penalties.extend(self.penalty_view(network, penalty, now));
            });
        }
        sorted(penalties)
    }

    /// The penalties of a target, the worst first. An address costs two look-ups, a network a pass
    /// over all.
    pub(crate) fn penalties_of(&self, target: ClearTarget) -> Vec<PenaltyView> {
        let address = match target {
            ClearTarget::Address(address) => address,
            ClearTarget::Network(_) => {
                let mut penalties = self.list();
                penalties.retain(|penalty_view| target.includes(penalty_view.network));
                return penalties;
            }
        };
        let now = steady_ms();
        let own = [Prefix::client(address), Prefix::network(address)];
        let penalties = own.into_iter().filter_map(|network| {
            let penalty_view = |penalty: &Penalty| self.penalty_view(network, penalty, now);
            self.table(network).with(network, penalty_view).flatten()
        });
        sorted(penalties.collect())
    }

    fn penalty_view(&self, network: Prefix, penalty: &Penalty, now: i64) -> Option<PenaltyView> {
        PenaltyView::of(network, penalty, self.is_known(network, now), now)
    }

    /// Whether a login from this client succeeded lately; no ban holds then.
    fn is_known(&self, network: Prefix, now: i64) -> bool {
        !network.is_network() && self.trust.knows_client(network, now)
    }

    /// Clears the target's penalties at once, and forgets that logins from there succeeded. Returns
    /// the number of cleared penalties. Blocks on the store.
    ///
    /// # Errors
    /// The store cannot be written; the change holds until the process ends.
    pub(crate) fn clear(
        &self,
        target: ClearTarget,
        store: &Store,
        actor: &Actor,
    ) -> Result<usize, StoreError> {
        store.by(actor).may_change()?;
        let _writing = self.writing.lock();
        let mut cleared: BTreeSet<_> = [&self.clients, &self.networks]
            .into_iter()
            .flat_map(|table| table.remove(|prefix, _| target.includes(prefix)))
            .map(|prefix| prefix.to_string())
            .collect();
        self.trust.forget_clients(|client| target.includes(client));
        self.unwritten
            .lock()
            .retain(|(_, client), _| !target.includes(*client));
        self.update_gauges(steady_ms());
        read(store, |prefix, _| {
            if target.includes(prefix) {
                cleared.insert(prefix.to_string());
            }
        })?;
        let networks: Vec<_> = cleared.iter().cloned().collect();
        let is_wanted = |network: &str| {
            network
                .parse()
                .is_ok_and(|network| target.includes(network))
        };
        store
            .by(actor)
            .clear_networks(&target.to_string(), &networks, is_wanted)?;
        Ok(cleared.len())
    }

    /// Forgets the clients of credentials that may no longer log in, if a credential has changed
    /// since the last call. Blocks on the store.
    fn forget_rejected(&self, store: &Store) {
        let epoch = store.epoch();
        if self.trust_epoch.swap(epoch, Ordering::Relaxed) == epoch {
            return;
        }
        for keys in self.trust.keys().chunks(AT_ONCE) {
            let done = store.refused_among(keys).and_then(|refused| {
                if refused.is_empty() {
                    return Ok(());
                }
                let unwanted = refused.iter().copied().collect();
                self.trust.forget_credentials(&unwanted);
                self.unwritten
                    .lock()
                    .retain(|(credential, _), _| !unwanted.contains(credential));
                store.forget_trusted(&refused)
            });
            if let Err(error) = done {
                static UNFOLLOWED: Throttle = Throttle::new();
                if let Some(count) = UNFOLLOWED.due() {
                    tracing::warn!(
                        %error,
                        count,
                        "trusted networks could not be compared with the store, trying again"
                    );
                }
                self.trust_epoch.store(UNKNOWN, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Writes all changes, at the end of the process. Blocks on the store.
    pub(crate) fn write_all(&self, store: &Store) {
        // Bounded, even if changes go on.
        for _ in 0..=(CLIENTS + NETWORKS) / AT_ONCE {
            if !self.write(store) {
                return;
            }
        }
    }

    /// Writes one batch of changes, and drops forgotten penalties. Returns whether more changes may
    /// wait. Blocks on the store.
    pub(crate) fn write(&self, store: &Store) -> bool {
        let now = steady_ms();
        let _writing = self.writing.lock();
        self.forget_rejected(store);
        let (rows, trusted) = self.changes(now);
        self.update_gauges(now);
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
                    "penalties could not be written, keeping them in memory"
                );
            }
            self.put_back(rows, trusted, now);
            return false;
        }
        is_full
    }

    /// Takes the changes to write, bans first: a ban must not be lost.
    pub(super) fn changes(&self, now: i64) -> (Vec<PenaltyRow>, Vec<TrustedNetwork>) {
        let mut rows = Vec::new();
        for table in [&self.clients, &self.networks] {
            if table.len() == 0 {
                continue;
            }
            table.remove(|_, penalty| penalty.is_forgotten(now));
            let end = rows.len() + AT_ONCE;
            for bans in [true, false] {
                table.resume(|network, penalty| {
                    let is_due = penalty.unwritten && penalty.banned_until(now).is_some() == bans;
                    if is_due && rows.len() < end {
                        penalty.unwritten = false;
                        rows.push(row(network, penalty));
                    }
                    rows.len() < end
                });
            }
        }
        let trusted = std::mem::take(&mut *self.unwritten.lock());
        let trusted = trusted
            .into_iter()
            .map(|((credential, client), at)| TrustedNetwork {
                credential,
                network: client.to_string(),
                at: clock::wall_of(at),
            });
        (rows, trusted.collect())
    }

    /// Keeps changes that could not be written.
    pub(super) fn put_back(&self, rows: Vec<PenaltyRow>, trusted: Vec<TrustedNetwork>, now: i64) {
        for row in rows {
            if let Ok(network) = row.network.parse() {
                self.table(network)
                    .change(network, now, |penalty| penalty.unwritten = true);
            }
        }
        let mut unwritten = self.unwritten.lock();
        for row in trusted {
            if let Ok(client) = row.network.parse() {
                let at = row.at.saturating_sub(clock::offset_at(row.at));
                unwritten.entry((row.credential, client)).or_insert(at); // one noted since is newer
            }
        }
    }

    /// Updates the gauges.
    pub(super) fn update_gauges(&self, now: i64) {
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
