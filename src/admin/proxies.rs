//! Reverse proxies that are believed who the client is: those of `admin.trusted_proxies`, and
//! each that connects to `admin.proxy_socket`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::Response;

use crate::config::{self, Network};
use crate::log::Throttle;
use crate::net::listener::Neighbour;

use super::forwarded::{FOR, FORWARDED, Forwarded};
use super::gate::place;
use super::http::Encrypted;

/// Marks the requests that come over `admin.proxy_socket`.
#[derive(Clone, Copy)]
pub(super) struct OverProxySocket;

/// How a request came. Every request has it as an extension.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrival {
    /// Whether a trusted proxy sent it, whose headers are believed.
    pub(super) by_proxy: bool,
    /// The name that the browser asked the proxy for.
    pub(super) host: Option<Authority>,
}

/// Which proxies are believed.
pub(super) struct Proxies {
    trusted: Vec<Network>,
    malformed: Throttle,
    open_socket: Throttle,
}

impl Proxies {
    pub(super) fn new(admin: &config::Admin) -> Proxies {
        Proxies {
            trusted: admin.trusted_proxies.clone(),
            malformed: Throttle::new(),
            open_socket: Throttle::new(),
        }
    }

    fn are_trusted_at(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Takes the client's address and scheme from a trusted proxy's headers: the rest of the
    /// administration sees the client as if it had connected itself.
    fn receive(&self, request: &mut Request) {
        let extensions = request.extensions();
        let neighbour = extensions.get::<Neighbour>().copied();
        let by_proxy = match neighbour {
            Some(Neighbour::Tcp(peer)) => self.are_trusted_at(peer.ip()),
            Some(Neighbour::Unix { .. }) => extensions.get::<OverProxySocket>().is_some(),
            None => false,
        };
        if !by_proxy {
            self.warn_of_open_socket(request, neighbour);
            request.extensions_mut().insert(Arrival::default());
            return;
        }
        let read = Forwarded::read(request.headers(), |address| self.are_trusted_at(address));
        if !read.ignored.is_empty()
            && let Some(count) = self.malformed.due()
        {
            tracing::warn!(
                target: "gatepost::admin",
                from = %place(request),
                headers = read.ignored.join(", "),
                count,
                "a reverse proxy's headers cannot be read or contradict each other and are ignored; have it set one of X-Forwarded-For and Forwarded, remove the other, and set X-Forwarded-Proto to http or https"
            );
        }
        let extensions = request.extensions_mut();
        if let Some(client) = read.client {
            extensions.insert(Neighbour::Tcp(SocketAddr::new(client, 0)));
        }
        if let Some(https) = read.https {
            extensions.insert(Encrypted(https));
        }
        extensions.insert(Arrival {
            by_proxy,
            host: read.host,
        });
    }

    /// A proxy in front of `admin.socket` would let every client do everything.
    fn warn_of_open_socket(&self, request: &Request, neighbour: Option<Neighbour>) {
        let headers = request.headers();
        let is_forwarded = headers.contains_key(FOR) || headers.contains_key(FORWARDED);
        if is_forwarded
            && matches!(neighbour, Some(Neighbour::Unix { .. }))
            && let Some(count) = self.open_socket.due()
        {
            tracing::warn!(
                target: "gatepost::admin",
                count,
                "a reverse proxy seems to stand before admin.socket, where every request may do everything; give it admin.proxy_socket instead"
            );
        }
    }
}

pub(super) async fn receive(
    State(proxies): State<Arc<Proxies>>,
    mut request: Request,
    next: Next,
) -> Response {
    proxies.receive(&mut request);
    next.run(request).await
}
