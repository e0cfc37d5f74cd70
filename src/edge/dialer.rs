//! Opens upstream sessions: dials, and carries out what the hand-over asks for.

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
use crate::net::hosts::{Host, Hosts, NAMES_AGE};
use crate::net::stream::LocalStream;
use crate::net::tls::words_of_io;
use crate::smtp::extensions::Extensions;
use crate::smtp::upstream::{FailureCause, Handover, Purpose, Stage, Step, UpstreamFailure};
use crate::smtp::xclient::{Attributes, Client};

use super::timer::within;
use super::upstream::Upstream;
use super::way::{Way, WayError};

/// How long a place that did not answer is left alone.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Why a session could not be opened.
#[derive(Debug)]
pub struct Missed {
    /// Where it was tried last.
    pub place: String,
    /// What came of it there.
    pub failure: UpstreamFailure,
}

/// How long one attempt may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// To connect, and to shake hands where TLS comes first.
    connect: Duration,
    /// From then on up to the greeting.
    greeting: Duration,
    /// From the connection to the session that is handed over, the greeting included.
    handoff: Duration,
}

impl Limits {
    /// Of the only place there is, or the only one that is asked about.
    fn of(upstream: &config::Upstream) -> Self {
        Self {
            connect: upstream.connect_timeout,
            greeting: upstream.handoff_timeout,
            handoff: upstream.handoff_timeout,
        }
    }

    /// Of the next attempt, where so much is `left` for it and for `others` behind it. A place that
    /// is silent leaves the others their share, but no share is too short to be of use.
    fn share(left: Self, upstream: &config::Upstream, others: usize) -> Self {
        let attempts = u32::try_from(others + 1).unwrap_or(u32::MAX);
        let share = |left: Duration, all: Duration| (left / attempts).max(all / 3).min(left);
        let connect = share(left.connect, upstream.connect_timeout);
        let handoff = share(left.handoff, upstream.handoff_timeout);
        Self {
            connect,
            // A place that takes connections and says nothing is as good as none, if there is
            // another one to go to.
            greeting: if others > 0 { connect } else { handoff },
            handoff,
        }
    }

    /// What is left of these after an attempt that took so long and had a `share` of them.
    fn without(self, spent: Duration, share: Self) -> Self {
        let connecting = spent.min(share.connect);
        Self {
            connect: self.connect.saturating_sub(connecting),
            greeting: self.greeting,
            handoff: self.handoff.saturating_sub(spent - connecting),
        }
    }
}

/// Opens upstream sessions.
pub struct Dialer {
    hostname: String,
    upstream: config::Upstream,
    way: Way,
    hosts: Arc<Hosts>,
    metrics: Arc<Metrics>,
    up: IntGauge,
    offered: ArcSwap<Extensions>,
}

impl Dialer {
    /// For the upstream of all, or of this organization alone; `hostname` is our name in EHLO.
    pub fn new(
        hostname: String,
        upstream: config::Upstream,
        organization: Option<&str>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, WayError> {
        for stage in Stage::ALL {
            metrics.handover_failures(stage.as_str());
        }
        Ok(Self {
            hostname,
            way: Way::load(&upstream)?,
            hosts: Arc::new(Hosts::new(&upstream, organization, metrics.clone())),
            upstream,
            up: match organization {
                Some(slug) => metrics.organization_upstream_up(slug),
                None => metrics.upstream_up.clone(),
            },
            metrics,
            offered: ArcSwap::default(),
        })
    }

    /// What the upstream offered when it was last asked.
    pub fn offered(&self) -> Arc<Extensions> {
        self.offered.load_full()
    }

    /// The configured timeouts and addresses.
    pub fn upstream(&self) -> &config::Upstream {
        &self.upstream
    }

    /// The places where it is reached.
    pub fn hosts(&self) -> &Arc<Hosts> {
        &self.hosts
    }

    /// Looks up its names, then asks it what it offers, without handing anything over.
    pub async fn probe(&self) -> Result<Arc<Extensions>, Missed> {
        self.hosts.resolve().await;
        let (upstream, extensions) = self.within_deadline(self.way.probe()).await?;
        Ok(self.probed(upstream, extensions).await)
    }

    /// The same of one of its places.
    pub async fn probe_at(&self, host: &Arc<Host>) -> Result<Arc<Extensions>, UpstreamFailure> {
        let limits = Limits::of(&self.upstream);
        let (upstream, extensions) = self.attempt(self.way.probe(), host, limits).await?;
        Ok(self.probed(upstream, extensions).await)
    }

    async fn probed(&self, mut upstream: Upstream, extensions: Extensions) -> Arc<Extensions> {
        upstream.quit().await;
        let extensions = Arc::new(extensions);
        self.offered.store(extensions.clone());
        extensions
    }

    /// Logs in at one place with every account of ours; returns how many there are.
    pub async fn try_accounts_at(&self, host: &Arc<Host>) -> Result<usize, UpstreamFailure> {
        let limits = Limits::of(&self.upstream);
        let mut count = 0;
        for account in self.way.accounts() {
            let (mut upstream, _) = self.attempt(Purpose::Login(account), host, limits).await?;
            upstream.quit().await;
            count += 1;
        }
        Ok(count)
    }

    /// Probes; where that fails it says so in the log.
    pub async fn probe_and_warn(&self) {
        if let Err(missed) = self.probe().await {
            let Missed { place, failure } = missed;
            tracing::warn!(address = place, error = %failure, "the upstream does not answer yet; logins get 454 until it does");
        }
    }

    /// Tries those of its places that are down or were never needed, so that no client has to find
    /// out, and looks up its names as they age.
    pub async fn keep(self: Arc<Self>, lifecycle: Lifecycle) {
        let mut looked_up = Instant::now();
        // One that is silent must not keep the others waiting.
        let mut probes = JoinSet::new();
        let mut probed: Vec<Arc<Host>> = Vec::new();
        loop {
            while let Some(done) = probes.try_join_next() {
                match done {
                    Ok(host) => probed.retain(|other| !Arc::ptr_eq(other, &host)),
                    Err(_) => probed.clear(),
                }
            }
            for host in self.hosts.doubtful() {
                if probed.iter().any(|other| Arc::ptr_eq(other, &host)) {
                    continue;
                }
                probed.push(host.clone());
                let dialer = self.clone();
                probes.spawn(async move {
                    // The result is noted.
                    let _ = dialer.probe_at(&host).await;
                    host
                });
            }
            tokio::select! {
                () = lifecycle.draining() => return,
                () = tokio::time::sleep(TRY_AGAIN) => {}
            }
            let is_unknown = !self.hosts.unresolved().is_empty();
            if is_unknown || looked_up.elapsed() >= NAMES_AGE {
                self.hosts.resolve().await;
                looked_up = Instant::now();
            }
        }
    }

    /// Opens a session and hands it to the upstream as that of `client`, who belongs to
    /// `organization`.
    pub async fn hand_over(
        &self,
        client: &Client,
        organization: &str,
    ) -> Option<(Upstream, Extensions)> {
        let began = Instant::now();
        let result = match self.way.purpose(client, organization) {
            Ok(purpose) => self.within_deadline(purpose).await,
            Err(failure) => Err(Missed {
                place: self.upstream.address.to_string(),
                failure,
            }),
        };
        match result {
            Ok((upstream, extensions)) => {
                self.metrics.handovers.inc();
                let seconds = began.elapsed().as_secs_f64();
                self.metrics.handover_seconds.observe(seconds);
                // Told to a client; the next EHLO before AUTH can tell others the same.
                if **self.offered.load() != extensions {
                    self.offered.store(Arc::new(extensions.clone()));
                }
                Some((upstream, extensions))
            }
            Err(Missed { place, failure }) => {
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

    /// The same at one of its places, for whoever wants to know how that one is.
    pub async fn hand_over_at(
        &self,
        client: &Client,
        organization: &str,
        host: &Arc<Host>,
    ) -> Result<Upstream, UpstreamFailure> {
        let purpose = self.way.purpose(client, organization)?;
        let limits = Limits::of(&self.upstream);
        let (upstream, _) = self.attempt(purpose, host, limits).await?;
        Ok(upstream)
    }

    /// Tries one place after the other, until one takes the session or the time is over. Nothing of
    /// the client's was said before that, so trying again costs nobody anything.
    async fn within_deadline(
        &self,
        purpose: Purpose<'_>,
    ) -> Result<(Upstream, Extensions), Missed> {
        let mut left = Limits::of(&self.upstream);
        let candidates = self.hosts.candidates();
        let mut missed = Missed {
            place: self.upstream.address.to_string(),
            failure: UpstreamFailure {
                stage: Stage::Connect,
                cause: FailureCause::Unresolved(self.unresolved()),
            },
        };
        for (number, host) in candidates.iter().enumerate() {
            if number > 0 {
                // Of those that there is no time for nothing is found out.
                if left.connect.is_zero() || left.handoff.is_zero() {
                    break;
                }
                let Missed { place, failure } = &missed;
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
            match self.attempt(purpose, host, share).await {
                Ok(opened) => return Ok(opened),
                Err(failure) => {
                    let place = host.endpoint.to_string();
                    missed = Missed { place, failure };
                }
            }
            left = left.without(began.elapsed(), share);
            // It is the same account everywhere; many wrong logins in a row would lock it.
            if matches!(
                missed.failure.cause,
                FailureCause::AuthRefused { code: 500.., .. }
            ) {
                break;
            }
        }
        Err(missed)
    }

    /// Why there is no address to try.
    fn unresolved(&self) -> String {
        let unresolved = self.hosts.unresolved();
        let unresolved: Vec<_> = unresolved
            .iter()
            .map(|(name, why)| format!("{name}: {why}"))
            .collect();
        unresolved.join("; ")
    }

    async fn attempt(
        &self,
        purpose: Purpose<'_>,
        host: &Arc<Host>,
        limits: Limits,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let mut handover =
            Handover::new(&self.hostname, self.way.security, purpose, host.manners());
        let opened = self.open(&mut handover, host, limits).await;
        let answered = match &opened {
            Ok((_, offered)) => match purpose {
                Purpose::Probe(_) => self.is_enough(offered),
                _ => true,
            },
            // A refusal that comes that late may be meant for this client alone; silence is not.
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
        self.hosts.note(host, answered);
        self.up.set(self.hosts.any_up().into());
        opened
    }

    /// Whether it offers what handing over a session takes.
    fn is_enough(&self, offered: &Extensions) -> bool {
        self.upstream.identity != IdentityBy::Xclient
            || offered.xclient.is_some_and(Attributes::are_enough)
    }

    async fn open(
        &self,
        handover: &mut Handover<'_>,
        host: &Arc<Host>,
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

    /// Connects, and shakes hands where TLS comes first.
    async fn reach(
        &self,
        handover: &mut Handover<'_>,
        host: &Arc<Host>,
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
            let secured = self.way.secure(&mut upstream).await;
            secured.map_err(|error| failed(handover, error))?;
            step = handover.on_tls();
        }
        Ok((upstream, step))
    }

    /// Hands the session over, step by step.
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
                    let secured = self.way.secure(upstream).await;
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
            if upstream.has_said_more() {
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
    handover.failure(FailureCause::Io(words_of_io(&error)))
}
