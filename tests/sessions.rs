//! Live sessions: who is listed, and what a disconnect does at every moment of a session. The edge
//! runs inside the test, which holds the registry that the administration will hold.

use std::sync::Arc;
use std::time::Duration;

use gatepost::auth::password::{Cost, Hasher};
use gatepost::auth::quota::{Defaults, Quotas};
use gatepost::auth::{ActivityBatch, Authenticator};
use gatepost::config::{self, ListenerKind};
use gatepost::edge::{Edge, Upstreams};
use gatepost::lifecycle::Lifecycle;
use gatepost::metrics::Metrics;
use gatepost::net::listener;
use gatepost::net::tls::Tls;
use gatepost::sessions::{LiveSession, Sessions};
use gatepost::smtp::data::BareNewline;
use gatepost::smtp::session::Settings;
use gatepost::store::Store;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::site::{Config, Credential, HOSTNAME, Site};
use crate::support::upstream::{Act, BODY, END_OF_DATA, Upstream};

/// The edge on a site's implicit TLS listener, until dropped.
struct Gate {
    site: Site,
    sessions: Arc<Sessions>,
    lifecycle: Lifecycle,
    runtime: Runtime,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.lifecycle.abandon();
        self.runtime.block_on(self.lifecycle.drain(Duration::ZERO));
    }
}

impl Gate {
    fn start(upstream: &Upstream, refusal_delay: Duration) -> Gate {
        let site = Site::new(Config::for_upstream(upstream.address));
        let runtime = Runtime::new().expect("a runtime");
        let sessions = Arc::new(Sessions::new());
        let inside = runtime.enter();
        let edge = edge(&site, sessions.clone(), refusal_delay);
        let lifecycle = edge.lifecycle.clone();
        let listener = listener::bind(site.submissions).expect("bind");
        let listener = TcpListener::from_std(listener).expect("an event loop");
        let own = Arc::new(config::Listener {
            kind: ListenerKind::Submissions,
            address: site.submissions,
            proxy_from: Vec::new(),
        });
        let serve = move |accepted| edge.serve(accepted, &own);
        let permits = Arc::new(Semaphore::new(100));
        runtime.spawn(listener::accept(
            listener,
            permits,
            None,
            lifecycle.clone(),
            serve,
        ));
        drop(inside);
        Gate {
            site,
            sessions,
            lifecycle,
            runtime,
        }
    }

    /// The sessions, once there are `count` of them.
    fn listed(&self, count: usize) -> Vec<LiveSession> {
        eventually(&format!("{count} live sessions"), || {
            let list = self.sessions.list();
            (list.len() == count).then_some(list)
        })
    }
}

/// An edge as the daemon makes it.
fn edge(site: &Site, sessions: Arc<Sessions>, refusal_delay: Duration) -> Arc<Edge> {
    let config = config::Config::load(&site.config()).expect("the configuration");
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let store = Arc::new(Store::open(&config.store.path).expect("the store"));
    let tls =
        Tls::load(gatepost::daemon::pairs(config.tls.as_ref().unwrap())).expect("the certificate");
    let cost = Cost {
        memory_kib: config.auth.memory_kib,
        iterations: config.auth.iterations,
        lanes: config.auth.lanes,
    };
    let hasher = Hasher::start(cost, 1, 100, metrics.clone()).expect("threads");
    let noted = Arc::new(ActivityBatch::new(100, metrics.clone()));
    let quotas = Quotas::new(
        store.clone(),
        noted.clone(),
        metrics.clone(),
        Defaults::default(),
    );
    let quotas = Arc::new(quotas);
    let authenticator = Authenticator::new(
        store,
        hasher,
        noted,
        quotas,
        metrics.clone(),
        100,
        refusal_delay,
    );
    let upstreams = Upstreams::load(HOSTNAME, config.upstream.as_ref().unwrap(), &metrics);
    let lifecycle = Lifecycle::new();
    Arc::new(Edge {
        settings: Arc::new(Settings {
            hostname: HOSTNAME.to_owned(),
            message_size: config.relay.message_size,
            max_errors: 10,
            max_auth_failures: 5,
            max_commands: 1000,
        }),
        timeouts: config.timeouts,
        bare_newline: BareNewline::Reject,
        tls: tls.config(),
        authenticator: Arc::new(authenticator),
        upstreams: Arc::new(upstreams.expect("the way to the upstream")),
        sessions,
        metrics,
        lifecycle,
    })
}

fn gate() -> (Upstream, Gate, Credential) {
    let upstream = Upstream::start();
    let gate = Gate::start(&upstream, Duration::from_millis(20));
    let credential = gate.site.create();
    (upstream, gate, credential)
}

const DISCONNECTED: &str = "421 4.7.0 Disconnected by an administrator";

#[test]
fn who_is_logged_in_is_listed_with_what_it_sent() {
    let (_upstream, gate, credential) = gate();
    let mut stranger = Client::submissions(&gate.site);
    stranger.expect("EHLO stranger.example", "250");
    stranger
        .auth_plain(&credential.with_wrong_password())
        .expect("535");
    let client = Client::dial_from("127.0.0.7".parse().unwrap(), gate.site.submissions).unwrap();
    let mut client = client.over_tls();
    client.reply().expect("220");
    client.log_in(&credential);
    let body = b"Subject: counted\r\n\r\nhello\r\n";
    client.send_message(body).expect("250");

    let list = gate.sessions.list();
    let [session] = &list[..] else {
        panic!("{list:?}")
    };
    assert_eq!(session.username, credential.username);
    assert_eq!(session.organization, "default");
    assert_eq!(session.address.to_string(), "127.0.0.7");
    assert_eq!((session.tls, session.mechanism), (Some("TLSv1.3"), "PLAIN"));
    assert_eq!(session.helo, "client.example");
    let sent = (session.messages, session.recipients, session.bytes);
    assert_eq!(sent, (1, 1, body.len() as u64 + 3));

    client.expect("QUIT", "221");
    gate.listed(0);
}

#[test]
fn a_login_that_nobody_took_over_is_not_listed() {
    let (upstream, gate, credential) = gate();
    upstream.on("XCLIENT", Act::Reply("550 5.7.0 no"));
    let mut client = Client::submissions(&gate.site);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&credential).expect("454 4.7.0");
    assert_eq!(gate.sessions.list(), []);
    assert_eq!(gate.sessions.disconnect_credential(&credential.username), 0);
    client.expect("NOOP", "250");
}

#[test]
fn between_transactions_a_disconnect_is_421_at_once_and_for_that_session_alone() {
    let (upstream, gate, credential) = gate();
    let mut ended = Client::logged_in(&gate.site, &credential);
    let id = gate.sessions.list()[0].id;
    let mut kept = Client::logged_in(&gate.site, &credential);
    assert!(gate.sessions.disconnect(id));
    assert_eq!(gate.sessions.count_of(&credential.username), 1);
    ended.reply().expect(DISCONNECTED);
    ended.expect_close();
    upstream.wait_for("that was left politely", |session| session.heard("QUIT"));
    kept.expect("NOOP", "250");
}

#[test]
fn inside_a_transaction_a_disconnect_is_421_and_nothing_is_sent() {
    let (upstream, gate, credential) = gate();
    let mut client = Client::logged_in(&gate.site, &credential);
    client.expect("MAIL FROM:<sender@example.test>", "250");
    client.expect("RCPT TO:<box@example.test>", "250");
    assert_eq!(gate.sessions.disconnect_organization("default"), 1);
    client.reply().expect(DISCONNECTED);
    client.expect_close();
    let session = upstream.wait_for("that ended", |session| {
        session.ended && session.heard("RCPT")
    });
    assert!(!session.heard("DATA"), "{session:?}");
}

#[test]
fn inside_a_body_a_disconnect_drops_the_message() {
    let (upstream, gate, credential) = gate();
    let mut client = Client::logged_in(&gate.site, &credential);
    client.begin_message();
    client.write(b"Subject: half\r\n\r\nhello\r\n");
    upstream.wait_for("with half a message", |session| {
        session.unfinished.ends_with(b"hello\r\n")
    });
    assert_eq!(gate.sessions.disconnect_credential(&credential.username), 1);
    client.expect_close();
    let session = upstream.wait_for("that ended", |session| {
        session.ended && session.heard("DATA")
    });
    assert!(session.bodies.is_empty(), "{session:?}");
    // Inside a body it would be a line of the message.
    assert!(!String::from_utf8_lossy(&session.unfinished).contains("QUIT"));
}

#[test]
fn whoever_waits_for_the_word_on_a_message_is_told_nothing_in_its_place() {
    for moment in [BODY, END_OF_DATA] {
        let (upstream, gate, credential) = gate();
        upstream.on(moment, Act::Silence);
        let mut client = Client::logged_in(&gate.site, &credential);
        client.begin_message();
        if moment == END_OF_DATA {
            client.write(b"Subject: whole\r\n\r\nhello\r\n.\r\n");
            upstream.wait_for("with the message", |session| !session.bodies.is_empty());
        } else {
            client.write(b"Subject: half\r\n");
            upstream.wait_for("in the body", |session| !session.unfinished.is_empty());
        }
        assert_eq!(gate.sessions.disconnect_credential(&credential.username), 1);
        client.expect_close();
    }
}

#[test]
fn a_disconnect_reaches_a_login_that_is_being_handed_over() {
    let (upstream, gate, credential) = gate();
    upstream.on("XCLIENT", Act::Silence);
    let mut client = Client::submissions(&gate.site);
    client.expect("EHLO client.example", "250");
    client.write(format!("AUTH PLAIN {}\r\n", credential.plain()).as_bytes());
    gate.listed(1);
    assert_eq!(gate.sessions.disconnect_credential(&credential.username), 1);
    client.reply().expect(DISCONNECTED);
    client.expect_close();
    assert_eq!(gate.sessions.list(), []);
}

#[test]
fn a_disconnect_reaches_a_login_that_is_being_verified() {
    let upstream = Upstream::start();
    // A refusal takes as long as a verification that is stuck would.
    let gate = Gate::start(&upstream, Duration::from_secs(600));
    let credential = gate.site.create();
    let mut client = Client::submissions(&gate.site);
    client.expect("EHLO client.example", "250");
    let claim = credential.with_wrong_password().plain();
    client.write(format!("AUTH PLAIN {claim}\r\n").as_bytes());
    eventually("the claim is being verified", || {
        (gate.sessions.disconnect_credential(&credential.username) == 1).then_some(())
    });
    client.reply().expect(DISCONNECTED);
    client.expect_close();
}
