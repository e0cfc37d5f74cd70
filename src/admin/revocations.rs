//! Revocations that count although they could not be written: memory first, then the commit, and where that fails, again and
//! again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::auth::denial::Denials;
use crate::store::{
    Actor, Credential, CredentialEdit, CredentialStatus, Fault, Store, StoreError, Wanted,
};

use super::problem::Problem;

/// The pause before a revocation is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why a change is not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// It counts all the same.
    Effective,
    /// It was refused, and nothing has changed.
    Refused(StoreError),
}

impl From<Unwritten> for Problem {
    fn from(unwritten: Unwritten) -> Problem {
        match unwritten {
            Unwritten::Effective => Problem::not_durable(),
            Unwritten::Refused(error) => error.into(),
        }
    }
}

/// The revocations that are not written yet, and who asked for each.
pub(super) struct Revocations {
    denials: Arc<Denials>,
    /// Locked while anything is written about a credential's status, so that a late revocation never undoes what was asked
    /// for after it.
    unwritten: Mutex<BTreeMap<String, Actor>>,
    added: Notify,
}

impl Revocations {
    pub(super) fn new(denials: Arc<Denials>) -> Revocations {
        Revocations {
            denials,
            unwritten: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// Changes a credential. If that revokes it, it is refused from this call on, whether that can be written or not.
    pub(super) fn edit(
        &self,
        store: &Store,
        actor: &Actor,
        wanted: Wanted,
        edit: CredentialEdit,
    ) -> Result<Credential, Unwritten> {
        let Some(status) = edit.status else {
            let edited = store.by(actor).edit_credential(wanted, edit);
            return edited.map_err(Unwritten::Refused);
        };
        let mut unwritten = self.lock();
        let revokes = status == CredentialStatus::Revoked;
        // Nobody may have a name refused that is not theirs to revoke. The store says so where it can be written; where it
        // cannot, that is all there is to be asked.
        let is_theirs = || {
            store.credential(wanted)?;
            store.by(actor).may_change()
        };
        if revokes && let Err(error) = is_theirs() {
            return Err(Unwritten::Refused(error));
        }
        if revokes {
            self.denials.deny(wanted.username);
        }
        match store.by(actor).edit_credential(wanted, edit) {
            Ok(credential) => {
                unwritten.remove(wanted.username);
                self.denials.lift(wanted.username);
                Ok(credential)
            }
            Err(error) if revokes && error.fault() == Fault::Machine => {
                tracing::error!(username = wanted.username, %error, "revoked, but that cannot be written yet; trying again every second");
                // It was asked for by a valid token, and stays asked for when that is one no more.
                let actor = Actor {
                    token: None,
                    ..actor.clone()
                };
                unwritten.insert(wanted.username.to_owned(), actor);
                self.added.notify_one();
                Err(Unwritten::Effective)
            }
            Err(error) => {
                if !unwritten.contains_key(wanted.username) {
                    self.denials.lift(wanted.username);
                }
                Err(Unwritten::Refused(error))
            }
        }
    }

    /// The credential is gone.
    pub(super) fn forget(&self, username: &str) {
        self.lock().remove(username);
        self.denials.lift(username);
    }

    /// Resolves when there is something to write, some time after it failed last.
    pub(super) async fn due(&self) {
        if self.lock().is_empty() {
            self.added.notified().await;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }

    /// Tries to write what is not written.
    pub(super) fn write(&self, store: &Store) {
        let mut unwritten = self.lock();
        unwritten.retain(|username, actor| {
            let revoke = CredentialEdit {
                status: Some(CredentialStatus::Revoked),
                ..CredentialEdit::default()
            };
            match store
                .by(actor)
                .edit_credential(username.as_str().into(), revoke)
            {
                Ok(_) => tracing::info!(username, "the revocation is written now"),
                Err(error) if error.fault() == Fault::Machine => return true,
                Err(error) => tracing::info!(username, %error, "there is nothing left to revoke"),
            }
            self.denials.lift(username);
            false
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Actor>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
