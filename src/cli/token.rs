//! `gatepost token`: who may use the administration over TCP.

use clap::Subcommand;

use super::CliError;
use super::output::{ago, document, minute, plain, shown, table};
use super::running::{Answer, Running};
use super::time::{Expiry, expiry};
use crate::admin::api::{IssuedToken, Token};
use crate::auth::token::issue;
use crate::store::{self, Actor, Page, Scope, Store};

/// What to do with admin tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it, for the only time
    Create {
        /// What people call it
        #[arg(long, value_name = "NAME")]
        name: String,
        /// instance:admin, instance:read, org:SLUG:admin or org:SLUG:read
        #[arg(long, value_name = "SCOPE")]
        scope: Scope,
        /// Refuse it from this day or time on
        #[arg(long, value_name = "DATE", value_parser = expiry)]
        expires: Option<Expiry>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List tokens, with when each was last used
    List {
        /// Only those of this organization
        #[arg(long, value_name = "SLUG")]
        org: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Refuse a token from now on, for good
    Revoke {
        /// Its id, or its name if no other has the same
        token: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// Carries out `command` and prints the answer.
///
/// # Errors
/// Refusals, failures of the store, and standard output being closed.
pub fn run(
    command: TokenCommand,
    store: &Store,
    actor: &Actor,
    running: &Running,
) -> Result<(), CliError> {
    let made = match &command {
        TokenCommand::Create { name, .. } => Some(plain(name)),
        TokenCommand::List { .. } | TokenCommand::Revoke { .. } => None,
    };
    let changes = !matches!(command, TokenCommand::List { .. });
    let mut answer = Answer::from(answer(command, store, actor)?);
    if let Some(name) = made {
        answer = answer.shows_a_secret(format!(
            "the token {name} was made, but it could not be shown; revoke it and make another: gatepost token revoke {name}"
        ));
    }
    match changes {
        true => answer.print_and_tell(running),
        false => answer.print(),
    }
}

fn answer(command: TokenCommand, store: &Store, actor: &Actor) -> Result<String, CliError> {
    match command {
        TokenCommand::Create {
            name,
            scope,
            expires,
            json,
        } => {
            let expires_at = expires.and_then(|expires| expires.0);
            let issued = issue(store.by(actor), &name, &scope, expires_at)?;
            if json {
                return document(&IssuedToken::from(issued));
            }
            // Generated from ASCII in `auth::token`.
            let secret = str::from_utf8(issued.secret.expose()).unwrap_or_default();
            Ok(format!(
                "Created a token for {scope}.\n\n{secret}\n\n\
                 It is shown only now: it is stored as a hash and cannot be shown again.\n\
                 Send it with every request: Authorization: Bearer gp_..."
            ))
        }
        TokenCommand::List { org, json } => {
            let slugs: Option<Vec<_>> = org.map(|slug| vec![slug]);
            list(store.tokens(slugs.as_deref(), Page::ALL)?.rows, json)
        }
        TokenCommand::Revoke { token, json } => {
            let revoked = store.by(actor).revoke_token(&token, None)?;
            if json {
                return document(&Token::from(revoked));
            }
            Ok(format!(
                "Revoked {}. It is refused from now on.",
                shown(&revoked.name)
            ))
        }
    }
}

fn list(tokens: Vec<store::Token>, json: bool) -> Result<String, CliError> {
    if json {
        return document(&tokens.into_iter().map(Token::from).collect::<Vec<_>>());
    }
    let now = crate::clock::now();
    let rows = tokens.iter().map(|token| {
        let status = match (token.revoked_at, token.is_valid(now.as_millisecond())) {
            (Some(_), _) => "revoked",
            (None, true) => "active",
            (None, false) => "expired",
        };
        vec![
            shown(&token.name),
            token.scope.to_string(),
            status.to_owned(),
            token
                .last_used_at
                .map_or_else(|| "never".to_owned(), |at| ago(at, now)),
            minute(token.created_at),
            token.id.to_string(),
        ]
    });
    let header = ["Name", "Scope", "Status", "Last used", "Created", "Id"];
    Ok(table(&header, rows))
}
