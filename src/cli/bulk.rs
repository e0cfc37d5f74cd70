//! One change of all credentials that a filter names.

use std::collections::{BTreeMap, HashSet};

use axum::http::Method;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::CliError;
use super::output::{confirm, document, shown};
use super::running::{Answer, Asked, Narrowed, Running, Whose, ended};
use super::time::{past, within};
use crate::store::{
    Actor, Credential, CredentialEdit, CredentialFilter, CredentialState, CredentialStatus, Fault,
    Kind, Page, Store, StoreError, Wanted,
};

/// Credentials in one transaction. It keeps the daemon from the store.
const CHUNK: usize = 200;

/// The most usernames of one request to the daemon.
const REQUEST: usize = 5_000;

/// Which credentials, instead of one by its username.
#[derive(Debug, Args)]
pub struct Many {
    /// Instead of USERNAME: all of this organization
    #[arg(long, value_name = "SLUG", conflicts_with = "username")]
    org: Option<String>,
    /// Instead of USERNAME: all with this status; active means neither expired nor revoked
    #[arg(long, value_name = "STATUS", value_parser = state(), conflicts_with = "username")]
    status: Option<CredentialState>,
    /// Instead of USERNAME: all active ones that expire within so long from now (30d)
    #[arg(long, value_name = "SPAN", value_parser = within, conflicts_with = "username")]
    expires_within: Option<i64>,
    /// Instead of USERNAME: all made before, and not used since, this day or time, or for so long (90d)
    #[arg(long, value_name = "DATE", value_parser = past, conflicts_with = "username")]
    unused_since: Option<i64>,
    /// Instead of USERNAME: all with this in their name or username
    #[arg(long, value_name = "TEXT", conflicts_with = "username")]
    search: Option<String>,
    /// Print which credentials are meant, and change nothing
    #[arg(long, conflicts_with = "username")]
    pub dry_run: bool,
}

/// Reads a state by its name.
pub fn state() -> impl TypedValueParser<Value = CredentialState> {
    let names = CredentialState::ALL.map(CredentialState::as_str);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<CredentialState>())
}

/// What to do with each credential.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    /// Delete it, after a confirmation unless `yes` says there is one.
    Delete {
        /// Whether the person has confirmed already.
        yes: bool,
    },
    /// Accept it again.
    Enable,
    /// Refuse it from this Unix millisecond on, or never.
    Expire(Option<i64>),
    /// Refuse it.
    Revoke,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Delete { .. } => "delete",
            Action::Enable => "enable",
            Action::Expire(_) => "expire",
            Action::Revoke => "revoke",
        }
    }

    fn edit(self) -> CredentialEdit<'static> {
        let mut edit = CredentialEdit::default();
        match self {
            Action::Delete { .. } => {}
            Action::Enable => edit.status = Some(CredentialStatus::Active),
            Action::Expire(end) => edit.expires_at = Some(end),
            Action::Revoke => edit.status = Some(CredentialStatus::Revoked),
        }
        edit
    }

    /// Whether a credential is not so already.
    fn changes(self, credential: &Credential) -> bool {
        match self {
            Action::Delete { .. } => true,
            Action::Enable => credential.status == CredentialStatus::Revoked,
            Action::Expire(end) => credential.expires_at != end,
            Action::Revoke => credential.status == CredentialStatus::Active,
        }
    }

    /// The request by which the daemon does the same.
    fn asked(self, organization: &str, credentials: &[Credential]) -> Asked {
        let credentials = credentials.iter().take(REQUEST);
        let usernames: Vec<_> = credentials.map(|one| one.username.as_str()).collect();
        let mut body = json!({ "action": self.name(), "usernames": usernames });
        if let Action::Expire(end) = self {
            let end = end.and_then(|end| Timestamp::from_millisecond(end).ok());
            body["expires_at"] = json!(end.map(|end| end.to_string()));
        }
        Asked {
            method: Method::POST,
            path: format!("/api/v1/organizations/{organization}/bulk"),
            body: Some(body),
        }
    }

    fn done(self, count: usize) -> String {
        let credentials = counted(count);
        match self {
            Action::Delete { .. } => format!("Deleted {credentials}."),
            Action::Enable => format!("Enabled {credentials}."),
            Action::Expire(_) => format!("Set the expiry of {credentials}."),
            Action::Revoke => format!("Revoked {credentials}."),
        }
    }
}

fn counted(count: usize) -> String {
    match count {
        1 => "1 credential".to_owned(),
        _ => format!("{count} credentials"),
    }
}

impl Many {
    /// The credentials that the action changes, in the order in which they were made.
    fn find(&self, store: &Store, action: Action) -> Result<Vec<Credential>, CliError> {
        let filter = CredentialFilter {
            organization: self.org.as_deref(),
            status: None,
            state: self.status,
            expires_until: self.expires_within,
            unused_since: self.unused_since,
            text: self.search.as_deref(),
        };
        let mut found = store.credentials(filter, Page::ALL)?.rows;
        found.retain(|credential| action.changes(credential));
        Ok(found)
    }
}

/// Who changes what, and where.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The store.
    pub store: &'a Store,
    /// The name in the audit log.
    pub actor: &'a Actor,
    /// The daemon.
    pub running: &'a Running,
}

/// What became of them.
#[derive(Default)]
struct Outcome {
    changed: Vec<String>,
    failures: Vec<(String, String)>,
    unwritten: Option<CliError>,
}

/// Carries the change out, or says what it would be. `list` shows credentials to people.
///
/// # Errors
/// The store cannot be read, the deletion is not confirmed, or nothing could be written.
pub fn run(
    many: &Many,
    action: Action,
    disconnect: bool,
    json: bool,
    place: Place,
    list: impl Fn(&[Credential]) -> Result<String, CliError>,
) -> Result<Answer, CliError> {
    let Place { store, running, .. } = place;
    let mut found = many.find(store, action)?;
    let count = found.len();
    let table = match json || found.is_empty() {
        true => String::new(),
        false => format!("{}\n\n", list(&found)?),
    };
    if many.dry_run {
        let text = match json {
            true => report(action, true, &found, &Outcome::default())?,
            false => format!(
                "{table}Would {} {}. Nothing is changed.",
                action.name(),
                counted(count)
            ),
        };
        return Ok(text.into());
    }
    running.needed(disconnect)?;
    if action == (Action::Delete { yes: false }) && count > 0 {
        let warning = format!("{table}This deletes {} for good.", counted(count));
        confirm(&warning, "their number", &count.to_string())?;
        // A credential that was used while the person read is no longer an unused one.
        let confirmed: HashSet<i64> = found.iter().map(|one| one.key).collect();
        found = many.find(store, action)?;
        found.retain(|one| confirmed.contains(&one.key));
    }
    let left = count - found.len();
    let mut outcome = Outcome::default();
    let mut groups: BTreeMap<&str, Vec<Credential>> = BTreeMap::new();
    for credential in &found {
        let group = groups.entry(&credential.organization).or_default();
        group.push(credential.clone());
    }
    for (organization, group) in groups {
        change(action, organization, &group, place, &mut outcome)?;
    }
    let disconnected = match disconnect {
        true => Some(end_sessions(running, &outcome)?),
        false => None,
    };
    let text = match json {
        true => report(action, false, &found, &outcome)?,
        false => {
            let mut text = format!("{table}{}", action.done(outcome.changed.len()));
            if left > 0 {
                text += &format!(" Left {}, no longer as confirmed.", counted(left));
            }
            if let Some(count) = disconnected {
                text += &format!(" {}", ended(count));
            }
            for (username, reason) in &outcome.failures {
                text += &format!("\nNot changed: {}: {reason}", shown(username));
            }
            text
        }
    };
    let failed = outcome.failures.len();
    let failure = (failed > 0).then(|| CliError::Refused(format!("{} failed", counted(failed))));
    Ok(Answer::from(text).or(outcome.unwritten).or(failure))
}

/// Changes credentials of one organization, some in each transaction.
fn change(
    action: Action,
    organization: &str,
    group: &[Credential],
    place: Place,
    outcome: &mut Outcome,
) -> Result<(), CliError> {
    let Place { store, running, .. } = place;
    let mut rest = group;
    while !rest.is_empty() {
        let (chunk, others) = rest.split_at(rest.len().min(CHUNK));
        let here = || Ok::<_, CliError>(write(place, action, chunk)?);
        let made = match action {
            // That gives access, and waits for its commit.
            Action::Enable => here().map(Narrowed::Here),
            _ => running.narrow(store, &action.asked(organization, rest), here),
        };
        match made {
            Ok(Narrowed::Here(failures)) => {
                outcome.add(chunk, failures);
                rest = others;
            }
            // The daemon has taken over all that were left.
            Ok(Narrowed::There(answer, unwritten)) => {
                let (taken, others) = rest.split_at(rest.len().min(REQUEST));
                outcome.add(taken, failures_in(&answer));
                outcome.unwritten = outcome.unwritten.take().or(unwritten);
                rest = others;
            }
            Err(error) if outcome.changed.is_empty() => return Err(error),
            // What was changed before is told all the same.
            Err(error) => {
                let reason = error.to_string();
                let failed = rest
                    .iter()
                    .map(|one| (one.username.clone(), reason.clone()));
                outcome.failures.extend(failed);
                return Ok(());
            }
        }
    }
    if action == Action::Enable {
        running.enable_all(&action.asked(organization, group))?;
    }
    Ok(())
}

impl Outcome {
    fn add(&mut self, taken: &[Credential], failures: Vec<(String, String)>) {
        let failed: HashSet<_> = failures
            .iter()
            .map(|(username, _)| username.as_str())
            .collect();
        let changed = taken
            .iter()
            .filter(|one| !failed.contains(one.username.as_str()));
        self.changed.extend(changed.map(|one| one.username.clone()));
        self.failures.extend(failures);
    }
}

fn failures_in(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let failures = answer["failures"].as_array().into_iter().flatten();
    failures
        .map(|one| (text(&one["username"]), text(&one["reason"])))
        .collect()
}

/// Writes the change in one transaction. Returns those that failed alone, with the reason.
fn write(
    place: Place,
    action: Action,
    chunk: &[Credential],
) -> Result<Vec<(String, String)>, StoreError> {
    place.store.batch(|batch| {
        let editor = batch.by(place.actor);
        let mut failures = Vec::new();
        for credential in chunk {
            let username = credential.username.as_str();
            let stored = batch.login(username)?;
            let is_same = stored.is_some_and(|login| login.key == credential.key);
            let made = match (is_same, action) {
                (false, _) => Err(StoreError::not_found(Kind::Credential, username)),
                (true, Action::Delete { .. }) => editor.delete_credential(Wanted::from(username)),
                (true, _) => {
                    let edited = editor.edit_credential(Wanted::from(username), action.edit());
                    edited.map(drop)
                }
            };
            match made {
                Ok(()) => {}
                Err(error) if error.fault() == Fault::Request => {
                    failures.push((username.to_owned(), error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(failures)
    })
}

/// Ends the live sessions of what was changed. Returns how many there were.
fn end_sessions(running: &Running, outcome: &Outcome) -> Result<usize, CliError> {
    let changed: HashSet<_> = outcome.changed.iter().map(String::as_str).collect();
    let sessions = running.sessions(&[])?;
    let live: HashSet<_> = sessions
        .iter()
        .map(|session| session.credential.as_str())
        .collect();
    let mut count = 0;
    for username in live.intersection(&changed) {
        match running.disconnect(Whose::Credential(username)) {
            Ok(ended) => count += ended,
            // Deleted, and no session is left.
            Err(CliError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn report(
    action: Action,
    dry_run: bool,
    found: &[Credential],
    outcome: &Outcome,
) -> Result<String, CliError> {
    let failures = outcome.failures.iter();
    let failures: Vec<_> = failures
        .map(|(username, reason)| json!({ "username": username, "reason": reason }))
        .collect();
    let usernames: Vec<_> = found.iter().map(|one| one.username.as_str()).collect();
    document(&json!({
        "action": action.name(),
        "dry_run": dry_run,
        "selected": found.len(),
        "done": outcome.changed.len(),
        "failed": failures.len(),
        "failures": failures,
        "usernames": usernames,
    }))
}
