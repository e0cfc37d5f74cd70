//! Commands of a user who may not open the store. The running Gatepost carries them out, at the
//! socket of the administration, which the members of a group may use.

use axum::http::Method;
use form_urlencoded::Serializer;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::CliError;
use super::credential::{CredentialCommand, last_four};
use super::organization::OrganizationCommand;
use super::output::{ago, confirm, document, minute, path_part, plain, print, shown, table};
use super::running::{Answer, Asked, Running, Whose};
use super::token::TokenCommand;
use crate::admin::api::List;
use crate::admin::client::{Client, ClientError};

/// Items on one page of a list.
const PAGE: &str = "200";

/// The running Gatepost, instead of the store.
pub struct Remote {
    running: Running,
    /// The reason why the store cannot be opened.
    cause: CliError,
}

impl Remote {
    /// The one at the socket of `running`, for a store that cannot be opened because of `cause`.
    pub fn new(running: Running, cause: CliError) -> Remote {
        Remote { running, cause }
    }

    /// Carries out a command on credentials.
    ///
    /// # Errors
    /// The command needs the store itself, or Gatepost cannot be asked or refuses.
    pub fn credential(&self, command: CredentialCommand) -> Result<(), CliError> {
        use CredentialCommand::{
            Create, Delete, Enable, EndOverlap, Expire, List, Rename, Revoke, Rotate, Show,
        };
        match command {
            Create {
                org,
                name,
                expires,
                json,
            } => {
                let expires = expires.and_then(|expires| expires.0);
                let new = json!({ "name": name, "expires_at": time(expires) });
                let path = format!("/api/v1/organizations/{org}/credentials");
                let made = self.ask(Method::POST, &path, Some(&new))?;
                let title = format!("Created a credential in organization {org}.");
                show_secret(&made, json, &title)
            }
            List {
                org,
                status,
                expires_within,
                unused_since,
                search,
                json,
            } => {
                let mut query = Serializer::new(String::new());
                let state = status.map(|state| state.as_str().to_owned());
                let hours = expires_within.map(|end| {
                    let left = end.saturating_sub(crate::clock::now_ms());
                    format!("{}h", (left / 3_600_000 + 1).clamp(1, 9_999))
                });
                let since = unused_since.and_then(|since| time(Some(since)));
                for (name, value) in [
                    ("status", state),
                    ("expires_within", hours),
                    ("unused_since", since),
                    ("text", search),
                ] {
                    query.extend_pairs(value.map(|value| (name, value)));
                }
                let query = query.finish();
                let slugs = match org {
                    Some(slug) => vec![slug],
                    None => self.slugs()?,
                };
                let mut found = Vec::new();
                for slug in slugs {
                    let path = format!("/api/v1/organizations/{slug}/credentials");
                    found.extend(self.list(&path, &query)?);
                }
                show_list(
                    &found,
                    json,
                    &[
                        ("Name", "/name"),
                        ("Username", "/username"),
                        ("Organization", "/organization"),
                        ("Status", "/status"),
                        ("Last login", "/last_used/at"),
                        ("Last message", "/last_message/at"),
                        ("Created", "/created_at"),
                    ],
                )
            }
            Show { username, json } => {
                let found = self.find(&username)?;
                show(&found, json, || properties(&found))
            }
            Rotate {
                username,
                overlap,
                disconnect,
                json,
            } => {
                let seconds = overlap.filter(|length| *length > 0);
                let seconds = seconds.map(|length| (length + 999) / 1_000);
                let path = format!("{}/rotate", self.path(&username)?);
                let mut how = json!({ "disconnect": disconnect });
                if let Some(seconds) = seconds {
                    how["overlap"] = json!(seconds);
                }
                let issued = self.ask(Method::POST, &path, Some(&how))?;
                let title = match issued["previous_until"].as_str() {
                    Some(until) => format!(
                        "Gave {username} a new password. An old one is accepted until {}.",
                        cell(&json!(until), false)
                    ),
                    None => format!("Gave {username} a new password. The old one is invalid."),
                };
                show_secret(&issued, json, &title)
            }
            Revoke {
                username: Some(username),
                disconnect,
                json,
                ..
            } => {
                let change = json!({ "status": "revoked", "disconnect": disconnect });
                let text = "Revoked: refused from now on.";
                self.edit(&username, &change, json, text)
            }
            Enable {
                username: Some(username),
                json,
                ..
            } => {
                let change = json!({ "status": "active" });
                self.edit(&username, &change, json, "Enabled: accepted again.")
            }
            Expire {
                username: Some(username),
                when,
                json,
                ..
            } => {
                let change = json!({ "expires_at": time(when.0) });
                self.edit(&username, &change, json, "Changed its expiry.")
            }
            Rename {
                username,
                name,
                json,
            } => {
                let name = Some(name).filter(|name| !name.is_empty());
                let change = json!({ "name": name });
                self.edit(&username, &change, json, "Renamed.")
            }
            EndOverlap { username, json } => {
                let change = json!({ "end_overlap": true });
                let text = "Only the present password is right now.";
                self.edit(&username, &change, json, text)
            }
            Delete {
                username: Some(username),
                yes,
                disconnect,
                json,
                ..
            } => {
                let found = self.find(&username)?;
                if !yes {
                    let warning = format!("This deletes {} for good.", shown(&username));
                    let answer = last_four(&username);
                    confirm(&warning, "the last four characters of the username", answer)?;
                }
                let path = format!("{}?disconnect={disconnect}", of(&found));
                self.ask(Method::DELETE, &path, None)?;
                let done = json!({ "id": found["id"], "username": username, "deleted": true });
                show(&done, json, || format!("Deleted {}.", shown(&username)))
            }
            _ => Err(self.needs_store()),
        }
    }

    /// Carries out a command on organizations.
    ///
    /// # Errors
    /// As [`Remote::credential`].
    pub fn organization(&self, command: OrganizationCommand) -> Result<(), CliError> {
        use OrganizationCommand::{Activate, Create, Delete, Limit, List, Rename, Suspend};
        let edit = |slug: &str, change: &Value, json, text: &str| {
            let path = format!("/api/v1/organizations/{slug}");
            let changed = self.ask(Method::PATCH, &path, Some(change))?;
            show(&changed, json, || format!("{slug}: {text}"))
        };
        match command {
            Create { slug, name, json } => {
                let new = json!({ "slug": slug, "name": name });
                let made = self.ask(Method::POST, "/api/v1/organizations", Some(&new))?;
                show(&made, json, || format!("Created organization {slug}."))
            }
            List { json } => show_list(
                &self.list("/api/v1/organizations", "")?,
                json,
                &[
                    ("Name", "/name"),
                    ("Slug", "/slug"),
                    ("Status", "/status"),
                    ("Credentials", "/credentials"),
                    ("Created", "/created_at"),
                ],
            ),
            Rename { slug, name, json } => {
                let name = Some(name).filter(|name| !name.is_empty());
                edit(&slug, &json!({ "name": name }), json, "renamed.")
            }
            Suspend {
                slug,
                disconnect,
                json,
            } => {
                let change = json!({ "status": "suspended", "disconnect": disconnect });
                let text = "suspended, none of its credentials is accepted.";
                edit(&slug, &change, json, text)
            }
            Activate { slug, json } => {
                edit(&slug, &json!({ "status": "active" }), json, "activated.")
            }
            Delete {
                slug,
                force,
                yes,
                disconnect,
                json,
            } => {
                let path = format!("/api/v1/organizations/{slug}");
                let found = self.ask(Method::GET, &path, None)?;
                if !yes {
                    let count = &found["credentials"];
                    let warning = format!(
                        "This deletes organization {slug} with {count} credential(s) for good."
                    );
                    confirm(&warning, "its slug", &slug)?;
                }
                let path = format!("{path}?force={force}&disconnect={disconnect}");
                self.ask(Method::DELETE, &path, None)?;
                let done = json!({ "id": found["id"], "slug": slug, "deleted": true });
                show(&done, json, || format!("Deleted organization {slug}."))
            }
            Limit { .. } => Err(self.needs_store()),
        }
    }

    /// Carries out a command on tokens.
    ///
    /// # Errors
    /// As [`Remote::credential`].
    pub fn token(&self, command: TokenCommand) -> Result<(), CliError> {
        match command {
            TokenCommand::Create {
                name,
                scope,
                expires,
                json,
            } => {
                let expires = expires.and_then(|expires| expires.0);
                let scope = scope.to_string();
                let new = json!({ "name": name, "scope": scope, "expires_at": time(expires) });
                let made = self.ask(Method::POST, "/api/v1/tokens", Some(&new))?;
                show_secret(&made, json, &format!("Created a token for {scope}."))
            }
            TokenCommand::List { org, json } => show_list(
                &self.tokens(org.as_deref())?,
                json,
                &[
                    ("Name", "/name"),
                    ("Scope", "/scope"),
                    ("Last used", "/last_used_at"),
                    ("Created", "/created_at"),
                    ("Expires", "/expires_at"),
                    ("Revoked", "/revoked_at"),
                    ("Id", "/id"),
                ],
            ),
            TokenCommand::Revoke { token, json } => {
                let all = self.tokens(None)?;
                let is_meant = |one: &&Value| one["id"] == *token || one["name"] == *token;
                let ids: Vec<_> = all.iter().filter(is_meant).collect();
                let [found] = ids[..] else {
                    return Err(CliError::Refused(match ids.len() {
                        0 => format!("there is no token {}", shown(&token)),
                        _ => format!("several tokens are called {}: name its id", shown(&token)),
                    }));
                };
                let id = found["id"].as_str().unwrap_or_default();
                let path = format!("/api/v1/tokens/{id}/revoke");
                let revoked = self.ask(Method::POST, &path, None)?;
                show(&revoked, json, || {
                    format!("Revoked {}. It is refused from now on.", shown(&token))
                })
            }
        }
    }

    fn edit(&self, username: &str, change: &Value, json: bool, text: &str) -> Result<(), CliError> {
        let path = self.path(username)?;
        let changed = self.ask(Method::PATCH, &path, Some(change))?;
        show(&changed, json, || format!("{}: {text}", shown(username)))
    }

    /// The credential with this username, in whichever organization.
    fn find(&self, username: &str) -> Result<Value, CliError> {
        let path = format!("/api/v1/credentials/{}", path_part(username));
        self.ask(Method::GET, &path, None)
    }

    fn path(&self, username: &str) -> Result<String, CliError> {
        Ok(of(&self.find(username)?))
    }

    fn slugs(&self) -> Result<Vec<String>, CliError> {
        let all = self.list("/api/v1/organizations", "")?;
        let slugs = all.iter().filter_map(|one| one["slug"].as_str());
        Ok(slugs.map(str::to_owned).collect())
    }

    fn tokens(&self, organization: Option<&str>) -> Result<Vec<Value>, CliError> {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(organization.map(|slug| Whose::Organization(slug).parameter()));
        self.list("/api/v1/tokens", &query.finish())
    }

    /// Every item of a list.
    fn list(&self, path: &str, query: &str) -> Result<Vec<Value>, CliError> {
        let mut items = Vec::new();
        let mut after = None;
        loop {
            let mut pages = Serializer::new(query.to_owned());
            pages.append_pair("limit", PAGE);
            pages.extend_pairs(after.iter().map(|after: &String| ("after", after)));
            let path = format!("{path}?{}", pages.finish());
            let client = self.client()?;
            let page: List<Value> = client
                .ask(Method::GET, &path, None)
                .map_err(|error| self.unasked(error))?;
            items.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(items),
            }
        }
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        let answer = self.client()?.ask(method, path, body);
        answer.map_err(|error| self.unasked(error))
    }

    fn client(&self) -> Result<&Client, CliError> {
        let client = self.running.configured();
        client.ok_or_else(|| {
            CliError::Io(format!(
                "{}
run it with sudo",
                self.cause
            ))
        })
    }

    /// The error where neither the store nor the socket can be used names the ways to either.
    fn unasked(&self, error: ClientError) -> CliError {
        match &error {
            ClientError::Unreachable { .. } => CliError::Io(format!(
                "{}\n{error}\nrun it with sudo; or join the group of the socket, log in again, and see that Gatepost runs: sudo usermod --append --groups gatepost-admin \"$USER\"",
                self.cause
            )),
            ClientError::Broken { .. } | ClientError::Refused { .. } => error.into(),
        }
    }

    fn needs_store(&self) -> CliError {
        CliError::Io(format!(
            "{}\nthe socket of the administration is no way for this command: run it with sudo",
            self.cause
        ))
    }
}

/// The path of a credential that the API answered.
fn of(credential: &Value) -> String {
    let text = |name: &str| credential[name].as_str().unwrap_or_default();
    Asked::credential(text("organization"), text("username"))
}

fn time(ms: Option<i64>) -> Option<String> {
    let time = Timestamp::from_millisecond(ms?).ok()?;
    Some(time.to_string())
}

/// The answer as JSON, or a sentence.
fn show(answer: &Value, json: bool, text: impl FnOnce() -> String) -> Result<(), CliError> {
    print(&match json {
        true => document(answer)?,
        false => text(),
    })
}

/// An answer with a password or a token, for the only time.
fn show_secret(answer: &Value, json: bool, title: &str) -> Result<(), CliError> {
    let text = |name: &str| answer[name].as_str().unwrap_or_default();
    let (name, lines) = match answer["password"].as_str() {
        Some(password) => {
            let username = shown(text("username"));
            let lines = format!("Username  {username}\nPassword  {password}");
            (username, lines)
        }
        None => (shown(text("name")), text("secret").to_owned()),
    };
    let text = match json {
        true => document(answer)?,
        false => format!(
            "{title}\n\n{lines}\n\nIt is shown only now: it is stored as a hash and cannot be shown again."
        ),
    };
    let unshown = format!("{name} was made, but its secret could not be shown: make another one");
    Answer::from(text).shows_a_secret(unshown).print()
}

fn show_list(items: &[Value], json: bool, columns: &[(&str, &str)]) -> Result<(), CliError> {
    if json {
        return print(&document(&items)?);
    }
    let header: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
    let rows = items.iter().map(|item| {
        let value = |pointer: &str| item.pointer(pointer).unwrap_or(&Value::Null);
        let cells = columns.iter();
        let cells = cells.map(|(title, pointer)| cell(value(pointer), title.starts_with("Last")));
        cells.collect()
    });
    print(&table(&header, rows))
}

/// A value for people; a time to the minute, or as its distance from now.
fn cell(value: &Value, is_distance: bool) -> String {
    let Value::String(text) = value else {
        return match value {
            Value::Null if is_distance => "never".to_owned(),
            Value::Null => "-".to_owned(),
            other => other.to_string(),
        };
    };
    match text.parse::<Timestamp>() {
        Ok(time) if is_distance => ago(time.as_millisecond(), crate::clock::now()),
        Ok(time) => minute(time.as_millisecond()),
        Err(_) => shown(text),
    }
}

/// The properties of an object, one a line, without those that are not set.
fn properties(object: &Value) -> String {
    let mut lines = Vec::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        let is_set = !value.is_null() && *value != json!([]) && *value != json!({});
        let parts = value.as_object().into_iter().flatten();
        if value.is_object() {
            let parts = parts.filter(|(_, value)| !value.is_null());
            lines.extend(parts.map(|(part, value)| {
                format!(
                    "{:<28}{}",
                    plain(&format!("{name}.{part}")),
                    cell(value, false)
                )
            }));
        } else if is_set {
            lines.push(format!("{:<28}{}", plain(name), cell(value, false)));
        }
    }
    lines.join("\n")
}
