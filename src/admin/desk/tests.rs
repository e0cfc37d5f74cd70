//! A desk with all that is behind it, and what is not done at it.

use std::net::{Ipv4Addr, SocketAddr};

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::*;
use crate::admin::api;
use crate::admin::caller::Caller;
use crate::auth::password::Hasher;
use crate::auth::token;
use crate::lifecycle::SessionSignal;
use crate::net::certificates::Pair;
use crate::sasl::Identity;
use crate::sessions::{Client, Entry};
use crate::store::Scope;

const CHEAP: Cost = Cost {
    memory_kib: 8,
    iterations: 1,
    lanes: 1,
};

/// A desk whose store goes with it.
pub(in crate::admin) struct Fixture {
    pub(in crate::admin) desk: Arc<Desk>,
    _directory: tempfile::TempDir,
}

impl Fixture {
    pub(in crate::admin) fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let pair = rcgen::generate_simple_self_signed(["mail.example.test".to_owned()]).unwrap();
        std::fs::write(path("cert"), pair.cert.pem()).unwrap();
        std::fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
        let store = Arc::new(Store::open(&path("gatepost.db")).unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let noted = Arc::new(ActivityBatch::new(100, metrics.clone()));
        let hasher = Hasher::start(CHEAP, 1, 100, metrics.clone()).unwrap();
        let (none, known) = (Default::default(), metrics.clone());
        let quotas = Arc::new(Quotas::new(store.clone(), noted.clone(), known, none));
        let authenticator = Authenticator::new(
            store.clone(),
            hasher,
            noted.clone(),
            quotas.clone(),
            metrics.clone(),
            100,
            Duration::ZERO,
        );
        let system = System {
            store,
            authenticator: Arc::new(authenticator),
            noted,
            quotas,
            sessions: Arc::new(Sessions::new()),
            tls: Some(Arc::new(
                Tls::load(vec![Pair {
                    certificate: path("cert"),
                    key: path("key"),
                }])
                .unwrap(),
            )),
            metrics,
            lifecycle: Lifecycle::new(),
            cost: CHEAP,
            started_at: crate::clock::steady_ms(),
            listeners: Vec::new(),
            unopened: Default::default(),
            upstreams: Vec::new(),
            hostname: "mail.example.test".to_owned(),
        };
        Fixture {
            desk: Arc::new(Desk::new(system)),
            _directory: directory,
        }
    }

    /// Nobody else gets a turn as long as this is held.
    pub(in crate::admin) async fn all_turns(&self) -> Vec<impl Drop + use<>> {
        self.desk.workers.all().await
    }

    /// A session of `default`'s, and what tells it to end.
    fn session(&self) -> (Entry, SessionSignal) {
        let signal = SessionSignal::default();
        let client = Client {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            tls: None,
            helo: "laptop".to_owned(),
            mechanism: "PLAIN",
            signal: signal.clone(),
        };
        let identity = Identity {
            key: 1,
            username: "smtp_a".into(),
            organization: "default".into(),
            policy: Arc::default(),
        };
        let mut entry = self.desk.system.sessions.enter("smtp_a", client);
        entry.authenticated(&Arc::new(identity));
        (entry, signal)
    }

    /// The ways to end the sessions there are.
    fn endings(&self) -> [String; 3] {
        let id = self.desk.system.sessions.list()[0].id;
        [
            format!("/api/v1/sessions/{id}"),
            "/api/v1/sessions?credential=smtp_a".to_owned(),
            "/api/v1/sessions?organization=default".to_owned(),
        ]
    }

    /// Whoever has a token that the gate found valid, and that was revoked while the request waited for its turn.
    fn revoked(&self) -> Actor {
        let (store, tester) = (&self.desk.system.store, Actor::system("tests"));
        let issued = token::issue(store.by(&tester), "t", &Scope::INSTANCE_ADMIN, None).unwrap();
        let id = issued.token.id.to_string();
        store.by(&tester).revoke_token(&id, None).unwrap();
        Actor {
            token: Some(issued.token.key),
            ..tester
        }
    }

    async fn delete(&self, path: &str, actor: Actor) -> StatusCode {
        let mut request = Request::builder().method(Method::DELETE).uri(path);
        let caller = Caller {
            name: "tests".to_owned(),
            actor,
            scope: Scope::INSTANCE_ADMIN,
            scopes: vec![Scope::INSTANCE_ADMIN],
            expires_at: None,
        };
        request.extensions_mut().unwrap().insert(caller);
        let (guarded, _) = api::routes(&Default::default());
        let routes = TowerToHyperService::new(guarded.with_state(self.desk.clone()));
        let answer = routes.call(request.body(Body::empty()).unwrap());
        answer.await.unwrap().status()
    }
}

#[tokio::test]
async fn a_session_is_ended_while_others_have_all_turns() {
    let fixture = Fixture::new();
    let actor = Actor::system("tests");
    let _turns = fixture.all_turns().await;
    for ending in 0..3 {
        let (_entry, disconnect) = fixture.session();
        let path = &fixture.endings()[ending];
        let status = fixture.delete(path, actor.clone()).await;
        assert!(status.is_success(), "{path}: {status}");
        assert!(disconnect.current().is_some(), "{path}");
    }
}

#[tokio::test]
async fn no_session_is_ended_by_a_token_that_is_not_valid_any_more() {
    let fixture = Fixture::new();
    let actor = fixture.revoked();
    let (_entry, disconnect) = fixture.session();
    for path in fixture.endings() {
        let status = fixture.delete(&path, actor.clone()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(disconnect.current().is_none(), "{path}");
    }
}
