//! Live sessions: who is logged in now, and how to end that.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::extract::{Path, Query};
use crate::admin::problem::{Code, Problem};
use crate::sessions::LiveSession;
use crate::store::{Access, Wanted};

use super::field::{Limit, Time};
use super::reply::List;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions, disconnect_sessions))
        .routes(routes!(disconnect_session))
}

/// A session that is logged in.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct Session {
    /// UUIDv7; later sessions have greater ones.
    pub id: Uuid,
    /// The username of its credential.
    pub credential: String,
    /// The slug of that credential's organization.
    pub organization: String,
    /// The client's IP address.
    pub address: String,
    /// The client's port.
    pub port: u16,
    /// The version of TLS, if there is TLS.
    pub tls: Option<String>,
    /// What the client calls itself.
    pub helo: String,
    /// The SASL mechanism.
    pub mechanism: String,
    /// When it logged in.
    pub since: Time,
    /// Messages the upstream took.
    pub messages: u64,
    /// Recipients the upstream took.
    pub recipients: u64,
    /// Octets of message bodies.
    pub bytes: u64,
}

impl From<LiveSession> for Session {
    fn from(session: LiveSession) -> Session {
        Session {
            id: session.id,
            credential: session.username,
            organization: session.organization,
            address: session.address.to_string(),
            port: session.port,
            tls: session.tls.map(str::to_owned),
            helo: session.helo,
            mechanism: session.mechanism.to_owned(),
            since: Time(session.since),
            messages: session.messages,
            recipients: session.recipients,
            bytes: session.bytes,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct SessionsQuery {
    /// Only those of the credential with this username.
    credential: Option<String>,
    /// Only those of the organization with this slug.
    organization: Option<String>,
    /// How many at most, 1 to 200; 50 if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// `next` of the page before.
    after: Option<Uuid>,
}

/// Lists the sessions that are logged in, oldest first.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(SessionsQuery),
    responses((status = 200, description = "A page of them.", body = List<Session>)))]
async fn list_sessions(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<SessionsQuery>,
) -> Result<Json<List<Session>>, Problem> {
    let organizations = caller.narrow(query.organization)?;
    let limit = query.limit.get() as usize;
    let mut wanted: Vec<_> = desk
        .system
        .sessions
        .list()
        .into_iter()
        .filter(|session| query.after.is_none_or(|after| session.id > after))
        .filter(|session| {
            organizations
                .as_ref()
                .is_none_or(|slugs| slugs.contains(&session.organization))
        })
        .filter(|session| {
            query
                .credential
                .as_ref()
                .is_none_or(|name| session.username == *name)
        })
        .take(limit + 1)
        .collect();
    let more = wanted.len() > limit;
    wanted.truncate(limit);
    Ok(Json(List {
        next: wanted
            .last()
            .filter(|_| more)
            .map(|last| last.id.to_string()),
        items: wanted.into_iter().map(Session::from).collect(),
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DisconnectQuery {
    /// The username of the credential whose sessions are to end.
    credential: Option<String>,
    /// The slug of the organization whose sessions are to end, instead of a credential.
    organization: Option<String>,
}

/// How many sessions were ended.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct Disconnected {
    /// Those being verified at that moment are among them.
    pub disconnected: usize,
}

/// Ends all sessions of a credential or of an organization: with 421 between messages, and a message in flight is dropped.
#[utoipa::path(delete, path = "/sessions", tag = "sessions", params(DisconnectQuery),
    responses((status = 200, description = "They have ended.", body = Disconnected), (status = 404, description = "There is no such credential or organization.", body = crate::admin::problem::ProblemDocument, content_type = "application/problem+json")))]
async fn disconnect_sessions(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<DisconnectQuery>,
) -> Result<Json<Disconnected>, Problem> {
    let ended = desk.look_up(move |desk| {
        desk.system.store.by(&caller.actor).may_change()?;
        let disconnected = match (&query.credential, &query.organization) {
            (Some(username), None) => disconnect_credential(desk, &caller, username)?,
            (None, Some(slug)) => disconnect_organization(desk, &caller, slug)?,
            _ => {
                return Err(Problem::new(
                    Code::InvalidQuery,
                    "say whose sessions are to end: either credential or organization",
                ));
            }
        };
        Ok(Json(Disconnected { disconnected }))
    });
    let ended = ended.await?;
    desk.revocations.recorded().await;
    Ok(ended)
}

fn disconnect_credential(desk: &Desk, caller: &Caller, username: &str) -> Result<usize, Problem> {
    let own = desk.organization_of(caller, username, Access::Admin)?;
    let wanted = Wanted {
        organization: own.as_deref(),
        ..username.into()
    };
    let found = desk.credential(wanted);
    if own.is_some() && found.is_err() {
        return found.map(|_| 0);
    }
    let of = found.as_ref().ok().map(|found| found.organization.clone());
    let wanted = Wanted {
        organization: of.as_deref(),
        ..wanted
    };
    known_or_ended(found, desk.disconnect_credential(&caller.actor, wanted))
}

fn disconnect_organization(desk: &Desk, caller: &Caller, slug: &str) -> Result<usize, Problem> {
    caller.require_in(slug, Access::Admin)?;
    let found = desk.system.store.organization(slug);
    let ended = desk.disconnect_organization(&caller.actor, slug);
    known_or_ended(found.map_err(Problem::from), ended)
}

/// What is deleted may still have sessions; a name with none of them that nothing has was mistyped.
fn known_or_ended<T>(found: Result<T, Problem>, ended: usize) -> Result<usize, Problem> {
    match found {
        Err(problem) if ended == 0 => Err(problem),
        _ => Ok(ended),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct ById {
    /// The session's id.
    id: Uuid,
}

/// Ends one session: with 421 between messages, and a message in flight is dropped.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions", params(ById),
    responses((status = 204, description = "It has ended.")))]
async fn disconnect_session(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(by): Path<ById>,
) -> Result<StatusCode, Problem> {
    let ended = desk.look_up(move |desk| desk.disconnect_session(&caller, by.id));
    ended.await?;
    desk.revocations.recorded().await;
    Ok(StatusCode::NO_CONTENT)
}
