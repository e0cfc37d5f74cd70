//! The audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::extract::Query;
use crate::admin::problem::Problem;
use crate::store::{self, AuditFilter};

use super::field::{Cursor, Limit, Time, page};
use super::reply::List;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(list_audit))
}

/// A change that was made.
#[derive(Serialize, ToSchema)]
pub struct AuditRecord {
    /// Its number; there are no gaps.
    seq: i64,
    at: Time,
    actor: Actor,
    /// For example `credential.rotate`.
    action: String,
    /// The username, slug or id of what was changed.
    object: String,
    /// The slug of the organization that it concerns.
    organization: Option<String>,
    /// The fields that changed, as they were.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// The fields that changed, as they became.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// In hexadecimal, over the record and the hash of the one before. Kept elsewhere, `SEQ:HASH` is for
    /// `gatepost audit verify --expect`.
    hash: String,
}

/// Who made a change.
#[derive(Serialize, ToSchema)]
struct Actor {
    /// How they came: `cli`, `person`, `socket`, `system` or `token`.
    kind: &'static str,
    /// The user, the person whom a reverse proxy has signed in, or the token's name and id.
    name: String,
    /// The IP address, for who came over TCP.
    address: Option<String>,
}

impl From<&store::AuditRecord> for AuditRecord {
    fn from(record: &store::AuditRecord) -> AuditRecord {
        AuditRecord {
            seq: record.seq,
            at: Time(record.at),
            actor: Actor {
                kind: record.actor.kind.as_str(),
                name: record.actor.name.clone(),
                address: record.actor.address.clone(),
            },
            action: record.action.clone(),
            object: record.object.clone(),
            organization: record.organization.clone(),
            before: record.before.clone(),
            after: record.after.clone(),
            hash: store::hex(&record.hash),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// Only what concerns this organization.
    organization: Option<String>,
    /// Only this action, such as `credential.rotate`; one that ends in a dot is a group of them.
    action: Option<String>,
    /// Only changes of this username, slug or id.
    object: Option<String>,
    /// Only by those with this in their name.
    actor: Option<String>,
    /// Only since this time; the list ends behind 1,000 older changes in a row.
    #[param(inline)]
    since: Option<Time>,
    /// How many at most, 1 to 200; 50 if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// `next` of the page before.
    #[param(inline)]
    after: Option<Cursor>,
}

/// Lists changes, newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, description = "A page of them.", body = List<AuditRecord>)))]
async fn list_audit(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<AuditQuery>,
) -> Result<Json<List<AuditRecord>>, Problem> {
    let organizations = caller.narrow(query.organization)?;
    desk.run(move |desk| {
        let filter = AuditFilter {
            organization: None,
            action: query.action.as_deref(),
            object: query.object.as_deref(),
            actor: query.actor.as_deref(),
            since: query.since.map(|time| time.0),
        };
        let page = page(query.limit, query.after);
        let records = desk.audit(organizations.as_deref(), filter, page)?;
        Ok(Json(
            records.map(|record| AuditRecord::from(&record)).into(),
        ))
    })
    .await
}
