//! The wiring: builds every part, starts the parts, and stops them in order.

mod administration;
mod auth_socket;
mod certificate;
pub mod descriptors;
mod error;
mod sockets;
mod store;
mod watchdog;

use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::auth::guard::{ConnectionLimits, Guard, Settings as GuardSettings};
use crate::auth::password::{Cost, Hasher};
use crate::auth::quota::{self, Quotas};
use crate::auth::{ActivityBatch, Authenticator, flush_regularly, poll_regularly};
use crate::config::{self, BareNewline, Config, Endpoint, ListenerKind};
use crate::edge::{Edge, Upstreams, Workers};
use crate::lifecycle::{Lifecycle, notify};
use crate::metrics::{Metrics, SeriesLimits};
use crate::net::listener::{self, Accept as _, LocalListener};
use crate::net::tls::{self, Tls};
use crate::net::unopened::{Unopened, Wanted};
use crate::sasl::Secret;
use crate::sessions::Sessions;
use crate::smtp;
use crate::smtp::session::Settings;
use crate::store::{Store, StoreError, plain};
use crate::{admin, dovecot};

pub use auth_socket::{access as auth_socket_access, concern as auth_socket_concern, group_id};
pub use certificate::pairs;
pub use error::DaemonError;

pub use sockets::Sockets;

/// How long the last writes may take after a drain that used its full time. The process ends within
/// five seconds of the drain even if the disk hangs.
const LAST_WRITES: Duration = Duration::from_millis(2_500);

/// The configured cost of a password hash.
pub fn cost(config: &Config) -> Cost {
    Cost {
        memory_kib: config.auth.memory_kib,
        iterations: config.auth.iterations,
        lanes: config.auth.lanes,
    }
}

/// Builds the guard's settings for a number of hashing threads.
pub fn guard_settings(config: &Config, threads: usize) -> GuardSettings {
    let guard = &config.guard;
    let mut exempt = guard.exempt.clone();
    // A load balancer is not responsible for its clients.
    let listeners = config.listeners.iter();
    exempt.extend(listeners.flat_map(|listener| &listener.proxy_from));
    GuardSettings {
        enabled: guard.enabled,
        exempt,
        connections: ConnectionLimits {
            total: guard.unauthenticated,
            per_client: guard.per_address,
            per_network: guard.per_network,
        },
        handshakes: guard.handshakes,
        threads,
        queue: config.auth.queue,
    }
}

/// The limits of credentials and organizations without their own limits.
pub fn defaults(config: &Config) -> quota::Defaults {
    quota::Defaults {
        credential: config.credential_limits.0.clone(),
        organization: config.organization_limits.0.clone(),
    }
}

fn series_limits(config: &Config) -> SeriesLimits {
    config
        .metrics
        .as_ref()
        .map_or_else(SeriesLimits::default, |metrics| SeriesLimits {
            series: metrics.series,
            per_credential: metrics.per_credential,
        })
}

/// Returns a warning about usernames that no login finds because of case folding.
///
/// # Errors
/// The store cannot be read.
pub fn unreachable_usernames(config: &Config, store: &Store) -> Result<Option<String>, StoreError> {
    if !config.auth.username_case.folds() {
        return Ok(None);
    }
    Ok(store.with_upper_case()?.map(|(count, example)| {
        format!(
            "{count} username(s), such as {}, have upper-case letters, and no login finds them while \
             auth.username_case is \"fold\": export them with gatepost export --with-hashes, delete \
             them and import that file, or set \"exact\"",
            plain(&example)
        )
    }))
}

/// The daemon, built but not yet serving.
pub struct Daemon {
    core: Core,
    /// `None` where Postfix keeps its listeners.
    edge: Option<Arc<Edge>>,
    own_store: store::Own,
    workers: Workers,
    listeners: Vec<(Arc<config::Listener>, net::TcpListener)>,
    /// With whether reported client addresses are trusted.
    auth_socket: Option<(LocalListener, bool)>,
    metrics_listener: Option<(Result<LocalListener, Wanted>, admin::Hosts)>,
    unopened: Unopened,
    administration: Option<administration::Closed>,
    connections: usize,
    drain_timeout: Duration,
    flush_interval: Duration,
    reload_interval: Duration,
}

/// The parts shared by the listeners, the auth socket and the admin server.
struct Core {
    store: Arc<Store>,
    noted: Arc<ActivityBatch>,
    metrics: Arc<Metrics>,
    quotas: Arc<Quotas>,
    authenticator: Arc<Authenticator>,
    sessions: Arc<Sessions>,
    lifecycle: Lifecycle,
    tls: Option<Arc<Tls>>,
    upstreams: Option<Arc<Upstreams>>,
}

impl Daemon {
    /// Opens the store, loads the certificate and binds every address, so that every error shows
    /// before the first client.
    pub fn new(config: &Config, mut sockets: Sockets) -> Result<Self, DaemonError> {
        let mut config = config.clone();
        sockets.complete(&mut config)?;
        let config = &config;
        if config.listeners.is_empty() && config.dovecot_auth.is_none() {
            return Err(DaemonError::NoListener);
        }
        let metrics = Arc::new(Metrics::with_limits(series_limits(config))?);
        let (store, own_store) = store::Own::open(&config.store.path)?;
        metrics.store_in_place.set(1);
        metrics.audit_head_sequence.set(store.audit_head()?);
        let tls = config.tls.as_ref();
        let tls = tls.map(|tls| Tls::load(pairs(tls)).map(Arc::new));
        let tls = tls.transpose()?;
        if let Some(tls) = &tls {
            metrics.tls_certificate_not_after.set(tls.not_after());
        }
        let noted = Arc::new(ActivityBatch::new(
            config.last_used.pending,
            metrics.clone(),
        ));
        if let Some(words) = unreachable_usernames(config, &store)? {
            tracing::warn!("{words}");
        }
        let auth = &config.auth;
        let hasher = Hasher::start(cost(config), auth.workers, auth.queue, metrics.clone())?;
        let settings = guard_settings(config, hasher.workers());
        let guard = Arc::new(Guard::load(settings, metrics.clone(), &store)?);
        let quotas = Quotas::new(
            store.clone(),
            noted.clone(),
            metrics.clone(),
            defaults(config),
        );
        let quotas = Arc::new(quotas);
        let authenticator = Authenticator::new(
            store.clone(),
            hasher,
            noted.clone(),
            quotas.clone(),
            metrics.clone(),
            auth.cache_entries,
            auth.refusal_delay,
        );
        let authenticator = authenticator
            .guarded_by(guard)
            .folding_case(auth.username_case.folds());
        let authenticator = Arc::new(authenticator);
        let hostname = config.hostname.as_str().to_owned();
        let upstreams = config.upstream.as_ref();
        let upstreams = upstreams
            .map(|upstream| Upstreams::load(&hostname, upstream, &metrics).map(Arc::new))
            .transpose()?;
        if upstreams.is_none() {
            // Readiness, dashboard and alerts follow the gauge, and no upstream is down.
            metrics.upstream_up.set(1);
        }
        let lifecycle = Lifecycle::new();
        let core = Core {
            store,
            noted,
            metrics,
            quotas,
            authenticator,
            sessions: Arc::new(Sessions::new()),
            lifecycle: lifecycle.clone(),
            tls,
            upstreams,
        };
        let edge = core.edge(config).map(Arc::new);
        let listeners: Vec<_> = config
            .listeners
            .iter()
            .map(|listener| {
                let socket = sockets.tcp(listener.address)?;
                Ok((Arc::new(listener.clone()), socket))
            })
            .collect::<Result<_, DaemonError>>()?;
        let auth_socket = config.dovecot_auth.as_ref();
        let auth_socket = auth_socket
            .map(|socket| {
                let access = auth_socket::access(socket)?;
                let listener = sockets.local(&socket.listen, access)?;
                Ok::<_, DaemonError>((listener, auth_socket::is_trusted(socket)))
            })
            .transpose()?;
        // Mail works without the metrics and the admin server.
        let unopened = Unopened::default();
        let metrics_listener = config.metrics.as_ref();
        let metrics_listener = metrics_listener
            .and_then(|metrics| metrics.listen)
            .map(|address| {
                let wanted = Wanted {
                    kind: "metrics",
                    endpoint: Endpoint::Tcp(address),
                    access: administration::ACCESS,
                };
                sockets.local_or_later(wanted, &unopened)
            });
        let admin_listeners = administration::listeners(config, &mut sockets, &unopened);
        sockets.finish()?;
        if edge.is_none() && !listeners.is_empty() {
            return Err(DaemonError::Incomplete);
        }
        let mut places: Vec<_> = addresses(&listeners)
            .map(|(kind, address)| (kind.to_string(), address.to_string()))
            .collect();
        places.extend(
            auth_socket
                .iter()
                .map(|(socket, _)| ("dovecot_auth".to_owned(), socket.place())),
        );
        places.extend(
            metrics_listener
                .iter()
                .flatten()
                .map(|listener| ("metrics".to_owned(), listener.place())),
        );
        let workers = Workers::start(&lifecycle)?;
        // Each worker holds a descriptor for each listener.
        let connections = descriptors::connections(config, workers.count() * listeners.len());
        core.metrics.connections_limit.set(as_gauge(connections));
        if let Some(shortage) = descriptors::shortage(config, descriptors::limits().0) {
            tracing::warn!(connections, "too few file descriptors: {shortage}");
        }
        let metrics_hosts = config.metrics.as_ref().map(|metrics| {
            let names = metrics.hosts.iter().chain([&config.hostname]);
            let names = names.map(|name| name.as_str().to_owned());
            let ip = metrics.listen.map(|address| address.ip());
            admin::Hosts::new(ip, names, "metrics.hosts")
        });
        let administration =
            administration::Closed::new(config, admin_listeners, unopened.clone(), places, &core)?;
        Ok(Self {
            administration,
            core,
            edge,
            own_store,
            workers,
            listeners,
            auth_socket,
            metrics_listener: metrics_listener.zip(metrics_hosts),
            unopened,
            connections,
            drain_timeout: config.drain_timeout,
            flush_interval: config.last_used.flush_interval,
            reload_interval: config
                .tls
                .as_ref()
                .map_or(Duration::MAX, |tls| tls.reload_interval),
        })
    }

    /// Returns the listening addresses in the order of the configuration.
    pub fn addresses(&self) -> Vec<(ListenerKind, SocketAddr)> {
        addresses(&self.listeners).collect()
    }

    /// Returns the store, for changes while the daemon runs.
    pub fn store(&self) -> Arc<Store> {
        self.core.store.clone()
    }

    pub fn sessions(&self) -> Arc<Sessions> {
        self.core.sessions.clone()
    }

    /// The address of a link that signs a browser in to the dashboard once, for `gatepost demo`.
    pub fn sign_in_link(&self, token: &Secret) -> Option<String> {
        self.administration.as_ref()?.sign_in_link(token)
    }

    /// Probes the upstream once.
    pub async fn probe_upstream(&self) -> Result<(), smtp::upstream::UpstreamFailure> {
        let Some(upstreams) = &self.core.upstreams else {
            return Ok(());
        };
        let probed = upstreams.shared().probe().await;
        probed.map(drop).map_err(|missed| missed.failure)
    }

    /// Serves until SIGTERM, SIGINT or `stop`, then drains.
    ///
    /// # Errors
    /// A system resource is missing, or the store's file was replaced; the latter is returned after
    /// draining.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), DaemonError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tls::warm_up();
        let (addresses, mut serving) = self.start().await?;
        notify::status(&addresses);
        notify::ready();
        if let Some(limit) = notify::watchdog() {
            tokio::spawn(watchdog::feed(limit, serving.lifecycle.clone()));
        }
        tracing::info!(version = env!("PROGRAM_VERSION"), listeners = %addresses, "ready");
        let mut outcome = Ok(());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stop => {}
            Some(error) = serving.displaced.recv() => outcome = Err(error.into()),
        }
        let lifecycle = serving.lifecycle.clone();
        let hurry = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            lifecycle.abandon();
            std::future::pending().await
        };
        // A second signal ends everything at once.
        tokio::select! {
            () = serving.stop() => {}
            () = hurry => {}
        }
        outcome
    }

    async fn start(self) -> Result<(String, Serving), DaemonError> {
        let core = self.core;
        let addresses = match &self.listeners[..] {
            [] => "none, Postfix keeps its own".to_owned(),
            listeners => describe(&addresses(listeners).collect::<Vec<_>>()),
        };
        let metrics = core.metrics.clone();
        let (displace, displaced) = mpsc::channel(1);
        let kept = self.own_store.keep(
            core.store.clone(),
            core.noted.clone(),
            metrics.clone(),
            core.lifecycle.clone(),
        );
        tokio::spawn(async move {
            // The receiver is gone once the daemon is stopping.
            let _ = displace.send(kept.await).await;
        });
        tokio::spawn(poll_regularly(
            core.store.clone(),
            core.authenticator.store_poller(),
            metrics.clone(),
            core.lifecycle.clone(),
        ));
        tokio::spawn(flush_regularly(
            core.noted.clone(),
            core.authenticator.guard().clone(),
            core.store.clone(),
            self.flush_interval,
            core.lifecycle.clone(),
        ));
        // Without a certificate SIGHUP changes nothing, and must not end the process.
        let hangups = signal(SignalKind::hangup())?;
        tokio::spawn(certificate::keep(
            core.tls,
            self.reload_interval,
            hangups,
            metrics.clone(),
            addresses.clone(),
        ));
        if let Some((socket, is_trusted)) = self.auth_socket {
            let authenticator = core.authenticator.clone();
            let lifecycle = core.lifecycle.clone();
            let serving = dovecot::serve(socket, is_trusted, authenticator, lifecycle);
            core.lifecycle.spawn(serving);
        }
        // After the auth socket, without which Postfix may not even send its greeting; before the
        // listeners, so that the first client sees the upstream's extensions. A silent upstream
        // delays no client: logins get 454.
        if let Some(upstreams) = &core.upstreams {
            upstreams.begin(&core.lifecycle).await;
        }
        // Not tracked by draining: metrics stay available during the drain.
        if let Some((listener, hosts)) = self.metrics_listener {
            let (metrics, lifecycle) = (metrics.clone(), core.lifecycle.clone());
            let unopened = self.unopened;
            tokio::spawn(async move {
                let listener = match listener {
                    Ok(listener) => Some(listener),
                    Err(wanted) => unopened.open(wanted, lifecycle.clone()).await,
                };
                if let Some(listener) = listener {
                    admin::serve_metrics(listener, hosts, metrics, lifecycle).await;
                }
            });
        }
        let unwritten = self.administration.map(administration::Closed::open);
        let permits = Arc::new(Semaphore::new(self.connections));
        let listeners = self.listeners.into_iter();
        for ((listener, socket), edge) in listeners.zip(self.edge.iter().cycle()) {
            self.workers.share(&socket, |socket| {
                let (edge, listener) = (edge.clone(), listener.clone());
                let serve = move |accepted| edge.serve(accepted, &listener);
                let (permits, metrics) = (permits.clone(), Some(metrics.clone()));
                listener::accept(socket, permits, metrics, core.lifecycle.clone(), serve)
            })?;
        }
        let serving = Serving {
            displaced,
            lifecycle: core.lifecycle,
            drain_timeout: self.drain_timeout,
            noted: core.noted,
            guard: core.authenticator.guard().clone(),
            store: core.store,
            unwritten,
        };
        Ok((addresses, serving))
    }
}

impl Core {
    /// Builds the edge if the configuration has a certificate and an upstream.
    fn edge(&self, config: &Config) -> Option<Edge> {
        let (tls, upstreams) = (self.tls.as_ref()?, self.upstreams.as_ref()?);
        Some(Edge {
            settings: Arc::new(Settings {
                hostname: config.hostname.as_str().to_owned(),
                message_size: config.relay.message_size,
                max_errors: config.limits.errors,
                max_auth_failures: config.limits.auth_failures,
                max_commands: config.limits.commands.into(),
            }),
            timeouts: config.timeouts.clone(),
            bare_newline: match config.relay.bare_newline {
                BareNewline::Normalize => smtp::data::BareNewline::Normalize,
                BareNewline::Reject => smtp::data::BareNewline::Reject,
            },
            tls: tls.config(),
            authenticator: self.authenticator.clone(),
            upstreams: upstreams.clone(),
            sessions: self.sessions.clone(),
            metrics: self.metrics.clone(),
            lifecycle: self.lifecycle.clone(),
        })
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The parts needed to stop.
struct Serving {
    /// The error that ends the daemon when the store's file is replaced.
    displaced: mpsc::Receiver<StoreError>,
    lifecycle: Lifecycle,
    drain_timeout: Duration,
    noted: Arc<ActivityBatch>,
    guard: Arc<Guard>,
    store: Arc<Store>,
    unwritten: Option<admin::Unwritten>,
}

impl Serving {
    async fn stop(self) {
        notify::stopping();
        let end = Instant::now() + self.drain_timeout + LAST_WRITES;
        tracing::info!(
            seconds = self.drain_timeout.as_secs_f64(),
            "draining: transactions in flight may finish"
        );
        if !self.lifecycle.drain(self.drain_timeout).await {
            tracing::warn!("the drain timeout is over, sessions were cut off");
        }
        // After the last session, so that nothing more is recorded.
        let Serving {
            noted,
            guard,
            store,
            unwritten,
            ..
        } = self;
        let unwritten = unwritten.map(Arc::new);
        let (last, lost) = (unwritten.clone(), noted.clone());
        let written = tokio::task::spawn_blocking(move || {
            // Administrators' changes first; the rest was recorded by the way.
            if let Some(unwritten) = last {
                unwritten.write_last();
            }
            noted.flush(&store);
            guard.write_all(&store);
        });
        if timeout_at(end, written).await.is_err() {
            let uses = lost.waiting();
            tracing::error!(
                uses,
                "the store takes too long: the last uses, usage and refusals are lost"
            );
        }
        if let Some(unwritten) = unwritten {
            unwritten.log();
        }
        tracing::info!("stopped");
    }
}

fn addresses(
    listeners: &[(Arc<config::Listener>, net::TcpListener)],
) -> impl Iterator<Item = (ListenerKind, SocketAddr)> {
    let listeners = listeners.iter();
    listeners.filter_map(|(listener, socket)| Some((listener.kind, socket.local_addr().ok()?)))
}

fn describe(addresses: &[(ListenerKind, SocketAddr)]) -> String {
    let words: Vec<_> = addresses
        .iter()
        .map(|(kind, address)| format!("{kind} {address}"))
        .collect();
    words.join(", ")
}
