//! How Gatepost is doing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::store::Access;

use super::field::Time;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(get_status))
}

/// How Gatepost is doing.
#[derive(Serialize, ToSchema)]
struct Status {
    version: &'static str,
    started_at: Time,
    uptime_seconds: i64,
    listeners: Vec<Listener>,
    upstream: Upstream,
    certificate: Certificate,
    store: Store,
    cache: Cache,
    /// Sessions that are logged in.
    sessions: usize,
    /// Revocations that count but could not be written yet.
    revocations_not_durable: usize,
}

/// A place where somebody is awaited.
#[derive(Serialize, ToSchema)]
struct Listener {
    /// For example `submission` or `admin`.
    kind: String,
    /// The address, or `unix:` and a path.
    address: String,
}

/// The MTA behind the gate.
#[derive(Serialize, ToSchema)]
struct Upstream {
    /// The address, or `unix:` and a path.
    address: String,
    /// Whether it took what it was last offered.
    up: bool,
}

/// The certificate that clients are shown.
#[derive(Serialize, ToSchema)]
struct Certificate {
    /// When it ends.
    expires_at: Time,
}

/// What the store holds.
#[derive(Serialize, ToSchema)]
struct Store {
    organizations: u64,
    credentials: u64,
    /// The size of the database, without its write-ahead log.
    bytes: u64,
}

/// What is remembered of right passwords.
#[derive(Serialize, ToSchema)]
struct Cache {
    entries: u64,
}

/// Tells how Gatepost is doing.
#[utoipa::path(get, path = "/status", tag = "status",
    responses((status = 200, description = "At this moment.", body = Status)))]
async fn get_status(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
) -> Result<Json<Status>, Problem> {
    caller.require_instance(Access::Read)?;
    desk.run(|desk| {
        let system = &desk.system;
        let size = system.store.size()?;
        let now = Timestamp::now();
        let listener = |(kind, address): &(String, String)| Listener {
            kind: kind.clone(),
            address: address.clone(),
        };
        Ok(Json(Status {
            version: env!("CARGO_PKG_VERSION"),
            started_at: Time(system.started_at.as_millisecond()),
            uptime_seconds: now.duration_since(system.started_at).as_secs(),
            listeners: system.listeners.iter().map(listener).collect(),
            upstream: Upstream {
                address: system.upstream.clone(),
                up: system.metrics.upstream_up.get() == 1,
            },
            certificate: Certificate {
                expires_at: Time(system.tls.not_after().saturating_mul(1_000)),
            },
            store: Store {
                organizations: size.organizations,
                credentials: size.credentials,
                bytes: size.bytes,
            },
            cache: Cache {
                entries: system.authenticator.remembered(),
            },
            sessions: system.sessions.count(),
            revocations_not_durable: system.authenticator.denials().len(),
        }))
    })
    .await
}
