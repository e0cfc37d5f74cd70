//! Records of what clients did, gathered in memory and written in batches: last uses, usage,
//! rejections, broken limits and rules, and uses of admin tokens.
//!
//! A record must never cost a login: a full map or a store that cannot be written is counted, and
//! the login goes on.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::metrics::{Metrics, StoreOperation};
use crate::policy::Breach;
use crate::store::{
    Breached, Credential, HOUR, LastMessage, LastUsed, Noted, PasswordUse, RefusedLogin, Store,
    StoreError, Tally, Token, TokenUse, Usage,
};

use super::refusals::{Refusals, loggable_username, merged};

use super::cache::PasswordSlot;
use super::guard::Guard;

/// The longest time between a commit and the end of its flush.
const COMMIT_TIME: Duration = Duration::from_millis(100);

/// The records that wait to be written.
pub struct ActivityBatch {
    state: Mutex<State>,
    /// Held during a flush, however long the store takes. No client waits for this lock.
    writing: Mutex<()>,
    limit: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    pending: Pending,
    /// The records of the flush under way.
    in_flight: Option<Arc<Pending>>,
    /// The number of flushes that have ended.
    flushes: u64,
}

/// Usage that was not written at one moment.
pub(super) struct Unwritten {
    /// By credential key and hour.
    pub(super) usage: Vec<((i64, i64), Usage)>,
    /// The number of flushes that had ended.
    flushes: u64,
    is_flushing: bool,
}

#[derive(Clone, Default)]
struct Pending {
    uses: HashMap<i64, LastUsed>,
    messages: HashMap<i64, LastMessage>,
    usage: HashMap<(i64, i64), Usage>,
    tokens: HashMap<i64, TokenUse>,
    previous: HashMap<i64, PasswordUse>,
    current: HashMap<i64, PasswordUse>,
    refusals: Refusals,
    breaches: HashMap<(i64, Breach), Tally>,
}

impl ActivityBatch {
    /// At most `limit` records of each kind wait.
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            writing: Mutex::default(),
            limit,
            metrics,
        }
    }

    /// Notes an accepted login.
    pub(crate) fn accepted(&self, key: i64, used: LastUsed) {
        let usage = Usage {
            accepted: 1,
            ..Usage::default()
        };
        let mut state = self.state.lock();
        self.add_usage(&mut state.pending, (key, used.at / HOUR), &usage);
        self.add_use(&mut state.pending, key, used);
        self.metrics.last_used_pending.set(state.uses_waiting());
    }

    /// Notes a rejected login, at a Unix millisecond.
    pub(crate) fn refused(&self, key: i64, at: i64) {
        let usage = Usage {
            refused: 1,
            ..Usage::default()
        };
        self.add_usage(&mut self.state.lock().pending, (key, at / HOUR), &usage);
    }

    /// Notes a login with one of the two passwords of an overlap.
    pub(crate) fn used_in_overlap(&self, key: i64, slot: PasswordSlot, used: PasswordUse) {
        let pending = &mut self.state.lock().pending;
        let uses = match slot {
            PasswordSlot::Current => &mut pending.current,
            PasswordSlot::Previous => &mut pending.previous,
        };
        self.add_password_use(uses, key, used);
    }

    /// Notes a rejection for the lists of rejections.
    pub(crate) fn note_rejection(&self, mut refusal: RefusedLogin, is_known: bool) {
        if !is_known {
            refusal.username = loggable_username(&refusal.username).to_owned();
        }
        let count = refusal.count;
        if !self.state.lock().pending.refusals.add(refusal, is_known) {
            self.metrics.refusals_dropped.inc_by(count);
        }
    }

    /// Notes the effect of a limit or rule on mail, at a Unix millisecond.
    pub(crate) fn breached(&self, key: i64, breach: Breach, at: i64) {
        self.add_breach(
            &mut self.state.lock().pending,
            (key, breach),
            Tally::once(at),
        );
    }

    /// All effects of limits and rules on the credential's mail, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn breaches(&self, store: &Store, key: i64) -> Result<Vec<Breached>, StoreError> {
        let mut all = store.breaches(key)?;
        let now = clock::now_ms();
        for ((owner, breach), tally) in self.state.lock().parts().flat_map(|part| &part.breaches) {
            if *owner != key {
                continue;
            }
            let newer = Breached::new(*breach, *tally);
            match all.iter_mut().find(|older| older.is_like(&newer)) {
                Some(older) => older.tally.add(*tally),
                None => all.push(newer),
            }
        }
        for breached in &mut all {
            breached.tally.at = breached.tally.at.min(now);
            breached.tally.first_at = breached.tally.first_at.min(now);
        }
        all.sort_by_key(|breached| std::cmp::Reverse(breached.tally.at));
        Ok(all)
    }

    /// All rejections of a username, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn refusals(
        &self,
        store: &Store,
        username: &str,
    ) -> Result<Vec<RefusedLogin>, StoreError> {
        let stored = store.refusals(username)?;
        let state = self.state.lock();
        let waiting = state.parts().map(|part| part.refusals.of(username));
        Ok(waiting.fold(stored, merged))
    }

    /// All rejections of unknown usernames, the latest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn unknown_refusals(&self, store: &Store) -> Result<Vec<RefusedLogin>, StoreError> {
        let stored = store.unknown_refusals()?;
        let waiting = self
            .state
            .lock()
            .parts()
            .map(|part| part.refusals.unknown())
            .collect::<Vec<_>>();
        let mut waiting = waiting.into_iter().fold(Vec::new(), merged);
        // Some rejections come before the look-up of the username.
        let names = waiting.iter().map(|refusal| refusal.username.clone());
        let unknown = store.unknown_among(names.collect())?;
        waiting.retain(|refusal| unknown.contains(&refusal.username));
        Ok(merged(stored, waiting))
    }

    /// Notes sent mail, at a Unix millisecond.
    pub(crate) fn sent(&self, key: i64, at: i64, usage: &Usage) {
        let pending = &mut self.state.lock().pending;
        self.add_usage(pending, (key, at / HOUR), usage);
        if usage.messages > 0 {
            let count = usage.messages;
            self.add_message(pending, key, LastMessage { at, count });
        }
    }

    /// Notes a use of an admin token.
    pub(crate) fn token_used(&self, key: i64, used: TokenUse) {
        let tokens = &mut self.state.lock().pending.tokens;
        if let Some(place) = place(tokens, key, self.limit, || used.clone()) {
            *place = used;
        }
    }

    /// Merges waiting records into a credential from the store. Waiting records are later than
    /// stored records, whatever their times.
    pub(crate) fn update(&self, credential: &mut Credential) {
        let now = clock::now_ms();
        let state = self.state.lock();
        for part in state.parts() {
            part.update(credential, now);
        }
    }

    /// Merges waiting records into a token from the store.
    pub(crate) fn update_token(&self, token: &mut Token) {
        let now = clock::now_ms();
        let state = self.state.lock();
        for newer in state.parts().filter_map(|part| part.tokens.get(&token.key)) {
            token.last_used_at = Some(newer.at.min(now));
            token.last_used_address.clone_from(&newer.address);
        }
    }

    fn add_use(&self, pending: &mut Pending, key: i64, used: LastUsed) {
        let nothing = || LastUsed {
            count: 0,
            ..used.clone()
        };
        let Some(latest) = place(&mut pending.uses, key, self.limit, nothing) else {
            self.metrics.last_used_dropped.inc();
            return;
        };
        let count = latest.count + used.count;
        // A present time in the future comes from a wrong clock.
        if used.at >= latest.at || latest.at > clock::now_ms() {
            *latest = used;
        }
        latest.count = count;
    }

    fn add_message(&self, pending: &mut Pending, key: i64, message: LastMessage) {
        let nothing = || LastMessage {
            count: 0,
            ..message
        };
        let Some(latest) = place(&mut pending.messages, key, self.limit, nothing) else {
            self.metrics.last_used_dropped.inc();
            return;
        };
        let count = latest.count + message.count;
        // As for logins.
        if message.at >= latest.at || latest.at > clock::now_ms() {
            *latest = message;
        }
        latest.count = count;
    }

    fn add_password_use(&self, uses: &mut HashMap<i64, PasswordUse>, key: i64, used: PasswordUse) {
        let nothing = || PasswordUse {
            count: 0,
            ..used.clone()
        };
        match place(uses, key, self.limit, nothing) {
            Some(latest) => latest.add(used),
            None => self.metrics.last_used_dropped.inc(),
        }
    }

    fn add_usage(&self, pending: &mut Pending, key: (i64, i64), usage: &Usage) {
        match place(&mut pending.usage, key, self.limit, Usage::default) {
            Some(sum) => sum.add(usage),
            None => self.metrics.last_used_dropped.inc(),
        }
    }

    fn add_breach(&self, pending: &mut Pending, key: (i64, Breach), tally: Tally) {
        let nothing = || Tally { count: 0, ..tally };
        match place(&mut pending.breaches, key, self.limit, nothing) {
            Some(sum) => sum.add(tally),
            None => self.metrics.refusals_dropped.inc_by(tally.count),
        }
    }

    /// Writes the waiting records; keeps the records if writing fails. Blocks on the store.
    pub(crate) fn flush(&self, store: &Store) {
        let _writing = self.writing.lock();
        let Some(noted) = self.take() else {
            return;
        };
        let began = Instant::now();
        let flushed = store.flush(&noted);
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.last_used_flush_seconds.observe(seconds);
        let store_seconds = self.metrics.store_seconds.of(StoreOperation::Flush);
        store_seconds.observe(seconds);
        if let Err(error) = &flushed {
            self.metrics.last_used_flush_failures.inc();
            static UNWRITTEN: Throttle = Throttle::new();
            if let Some(count) = UNWRITTEN.due() {
                tracing::warn!(
                    %error,
                    count,
                    "last-used times, usage and refusals could not be written, keeping them"
                );
            }
        } else {
            let written = noted.uses.len() as u64;
            self.metrics.last_used_flushed.inc_by(written);
        }
        self.end_flush(noted, flushed.is_ok());
    }

    /// The number of unwritten uses.
    pub(crate) fn waiting(&self) -> i64 {
        self.state.lock().uses_waiting()
    }

    /// Takes the waiting records for a flush.
    fn take(&self) -> Option<Noted> {
        let mut state = self.state.lock();
        let taken = Arc::new(std::mem::take(&mut state.pending));
        let noted = taken.noted();
        if noted.is_empty() {
            return None;
        }
        state.in_flight = Some(taken);
        Some(noted)
    }

    /// Ends a flush, and keeps the records that were not written.
    fn end_flush(&self, noted: Noted, is_written: bool) {
        let mut state = self.state.lock();
        state.in_flight = None;
        state.flushes += 1;
        if !is_written {
            self.put_back(&mut state.pending, noted);
        }
        self.metrics.last_used_pending.set(state.uses_waiting());
    }

    /// A snapshot of unwritten usage.
    pub(super) fn unwritten(&self) -> Unwritten {
        let state = self.state.lock();
        let sent = |(_, usage): &(&(i64, i64), &Usage)| usage.messages > 0 || usage.recipients > 0;
        let usage = state.parts().flat_map(|part| &part.usage).filter(sent);
        Unwritten {
            usage: usage.map(|(owner, usage)| (*owner, *usage)).collect(),
            flushes: state.flushes,
            is_flushing: state.in_flight.is_some(),
        }
    }

    /// Whether the store cannot hold any of the snapshot's usage yet. During a flush the answer is
    /// false, until the flush ends or takes longer than a commit can.
    pub(super) fn is_unflushed(&self, unwritten: &Unwritten) -> bool {
        let begun = Instant::now();
        loop {
            let state = self.state.lock();
            if state.flushes != unwritten.flushes {
                return false;
            }
            let is_flushing = unwritten.is_flushing || state.in_flight.is_some();
            if !is_flushing || begun.elapsed() >= COMMIT_TIME {
                return true;
            }
            drop(state);
            std::thread::sleep(COMMIT_TIME / 50);
        }
    }

    fn put_back(&self, pending: &mut Pending, noted: Noted) {
        for (key, used) in noted.uses {
            self.add_use(pending, key, used);
        }
        for (key, message) in noted.messages {
            self.add_message(pending, key, message);
        }
        for (key, usage) in noted.usage {
            self.add_usage(pending, key, &usage);
        }
        for (key, used) in noted.tokens {
            place(&mut pending.tokens, key, self.limit, || used); // one noted since is newer
        }
        for (key, used) in noted.previous {
            self.add_password_use(&mut pending.previous, key, used);
        }
        for (key, used) in noted.current {
            self.add_password_use(&mut pending.current, key, used);
        }
        for (place, refusal) in noted.refusals.into_iter().enumerate() {
            let count = refusal.count;
            if !pending.refusals.add(refusal, place < noted.known_refusals) {
                self.metrics.refusals_dropped.inc_by(count);
            }
        }
        for (key, tally) in noted.breaches {
            self.add_breach(pending, key, tally);
        }
    }
}

impl State {
    /// The unwritten records, the older part first.
    fn parts(&self) -> impl Iterator<Item = &Pending> {
        let in_flight = self.in_flight.as_deref().into_iter();
        in_flight.chain([&self.pending])
    }

    fn uses_waiting(&self) -> i64 {
        let waiting: usize = self.parts().map(|part| part.uses.len()).sum();
        i64::try_from(waiting).unwrap_or(i64::MAX)
    }
}

impl Pending {
    /// The records as rows.
    fn noted(&self) -> Noted {
        let taken = self.clone();
        Noted {
            uses: taken.uses.into_iter().collect(),
            messages: taken.messages.into_iter().collect(),
            usage: taken.usage.into_iter().collect(),
            tokens: taken.tokens.into_iter().collect(),
            previous: taken.previous.into_iter().collect(),
            current: taken.current.into_iter().collect(),
            known_refusals: taken.refusals.known(),
            refusals: taken.refusals.into_rows(),
            breaches: taken.breaches.into_iter().collect(),
        }
    }

    fn update(&self, credential: &mut Credential, now: i64) {
        for (uses, since, shown) in [
            (
                &self.previous,
                credential.previous_since,
                &mut credential.previous_used,
            ),
            (
                &self.current,
                credential.rotated_at,
                &mut credential.current_used,
            ),
        ] {
            let since = since.unwrap_or(i64::MAX);
            let newer = uses.get(&credential.key);
            if let Some(newer) = newer.filter(|used| used.at >= since || since > now) {
                let mut newer = newer.clone();
                newer.at = newer.at.min(now);
                newer.count += shown.as_ref().map_or(0, |used| used.count);
                *shown = Some(newer);
            }
        }
        if let Some(newer) = self.messages.get(&credential.key) {
            let before = credential.last_message.map_or(0, |before| before.count);
            credential.last_message = Some(LastMessage {
                at: newer.at.min(now),
                count: before + newer.count,
            });
        }
        let Some(newer) = self.uses.get(&credential.key) else {
            return;
        };
        let before = credential.last_used.take();
        let count = newer.count + before.as_ref().map_or(0, |used| used.count);
        credential.last_used = Some(LastUsed {
            at: newer.at.min(now),
            count,
            ..newer.clone()
        });
    }
}

/// The entry for `key`, made if the map is not full.
fn place<K: Eq + Hash, V>(
    map: &mut HashMap<K, V>,
    key: K,
    limit: usize,
    make: impl FnOnce() -> V,
) -> Option<&mut V> {
    let full = map.len() >= limit;
    match map.entry(key) {
        Entry::Occupied(entry) => Some(entry.into_mut()),
        Entry::Vacant(_) if full => None,
        Entry::Vacant(entry) => Some(entry.insert(make())),
    }
}

/// Flushes the batch and writes the guard every `interval`, until all other tasks have ended.
pub(crate) async fn flush_regularly(
    batch: Arc<ActivityBatch>,
    guard: Arc<Guard>,
    store: Arc<Store>,
    interval: Duration,
    lifecycle: Lifecycle,
) {
    let mut heartbeat = lifecycle.heartbeat("writing what logins noted");
    loop {
        tokio::select! {
            () = lifecycle.ended() => return,
            () = heartbeat.while_waiting(tokio::time::sleep(interval)) => {}
        }
        let (batch, guard, store) = (batch.clone(), guard.clone(), store.clone());
        let flushed = tokio::task::spawn_blocking(move || {
            batch.flush(&store);
            guard.write(&store);
        });
        // Fails only by a panic, and the next round goes on.
        let _ = flushed.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::driven::Driven;
    use crate::policy::Rule;
    use crate::store::{Actor, NewCredential, Span, UNKNOWN_REFUSALS_FROM_ONE, UsageOf};

    fn used(at: i64) -> LastUsed {
        LastUsed {
            at,
            address: "192.0.2.1".into(),
            tls: None,
            mechanism: "PLAIN".into(),
            helo: "c".into(),
            count: 1,
        }
    }

    fn batch(limit: usize) -> ActivityBatch {
        ActivityBatch::new(limit, Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn uses_of_one_credential_become_one() {
        let batch = batch(2);
        for at in [5, 9, 7] {
            batch.accepted(1, used(at));
        }
        let pending = &batch.state.lock().pending;
        assert_eq!((pending.uses[&1].at, pending.uses[&1].count), (9, 3));
        assert_eq!(pending.usage[&(1, 0)].accepted, 3);
    }

    #[test]
    fn a_full_map_drops_and_counts() {
        let batch = batch(1);
        batch.accepted(1, used(1));
        batch.accepted(2, used(2));
        batch.accepted(1, used(3));
        batch.refused(1, HOUR);
        assert_eq!(batch.state.lock().pending.uses.len(), 1);
        assert_eq!(batch.state.lock().pending.usage.len(), 1);
        assert_eq!(batch.metrics.last_used_dropped.get(), 3);
        assert_eq!(batch.metrics.last_used_pending.get(), 1);
    }

    #[test]
    fn what_waits_is_shown_and_then_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        let actor = Actor::system("tests");
        let new = NewCredential {
            username: "smtp_a",
            password_hash: "$hash",
            tag: None,
            organization: "default",
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let key = store.by(&actor).create_credential(new).unwrap().key;
        let batch = batch(10);
        let shown = || {
            let mut credential = store.credential("smtp_a").unwrap();
            batch.update(&mut credential);
            credential.last_used.map(|used| (used.at, used.count))
        };
        assert_eq!(shown(), None);
        let now = clock::now_ms() - 10;
        batch.accepted(key, used(now));
        assert_eq!(shown(), Some((now, 1)));
        let sent = Usage {
            messages: 1,
            recipients: 2,
            bytes: 3,
            ..Usage::default()
        };
        batch.sent(key, now, &sent);
        batch.refused(key, now);
        let message = || {
            let mut credential = store.credential("smtp_a").unwrap();
            batch.update(&mut credential);
            let message = credential.last_message;
            message.map(|message| (message.at, message.count))
        };
        assert_eq!(message(), Some((now, 1)));
        batch.flush(&store);
        batch.flush(&store);
        assert_eq!(shown(), Some((now, 1)));
        assert_eq!(message(), Some((now, 1)));
        batch.accepted(key, used(now + 1));
        assert_eq!(shown(), Some((now + 1, 2)));
        let usage = store
            .usage(UsageOf::Credential(key), Span::Hour, 0, i64::MAX)
            .unwrap();
        let expected = Usage {
            accepted: 1,
            refused: 1,
            ..sent
        };
        assert_eq!(usage, [(now / HOUR * HOUR, expected)]);
    }

    #[test]
    fn what_limits_and_rules_did_is_counted_at_once_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        let actor = Actor::system("tests");
        let new = NewCredential {
            username: "smtp_a",
            password_hash: "$hash",
            tag: None,
            organization: "default",
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let key = store.by(&actor).create_credential(new).unwrap().key;
        let breach = |refused| Breach::Rule {
            rule: Rule::Senders,
            refused,
        };
        let batch = batch(2);
        let now = clock::now_ms() - 10;
        batch.breached(key, breach(true), now);
        batch.flush(&store);
        batch.breached(key, breach(true), now + 5);
        batch.breached(key, breach(false), now + 7);
        let told = |key| batch.breaches(&store, key).unwrap();
        let both = Tally {
            first_at: now,
            at: now + 5,
            count: 2,
        };
        let expected = [
            Breached::new(breach(false), Tally::once(now + 7)),
            Breached::new(breach(true), both),
        ];
        assert_eq!(told(key), expected);
        assert_eq!(batch.metrics.refusals_dropped.get(), 0);
        batch.breached(key + 1, breach(true), now);
        assert_eq!(told(key + 1), []);
        assert_eq!(batch.metrics.refusals_dropped.get(), 1);
        batch.flush(&store);
        assert_eq!(told(key), expected);
    }

    #[test]
    fn refused_logins_that_there_is_no_room_for_are_counted() {
        let batch = batch(10);
        let from_one = |number: usize| RefusedLogin {
            username: format!("n{number}"),
            reason: "unknown".to_owned(),
            address: "192.0.2.1".to_owned(),
            first_at: 1,
            at: 1,
            count: 1,
            retired_at: None,
        };
        for number in 0..UNKNOWN_REFUSALS_FROM_ONE + 3 {
            batch.note_rejection(from_one(number), false);
        }
        batch.note_rejection(from_one(0), false); // like one that is there
        assert_eq!(batch.metrics.refusals_dropped.get(), 3);
    }

    #[test]
    fn a_use_of_the_future_is_shown_as_now_and_gives_way_to_the_next() {
        let clocks = Driven::at(1_800_000_000_000);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        let actor = Actor::system("tests");
        let new = NewCredential {
            username: "smtp_a",
            password_hash: "$hash",
            tag: None,
            organization: "default",
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let key = store.by(&actor).create_credential(new).unwrap().key;
        let batch = batch(10);
        let shown = || {
            let mut credential = store.credential("smtp_a").unwrap();
            batch.update(&mut credential);
            let used = credential.last_used.unwrap();
            (used.at, used.address, used.count)
        };
        let log_in = |address: &str| {
            let used = LastUsed {
                address: address.to_owned(),
                ..used(clocks.wall())
            };
            batch.accepted(key, used);
        };
        for is_flushed_while_ahead in [true, false] {
            clocks.step(2 * 24 * HOUR);
            log_in("192.0.2.1");
            if is_flushed_while_ahead {
                batch.flush(&store);
            }
            clocks.step(-2 * 24 * HOUR);
            clocks.pass(1_000);
            assert_eq!(shown().0, clocks.wall());
            log_in("192.0.2.2");
            clocks.pass(1_000);
            let (at, address, count) = shown();
            assert_eq!((at, &*address), (clocks.wall() - 1_000, "192.0.2.2"));
            batch.flush(&store);
            assert_eq!(shown(), (at, address, count));
        }
    }

    #[test]
    fn what_cannot_be_written_waits_on() {
        let batch = batch(10);
        batch.accepted(1, used(1));
        batch.token_used(
            1,
            TokenUse {
                at: 5,
                address: None,
            },
        );
        let noted = Noted {
            uses: vec![(1, used(9))],
            usage: vec![(
                (1, 0),
                Usage {
                    accepted: 4,
                    ..Usage::default()
                },
            )],
            tokens: vec![(
                1,
                TokenUse {
                    at: 3,
                    address: None,
                },
            )],
            ..Noted::default()
        };
        batch.end_flush(noted, false);
        let pending = &batch.state.lock().pending;
        assert_eq!((pending.uses[&1].at, pending.uses[&1].count), (9, 2));
        assert_eq!(pending.usage[&(1, 0)].accepted, 5);
        assert_eq!(pending.tokens[&1].at, 5);
    }
}
