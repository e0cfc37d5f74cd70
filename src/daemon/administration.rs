//! The administration as it is configured: where it listens, by which names it is asked for, and what it is told.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use super::{Core, DaemonError, Sockets, cost};
use crate::admin::{Administration, System, Unwritten};
use crate::config::{Config, Endpoint};
use crate::lifecycle::Lifecycle;
use crate::net::hosts;
use crate::net::listener::{Accept as _, Access, LocalListener};

/// Who may use the unix socket where no .socket unit makes it: its owner and its group.
const ACCESS: Access = Access {
    mode: 0o660,
    group: None,
};

/// What connects to a socket of the administration.
#[derive(Clone, Copy)]
pub(super) enum For {
    Clients,
    ClientsByTls,
    Proxy,
}

/// Where the administration listens.
pub(super) fn listeners(
    config: &Config,
    sockets: &mut Sockets,
) -> Result<Vec<(LocalListener, For)>, DaemonError> {
    let Some(admin) = &config.admin else {
        return Ok(Vec::new());
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
        .map(|(endpoint, who)| Ok((sockets.local(&endpoint, ACCESS)?, who)))
        .collect()
}

/// The administration, open but not serving; none if it listens nowhere.
pub(super) struct Closed {
    administration: Administration,
    listeners: Vec<(LocalListener, For)>,
    /// Not `None` where a listener is for [`For::ClientsByTls`].
    tls: Option<TlsAcceptor>,
    lifecycle: Lifecycle,
}

impl Closed {
    /// `places` are all other listeners, by their kind.
    pub(super) fn new(
        config: &Config,
        listeners: Vec<(LocalListener, For)>,
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
        // Never in clear text where TLS is wanted.
        if core.tls.is_none()
            && listeners
                .iter()
                .any(|(_, who)| matches!(who, For::ClientsByTls))
        {
            return Err(DaemonError::Incomplete);
        }
        let own = listeners.iter().map(|(listener, _)| listener.place());
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
            upstreams: upstreams(core),
            hostname: config.hostname.to_string(),
        };
        Ok(Some(Closed {
            administration: Administration::new(system, admin),
            listeners,
            tls: core.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config())),
            lifecycle: core.lifecycle.clone(),
        }))
    }

    /// Serves until draining, which waits for requests under way. Returns what they leave
    /// unwritten.
    pub(super) fn open(self) -> Unwritten {
        let Closed {
            administration,
            listeners,
            tls,
            lifecycle,
        } = self;
        for (listener, who) in listeners {
            let tls = match who {
                For::Clients => None,
                For::ClientsByTls => tls.clone(),
                For::Proxy => {
                    lifecycle.spawn(administration.serve_proxy(listener, lifecycle.clone()));
                    continue;
                }
            };
            lifecycle.spawn(administration.serve(listener, tls, lifecycle.clone()));
        }
        // Not waited for: requests that are under way while draining leave something to write, too.
        let unwritten = administration.unwritten();
        tokio::spawn(unwritten.keep_writing());
        unwritten
    }
}

/// What the administration shows of them.
fn upstreams(core: &Core) -> Vec<(Option<String>, Arc<hosts::Hosts>)> {
    let all = core.upstreams.iter().flat_map(|upstreams| upstreams.all());
    all.map(|(slug, dialer)| (slug.map(str::to_owned), dialer.hosts().clone()))
        .collect()
}
