//! `gatepost refusals`: why logins and mail were refused.

use axum::http::Method;
use clap::Subcommand;

use super::CliError;
use super::output::{ago, document, minute, path_part, plain, print, shown, table};
use super::running::Running;
use crate::admin::api::{List, Refusal};
use crate::admin::client::{Client, ClientError};
use crate::policy::{NORMALIZED, action};
use crate::store::{Fault, Store, StoreError};

/// What to do with refusals.
#[derive(Debug, Subcommand)]
pub enum RefusalsCommand {
    /// List why logins and mail were refused in the last 30 days, the latest first
    List {
        /// Those with this username; without it, those with usernames that nobody has
        #[arg(long, value_name = "USERNAME")]
        username: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Carries out `command` and prints the answer.
///
/// # Errors
/// Failures of the store or of the running Gatepost, and standard output being closed.
pub fn run(command: RefusalsCommand, store: &Store, running: &Running) -> Result<(), CliError> {
    let RefusalsCommand::List { username, json } = command;
    let username = username.map(|typed| running.username(typed));
    let refusals = find(store, running, username.as_deref())?;
    if json {
        return print(&document(&refusals)?);
    }
    print(&list(&refusals, username.as_deref()))
}

/// As the running Gatepost knows them; where none runs, as they are stored.
fn find(
    store: &Store,
    running: &Running,
    username: Option<&str>,
) -> Result<Vec<Refusal>, CliError> {
    if let Some(client) = running.configured() {
        match ask(store, client, username) {
            Err(Failure::Client(ClientError::Unreachable { .. })) => {}
            Err(Failure::Client(error)) => return Err(error.into()),
            Err(Failure::Store(error)) => return Err(error.into()),
            Ok(found) => return Ok(found),
        }
    }
    let Some(username) = username else {
        let stored = store.unknown_refusals()?;
        return Ok(Refusal::of_unknown(store, &stored)?);
    };
    let mail = match store.credential(username) {
        Ok(credential) => store.breaches(credential.key)?,
        Err(error) if error.fault() == Fault::Request => Vec::new(), // nobody has it
        Err(error) => return Err(error.into()),
    };
    let logins = store.refusals(username)?;
    if store.unknown_among(vec![username.to_owned()])?.is_empty() {
        return Ok(Refusal::of_credential(username, &logins, &mail));
    }
    Ok(Refusal::of_unknown(store, &logins)?)
}

enum Failure {
    Client(ClientError),
    Store(StoreError),
}

fn ask(store: &Store, client: &Client, username: Option<&str>) -> Result<Vec<Refusal>, Failure> {
    let get = |path: &str| -> Result<List<Refusal>, Failure> {
        client.ask(Method::GET, path, None).map_err(Failure::Client)
    };
    let credential = username.map(|username| store.credential(username));
    match credential {
        Some(Ok(credential)) => {
            let username = path_part(&credential.username);
            let organization = &credential.organization;
            let path =
                format!("/api/v1/organizations/{organization}/credentials/{username}/refusals");
            return Ok(get(&path)?.items);
        }
        Some(Err(error)) if error.fault() != Fault::Request => return Err(Failure::Store(error)),
        _ => {}
    }
    let mut refusals = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(&format!("/api/v1/refusals?limit=200{after}"))?;
        refusals.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    if let Some(username) = username {
        refusals.retain(|refusal| refusal.username == plain(username));
    }
    Ok(refusals)
}

fn list(refusals: &[Refusal], username: Option<&str>) -> String {
    if refusals.is_empty() {
        return match username {
            Some(username) => format!(
                "No login and no mail with {} was refused in the last 30 days.",
                shown(username)
            ),
            None => "No login with an unknown username was refused in the last 30 days.".to_owned(),
        };
    }
    let now = crate::clock::now();
    let rows = refusals.iter().map(|refusal| {
        let rotated = refusal.rotated_at.map(|at| ago(at.0, now));
        let words = match &refusal.hint {
            Some(hint) => plain(&format!("{}; {hint}", refusal.words)),
            None => plain(&refusal.words),
        };
        vec![
            ago(refusal.at.0, now),
            shown(&refusal.username),
            match rotated {
                Some(rotated) => format!("{words}, rotated {rotated}"),
                None => match refusal.action.as_str() {
                    NORMALIZED => format!("{words}, made clean"),
                    other if other == action(false) => format!("{words}, only reported"),
                    _ => words,
                },
            },
            refusal.address.as_deref().map_or("-".to_owned(), plain),
            refusal.count.to_string(),
            minute(refusal.first_at.0),
        ]
    });
    table(&["Last", "Username", "Why", "From", "Times", "First"], rows)
}
