//! The upstream side: dials, hands over, and keeps the connection while the session has it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::io::{AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{self, Endpoint};
use crate::lifecycle::Lifecycle;
use crate::metrics::{Dialled, Metrics};
use crate::net::buffer::Buffer;
use crate::net::stream::LocalStream;
use crate::smtp::extensions::Extensions;
use crate::smtp::relay::{Expect, Relay};
use crate::smtp::reply::{RawReply, ReplyFault};
use crate::smtp::upstream::{FailureCause, Handover, Stage, Step, UpstreamFailure};
use crate::smtp::xclient::Client;

/// How often an upstream that did not answer is asked again what it offers.
const PROBE_AGAIN: Duration = Duration::from_secs(5);

/// Opens upstream sessions.
pub struct Dialer {
    hostname: String,
    upstream: config::Upstream,
    metrics: Arc<Metrics>,
    offered: ArcSwap<Extensions>,
}

impl Dialer {
    /// For this upstream; `hostname` is our name in EHLO.
    pub fn new(hostname: String, upstream: config::Upstream, metrics: Arc<Metrics>) -> Self {
        for stage in Stage::ALL {
            metrics.handover_failures(stage.as_str());
        }
        Self {
            hostname,
            upstream,
            metrics,
            offered: ArcSwap::default(),
        }
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
        let mut handover = Handover::probe(&self.hostname);
        let (mut upstream, extensions) = self.within_deadline(&mut handover).await?;
        upstream.quit().await;
        let extensions = Arc::new(extensions);
        self.offered.store(extensions.clone());
        Ok(extensions)
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

    /// Opens a session and hands it to the upstream as `client`'s.
    pub async fn hand_over(
        &self,
        client: &Client,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let began = Instant::now();
        let mut handover = Handover::new(&self.hostname, client);
        let result = self.within_deadline(&mut handover).await;
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
        handover: &mut Handover<'_>,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let mut stage = Stage::Connect;
        let opened = self.open(handover, &mut stage);
        let opened = tokio::time::timeout(self.upstream.connect_timeout, opened).await;
        if opened.is_err() && stage == Stage::Connect {
            self.metrics.upstream_connects.of(Dialled::Failed).inc();
        }
        let opened = opened.unwrap_or(Err(UpstreamFailure {
            stage,
            cause: FailureCause::Timeout,
        }));
        self.metrics.upstream_up.set(opened.is_ok().into());
        opened
    }

    async fn open(
        &self,
        handover: &mut Handover<'_>,
        stage: &mut Stage,
    ) -> Result<(Upstream, Extensions), UpstreamFailure> {
        let stream = self.connect().await.map_err(|error| UpstreamFailure {
            stage: Stage::Connect,
            cause: FailureCause::Io(error.to_string()),
        })?;
        let mut upstream = Upstream::new(stream);
        loop {
            *stage = handover.stage();
            let step = {
                let reply = upstream
                    .next_reply()
                    .await
                    .map_err(|cause| handover.failure(cause))?;
                handover.on_reply(&reply)?
            };
            upstream.consume_reply();
            // Whatever it says unasked would be taken for the next command's reply.
            if !upstream.input.is_empty() {
                return Err(handover.failure(FailureCause::Protocol(ReplyFault::NotAReply)));
            }
            match step {
                Step::Ready(extensions) => return Ok((upstream, extensions)),
                Step::Send(command) => {
                    let sent = upstream.stream.write_all(command.as_bytes()).await;
                    sent.map_err(|error| handover.failure(FailureCause::Io(error.to_string())))?;
                }
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

/// An upstream connection; after the hand-over it is one client's for ever.
#[derive(Debug)]
pub struct Upstream {
    stream: LocalStream,
    input: Buffer,
    /// How long the reply at the front of `input` is, once it has been found.
    found: usize,
    /// What goes out with the next send.
    pub output: Vec<u8>,
    /// Which replies are due.
    pub relay: Relay,
}

impl Upstream {
    fn new(stream: LocalStream) -> Self {
        Self {
            stream,
            input: Buffer::default(),
            found: 0,
            output: Vec::new(),
            relay: Relay::default(),
        }
    }

    /// Queues a command, given without its CRLF.
    pub fn forward(&mut self, line: &[u8], expect: Expect) {
        self.output.extend_from_slice(line);
        self.output.extend_from_slice(b"\r\n");
        self.relay.expect(expect);
    }

    /// Sends what is queued. Replies that come meanwhile are read, so that an upstream which
    /// waits for us to read them cannot block us.
    pub async fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() {
            sent += poll_fn(|context| {
                let rest = &self.output[sent..];
                let written = Pin::new(&mut self.stream).poll_write(context, rest);
                if let Poll::Ready(Ok(1..)) = written {
                    return written;
                }
                // With no reply due, as inside a body, it speaks out of turn and may read no more.
                let due = !self.relay.is_idle();
                let read = self.input.poll_read_from(&mut self.stream, context);
                if let Poll::Ready(written) = written {
                    return Poll::Ready(written.and_then(nothing_is_an_end));
                }
                read.map(|read| match nothing_is_an_end(read?)? {
                    _ if due => Ok(0),
                    _ => Err(io::ErrorKind::InvalidData.into()),
                })
            })
            .await?;
        }
        self.output.clear();
        self.output.shrink_to(1024);
        Ok(())
    }

    /// Waits until there is more to read. Cancelling loses nothing.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.input
            .read_from(&mut self.stream)
            .await
            .and_then(nothing_is_an_end)
            .map(drop)
    }

    /// The reply at the front of what has been read, if it is whole.
    pub fn reply(&mut self) -> Result<Option<(RawReply<'_>, &mut Relay)>, ReplyFault> {
        let reply = RawReply::parse(self.input.unread())?;
        self.found = reply.map_or(0, |reply| reply.bytes.len());
        Ok(reply.map(|reply| (reply, &mut self.relay)))
    }

    /// Removes the reply that [`Upstream::reply`] found.
    pub fn consume_reply(&mut self) {
        self.input.consume(std::mem::take(&mut self.found));
    }

    async fn next_reply(&mut self) -> Result<RawReply<'_>, FailureCause> {
        while RawReply::parse(self.input.unread())?.is_none() {
            match self.input.read_from(&mut self.stream).await {
                Ok(0) => return Err(FailureCause::Closed),
                Ok(_) => {}
                Err(error) => return Err(FailureCause::Io(error.to_string())),
            }
        }
        self.reply()?
            .map(|(reply, _)| reply)
            .ok_or(FailureCause::Closed)
    }

    /// Takes leave without waiting for the answer.
    pub async fn quit(&mut self) {
        // It may be gone already, and then there is nobody to be polite to.
        let _ = self.stream.write_all(b"QUIT\r\n").await;
    }
}

fn nothing_is_an_end(count: usize) -> io::Result<usize> {
    if count == 0 {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(count)
    }
}
