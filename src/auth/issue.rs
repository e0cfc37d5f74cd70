//! New credentials and new passwords: purely random, shown once, stored only as a hash.

use std::borrow::Cow;

use rand::distr::{Alphanumeric, SampleString};
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use thiserror::Error;

use super::password::{self, Cost, HashError};
use crate::policy::{Limits, Rules};
use crate::sasl::Secret;
use crate::store::{
    Credential, Editor, Kind, NewCredential, NewPassword, Overlap, Rotated, Rotation, Store,
    StoreError, Wanted,
};

const USERNAME_PREFIX: &str = "smtp_";

/// Random characters in a username: 95 bits, too many to guess.
const USERNAME_LENGTH: usize = 16;

/// Random characters in a password: 190 bits.
const PASSWORD_LENGTH: usize = 32;

/// The longest overlap of an old and a new password, in milliseconds: 31 days.
pub(crate) const LONGEST_OVERLAP: i64 = 31 * 24 * 3_600_000;

/// A second collision of 95-bit names in a row is not chance.
const ATTEMPTS: u32 = 3;

/// A credential with the only copy of its password.
#[derive(Debug)]
pub struct Issued {
    pub credential: Credential,
    /// `sk_` and 32 characters; nowhere else.
    pub password: Secret,
    /// The fate of earlier passwords; `None` for a new credential.
    pub rotation: Option<Rotation>,
}

/// The properties of a new credential.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    pub organization: &'a str,
    pub name: Option<&'a str>,
    /// In Unix milliseconds.
    pub expires_at: Option<i64>,
    pub limits: Option<&'a Limits>,
    pub rules: Option<&'a Rules>,
}

/// Why nothing was issued.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The configured cost cannot be paid.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Creates a credential. Blocks for an argon2 and a commit.
///
/// # Errors
/// The organization is unknown, the name is not allowed, or hashing or the store fails; nothing is
/// created then.
pub fn issue(store: &Store, editor: Editor, cost: Cost, new: New) -> Result<Issued, IssueError> {
    // Before the cost of an argon2.
    editor.require_first()?;
    store.organization(new.organization)?;
    let password = Password::generate(cost, store)?;
    let mut attempt = 1;
    loop {
        let created = editor.create_credential(NewCredential {
            username: &random(USERNAME_PREFIX, USERNAME_LENGTH),
            password_hash: &password.hash,
            tag: Some(password.tag),
            organization: new.organization,
            name: new.name,
            expires_at: new.expires_at,
            limits: new.limits,
            rules: new.rules,
        });
        match created {
            Err(StoreError::AlreadyExists {
                kind: Kind::Credential,
                ..
            }) if attempt < ATTEMPTS => {
                attempt += 1;
            }
            created => {
                return Ok(Issued {
                    credential: created?,
                    password: password.secret,
                    rotation: None,
                });
            }
        }
    }
}

/// Replaces the password. `overlap` decides about the old one. Blocks like [`issue`].
///
/// # Errors
/// The username is unknown, or hashing or the store fails; the old password stays then.
pub(crate) fn rotate(
    store: &Store,
    editor: Editor,
    cost: Cost,
    wanted: Wanted,
    overlap: Overlap,
) -> Result<Issued, IssueError> {
    // Before the cost of an argon2.
    editor.require_first()?;
    store.credential(wanted)?;
    let password = Password::generate(cost, store)?;
    let rotated = editor.set_password(wanted, password.stored(overlap))?;
    Ok(password.issued(rotated))
}

/// A password before its storage.
pub(crate) struct Password {
    secret: Secret,
    hash: String,
    tag: u32,
}

impl Password {
    /// The form for the store.
    pub(crate) fn stored(&self, overlap: Overlap) -> NewPassword<'_> {
        NewPassword {
            hash: &self.hash,
            tag: Some(self.tag),
            overlap,
        }
    }

    /// Joins the stored row and the password.
    pub(crate) fn issued(self, rotated: Rotated) -> Issued {
        Issued {
            credential: rotated.credential,
            password: self.secret,
            rotation: Some(rotated.rotation),
        }
    }

    /// Blocks for an argon2.
    ///
    /// # Errors
    /// The configured cost cannot be paid.
    pub(crate) fn generate(cost: Cost, store: &Store) -> Result<Password, HashError> {
        let secret = Secret::new(random("sk_", PASSWORD_LENGTH));
        Ok(Password {
            hash: password::hash(&secret, cost)?,
            tag: store.tag(secret.expose()),
            secret,
        })
    }
}

/// Whether a username has the form of generated usernames, which cannot be guessed.
pub(crate) fn is_generated(username: &str) -> bool {
    let random = username.strip_prefix(USERNAME_PREFIX);
    random.is_some_and(|random| {
        random.len() == USERNAME_LENGTH && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// The lower-case form of a username, for stores that ignore case. Only ASCII letters fold, as in
/// Dovecot. Generated usernames stay as they are.
pub(crate) fn folded(username: &str) -> Cow<'_, str> {
    let is_folded = !username.bytes().any(|byte| byte.is_ascii_uppercase());
    match is_folded || is_generated(username) {
        true => Cow::Borrowed(username),
        false => Cow::Owned(username.to_ascii_lowercase()),
    }
}

/// `prefix` and `length` characters of [0-9A-Za-z], uniform from the operating system's generator.
pub(crate) fn random(prefix: &str, length: usize) -> String {
    // On Linux getrandom never fails after boot, and nothing sensible can be done without
    // randomness.
    let mut generator = UnwrapErr(SysRng);
    // Reserved at once: a reallocation would leave a copy behind.
    let mut text = String::with_capacity(prefix.len() + length);
    text.push_str(prefix);
    Alphanumeric.append_string(&mut generator, &mut text, length);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::store::{Actor, CredentialFilter, CredentialStatus, Page};

    const CHEAP: Cost = Cost {
        memory_kib: 8,
        iterations: 1,
        lanes: 1,
    };

    #[test]
    fn generated_usernames_differ_from_chosen_usernames() {
        for _ in 0..10 {
            assert!(is_generated(&random(USERNAME_PREFIX, USERNAME_LENGTH)));
        }
        for chosen in [
            "",
            "smtp_",
            "printer@example.test",
            "smtp_0123456789abcde",
            "smtp_0123456789abcdef0",
            "smtp_0123456789abcde.",
            "SMTP_0123456789abcdef",
        ] {
            assert!(!is_generated(chosen), "{chosen}");
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        (directory, store)
    }

    fn issued(store: &Store, organization: &str, name: Option<&str>) -> Result<Issued, IssueError> {
        let new = New {
            organization,
            name,
            expires_at: None,
            limits: None,
            rules: None,
        };
        issue(store, store.by(&Actor::system("tests")), CHEAP, new)
    }

    fn rotated(store: &Store, username: &str) -> Result<Issued, IssueError> {
        rotate(
            store,
            store.by(&Actor::system("tests")),
            CHEAP,
            username.into(),
            Overlap::Nothing,
        )
    }

    fn text(secret: &Secret) -> String {
        String::from_utf8(secret.expose().to_vec()).unwrap()
    }

    #[test]
    fn names_and_passwords_have_their_promised_form() {
        let (_directory, store) = store();
        let issued = issued(&store, "default", Some("Printer")).unwrap();
        let (username, password) = (&issued.credential.username, text(&issued.password));
        for (value, prefix, length) in [(username, "smtp_", 16), (&password, "sk_", 32)] {
            let rest = value.strip_prefix(prefix).unwrap();
            assert_eq!(rest.len(), length);
            assert!(
                rest.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{value}"
            );
        }
        assert_eq!(issued.credential.name.as_deref(), Some("Printer"));
        assert_eq!(issued.credential.status, CredentialStatus::Active);
    }

    #[test]
    fn every_character_occurs_about_equally_often() {
        let sample = random("", 62 * 1_000);
        for character in ('0'..='9').chain('A'..='Z').chain('a'..='z') {
            let times = sample.matches(character).count();
            // Eight standard deviations: fails by chance less than once in 10^13 runs.
            assert!(
                (750..1_250).contains(&times),
                "{character:?} came {times} times"
            );
        }
        let many: HashSet<String> = (0..1_000).map(|_| random("", 16)).collect();
        assert_eq!(many.len(), 1_000);
    }

    #[test]
    fn only_a_hash_and_a_tag_of_the_password_are_stored() {
        let (directory, store) = store();
        let issued = issued(&store, "default", None).unwrap();
        let login = store.lookup(&issued.credential.username).unwrap().unwrap();
        let password = text(&issued.password);
        assert!(
            login
                .password_hash
                .starts_with("$argon2id$v=19$m=8,t=1,p=1$")
        );
        assert_eq!(login.tag, Some(store.tag(password.as_bytes())));
        for file in directory.path().read_dir().unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let secret = &password.as_bytes()["sk_".len()..];
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
        assert!(!format!("{issued:?}").contains(&password));
    }

    #[test]
    fn rotating_changes_the_password_and_keeps_the_username() {
        let (_directory, store) = store();
        let first = issued(&store, "default", None).unwrap();
        let username = &first.credential.username;
        let before = store.lookup(username).unwrap().unwrap();
        let second = rotated(&store, username).unwrap();
        let after = store.lookup(username).unwrap().unwrap();
        assert_eq!(second.credential.id, first.credential.id);
        assert_ne!(text(&second.password), text(&first.password));
        assert_eq!(after.tag, Some(store.tag(second.password.expose())));
        assert_ne!(after.password_hash, before.password_hash);
        assert!(after.version > before.version);
        assert!(second.credential.rotated_at.is_some());
    }

    #[test]
    fn nothing_is_issued_for_what_is_not_there() {
        let (_directory, store) = store();
        assert!(issued(&store, "acme", None).is_err());
        assert!(issued(&store, "default", Some("two\nlines")).is_err());
        assert!(rotated(&store, "smtp_nobody").is_err());
        assert!(
            store
                .credentials(CredentialFilter::default(), Page::ALL)
                .unwrap()
                .rows
                .is_empty()
        );
    }
}
