//! Builds the admin server from the configuration: listeners, host names and the shared parts.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::{Core, DaemonError, Sockets, cost};
use crate::admin::{Administration, System, Unwritten};
use crate::config::{Config, Endpoint};
use crate::lifecycle::Lifecycle;
use crate::net::listener::{Accept as _, Access, LocalListener};
use crate::net::unopened::{Unopened, Wanted};
use crate::net::upstream_pool::UpstreamPool;
use crate::sasl::Secret;

/// The permissions of a unix socket opened by Gatepost: owner and group.
pub(super) const ACCESS: Access = Access {
    mode: 0o660,
    group: None,
};

/// The clients of an admin listener.
#[derive(Clone, Copy)]
pub(super) enum For {
    Clients,
    ClientsByTls,
    Proxy,
}

/// The open listeners, and the listeners still to be opened.
pub(super) type Listeners = Vec<(Result<LocalListener, Wanted>, For)>;

/// Opens the admin listeners; failures are recorded in `unopened`.
pub(super) fn listeners(config: &Config, sockets: &mut Sockets, unopened: &Unopened) -> Listeners {
    let Some(admin) = &config.admin else {
        return Vec::new();
    };
    let unix = admin.socket.clone().map(Endpoint::Unix);
    let proxy = admin.proxy_socket.clone().map(Endpoint::Unix);
    let tcp = admin.listen.map(Endpoint::Tcp);
    let by_tls = match admin.tls {
        true => For::ClientsByTls,
        false => For::Clients,
    };
    let endpoints = [(unix, For::Clients), (proxy, For::Proxy), (tcp, by_tls)].into_iter();
    let endpoints = endpoints.filter_map(|(endpoint, who)| Some((endpoint?, who)));
    endpoints
        .map(|(endpoint, who)| {
            let wanted = Wanted {
                kind: "admin",
                endpoint,
                access: ACCESS,
            };
            (sockets.local_or_later(wanted, unopened), who)
        })
        .collect()
}

/// The prepared admin server: listeners open, not yet serving.
pub(super) struct Closed {
    administration: Arc<Administration>,
    listeners: Listeners,
    unopened: Unopened,
    /// Always set if a listener is for [`For::ClientsByTls`].
    tls: Option<TlsAcceptor>,
    lifecycle: Lifecycle,
}

impl Closed {
    /// Returns `None` without admin listeners. `places` lists all other listeners by kind.
    pub(super) fn new(
        config: &Config,
        listeners: Listeners,
        unopened: Unopened,
        mut places: Vec<(String, String)>,
        core: &Core,
    ) -> Result<Option<Closed>, DaemonError> {
        let Some(admin) = config.admin.as_ref().filter(|_| !listeners.is_empty()) else {
            return Ok(None);
        };
        if admin.listen.is_some() && core.store.has_no_tokens()? {
            tracing::warn!(
                "there is no admin token yet; make one with: gatepost token create --name NAME --scope instance:admin"
            );
        }
        // A TLS listener must never fall back to clear text.
        if core.tls.is_none()
            && listeners
                .iter()
                .any(|(_, who)| matches!(who, For::ClientsByTls))
        {
            return Err(DaemonError::Incomplete);
        }
        let open = listeners.iter().filter_map(|(one, _)| one.as_ref().ok());
        let own = open.map(LocalListener::place);
        places.extend(own.map(|place| ("admin".to_owned(), place)));
        let system = System {
            store: core.store.clone(),
            authenticator: core.authenticator.clone(),
            noted: core.noted.clone(),
            quotas: core.quotas.clone(),
            sessions: core.sessions.clone(),
            tls: core.tls.clone(),
            metrics: core.metrics.clone(),
            lifecycle: core.lifecycle.clone(),
            cost: cost(config),
            started_at: crate::clock::steady_ms(),
            listeners: places,
            unopened: unopened.clone(),
            upstreams: upstreams(core),
            hostname: config.hostname.to_string(),
        };
        Ok(Some(Closed {
            administration: Arc::new(Administration::new(system, admin)),
            listeners,
            unopened,
            tls: core.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config())),
            lifecycle: core.lifecycle.clone(),
        }))
    }

    /// The address of a link that signs a browser in once, where a TCP address is open.
    pub(super) fn sign_in_link(&self, token: &Secret) -> Option<String> {
        let open = self.listeners.iter();
        let mut open = open.filter_map(|(listener, _)| listener.as_ref().ok());
        let tcp = open.find(|listener| matches!(listener, LocalListener::Tcp(_)))?;
        let path = self.administration.sign_in_link(token);
        Some(format!("http://{}{path}", tcp.place()))
    }

    /// Serves until draining, which waits for open requests. Returns the queue of unwritten
    /// changes.
    pub(super) fn open(self) -> Unwritten {
        let Closed {
            administration,
            listeners,
            unopened,
            tls,
            lifecycle,
        } = self;
        // Not tracked by draining: requests finished during the drain may still add changes.
        let unwritten = administration.unwritten();
        for (listener, who) in listeners {
            let (administration, unopened) = (administration.clone(), unopened.clone());
            let (tls, ending) = (tls.clone(), lifecycle.clone());
            lifecycle.spawn(async move {
                let listener = match listener {
                    Ok(listener) => listener,
                    Err(wanted) => match unopened.open(wanted, ending.clone()).await {
                        Some(listener) => listener,
                        None => return,
                    },
                };
                match who {
                    For::Clients => administration.serve(listener, None, ending).await,
                    For::ClientsByTls => administration.serve(listener, tls, ending).await,
                    For::Proxy => administration.serve_proxy(listener, ending).await,
                }
            });
        }
        tokio::spawn(unwritten.keep_writing());
        unwritten
    }
}

/// Lists the upstream pools shown by the admin server.
fn upstreams(core: &Core) -> Vec<(Option<String>, Arc<UpstreamPool>)> {
    let all = core.upstreams.iter().flat_map(|upstreams| upstreams.all());
    all.map(|(slug, dialer)| (slug.map(str::to_owned), dialer.pool().clone()))
        .collect()
}
