//! One change of many credentials of an organization. What it takes away counts in memory for all
//! of them before any is written; the writes follow in transactions of bounded size, each credential
//! with an audit record of its own.

use std::collections::HashSet;
use std::sync::Arc;

use crate::store::{
    Actor, Aspect, Batch, Credential, CredentialFilter, CredentialState, CredentialStatus, Effect,
    Fault, Kind, Login, Narrowing, NarrowingKey, Object, Page, StoreError, Wanted,
};

use super::changes::Edit;
use super::desk::Desk;
use super::problem::Problem;
use super::revocations::{Ticket, Unwritten};

/// The most credentials of one change.
pub(super) const MOST: usize = 20_000;

/// Credentials in one transaction. It keeps other changes and flushes from the store, and must be
/// written within the time of an answer on a busy machine, too.
const CHUNK: usize = 100;

/// How many credentials and failures a report names.
const NAMED: usize = 100;

/// Rows that are read at a time.
const ROWS: u32 = 2_000;

/// What to do with each credential.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    Delete,
    Enable,
    /// The time in Unix milliseconds; never if there is none.
    Expire(Option<i64>),
    Revoke,
}

/// Which credentials are meant: those with these usernames, those that pass the filter, or those
/// of the usernames that pass the filter.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) usernames: Option<Vec<String>>,
    pub(super) filter: Option<Filter>,
}

/// A [`CredentialFilter`] that outlives its request.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) state: Option<CredentialState>,
    pub(super) expires_until: Option<i64>,
    pub(super) unused_since: Option<i64>,
    pub(super) text: Option<String>,
}

impl Filter {
    /// The same for the credentials of the organization with this slug.
    pub(super) fn within<'a>(&'a self, slug: &'a str) -> CredentialFilter<'a> {
        CredentialFilter {
            organization: Some(slug),
            status: None,
            state: self.state,
            expires_until: self.expires_until,
            unused_since: self.unused_since,
            text: self.text.as_deref(),
        }
    }
}

/// The credentials of a [`Selection`].
#[derive(Debug, Default)]
pub(super) struct Selected {
    pub(super) usernames: Vec<String>,
    /// Whether more than [`MOST`] are meant.
    pub(super) more: bool,
}

/// What became of the credentials.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// How many were meant.
    pub(super) selected: usize,
    /// Whether more are meant than one change takes.
    pub(super) more: bool,
    /// How many were changed.
    pub(super) done: usize,
    /// How many needed no change.
    pub(super) unchanged: usize,
    /// How many could not be changed.
    pub(super) failed: usize,
    /// The first of those with the reason.
    pub(super) failures: Vec<(String, String)>,
    /// The first of those that were meant.
    pub(super) usernames: Vec<String>,
}

/// A credential of a change, and its row.
#[derive(Clone)]
struct Item {
    username: String,
    key: i64,
}

/// Credentials by the way of their change.
#[derive(Default)]
struct Plan {
    /// They lose access, which counts already. Each ticket is for one transaction.
    narrowed: Vec<(Ticket, Vec<Item>)>,
    /// Their change counts with its commit.
    waiting: Vec<Item>,
}

/// What one transaction did.
struct Written {
    done: usize,
    failures: Vec<(String, String)>,
}

impl Action {
    fn edit(self) -> Edit {
        match self {
            Action::Delete => Edit::default(),
            Action::Enable => Edit {
                status: Some(CredentialStatus::Active),
                ..Edit::default()
            },
            Action::Expire(end) => Edit {
                expires_at: Some(end),
                ..Edit::default()
            },
            Action::Revoke => Edit {
                status: Some(CredentialStatus::Revoked),
                ..Edit::default()
            },
        }
    }

    /// Whether a credential is not so already, as it is stored.
    fn changes(self, credential: &Credential) -> bool {
        self == Action::Delete || self.edit().changes(credential)
    }

    /// The status of the credentials that the action changes, if only one is.
    fn changes_only(self) -> Option<CredentialStatus> {
        match self {
            Action::Enable => Some(CredentialStatus::Revoked),
            Action::Revoke => Some(CredentialStatus::Active),
            Action::Delete | Action::Expire(_) => None,
        }
    }

    /// Unwritten changes that this one replaces.
    fn undone(self, username: &str) -> Vec<NarrowingKey> {
        let object = Object::Credential(username.to_owned());
        match self {
            Action::Delete => {
                let aspects = [
                    Aspect::Expiry,
                    Aspect::Limits,
                    Aspect::Overlap,
                    Aspect::Password,
                    Aspect::Rules,
                    Aspect::Status,
                ];
                aspects.map(|aspect| (object.clone(), aspect)).to_vec()
            }
            _ => self.edit().undone(&object),
        }
    }

    /// What counts for all of them although it is not written.
    fn effective(self, written: usize, all: usize) -> String {
        let effect = match self {
            Action::Delete => "are as good as deleted and refused from now on",
            Action::Enable | Action::Expire(_) => "expire then",
            Action::Revoke => "are refused from now on",
        };
        format!("{all} credentials {effect}, of which {written} are written; the others count")
    }
}

impl Report {
    fn of(selected: &Selected) -> Report {
        Report {
            selected: selected.usernames.len(),
            more: selected.more,
            usernames: selected.usernames.iter().take(NAMED).cloned().collect(),
            ..Report::default()
        }
    }

    fn fail_unknown(&mut self, username: String) {
        let error = StoreError::not_found(Kind::Credential, &username);
        self.fail(username, error.to_string());
    }

    fn fail(&mut self, username: String, reason: String) {
        self.failed += 1;
        if self.failures.len() < NAMED {
            self.failures.push((username, reason));
        }
    }

    fn add(&mut self, written: Written) {
        self.done += written.done;
        for (username, reason) in written.failures {
            self.fail(username, reason);
        }
    }
}

impl Desk {
    /// Finds the credentials of a selection in the organization with this slug. The filter is
    /// evaluated once, in the order in which the credentials were made.
    pub(super) async fn select(
        self: &Arc<Self>,
        slug: &str,
        action: Action,
        selection: Selection,
    ) -> Result<Selected, Problem> {
        let slug = slug.to_owned();
        match selection.filter.is_some() {
            true => {
                self.run(move |desk| desk.selected(&slug, action, selection))
                    .await
            }
            false => Ok(chosen(selection.usernames.unwrap_or_default())),
        }
    }

    fn selected(
        &self,
        slug: &str,
        action: Action,
        selection: Selection,
    ) -> Result<Selected, Problem> {
        let Selection { usernames, filter } = selection;
        let among: Option<HashSet<String>> = usernames.map(|all| all.into_iter().collect());
        let filter = filter.unwrap_or_default();
        let wanted = CredentialFilter {
            status: match filter.state {
                Some(_) => None,
                None => action.changes_only(),
            },
            ..filter.within(slug)
        };
        let mut selected = Selected::default();
        let mut after = None;
        loop {
            let page = Page { after, limit: ROWS };
            let found = self.system.store.credentials(wanted, page)?;
            for credential in found.rows {
                let credential = self.up_to_date(credential);
                if !wanted.still_passes(&credential) {
                    continue;
                }
                if among
                    .as_ref()
                    .is_some_and(|among| !among.contains(&credential.username))
                {
                    continue;
                }
                if selected.usernames.len() == MOST {
                    selected.more = true;
                    return Ok(selected);
                }
                selected.usernames.push(credential.username);
            }
            match found.next {
                Some(next) => after = Some(next),
                None => return Ok(selected),
            }
        }
    }

    /// Reports what [`Desk::change_all`] would change.
    pub(super) async fn preview(
        self: &Arc<Self>,
        slug: &str,
        action: Action,
        selected: Selected,
    ) -> Result<Report, Problem> {
        let slug = slug.to_owned();
        self.run(move |desk| {
            let mut report = Report::of(&selected);
            let store = &desk.system.store;
            store.organization(&slug)?;
            let found = store.credentials_with_logins(&slug, &selected.usernames)?;
            for (username, found) in selected.usernames.into_iter().zip(found) {
                match found {
                    None => report.fail_unknown(username),
                    Some((credential, _)) if !action.changes(&credential) => report.unchanged += 1,
                    Some(_) => {}
                }
            }
            Ok(report)
        })
        .await
    }

    /// Changes the credentials with these usernames.
    pub(super) async fn change_all(
        self: &Arc<Self>,
        actor: &Actor,
        slug: &str,
        action: Action,
        selected: Selected,
        disconnect: bool,
    ) -> Result<Report, Problem> {
        let mut report = Report::of(&selected);
        let (by, of) = (actor.clone(), slug.to_owned());
        let planned = self.look_up(move |desk| {
            let plan = desk.plan(&by, &of, action, selected.usernames, &mut report)?;
            if disconnect {
                let narrowed = plan.narrowed.iter().flat_map(|(_, items)| items);
                desk.disconnect_all(&by, &of, narrowed.map(|item| item.username.as_str()));
            }
            Ok((plan, report))
        });
        let (plan, mut report) = planned.await?;
        let narrowed: usize = plan.narrowed.iter().map(|(_, items)| items.len()).sum();
        for (number, (ticket, items)) in plan.narrowed.into_iter().enumerate() {
            let undone = items.iter().flat_map(|item| action.undone(&item.username));
            let undone = undone.collect();
            let (by, of, own) = (actor.clone(), slug.to_owned(), items.clone());
            let made = ticket
                .for_each(number == 0)
                .made(undone, move |batch| write(batch, &by, &of, action, &own));
            match made.await {
                Ok(written) => report.add(written),
                Err(Unwritten::Refused(error)) => {
                    for item in items {
                        report.fail(item.username, error.to_string());
                    }
                }
                // The other tickets are dropped: what they hold counts, and is written without
                // the request.
                Err(unwritten @ Unwritten::Effective) => {
                    return Err(unwritten.problem(&action.effective(report.done, narrowed)));
                }
            }
        }
        let mut waiting = plan.waiting.chunks(CHUNK);
        while let Some(items) = waiting.next() {
            let (by, of, own) = (actor.clone(), slug.to_owned(), items.to_vec());
            let made = self.change(move |desk| {
                let undone = own.iter().flat_map(|item| action.undone(&item.username));
                let undone: Vec<_> = undone.collect();
                let store = &desk.system.store;
                Ok(desk.revocations.undo(&undone, || {
                    store.batch(|batch| write(batch, &by, &of, action, &own))
                })?)
            });
            match made.await {
                Ok(written) => report.add(written),
                Err(problem) if report.done == 0 => return Err(problem),
                // What cannot be written now would keep the request waiting for each chunk.
                Err(problem) => {
                    for item in items.iter().chain(waiting.by_ref().flatten()) {
                        report.fail(item.username.clone(), problem.detail().to_owned());
                    }
                }
            }
        }
        if disconnect {
            self.revocations.recorded().await;
        }
        Ok(report)
    }

    /// Sorts the credentials by the way of their change. From here on all that is taken away counts.
    fn plan(
        &self,
        actor: &Actor,
        slug: &str,
        action: Action,
        usernames: Vec<String>,
        report: &mut Report,
    ) -> Result<Plan, Problem> {
        let store = &self.system.store;
        store.by(actor).may_change()?;
        store.organization(slug)?;
        let mut plan = Plan::default();
        let mut narrowed = Vec::new();
        let found = store.credentials_with_logins(slug, &usernames)?;
        for (username, found) in usernames.into_iter().zip(found) {
            let Some((credential, login)) = found else {
                report.fail_unknown(username);
                continue;
            };
            let item = Item {
                username,
                key: login.key,
            };
            let changes = self.narrowings_of(action, &credential, login)?;
            if !changes.is_empty() {
                narrowed.push((item, changes));
            } else if action.edit().changes(&credential)
                || self.obeys_any(&action.undone(&item.username))
            {
                plan.waiting.push(item);
            } else {
                report.unchanged += 1;
            }
        }
        while !narrowed.is_empty() {
            let rest = narrowed.split_off(narrowed.len().min(CHUNK));
            let (items, changes): (Vec<_>, Vec<_>) = narrowed.into_iter().unzip();
            let changes = changes.into_iter().flatten().collect();
            plan.narrowed
                .push((self.revocations.enter(actor, changes), items));
            narrowed = rest;
        }
        Ok(plan)
    }

    fn narrowings_of(
        &self,
        action: Action,
        credential: &Credential,
        login: Login,
    ) -> Result<Vec<Narrowing>, StoreError> {
        if action != Action::Delete {
            return self.narrowings(credential, login, &action.edit());
        }
        Ok(vec![Narrowing {
            object: Object::Credential(login.username.clone()),
            effect: Effect::Delete { force: false },
            base: Some(Arc::new(login)),
        }])
    }
}

fn chosen(usernames: Vec<String>) -> Selected {
    let mut seen = HashSet::new();
    let mut usernames: Vec<_> = usernames
        .into_iter()
        .filter(|username| seen.insert(username.clone()))
        .collect();
    let more = usernames.len() > MOST;
    usernames.truncate(MOST);
    Selected { usernames, more }
}

/// Writes the change of these credentials. One that another process has changed or deleted in the
/// meantime fails alone.
fn write(
    batch: &Batch,
    actor: &Actor,
    slug: &str,
    action: Action,
    items: &[Item],
) -> Result<Written, StoreError> {
    let editor = batch.by(actor);
    let edit = action.edit();
    let mut written = Written {
        done: 0,
        failures: Vec::new(),
    };
    for item in items {
        let wanted = Wanted {
            organization: Some(slug),
            ..Wanted::from(item.username.as_str())
        };
        let stored = batch.login(&item.username)?;
        let made = match stored.is_some_and(|login| login.key == item.key) {
            false => Err(StoreError::not_found(Kind::Credential, &item.username)),
            true if action == Action::Delete => editor.delete_credential(wanted),
            true => editor.edit_credential(wanted, edit.borrowed()).map(drop),
        };
        match made {
            Ok(()) => written.done += 1,
            Err(error) if error.fault() == Fault::Request => {
                let failure = (item.username.clone(), error.to_string());
                written.failures.push(failure);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use crate::store::{DEFAULT_ORGANIZATION, NewCredential, Store};

    use super::*;

    #[test]
    fn what_another_process_has_replaced_or_deleted_fails_alone() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        let actor = Actor::system("tests");
        let item = |username: &str| {
            let new = NewCredential {
                username,
                password_hash: "$hash",
                tag: None,
                organization: DEFAULT_ORGANIZATION,
                name: None,
                expires_at: None,
                limits: None,
                rules: None,
            };
            let made = store.by(&actor).create_credential(new).unwrap();
            Item {
                username: username.to_owned(),
                key: made.key,
            }
        };
        let [first, replaced, deleted, last] = ["first", "replaced", "deleted", "last"].map(item);
        for username in ["replaced", "deleted"] {
            store.by(&actor).delete_credential(username.into()).unwrap();
        }
        item("replaced");
        let items = [first, replaced, deleted, last];
        let written =
            store.batch(|batch| write(batch, &actor, DEFAULT_ORGANIZATION, Action::Revoke, &items));
        let written = written.unwrap();
        let failed: Vec<_> = written
            .failures
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!((written.done, failed), (2, vec!["replaced", "deleted"]));
        for (username, status) in [
            ("first", CredentialStatus::Revoked),
            ("replaced", CredentialStatus::Active),
            ("last", CredentialStatus::Revoked),
        ] {
            let stored = store.credential(username).unwrap();
            assert_eq!(stored.status, status, "{username}");
        }
    }
}
