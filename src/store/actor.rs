//! Who makes a change: what the audit log says of them.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Transaction, params};

use super::error::Stop;
use super::{Batch, Store, StoreError, now};

/// Who makes a change, and from where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor {
    /// How they came.
    pub kind: ActorKind,
    /// The token's name and id, the user, the person, or what in the system it was.
    pub name: String,
    /// The client's IP address, for who came over TCP.
    pub address: Option<String>,
    /// The [`super::Token::key`] of the token that was shown. It has to be valid still when the change is made.
    pub token: Option<i64>,
}

/// How somebody came to make a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ActorKind {
    /// By the command line; the name is the user's.
    Cli,
    /// Signed in by a trusted reverse proxy; the name is the person's.
    Person,
    /// Over the admin unix socket; the name is the user id as far as it can be seen.
    Socket,
    /// Gatepost itself.
    System,
    /// With a bearer token.
    Token,
}

impl Actor {
    /// Somebody at the command line.
    pub fn cli(user: impl Into<String>) -> Actor {
        Actor {
            kind: ActorKind::Cli,
            name: user.into(),
            address: None,
            token: None,
        }
    }

    /// Gatepost itself, in the part that is named.
    pub fn system(part: impl Into<String>) -> Actor {
        Actor {
            kind: ActorKind::System,
            name: part.into(),
            address: None,
            token: None,
        }
    }
}

/// A request that is carried out only once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Once {
    /// The name that the caller gave it.
    pub key: String,
    /// A hash of all that it asks for.
    pub request: [u8; 32],
}

impl From<&str> for Once {
    /// Of a caller that uses each key for one request.
    fn from(key: &str) -> Once {
        Once {
            key: key.to_owned(),
            request: [0; 32],
        }
    }
}

/// The store as somebody changes it. Whatever it changes is in the audit log by the same commit.
#[derive(Clone, Copy, Debug)]
pub struct Editor<'a> {
    pub(super) store: &'a Store,
    pub(super) actor: &'a Actor,
    /// Under what key the request may not be repeated.
    pub(super) once: Option<&'a Once>,
    /// The transaction that the change is a part of, if it has none of its own.
    pub(super) within: Option<&'a Batch<'a>>,
}

impl Store {
    /// Changes are made by somebody.
    pub fn by<'a>(&'a self, actor: &'a Actor) -> Editor<'a> {
        Editor {
            store: self,
            actor,
            once: None,
            within: None,
        }
    }
}

impl<'a> Editor<'a> {
    /// Makes the next change only once within a day: the same request again fails with
    /// [`StoreError::Repeated`], another one with the same key with [`StoreError::KeyReused`].
    pub fn once(self, once: Option<&'a Once>) -> Editor<'a> {
        Editor { once, ..self }
    }

    /// For a change that is none of the store's: whether the actor may still make one.
    ///
    /// # Errors
    /// [`StoreError::TokenInvalid`] if not; or the store cannot be read.
    pub fn may_change(&self) -> Result<(), StoreError> {
        self.store.read(|connection| self.still_valid(connection))
    }

    /// [`Store::change`], if the actor may still make one.
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        let checked = |transaction: &Transaction| {
            self.still_valid(transaction)?;
            work(transaction)
        };
        match self.within {
            Some(batch) => batch.part(checked),
            None => self.store.change(checked),
        }
    }

    /// [`Store::write`], if the actor may still make a change.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction) -> Result<T, Stop>,
    ) -> Result<T, StoreError> {
        let checked = |transaction: &Transaction| {
            self.still_valid(transaction)?;
            work(transaction)
        };
        match self.within {
            Some(batch) => batch.part(checked),
            None => self.store.write(checked),
        }
    }

    /// Some time passes between the look at a token and the change: a body comes slowly, the store is busy. Whoever revokes
    /// the token meanwhile must not find changes by it afterwards.
    fn still_valid(&self, connection: &Connection) -> Result<(), Stop> {
        let Some(key) = self.actor.token else {
            return Ok(());
        };
        if self.store.narrowings.revoke_token(key) {
            return Err(StoreError::TokenInvalid.into());
        }
        let is_valid: bool = connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM admin_tokens WHERE key = ?1 AND revoked_at IS NULL
                 AND (expires_at IS NULL OR expires_at > ?2))",
            params![key, now()],
            |row| row.get(0),
        )?;
        match is_valid {
            true => Ok(()),
            false => Err(StoreError::TokenInvalid.into()),
        }
    }
}

impl ActorKind {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            ActorKind::Cli => "cli",
            ActorKind::Person => "person",
            ActorKind::Socket => "socket",
            ActorKind::System => "system",
            ActorKind::Token => "token",
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl FromSql for ActorKind {
    fn column_result(value: ValueRef) -> FromSqlResult<ActorKind> {
        match value.as_str()? {
            "cli" => Ok(ActorKind::Cli),
            "person" => Ok(ActorKind::Person),
            "socket" => Ok(ActorKind::Socket),
            "system" => Ok(ActorKind::System),
            "token" => Ok(ActorKind::Token),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for ActorKind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}
