//! Changes of credentials, organizations and tokens. What takes access away counts in memory first
//! and is answered within a second; what gives access waits for its commit.

use std::sync::Arc;

use crate::auth::issue::{self, Issued, Password};
use crate::clock;
use crate::policy::{LimitsChange, RulesChange};
use crate::store::{
    Access, Actor, Aspect, Credential, CredentialEdit, CredentialStatus, Effect, Kind, Login,
    Narrowing, NarrowingKey, Object, Once, Organization, OrganizationEdit, OrganizationStatus,
    Overlap, Rotation, StoreError, Token, Wanted,
};

use super::caller::Caller;
use super::desk::{Desk, System};
use super::problem::Problem;
use super::revocations::{Ticket, Unwritten};

const REFUSED: &str = "the credential is refused from now on";
const DELETED: &str = "the credential is as good as deleted and refused from now on";
const NARROWED: &str = "the credential may do no more than that from now on";
const REPLACED: &str = "the old password is refused from now on and no new one was stored: rotate again once the store can be written";
const REPLACED_NEWEST: &str = "the newest password is refused from now on, the one before it keeps its end, and no new one was stored: rotate again once the store can be written";
const SUSPENDED: &str = "every credential of the organization is refused from now on";
const UNTRUSTED: &str = "the token is refused from now on";

/// Which credential, for as long as a change takes.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) username: String,
    pub(super) organization: Option<String>,
    pub(super) revisions: Option<Vec<String>>,
}

/// What to change of a credential, for as long as that takes.
#[derive(Clone, Default)]
pub(super) struct Edit {
    pub(super) name: Option<Option<String>>,
    pub(super) status: Option<CredentialStatus>,
    pub(super) expires_at: Option<Option<i64>>,
    pub(super) end_overlap: bool,
    pub(super) limits: Option<LimitsChange>,
    pub(super) rules: Option<RulesChange>,
}

/// What to change of an organization, for as long as that takes.
#[derive(Clone, Default)]
pub(super) struct OrganizationChange {
    pub(super) name: Option<Option<String>>,
    pub(super) status: Option<OrganizationStatus>,
    pub(super) limits: Option<LimitsChange>,
}

/// How a change is carried out.
enum Step<T> {
    /// All is so already.
    Done(T),
    /// Something is taken away, and counts.
    Narrows(Ticket),
    /// Nothing counts before the commit.
    Waits,
}

impl Target {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            username: &self.username,
            organization: self.organization.as_deref(),
            revisions: self.revisions.as_deref(),
        }
    }

    fn object(&self) -> Object {
        Object::Credential(self.username.clone())
    }
}

impl Edit {
    pub(super) fn borrowed(&self) -> CredentialEdit<'_> {
        CredentialEdit {
            name: self.name.as_ref().map(Option::as_deref),
            status: self.status,
            expires_at: self.expires_at,
            end_overlap: self.end_overlap,
            limits: self.limits.as_ref(),
            rules: self.rules.as_ref(),
        }
    }

    /// What it gives: unwritten narrowings of the same aspects are undone by it.
    pub(super) fn undone(&self, object: &Object) -> Vec<NarrowingKey> {
        let aspects = [
            (
                Aspect::Status,
                self.status == Some(CredentialStatus::Active),
            ),
            (Aspect::Expiry, self.expires_at.is_some()),
            (Aspect::Limits, self.limits.is_some()),
            (Aspect::Rules, self.rules.is_some()),
        ];
        let undone = aspects.into_iter().filter(|(_, is_undone)| *is_undone);
        undone.map(|(aspect, _)| (object.clone(), aspect)).collect()
    }

    /// Whether a credential is not so already, as it is stored.
    pub(super) fn changes(&self, credential: &Credential) -> bool {
        let differs = |name: &Option<String>| *name != credential.name;
        self.name.as_ref().is_some_and(differs)
            || self
                .status
                .is_some_and(|status| status != credential.status)
            || self
                .expires_at
                .is_some_and(|end| end != credential.expires_at)
            || (self.end_overlap && credential.previous_until.is_some())
            || self.limits.is_some()
            || self.rules.is_some()
    }
}

impl Desk {
    /// Changes a credential.
    pub(super) async fn edit_credential(
        self: &Arc<Self>,
        actor: &Actor,
        target: Target,
        edit: Edit,
        disconnect: bool,
    ) -> Result<Credential, Problem> {
        let undone = edit.undone(&target.object());
        let (by, of, asked) = (actor.clone(), target.clone(), edit.clone());
        let step = self.look_up(move |desk| {
            let (credential, base) = desk.found(&by, &of)?;
            let narrowings = desk.narrowings(&credential, base, &asked)?;
            let step = if !narrowings.is_empty() {
                Step::Narrows(desk.revocations.enter(&by, narrowings))
            } else if asked.changes(&credential) || desk.obeys_any(&asked.undone(&of.object())) {
                return Ok(Step::Waits);
            } else {
                Step::Done(credential)
            };
            if disconnect {
                desk.disconnect_credential(&by, of.wanted());
            }
            Ok(step)
        });
        let (by, of) = (actor.clone(), target);
        let edited = match step.await? {
            Step::Done(credential) => credential,
            Step::Narrows(ticket) => {
                let effective = match edit.status {
                    Some(CredentialStatus::Revoked) => REFUSED,
                    _ => NARROWED,
                };
                let made = ticket.made(undone, move |batch| {
                    let editor = batch.by(&by);
                    editor.edit_credential(of.wanted(), edit.borrowed())
                });
                made.await
                    .map_err(|unwritten| unwritten.problem(effective))?
            }
            Step::Waits => {
                let change = self.change(move |desk| {
                    let edited = desk.revocations.undo(&undone, || {
                        let editor = desk.system.store.by(&by);
                        editor.edit_credential(of.wanted(), edit.borrowed())
                    })?;
                    if disconnect {
                        desk.disconnect_credential(&by, of.wanted());
                    }
                    Ok(edited)
                });
                change.await?
            }
        };
        if disconnect {
            self.revocations.recorded().await;
        }
        Ok(self.up_to_date(edited))
    }

    /// Gives a credential a new password. A password that this refuses is refused before the new one
    /// is made.
    pub(super) async fn rotate(
        self: &Arc<Self>,
        actor: &Actor,
        target: Target,
        overlap_until: Option<i64>,
        disconnect: bool,
        once: Option<Once>,
    ) -> Result<Issued, Problem> {
        let (by, of, key) = (actor.clone(), target.clone(), once.clone());
        let begun = self.look_up(move |desk| {
            let store = &desk.system.store;
            store.by(&by).once(key.as_ref()).require_first()?;
            let (credential, base) = desk.found(&by, &of)?;
            let Some(keeps_previous) = desk.refuses_present(&base, overlap_until)? else {
                return Ok(None);
            };
            let narrowing = Narrowing {
                object: of.object(),
                effect: Effect::ReplacePassword { keeps_previous },
                base: Some(Arc::new(base)),
            };
            let ticket = desk.revocations.enter(&by, vec![narrowing]);
            if disconnect {
                desk.disconnect_credential(&by, of.wanted());
            }
            let used = desk.up_to_date(credential).current_used;
            Ok(Some((ticket, keeps_previous, used)))
        });
        let actor = actor.clone();
        let mut issued = match (begun.await?, overlap_until) {
            (Some((ticket, keeps_previous, used)), _) => {
                let replaced = self.replace_password(ticket, actor, target, keeps_previous, once);
                let mut issued = replaced.await?;
                if let Some(Rotation::Kept { replaced_used }) = &mut issued.rotation {
                    *replaced_used = used;
                }
                issued
            }
            (None, until) => {
                let overlap = until.map_or(Overlap::Nothing, Overlap::Until);
                self.begin_overlap(actor, target, overlap, disconnect, once)
                    .await?
            }
        };
        if disconnect {
            self.revocations.recorded().await;
        }
        self.system.noted.update(&mut issued.credential);
        Ok(issued)
    }

    /// Whether a rotation refuses the present password at once, by all changes that count, and if
    /// so, whether it keeps the previous one.
    fn refuses_present(
        &self,
        base: &Login,
        overlap_until: Option<i64>,
    ) -> Result<Option<bool>, StoreError> {
        if overlap_until.is_none() {
            return Ok(Some(false));
        }
        let effective = self.system.store.lookup(&base.username)?;
        let previous = effective.as_ref().and_then(|login| login.previous.as_ref());
        let is_overlap = previous.is_some_and(|own| own.until > clock::steady_ms());
        let password = (Object::Credential(base.username.clone()), Aspect::Password);
        // A password that is refused already gets no overlap.
        let is_refused = self.system.store.obeys(&password);
        Ok((is_overlap || is_refused).then_some(is_overlap))
    }

    async fn begin_overlap(
        self: &Arc<Self>,
        by: Actor,
        of: Target,
        overlap: Overlap,
        disconnect: bool,
        once: Option<Once>,
    ) -> Result<Issued, Problem> {
        let undone = [Aspect::Password, Aspect::Overlap].map(|aspect| (of.object(), aspect));
        let change = self.change(move |desk| {
            let System { store, cost, .. } = &desk.system;
            let issued = desk.revocations.undo(&undone, || {
                let editor = store.by(&by).once(once.as_ref());
                let mut wanted = of.wanted();
                // The store must not take an overlap for one that runs.
                if store.obeys(&(of.object(), Aspect::Overlap)) {
                    let edit = CredentialEdit {
                        end_overlap: true,
                        ..CredentialEdit::default()
                    };
                    store.by(&by).edit_credential(wanted, edit)?;
                    wanted.revisions = None;
                }
                issue::rotate(store, editor, *cost, wanted, overlap)
            })?;
            if disconnect {
                desk.disconnect_credential(&by, of.wanted());
            }
            Ok(issued)
        });
        change.await
    }

    async fn replace_password(
        self: &Arc<Self>,
        ticket: Ticket,
        by: Actor,
        of: Target,
        keeps_previous: bool,
        once: Option<Once>,
    ) -> Result<Issued, Problem> {
        let (effective, overlap, undone) = match keeps_previous {
            true => (REPLACED_NEWEST, Overlap::Keeps, &[Aspect::Password][..]),
            false => (
                REPLACED,
                Overlap::Nothing,
                &[Aspect::Password, Aspect::Overlap][..],
            ),
        };
        let undone = undone.iter().map(|aspect| (of.object(), *aspect));
        let undone = undone.collect();
        let password = self.hash(|desk| {
            let System { store, cost, .. } = &desk.system;
            Ok(Password::generate(*cost, store).map_err(issue::IssueError::from)?)
        });
        let password = tokio::time::timeout_at(ticket.until(), password).await;
        let Ok(Ok(password)) = password else {
            return Err(Unwritten::Effective.problem(effective));
        };
        let made = ticket.made(undone, move |batch| {
            let editor = batch.by(&by);
            let editor = editor.once(once.as_ref());
            let rotated = editor.set_password(of.wanted(), password.stored(overlap))?;
            Ok(password.issued(rotated))
        });
        made.await.map_err(|unwritten| unwritten.problem(effective))
    }

    /// Deletes a credential.
    pub(super) async fn delete_credential(
        self: &Arc<Self>,
        actor: &Actor,
        target: Target,
        disconnect: bool,
    ) -> Result<(), Problem> {
        let (by, of) = (actor.clone(), target.clone());
        let ticket = self.look_up(move |desk| {
            let (_, base) = desk.found(&by, &of)?;
            let narrowing = Narrowing {
                object: of.object(),
                effect: Effect::Delete { force: false },
                base: Some(Arc::new(base)),
            };
            let ticket = desk.revocations.enter(&by, vec![narrowing]);
            if disconnect {
                desk.disconnect_credential(&by, of.wanted());
            }
            Ok(ticket)
        });
        let (by, of) = (actor.clone(), target);
        // Nothing of it is left to be written.
        let aspects = [
            Aspect::Expiry,
            Aspect::Limits,
            Aspect::Overlap,
            Aspect::Password,
            Aspect::Rules,
            Aspect::Status,
        ];
        let undone = aspects.map(|aspect| (of.object(), aspect)).to_vec();
        let made = ticket.await?.made(undone, move |batch| {
            batch.by(&by).delete_credential(of.wanted())
        });
        made.await.map_err(|unwritten| unwritten.problem(DELETED))
    }

    /// Changes an organization.
    pub(super) async fn edit_organization(
        self: &Arc<Self>,
        actor: &Actor,
        slug: &str,
        revisions: Option<Vec<String>>,
        change: OrganizationChange,
        disconnect: bool,
    ) -> Result<Organization, Problem> {
        let object = Object::Organization(slug.to_owned());
        let undone = match change.status {
            Some(OrganizationStatus::Active) => vec![(object.clone(), Aspect::Status)],
            _ => Vec::new(),
        };
        let (by, of, asked) = (actor.clone(), slug.to_owned(), change.clone());
        let (known, known_undone) = (revisions.clone(), undone.clone());
        let step = self.look_up(move |desk| {
            let store = &desk.system.store;
            let found = store.organization(&of)?;
            found.require(known.as_deref())?;
            store.by(&by).may_change()?;
            let suspends = asked.status == Some(OrganizationStatus::Suspended);
            let is_so = asked.name.is_none()
                && asked.limits.is_none()
                && asked.status.is_none_or(|status| status == found.status)
                && !desk.obeys_any(&known_undone);
            let step = if suspends && found.status == OrganizationStatus::Active {
                let narrowing = Narrowing {
                    object,
                    effect: Effect::Revoke,
                    base: None,
                };
                Step::Narrows(desk.revocations.enter(&by, vec![narrowing]))
            } else if is_so {
                Step::Done(found)
            } else {
                return Ok(Step::Waits);
            };
            if disconnect {
                desk.disconnect_organization(&by, &of);
            }
            Ok(step)
        });
        let (by, of) = (actor.clone(), slug.to_owned());
        let edited = match step.await? {
            Step::Done(found) => found,
            Step::Narrows(ticket) => {
                let made = ticket.made(undone, move |batch| {
                    let editor = batch.by(&by);
                    editor.edit_organization(&of, revisions.as_deref(), change.borrowed())
                });
                made.await
                    .map_err(|unwritten| unwritten.problem(SUSPENDED))?
            }
            Step::Waits => {
                let change = self.change(move |desk| {
                    let edited = desk.revocations.undo(&undone, || {
                        let editor = desk.system.store.by(&by);
                        editor.edit_organization(&of, revisions.as_deref(), change.borrowed())
                    })?;
                    if disconnect {
                        desk.disconnect_organization(&by, &of);
                    }
                    Ok(edited)
                });
                change.await?
            }
        };
        if disconnect {
            self.revocations.recorded().await;
        }
        Ok(edited)
    }

    /// Deletes an organization, with `force` together with its credentials.
    pub(super) async fn delete_organization(
        self: &Arc<Self>,
        actor: &Actor,
        slug: &str,
        revisions: Option<Vec<String>>,
        force: bool,
        disconnect: bool,
    ) -> Result<(), Problem> {
        let (by, of, known) = (actor.clone(), slug.to_owned(), revisions.clone());
        let ticket = self.look_up(move |desk| {
            let store = &desk.system.store;
            store.deletable_organization(&of, known.as_deref(), force)?;
            store.by(&by).may_change()?;
            let narrowing = Narrowing {
                object: Object::Organization(of.clone()),
                effect: Effect::Delete { force },
                base: None,
            };
            let ticket = desk.revocations.enter(&by, vec![narrowing]);
            if disconnect {
                desk.disconnect_organization(&by, &of);
            }
            Ok(ticket)
        });
        let (by, of) = (actor.clone(), slug.to_owned());
        let undone = vec![(Object::Organization(of.clone()), Aspect::Status)];
        let made = ticket.await?.made(undone, move |batch| {
            let editor = batch.by(&by);
            editor.delete_organization(&of, revisions.as_deref(), force)
        });
        made.await.map_err(|unwritten| unwritten.problem(SUSPENDED))
    }

    /// Revokes a token that is within the caller's reach, given its id.
    pub(super) async fn revoke_token(
        self: &Arc<Self>,
        caller: &Caller,
        id: String,
    ) -> Result<Token, Problem> {
        let (by, which) = (caller.clone(), id.clone());
        let step = self.look_up(move |desk| {
            let store = &desk.system.store;
            store.by(&by.actor).may_change()?;
            let found = store.token(&which)?;
            if !by.reaches(found.scope.organization.as_deref(), Access::Admin) {
                return Err(StoreError::not_found(Kind::Token, &which).into());
            }
            if found.revoked_at.is_some() {
                return Ok(Step::Done(found));
            }
            let narrowing = Narrowing {
                object: Object::Token {
                    key: found.key,
                    id: found.id,
                },
                effect: Effect::Revoke,
                base: None,
            };
            let ticket = desk.revocations.enter(&by.actor, vec![narrowing]);
            Ok(Step::Narrows(ticket))
        });
        // The token that asks may be the one that is revoked.
        let by = Actor {
            token: None,
            ..caller.actor.clone()
        };
        let revoked = match step.await? {
            Step::Done(token) => token,
            Step::Waits => return Err(Problem::internal(&"a revocation does not wait")),
            Step::Narrows(ticket) => {
                let made = ticket.made(Vec::new(), move |batch| {
                    batch.by(&by).revoke_token(&id, None)
                });
                made.await
                    .map_err(|unwritten| unwritten.problem(UNTRUSTED))?
            }
        };
        Ok(self.token_up_to_date(revoked))
    }

    pub(super) fn obeys_any(&self, keys: &[NarrowingKey]) -> bool {
        keys.iter().any(|key| self.system.store.obeys(key))
    }

    /// The credential and its row, if the actor may change it as far as the store can be read.
    fn found(&self, actor: &Actor, target: &Target) -> Result<(Credential, Login), StoreError> {
        let store = &self.system.store;
        let credential = store.credential(target.wanted())?;
        store.by(actor).may_change()?;
        match store.stored_login(&target.username)? {
            Some(login) if login.key == credential.key => Ok((credential, login)),
            _ => Err(StoreError::not_found(Kind::Credential, &target.username)),
        }
    }

    /// What an edit takes away from a credential.
    pub(super) fn narrowings(
        &self,
        credential: &Credential,
        base: Login,
        edit: &Edit,
    ) -> Result<Vec<Narrowing>, StoreError> {
        let mut effects = Vec::new();
        let revokes = edit.status == Some(CredentialStatus::Revoked);
        if revokes && base.status == CredentialStatus::Active {
            effects.push(Effect::Revoke);
        }
        if let Some(Some(end)) = edit.expires_at
            && base.expires_at.is_none_or(|current| end < current)
        {
            effects.push(Effect::Expire(end));
        }
        if edit.end_overlap && base.previous.is_some() {
            effects.push(Effect::EndOverlap);
        }
        if let Some(change) = &edit.limits {
            let limits = credential.limits.with(change);
            let defaults = &self.system.quotas.defaults().credential;
            let before = credential.limits.over(defaults);
            if limits != credential.limits && limits.over(defaults).are_within(&before) {
                effects.push(Effect::Limit(limits));
            }
        }
        if let Some(change) = &edit.rules {
            let rules = credential.rules.with(change);
            let rules = rules.map_err(|error| StoreError::Invalid(error.to_string()))?;
            if rules != credential.rules && rules.are_within(&credential.rules) {
                effects.push(Effect::Rule(rules));
            }
        }
        let base = Arc::new(base);
        let narrowings = effects.into_iter().map(|effect| Narrowing {
            object: Object::Credential(base.username.clone()),
            effect,
            base: Some(base.clone()),
        });
        Ok(narrowings.collect())
    }
}

impl OrganizationChange {
    fn borrowed(&self) -> OrganizationEdit<'_> {
        OrganizationEdit {
            name: self.name.as_ref().map(Option::as_deref),
            status: self.status,
            limits: self.limits.as_ref(),
        }
    }
}
