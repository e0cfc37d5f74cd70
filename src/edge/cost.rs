//! Guards the number of allocations per session, message and mebibyte. Counts, unlike times, do not
//! depend on the load of the machine, so a regression fails here.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio::runtime::Runtime;

use crate::auth::issue::{self, New};
use crate::auth::password::{Cost, Hasher};
use crate::auth::quota::{Defaults, Quotas};
use crate::auth::{ActivityBatch, Authenticator};
use crate::config::{Config, Listener, ListenerKind};
use crate::lifecycle::Lifecycle;
use crate::metrics::Metrics;
use crate::net::certificates::Pair;
use crate::net::listener::Accepted;
use crate::net::tls::{self, Tls};
use crate::sessions::Sessions;
use crate::smtp::data::BareNewline;
use crate::smtp::session::Settings;
use crate::store::{Actor, Store};

use super::{Edge, Upstreams, connection};

// About a tenth above the last counts (8, 52, and 61 to 65). Lower these bounds after an
// improvement.

/// For a message of 1 KiB to a single recipient: three commands, the body and the replies. rustls
/// makes all of them, one per record received and sent.
const MESSAGE: u64 = 8;
/// For a cached login, from AUTH to the handover and the upstream's QUIT.
const LOGIN: u64 = 57;
/// For a mebibyte of body; rustls allocates once for each record of 16 KiB.
const MEBIBYTE: u64 = 70;

const CHEAP: Cost = Cost {
    memory_kib: 64,
    iterations: 1,
    lanes: 1,
};

/// An edge, a client and an upstream that accepts everything.
struct Site {
    runtime: Runtime,
    edge: Arc<Edge>,
    client: Arc<ClientConfig>,
    /// The argument of AUTH PLAIN.
    login: String,
    _directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let made = rcgen::generate_simple_self_signed(["mail.test".to_owned()]).unwrap();
        fs::write(path("cert"), made.cert.pem()).unwrap();
        fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let configuration = format!(
            "hostname = \"mail.test\"\n\
             [[listener]]\nkind = \"submissions\"\naddress = \"127.0.0.1:1\"\n\
             [tls]\ncertificate = {:?}\nkey = {:?}\n\
             [upstream]\naddress = \"{}\"\n\
             [store]\npath = {:?}\n",
            path("cert"),
            path("key"),
            upstream.local_addr().unwrap(),
            path("store"),
        );
        fs::write(path("config.toml"), configuration).unwrap();
        let config = Config::load(&path("config.toml")).unwrap();
        thread::spawn(move || {
            for stream in upstream.incoming().flatten() {
                thread::spawn(move || take_everything(stream));
            }
        });

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let store = Arc::new(Store::open(&config.store.path).unwrap());
        let new = New {
            organization: "default",
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let actor = Actor::cli("tester");
        let issued = issue::issue(&store, store.by(&actor), CHEAP, new).unwrap();
        let mut plain = vec![0];
        plain.extend(issued.credential.username.as_bytes());
        plain.push(0);
        plain.extend(issued.password.expose());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let edge = runtime.block_on(async { Arc::new(edge(&config, store)) });
        Self {
            runtime,
            edge,
            client: Arc::new(client),
            login: STANDARD.encode(plain),
            _directory: directory,
        }
    }

    /// Returns the allocations of a session with an optional login and `messages` of `octets` each.
    fn session(&self, login: bool, messages: u64, octets: usize) -> u64 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (config, login) = (self.client.clone(), login.then(|| self.login.clone()));
        let client = thread::spawn(move || converse(address, config, login, messages, octets));
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let listener = Listener {
            kind: ListenerKind::Submissions,
            address,
            proxy_from: Vec::new(),
        };
        let counted = allocation_counter::measure(|| {
            self.runtime.block_on(async {
                let accepted = Accepted {
                    stream: tokio::net::TcpStream::from_std(stream).unwrap(),
                    peer,
                    permit: None,
                };
                connection::serve(&self.edge, accepted, None, &listener).await;
            });
        });
        client.join().unwrap();
        counted.count_total
    }
}

/// Builds an edge as the daemon does.
fn edge(config: &Config, store: Arc<Store>) -> Edge {
    let metrics = Arc::new(Metrics::new().unwrap());
    let hasher = Hasher::start(CHEAP, 1, 100, metrics.clone()).unwrap();
    let noted = Arc::new(ActivityBatch::new(100, metrics.clone()));
    let defaults = Defaults::default();
    let quotas = Quotas::new(store.clone(), noted.clone(), metrics.clone(), defaults);
    let quotas = Arc::new(quotas);
    let tls = config.tls.as_ref().unwrap();
    let pair = Pair {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
    };
    let upstream = config.upstream.as_ref().unwrap();
    let lifecycle = Lifecycle::new();
    Edge {
        settings: Arc::new(Settings {
            hostname: config.hostname.to_string(),
            message_size: config.relay.message_size,
            max_errors: config.limits.errors,
            max_auth_failures: config.limits.auth_failures,
            max_commands: config.limits.commands.into(),
        }),
        timeouts: config.timeouts.clone(),
        bare_newline: BareNewline::Reject,
        tls: Tls::load(vec![pair]).unwrap().config(),
        authenticator: Arc::new(Authenticator::new(
            store,
            hasher,
            noted,
            quotas,
            metrics.clone(),
            100,
            Duration::ZERO,
        )),
        upstreams: Arc::new(Upstreams::load("mail.test", upstream, &metrics).unwrap()),
        sessions: Arc::new(Sessions::new()),
        metrics,
        lifecycle,
    }
}

/// Plays the client's side of a session.
fn converse(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    login: Option<String>,
    messages: u64,
    octets: usize,
) {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from("mail.test").unwrap();
    let tls = ClientConnection::new(config, name).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(tls, tcp));
    let ask = |stream: &mut BufReader<_>, words: &[u8], code: &str| {
        let out: &mut StreamOwned<ClientConnection, TcpStream> = stream.get_mut();
        out.write_all(words).unwrap();
        out.flush().unwrap();
        let mut line = String::new();
        while line.as_bytes().get(3) != Some(&b' ') {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        assert!(line.starts_with(code), "{line}");
    };
    ask(&mut stream, b"", "220");
    ask(&mut stream, b"EHLO client.test\r\n", "250");
    if let Some(login) = login {
        let login = format!("AUTH PLAIN {login}\r\n");
        ask(&mut stream, login.as_bytes(), "235");
    }
    let mut body =
        b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(octets / 64);
    body.extend(b".\r\n");
    for _ in 0..messages {
        ask(&mut stream, b"MAIL FROM:<a@client.test>\r\n", "250");
        ask(&mut stream, b"RCPT TO:<b@client.test>\r\n", "250");
        ask(&mut stream, b"DATA\r\n", "354");
        ask(&mut stream, &body, "250");
    }
    ask(&mut stream, b"QUIT\r\n", "221");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// Plays an upstream that accepts every command.
fn take_everything(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut input = BufReader::new(stream);
    let mut line = Vec::new();
    let mut reply = &b"220 sink.test ESMTP\r\n"[..];
    let mut body = false;
    loop {
        if input.get_mut().write_all(reply).is_err() {
            return;
        }
        line.clear();
        if input.read_until(b'\n', &mut line).unwrap_or(0) == 0 {
            return;
        }
        reply = match &line[..] {
            b".\r\n" => {
                body = false;
                b"250 2.0.0 taken\r\n"
            }
            _ if body => b"",
            b"DATA\r\n" => {
                body = true;
                b"354 go on\r\n"
            }
            b"QUIT\r\n" => b"221 2.0.0 bye\r\n",
            line if line.starts_with(b"EHLO") => {
                b"250-sink.test\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n\
                  250 XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT REVERSE_NAME\r\n"
            }
            line if line.starts_with(b"XCLIENT") => b"220 sink.test ESMTP\r\n",
            _ => b"250 2.0.0 yes\r\n",
        };
    }
}

#[test]
fn hot_paths_stay_within_their_allocation_bounds() {
    let site = Site::new();
    // A first session fills the caches: the verdict, the metrics' labels, the thread's buffers.
    site.session(true, 2, 1 << 21);

    let without = site.session(false, 0, 0);
    let none = site.session(true, 0, 0);
    let [few, many] = [10, 110].map(|messages| site.session(true, messages, 1024));
    let [small, large] = [1, 9].map(|size| site.session(true, 1, size << 20));
    let found = [none - without, (many - few) / 100, (large - small) / 8];
    let bounds = [LOGIN, MESSAGE, MEBIBYTE];
    let within = found
        .iter()
        .zip(bounds)
        .all(|(&found, bound)| found <= bound);
    assert!(within, "{found:?}, where {bounds:?} was enough");
}
