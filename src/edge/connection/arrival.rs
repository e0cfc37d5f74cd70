//! A client's arrival, from accept to greeting, and the TLS handshake on both kinds of port.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::auth::guard::ConnectionSlot;
use crate::config::{Listener, ListenerKind};
use crate::lifecycle::{SessionSignal, Signal};
use crate::log::Throttle;
use crate::metrics::{Label as _, ProxyFailure, Shed};
use crate::net::buffer::LINES;
use crate::net::handshake::{Begun, Failed};
use crate::net::listener::Accepted;
use crate::net::opening::Opening;
use crate::net::proxy::{self, ConnectionAddresses};
use crate::net::stream::ClientStream;
use crate::net::tls_server::TlsServerStream;
use crate::smtp::line::LineReader;
use crate::smtp::reply::{self, Reply};

use super::super::Edge;
use super::super::ending::{Ending, Summary};
use super::Connection;
use super::wait::SILENCE_WHILE_DRAINING;

/// How many of the first octets identify the protocol that the client speaks.
const OPENING: usize = 16;

/// Sends the reply for too many connections, without any wait: a rejection must stay cheap.
pub fn reject_over_limit(stream: &TcpStream, kind: ListenerKind) {
    // A reply inside TLS needs a handshake, and the handshake is too expensive here.
    if kind == ListenerKind::Submission {
        let mut words = Vec::new();
        reply::TOO_MANY_CONNECTIONS.write_to(&mut words);
        // A fresh socket's send buffer holds the whole reply, unless the client is gone.
        let _ = socket2::SockRef::from(stream).send(&words);
    }
}

/// Closes a connection rejected by the guard. A banned client gets no reply: a reply would only
/// keep the connection open.
pub fn shed(stream: &TcpStream, kind: ListenerKind, why: Shed) {
    if why != Shed::Banned {
        reject_over_limit(stream, kind);
    }
}

/// Serves a client until either side closes or the daemon stops.
pub async fn serve(
    edge: &Arc<Edge>,
    mut accepted: Accepted,
    mut place: Option<ConnectionSlot>,
    listener: &Listener,
) {
    let registration = edge.lifecycle.register();
    let signal = &registration.signal;
    let ends = tokio::select! {
        ends = ends(edge, &mut accepted, &mut place, listener) => ends,
        ending = stalled(signal) => Err(ending),
    };
    let ends = match ends {
        Ok(ends) => ends,
        // Not logged: a flood would fill the log. The metrics count these connections.
        Err(Ending::Shed) => return,
        Err(ending) => return over(edge, &Summary::new(accepted.peer), ending),
    };
    let mut summary = Summary::new(ends.source);
    let opened = open(edge, accepted.stream, ends.source, listener, signal);
    let ending = match opened.await {
        Err(ending) => ending,
        Ok(stream) => {
            summary.tls = stream.tls_version();
            let mut connection = Connection::new(
                edge,
                ends,
                stream,
                place,
                signal.clone(),
                listener,
                &mut summary,
            );
            let ending = tokio::select! {
                // In order of priority: a disconnected client gets no success reply first. Polling
                // the signal here also wakes the connection when draining begins.
                biased;
                ending = cut_off(signal) => ending,
                Err(ending) = connection.run() => ending,
            };
            connection.end(ending).await;
            match ending {
                Ending::Closed | Ending::ClientGone if !connection.has_spoken => Ending::Silent,
                ending => ending,
            }
        }
    };
    over(edge, &summary, ending);
}

fn over(edge: &Edge, summary: &Summary, ending: Ending) {
    if ending == Ending::Silent {
        edge.metrics.connections_silent.inc();
    }
    summary.log(ending);
}

/// Waits for a signal to end at once.
async fn cut_off(signal: &SessionSignal) -> Ending {
    match signal.at_least(Signal::Abandon).await {
        Signal::Disconnect => Ending::Disconnected,
        Signal::Abandon | Signal::Drain => Ending::CutOff,
    }
}

/// Waits for a signal to end at once. A connection still opening during a drain ends after a few
/// seconds as well, because other clients already wait for the next process.
async fn stalled(signal: &SessionSignal) -> Ending {
    match signal.at_least(Signal::Drain).await {
        Signal::Disconnect => Ending::Disconnected,
        Signal::Abandon => Ending::CutOff,
        Signal::Drain => {
            let ending = timeout(SILENCE_WHILE_DRAINING, cut_off(signal)).await;
            ending.unwrap_or(Ending::CutOff)
        }
    }
}

/// Returns the connection's addresses: the socket's own, or the PROXY header's from a trusted
/// proxy.
async fn ends(
    edge: &Edge,
    accepted: &mut Accepted,
    place: &mut Option<ConnectionSlot>,
    listener: &Listener,
) -> Result<ConnectionAddresses, Ending> {
    let (peer, stream) = (accepted.peer, &mut accepted.stream);
    // The local address of a connection is unknown only after the client left.
    let destination = stream.local_addr().map_err(|_| Ending::ClientGone)?;
    let own = ConnectionAddresses {
        source: peer,
        destination,
    };
    if !listener.is_proxy(peer.ip()) {
        return Ok(own);
    }
    let (failure, why) = match timeout(edge.timeouts.proxy, proxy::read_header(stream)).await {
        Ok(Ok(proxied)) => {
            let ends = proxied.unwrap_or(own);
            match edge.authenticator.guard().admit(ends.source.ip()) {
                Ok(admitted) => *place = admitted,
                Err(why) => {
                    shed(stream, listener.kind, why);
                    return Err(Ending::Shed);
                }
            }
            return Ok(ends);
        }
        Ok(Err(error)) => match error.failure() {
            Some(failure) => (failure, error.to_string()),
            // A health check that only connects is no failure.
            None => return Err(Ending::Silent),
        },
        Err(_) => (
            ProxyFailure::Timeout,
            "no whole PROXY header came in time".to_owned(),
        ),
    };
    edge.metrics.proxy_header_failures.of(failure).inc();
    if let Some(count) = NO_HEADER.due_for(&(failure.as_str(), listener.address)) {
        tracing::warn!(
            address = %peer.ip().to_canonical(),
            port = peer.port(),
            listener = listener.to_string(),
            reason = failure.as_str(),
            why,
            count,
            "closed a connection from a network in proxy_from; see that this load balancer sends PROXY headers"
        );
    }
    Err(Ending::NotProxied(failure))
}

/// Throttles warnings about missing or broken PROXY headers.
static NO_HEADER: Throttle = Throttle::new();

/// Throttles warnings about PROXY headers from untrusted addresses.
static UNTRUSTED: Throttle = Throttle::new();

/// Counts and logs a PROXY header from an address outside `proxy_from`; the header is ignored.
fn warn_of_header(edge: &Edge, peer: SocketAddr, listener: &Listener) {
    let failure = ProxyFailure::Untrusted;
    edge.metrics.proxy_header_failures.of(failure).inc();
    if let Some(count) = UNTRUSTED.due_for(&listener.address) {
        tracing::warn!(
            address = %peer.ip().to_canonical(),
            port = peer.port(),
            listener = listener.to_string(),
            reason = failure.as_str(),
            count,
            "a PROXY header came from an address that is not in the listener's proxy_from; if it is the load balancer's, add it there"
        );
    }
}

fn log_failed(edge: &Edge, peer: SocketAddr, listener: &Listener, failed: &Failed) {
    edge.metrics.tls_handshake_failures.of(failed.reason).inc();
    tracing::info!(
        target: "gatepost::tls",
        address = %peer.ip().to_canonical(),
        port = peer.port(),
        listener = listener.to_string(),
        reason = failed.reason.as_str(),
        why = failed.why,
        hint = failed.hint,
        "TLS handshake failed"
    );
}

async fn open(
    edge: &Edge,
    stream: TcpStream,
    client: SocketAddr,
    listener: &Listener,
    signal: &SessionSignal,
) -> Result<ClientStream, Ending> {
    match listener.kind {
        ListenerKind::Submission => Ok(ClientStream::Clear(stream)),
        ListenerKind::Submissions => tokio::select! {
            opened = shake_hands(edge, stream, client, listener, greeting(edge)) => opened,
            ending = stalled(signal) => Err(ending),
        },
    }
}

fn greeting(edge: &Edge) -> Vec<u8> {
    let mut greeting = Vec::new();
    Reply::greeting(&edge.settings.hostname).write_to(&mut greeting);
    greeting
}

async fn shake_hands(
    edge: &Edge,
    stream: TcpStream,
    client: SocketAddr,
    listener: &Listener,
    greeting: Vec<u8>,
) -> Result<ClientStream, Ending> {
    let begun = match listener.kind {
        ListenerKind::Submission => Begun::ByStartTls,
        ListenerKind::Submissions => Begun::AtOnce,
    };
    let shaking = async {
        // A silent client takes no handshake permit. A failed wait shows in the accept below.
        let _ = stream.readable().await;
        let leave = edge.authenticator.guard().handshake(client.ip()).await;
        TlsServerStream::accept(edge.tls.clone(), stream, leave.compute_permits(), greeting).await
    };
    let failed = match timeout(edge.timeouts.handshake, shaking).await {
        Ok(Ok(stream)) => {
            let stream = ClientStream::Tls(Box::new(stream));
            let version = stream.tls_version().unwrap_or_default();
            edge.metrics.tls_handshake(version);
            return Ok(stream);
        }
        Ok(Err(error)) => Failed::of(&error, begun).ok_or(Ending::Silent)?,
        Err(_) => Failed::timeout(begun),
    };
    log_failed(edge, client, listener, &failed);
    Err(Ending::HandshakeFailed)
}

impl Connection<'_> {
    pub(super) async fn greet(&mut self) -> Result<(), Ending> {
        if let ClientStream::Tls(stream) = &self.stream
            && stream.has_greeted()
        {
            return Ok(());
        }
        if let Some(opening) = self.spoke_first().await {
            self.look_at(&opening)?;
            return self.carry_out_close(reply::SPOKE_FIRST).await;
        }
        self.output.extend_from_slice(&greeting(self.edge));
        self.send().await
    }

    /// RFC 5321, 4.3.1: a client waits for the greeting. A client that talks first is a bulk
    /// program or speaks another protocol. A greeting sent together with the handshake hides the
    /// difference.
    async fn spoke_first(&mut self) -> Option<Opening> {
        match &mut self.stream {
            ClientStream::Gone => None,
            ClientStream::Clear(stream) => {
                // Read the socket directly, as the event loop may not have reported the octets yet.
                // Nothing needs them again, because the connection closes.
                let mut begun = [0; OPENING];
                let count = (&*socket2::SockRef::from(&*stream)).read(&mut begun).ok()?;
                (count > 0).then(|| Opening::of(&begun[..count]))
            }
            ClientStream::Tls(stream) => {
                // Polled once: octets sent with the end of the handshake are already buffered.
                let input = &mut self.input;
                let polled = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(input.poll_read_from(stream.as_mut(), context, LINES))
                });
                match polled.await {
                    std::task::Poll::Ready(Ok(count)) if count > 0 => Some(Opening::Text),
                    _ => None,
                }
            }
        }
    }

    /// Checks the first octets that the client sent in the clear.
    ///
    /// # Errors
    /// A TLS handshake, for which SMTP has no reply.
    pub(super) fn look_at(&mut self, opening: &Opening) -> Result<(), Ending> {
        self.has_spoken = true;
        match opening {
            Opening::ClientHello(_) => {
                log_failed(self.edge, self.peer, self.listener, &Failed::tls_first());
                Err(Ending::HandshakeFailed)
            }
            Opening::ProxyHeader => {
                warn_of_header(self.edge, self.peer, self.listener);
                Ok(())
            }
            Opening::Other | Opening::Text => Ok(()),
        }
    }

    pub(super) async fn start_tls(&mut self) -> Result<(), Ending> {
        self.send().await?;
        // RFC 3207, 4.2: discard everything received before the handshake; an attacker may have
        // injected commands.
        let injected = self.input.discard() as u64;
        self.edge.metrics.bytes_before_tls.inc_by(injected);
        self.lines = LineReader::default();
        let clear = std::mem::replace(&mut self.stream, ClientStream::Gone);
        let ClientStream::Clear(stream) = clear else {
            return Err(Ending::HandshakeFailed);
        };
        self.stream = shake_hands(self.edge, stream, self.peer, self.listener, Vec::new()).await?;
        self.summary.tls = self.stream.tls_version();
        self.session.on_tls();
        // Write only the handshake's remaining records: the server sends nothing before the
        // client's next command.
        self.say(false).await
    }
}
