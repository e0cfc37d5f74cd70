//! What other processes changed: the command line has the running Gatepost obey it at once.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::store::Access;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(obey_changes))
}

/// Obeys at once what another process changed in the store. Without this, that takes up to 250 ms.
#[utoipa::path(post, path = "/changes", tag = "status",
    responses((status = 204, description = "Every login that begins from now on goes by what is stored.")))]
async fn obey_changes(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    caller.require_instance(Access::Admin)?;
    desk.look_up(|desk| {
        desk.see_changes();
        Ok(StatusCode::NO_CONTENT)
    })
    .await
}
