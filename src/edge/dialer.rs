//! Opens upstream sessions: dials, and carries out what the hand-over asks for.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::{self, Endpoint};
use crate::lifecycle::Lifecycle;
use crate::metrics::{Dialled, Metrics};
use crate::net::stream::LocalStream;
use crate::smtp::extensions::Extensions;
use crate::smtp::upstream::{FailureCause, Handover, Purpose, Stage, Step, UpstreamFailure};
use crate::smtp::xclient::Client;

use super::upstream::Upstream;
use super::way::{Way, WayError};

/// How often an upstream that did not answer is asked again what it offers.
const PROBE_AGAIN: Duration = Duration::from_secs(5);

/// Opens upstream sessions.
pub struct Dialer {
    hostname: String,
    upstream: config::Upstream,
    way: Way,
    metrics: Arc<Metrics>,
    offered: ArcSwap<Extensions>,
}

impl Dialer {
    /// For this upstream; `hostname` is our name in EHLO.
    pub fn new(
        hostname: String,
        upstream: config::Upstream,
        metrics: Arc<Metrics>,
    ) -> Result<Self, WayError> {
        for stage in Stage::ALL {
            metrics.handover_failures(stage.as_str());
        }
        Ok(Self {
            hostname,
            way: Way::load(&upstream)?,
            upstream,
            metrics,
            offered: ArcSwap::default(),
        })
    }

    /// What the upstream offered when it was last asked.
    pub fn offered(&self) -> Arc<Extensions> {
        self.offered.load_full()
    }

    /// The configured timeouts and address.
    pub fn upstream(&self) -> &config::Upstream {
        &self.upstream
    }

    /// Asks the upstream what it offers, without handing anything over.
    pub async fn probe(&self) -> Result<Arc<Extensions>, UpstreamFailure> {
        let (mut upstream, extensions) = self.within_deadline(self.way.probe()).await?;
        upstream.quit().await;
        let extensions = Arc::new(extensions);
        self.offered.store(extensions.clone());
        Ok(extensions)
    }

    /// Logs in with every account of ours, one after the other; returns how many there are.
    pub async fn try_accounts(&self) -> Result<usize, UpstreamFailure> {
        let mut count = 0;
        for account in self.way.accounts() {
            let (mut upstream, _) = self.within_deadline(Purpose::Login(account)).await?;
            upstream.quit().await;
            count += 1;
        }
        Ok(count)
    }

    /// Probes; where that fails it says so in the log and returns false.
    pub async fn probe_and_warn(&self) -> bool {
        let probed = self.probe().await;
        if let Err(error) = &probed {
            let address = &self.upstream.address;
            tracing::warn!(%address, %error, "the upstream does not answer yet; logins get 454 until it does");
        }
        probed.is_ok()
    }

    /// Probes until the upstream has answered once.
    pub async fn probe_until_answered(self: Arc<Self>, lifecycle: Lifecycle) {
        loop {
            tokio::select! {
                () = lifecycle.draining() => return,
                () = tokio::time::sleep(PROBE_AGAIN) => {}
            }
            if self.probe_and_warn().await {
                return;
            }
        }
    }

    /// Opens a session and hands it to the upstream as that of `client`, who belongs to
    /// `organization`.
    pub async fn hand_over(
        &self,
        client: &Client,
        organization: &str,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let began = Instant::now();
        let result = match self.way.purpose(client, organization) {
            Ok(purpose) => self.within_deadline(purpose).await,
            Err(failure) => Err(failure),
        };
        match &result {
            Ok((_, extensions)) => {
                self.metrics.handovers.inc();
                let seconds = began.elapsed().as_secs_f64();
                self.metrics.handover_seconds.observe(seconds);
                // Told to a client; the next EHLO before AUTH can tell others the same.
                if **self.offered.load() != *extensions {
                    self.offered.store(Arc::new(extensions.clone()));
                }
            }
            Err(failure) => {
                self.metrics.handover_failures(failure.stage.as_str()).inc();
                tracing::warn!(address = %self.upstream.address, error = %failure, "the upstream did not take a session over");
            }
        }
        result
    }

    async fn within_deadline(
        &self,
        purpose: Purpose<'_>,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let mut handover = Handover::new(&self.hostname, self.way.security, purpose);
        let opened = self.open(&mut handover);
        let opened = match timeout(self.upstream.connect_timeout, opened).await {
            Ok(opened) => opened,
            Err(_) => {
                if handover.stage() == Stage::Connect {
                    self.metrics.upstream_connects.of(Dialled::Failed).inc();
                }
                Err(handover.failure(FailureCause::Timeout))
            }
        };
        self.metrics.upstream_up.set(opened.is_ok().into());
        opened
    }

    async fn open(
        &self,
        handover: &mut Handover<'_>,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let stream = self
            .connect()
            .await
            .map_err(|error| failed(handover, error))?;
        let mut upstream = Upstream::new(stream);
        let said = upstream.say(&handover.preamble()).await;
        said.map_err(|error| failed(handover, error))?;
        let mut step = handover.on_connected();
        loop {
            match step {
                Step::Await => {}
                Step::Ready(extensions) => return Ok((upstream, extensions)),
                Step::Send(line) => {
                    let said = upstream.say(line.expose()).await;
                    said.map_err(|error| failed(handover, error))?;
                }
                Step::StartTls => {
                    let secured = self.way.secure(&mut upstream).await;
                    secured.map_err(|error| failed(handover, error))?;
                    step = handover.on_tls();
                    continue;
                }
            }
            let reply = upstream.next_reply().await;
            let reply = reply.map_err(|cause| handover.failure(cause))?;
            step = handover.on_reply(&reply)?;
            upstream.consume_reply();
            if upstream.has_said_more() {
                return Err(handover.failure(FailureCause::SpokeUnasked));
            }
        }
    }

    async fn connect(&self) -> io::Result<LocalStream> {
        let began = Instant::now();
        let connected = self.dial().await;
        if connected.is_ok() {
            let seconds = began.elapsed().as_secs_f64();
            self.metrics.upstream_connect_seconds.observe(seconds);
            self.metrics.upstream_connects.of(Dialled::Connected).inc();
        } else {
            self.metrics.upstream_connects.of(Dialled::Failed).inc();
        }
        connected
    }

    async fn dial(&self) -> io::Result<LocalStream> {
        match &self.upstream.address {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(LocalStream::Tcp(stream))
            }
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(LocalStream::Unix),
        }
    }
}

fn failed(handover: &Handover, error: io::Error) -> UpstreamFailure {
    handover.failure(FailureCause::Io(error.to_string()))
}
