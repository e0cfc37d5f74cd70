//! Whether it lives and whether it can serve, for load balancers and supervisors: `/healthz` and `/readyz`. They ask for no
//! token and mind no host, since they tell nothing that a connection would not.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use super::desk::Desk;

pub(super) fn routes(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(desk)
}

/// Whether a client that connects now would get its mail through.
async fn ready(State(desk): State<Arc<Desk>>) -> (StatusCode, &'static str) {
    let system = &desk.system;
    let store = desk
        .run(|desk| Ok(desk.system.store.has_no_tokens()?))
        .await;
    let verdict = if system.lifecycle.is_draining() {
        Err("draining: it is being stopped or restarted\n")
    } else if store.is_err() {
        Err("the store cannot be read: the log says why\n")
    } else if system.metrics.upstream_up.get() != 1 {
        Err("the upstream does not take sessions: is Postfix running?\n")
    } else {
        Ok("ready\n")
    };
    match verdict {
        Ok(text) => (StatusCode::OK, text),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    }
}
