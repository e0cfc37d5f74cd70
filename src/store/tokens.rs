//! Admin tokens: who may use the admin API, and for what.

use std::fmt;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::json;
use uuid::Uuid;

use super::audit::{Event, record};
use super::credentials::id;
use super::error::Stop;
use super::text::composed;
use super::{Editor, Kind, Page, Rows, Store, StoreError, name, now, organizations};

/// A token as an administrator sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// The row, which uses are noted under.
    pub key: i64,
    /// UUIDv7.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Unix milliseconds, as all times here.
    pub created_at: i64,
    /// From when on it is refused.
    pub expires_at: Option<i64>,
    /// Since when it is revoked, if it is.
    pub revoked_at: Option<i64>,
    /// When it was last used, as far as that is flushed.
    pub last_used_at: Option<i64>,
    /// The IP address it was last used from; none for the unix socket.
    pub last_used_address: Option<String>,
}

/// What somebody may do, and with what.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scope {
    /// The slug of the only organization it concerns; `None` is all of them, and the instance itself.
    pub organization: Option<String>,
    /// Look, or change as well.
    pub access: Access,
}

/// Look, or change as well.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Access {
    /// Look.
    Read,
    /// Look and change.
    Admin,
}

impl Scope {
    /// Everything.
    pub const INSTANCE_ADMIN: Scope = Scope {
        organization: None,
        access: Access::Admin,
    };

    /// Whether whoever has this may do all that `other` allows.
    pub fn covers(&self, other: &Scope) -> bool {
        let wide = self.organization.is_none() || self.organization == other.organization;
        wide && self.access >= other.access
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.organization {
            None => write!(f, "instance:{}", self.access.as_str()),
            Some(slug) => write!(f, "org:{slug}:{}", self.access.as_str()),
        }
    }
}

impl std::str::FromStr for Scope {
    /// What would be one.
    type Err = String;

    fn from_str(text: &str) -> Result<Scope, String> {
        let wrong = || {
            format!(
                "scope {text:?}: write instance:admin, instance:read, org:SLUG:admin or org:SLUG:read"
            )
        };
        let (what, access) = text.rsplit_once(':').ok_or_else(wrong)?;
        let access = match access {
            "admin" => Access::Admin,
            "read" => Access::Read,
            _ => return Err(wrong()),
        };
        let organization = match what.split_once(':') {
            None if what == "instance" => None,
            Some(("org", slug)) if name::check_slug(slug).is_ok() => Some(slug.to_owned()),
            _ => return Err(wrong()),
        };
        Ok(Scope {
            organization,
            access,
        })
    }
}

/// What a token starts with.
#[derive(Clone, Copy, Debug)]
pub struct NewToken<'a> {
    /// What people call it.
    pub name: &'a str,
    /// blake3 of the token.
    pub hash: &'a [u8; 32],
    /// What it may do.
    pub scope: &'a Scope,
    /// From when on it is refused, in Unix milliseconds.
    pub expires_at: Option<i64>,
}

impl Token {
    /// Whether it may be used at `now_ms`.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now_ms)
    }
}

impl Store {
    /// The token with this hash, whether it may be used or not.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn token_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Token>, StoreError> {
        let found = self.read(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("{SELECT} WHERE t.hash = ?1"))?;
            Ok(statement.query_row([hash], token).optional()?)
        })?;
        Ok(found.filter(|token| {
            let organization = token.scope.organization.as_deref();
            !self.narrowings.revoke_token(token.key)
                && !organization.is_some_and(|slug| self.narrowings.delete_organization(slug))
        }))
    }

    /// The token with this id, or with this name if no other valid one has the same; whether it may be used or not.
    ///
    /// # Errors
    /// There is no such token, several have the name, or the store cannot be read.
    pub fn token(&self, which: &str) -> Result<Token, StoreError> {
        self.read(|connection| find(connection, which))
    }

    /// The tokens, those of one organization only if given, in the order in which they were made.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn tokens(
        &self,
        organizations: Option<&[String]>,
        page: Page,
    ) -> Result<Rows<Token>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "{SELECT} WHERE t.key > ?1 AND (?2 IS NULL OR o.slug IN (SELECT value FROM json_each(?2)))
                 ORDER BY t.key LIMIT ?3"
            ))?;
            let slugs = organizations.map(|slugs| serde_json::json!(slugs).to_string());
            let wanted = params![page.after.unwrap_or(0), slugs, page.fetch()];
            let rows = statement.query_map(wanted, token)?;
            let rows: Vec<_> = rows.collect::<Result<_, _>>()?;
            Ok(Rows::cut(rows, page, |token| token.key))
        })
    }

    /// Whether there is no token at all.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has_no_tokens(&self) -> Result<bool, StoreError> {
        self.read(|connection| {
            let sql = "SELECT NOT EXISTS (SELECT 1 FROM admin_tokens)";
            Ok(connection.query_row(sql, [], |row| row.get(0))?)
        })
    }
}

impl Editor<'_> {
    /// Adds a token.
    ///
    /// # Errors
    /// The name is not allowed, the organization unknown, the request repeated, or the store cannot be written.
    pub fn create_token(&self, new: NewToken) -> Result<Token, StoreError> {
        let name = composed(new.name);
        name::check_name(Some(&name))?;
        self.write(|transaction| {
            let slug = new.scope.organization.as_deref();
            let organization = slug
                .map(|slug| organizations::key(transaction, slug))
                .transpose()?;
            let id = Uuid::now_v7();
            self.only_once(transaction, id)?;
            transaction.execute(
                "INSERT INTO admin_tokens (id, name, hash, organization, access, created_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    id.to_string(),
                    name,
                    new.hash,
                    organization,
                    new.scope.access,
                    now(),
                    new.expires_at
                ],
            )?;
            let made = find(transaction, &id.to_string())?;
            self.note_token(transaction, "token.create", &made)?;
            Ok(made)
        })
    }

    /// Revokes a token for good, given its id, or its name if no other valid one has the same. One that is revoked already
    /// stays so. In `organization`, only its own tokens are found.
    ///
    /// # Errors
    /// There is no such token, several have the name, or the store cannot be written.
    pub fn revoke_token(
        &self,
        which: &str,
        organization: Option<&str>,
    ) -> Result<Token, StoreError> {
        self.write(|transaction| {
            let found = find(transaction, which)?;
            if organization.is_some() && organization != found.scope.organization.as_deref() {
                return Err(StoreError::not_found(Kind::Token, which).into());
            }
            if found.revoked_at.is_some() {
                return Ok(found);
            }
            transaction.execute(
                "UPDATE admin_tokens SET revoked_at = ?2 WHERE key = ?1",
                params![found.key, now()],
            )?;
            self.note_token(transaction, "token.revoke", &found)?;
            find(transaction, &found.id.to_string())
        })
    }

    fn note_token(
        &self,
        transaction: &Transaction,
        action: &str,
        token: &Token,
    ) -> Result<(), Stop> {
        let told = json!({
            "name": token.name,
            "scope": token.scope.to_string(),
            "expires_at": token.expires_at,
        });
        let event = Event {
            action,
            object: &token.id.to_string(),
            organization: token.scope.organization.as_deref(),
            before: None,
            after: Some(told),
        };
        record(transaction, self.actor, event)
    }
}

const SELECT: &str = "
    SELECT t.key, t.id, t.name, o.slug, t.access, t.created_at, t.expires_at, t.revoked_at, t.last_used_at,
           t.last_used_address
    FROM admin_tokens t LEFT JOIN organizations o ON o.key = t.organization";

fn find(connection: &Connection, which: &str) -> Result<Token, Stop> {
    // What is written as an id is one and never a name: names are free, and whoever gave a token the id of another for a
    // name would keep that one from being found, or be found in its place.
    let id = Uuid::parse_str(which).ok();
    let condition = match id {
        Some(_) => "t.id = ?1 AND ?2 IS NOT NULL",
        None => "t.name IN (?1, ?2) AND t.revoked_at IS NULL",
    };
    let written = id.map_or_else(|| which.to_owned(), |id| id.to_string());
    let mut statement =
        connection.prepare_cached(&format!("{SELECT} WHERE {condition} LIMIT 2"))?;
    // A name that an older Gatepost stored may be in the other spelling.
    let rows = statement.query_map([&*written, &composed(which)], token)?;
    let mut rows: Vec<_> = rows.collect::<Result<_, _>>()?;
    match (rows.pop(), rows.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(StoreError::Invalid(format!(
            "several tokens are called {which:?}: name one by its id"
        ))
        .into()),
        (None, _) => Err(StoreError::not_found(Kind::Token, which).into()),
    }
}

/// Reads a row of [`SELECT`].
fn token(row: &Row) -> rusqlite::Result<Token> {
    Ok(Token {
        key: row.get(0)?,
        id: id(row.get_ref(1)?)?,
        name: row.get(2)?,
        scope: Scope {
            organization: row.get(3)?,
            access: row.get(4)?,
        },
        created_at: row.get(5)?,
        expires_at: row.get(6)?,
        revoked_at: row.get(7)?,
        last_used_at: row.get::<_, Option<i64>>(8)?.map(|at| at.min(now())),
        last_used_address: row.get(9)?,
    })
}

impl Access {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Admin => "admin",
        }
    }
}

impl FromSql for Access {
    fn column_result(value: ValueRef) -> FromSqlResult<Access> {
        match value.as_str()? {
            "admin" => Ok(Access::Admin),
            "read" => Ok(Access::Read),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl ToSql for Access {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fixture;
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    fn new<'a>(hash: &'a [u8; 32], scope: &'a Scope) -> NewToken<'a> {
        NewToken {
            name: "deploy",
            hash,
            scope,
            expires_at: Some(1_000),
        }
    }

    #[test]
    fn scopes_are_written_as_they_are_read() {
        for text in [
            "instance:admin",
            "instance:read",
            "org:acme:admin",
            "org:default:read",
        ] {
            assert_eq!(scope(text).to_string(), text);
        }
        for text in [
            "",
            "admin",
            "instance",
            "instance:write",
            "org:admin",
            "org::read",
            "org:A:read",
            "org:a:b:read",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_scope_covers_what_is_not_stronger() {
        let covers = |a: &str, b: &str| scope(a).covers(&scope(b));
        for (strong, weak) in [
            ("instance:admin", "instance:read"),
            ("instance:admin", "org:acme:admin"),
            ("instance:read", "org:acme:read"),
            ("org:acme:admin", "org:acme:read"),
        ] {
            assert!(
                covers(strong, weak) && covers(strong, strong),
                "{strong} {weak}"
            );
            assert!(!covers(weak, strong), "{weak} {strong}");
        }
        assert!(!covers("instance:read", "org:acme:admin"));
        assert!(!covers("org:acme:admin", "org:beta:read"));
    }

    #[test]
    fn a_token_is_found_by_its_hash_until_it_is_revoked_or_expires() {
        let store = Fixture::new();
        let scope = scope("org:default:admin");
        let made = store.edit().create_token(new(&[7; 32], &scope)).unwrap();
        assert_eq!(store.token_by_hash(&[7; 32]).unwrap().as_ref(), Some(&made));
        assert_eq!(store.token_by_hash(&[8; 32]).unwrap(), None);
        assert!(made.is_valid(999) && !made.is_valid(1_000));
        let revoked = store.edit().revoke_token("deploy", None).unwrap();
        assert!(!revoked.is_valid(0));
        assert_eq!(
            store
                .edit()
                .revoke_token(&made.id.to_string(), None)
                .unwrap(),
            revoked
        );
        assert!(
            store.edit().revoke_token("deploy", None).is_err(),
            "a revoked name may be used again"
        );
    }

    #[test]
    fn a_name_that_several_have_is_refused() {
        let store = Fixture::new();
        let scope = scope("instance:read");
        let first = store.edit().create_token(new(&[1; 32], &scope)).unwrap();
        store.edit().create_token(new(&[2; 32], &scope)).unwrap();
        let error = store.edit().revoke_token("deploy", None).unwrap_err();
        assert!(matches!(error, StoreError::Invalid(_)), "{error}");
        store
            .edit()
            .revoke_token(&first.id.to_string(), None)
            .unwrap();
        store.edit().revoke_token("deploy", None).unwrap();
    }

    #[test]
    fn a_token_named_by_the_id_of_another_does_not_hide_it() {
        let store = Fixture::new();
        let edit = || store.edit();
        let scope = scope("instance:read");
        let first = edit().create_token(new(&[1; 32], &scope)).unwrap();
        let id = first.id.to_string();
        let shadow = NewToken {
            name: &id,
            ..new(&[2; 32], &scope)
        };
        edit().create_token(shadow).unwrap();
        assert_eq!(edit().revoke_token(&id, None).unwrap().id, first.id);
        assert_eq!(store.token(&id).unwrap().id, first.id);
        let capitals = id.to_uppercase();
        assert_eq!(store.token(&capitals).unwrap().id, first.id);
        store.shell(&format!("DELETE FROM admin_tokens WHERE id = '{id}'"));
        assert!(store.token(&id).is_err(), "a name in the place of an id");
    }

    #[test]
    fn the_tokens_of_others_are_not_found_and_go_with_their_organization() {
        let store = Fixture::new();
        store.edit().create_organization("acme", None).unwrap();
        store
            .edit()
            .create_token(new(&[1; 32], &scope("org:acme:read")))
            .unwrap();
        let instance = store
            .edit()
            .create_token(new(&[2; 32], &Scope::INSTANCE_ADMIN))
            .unwrap();
        assert!(
            store
                .edit()
                .revoke_token(&instance.id.to_string(), Some("acme"))
                .is_err()
        );
        assert_eq!(
            store
                .tokens(Some(&["acme".to_owned()]), Page::ALL)
                .unwrap()
                .rows
                .len(),
            1
        );
        store
            .edit()
            .delete_organization("acme", None, false)
            .unwrap();
        assert_eq!(store.tokens(None, Page::ALL).unwrap().rows, [instance]);
        assert!(!store.has_no_tokens().unwrap());
    }
}
