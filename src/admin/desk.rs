//! What administrators can have done, whoever asks and by whatever page: every change with its effect on logins and on live
//! sessions.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::auth::explain::{self, Explanation, Question, Sources};
use crate::auth::import::{Format, Import, ImportError, Report};
use crate::auth::password::Cost;
use crate::auth::quota::{Quotas, Use};
use crate::auth::{ActivityBatch, Authenticator, guard, spelling};
use crate::lifecycle::Lifecycle;
use crate::metrics::{Metrics, StoreOperation};
use crate::net::tls::Tls;
use crate::net::unopened::Unopened;
use crate::net::upstream_pool::UpstreamPool;
use crate::sasl::Secret;
use crate::sessions::{LiveSession, Sessions};
use crate::store::{
    self, Access, Actor, AuditFilter, AuditRecord, Breached, Credential, CredentialStatus,
    Organization, Page, RefusedLogin, Rows, Store, StoreError, Token, Wanted,
};

use super::caller::Caller;
use super::problem::{Code, Problem};
use super::revocations::Revocations;
use super::workers::{NoWorker, Workers};

/// How long a request may read in the store. What takes longer is too much for one request, and
/// would keep others waiting.
const READING: Duration = Duration::from_secs(3);

/// Requests that may wait for the store's writer at a time. Apart from those that read: the writer
/// may be locked out for minutes.
const WRITERS: usize = 2;

/// Short looks at the store at a time, for tokens and for changes that count before they are
/// written.
const LOOKUPS: usize = 2;

/// Passwords that are hashed for requests at a time.
const HASHES: usize = 2;

/// The most credentials of one import: its transaction keeps the store from other changes.
const IMPORTED_CREDENTIALS: usize = 10_000;

/// The most passwords in the clear of one import: each takes a thread as long as a login does.
const IMPORTED_PLAIN: usize = 1_000;

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

const TOO_MANY: &str = "too many requests wait for the store; try again";

/// The running system, as far as it is administered.
pub struct System {
    /// What is stored.
    pub store: Arc<Store>,
    /// Who verifies logins.
    pub authenticator: Arc<Authenticator>,
    /// What waits to be written.
    pub noted: Arc<ActivityBatch>,
    /// What everybody has sent, and may send.
    pub quotas: Arc<Quotas>,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    /// The certificate of the listeners, unless Postfix keeps them.
    pub tls: Option<Arc<Tls>>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// Whether it is ending.
    pub lifecycle: Lifecycle,
    /// What a password costs.
    pub cost: Cost,
    /// Since when it runs, in steady milliseconds.
    pub started_at: i64,
    /// Every listener by its kind, with its address.
    pub listeners: Vec<(String, String)>,
    /// The listeners that are not open, and why.
    pub unopened: Unopened,
    /// The places of the upstream of all, then of those of single organizations with their slugs.
    pub upstreams: Vec<(Option<String>, Arc<UpstreamPool>)>,
    /// The name that clients connect to.
    pub hostname: String,
}

/// Where requests are carried out.
pub(super) struct Desk {
    pub(super) system: System,
    pub(super) revocations: Arc<Revocations>,
    workers: Arc<Workers>,
    writers: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    hashes: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn new(system: System) -> Desk {
        Desk {
            revocations: Arc::new(Revocations::new(system.store.clone(), system.cost)),
            workers: Arc::default(),
            writers: Arc::new(Semaphore::new(WRITERS)),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            hashes: Arc::new(Semaphore::new(HASHES)),
            system,
        }
    }

    /// Reads on a thread that may block. Work that has begun is finished, also
    /// when its client has gone.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Desk) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = self.workers.turn().await.map_err(|none| {
            Problem::busy(match none {
                NoWorker::Late => TOO_MANY,
                NoWorker::TooMany => {
                    "too many requests with this token wait for the store; try again when some of \
                     them are answered"
                }
            })
        })?;
        self.carry_out(turn, work).await
    }

    /// As [`Desk::run`], for what waits for a commit.
    pub(super) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Desk) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.in_turn(&self.writers, work).await
    }

    /// As [`Desk::run`], for what reads a few rows and must not wait for large reads or for writes.
    pub(super) async fn look_up<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Desk) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.in_turn(&self.lookups, work).await
    }

    /// As [`Desk::run`], for what hashes a password.
    pub(super) async fn hash<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Desk) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.in_turn(&self.hashes, work).await
    }

    async fn in_turn<T: Send + 'static>(
        self: &Arc<Self>,
        turns: &Arc<Semaphore>,
        work: impl FnOnce(&Desk) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = tokio::time::timeout(PATIENCE, turns.clone().acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(Problem::busy(TOO_MANY));
        };
        self.carry_out(turn, work).await
    }

    async fn carry_out<T: Send + 'static>(
        self: &Arc<Self>,
        turn: impl Send + 'static,
        work: impl FnOnce(&Desk) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let desk = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let seconds = &desk.system.metrics.store_seconds;
            let _timer = seconds.of(StoreOperation::Administration).start_timer();
            store::limit_reading(READING, || work(&desk))
        });
        done.await
            .unwrap_or_else(|panic| Err(Problem::internal(&panic)))
    }

    /// A credential as it is at this moment.
    pub(super) fn credential(&self, wanted: Wanted) -> Result<Credential, Problem> {
        Ok(self.up_to_date(self.system.store.credential(wanted)?))
    }

    /// How far the limits of a credential are used up.
    pub(super) fn uses_of(&self, credential: &Credential) -> Result<Vec<Use>, Problem> {
        let Credential { key, limits, .. } = credential;
        Ok(self.system.quotas.uses_of_credential(*key, limits)?)
    }

    /// How far the limits of an organization are used up.
    pub(super) fn uses_of_organization(
        &self,
        organization: &Organization,
    ) -> Result<Vec<Use>, Problem> {
        let Organization { slug, limits, .. } = organization;
        Ok(self.system.quotas.uses_of_organization(slug, limits)?)
    }

    /// With the uses and the revocation that are not written yet.
    pub(super) fn up_to_date(&self, mut credential: Credential) -> Credential {
        self.system.noted.update(&mut credential);
        if self.system.store.refuses_unwritten(&credential.username) {
            credential.status = CredentialStatus::Revoked;
        }
        credential
    }

    /// Why logins with a credential were refused, and what limits and rules did to its mail, up to this moment.
    pub(super) fn refusals(
        &self,
        wanted: Wanted,
    ) -> Result<(Vec<RefusedLogin>, Vec<Breached>), Problem> {
        let System { store, noted, .. } = &self.system;
        let credential = store.credential(wanted)?;
        let logins = noted.refusals(store, &credential.username)?;
        Ok((logins, noted.breaches(store, credential.key)?))
    }

    /// The changes that pass `filter` and concern one of these organizations, newest first; all that
    /// pass where there is no restriction.
    pub(super) fn audit(
        &self,
        organizations: Option<&[String]>,
        filter: AuditFilter,
        page: Page,
    ) -> Result<Rows<AuditRecord>, Problem> {
        let store = &self.system.store;
        let Some(slugs) = organizations else {
            return Ok(store.audit(filter, page)?);
        };
        let mut merged = Vec::new();
        // Older records than this one may be missing from those of some organization.
        let mut complete = None;
        for slug in slugs {
            let organization = Some(slug.as_str());
            let found = store.audit(
                AuditFilter {
                    organization,
                    ..filter
                },
                page,
            )?;
            merged.extend(found.rows);
            complete = complete.max(found.next);
        }
        merged.sort_by_key(|record| std::cmp::Reverse(record.seq));
        merged.retain(|record| complete.is_none_or(|seq| record.seq >= seq));
        if merged.len() > page.limit as usize {
            merged.truncate(page.limit as usize);
            complete = merged.last().map(|record| record.seq);
        }
        Ok(Rows {
            rows: merged,
            next: complete,
        })
    }

    /// The organizations that the caller may see, by slug, behind `after` and at most `limit`.
    pub(super) fn organizations(
        &self,
        caller: &Caller,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Organization>, Problem> {
        let store = &self.system.store;
        let Some(own) = caller.organizations(Access::Read) else {
            return Ok(store.organizations(after, limit)?);
        };
        let mut found = Vec::new();
        let behind = |slug: &&String| after.is_none_or(|after| slug.as_str() > after);
        for slug in own.iter().filter(behind) {
            if found.len() == limit as usize {
                break;
            }
            match store.organization(slug) {
                Ok(organization) => found.push(organization),
                // A group of the proxy may have the scope of an organization that is not made yet.
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// The organization in which the caller may do this to the credential with this username; `None`
    /// where it may be any. Where the caller may not, it is one in which there is no such credential.
    pub(super) fn organization_of(
        &self,
        caller: &Caller,
        username: &str,
        access: Access,
    ) -> Result<Option<String>, Problem> {
        let Some(mut own) = caller.organizations(access) else {
            return Ok(None);
        };
        if let [_, _, ..] = &own[..] {
            match self.system.store.credential(username) {
                Ok(found) if own.contains(&found.organization) => {
                    return Ok(Some(found.organization));
                }
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Each request needs some scope before it comes here.
        Ok(own.pop())
    }

    /// What limits and rules did to the mail of a credential, up to this moment.
    pub(super) fn breaches(&self, credential: &Credential) -> Result<Vec<Breached>, Problem> {
        let System { store, noted, .. } = &self.system;
        Ok(noted.breaches(store, credential.key)?)
    }

    /// The refused logins with names that nobody has, up to this moment.
    pub(super) fn unknown_refusals(&self) -> Result<Vec<RefusedLogin>, Problem> {
        let System { store, noted, .. } = &self.system;
        Ok(noted.unknown_refusals(store)?)
    }

    /// What would become of a login at this moment.
    pub(super) fn explain(&self, asked: Question) -> Result<Explanation, Problem> {
        let System {
            store,
            authenticator,
            quotas,
            ..
        } = &self.system;
        let sources = Sources {
            store,
            guard: authenticator.guard(),
            quotas,
            folds_case: authenticator.folds_case(),
        };
        if let Some(explanation) = explain::explain(&sources, asked)? {
            return Ok(explanation);
        }
        let mut detail = format!("there is no credential {:?}", asked.username);
        // A caller of one organization hears of no other one's credentials.
        let near = spelling::near(store, &[asked.username])?.remove(0);
        let own = asked.organization;
        if let Some(near) = near.filter(|near| Some(&*near.credential.organization) == own) {
            detail += &format!("; {}", near.words());
        }
        Err(Problem::new(Code::NotFound, detail))
    }

    /// With the uses that are not written yet.
    pub(super) fn token_up_to_date(&self, mut token: Token) -> Token {
        self.system.noted.update_token(&mut token);
        token
    }

    /// Imports the text of a file into the organization with this slug.
    pub(super) fn import(
        &self,
        actor: &Actor,
        slug: &str,
        format: Format,
        dry_run: bool,
        text: &Secret,
    ) -> Result<Report, ImportError> {
        let System {
            store,
            authenticator,
            cost,
            ..
        } = &self.system;
        let import = Import {
            format,
            organization: slug,
            dry_run,
            fold_case: authenticator.folds_case(),
            credentials: IMPORTED_CREDENTIALS,
            plain: IMPORTED_PLAIN,
            workers: 1, // logins come first
        };
        import.run(text.expose(), store, *cost, actor, &|_, _| ())
    }

    /// Ends a live session that is within the caller's reach, and returns it as it was.
    pub(super) fn disconnect_session(
        &self,
        caller: &Caller,
        id: Uuid,
    ) -> Result<LiveSession, Problem> {
        self.system.store.by(&caller.actor).may_change()?;
        let sessions = &self.system.sessions;
        let ended = sessions
            .get(id)
            .filter(|session| caller.reaches(Some(&session.organization), Access::Admin))
            .filter(|_| sessions.disconnect(id));
        let Some(session) = ended else {
            let detail = format!("there is no session {id}");
            return Err(Problem::new(Code::NotFound, detail));
        };
        let organization = Some(session.organization.as_str());
        self.note_disconnect(&caller.actor, &session.username, organization, 1);
        Ok(session)
    }

    /// Ends the live sessions of a credential. Returns how many there were.
    pub(super) fn disconnect_credential(&self, actor: &Actor, wanted: Wanted) -> usize {
        self.see_changes();
        let ended = self.system.sessions.disconnect_credential(wanted.username);
        self.note_disconnect(actor, wanted.username, wanted.organization, ended);
        ended
    }

    /// Ends the live sessions of these credentials of an organization.
    pub(super) fn disconnect_all<'a>(
        &self,
        actor: &Actor,
        slug: &str,
        usernames: impl Iterator<Item = &'a str>,
    ) {
        self.see_changes();
        let sessions = &self.system.sessions;
        let live = sessions.usernames();
        for username in usernames.filter(|username| live.contains(*username)) {
            let ended = sessions.disconnect_credential(username);
            self.note_disconnect(actor, username, Some(slug), ended);
        }
    }

    /// Ends the live sessions of an organization. Returns how many there were.
    pub(super) fn disconnect_organization(&self, actor: &Actor, slug: &str) -> usize {
        self.see_changes();
        let ended = self.system.sessions.disconnect_organization(slug);
        self.note_disconnect(actor, slug, Some(slug), ended);
        ended
    }

    /// Has logins obey at once what another process wrote: whoever is sent away must not come back by what is remembered of
    /// the time before.
    pub(super) fn see_changes(&self) {
        let store = &self.system.store;
        if store.poll().is_err() {
            store.advance_epoch();
        }
    }

    /// Holds nothing against these networks any more. Returns how many that were.
    pub(super) fn clear_guard(
        &self,
        actor: &Actor,
        wanted: guard::ClearTarget,
    ) -> Result<usize, Problem> {
        let System {
            store,
            authenticator,
            ..
        } = &self.system;
        Ok(authenticator.guard().clear(wanted, store, actor)?)
    }

    /// Puts ended sessions on record.
    fn note_disconnect(
        &self,
        actor: &Actor,
        object: &str,
        organization: Option<&str>,
        ended: usize,
    ) {
        if ended > 0 {
            let revocations = &self.revocations;
            revocations.note_disconnect(actor, object, organization, ended);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
