//! The floor: takes TLS off and passes everything on, both ways, and knows nothing of what it passes.
//!
//! One thread for each core, each with a listener and an epoll of its own, nothing shared between them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::wire::{self, Buffers, Link, Received};

const LISTENER: Token = Token(usize::MAX);

/// Relays until the process is ended.
pub fn serve(listen: SocketAddr, upstream: SocketAddr, directory: &Path) -> io::Result<()> {
    let tls = configuration(directory);
    let cores = std::thread::available_parallelism()?.get();
    let threads: Vec<_> = (0..cores)
        .map(|_| {
            let listener = wire::listen(listen)?;
            let mut relay = Relay {
                poll: Poll::new()?,
                listener,
                upstream,
                tls: Arc::clone(&tls),
                pairs: Vec::new(),
                free: Vec::new(),
            };
            Ok(std::thread::spawn(move || {
                relay.run().expect("the relay runs");
            }))
        })
        .collect::<io::Result<_>>()?;
    for thread in threads {
        thread.join().expect("a thread of the relay");
    }
    Ok(())
}

fn configuration(directory: &Path) -> Arc<ServerConfig> {
    let path = |name| directory.join(name);
    let certificate =
        CertificateDer::from_pem_file(path("certificate.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(path("key.pem")).expect("a key");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a pair that belongs together");
    Arc::new(config)
}

struct Relay {
    poll: Poll,
    listener: TcpListener,
    upstream: SocketAddr,
    tls: Arc<ServerConfig>,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
}

impl Relay {
    fn run(&mut self) -> io::Result<()> {
        let registry = self.poll.registry().try_clone()?;
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)?;
        let mut events = Events::with_capacity(1024);
        let mut buffers = Buffers::new();
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let mut wanted = false;
            for event in &events {
                if event.token() == LISTENER {
                    wanted = true;
                    continue;
                }
                let index = event.token().0 / 2;
                let Some(pair) = &mut self.pairs[index] else {
                    continue;
                };
                if !pair.step(event, &mut buffers).unwrap_or(false) {
                    pair.client.link.finish();
                    self.pairs[index] = None;
                    self.free.push(index);
                }
            }
            while wanted && let Some((client, _)) = wire::accept(&self.listener)? {
                self.admit(client, &registry)?;
            }
        }
    }

    fn admit(&mut self, mut client: Link, registry: &Registry) -> io::Result<()> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let tls = ServerConnection::new(Arc::clone(&self.tls)).expect("a valid configuration");
        client.secure(tls);
        client.register(registry, Token(2 * index))?;
        let mut upstream = wire::connect(self.upstream, None)?;
        upstream.register(registry, Token(2 * index + 1))?;
        self.pairs[index] = Some(Pair {
            client: Side::new(client),
            upstream: Side::new(upstream),
        });
        Ok(())
    }
}

struct Side {
    link: Link,
    /// It will send no more than what waits to be read.
    closed: bool,
    /// Something may wait, left there because the other side takes nothing now.
    left: bool,
}

impl Side {
    fn new(link: Link) -> Side {
        Side {
            link,
            closed: false,
            left: false,
        }
    }
}

struct Pair {
    client: Side,
    upstream: Side,
}

impl Pair {
    /// Carries out what an event allows. False when one side is done.
    fn step(&mut self, event: &Event, buffers: &mut Buffers) -> io::Result<bool> {
        let (near, far) = if event.token().0.is_multiple_of(2) {
            (&mut self.client, &mut self.upstream)
        } else {
            (&mut self.upstream, &mut self.client)
        };
        near.closed |= event.is_read_closed();
        if event.is_writable() && near.link.is_blocked() {
            near.link.flush()?;
            if far.left && !pass(far, near, buffers)? {
                return Ok(false);
            }
        }
        Ok(!event.is_readable() || pass(near, far, buffers)?)
    }
}

/// Passes on what there is, until the other side takes no more. False at the end of the stream.
fn pass(from: &mut Side, to: &mut Side, buffers: &mut Buffers) -> io::Result<bool> {
    loop {
        from.left = to.link.is_blocked();
        if from.left {
            return Ok(true);
        }
        let received = from.link.receive(buffers, from.closed)?;
        if !buffers.plain.is_empty() {
            to.link.send(&buffers.plain)?;
        }
        // What TLS itself has to say.
        if from.link.is_blocked() {
            from.link.flush()?;
        }
        match received {
            Received::Closed => return Ok(false),
            Received::Drained => return Ok(true),
            Received::More => {}
        }
    }
}
