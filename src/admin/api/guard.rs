//! What the guard holds against whom, and how to have it forgotten.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::extract::Query;
use crate::admin::problem::{Code, Problem};
use crate::auth::guard::{ClearTarget, PenaltyView};
use crate::store::Access;

use super::field::{Cursor, Limit, Time};
use super::reply::List;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(list_guard, clear_guard))
}

/// A network that failed logins came from.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct GuardEntry {
    /// In CIDR.
    pub network: String,
    /// `address` (an IPv4 address or an IPv6 /64) or `network` (a /24 or /48).
    pub scope: String,
    /// `banned`, `slowed` or `counted`.
    pub state: String,
    /// What its failures add up to; one is forgotten in a minute.
    pub score: f64,
    /// When a failure last counted.
    pub at: Time,
    /// How many bans there were in a row; each of an address is twice as long as the one before.
    pub bans: u8,
    /// Until when it is banned, if it is.
    pub banned_until: Option<Time>,
    /// Whether a login from there succeeded within 30 days; then it is not closed.
    pub known: bool,
    /// What follows from that, for people.
    pub why: String,
}

impl From<PenaltyView> for GuardEntry {
    fn from(charge: PenaltyView) -> GuardEntry {
        GuardEntry {
            network: charge.network.to_string(),
            scope: charge.scope().to_owned(),
            state: charge.status().as_str().to_owned(),
            // To the hundredth: it is another number at every moment.
            score: (charge.score * 100.0).round() / 100.0,
            at: Time(charge.at),
            bans: charge.bans,
            banned_until: charge.banned_until.map(Time),
            known: charge.is_known,
            why: charge.why(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct GuardQuery {
    /// Only what concerns this address, or lies in this network (CIDR).
    network: Option<String>,
    /// How many at most, 1 to 200; 50 if left out.
    #[serde(default)]
    #[param(inline, required = false)]
    limit: Limit,
    /// `next` of the page before.
    #[param(inline)]
    after: Option<Cursor>,
}

/// Lists the networks that failed logins came from, the worst first. The list changes as time passes.
#[utoipa::path(get, path = "/guard", tag = "guard", params(GuardQuery),
    responses((status = 200, description = "A page of them.", body = List<GuardEntry>), (status = 404, description = "That is no network.", body = crate::admin::problem::ProblemDocument, content_type = "application/problem+json")))]
async fn list_guard(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<GuardQuery>,
) -> Result<Json<List<GuardEntry>>, Problem> {
    caller.require_instance(Access::Read)?;
    let wanted = query.network.as_deref().map(wanted).transpose()?;
    let skipped = usize::try_from(query.after.map_or(0, Cursor::get)).unwrap_or(usize::MAX);
    let limit = query.limit.get() as usize;
    let charges = desk.run(move |desk| {
        let guard = desk.system.authenticator.guard();
        Ok(wanted.map_or_else(|| guard.list(), |wanted| guard.penalties_of(wanted)))
    });
    let mut charges = charges.await?.into_iter();
    let items: Vec<_> = charges
        .by_ref()
        .skip(skipped)
        .take(limit)
        .map(GuardEntry::from)
        .collect();
    let more = charges.next().is_some();
    Ok(Json(List {
        next: more.then(|| (skipped + items.len()).to_string()),
        items,
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ClearQuery {
    /// An address, which has its own and its network's failures forgotten; or a network (CIDR), for all in it.
    network: String,
}

/// How many networks had something held against them.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct Cleared {
    /// Bans and scores that were ended.
    pub cleared: usize,
}

/// Ends bans, and forgets failed logins and who logged in from there.
#[utoipa::path(delete, path = "/guard", tag = "guard", params(ClearQuery),
    responses((status = 200, description = "They are forgotten.", body = Cleared), (status = 404, description = "That is no network.", body = crate::admin::problem::ProblemDocument, content_type = "application/problem+json")))]
async fn clear_guard(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Query(query): Query<ClearQuery>,
) -> Result<Json<Cleared>, Problem> {
    caller.require_instance(Access::Admin)?;
    desk.change(move |desk| {
        let wanted = wanted(&query.network)?;
        let cleared = desk.clear_guard(&caller.actor, wanted)?;
        Ok(Json(Cleared { cleared }))
    })
    .await
}

fn wanted(text: &str) -> Result<ClearTarget, Problem> {
    let wanted = text.trim().parse();
    wanted.map_err(|error| Problem::new(Code::NotFound, format!("network: {error}")))
}
