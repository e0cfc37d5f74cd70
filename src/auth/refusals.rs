//! Rejected logins that wait to be written: a few thousand at most, whatever clients send, and one
//! row for many attempts.

use std::collections::HashMap;

use crate::store::{
    REFUSALS_OF_ONE, REFUSALS_OF_ONE_REASON, RefusedLogin, UNKNOWN_REFUSALS,
    UNKNOWN_REFUSALS_FROM_ONE,
};

/// The most waiting rejections with the usernames of credentials.
const KNOWN_REFUSALS: usize = 8_192;

/// The username as it may be kept and logged: some clients send the password there.
pub(super) fn loggable_username(username: &str) -> &str {
    match username.trim().starts_with("sk_") {
        true => "sk_…",
        false => username,
    }
}

/// Rejections, similar rejections merged.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    known: ByName,
    unknown: ByName,
    /// The number of unknown usernames from each address.
    unknown_from: HashMap<String, usize>,
}

impl Refusals {
    /// Adds a rejection, of a credential's username or an unknown username. Returns false if the
    /// rejection is dropped for lack of room.
    pub(super) fn add(&mut self, refusal: RefusedLogin, is_known: bool) -> bool {
        if is_known {
            return self.known.add(refusal, KNOWN_REFUSALS) != Added::Not;
        }
        let from = self.unknown_from.get(&refusal.address).copied();
        let room = match from.unwrap_or(0) < UNKNOWN_REFUSALS_FROM_ONE {
            true => UNKNOWN_REFUSALS,
            false => 0, // but it may be like one that is here
        };
        let address = refusal.address.clone();
        let added = self.unknown.add(refusal, room);
        if added == Added::New {
            *self.unknown_from.entry(address).or_default() += 1;
        }
        added != Added::Not
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len + self.unknown.len
    }

    pub(super) fn of(&self, username: &str) -> Vec<RefusedLogin> {
        let both = [&self.known, &self.unknown];
        let found = both.into_iter().filter_map(|names| names.map.get(username));
        found.flatten().cloned().collect()
    }

    /// Rejections of usernames that were unknown at the time.
    pub(super) fn unknown(&self) -> Vec<RefusedLogin> {
        self.unknown.map.values().flatten().cloned().collect()
    }

    /// The number of first rows of [`Refusals::into_rows`] with the usernames of credentials.
    pub(super) fn known(&self) -> usize {
        self.known.len
    }

    pub(super) fn into_rows(self) -> Vec<RefusedLogin> {
        let names = self
            .known
            .map
            .into_values()
            .chain(self.unknown.map.into_values());
        names.flatten().collect()
    }
}

#[derive(Clone, Debug, Default)]
struct ByName {
    map: HashMap<String, Vec<RefusedLogin>>,
    len: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Added {
    /// A new entry.
    New,
    /// No room.
    Not,
    /// Merged with a similar entry, or took the place of the oldest.
    Within,
}

impl ByName {
    fn add(&mut self, refusal: RefusedLogin, room: usize) -> Added {
        let full = self.len >= room;
        let Some(own) = self.map.get_mut(&refusal.username) else {
            if full {
                return Added::Not;
            }
            self.len += 1;
            self.map.insert(refusal.username.clone(), vec![refusal]);
            return Added::New;
        };
        if let Some(alike) = own.iter_mut().find(|other| other.is_like(&refusal)) {
            alike.add(&refusal);
            return Added::Within;
        }
        if full {
            return Added::Not;
        }
        match oldest(own, &refusal.reason) {
            Some(oldest) => {
                *oldest = refusal;
                Added::Within
            }
            None => {
                own.push(refusal);
                self.len += 1;
                Added::New
            }
        }
    }
}

/// The entry that a rejection for `reason` replaces when the username has no room left.
fn oldest<'a>(own: &'a mut [RefusedLogin], reason: &str) -> Option<&'a mut RefusedLogin> {
    let alike = own
        .iter()
        .filter(|refusal| refusal.reason == reason)
        .count();
    let of_reason = alike >= REFUSALS_OF_ONE_REASON;
    if !of_reason && own.len() < REFUSALS_OF_ONE {
        return None;
    }
    own.iter_mut()
        .filter(|refusal| !of_reason || refusal.reason == reason)
        .min_by_key(|refusal| refusal.at)
}

/// Merges waiting rejections into stored rejections; the latest first.
pub(super) fn merged(
    mut stored: Vec<RefusedLogin>,
    waiting: Vec<RefusedLogin>,
) -> Vec<RefusedLogin> {
    for newer in waiting {
        match stored.iter_mut().find(|older| older.is_like(&newer)) {
            Some(older) => older.add(&newer),
            None => stored.push(newer),
        }
    }
    // Times in the future come from a wrong clock.
    let now = crate::clock::now_ms();
    for refusal in &mut stored {
        refusal.at = refusal.at.min(now);
        refusal.first_at = refusal.first_at.min(now);
    }
    stored.sort_by_key(|refusal| std::cmp::Reverse(refusal.at));
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(username: &str, reason: &str, address: &str, at: i64) -> RefusedLogin {
        RefusedLogin {
            username: username.to_owned(),
            reason: reason.to_owned(),
            address: address.to_owned(),
            first_at: at,
            at,
            count: 1,
            retired_at: None,
        }
    }

    #[test]
    fn a_password_in_the_place_of_the_username_is_not_kept() {
        assert_eq!(loggable_username("sk_0123456789"), "sk_…");
        assert_eq!(loggable_username("smtp_a"), "smtp_a");
    }

    #[test]
    fn alike_ones_are_one() {
        let mut refusals = Refusals::default();
        for at in [5, 9, 7] {
            refusals.add(refusal("a", "wrong_password", "192.0.2.1", at), true);
        }
        refusals.add(refusal("a", "expired", "192.0.2.1", 1), true);
        let mut own = refusals.of("a");
        own.sort_by_key(|refusal| refusal.at);
        assert_eq!(own.len(), 2);
        assert_eq!((own[1].first_at, own[1].at, own[1].count), (5, 9, 3));
        assert_eq!((refusals.len(), refusals.unknown().len()), (2, 0));
    }

    #[test]
    fn a_flood_of_names_takes_a_bounded_place() {
        let mut refusals = Refusals::default();
        for n in 0..5_000 {
            let address = format!("198.51.{}.1", n % 200);
            refusals.add(refusal(&format!("n{n}"), "unknown", &address, n), false);
        }
        assert_eq!(refusals.len(), UNKNOWN_REFUSALS);
        let mut refusals = Refusals::default();
        for n in 0..5_000 {
            refusals.add(refusal(&format!("n{n}"), "unknown", "192.0.2.1", n), false);
        }
        assert_eq!(refusals.len(), UNKNOWN_REFUSALS_FROM_ONE);
        refusals.add(refusal("n1", "unknown", "192.0.2.1", 9_000), false);
        assert_eq!(refusals.of("n1")[0].count, 2);
        refusals.add(refusal("other", "unknown", "192.0.2.2", 1), false);
        assert_eq!(refusals.len(), UNKNOWN_REFUSALS_FROM_ONE + 1);
    }

    #[test]
    fn a_guesser_does_not_push_out_a_device() {
        let mut refusals = Refusals::default();
        let device = refusal("a", "previous_password", "192.0.2.1", 1);
        refusals.add(device.clone(), true);
        for n in 0..1_000 {
            let address = format!("198.51.100.{n}");
            refusals.add(refusal("a", "wrong_password", &address, 10 + n), true);
        }
        let own = refusals.of("a");
        assert_eq!(own.len(), REFUSALS_OF_ONE_REASON + 1);
        assert!(own.contains(&device));
        assert!(
            own.iter()
                .any(|refusal| refusal.address == "198.51.100.999")
        );
        for n in 0..20_000 {
            refusals.add(refusal(&format!("n{n}"), "revoked", "192.0.2.1", 1), true);
        }
        assert_eq!(refusals.len(), KNOWN_REFUSALS);
        assert_eq!(refusals.into_rows().len(), KNOWN_REFUSALS);
    }

    #[test]
    fn what_waits_is_added_to_what_is_stored() {
        let stored = vec![
            refusal("a", "expired", "192.0.2.1", 5),
            refusal("a", "expired", "192.0.2.2", 4),
        ];
        let waiting = vec![
            refusal("a", "expired", "192.0.2.2", 8),
            refusal("a", "revoked", "192.0.2.2", 9),
        ];
        let merged = merged(stored, waiting);
        let told: Vec<_> = merged
            .iter()
            .map(|refusal| (refusal.reason.as_str(), refusal.at, refusal.count))
            .collect();
        assert_eq!(
            told,
            [("revoked", 9, 1), ("expired", 8, 2), ("expired", 5, 1)]
        );
    }
}
