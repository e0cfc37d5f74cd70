//! One change of many credentials.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::bulk::{self, MOST};
use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::extract::{Body, Path};
use crate::admin::problem::Problem;

use super::credentials::StateNow;
use super::field::{Since, Time, Within, present, since_schema, within_schema};
use super::organizations::InOrganization;

/// The largest body, in octets.
const BODY_SIZE: usize = 2 * 1024 * 1024;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(change_credentials))
}

/// What to do with which credentials. Either `usernames` or `filter` is needed; with both, only those of
/// the usernames that pass the filter are meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BulkChange {
    action: BulkAction,
    #[schema(max_items = 20_000)]
    usernames: Option<Vec<String>>,
    filter: Option<BulkFilter>,
    /// For `expire`, and needed there: from when on they are refused; null means never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Time>)]
    expires_at: Option<Option<Time>>,
    /// Change nothing, and report how many are meant.
    #[serde(default)]
    dry_run: bool,
    /// End the live sessions of those that lose access, too.
    #[serde(default)]
    disconnect: bool,
}

/// What to do with each credential.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BulkAction {
    /// Delete it for good.
    Delete,
    /// Accept it again.
    Enable,
    /// Refuse it from `expires_at` on.
    Expire,
    /// Refuse it.
    Revoke,
}

/// Which credentials of the organization; empty, all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BulkFilter {
    /// Only those in this state.
    #[schema(inline)]
    status: Option<StateNow>,
    /// Only active ones that expire within so long from now.
    #[schema(schema_with = within_schema)]
    expires_within: Option<Within>,
    /// Only those made before, and not used since, this time, or for so long.
    #[schema(schema_with = since_schema)]
    unused_since: Option<Since>,
    /// Only those with this in their name or username.
    text: Option<String>,
}

/// What became of the credentials.
#[derive(Serialize, ToSchema)]
struct BulkReport {
    action: BulkAction,
    /// Whether nothing was changed.
    dry_run: bool,
    /// How many were meant, at most 20,000. `enable` means no active ones, and `revoke` no revoked ones, unless
    /// `filter.status` or `usernames` does.
    selected: usize,
    /// Whether more are meant than one request changes; repeat it.
    more: bool,
    /// How many were changed.
    done: usize,
    /// How many needed no change.
    unchanged: usize,
    /// How many could not be changed.
    failed: usize,
    /// The first 100 of those.
    failures: Vec<BulkFailure>,
    /// The first 100 of those that were meant.
    usernames: Vec<String>,
}

/// A credential that could not be changed.
#[derive(Serialize, ToSchema)]
struct BulkFailure {
    username: String,
    /// For people.
    reason: String,
}

impl BulkChange {
    fn action(&self) -> Result<bulk::Action, Problem> {
        if self.expires_at.is_some() != matches!(self.action, BulkAction::Expire) {
            return Err(Problem::field(
                "#/expires_at",
                "needed for expire, and for nothing else".to_owned(),
            ));
        }
        Ok(match self.action {
            BulkAction::Delete => bulk::Action::Delete,
            BulkAction::Enable => bulk::Action::Enable,
            BulkAction::Expire => {
                bulk::Action::Expire(self.expires_at.flatten().map(|time| time.0))
            }
            BulkAction::Revoke => bulk::Action::Revoke,
        })
    }

    fn selection(self) -> Result<bulk::Selection, Problem> {
        if self.usernames.is_none() && self.filter.is_none() {
            return Err(Problem::field(
                "#/usernames",
                "say which credentials: by usernames or by filter; an empty filter means all"
                    .to_owned(),
            ));
        }
        if self.usernames.as_ref().is_some_and(|all| all.len() > MOST) {
            return Err(Problem::field("#/usernames", format!("at most {MOST}")));
        }
        let unused_since = self.filter.as_ref().and_then(|filter| filter.unused_since);
        if unused_since.is_some_and(|since| since.0 > crate::clock::now_ms()) {
            return Err(Problem::field(
                "#/filter/unused_since",
                "is yet to come, and every credential is unused since then".to_owned(),
            ));
        }
        Ok(bulk::Selection {
            usernames: self.usernames,
            filter: self.filter.map(|filter| bulk::Filter {
                state: filter.status.map(Into::into),
                expires_until: filter.expires_within.map(|end| end.0),
                unused_since: filter.unused_since.map(|since| since.0),
                text: filter.text.filter(|text| !text.is_empty()),
            }),
        })
    }
}

/// Revokes, enables, expires or deletes many credentials, with an audit record for each. The filter is evaluated once, and
/// what is taken away counts for all of them before any is written. The writes follow in several transactions: where the
/// store stops taking them, the answer says how many are written.
#[utoipa::path(post, path = "/organizations/{slug}/bulk", tag = "credentials", params(InOrganization),
    request_body = BulkChange,
    responses((status = 200, description = "What became of them.", body = BulkReport)))]
async fn change_credentials(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    Path(at): Path<InOrganization>,
    Body(change): Body<BulkChange, BODY_SIZE>,
) -> Result<Json<BulkReport>, Problem> {
    let (named, action) = (change.action, change.action()?);
    let (dry_run, disconnect) = (change.dry_run, change.disconnect);
    let selected = desk.select(&at.slug, action, change.selection()?).await?;
    let report = match dry_run {
        true => desk.preview(&at.slug, action, selected).await?,
        false => {
            let changed = desk.change_all(&caller.actor, &at.slug, action, selected, disconnect);
            changed.await?
        }
    };
    let failures = report.failures.into_iter();
    Ok(Json(BulkReport {
        action: named,
        dry_run,
        selected: report.selected,
        more: report.more,
        done: report.done,
        unchanged: report.unchanged,
        failed: report.failed,
        failures: failures
            .map(|(username, reason)| BulkFailure { username, reason })
            .collect(),
        usernames: report.usernames,
    }))
}
