//! The Gatepost that runs beside a command: the live sessions, which only it knows and can end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Method;
use form_urlencoded::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::CliError;
use super::output::{document, note, path_part};
use crate::admin::api::{Disconnected, List, PasswordUsed, Session};
use crate::admin::client::{Client, ClientError};
use crate::auth::issue::folded;
use crate::config::{Config, DEFAULT_PATH};
use crate::store::{Credential, Store};

/// How many sessions are asked for at a time.
const PAGE: &str = "200";

/// The code of a change that counts, but is not written.
const EFFECTIVE_NOT_DURABLE: &str = "effective-not-durable";

/// The address in gatepost-admin.socket.
const SHIPPED_SOCKET: &str = "/run/gatepost-admin.sock";

/// How long a command waits for the store before it asks the running Gatepost to refuse what is to
/// be refused.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// How long a command waits for the word that a change is obeyed.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(5);

/// Where the running Gatepost can be asked, if it can.
#[derive(Default)]
pub struct Running {
    config: PathBuf,
    client: Option<Client>,
    folds_case: bool,
}

/// The part of a credential in the API that [`Running::add_unwritten_uses`] reads.
#[derive(Deserialize)]
struct OverlapUse {
    current_used: Option<PasswordUsed>,
}

/// Whose sessions.
#[derive(Clone, Copy)]
pub enum Whose<'a> {
    /// The credential with this username.
    Credential(&'a str),
    /// All credentials of the organization with this slug.
    Organization(&'a str),
}

impl Whose<'_> {
    /// The query parameter that says so.
    pub(super) fn parameter(self) -> (&'static str, String) {
        match self {
            Whose::Credential(username) => ("credential", username.to_owned()),
            Whose::Organization(slug) => ("organization", slug.to_owned()),
        }
    }

    /// The same at the command line.
    fn option(self) -> String {
        match self {
            Whose::Credential(username) => format!("--credential {username}"),
            Whose::Organization(slug) => format!("--org {slug}"),
        }
    }
}

impl Running {
    /// The one with this configuration, which was read from that file.
    pub fn of(config: &Config, path: PathBuf) -> Running {
        let admin = config.admin.as_ref();
        let running = match admin.and_then(|admin| admin.socket.as_deref()) {
            Some(socket) => Running {
                client: Some(Client::new(socket)),
                config: path,
                folds_case: false,
            },
            None => Running::unread(path),
        };
        Running {
            folds_case: config.auth.username_case.folds(),
            ..running
        }
    }

    /// The one whose configuration names no socket, or cannot be read by this user: the service has
    /// the socket of gatepost-admin.socket.
    pub fn unread(path: PathBuf) -> Running {
        let shipped = Path::new(SHIPPED_SOCKET);
        let has_shipped = path == Path::new(DEFAULT_PATH) && shipped.exists();
        Running {
            client: has_shipped.then(|| Client::new(shipped)),
            config: path,
            folds_case: false,
        }
    }

    /// The username of the credential that a login with `typed` means, by `auth.username_case`.
    pub fn username(&self, typed: String) -> String {
        match self.folds_case {
            true => folded(&typed).into_owned(),
            false => typed,
        }
    }

    /// Adds the uses of the new password of an overlap that wait to be written.
    pub fn add_unwritten_uses(&self, credential: &mut Credential) {
        let path = Asked::credential(&credential.organization, &credential.username);
        if let Some(client) = self.configured()
            && credential.previous_until.is_some()
            && let Ok(OverlapUse {
                current_used: Some(used),
            }) = client.ask(Method::GET, &path, None)
        {
            credential.current_used = Some(used.into());
        }
    }

    /// What it may be asked by, if the configuration says so.
    pub fn configured(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// What it can be asked by.
    ///
    /// # Errors
    /// The configuration names no socket.
    pub fn client(&self) -> Result<&Client, CliError> {
        self.client.as_ref().ok_or_else(|| {
            CliError::Config(format!(
                "live sessions are known to the running Gatepost alone, and {} does not say where it can be asked: set socket in [admin] (for example \"/run/gatepost/admin.sock\") and restart it",
                self.config.display()
            ))
        })
    }

    /// Refuses before anything is changed, if sessions are to be ended and nobody could be asked to.
    ///
    /// # Errors
    /// As [`Running::client`].
    pub fn needed(&self, disconnects: bool) -> Result<(), CliError> {
        match disconnects {
            true => self.client().map(drop),
            false => Ok(()),
        }
    }

    /// The live sessions, all or of one credential or organization, oldest first.
    pub fn sessions(&self, whose: &[Whose]) -> Result<Vec<Session>, CliError> {
        let client = self.client()?;
        let mut sessions = Vec::new();
        let mut after = None;
        loop {
            let mut query = Serializer::new(String::new());
            query.append_pair("limit", PAGE);
            query.extend_pairs(whose.iter().map(|whose| whose.parameter()));
            query.extend_pairs(after.iter().map(|after: &String| ("after", after)));
            let path = format!("/api/v1/sessions?{}", query.finish());
            let page: List<Session> = client.ask(Method::GET, &path, None)?;
            sessions.extend(page.items);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(sessions),
            }
        }
    }

    /// Ends the sessions of a credential or an organization. Returns how many there were.
    pub fn disconnect(&self, whose: Whose) -> Result<usize, CliError> {
        let mut query = Serializer::new(String::new());
        query.extend_pairs([whose.parameter()]);
        let path = format!("/api/v1/sessions?{}", query.finish());
        let done: Disconnected = self.client()?.ask(Method::DELETE, &path, None)?;
        Ok(done.disconnected)
    }

    /// Has the running Gatepost obey what was changed, and waits for its word. Where there is none,
    /// says so on standard error: what is changed is changed all the same.
    pub fn tell(&self) {
        let Some(client) = &self.client else {
            note("[admin] names no socket to tell a running Gatepost at; it obeys within 250 ms");
            return;
        };
        let told: Result<(), _> =
            client
                .within(CONFIRMED_WITHIN)
                .ask(Method::POST, "/api/v1/changes", None);
        match told {
            Ok(()) => {}
            Err(error) if error.means_none_runs() => {
                note(
                    "no running Gatepost answers at admin.socket; one that starts obeys the change",
                );
            }
            Err(error) => note(&format!(
                "the change is made, but the running Gatepost did not confirm that it obeys: {error}"
            )),
        }
    }

    /// Makes a change that takes access away: from here, or where the store cannot be written from
    /// here, by the running Gatepost, which refuses at once what is to be refused.
    ///
    /// # Errors
    /// Nothing is changed.
    pub fn narrow<T>(
        &self,
        store: &Store,
        asked: &Asked,
        here: impl Fn() -> Result<T, CliError>,
    ) -> Result<Narrowed<T>, CliError> {
        let Some(client) = &self.client else {
            return here().map(Narrowed::Here);
        };
        store.wait_for_locks(IMPATIENCE)?;
        let made = here();
        // What waits for the writer longer than usual has failed already.
        let _ = store.wait_for_locks(Duration::MAX);
        let cause = match made {
            Ok(made) => return Ok(Narrowed::Here(made)),
            Err(error @ CliError::Io(_)) => error,
            Err(error) => return Err(error),
        };
        let Asked { method, path, body } = asked;
        match client.ask(method.clone(), path, body.as_ref()) {
            Ok(answer) => Ok(Narrowed::There(answer, None)),
            Err(ClientError::Refused { code, detail }) if code == EFFECTIVE_NOT_DURABLE => {
                let failure = Some(CliError::Io(detail));
                Ok(Narrowed::There(Value::Null, failure))
            }
            Err(error @ ClientError::Refused { .. }) => Err(error.into()),
            // Another process may let go of the store yet.
            Err(error) if error.means_none_runs() => here().map(Narrowed::Here),
            Err(error) => Err(CliError::Io(format!(
                "{cause}\nthe running Gatepost could not be told to refuse it either: {error}"
            ))),
        }
    }

    /// Has an organization activated that is active in the store: a suspension that waits to be
    /// written would undo that.
    ///
    /// # Errors
    /// As [`Running::enable`].
    pub fn activate(&self, slug: &str) -> Result<(), CliError> {
        let path = format!("/api/v1/organizations/{slug}");
        self.follow(slug, &path, "active")
    }

    /// Has a credential enabled that is enabled in the store: a revocation that waits to be written would undo that.
    ///
    /// # Errors
    /// A running Gatepost refuses that. One that is not running has forgotten what waited.
    pub fn enable(&self, credential: &Credential) -> Result<(), CliError> {
        let path = Asked::credential(&credential.organization, &credential.username);
        self.follow(&credential.username, &path, "active")
    }

    /// As [`Running::enable`], for many credentials.
    ///
    /// # Errors
    /// As [`Running::enable`].
    pub fn enable_all(&self, asked: &Asked) -> Result<(), CliError> {
        let Asked { method, path, body } = asked;
        let told = self
            .client
            .as_ref()
            .map(|client| client.ask::<Value>(method.clone(), path, body.as_ref()));
        match told {
            Some(Err(error @ ClientError::Refused { .. })) => Err(CliError::Io(format!(
                "they are enabled in the store, but the running Gatepost does not take that: {error}"
            ))),
            _ => Ok(()),
        }
    }

    fn follow(&self, name: &str, path: &str, status: &str) -> Result<(), CliError> {
        let change = json!({ "status": status });
        let told = self
            .client
            .as_ref()
            .map(|client| client.ask::<Value>(Method::PATCH, path, Some(&change)));
        match told {
            Some(Err(error @ ClientError::Refused { .. })) => Err(CliError::Io(format!(
                "{name} is {status} in the store, but the running Gatepost does not take that: {error}"
            ))),
            _ => Ok(()),
        }
    }
}

/// How the running Gatepost is asked for a change.
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The path with its query.
    pub path: String,
    /// The body, if there is one.
    pub body: Option<Value>,
}

impl Asked {
    /// The path of a credential.
    pub fn credential(organization: &str, username: &str) -> String {
        let username = path_part(username);
        format!("/api/v1/organizations/{organization}/credentials/{username}")
    }

    /// To change what is at `path`.
    pub fn patch(path: String, change: Value) -> Asked {
        Asked {
            method: Method::PATCH,
            path,
            body: Some(change),
        }
    }
}

/// Where a change that takes access away was made.
pub enum Narrowed<T> {
    /// By this command.
    Here(T),
    /// By the running Gatepost, with its answer, and what is wrong where it counts and is not
    /// written.
    There(Value, Option<CliError>),
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let of_request = [
            "already-exists",
            "forbidden",
            "invalid",
            "not-empty",
            "not-found",
            "protected",
        ];
        match &error {
            ClientError::Refused { code, .. } if of_request.contains(&code.as_str()) => {
                Self::Refused(error.to_string())
            }
            _ => Self::Io(error.to_string()),
        }
    }
}

/// What became of the sessions that were live when something was changed.
pub enum Aftermath {
    /// Nobody asked for their end.
    GoOn,
    /// So many were ended.
    Ended(usize),
    /// The change is made, but they could not be ended.
    Unended(CliError),
}

impl Aftermath {
    /// Ends the sessions of what was changed, if that `is_wanted`.
    pub fn of(is_wanted: bool, running: &Running, whose: Whose) -> Aftermath {
        if !is_wanted {
            return Aftermath::GoOn;
        }
        match running.disconnect(whose) {
            Ok(count) => Aftermath::Ended(count),
            // Deleted, and nobody was logged in with it.
            Err(CliError::Refused(_)) => Aftermath::Ended(0),
            Err(error) => Aftermath::Unended(CliError::Io(format!(
                "the change is made, but live sessions were not ended: {error}\nonce it runs: gatepost sessions disconnect {}",
                whose.option()
            ))),
        }
    }

    /// The same for people, as a sentence.
    pub fn words(&self) -> String {
        match self {
            Self::GoOn => {
                "Sessions that are already authenticated go on; the next authentication fails."
                    .to_owned()
            }
            Self::Ended(count) => ended(*count),
            Self::Unended(_) => "Its live sessions go on.".to_owned(),
        }
    }

    /// What was changed as a JSON document, with how many sessions were ended if that was asked for.
    pub fn document(&self, changed: &impl Serialize) -> Result<String, CliError> {
        #[derive(Serialize)]
        struct Document<'a, T> {
            #[serde(flatten)]
            changed: &'a T,
            #[serde(skip_serializing_if = "Option::is_none")]
            disconnected: Option<usize>,
        }
        let disconnected = match self {
            Self::Ended(count) => Some(*count),
            Self::GoOn | Self::Unended(_) => None,
        };
        document(&Document {
            changed,
            disconnected,
        })
    }

    /// What a command says whose change is made.
    pub fn answer(self, text: String) -> Answer {
        let failure = match self {
            Self::Unended(error) => Some(error),
            Self::GoOn | Self::Ended(_) => None,
        };
        Answer {
            failure,
            ..Answer::from(text)
        }
    }
}

/// The number of sessions that were ended, as a sentence.
pub fn ended(count: usize) -> String {
    match count {
        0 => "There was no live session to end.".to_owned(),
        1 => "Ended 1 live session.".to_owned(),
        _ => format!("Ended {count} live sessions."),
    }
}

/// What a command prints, and what went wrong after its change was made: a new password is told all the same.
pub struct Answer {
    /// For standard output.
    pub text: String,
    /// For standard error and the exit code.
    pub failure: Option<CliError>,
    /// The error where the text, which shows a secret, cannot be printed.
    pub unshown: Option<String>,
}

impl From<String> for Answer {
    fn from(text: String) -> Answer {
        Answer {
            text,
            failure: None,
            unshown: None,
        }
    }
}

impl Answer {
    /// Marks the text as one that shows a secret. `unshown` is the error where it cannot be printed.
    pub fn shows_a_secret(self, unshown: String) -> Answer {
        Answer {
            unshown: Some(unshown),
            ..self
        }
    }

    /// Fails with this, too, unless something else went wrong.
    pub fn or(self, failure: Option<CliError>) -> Answer {
        Answer {
            failure: self.failure.or(failure),
            ..self
        }
    }

    /// As [`Answer::print`], for a change, which the running Gatepost obeys before this returns.
    ///
    /// # Errors
    /// As [`Answer::print`].
    pub fn print_and_tell(self, running: &Running) -> Result<(), CliError> {
        // A password that was made is shown first: a command that waits may be interrupted.
        let printed = self.print();
        running.tell();
        printed
    }

    /// Prints the one, and fails with the other.
    ///
    /// # Errors
    /// The failure, or standard output being closed.
    pub fn print(self) -> Result<(), CliError> {
        let printed = super::output::print(&self.text);
        let printed = match self.unshown {
            Some(unshown) => printed.map_err(|error| error.of_a_secret(&unshown)),
            None => printed,
        };
        match (printed, self.failure) {
            (Err(unprinted), Some(failure)) => {
                super::output::complain(&failure.to_string());
                Err(unprinted)
            }
            (printed, failure) => printed.and(failure.map_or(Ok(()), Err)),
        }
    }
}
