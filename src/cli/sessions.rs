//! `gatepost sessions`: who is logged in now, and how to end that.

use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use uuid::Uuid;

use super::CliError;
use super::output::{ago, document, plain, print, shown, table};
use super::running::{Running, Whose, ended};
use crate::admin::api::{Disconnected, Session};

/// What to do with live sessions.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List who is logged in now
    List {
        /// Only those of the credential with this username
        #[arg(long, value_name = "USERNAME")]
        credential: Option<String>,
        /// Only those of this organization
        #[arg(long, value_name = "SLUG")]
        org: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// End live sessions: with 421 between messages, and a message in flight is dropped
    Disconnect {
        #[command(flatten)]
        which: Which,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Which sessions are to end.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// The one with this id
    id: Option<Uuid>,
    /// All of the credential with this username
    #[arg(long, value_name = "USERNAME")]
    credential: Option<String>,
    /// All of this organization
    #[arg(long, value_name = "SLUG")]
    org: Option<String>,
}

/// Has the running Gatepost carry out `command`, and prints the answer.
///
/// # Errors
/// It cannot be asked, it refuses, or standard output is closed.
pub fn run(command: SessionsCommand, running: &Running) -> Result<(), CliError> {
    print(&match command {
        SessionsCommand::List {
            credential,
            org,
            json,
        } => {
            let credential = credential.map(|typed| running.username(typed));
            let credential = credential.as_deref().map(Whose::Credential);
            let organization = org.as_deref().map(Whose::Organization);
            let whose: Vec<_> = credential.into_iter().chain(organization).collect();
            list(&running.sessions(&whose)?, json)?
        }
        SessionsCommand::Disconnect { which, json } => {
            let disconnected = disconnect(&which, running)?;
            match json {
                true => document(&Disconnected { disconnected })?,
                false => ended(disconnected),
            }
        }
    })
}

fn disconnect(which: &Which, running: &Running) -> Result<usize, CliError> {
    if let Some(id) = which.id {
        let path = format!("/api/v1/sessions/{id}");
        let _: Value = running.client()?.ask(Method::DELETE, &path, None)?;
        return Ok(1);
    }
    let credential = which.credential.clone();
    let credential = credential.map(|typed| running.username(typed));
    let credential = credential.as_deref().map(Whose::Credential);
    let organization = which.org.as_deref().map(Whose::Organization);
    match credential.or(organization) {
        Some(whose) => running.disconnect(whose),
        None => Ok(0), // clap asks for one of them
    }
}

fn list(sessions: &[Session], json: bool) -> Result<String, CliError> {
    if json {
        return document(&json!(sessions));
    }
    if sessions.is_empty() {
        return Ok("Nobody is logged in.".to_owned());
    }
    let now = crate::clock::now();
    let rows = sessions.iter().map(|session| {
        vec![
            shown(&session.credential),
            plain(&session.organization),
            format!("{} ({})", session.address, plain(&session.helo)),
            session
                .tls
                .as_deref()
                .map_or_else(|| "without TLS".to_owned(), plain),
            ago(session.since.0, now),
            session.messages.to_string(),
            session.bytes.to_string(),
            session.id.to_string(),
        ]
    });
    let header = [
        "Credential",
        "Organization",
        "From",
        "TLS",
        "Since",
        "Messages",
        "Bytes",
        "Id",
    ];
    Ok(table(&header, rows))
}
