//! Opens upstream sessions: connects, then executes the steps of the handover.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::IntGauge;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{self, Endpoint, IdentityBy};
use crate::lifecycle::Lifecycle;
use crate::log::Throttle;
use crate::metrics::{Dialled, Metrics};
use crate::net::stream::LocalStream;
use crate::net::tls::io_error_text;
use crate::net::upstream_pool::{NAMES_AGE, UpstreamHost, UpstreamPool};
use crate::smtp::extensions::Extensions;
use crate::smtp::upstream::{FailureCause, HandoffMode, Handover, Stage, Step, UpstreamFailure};
use crate::smtp::xclient::{Attributes, Client};

use super::handoff::{HandoffConfig, HandoffError};
use super::timer::within;
use super::upstream::Upstream;

/// How long the health check waits before trying an unreachable address again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Why a session could not be opened.
#[derive(Debug)]
pub struct DialError {
    /// The address tried last.
    pub place: String,
    pub failure: UpstreamFailure,
}

/// The time limits of a single attempt.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Covers the connection, and the handshake under implicit TLS.
    connect: Duration,
    /// Covers the wait for the greeting.
    greeting: Duration,
    /// Covers everything from the connection to the end of the handover.
    handoff: Duration,
}

impl Limits {
    /// Returns the configured limits, for an attempt that has no alternative.
    fn of(upstream: &config::Upstream) -> Self {
        Self {
            connect: upstream.connect_timeout,
            greeting: upstream.handoff_timeout,
            handoff: upstream.handoff_timeout,
        }
    }

    /// Returns the limits of the next attempt, given the time `left` and the number of `others` to
    /// try afterwards. A silent address leaves time for the others; every share is at least a third
    /// of the configured limit, because less helps no attempt.
    fn share(left: Self, upstream: &config::Upstream, others: usize) -> Self {
        let attempts = u32::try_from(others + 1).unwrap_or(u32::MAX);
        let share = |left: Duration, all: Duration| (left / attempts).max(all / 3).min(left);
        let connect = share(left.connect, upstream.connect_timeout);
        let handoff = share(left.handoff, upstream.handoff_timeout);
        Self {
            connect,
            // An address that accepts connections without a greeting counts as unreachable when
            // there is another to try.
            greeting: if others > 0 { connect } else { handoff },
            handoff,
        }
    }

    /// Subtracts an attempt that took `spent` under the limits `share`.
    fn without(self, spent: Duration, share: Self) -> Self {
        let connecting = spent.min(share.connect);
        Self {
            connect: self.connect.saturating_sub(connecting),
            greeting: self.greeting,
            handoff: self.handoff.saturating_sub(spent - connecting),
        }
    }
}

pub struct Dialer {
    hostname: String,
    upstream: config::Upstream,
    handoff: HandoffConfig,
    pool: Arc<UpstreamPool>,
    metrics: Arc<Metrics>,
    up: IntGauge,
    offered: ArcSwap<Extensions>,
}

impl Dialer {
    /// Prepares the shared upstream, or the upstream of a single organization. `hostname` is
    /// Gatepost's name in EHLO.
    pub fn new(
        hostname: String,
        upstream: config::Upstream,
        organization: Option<&str>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, HandoffError> {
        for stage in Stage::ALL {
            metrics.handover_failures(stage.as_str());
        }
        Ok(Self {
            hostname,
            handoff: HandoffConfig::load(&upstream)?,
            pool: Arc::new(UpstreamPool::new(&upstream, organization, metrics.clone())),
            upstream,
            up: match organization {
                Some(slug) => metrics.organization_upstream_up(slug),
                None => metrics.upstream_up.clone(),
            },
            metrics,
            offered: ArcSwap::default(),
        })
    }

    /// Returns the extensions from the upstream's latest EHLO reply.
    pub fn offered(&self) -> Arc<Extensions> {
        self.offered.load_full()
    }

    pub fn upstream(&self) -> &config::Upstream {
        &self.upstream
    }

    pub fn pool(&self) -> &Arc<UpstreamPool> {
        &self.pool
    }

    /// Resolves the upstream's names and asks for its extensions, without a handover.
    pub async fn probe(&self) -> Result<Arc<Extensions>, DialError> {
        self.pool.resolve().await;
        let (upstream, extensions) = self.within_deadline(self.handoff.probe()).await?;
        Ok(self.probed(upstream, extensions).await)
    }

    /// Probes a single address.
    pub async fn probe_at(
        &self,
        host: &Arc<UpstreamHost>,
    ) -> Result<Arc<Extensions>, UpstreamFailure> {
        let limits = Limits::of(&self.upstream);
        let (upstream, extensions) = self.attempt(self.handoff.probe(), host, limits).await?;
        Ok(self.probed(upstream, extensions).await)
    }

    async fn probed(&self, mut upstream: Upstream, extensions: Extensions) -> Arc<Extensions> {
        upstream.quit().await;
        let extensions = Arc::new(extensions);
        self.offered.store(extensions.clone());
        extensions
    }

    /// Logs in at an address with every configured upstream account and returns their number.
    pub async fn try_accounts_at(
        &self,
        host: &Arc<UpstreamHost>,
    ) -> Result<usize, UpstreamFailure> {
        let limits = Limits::of(&self.upstream);
        let mut count = 0;
        for account in self.handoff.accounts() {
            let (mut upstream, _) = self
                .attempt(HandoffMode::Login(account), host, limits)
                .await?;
            upstream.quit().await;
            count += 1;
        }
        Ok(count)
    }

    /// Probes the upstream and logs a failure.
    pub async fn probe_and_warn(&self) {
        if let Err(failed_dial) = self.probe().await {
            let DialError { place, failure } = failed_dial;
            tracing::warn!(address = place, error = %failure, "the upstream does not answer yet; logins get 454 until it does");
        }
    }

    /// Runs health checks on unverified addresses, so that clients need not discover failures, and
    /// resolves the names again as they age.
    pub async fn keep(self: Arc<Self>, lifecycle: Lifecycle) {
        let mut looked_up = Instant::now();
        // Probes run side by side: a silent address must not delay the others.
        let mut probes = JoinSet::new();
        let mut probed: Vec<Arc<UpstreamHost>> = Vec::new();
        loop {
            while let Some(done) = probes.try_join_next() {
                match done {
                    Ok(host) => probed.retain(|other| !Arc::ptr_eq(other, &host)),
                    Err(_) => probed.clear(),
                }
            }
            for host in self.pool.unverified() {
                if probed.iter().any(|other| Arc::ptr_eq(other, &host)) {
                    continue;
                }
                probed.push(host.clone());
                let dialer = self.clone();
                probes.spawn(async move {
                    // The probe records the address's health.
                    let _ = dialer.probe_at(&host).await;
                    host
                });
            }
            tokio::select! {
                () = lifecycle.draining() => return,
                () = tokio::time::sleep(TRY_AGAIN) => {}
            }
            let is_unknown = !self.pool.unresolved().is_empty();
            if is_unknown || looked_up.elapsed() >= NAMES_AGE {
                self.pool.resolve().await;
                looked_up = Instant::now();
            }
        }
    }

    /// Opens an upstream session and hands over the session of `client`, a member of
    /// `organization`.
    pub async fn hand_over(
        &self,
        client: &Client,
        organization: &str,
    ) -> Option<(Upstream, Extensions)> {
        let began = Instant::now();
        let result = match self.handoff.mode(client, organization) {
            Ok(mode) => self.within_deadline(mode).await,
            Err(failure) => Err(DialError {
                place: self.upstream.address.to_string(),
                failure,
            }),
        };
        match result {
            Ok((upstream, extensions)) => {
                self.metrics.handovers.inc();
                let seconds = began.elapsed().as_secs_f64();
                self.metrics.handover_seconds.observe(seconds);
                // The handover's extensions are current; share them with the EHLO of later clients.
                if **self.offered.load() != extensions {
                    self.offered.store(Arc::new(extensions.clone()));
                }
                Some((upstream, extensions))
            }
            Err(DialError { place, failure }) => {
                self.metrics.handover_failures(failure.stage.as_str()).inc();
                let error = failure.to_string();
                static NOT_TAKEN: Throttle = Throttle::new();
                if let Some(count) = NOT_TAKEN.due_for(&(&place, organization, &error)) {
                    tracing::warn!(
                        address = place,
                        organization,
                        %error,
                        count,
                        "the upstream did not take a session over"
                    );
                }
                None
            }
        }
    }

    /// Hands a session over at a given address, for the doctor's checks.
    pub async fn hand_over_at(
        &self,
        client: &Client,
        organization: &str,
        host: &Arc<UpstreamHost>,
    ) -> Result<Upstream, UpstreamFailure> {
        let mode = self.handoff.mode(client, organization)?;
        let limits = Limits::of(&self.upstream);
        let (upstream, _) = self.attempt(mode, host, limits).await?;
        Ok(upstream)
    }

    /// Tries the addresses in turn until an upstream accepts the session or the time is up. A retry
    /// is safe, because the upstream has received no client command yet.
    async fn within_deadline(
        &self,
        mode: HandoffMode<'_>,
    ) -> Result<(Upstream, Extensions), DialError> {
        let mut left = Limits::of(&self.upstream);
        let candidates = self.pool.candidates();
        let mut failed_dial = DialError {
            place: self.upstream.address.to_string(),
            failure: UpstreamFailure {
                stage: Stage::Connect,
                cause: FailureCause::Unresolved(self.unresolved()),
            },
        };
        for (number, host) in candidates.iter().enumerate() {
            if number > 0 {
                // The health of untried addresses stays unknown.
                if left.connect.is_zero() || left.handoff.is_zero() {
                    break;
                }
                let DialError { place, failure } = &failed_dial;
                let error = failure.to_string();
                static TRYING_NEXT: Throttle = Throttle::new();
                if let Some(count) = TRYING_NEXT.due_for(&(place, &error)) {
                    tracing::warn!(
                        address = place,
                        %error,
                        count,
                        "trying the next address of the upstream"
                    );
                }
            }
            let began = Instant::now();
            let share = Limits::share(left, &self.upstream, candidates.len() - number - 1);
            match self.attempt(mode, host, share).await {
                Ok(opened) => return Ok(opened),
                Err(failure) => {
                    let place = host.endpoint.to_string();
                    failed_dial = DialError { place, failure };
                }
            }
            left = left.without(began.elapsed(), share);
            // Every address knows the same account, and repeated failed logins could lock it.
            if matches!(
                failed_dial.failure.cause,
                FailureCause::AuthRefused { code: 500.., .. }
            ) {
                break;
            }
        }
        Err(failed_dial)
    }

    /// Returns the resolver's errors, for the log.
    fn unresolved(&self) -> String {
        let unresolved = self.pool.unresolved();
        let unresolved: Vec<_> = unresolved
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        unresolved.join("; ")
    }

    async fn attempt(
        &self,
        mode: HandoffMode<'_>,
        host: &Arc<UpstreamHost>,
        limits: Limits,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let mut handover = Handover::new(
            &self.hostname,
            self.handoff.security,
            mode,
            host.xclient_support(),
        );
        let opened = self.open(&mut handover, host, limits).await;
        let answered = match &opened {
            Ok((_, offered)) => match mode {
                HandoffMode::Probe(_) => self.is_enough(offered),
                _ => true,
            },
            // A rejection this late may concern only the client's identity. A timeout or a missing
            // XCLIENT concerns the upstream.
            Err(failure) => {
                matches!(
                    failure.stage,
                    Stage::Auth | Stage::Xclient | Stage::ClientEhlo
                ) && !matches!(
                    failure.cause,
                    FailureCause::Timeout | FailureCause::XclientNotOffered
                )
            }
        };
        if let Some(found) = handover.found() {
            host.learn(found);
        }
        self.pool.record_health(host, answered);
        self.up.set(self.pool.any_up().into());
        opened
    }

    /// Whether the upstream offers everything that the handover needs.
    fn is_enough(&self, offered: &Extensions) -> bool {
        self.upstream.identity != IdentityBy::Xclient
            || offered.xclient.is_some_and(Attributes::are_enough)
    }

    async fn open(
        &self,
        handover: &mut Handover<'_>,
        host: &Arc<UpstreamHost>,
        limits: Limits,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let reached = timeout(limits.connect, self.reach(handover, host)).await;
        let (mut upstream, step) = match reached {
            Ok(reached) => reached?,
            Err(_) => {
                if handover.stage() == Stage::Connect {
                    self.metrics.upstream_connects.of(Dialled::Failed).inc();
                }
                return Err(handover.failure(FailureCause::Timeout));
            }
        };
        let handing = self.converse(handover, &mut upstream, step, limits.greeting);
        match timeout(limits.handoff, handing).await {
            Ok(extensions) => Ok((upstream, extensions?)),
            Err(_) => Err(handover.failure(FailureCause::Timeout)),
        }
    }

    /// Connects, and performs the handshake under implicit TLS.
    async fn reach(
        &self,
        handover: &mut Handover<'_>,
        host: &Arc<UpstreamHost>,
    ) -> Result<(Upstream, Step), UpstreamFailure> {
        let stream = self
            .connect(&host.endpoint)
            .await
            .map_err(|error| failed(handover, error))?;
        let mut upstream = Upstream::new(stream, host.clone());
        let said = upstream.say(&handover.preamble()).await;
        said.map_err(|error| failed(handover, error))?;
        let mut step = handover.on_connected();
        if let Step::StartTls = step {
            let secured = self.handoff.secure(&mut upstream).await;
            secured.map_err(|error| failed(handover, error))?;
            step = handover.on_tls();
        }
        Ok((upstream, step))
    }

    /// Executes the handover's steps until the session is ready.
    async fn converse(
        &self,
        handover: &mut Handover<'_>,
        upstream: &mut Upstream,
        mut step: Step,
        greeting: Duration,
    ) -> Result<Extensions, UpstreamFailure> {
        loop {
            match step {
                Step::Await => {}
                Step::Ready(extensions) => return Ok(extensions),
                Step::Send(line) => {
                    let said = upstream.say(line.expose()).await;
                    said.map_err(|error| failed(handover, error))?;
                }
                Step::StartTls => {
                    let secured = self.handoff.secure(upstream).await;
                    secured.map_err(|error| failed(handover, error))?;
                    step = handover.on_tls();
                    continue;
                }
            }
            let limit = match handover.stage() {
                Stage::Greeting => greeting.min(self.upstream.command_timeout),
                _ => self.upstream.command_timeout,
            };
            let reply = within(limit, upstream.next_reply()).await;
            let reply = reply.unwrap_or(Err(FailureCause::Timeout));
            let reply = reply.map_err(|cause| handover.failure(cause))?;
            step = handover.on_reply(&reply)?;
            upstream.consume_reply();
            if upstream.has_unread_input() {
                return Err(handover.failure(FailureCause::SpokeUnasked));
            }
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<LocalStream> {
        let began = Instant::now();
        let connected = dial(endpoint).await;
        if connected.is_ok() {
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.upstream_connect_seconds.observe(seconds);
            self.metrics.upstream_connects.of(Dialled::Connected).inc();
        } else {
            self.metrics.upstream_connects.of(Dialled::Failed).inc();
        }
        connected
    }
}

async fn dial(endpoint: &Endpoint) -> io::Result<LocalStream> {
    match endpoint {
        Endpoint::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(LocalStream::Tcp(stream))
        }
        Endpoint::Unix(path) => UnixStream::connect(path).await.map(LocalStream::Unix),
    }
}

fn failed(handover: &Handover, error: io::Error) -> UpstreamFailure {
    handover.failure(FailureCause::Io(io_error_text(&error)))
}
