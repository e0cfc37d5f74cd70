//! `gatepost credential`: make, list, rotate, revoke and delete credentials, whether the daemon runs or not.

use std::mem;

use axum::http::Method;
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;

use super::CliError;
use super::bulk::{self, Action, Many, Place};
use super::containment::{
    CredentialLimits, RuleOptions, limits_line, rule_lines, show_limits, show_rules,
};
use super::output::{ago, confirm, document, minute, name, plain, shown, table};
use super::running::{Aftermath, Answer, Asked, Narrowed, Running, Whose};
use super::time::{Expiry, expiry, overlap, since, within};
use crate::admin::api;
use crate::auth::issue::{Issued, New, issue, rotate};
use crate::auth::password::Cost;
use crate::policy::RulesChange;
use crate::sasl::Secret;
use crate::store::{
    Actor, Breached, Credential, CredentialEdit, CredentialFilter, CredentialState,
    CredentialStatus, DEFAULT_ORGANIZATION, LastUsed, Overlap, Page, PasswordUse, Rotation, Store,
};

/// What to do with credentials.
#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Make a credential and print its password, for the only time
    Create {
        /// The organization it belongs to
        #[arg(long, value_name = "SLUG", default_value = DEFAULT_ORGANIZATION)]
        org: String,
        /// What people call it, for example the device that uses it
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Refuse it from this day or time on
        #[arg(long, value_name = "DATE", value_parser = expiry)]
        expires: Option<Expiry>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// List credentials, with when each was last used
    List {
        /// Only those of this organization
        #[arg(long, value_name = "SLUG")]
        org: Option<String>,
        /// Only those with this status; active means neither expired nor revoked
        #[arg(long, value_name = "STATUS", value_parser = bulk::state())]
        status: Option<CredentialState>,
        /// Only active ones that expire within so long from now (30d)
        #[arg(long, value_name = "SPAN", value_parser = within)]
        expires_within: Option<i64>,
        /// Only those made before this day or time, and without a login or a message since, or for so long (90d)
        #[arg(long, value_name = "DATE", value_parser = since)]
        unused_since: Option<i64>,
        /// Only those with this in their name or username
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show one credential
    Show {
        /// Its username
        username: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Replace the password and print the new one, for the only time
    #[command(
        after_help = "While an overlap runs, a rotation with --overlap replaces the newest password, which is invalid at once, and the old one keeps the end it was promised: `gatepost credential show` says until when, and whether the newest one is in use. If it is, and shall stay valid, end the overlap first with `gatepost credential end-overlap`. Without --overlap, or with \"none\", every older password is invalid at once."
    )]
    Rotate {
        /// Its username
        username: String,
        /// Accept the old password for so long, too (30m, 12h, 7d, or none)
        #[arg(long, value_name = "SPAN", value_parser = overlap)]
        overlap: Option<i64>,
        /// End its live sessions, too, instead of letting them go on
        #[arg(long)]
        disconnect: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Refuse a credential, or all of a filter, from now on, without deleting it
    Revoke {
        /// Its username
        #[arg(required_unless_present_any = ["org", "status", "expires_within", "unused_since", "search"])]
        username: Option<String>,
        #[command(flatten)]
        many: Many,
        /// End its live sessions, too, instead of letting them go on
        #[arg(long)]
        disconnect: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Refuse a credential, or all of a filter, from some time on, or not any more
    #[command(allow_missing_positional = true)]
    Expire {
        /// Its username
        #[arg(required_unless_present_any = ["org", "status", "expires_within", "unused_since", "search"])]
        username: Option<String>,
        #[command(flatten)]
        many: Many,
        /// A day or time, or "never"
        #[arg(value_parser = expiry)]
        when: Expiry,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show or change how much may be sent with a credential
    #[command(
        after_help = "Each is a number, \"unlimited\", or \"default\" for that of [credential_limits] in the configuration. A change counts at once, in live sessions with their next message."
    )]
    Limit {
        /// Its username
        username: String,
        #[command(flatten)]
        limits: CredentialLimits,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show or change as whom and from where a credential may be used
    #[command(
        after_help = "What is not allowed is refused, unless it is only reported. A change counts at once, in live sessions with their next message."
    )]
    Rules {
        /// Its username
        username: String,
        #[command(flatten)]
        rules: RuleOptions,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// End an overlap after a rotation: only the new password is right from now on
    EndOverlap {
        /// Its username
        username: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Accept a revoked credential, or all of a filter, again, with the password it had
    Enable {
        /// Its username
        #[arg(required_unless_present_any = ["org", "status", "expires_within", "unused_since", "search"])]
        username: Option<String>,
        #[command(flatten)]
        many: Many,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Change what people call a credential
    Rename {
        /// Its username
        username: String,
        /// The new name; an empty one takes the name away
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Delete a credential, or all of a filter, for good, after asking
    Delete {
        /// Its username
        #[arg(required_unless_present_any = ["org", "status", "expires_within", "unused_since", "search"])]
        username: Option<String>,
        #[command(flatten)]
        many: Many,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// End its live sessions, too, instead of letting them go on
        #[arg(long)]
        disconnect: bool,
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
    command: CredentialCommand,
    store: &Store,
    cost: Cost,
    actor: &Actor,
    running: &Running,
) -> Result<(), CliError> {
    let changes = command.changes();
    let mut command = command;
    if let Some(username) = command.username() {
        *username = running.username(mem::take(username));
    }
    let answer = answer(command, store, cost, actor, running)?;
    match changes {
        true => answer.print_and_tell(running),
        false => answer.print(),
    }
}

impl CredentialCommand {
    /// The username of the one credential that it is about.
    fn username(&mut self) -> Option<&mut String> {
        match self {
            Self::Create { .. } | Self::List { .. } => None,
            Self::EndOverlap { username, .. }
            | Self::Limit { username, .. }
            | Self::Rename { username, .. }
            | Self::Rotate { username, .. }
            | Self::Rules { username, .. }
            | Self::Show { username, .. } => Some(username),
            Self::Delete { username, .. }
            | Self::Enable { username, .. }
            | Self::Expire { username, .. }
            | Self::Revoke { username, .. } => username.as_mut(),
        }
    }

    /// Whether it changes anything.
    fn changes(&self) -> bool {
        match self {
            Self::List { .. } | Self::Show { .. } => false,
            Self::Limit { limits, .. } => !limits.change().0.is_empty(),
            Self::Delete { many, .. }
            | Self::Enable { many, .. }
            | Self::Expire { many, .. }
            | Self::Revoke { many, .. } => !many.dry_run,
            Self::Rules { rules, .. } => rules.change() != RulesChange::default(),
            _ => true,
        }
    }
}

fn answer(
    command: CredentialCommand,
    store: &Store,
    cost: Cost,
    actor: &Actor,
    running: &Running,
) -> Result<Answer, CliError> {
    use CredentialCommand::{
        Create, Delete, Enable, EndOverlap, Expire, Limit, List, Rename, Revoke, Rotate, Rules,
        Show,
    };
    let editor = store.by(actor);
    let edit = |username: &str, edit| editor.edit_credential(username.into(), edit);
    let set_status = |username: &str, status| {
        let status = Some(status);
        edit(
            username,
            CredentialEdit {
                status,
                ..CredentialEdit::default()
            },
        )
    };
    // Takes access away: from here, or by the running Gatepost. Returns what is still wrong then,
    // too.
    let narrowed = |username: &str, change: CredentialEdit, asked| {
        let organization = store.credential(username)?.organization;
        let asked = Asked::patch(Asked::credential(&organization, username), asked);
        let here = || Ok::<_, CliError>(editor.edit_credential(username.into(), change)?);
        match running.narrow(store, &asked, here)? {
            Narrowed::Here(credential) => Ok((credential, None)),
            Narrowed::There(_, unwritten) => {
                Ok::<_, CliError>((store.credential(username)?, unwritten))
            }
        }
    };
    let in_bulk = |many: &Many, action, disconnect, json| {
        let place = Place {
            store,
            actor,
            running,
        };
        let show = |credentials: &[Credential]| list(credentials, false);
        bulk::run(many, action, disconnect, json, place, show)
    };
    let text = match command {
        Create {
            org,
            name,
            expires,
            json,
        } => {
            let new = New {
                organization: &org,
                name: name.as_deref(),
                expires_at: expires.and_then(|expires| expires.0),
                limits: None,
                rules: None,
            };
            let issued = issue(store, editor, cost, new)?;
            let username = &issued.credential.username;
            return Ok(Answer::from(created(&issued, json)?).shows_a_secret(format!(
                "{username} was created, but its password could not be shown; give it another one: gatepost credential rotate {username}"
            )));
        }
        List {
            org,
            status,
            expires_within,
            unused_since,
            search,
            json,
        } => {
            let filter = CredentialFilter {
                organization: org.as_deref(),
                status: None,
                state: status,
                expires_until: expires_within,
                unused_since,
                text: search.as_deref(),
            };
            list(&store.credentials(filter, Page::ALL)?.rows, json)
        }
        Show { username, json } => {
            let mut credential = store.credential(username.as_str())?;
            running.add_unwritten_uses(&mut credential);
            let breaches = store.breaches(credential.key)?;
            match json {
                true => document(&api::Credential::from(&credential).with_odd_line_ends(&breaches)),
                false => Ok(show(&credential, &breaches)),
            }
        }
        Rotate {
            username,
            overlap,
            disconnect,
            json,
        } => {
            running.needed(disconnect)?;
            let length = overlap.filter(|length| *length > 0);
            let overlap = length.map_or(Overlap::Nothing, |length| {
                Overlap::Until(crate::clock::now_ms() + length)
            });
            let here = || {
                let wanted = username.as_str().into();
                Ok(rotate(store, editor, cost, wanted, overlap)?)
            };
            let mut before = store.credential(username.as_str())?;
            running.add_unwritten_uses(&mut before);
            let mut issued = match length {
                // That gives access, and waits for its commit.
                Some(_) if before.previous_until.is_none() => here()?,
                length => replace_password(store, running, &before, length, here)?,
            };
            if let Some(Rotation::Kept { replaced_used }) = &mut issued.rotation {
                *replaced_used = before.current_used;
            }
            let after = Aftermath::of(disconnect, running, Whose::Credential(&username));
            let text = rotated(&issued, &after, json);
            return Ok(after.answer(text?).shows_a_secret(format!(
                "{username} has a new password, but it could not be shown; rotate it again: gatepost credential rotate {username}"
            )));
        }
        Delete {
            username: None,
            many,
            yes,
            disconnect,
            json,
        } => return in_bulk(&many, Action::Delete { yes }, disconnect, json),
        Enable {
            username: None,
            many,
            json,
        } => return in_bulk(&many, Action::Enable, false, json),
        Expire {
            username: None,
            many,
            when,
            json,
        } => return in_bulk(&many, Action::Expire(when.0), false, json),
        Revoke {
            username: None,
            many,
            disconnect,
            json,
        } => return in_bulk(&many, Action::Revoke, disconnect, json),
        Expire {
            username: Some(username),
            when: Expiry(expires_at),
            json,
            ..
        } => {
            let change = CredentialEdit {
                expires_at: Some(expires_at),
                ..CredentialEdit::default()
            };
            let end = expires_at.and_then(|end| Timestamp::from_millisecond(end).ok());
            let asked = json!({ "expires_at": end.map(|end| end.to_string()) });
            let (credential, unwritten) = narrowed(&username, change, asked)?;
            let text = told(&credential, json, || match expires_at {
                Some(end) => format!("{} is refused from {} on.", shown(&username), minute(end)),
                None => format!("{} does not expire.", shown(&username)),
            })?;
            return Ok(Answer::from(text).or(unwritten));
        }
        Limit {
            username,
            limits,
            json,
        } => {
            let limits = limits.change();
            let change = CredentialEdit {
                limits: Some(&limits).filter(|limits| !limits.0.is_empty()),
                ..CredentialEdit::default()
            };
            let credential = edit(&username, change)?;
            told(&credential, json, || show_limits(&credential.limits, true))
        }
        Rules {
            username,
            rules,
            json,
        } => {
            let rules = rules.change();
            let change = CredentialEdit {
                rules: Some(&rules).filter(|rules| **rules != RulesChange::default()),
                ..CredentialEdit::default()
            };
            let credential = edit(&username, change)?;
            told(&credential, json, || show_rules(&credential.rules))
        }
        EndOverlap { username, json } => {
            let change = CredentialEdit {
                end_overlap: true,
                ..CredentialEdit::default()
            };
            let asked = json!({ "end_overlap": true });
            let (credential, unwritten) = narrowed(&username, change, asked)?;
            let text = told(&credential, json, || {
                format!(
                    "Only the present password of {} is right now. {}",
                    shown(&username),
                    Aftermath::GoOn.words()
                )
            })?;
            return Ok(Answer::from(text).or(unwritten));
        }
        Revoke {
            username: Some(username),
            disconnect,
            json,
            ..
        } => {
            running.needed(disconnect)?;
            let change = CredentialEdit {
                status: Some(CredentialStatus::Revoked),
                ..CredentialEdit::default()
            };
            let asked = json!({ "status": "revoked" });
            let (credential, unwritten) = narrowed(&username, change, asked)?;
            let after = Aftermath::of(disconnect, running, Whose::Credential(&username));
            let text = if json {
                after.document(&api::Credential::from(&credential))?
            } else {
                format!(
                    "Revoked {0}. {1}\nUndo it with: gatepost credential enable {0}",
                    shown(&username),
                    after.words()
                )
            };
            return Ok(after.answer(text).or(unwritten));
        }
        Enable {
            username: Some(username),
            json,
            ..
        } => {
            let credential = set_status(&username, CredentialStatus::Active)?;
            running.enable(&credential)?;
            told(&credential, json, || {
                format!(
                    "Enabled {}. It may log in with the password it has.",
                    shown(&username)
                )
            })
        }
        Rename {
            username,
            name: new,
            json,
        } => {
            let new = Some(new.as_str()).filter(|new| !new.is_empty());
            let change = CredentialEdit {
                name: Some(new),
                ..CredentialEdit::default()
            };
            let credential = edit(&username, change)?;
            told(&credential, json, || match new {
                Some(new) => format!("{} is now called {}.", shown(&username), shown(new)),
                None => format!("{} has no name any more.", shown(&username)),
            })
        }
        Delete {
            username: Some(username),
            yes,
            disconnect,
            json,
            ..
        } => {
            running.needed(disconnect)?;
            let credential = store.credential(username.as_str())?;
            if !yes {
                confirm_deletion(&credential)?;
            }
            let asked = Asked {
                method: Method::DELETE,
                path: Asked::credential(&credential.organization, &username),
                body: None,
            };
            let delete = || Ok(editor.delete_credential(username.as_str().into())?);
            let unwritten = match running.narrow(store, &asked, delete)? {
                Narrowed::Here(()) => None,
                Narrowed::There(_, unwritten) => unwritten,
            };
            let after = Aftermath::of(disconnect, running, Whose::Credential(&username));
            let text = if json {
                let id = credential.id.to_string();
                after.document(&json!({ "id": id, "username": username, "deleted": true }))?
            } else {
                format!("Deleted {}. {}", shown(&username), after.words())
            };
            return Ok(after.answer(text).or(unwritten));
        }
    };
    Ok(text?.into())
}

/// Gives a credential a new password; where the store cannot be written from here, by the running
/// Gatepost.
fn replace_password(
    store: &Store,
    running: &Running,
    before: &Credential,
    overlap: Option<i64>,
    here: impl Fn() -> Result<Issued, CliError>,
) -> Result<Issued, CliError> {
    let Credential {
        organization,
        username,
        ..
    } = before;
    let seconds = overlap.map(|length| (length + 999) / 1_000);
    let asked = Asked {
        method: Method::POST,
        path: format!("{}/rotate", Asked::credential(organization, username)),
        body: seconds.map(|seconds| json!({ "overlap": seconds })),
    };
    match running.narrow(store, &asked, here)? {
        Narrowed::Here(issued) => Ok(issued),
        Narrowed::There(_, Some(unwritten)) => Err(unwritten),
        Narrowed::There(answer, None) => match answer["password"].as_str() {
            Some(password) => Ok(Issued {
                credential: store.credential(username.as_str())?,
                password: Secret::new(password),
                rotation: Some(match answer["overlap"].as_str() {
                    Some("began") => Rotation::Began,
                    Some("kept") => Rotation::Kept {
                        replaced_used: before.current_used.clone(),
                    },
                    _ => Rotation::Ended,
                }),
            }),
            None => Err(CliError::Io(
                "the running Gatepost gave no password: rotate again".to_owned(),
            )),
        },
    }
}

pub(super) fn created(issued: &Issued, json: bool) -> Result<String, CliError> {
    if json {
        return document(&api::IssuedCredential::from(issued));
    }
    let Credential {
        username,
        organization,
        ..
    } = &issued.credential;
    Ok(format!(
        "Created a credential in organization {organization}.\n\n{}\n\n\
         The password is shown only now: it is stored as a hash and cannot be shown again.\n\
         A lost one is replaced with: gatepost credential rotate {username}",
        login(issued)
    ))
}

fn rotated(issued: &Issued, after: &Aftermath, json: bool) -> Result<String, CliError> {
    if json {
        return after.document(&api::RotatedCredential::from(issued));
    }
    let username = shown(&issued.credential.username);
    let mut text = format!(
        "Gave {username} a new password.\n\n{}\n\n\
         The password is shown only now: it is stored as a hash and cannot be shown again.\n{}",
        login(issued),
        match (&issued.rotation, issued.credential.previous_until) {
            (_, None) => "The old password is invalid.".to_owned(),
            (Some(Rotation::Kept { replaced_used }), Some(until)) => format!(
                "An overlap ran already, and its end stays: the password from before it is accepted until {}; \
                 end that early with: gatepost credential end-overlap {username}\n\
                 The password from the last rotation is invalid now{}.",
                minute(until),
                match replaced_used {
                    Some(used) => format!(
                        ": it was used {}, and clients that have it fail",
                        uses(used, crate::clock::now())
                    ),
                    None => "; no client had used it".to_owned(),
                }
            ),
            (_, Some(until)) => format!(
                "The old password is accepted until {}; end that early with: gatepost credential end-overlap {username}",
                minute(until)
            ),
        }
    );
    // With an overlap nothing ends, and whoever goes on is no news.
    if issued.credential.previous_until.is_none() || !matches!(after, Aftermath::GoOn) {
        text += &format!("\n{}", after.words());
    }
    if issued.credential.status == CredentialStatus::Revoked {
        text += &format!(
            "\nThe credential is still revoked. To accept it: gatepost credential enable {username}"
        );
    }
    Ok(text)
}

fn list(credentials: &[Credential], json: bool) -> Result<String, CliError> {
    if json {
        return document(
            &credentials
                .iter()
                .map(api::Credential::from)
                .collect::<Vec<_>>(),
        );
    }
    if credentials.is_empty() {
        return Ok("No credentials yet. Make one with: gatepost credential create".to_owned());
    }
    let now = crate::clock::now();
    let rows = credentials.iter().map(|credential| {
        let used = credential.latest_use();
        vec![
            name(credential.name.as_deref()),
            shown(&credential.username),
            plain(&credential.organization),
            status(credential, now).to_owned(),
            used.map_or_else(|| "never".to_owned(), |used| ago(used, now)),
            minute(credential.created_at),
        ]
    });
    let header = [
        "Name",
        "Username",
        "Organization",
        "Status",
        "Last used",
        "Created",
    ];
    Ok(table(&header, rows))
}

fn show(credential: &Credential, breaches: &[Breached]) -> String {
    let now = crate::clock::now();
    let mut lines = vec![
        ("Username", shown(&credential.username)),
        ("Name", name(credential.name.as_deref())),
        ("Organization", plain(&credential.organization)),
        ("Status", status(credential, now).to_owned()),
        ("Id", credential.id.to_string()),
        ("Created", minute(credential.created_at)),
    ];
    let times = [
        ("Rotated", credential.rotated_at),
        ("Revoked", credential.revoked_at),
        (
            match credential.is_expired(now.as_millisecond()) {
                true => "Expired",
                false => "Expires",
            },
            credential.expires_at,
        ),
        ("Overlap until", credential.previous_until),
    ];
    lines.extend(
        times
            .into_iter()
            .filter_map(|(what, ms)| Some((what, minute(ms?)))),
    );
    if let Some(used) = &credential.previous_used {
        let uses = uses(used, now);
        lines.push(("Old password", format!("used since the rotation: {uses}")));
    }
    if credential.previous_until.is_some() {
        let used = match &credential.current_used {
            Some(used) => format!("used {}", uses(used, now)),
            None => "not used yet".to_owned(),
        };
        let next = "a rotation with --overlap replaces it and keeps the old one's end";
        lines.push(("New password", format!("{used}; {next}")));
    }
    if !credential.limits.is_empty() {
        lines.push(("Limits", limits_line(&credential.limits)));
    }
    if !credential.rules.is_empty() {
        lines.extend(rule_lines(&credential.rules));
    }
    match &credential.last_used {
        None => lines.push(("Last login", "never".to_owned())),
        Some(used) => lines.extend([
            (
                "Last login",
                format!("{} ({})", ago(used.at, now), minute(used.at)),
            ),
            (
                "From",
                format!("{} (EHLO {})", plain(&used.address), plain(&used.helo)),
            ),
            ("By", format!("{}, {}", plain(&used.mechanism), tls(used))),
            ("Logins", used.count.to_string()),
        ]),
    }
    match credential.last_message {
        None => lines.push(("Last message", "none".to_owned())),
        Some(message) => lines.extend([
            (
                "Last message",
                format!("{} ({})", ago(message.at, now), minute(message.at)),
            ),
            ("Messages", message.count.to_string()),
        ]),
    }
    for odd in breaches.iter().filter(|one| one.is_odd_line_end()) {
        let words = odd.words();
        let what = words.strip_prefix("odd line ends: ").unwrap_or(&words);
        let became = odd.let_through().unwrap_or("refused");
        let (count, last) = (odd.tally.count, ago(odd.tally.at, now));
        let value = format!("{what}, {became}: {count} in 30 days, the last {last}");
        lines.push(("Odd line ends", value));
    }
    let lines = lines
        .into_iter()
        .map(|(what, value)| format!("{what:<15}{value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn confirm_deletion(credential: &Credential) -> Result<(), CliError> {
    let username = &credential.username;
    let called = credential
        .name
        .as_deref()
        .map(|name| format!(", called {},", shown(name)));
    let called = called.unwrap_or_default();
    let warning = format!("This deletes {}{called} for good.", shown(username));
    confirm(
        &warning,
        "the last four characters of the username",
        last_four(username),
    )
}

/// The credential as JSON, or a sentence about it.
fn told(
    credential: &Credential,
    json: bool,
    sentence: impl FnOnce() -> String,
) -> Result<String, CliError> {
    if json {
        document(&api::Credential::from(credential))
    } else {
        Ok(sentence())
    }
}

/// An expired credential is refused although its own status says active.
fn status(credential: &Credential, now: Timestamp) -> &'static str {
    let is_active = credential.status == CredentialStatus::Active;
    match is_active && credential.is_expired(now.as_millisecond()) {
        true => "expired",
        false => credential.status.as_str(),
    }
}

/// How often a password was used, and when and from where last.
fn uses(used: &PasswordUse, now: Timestamp) -> String {
    let times = match used.count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    format!(
        "{times}, last {} from {}",
        ago(used.at, now),
        plain(&used.address)
    )
}

fn tls(used: &LastUsed) -> String {
    used.tls
        .as_deref()
        .map_or_else(|| "without TLS".to_owned(), plain)
}

fn login(issued: &Issued) -> String {
    format!(
        "Username  {}\nPassword  {}",
        shown(&issued.credential.username),
        password(issued)
    )
}

fn password(issued: &Issued) -> &str {
    // Generated from ASCII in `auth::issue`.
    str::from_utf8(issued.password.expose()).unwrap_or_default()
}

pub(super) fn last_four(username: &str) -> &str {
    let start = username
        .char_indices()
        .rev()
        .nth(3)
        .map_or(0, |(index, _)| index);
    &username[start..]
}

#[cfg(test)]
mod tests;
