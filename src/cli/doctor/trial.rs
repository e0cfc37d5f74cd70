//! The temporary credential: made for one examination and deleted with it, however that ends.

use crate::auth::issue::{Issued, New, issue};
use crate::auth::password::Cost;
use crate::cli::CliError;
use crate::cli::output::complain;
use crate::sasl::Secret;
use crate::store::{Actor, CredentialFilter, Page, Store};

/// What it is called, for whoever finds it.
pub const NAME: &str = "gatepost doctor, temporary, safe to delete";

/// How long it could be used if it outlived the examination (kill -9, power loss), in milliseconds.
const LIFETIME: i64 = 10 * 60 * 1000;

/// A credential that is deleted when this is dropped.
pub struct Trial<'a> {
    store: &'a Store,
    actor: &'a Actor,
    issued: Issued,
    deleted: bool,
}

impl<'a> Trial<'a> {
    /// Makes one. What an examination that was killed left behind goes first.
    pub fn make(
        store: &'a Store,
        actor: &'a Actor,
        organization: &str,
        cost: Cost,
    ) -> Result<Self, CliError> {
        let now = crate::clock::now_ms();
        delete_leftovers(store, actor, now)?;
        let new = New {
            organization,
            name: Some(NAME),
            expires_at: Some(now + LIFETIME),
            limits: None,
            rules: None,
        };
        Ok(Self {
            issued: issue(store, store.by(actor), cost, new)?,
            store,
            actor,
            deleted: false,
        })
    }

    /// What to log in with.
    pub fn username(&self) -> &str {
        &self.issued.credential.username
    }

    /// What to log in with.
    pub fn password(&self) -> &Secret {
        &self.issued.password
    }

    /// Deletes it and what is known of its use.
    ///
    /// # Errors
    /// The store does not take that; then it is tried once more when this is dropped.
    pub fn delete(mut self) -> Result<(), CliError> {
        self.erase()
    }

    fn erase(&mut self) -> Result<(), CliError> {
        let editor = self.store.by(self.actor);
        let username = self.issued.credential.username.as_str();
        editor.erase_credential(username.into())?;
        self.deleted = true;
        Ok(())
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.deleted {
            return;
        }
        if let Err(error) = self.erase() {
            complain(&format!(
                "the temporary credential could not be deleted: {error}\n\
                 it is refused in ten minutes; delete it with: gatepost credential delete {}",
                self.username()
            ));
        }
    }
}

/// Only what nobody can use any more: another doctor may be at work just now.
fn delete_leftovers(store: &Store, actor: &Actor, now: i64) -> Result<(), CliError> {
    let filter = CredentialFilter {
        text: Some(NAME),
        ..CredentialFilter::default()
    };
    for found in store.credentials(filter, Page::ALL)?.rows {
        let ours = found.name.as_deref() == Some(NAME);
        if ours && found.expires_at.is_some_and(|end| end < now) {
            let username = found.username.as_str();
            store.by(actor).erase_credential(username.into())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{CredentialEdit, DEFAULT_ORGANIZATION};

    const CHEAP: Cost = Cost {
        memory_kib: 8,
        iterations: 1,
        lanes: 1,
    };

    #[test]
    fn it_is_gone_when_it_goes_out_of_sight_and_an_expired_one_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        let actor = Actor::system("tests");
        let all = || {
            let found = store.credentials(CredentialFilter::default(), Page::ALL);
            found.unwrap().rows.len()
        };
        let make = || Trial::make(&store, &actor, DEFAULT_ORGANIZATION, CHEAP).unwrap();
        drop(make());
        assert_eq!(all(), 0);

        // Killed: nothing was dropped.
        let mut killed = make();
        killed.deleted = true;
        make().delete().unwrap();
        assert_eq!(all(), 1, "one that may still be in use stays");
        let expired = CredentialEdit {
            expires_at: Some(Some(1)),
            ..CredentialEdit::default()
        };
        let editor = store.by(&actor);
        editor
            .edit_credential(killed.username().into(), expired)
            .unwrap();
        drop(make());
        assert_eq!(all(), 0);
    }
}
