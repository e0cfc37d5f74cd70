//! HTTP/1.1 on one listener: bounded in connections, in the size and time of requests and answers,
//! and drained like everything else.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::lifecycle::Lifecycle;
use crate::net::listener::{Accept as _, Accepted, LocalListener, Neighbour, accept};
use crate::net::slots::{ConnectionSlot, ConnectionSlots};
use crate::net::stream::LocalStream;

use super::progress::{Observed, Progress, Tracked};

/// How many clients may be connected to one listener at a time. Far more than work at once: the more
/// connections there are, the longer a new client has to send its request before it gives way.
const CONNECTIONS: usize = 256;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest request head, in octets; the least hyper allows is 8 KiB.
const HEAD_SIZE: usize = 16 * 1024;

/// How long a connection may stay on which no request is under way once draining has begun: what is left of an answer takes
/// no longer to be sent.
const FAREWELL: Duration = Duration::from_secs(2);

/// A place where requests are taken, and what answers them there.
pub(super) struct Door {
    pub(super) listener: LocalListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) routes: Router,
}

impl Door {
    /// Serves until draining. Each request knows its [`Neighbour`].
    pub(super) async fn serve(self, lifecycle: Lifecycle) {
        let graceful = GracefulShutdown::new();
        let slots = ConnectionSlots::new(self.listener.place(), CONNECTIONS);
        let serve = |accepted: Accepted<LocalStream, Neighbour>| {
            let Some(slot) = slots.take(accepted.peer) else {
                return;
            };
            let tls = self.tls.clone();
            let conversation = Conversation {
                encrypted: Encrypted(self.tls.is_some()),
                neighbour: accepted.peer,
                routes: self.routes.clone(),
                watcher: graceful.watcher(),
                lifecycle: lifecycle.clone(),
            };
            tokio::spawn(async move {
                match tls {
                    None => conversation.over(accepted.stream, slot).await,
                    Some(tls) => {
                        let shaken = tls.accept(accepted.stream);
                        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shaken);
                        // Without a handshake no request has begun.
                        let shaken = tokio::select! {
                            shaken = shaken => shaken,
                            () = slot.closing() => return,
                            () = conversation.lifecycle.draining() => return,
                        };
                        if let Ok(Ok(stream)) = shaken {
                            conversation.over(stream, slot).await;
                        }
                    }
                }
            });
        };
        // The slots are the limit.
        let permits = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        accept(self.listener, permits, None, lifecycle.clone(), serve).await;
        take_leave(graceful, &lifecycle).await;
    }
}

/// Requests under way have as long as messages in flight: a body may come slowly, and then the store may be busy.
async fn take_leave(graceful: GracefulShutdown, lifecycle: &Lifecycle) {
    tokio::select! {
        () = graceful.shutdown() => {}
        () = lifecycle.abandoned() => {}
    }
}

/// Whether a request came by TLS.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encrypted(pub(super) bool);

/// One connection's requests and answers.
struct Conversation {
    encrypted: Encrypted,
    neighbour: Neighbour,
    routes: Router,
    watcher: Watcher,
    lifecycle: Lifecycle,
}

impl Conversation {
    async fn over(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        slot: ConnectionSlot,
    ) {
        let Conversation {
            encrypted,
            neighbour,
            routes,
            watcher,
            lifecycle,
        } = self;
        let progress = Progress::new(slot);
        let (under_way, is_under_way) = watch::channel(false);
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(neighbour);
            request.extensions_mut().insert(encrypted);
            let routes = TowerToHyperService::new(routes.clone());
            let (progress, under_way) = (progress.clone(), under_way.clone());
            async move {
                under_way.send_replace(true);
                progress.head_received().await;
                let request = request.map(|body| Tracked::request(body, progress.clone()));
                let answer = routes.call(request).await;
                progress.answering();
                under_way.send_replace(false);
                answer.map(|answer| answer.map(|body| Tracked::answer(body, progress)))
            }
        });
        let connection = http1::Builder::new()
            // `progress` has the limits.
            .header_read_timeout(None)
            .max_buf_size(HEAD_SIZE)
            .serve_connection(
                TokioIo::new(Observed::new(stream, progress.clone())),
                service,
            );
        tokio::select! {
            // A client that goes away midway asks again.
            _ = watcher.watch(connection) => {}
            () = progress.over() => {}
            () = rest(lifecycle, is_under_way) => {}
        }
    }
}

/// Resolves when draining has begun and no request is under way any more: half a head is none, and whoever needs no token to
/// send one must not hold up a restart.
async fn rest(lifecycle: Lifecycle, mut is_under_way: watch::Receiver<bool>) {
    lifecycle.draining().await;
    // The sender lives as long as the connection, with which this ends.
    while is_under_way
        .wait_for(|is_under_way| !is_under_way)
        .await
        .is_ok()
    {
        let begun = is_under_way.wait_for(|is_under_way| *is_under_way);
        if tokio::time::timeout(FAREWELL, begun).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;
    use crate::admin::progress::{ANSWER_TIMEOUT, HEAD_TIMEOUT};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    fn slot() -> ConnectionSlot {
        let neighbour = Neighbour::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        let slots = ConnectionSlots::new("here".to_owned(), 1);
        slots.take(neighbour).unwrap()
    }

    fn conversation(
        routes: Router,
        graceful: &GracefulShutdown,
        lifecycle: &Lifecycle,
    ) -> Conversation {
        Conversation {
            encrypted: Encrypted(false),
            neighbour: Neighbour::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))),
            routes,
            watcher: graceful.watcher(),
            lifecycle: lifecycle.clone(),
        }
    }

    /// Has `lifecycle` wait for what `graceful` watches.
    fn wait_for(graceful: GracefulShutdown, lifecycle: &Lifecycle) {
        let leaving = lifecycle.clone();
        lifecycle.spawn(async move {
            leaving.draining().await;
            take_leave(graceful, &leaving).await;
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_is_not_waited_for() {
        for part in [&b""[..], &REQUEST[..20]] {
            let (mut client, server) = tokio::io::duplex(1024);
            let (graceful, lifecycle) = (GracefulShutdown::new(), Lifecycle::new());
            let started = Instant::now();
            let conversation = conversation(Router::new(), &graceful, &lifecycle);
            let conversation = tokio::spawn(conversation.over(server, slot()));
            client.write_all(part).await.unwrap();
            conversation.await.unwrap();
            let waited = started.elapsed();
            assert!(
                waited >= HEAD_TIMEOUT && waited < HEAD_TIMEOUT * 2,
                "{waited:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_holds_up_no_end() {
        for part in [&b""[..], &REQUEST[..20]] {
            let (mut client, server) = tokio::io::duplex(1024);
            let (graceful, lifecycle) = (GracefulShutdown::new(), Lifecycle::new());
            let conversation = conversation(Router::new(), &graceful, &lifecycle);
            let _conversation = tokio::spawn(conversation.over(server, slot()));
            client.write_all(part).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            wait_for(graceful, &lifecycle);
            let started = Instant::now();
            assert!(lifecycle.drain(Duration::from_secs(60)).await);
            assert!(started.elapsed() <= FAREWELL, "{:?}", started.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_has_as_long_as_everything_else() {
        const LONG: Duration = Duration::from_secs(25);
        for (limit, in_time) in [(LONG * 2, true), (LONG / 2, false)] {
            let (mut client, server) = tokio::io::duplex(1024);
            let (graceful, lifecycle) = (GracefulShutdown::new(), Lifecycle::new());
            let routes = Router::new().route("/", get(|| tokio::time::sleep(LONG)));
            let conversation = conversation(routes, &graceful, &lifecycle);
            let conversation = tokio::spawn(conversation.over(server, slot()));
            client.write_all(REQUEST).await.unwrap();
            // The clock goes on only when nothing else is left to do: by then the request was read.
            tokio::time::sleep(Duration::from_secs(1)).await;
            wait_for(graceful, &lifecycle);
            assert_eq!(lifecycle.drain(limit).await, in_time);
            assert_eq!(conversation.is_finished(), in_time);
            if in_time {
                let mut answer = [0; 12];
                client.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"HTTP/1.1 200");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_comes_octet_by_octet_has_no_longer() {
        let (mut client, server) = tokio::io::duplex(1024);
        let (graceful, lifecycle) = (GracefulShutdown::new(), Lifecycle::new());
        let routes = Router::new().route("/", get(|| async {}));
        let conversation = conversation(routes, &graceful, &lifecycle);
        let conversation = tokio::spawn(conversation.over(server, slot()));
        for answered in 1..3 {
            client.write_all(REQUEST).await.unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200", "{answered}");
            let mut rest = [0; 1024];
            let _ = client.read(&mut rest).await.unwrap();
            tokio::time::sleep(HEAD_TIMEOUT / 2).await;
        }
        let started = Instant::now();
        for octet in REQUEST {
            if client.write_all(&[*octet]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        conversation.await.unwrap();
        assert!(started.elapsed() <= HEAD_TIMEOUT, "{:?}", started.elapsed());
    }

    /// A client that reads nothing, and one that reads an octet a second.
    #[tokio::test(start_paused = true)]
    async fn an_answer_is_read_in_time_or_given_up() {
        for reads in [false, true] {
            let (mut client, server) = tokio::io::duplex(1024);
            let routes = Router::new().route("/", get(|| async { "x".repeat(64 * 1024) }));
            let (graceful, lifecycle) = (GracefulShutdown::new(), Lifecycle::new());
            let started = Instant::now();
            let conversation = conversation(routes, &graceful, &lifecycle);
            let conversation = tokio::spawn(conversation.over(server, slot()));
            client.write_all(REQUEST).await.unwrap();
            while reads && !conversation.is_finished() {
                let mut octet = [0];
                let _ = client.read(&mut octet).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            conversation.await.unwrap();
            let waited = started.elapsed();
            let late = Duration::from_secs(2);
            assert!(
                waited >= ANSWER_TIMEOUT && waited < ANSWER_TIMEOUT + late,
                "{waited:?}"
            );
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert!(answer.len() <= 1024, "no whole answer");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_until_the_answer_before_is_read() {
        let (mut client, server) = tokio::io::duplex(1024);
        let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = made.clone();
        let answer = move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async { "x".repeat(64 * 1024) }
        };
        let routes = Router::new().route("/", get(answer));
        let (graceful, lifecycle) = (GracefulShutdown::new(), Lifecycle::new());
        let conversation = conversation(routes, &graceful, &lifecycle);
        let conversation = tokio::spawn(conversation.over(server, slot()));
        client.write_all(&REQUEST.repeat(20)).await.unwrap();
        conversation.await.unwrap();
        assert_eq!(made.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
