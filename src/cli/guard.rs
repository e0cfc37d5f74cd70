//! `gatepost guard`: whom failed logins came from, and how to have that forgotten.

use std::fmt;
use std::io::ErrorKind;

use axum::http::Method;
use clap::Subcommand;
use form_urlencoded::Serializer;
use serde_json::json;

use super::CliError;
use super::output::{ago, document, minute, print, remark, table};
use super::running::Running;
use crate::admin::api::{Cleared, GuardEntry, List};
use crate::admin::client::{Client, ClientError};
use crate::auth::guard::{ClearTarget, stored};
use crate::store::{Actor, Store};

/// How many are asked for at a time.
const PAGE: &str = "200";

/// What to do with what the guard holds against networks.
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// List the networks that failed logins came from, the worst first
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// End bans, and forget failed logins and who logged in from there
    Clear {
        /// An address, which clears it and the network around it; or a network such as 192.0.2.0/24, for all in it
        #[arg(value_name = "NETWORK")]
        network: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Has the running Gatepost carry out `command`, or does it in the store where none runs, and prints the answer.
///
/// # Errors
/// It refuses, the store cannot be used, or standard output is closed.
pub fn run(
    command: GuardCommand,
    running: &Running,
    store: &Store,
    actor: &Actor,
) -> Result<(), CliError> {
    match command {
        GuardCommand::List { json } => {
            let (entries, without) = match ask(running, all)? {
                Ok(entries) => (entries, None),
                Err(without) => {
                    let entries = stored(store)?.into_iter().map(GuardEntry::from).collect();
                    (entries, Some(without))
                }
            };
            print(&list(&entries, json)?)?;
            if let Some(without) = without {
                remark(&format!("This is what the store has, {without}."));
            }
        }
        GuardCommand::Clear { network, json } => {
            let wanted: ClearTarget = network
                .parse()
                .map_err(|error| CliError::Refused(format!("{error}")))?;
            let (cleared, without) = match ask(running, |client| clear(client, wanted))? {
                Ok(cleared) => (cleared, None),
                Err(without) => {
                    let cleared = clear_stored(wanted, store, actor)?;
                    (Cleared { cleared }, Some(without))
                }
            };
            print(&match json {
                true => document(&cleared)?,
                false => told(&wanted, cleared.cleared),
            })?;
            if let Some(without) = without {
                remark(&format!("Only the store was changed, {without}."));
            }
        }
    }
    Ok(())
}

/// Why the running Gatepost was not asked, and what that means.
enum Without {
    /// None answers at the socket.
    Answer,
    /// The configuration has no socket.
    Socket,
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Without::Answer => "since no Gatepost answers at admin.socket; one that starts now begins with that",
            Without::Socket => {
                "since [admin] names no socket to ask at; a Gatepost that runs goes by what it remembers, which the dashboard, the API, or this command with admin.socket shows and clears"
            }
        })
    }
}

/// Asks the running Gatepost, or says why there is none to ask, as far as can be seen.
fn ask<T>(
    running: &Running,
    question: impl FnOnce(&Client) -> Result<T, ClientError>,
) -> Result<Result<T, Without>, CliError> {
    let Some(client) = running.configured() else {
        return Ok(Err(Without::Socket));
    };
    match question(client) {
        Ok(answer) => Ok(Ok(answer)),
        Err(ClientError::Unreachable { source, .. })
            if matches!(
                source.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(Err(Without::Answer))
        }
        Err(error) => Err(error.into()),
    }
}

fn all(client: &Client) -> Result<Vec<GuardEntry>, ClientError> {
    let mut entries = Vec::new();
    let mut after = None;
    loop {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", PAGE);
        query.extend_pairs(after.iter().map(|after: &String| ("after", after)));
        let path = format!("/api/v1/guard?{}", query.finish());
        let page: List<GuardEntry> = client.ask(Method::GET, &path, None)?;
        entries.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(entries),
        }
    }
}

fn clear(client: &Client, wanted: ClearTarget) -> Result<Cleared, ClientError> {
    let mut query = Serializer::new(String::new());
    query.append_pair("network", &wanted.to_string());
    let path = format!("/api/v1/guard?{}", query.finish());
    client.ask(Method::DELETE, &path, None)
}

/// Without a daemon. One that runs all the same, and cannot be asked, goes by what it remembers.
fn clear_stored(wanted: ClearTarget, store: &Store, actor: &Actor) -> Result<usize, CliError> {
    let rows = store.penalties()?.into_iter().map(|row| row.network);
    let networks: Vec<_> = rows
        .filter(|network| {
            network
                .parse()
                .is_ok_and(|network| wanted.includes(network))
        })
        .collect();
    let is_wanted = |network: &str| {
        network
            .parse()
            .is_ok_and(|network| wanted.includes(network))
    };
    store
        .by(actor)
        .clear_networks(&wanted.to_string(), &networks, is_wanted)?;
    Ok(networks.len())
}

fn told(wanted: &ClearTarget, count: usize) -> String {
    match count {
        0 => format!("Nothing is held against {wanted}."),
        1 => format!("Cleared {wanted}: 1 network."),
        _ => format!("Cleared {wanted}: {count} networks."),
    }
}

fn list(entries: &[GuardEntry], json: bool) -> Result<String, CliError> {
    if json {
        return document(&json!(entries));
    }
    if entries.is_empty() {
        return Ok("Nothing is held against anybody.".to_owned());
    }
    let now = crate::clock::now();
    let rows = entries.iter().map(|entry| {
        let until = entry.banned_until.as_ref();
        vec![
            entry.network.clone(),
            entry.state.clone(),
            format!("{:.1}", entry.score),
            ago(entry.at.0, now),
            until.map_or_else(|| "-".to_owned(), |until| minute(until.0)),
            entry.why.clone(),
        ]
    });
    let header = ["Network", "State", "Score", "Last", "Until", "Why"];
    Ok(table(&header, rows))
}
