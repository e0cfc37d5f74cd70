//! Changes that take access away: memory first, then the commit, and where that fails or takes
//! long, again and again.
//!
//! No lock in here is held during a write. A request that asks for such a change gets its answer
//! within [`ANSWERED_WITHIN`], whatever the store does.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::auth::issue::Password;
use crate::auth::password::Cost;
use crate::store::{
    Actor, Aspect, Batch, CredentialEdit, CredentialStatus, Effect, Fault, Kind, Narrowing,
    NarrowingKey, Object, OrganizationEdit, OrganizationStatus, Overlap, Store, StoreError, Wanted,
};

use super::problem::Problem;

/// How long a request waits for its commit; it has to be answered within a second.
const ANSWERED_WITHIN: Duration = Duration::from_millis(800);

/// The same for the next of many, once the store has written the one before: a disk that is busy
/// takes longer now and then.
const NEXT_ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// The pause before a change is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Changes that one commit writes without their requests: it keeps others from the store.
const ENTRIES: usize = 1_000;

/// More changes than these are logged by their number.
const LOGGED: usize = 10;

/// How many records of ended sessions wait to be written.
const NOTES: usize = 10_000;

/// Why a change is not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// It counts all the same.
    Effective,
    /// It was refused, and nothing has changed.
    Refused(StoreError),
}

impl Unwritten {
    /// The answer to the request; `effective` says what counts already.
    pub(super) fn problem(self, effective: &str) -> Problem {
        match self {
            Unwritten::Effective => Problem::not_durable(effective),
            Unwritten::Refused(error) => error.into(),
        }
    }
}

/// All of a request, of which the narrowings are a part.
type Write = Box<dyn FnOnce(&Batch) -> Result<(), StoreError> + Send>;

/// A narrowing that counts and is not written.
#[derive(Clone)]
struct Entry {
    narrowing: Narrowing,
    actor: Actor,
    serial: u64,
    /// Whether a request may still write it together with the rest of what was asked for.
    has_request: bool,
    /// How many changes are under way that will undo it.
    held: usize,
}

/// A request that waits for its commit.
struct Request {
    serial: u64,
    keys: Vec<NarrowingKey>,
    /// Whether it is refused as a whole where one of the rows has changed.
    is_one: bool,
    /// Earlier narrowings that it undoes.
    undone: Vec<NarrowingKey>,
    write: Write,
    until: Instant,
    answer: oneshot::Sender<Result<(), Unwritten>>,
}

/// The record of sessions that were ended.
#[derive(Clone)]
struct Note {
    actor: Actor,
    object: String,
    organization: Option<String>,
    ended: usize,
}

#[derive(Default)]
struct State {
    serial: u64,
    entries: BTreeMap<NarrowingKey, Entry>,
    requests: Vec<Request>,
    notes: VecDeque<Note>,
    /// How many there ever were.
    noted: u64,
}

/// The narrowings that are not written yet, with the requests that wait for them.
pub(super) struct Revocations {
    store: Arc<Store>,
    cost: Cost,
    state: Mutex<State>,
    /// Held by the one who writes.
    writing: Mutex<()>,
    added: Notify,
    /// How many records of ended sessions were written.
    recorded: watch::Sender<u64>,
}

/// A request whose narrowings count. If it is dropped, they are written without the rest of it.
pub(super) struct Ticket {
    revocations: Arc<Revocations>,
    serial: u64,
    keys: Vec<NarrowingKey>,
    is_one: bool,
    until: Instant,
}

impl Revocations {
    pub(super) fn new(store: Arc<Store>, cost: Cost) -> Revocations {
        Revocations {
            store,
            cost,
            state: Mutex::default(),
            writing: Mutex::default(),
            added: Notify::new(),
            recorded: watch::Sender::new(0),
        }
    }

    /// Has these count from this call on. The caller has checked that `actor` may do that.
    pub(super) fn enter(self: &Arc<Self>, actor: &Actor, narrowings: Vec<Narrowing>) -> Ticket {
        let mut state = self.lock();
        state.serial += 1;
        let serial = state.serial;
        let keys = narrowings.iter().map(Narrowing::key).collect();
        for narrowing in narrowings {
            self.store.obey(narrowing.clone());
            let entry = Entry {
                // It was asked for by a valid token, and stays asked for when that is one no more.
                actor: Actor {
                    token: None,
                    ..actor.clone()
                },
                serial,
                has_request: true,
                held: 0,
                narrowing,
            };
            state.entries.insert(entry.narrowing.key(), entry);
        }
        Ticket {
            revocations: self.clone(),
            serial,
            keys,
            is_one: true,
            until: Instant::now() + ANSWERED_WITHIN,
        }
    }

    /// Makes a change that undoes narrowings, if they are not written: none of them is written once
    /// it is made. Blocks on the store.
    pub(super) fn undo<T, E>(
        &self,
        keys: &[NarrowingKey],
        change: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut undone = Vec::new();
        {
            let mut state = self.lock();
            for key in keys {
                if let Some(entry) = state.entries.get_mut(key) {
                    entry.held += 1;
                    undone.push((key.clone(), entry.serial));
                }
            }
        }
        let changed = change();
        let mut state = self.lock();
        for (key, serial) in &undone {
            let entry = state.entries.get_mut(key);
            if let Some(entry) = entry.filter(|entry| entry.serial == *serial) {
                entry.held -= 1;
            }
        }
        if changed.is_ok() {
            self.remove(&mut state, undone);
        }
        changed
    }

    /// Has the end of sessions put on record, as soon as the store can be written.
    pub(super) fn note_disconnect(
        &self,
        actor: &Actor,
        object: &str,
        organization: Option<&str>,
        ended: usize,
    ) {
        let note = Note {
            actor: Actor {
                token: None,
                ..actor.clone()
            },
            object: object.to_owned(),
            organization: organization.map(str::to_owned),
            ended,
        };
        let mut state = self.lock();
        if state.notes.len() >= NOTES {
            tracing::error!(%actor, object, ended, "sessions were ended, which could not be recorded");
            return;
        }
        state.notes.push_back(note);
        state.noted += 1;
        drop(state);
        self.added.notify_one();
    }

    /// Waits for the record of all sessions that were ended so far, as long as a request may wait.
    pub(super) async fn recorded(&self) {
        let noted = self.lock().noted;
        let mut recorded = self.recorded.subscribe();
        let all = recorded.wait_for(|recorded| *recorded >= noted);
        // They have ended, whether that is on record or not.
        let _ = tokio::time::timeout(ANSWERED_WITHIN, all).await;
    }

    /// Writes what is asked for and tries again what could not be written, until everything else
    /// has ended.
    pub(super) async fn keep_writing(self: Arc<Self>) {
        loop {
            if self.is_idle() {
                self.added.notified().await;
            } else {
                let _ = tokio::time::timeout(AGAIN_AFTER, self.added.notified()).await;
            }
            let revocations = self.clone();
            // A panic would be a fault of ours; the next round tries again.
            let written = tokio::task::spawn_blocking(move || revocations.write()).await;
            if written.is_ok_and(|leaves_some| leaves_some) {
                self.added.notify_one();
            }
        }
    }

    /// Tries once more to write what is not written. Blocks on the store.
    pub(super) fn write_last(&self) {
        while !self.is_idle() && self.write() {}
    }

    /// Says of each narrowing that is not written that the end of the process undoes it.
    pub(super) fn log_unwritten(&self) {
        let state = self.lock();
        for entry in state.entries.values() {
            let change = &entry.narrowing;
            tracing::error!(%change, actor = %entry.actor, "this change is not durable and ends with this process; repeat it once the store can be written");
        }
        for note in &state.notes {
            let Note {
                actor,
                object,
                ended,
                ..
            } = note;
            tracing::error!(%actor, object, ended, "sessions were ended, which could not be recorded");
        }
    }

    fn is_idle(&self) -> bool {
        let state = self.lock();
        state.entries.values().all(|entry| entry.has_request)
            && state.requests.is_empty()
            && state.notes.is_empty()
    }

    /// Writes requests, and a bounded number of other changes, in one commit. Returns whether that
    /// is done and more can be written at once.
    fn write(&self) -> bool {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut entries, leaves_some, requests, notes) = {
            let mut state = self.lock();
            // A change that gives access may hold an entry; the others behind it are not kept waiting.
            let alone = state.entries.values();
            let mut alone = alone.filter(|entry| !entry.has_request && entry.held == 0);
            let entries: Vec<_> = alone.by_ref().take(ENTRIES).cloned().collect();
            let leaves_some = alone.next().is_some();
            let requests = std::mem::take(&mut state.requests);
            (entries, leaves_some, requests, state.notes.clone())
        };
        if entries.is_empty() && requests.is_empty() && notes.is_empty() {
            return false;
        }
        let substitute = self.substitute(&mut entries);
        let mut requests = requests.into_iter();
        let mut done = Vec::new();
        let mut answers = Vec::new();
        let written = self.store.batch(|batch| {
            for entry in &entries {
                if self.is_wanted(entry) {
                    narrow(batch, entry, substitute.as_ref())?;
                    done.push((entry.narrowing.key(), entry.serial));
                }
            }
            for request in requests.by_ref() {
                // A request that is out of time was answered that only its narrowings count.
                if Instant::now() >= request.until || request.answer.is_closed() {
                    continue;
                }
                let Request {
                    serial,
                    keys,
                    is_one,
                    undone,
                    write,
                    answer,
                    ..
                } = request;
                let checked: &[_] = if is_one { &keys } else { &[] };
                let made = match self.is_unchanged(batch, checked) {
                    Ok(()) => write(batch),
                    Err(error) => Err(error),
                };
                match made {
                    Err(error) if error.fault() != Fault::Request => {
                        answers.push((serial, keys, undone, answer, Err(Unwritten::Effective)));
                        return Err(error);
                    }
                    made => {
                        let made = made.map_err(Unwritten::Refused);
                        answers.push((serial, keys, undone, answer, made));
                    }
                }
            }
            for note in &notes {
                let organization = note.organization.as_deref();
                let editor = batch.by(&note.actor);
                editor.note_disconnect(&note.object, organization, note.ended)?;
            }
            Ok(())
        });
        let mut state = self.lock();
        let Err(error) = written else {
            state.notes.drain(..notes.len());
            self.recorded
                .send_modify(|recorded| *recorded += notes.len() as u64);
            if done.len() > LOGGED {
                tracing::info!(changes = done.len(), "the changes are written now");
            }
            for (key, _) in done.iter().filter(|_| done.len() <= LOGGED) {
                // A change that gives access may have overtaken it.
                if let Some(entry) = state.entries.get(key) {
                    let change = &entry.narrowing;
                    tracing::info!(%change, "the change is written now");
                }
            }
            self.remove(&mut state, done);
            for (serial, keys, undone, answer, made) in answers {
                let own = keys.into_iter().map(|key| (key, serial));
                self.remove(&mut state, own.collect());
                if made.is_ok() {
                    let undone = undone.into_iter().filter_map(|key| {
                        let earlier = state.entries.get(&key)?.serial;
                        (earlier < serial).then_some((key, earlier))
                    });
                    let undone = undone.collect();
                    self.remove(&mut state, undone);
                }
                // The client may be gone.
                let _ = answer.send(made);
            }
            return leaves_some;
        };
        let unanswered = requests.map(|request| (request.serial, request.answer));
        let answered = answers
            .into_iter()
            .map(|(serial, _, _, answer, _)| (serial, answer));
        for (serial, answer) in answered.chain(unanswered) {
            leave_alone(&mut state, serial, &error);
            let _ = answer.send(Err(Unwritten::Effective));
        }
        false
    }

    /// The password that takes the place of replaced ones. It is never shown, and is made before
    /// the store is locked.
    fn substitute(&self, entries: &mut Vec<Entry>) -> Option<Password> {
        let replaces = |entry: &Entry| entry.narrowing.effect.aspect() == Aspect::Password;
        if !entries.iter().any(replaces) {
            return None;
        }
        let made = Password::generate(self.cost, &self.store);
        if let Err(error) = &made {
            tracing::error!(%error, "no password could be made to replace one; trying again every second");
            entries.retain(|entry| !replaces(entry));
        }
        made.ok()
    }

    /// Whether it is to be written: not if a later request replaced it, or one is under way that
    /// undoes it.
    fn is_wanted(&self, entry: &Entry) -> bool {
        let state = self.lock();
        let current = state.entries.get(&entry.narrowing.key());
        current.is_some_and(|current| current.serial == entry.serial && current.held == 0)
    }

    /// Whether the rows are still those that the request was checked against.
    fn is_unchanged(&self, batch: &Batch, keys: &[NarrowingKey]) -> Result<(), StoreError> {
        let checked: Vec<_> = {
            let state = self.lock();
            let entries = keys.iter().filter_map(|key| state.entries.get(key));
            entries
                .filter_map(|entry| entry.narrowing.base.clone())
                .collect()
        };
        for base in checked {
            let login = batch.login(&base.username)?;
            if login.is_none_or(|login| login.key != base.key) {
                return Err(StoreError::not_found(Kind::Credential, &base.username));
            }
        }
        Ok(())
    }

    fn remove(&self, state: &mut State, unwanted: Vec<(NarrowingKey, u64)>) {
        let mut keys = Vec::new();
        for (key, serial) in unwanted {
            let is_same = |entry: &Entry| entry.serial == serial;
            if state.entries.get(&key).is_some_and(is_same) {
                state.entries.remove(&key);
                keys.push(key);
            }
        }
        if !keys.is_empty() {
            self.store.disobey(&keys);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// When the request has to be answered.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// For a change of many credentials, each of which may fail alone. Its time to be answered
    /// begins anew, as the ticket before it was written.
    pub(super) fn for_each(mut self, is_first: bool) -> Ticket {
        self.is_one = false;
        let within = match is_first {
            true => ANSWERED_WITHIN,
            false => NEXT_ANSWERED_WITHIN,
        };
        self.until = Instant::now() + within;
        self
    }

    /// Has `write` make the whole change, of which the narrowings are a part, and waits for its
    /// commit. If that takes too long the narrowings alone are written. A success undoes the
    /// narrowings in `undone`, if they are not written.
    pub(super) async fn made<T: Send + 'static>(
        self,
        undone: Vec<NarrowingKey>,
        write: impl FnOnce(&Batch) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Unwritten> {
        let (answer, answered) = oneshot::channel();
        let value = Arc::new(Mutex::new(None));
        let place = value.clone();
        let request = Request {
            serial: self.serial,
            keys: self.keys.clone(),
            is_one: self.is_one,
            undone,
            write: Box::new(move |batch| {
                let made = write(batch)?;
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
                Ok(())
            }),
            until: self.until,
            answer,
        };
        self.revocations.lock().requests.push(request);
        self.revocations.added.notify_one();
        match timeout_at(self.until, answered).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(unwritten))) => return Err(unwritten),
            Ok(Err(_)) | Err(_) => return Err(Unwritten::Effective),
        }
        let made = value.lock().unwrap_or_else(PoisonError::into_inner).take();
        made.ok_or(Unwritten::Effective)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.revocations.lock();
        state
            .requests
            .retain(|request| request.serial != self.serial);
        leave_alone(&mut state, self.serial, &"the store takes its time");
        drop(state);
        self.revocations.added.notify_one();
    }
}

/// From now on the narrowings of a request are written without it.
fn leave_alone(state: &mut State, serial: u64, error: &dyn std::fmt::Display) {
    let entries = state.entries.values_mut();
    let own = entries.filter(|entry| entry.serial == serial && entry.has_request);
    let own: Vec<_> = own.collect();
    let count = own.len();
    if count > LOGGED {
        tracing::error!(changes = count, %error, "the changes count, but they cannot be written yet; trying again every second");
    }
    for entry in own {
        entry.has_request = false;
        if count > LOGGED {
            continue;
        }
        let change = &entry.narrowing;
        match (&change.effect, &change.object) {
            (Effect::Revoke, Object::Credential(username)) => {
                tracing::error!(username, %error, "revoked, but that cannot be written yet; trying again every second");
            }
            _ => {
                tracing::error!(%change, %error, "the change counts, but it cannot be written yet; trying again every second");
            }
        }
    }
}

/// Writes a narrowing and nothing else, if it is still about what is stored.
fn narrow(batch: &Batch, entry: &Entry, substitute: Option<&Password>) -> Result<(), StoreError> {
    let Entry {
        narrowing, actor, ..
    } = entry;
    let editor = batch.by(actor);
    let written = match &narrowing.object {
        Object::Token { id, .. } => editor.revoke_token(&id.to_string(), None).map(drop),
        Object::Organization(slug) if narrowing.effect.aspect() == Aspect::Existence => {
            let force = narrowing.effect == Effect::Delete { force: true };
            editor.delete_organization(slug, None, force)
        }
        Object::Organization(slug) => {
            let suspension = OrganizationEdit {
                status: Some(OrganizationStatus::Suspended),
                ..OrganizationEdit::default()
            };
            editor.edit_organization(slug, None, suspension).map(drop)
        }
        Object::Credential(username) => {
            let login = batch.login(username)?;
            if !login.is_some_and(|login| narrowing.applies_to(&login)) {
                return Ok(());
            }
            narrow_credential(batch, entry, username, substitute)
        }
    };
    match written {
        Err(error) if error.fault() == Fault::Request => {
            tracing::info!(change = %narrowing, %error, "there is nothing left to change");
            Ok(())
        }
        written => written,
    }
}

fn narrow_credential(
    batch: &Batch,
    entry: &Entry,
    username: &str,
    substitute: Option<&Password>,
) -> Result<(), StoreError> {
    let editor = batch.by(&entry.actor);
    let wanted = Wanted::from(username);
    let mut edit = CredentialEdit::default();
    match &entry.narrowing.effect {
        Effect::Delete { .. } => return editor.delete_credential(wanted),
        Effect::ReplacePassword { keeps_previous } => {
            let overlap = match keeps_previous {
                true => Overlap::Keeps,
                false => Overlap::Nothing,
            };
            let stored = substitute.map(|made| made.stored(overlap));
            let substitute = stored.map(|stored| editor.set_password(wanted, stored));
            return substitute.map_or(Ok(()), |done| done.map(drop));
        }
        Effect::EndOverlap => edit.end_overlap = true,
        Effect::Expire(end) => edit.expires_at = Some(Some(*end)),
        Effect::Revoke => edit.status = Some(CredentialStatus::Revoked),
        Effect::Limit(limits) => {
            let limits = limits.as_change();
            edit.limits = Some(&limits);
            return editor.edit_credential(wanted, edit).map(drop);
        }
        Effect::Rule(rules) => {
            let rules = rules.as_change();
            edit.rules = Some(&rules);
            return editor.edit_credential(wanted, edit).map(drop);
        }
    }
    editor.edit_credential(wanted, edit).map(drop)
}
