//! The edge: one client at a time, from its connection to its last byte. Reads, asks the session
//! what to do, and does it.

mod connection;
#[cfg(test)]
mod cost;
mod dialer;
mod ending;
mod timer;
mod upstream;
mod upstreams;
mod way;
mod workers;

use std::sync::Arc;

use rustls::ServerConfig;

use crate::auth::Authenticator;
use crate::auth::quota::Quotas;
use crate::config;
use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::metrics::Metrics;
use crate::net::listener::Accepted;
use crate::sessions::Sessions;
use crate::smtp::data::BareNewline;
use crate::smtp::session::Settings;

pub use dialer::Dialer;
pub use upstreams::Upstreams;
pub use way::WayError;
pub use workers::Workers;

/// What all connections share.
pub struct Edge {
    /// The protocol's settings.
    pub settings: Arc<Settings>,
    /// How long clients and the upstream may be silent.
    pub timeouts: config::Timeouts,
    /// What to do with bodies that could be framed differently.
    pub bare_newline: BareNewline,
    /// TLS as clients are offered it.
    pub tls: Arc<ServerConfig>,
    /// Verifies.
    pub authenticator: Arc<Authenticator>,
    /// Counts what credentials send.
    pub quotas: Arc<Quotas>,
    /// Where sessions go.
    pub upstreams: Arc<Upstreams>,
    /// Who is connected now.
    pub sessions: Arc<Sessions>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Says when to stop.
    pub lifecycle: Lifecycle,
}

impl Edge {
    /// Serves one client in a task of its own, on the thread that accepted it.
    pub fn serve(self: &Arc<Self>, accepted: Accepted, listener: &Arc<config::Listener>) {
        let address = accepted.peer.ip();
        // Behind a load balancer, only its header says whom this is about.
        let place = match listener.is_proxy(address) {
            true => Ok(None),
            false => self.authenticator.guard().admit(address),
        };
        let place = match place {
            Ok(place) => place,
            Err(why) => return connection::shed(&accepted.stream, listener.kind, why),
        };
        if accepted.permit.is_none() {
            static TURNED_AWAY: Throttle = Throttle::new();
            self.metrics.connections_refused.inc();
            if let Some(count) = TURNED_AWAY.due() {
                tracing::warn!(
                    count,
                    limit = self.metrics.connections_limit.get(),
                    "clients were turned away: as many are connected as limits.connections, or the file descriptors, allow"
                );
            }
            connection::turn_away(&accepted.stream, listener.kind);
            return;
        }
        let (edge, listener) = (self.clone(), listener.clone());
        self.lifecycle.spawn(async move {
            let _counted = Open::count(&edge.metrics);
            connection::serve(&edge, accepted, place, &listener).await;
        });
    }
}

/// A connection that is counted as open until it is dropped, however it ends.
struct Open<'a>(&'a Metrics);

impl<'a> Open<'a> {
    fn count(metrics: &'a Metrics) -> Self {
        metrics.connections_open.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections_open.dec();
    }
}
