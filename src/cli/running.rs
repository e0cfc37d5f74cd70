//! The Gatepost that runs beside a command: the live sessions, which only it knows and can end.

use std::path::PathBuf;

use axum::http::Method;
use form_urlencoded::Serializer;
use serde::Serialize;
use serde_json::{Value, json};

use super::CliError;
use super::output::{document, path_part};
use crate::admin::api::{Disconnected, List, Session};
use crate::admin::client::{Client, ClientError};
use crate::config::Config;
use crate::store::Credential;

/// How many sessions are asked for at a time.
const PAGE: &str = "200";

/// The code of a revocation that counts, but is not written.
const EFFECTIVE_NOT_DURABLE: &str = "effective-not-durable";

/// Where the running Gatepost can be asked, if it can.
#[derive(Default)]
pub struct Running {
    config: PathBuf,
    client: Option<Client>,
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
    fn parameter(self) -> (&'static str, String) {
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
        let socket = admin.and_then(|admin| admin.socket.as_deref());
        Running {
            config: path,
            client: socket.map(Client::new),
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

    /// Has a credential revoked that cannot be revoked from here, because of `cause`. Returns what is wrong where that counts,
    /// but could not be written there either.
    ///
    /// # Errors
    /// It is not revoked.
    pub fn revoke(
        &self,
        credential: &Credential,
        cause: CliError,
    ) -> Result<Option<CliError>, CliError> {
        let Some(client) = &self.client else {
            return Err(cause);
        };
        match set_status(client, credential, "revoked") {
            Ok(()) => Ok(None),
            Err(ClientError::Refused { code, detail }) if code == EFFECTIVE_NOT_DURABLE => {
                Ok(Some(CliError::Io(detail)))
            }
            Err(error @ ClientError::Refused { .. }) => Err(error.into()),
            Err(error) => Err(CliError::Io(format!(
                "{cause}\nthe running Gatepost could not be told to refuse it either: {error}"
            ))),
        }
    }

    /// Has a credential enabled that is enabled in the store: a revocation that waits to be written would undo that.
    ///
    /// # Errors
    /// A running Gatepost refuses that. One that is not running has forgotten what waited.
    pub fn enable(&self, credential: &Credential) -> Result<(), CliError> {
        let told = self
            .client
            .as_ref()
            .map(|client| set_status(client, credential, "active"));
        match told {
            Some(Err(error @ ClientError::Refused { .. })) => Err(CliError::Io(format!(
                "{} is enabled in the store, but the running Gatepost does not take that: {error}",
                credential.username
            ))),
            _ => Ok(()),
        }
    }
}

fn set_status(client: &Client, credential: &Credential, status: &str) -> Result<(), ClientError> {
    let Credential {
        username,
        organization,
        ..
    } = credential;
    let username = path_part(username);
    let path = format!("/api/v1/organizations/{organization}/credentials/{username}");
    let change = json!({ "status": status });
    client
        .ask::<Value>(Method::PATCH, &path, Some(&change))
        .map(drop)
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let of_request = ["already-exists", "forbidden", "invalid", "not-found"];
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
