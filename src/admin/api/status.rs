//! How Gatepost is doing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::caller::Caller;
use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::clock;
use crate::net::upstream_pool::{HostState, UpstreamPool};
use crate::store::Access;

use super::field::Time;

pub(super) fn routes() -> OpenApiRouter<Arc<Desk>> {
    OpenApiRouter::new().routes(routes!(get_status))
}

/// How Gatepost is doing.
#[derive(Serialize, ToSchema)]
struct Status {
    version: &'static str,
    /// The commit that the program is built from, and its date.
    build: &'static str,
    started_at: Time,
    uptime_seconds: i64,
    listeners: Vec<Listener>,
    connections: Connections,
    upstream: Upstream,
    /// Of those organizations that have one of their own.
    organization_upstreams: Vec<OwnUpstream>,
    /// Absent without `[tls]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate>,
    store: Store,
    cache: Cache,
    /// Sessions that are logged in.
    sessions: usize,
    /// Changes that take access away and count, and are not written yet.
    revocations_not_durable: usize,
}

/// A place where somebody is awaited.
#[derive(Serialize, ToSchema)]
struct Listener {
    /// For example `submission` or `admin`.
    kind: String,
    /// The address, or `unix:` and a path.
    address: String,
    /// Why the address is not served; it is taken once it is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// The connections of clients.
#[derive(Serialize, ToSchema)]
struct Connections {
    /// Those open now.
    open: u64,
    /// How many there may be: `limits.connections`, or fewer where the process has too few file
    /// descriptors for that.
    limit: u64,
}

/// The MTA behind the gate.
#[derive(Serialize, ToSchema)]
struct Upstream {
    /// Whether it took what it was last offered.
    up: bool,
    /// Each of its places, in the order in which they are configured.
    hosts: Vec<Host>,
}

/// The upstream that an organization has of its own.
#[derive(Serialize, ToSchema)]
struct OwnUpstream {
    /// The organization's slug.
    organization: String,
    /// Each of its places, in the order in which they are configured.
    hosts: Vec<Host>,
}

/// One place where an upstream is reached.
#[derive(Serialize, ToSchema)]
struct Host {
    /// The address, or `unix:` and a path, or a name that has no address.
    address: String,
    /// The name that it was found by.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// How it was when it was last tried.
    state: HostStatus,
    /// Why the name has no address.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

/// How a place was when it was last tried.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum HostStatus {
    /// It answered.
    Up,
    /// It did not answer, or its name has no address.
    Down,
    /// It was not needed so far.
    Untried,
}

impl From<HostState> for Host {
    fn from(state: HostState) -> Self {
        Self {
            address: state.address,
            name: state.name,
            state: match state.up {
                Some(true) => HostStatus::Up,
                Some(false) => HostStatus::Down,
                None => HostStatus::Untried,
            },
            fault: state.fault,
        }
    }
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
        let listener = |(kind, address): &(String, String)| Listener {
            kind: kind.clone(),
            address: address.clone(),
            fault: None,
        };
        let unopened = system.unopened.all().into_iter();
        let unopened = unopened.map(|(kind, address, fault)| Listener {
            kind: kind.to_owned(),
            address,
            fault: Some(fault),
        });
        let hosts = |hosts: &Arc<UpstreamPool>| hosts.states().into_iter().map(Host::from);
        let upstreams = &system.upstreams;
        let shared = upstreams.iter().filter(|(slug, _)| slug.is_none());
        let shared = shared.map(|(_, places)| places);
        let own = upstreams.iter().filter_map(|(slug, places)| {
            Some(OwnUpstream {
                organization: slug.clone()?,
                hosts: hosts(places).collect(),
            })
        });
        Ok(Json(Status {
            version: env!("CARGO_PKG_VERSION"),
            build: env!("PROGRAM_BUILD"),
            started_at: Time(clock::wall_of(system.started_at)),
            uptime_seconds: (clock::steady_ms() - system.started_at) / 1_000,
            listeners: system
                .listeners
                .iter()
                .map(listener)
                .chain(unopened)
                .collect(),
            connections: Connections {
                open: system.metrics.connections_open.get().unsigned_abs(),
                limit: system.metrics.connections_limit.get().unsigned_abs(),
            },
            upstream: Upstream {
                up: system.metrics.upstream_up.get() == 1,
                hosts: shared.flat_map(hosts).collect(),
            },
            organization_upstreams: own.collect(),
            certificate: system.tls.as_ref().map(|tls| Certificate {
                expires_at: Time(tls.not_after().saturating_mul(1_000)),
            }),
            store: Store {
                organizations: size.organizations,
                credentials: size.credentials,
                bytes: size.bytes,
            },
            cache: Cache {
                entries: system.authenticator.cached(),
            },
            sessions: system.sessions.count(),
            revocations_not_durable: system.store.unwritten(),
        }))
    })
    .await
}
