//! Organizations.

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
use crate::admin::changes;
use crate::admin::desk::Desk;
use crate::admin::extract::{Body, Condition, IdempotencyKey, IfMatch, Once, Path, Query};
use crate::admin::problem::Problem;
use crate::policy::{Limits, LimitsChange};
use crate::store::{self, Access, OrganizationStatus};

use super::field::{Limit, Name, Slug, Time, present};
use super::limits::{LimitUse, OrganizationLimits, OrganizationLimitsChange};
use super::reply::{Created, List, Tagged};

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new()
        .routes(routes!(list_organizations, create_organization))
        .routes(routes!(
            get_organization,
            edit_organization,
            delete_organization
        ))
}

/// An organization: whom credentials belong to.
#[derive(Serialize, ToSchema)]
pub struct Organization {
    /// UUIDv7.
    id: Uuid,
    /// Its short name, for life.
    slug: String,
    /// What people call it.
    name: Option<String>,
    status: Status,
    created_at: Time,
    /// How many credentials it has, of any status.
    credentials: u64,
    /// The limits that all its credentials share.
    limits: OrganizationLimits,
    /// How many sessions are logged in with them now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    live_sessions: Option<usize>,
    /// How far each limit that holds is used up now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit_use: Option<Vec<LimitUse>>,
}

/// Whether an organization's credentials may be used.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = OrganizationStatus)]
pub enum Status {
    /// As far as each of them may.
    Active,
    /// None of them may.
    Suspended,
}

impl From<OrganizationStatus> for Status {
    fn from(status: OrganizationStatus) -> Status {
        match status {
            OrganizationStatus::Active => Status::Active,
            OrganizationStatus::Suspended => Status::Suspended,
        }
    }
}

impl From<Status> for OrganizationStatus {
    fn from(status: Status) -> OrganizationStatus {
        match status {
            Status::Active => OrganizationStatus::Active,
            Status::Suspended => OrganizationStatus::Suspended,
        }
    }
}

impl From<&store::Organization> for Organization {
    fn from(organization: &store::Organization) -> Organization {
        Organization {
            id: organization.id,
            slug: organization.slug.clone(),
            name: organization.name.clone(),
            status: organization.status.into(),
            created_at: Time(organization.created_at),
            credentials: organization.credentials,
            limits: (&organization.limits).into(),
            live_sessions: None,
            limit_use: None,
        }
    }
}

fn view(desk: &Desk, organization: &store::Organization) -> Organization {
    Organization {
        live_sessions: Some(desk.system.sessions.count_in(&organization.slug)),
        ..organization.into()
    }
}

fn tagged(desk: &Desk, organization: store::Organization) -> Result<Tagged<Organization>, Problem> {
    let uses = desk.uses_of_organization(&organization)?;
    let body = Organization {
        limit_use: Some(uses.iter().map(Into::into).collect()),
        ..view(desk, &organization)
    };
    Ok(Tagged {
        revision: organization.revision(),
        body,
    })
}

/// The organization in the path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct InOrganization {
    /// The organization's slug.
    pub(super) slug: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct OrganizationsQuery {
    /// How many at most, 1 to 200; 50 if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// Begin behind this slug.
    #[param(inline, value_type = Option<String>, pattern = "^[a-z0-9-]{1,63}$")]
    after: Option<Slug>,
}

/// Lists organizations by slug: those that the caller's scopes reach.
#[utoipa::path(get, path = "/organizations", tag = "organizations", params(OrganizationsQuery),
    responses((status = 200, description = "A page of them.", body = List<Organization>)))]
async fn list_organizations(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<OrganizationsQuery>,
) -> Result<Json<List<Organization>>, Problem> {
    desk.run(move |desk| {
        let limit = query.limit.get();
        let after = query.after.as_ref().map(|slug| slug.0.as_str());
        let mut found = desk.organizations(&caller, after, limit + 1)?;
        let more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let next = found.last().filter(|_| more).map(|last| last.slug.clone());
        let items = found
            .iter()
            .map(|organization| view(desk, organization))
            .collect();
        Ok(Json(List { items, next }))
    })
    .await
}

/// What an organization starts with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrganization {
    slug: Slug,
    name: Option<Name>,
    /// The limits that all its credentials share.
    #[serde(default)]
    limits: OrganizationLimitsChange,
}

/// Makes an organization.
#[utoipa::path(post, path = "/organizations", tag = "organizations",
    params(IdempotencyKey),
    request_body = NewOrganization,
    responses((status = 201, description = "It was made.", body = Organization,
        headers(("Location" = String, description = "Where it is."), ("ETag" = String, description = "Its state, for If-Match.")))))]
async fn create_organization(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Once(once, new): Once<NewOrganization>,
) -> Result<Created<Tagged<Organization>>, Problem> {
    caller.require_instance(Access::Admin)?;
    desk.change(move |desk| {
        let editor = desk.system.store.by(&caller.actor).once(once.as_ref());
        let name = new.name.as_ref().map(|name| name.0.as_str());
        let limits = Limits::default().with(&(&new.limits).into());
        let made = editor.create_organization_with(&new.slug.0, name, &limits)?;
        Ok(Created {
            location: format!("/api/v1/organizations/{}", made.slug),
            body: tagged(desk, made)?,
        })
    })
    .await
}

/// Shows an organization.
#[utoipa::path(get, path = "/organizations/{slug}", tag = "organizations", params(InOrganization),
    responses((status = 200, description = "The organization.", body = Organization,
        headers(("ETag" = String, description = "Its state, for If-Match.")))))]
async fn get_organization(
    State(desk): State<Arc<Desk>>,
    Path(at): Path<InOrganization>,
) -> Result<Tagged<Organization>, Problem> {
    desk.run(move |desk| tagged(desk, desk.system.store.organization(&at.slug)?))
        .await
}

/// What to change; what is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OrganizationChange {
    /// Null takes the name away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Name>)]
    name: Option<Option<Name>>,
    /// Only an instance's token may change this.
    status: Option<Status>,
    /// What to change of its limits. Only an instance's token may.
    #[serde(default)]
    limits: OrganizationLimitsChange,
    /// End its live sessions, too.
    #[serde(default)]
    disconnect: bool,
}

/// Renames, suspends or activates an organization, or changes its limits.
#[utoipa::path(patch, path = "/organizations/{slug}", tag = "organizations",
    params(InOrganization, IfMatch),
    request_body = OrganizationChange,
    responses((status = 200, description = "The organization as it is now.", body = Organization,
        headers(("ETag" = String, description = "Its state, for If-Match.")))))]
async fn edit_organization(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(at): Path<InOrganization>,
    Condition(revisions): Condition,
    Body(change): Body<OrganizationChange>,
) -> Result<Tagged<Organization>, Problem> {
    let limits = LimitsChange::from(&change.limits);
    if change.status.is_some() || !limits.0.is_empty() {
        // Else whom the instance has suspended or limited could lift that.
        caller.require_instance(Access::Admin)?;
    }
    let edit = changes::OrganizationChange {
        name: change.name.map(|name| name.map(|name| name.0)),
        status: change.status.map(Into::into),
        limits: Some(limits).filter(|limits| !limits.0.is_empty()),
    };
    let (slug, disconnect) = (&at.slug, change.disconnect);
    let edited = desk.edit_organization(&caller.actor, slug, revisions, edit, disconnect);
    let edited = edited.await?;
    desk.look_up(move |desk| tagged(desk, edited)).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DeleteOrganization {
    /// Delete its credentials, too.
    #[serde(default)]
    #[param(required = false)]
    force: bool,
    /// End its live sessions, too.
    #[serde(default)]
    #[param(required = false)]
    disconnect: bool,
}

/// Deletes an organization with its tokens and its usage; `default` stays.
#[utoipa::path(delete, path = "/organizations/{slug}", tag = "organizations",
    params(InOrganization, DeleteOrganization, IfMatch),
    responses((status = 204, description = "It is gone.")))]
async fn delete_organization(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(at): Path<InOrganization>,
    Query(how): Query<DeleteOrganization>,
    Condition(revisions): Condition,
) -> Result<StatusCode, Problem> {
    caller.require_instance(Access::Admin)?;
    let (slug, force, disconnect) = (&at.slug, how.force, how.disconnect);
    let deleted = desk.delete_organization(&caller.actor, slug, revisions, force, disconnect);
    deleted.await?;
    Ok(StatusCode::NO_CONTENT)
}
