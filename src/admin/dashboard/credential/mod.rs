//! One credential: all that is known of it, and what can be done with it.

mod delete;
mod edit;
mod revoke;
mod rotate;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;

use crate::admin::changes::Target;
use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::auth::quota::Use;
use crate::sessions::LiveSession;
use crate::store::{
    AuditFilter, Credential, CredentialStatus, OrganizationStatus, Page, PasswordUse, Usage,
    UsageOf, Wanted,
};

use super::Dashboard;
use super::address::{MARK, Path, of_credential};
use super::audit::Entry;
use super::chart::{Chart, Stretch};
use super::containment::{LimitsForm, RulesForm};
use super::credentials::{Badge, badges};
use super::error::ErrorPage;
use super::form::{Field, TimeField};
use super::frame::{Frame, Section, page_with};
use super::guard::Visitor;
use super::refusals::Tried;
use super::sessions::Live;
use super::stamp::Stamp;

/// How many of the newest changes are shown.
const TRAIL: u32 = 20;

/// How many live sessions are shown; the others are behind a link.
const SHOWN_SESSIONS: usize = 20;

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/", get(show))
        .route("/rename", post(edit::rename))
        .route("/limits", post(edit::limit))
        .route("/rules", post(edit::rule))
        .route("/expiry", post(edit::expire))
        .route("/end-overlap", post(edit::end_overlap))
        .route("/enable", post(edit::enable))
        .route("/rotate", get(rotate::ask).post(rotate::rotate))
        .route("/revoke", get(revoke::ask).post(revoke::revoke))
        .route("/delete", get(delete::ask).post(delete::delete))
}

/// The credential in the path.
#[derive(Clone, Deserialize)]
#[serde(from = "InPath")]
struct Of {
    slug: String,
    username: String,
}

/// A path of either kind that [`of_credential`] makes.
#[derive(Deserialize)]
struct InPath {
    slug: String,
    #[serde(default)]
    username: String,
    /// A username behind [`MARK`].
    marked: Option<String>,
}

impl From<InPath> for Of {
    fn from(path: InPath) -> Of {
        let marked = path.marked.as_deref();
        let username = marked.and_then(|marked| marked.strip_prefix(MARK));
        Of {
            slug: path.slug,
            username: username.map_or(path.username, str::to_owned),
        }
    }
}

impl Of {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            username: &self.username,
            organization: Some(&self.slug),
            revisions: None,
        }
    }

    fn target(self) -> Target {
        Target {
            username: self.username,
            organization: Some(self.slug),
            revisions: None,
        }
    }

    /// Its page.
    fn page(&self) -> String {
        of_credential(&self.slug, &self.username)
    }

    /// The list that it is in.
    fn list(&self) -> String {
        format!("/organizations/{}/credentials", self.slug)
    }
}

/// All that is known of a credential.
struct Known {
    credential: Credential,
    /// Whether a revocation counts that is not written yet.
    denied: bool,
    /// Whether its organization is.
    suspended: bool,
    uses: Vec<Use>,
    usage: Vec<(i64, Usage)>,
    sessions: Vec<LiveSession>,
    refusals: Vec<Tried>,
    trail: Vec<Entry>,
}

fn find(desk: &Desk, of: &Of, days: Stretch) -> Result<Known, Problem> {
    let system = &desk.system;
    let credential = desk.credential(of.wanted())?;
    let usage = UsageOf::Credential(credential.key);
    let usage = system
        .store
        .usage(usage, days.span, days.since, days.until())?;
    let trail = AuditFilter {
        organization: Some(&of.slug),
        object: Some(&of.username),
        ..AuditFilter::default()
    };
    let newest = Page {
        after: None,
        limit: TRAIL,
    };
    let trail = system.store.audit(trail, newest)?;
    let mut sessions = system.sessions.list();
    sessions.retain(|session| session.username == of.username);
    let organization = system.store.organization(&of.slug)?;
    let (refused_logins, breaches) = desk.refusals(of.wanted())?;
    Ok(Known {
        uses: desk.uses_of(&credential)?,
        credential,
        denied: system.store.refuses_unwritten(&of.username),
        suspended: organization.status == OrganizationStatus::Suspended,
        usage,
        sessions,
        refusals: Tried::of_credential(&refused_logins, &breaches),
        trail: trail.rows.iter().map(Entry::from).collect(),
    })
}

fn dated(used: PasswordUse) -> (PasswordUse, Stamp) {
    let at = Stamp(used.at);
    (used, at)
}

#[derive(Template)]
#[template(path = "credential.html")]
struct CredentialPage {
    frame: Frame,
    path: String,
    is_revoked: bool,
    is_suspended: bool,
    is_expired: bool,
    credential: Credential,
    badges: Vec<Badge>,
    created: Stamp,
    rotated: Option<Stamp>,
    revoked: Option<Stamp>,
    expires: Option<Stamp>,
    overlap: Option<Stamp>,
    previous_used: Option<(PasswordUse, Stamp)>,
    current_used: Option<(PasswordUse, Stamp)>,
    last_used: Option<Stamp>,
    last_message: Option<(Stamp, u64)>,
    messages: Chart,
    refused: Chart,
    sessions: Vec<Live>,
    /// How many there are besides those shown.
    more_sessions: usize,
    refusals: Vec<Tried>,
    trail: Vec<Entry>,
    name: Field,
    expires_at: TimeField,
    limits: LimitsForm,
    rules: RulesForm,
}

/// Fields as they were sent and not accepted.
#[derive(Default)]
struct Refilled {
    name: Option<Field>,
    expires_at: Option<TimeField>,
    limits: Option<Vec<Field>>,
    rules: Option<Box<RulesForm>>,
}

async fn show(
    State(dashboard): State<Arc<Dashboard>>,
    visitor: Visitor,
    Path(of): Path<Of>,
) -> Result<Response, ErrorPage> {
    page_of(
        &dashboard,
        &visitor,
        of,
        StatusCode::OK,
        Refilled::default(),
    )
    .await
}

/// The page with what was not accepted.
async fn refilled(
    dashboard: &Dashboard,
    visitor: &Visitor,
    of: Of,
    sent: Refilled,
) -> Result<Response, ErrorPage> {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    page_of(dashboard, visitor, of, status, sent).await
}

async fn page_of(
    dashboard: &Dashboard,
    visitor: &Visitor,
    of: Of,
    status: StatusCode,
    sent: Refilled,
) -> Result<Response, ErrorPage> {
    let (slug, path) = (of.slug.clone(), of.page());
    let days = Stretch::days();
    let known = dashboard
        .desk
        .run(move |desk| find(desk, &of, days))
        .await?;
    let Known {
        credential,
        denied,
        suspended,
        uses,
        usage,
        mut sessions,
        refusals,
        trail,
    } = known;
    let more_sessions = sessions.len().saturating_sub(SHOWN_SESSIONS);
    sessions.truncate(SHOWN_SESSIONS);
    let expires = credential.expires_at.map(Stamp);
    let defaults = &dashboard.desk.system.quotas.defaults().credential;
    let limits = LimitsForm::of(true, &credential.limits, defaults, &uses);
    page_with(
        status,
        &CredentialPage {
            frame: visitor.frame(Section::Credentials).of(&slug),
            path,
            badges: badges(&credential, denied, limits.is_over),
            is_revoked: denied || credential.status == CredentialStatus::Revoked,
            is_suspended: suspended,
            is_expired: credential.is_expired(crate::clock::now_ms()),
            created: Stamp(credential.created_at),
            rotated: credential.rotated_at.map(Stamp),
            revoked: credential.revoked_at.map(Stamp),
            expires,
            overlap: credential.previous_until.map(Stamp),
            previous_used: credential.previous_used.clone().map(dated),
            current_used: credential.current_used.clone().map(dated),
            last_used: credential.last_used.as_ref().map(|used| Stamp(used.at)),
            last_message: (credential.last_message).map(|own| (Stamp(own.at), own.count)),
            messages: days.chart(&usage, "messages", |usage| usage.messages),
            refused: days.chart(&usage, "refused logins", |usage| usage.refused),
            sessions: sessions.into_iter().map(Live::from).collect(),
            more_sessions,
            refusals,
            trail,
            name: sent
                .name
                .unwrap_or_else(|| Field::of(credential.name.as_deref().unwrap_or_default())),
            expires_at: sent.expires_at.unwrap_or_else(|| TimeField::of(expires)),
            limits: match sent.limits {
                Some(sent) => limits.refilled(sent),
                None => limits,
            },
            rules: match sent.rules {
                Some(sent) => *sent,
                None => RulesForm::of(&credential.rules),
            },
            credential,
        },
    )
}
