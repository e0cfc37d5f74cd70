//! The SMTP edge serves one client per task, from accept to close: read input, ask the session for
//! an action, execute the action.

mod connection;
#[cfg(test)]
mod cost;
mod dialer;
mod ending;
mod handoff;
mod timer;
mod upstream;
mod upstreams;
mod workers;

use std::sync::Arc;

use rustls::ServerConfig;

use crate::auth::Authenticator;

use crate::config;
use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::metrics::Metrics;
use crate::net::listener::Accepted;
use crate::sessions::Sessions;
use crate::smtp::data::BareNewline;
use crate::smtp::session::Settings;

pub use dialer::Dialer;
pub use handoff::HandoffError;
pub use upstreams::Upstreams;
pub use workers::Workers;

/// Everything the connections share.
pub struct Edge {
    pub settings: Arc<Settings>,
    /// Limits on the silence of clients and upstreams.
    pub timeouts: config::Timeouts,
    pub bare_newline: BareNewline,
    /// The TLS configuration for clients, reloaded in place.
    pub tls: Arc<ServerConfig>,
    pub authenticator: Arc<Authenticator>,
    pub upstreams: Arc<Upstreams>,
    /// The live sessions, for the list and for disconnects.
    pub sessions: Arc<Sessions>,
    pub metrics: Arc<Metrics>,
    /// Announces draining and the final stop.
    pub lifecycle: Lifecycle,
}

impl Edge {
    /// Serves one client in a new task on the accepting thread.
    pub fn serve(self: &Arc<Self>, accepted: Accepted, listener: &Arc<config::Listener>) {
        let address = accepted.peer.ip();
        // Behind a load balancer the guard checks the client address from the PROXY header instead.
        let place = match listener.is_proxy(address) {
            true => Ok(None),
            false => self.authenticator.guard().admit(address),
        };
        let place = match place {
            Ok(place) => place,
            Err(why) => return connection::shed(&accepted.stream, listener.kind, why),
        };
        if accepted.permit.is_none() {
            static OVER_LIMIT: Throttle = Throttle::new();
            self.metrics.connections_refused.inc();
            if let Some(count) = OVER_LIMIT.due() {
                tracing::warn!(
                    count,
                    limit = self.metrics.connections_limit.get(),
                    "clients were turned away: as many are connected as limits.connections, or the file descriptors, allow"
                );
            }
            connection::reject_over_limit(&accepted.stream, listener.kind);
            return;
        }
        let (edge, listener) = (self.clone(), listener.clone());
        self.lifecycle.spawn(async move {
            let _counted = Open::count(&edge.metrics);
            connection::serve(&edge, accepted, place, &listener).await;
        });
    }
}

/// Counts a connection as open until dropped, so every exit path is covered.
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
