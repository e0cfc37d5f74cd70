//! The verdict on a right password: one that is remembered from an earlier login, and one that is not.

use std::cell::LazyCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::measurement::{Measurement, WallTime};
use criterion::{BatchSize, Criterion};
use gatepost::auth::issue::{Issued, New, issue};
use gatepost::auth::password::{Cost, Hasher};
use gatepost::auth::quota::{Defaults, Quotas};
use gatepost::auth::{ActivityBatch, Authenticator, Peer};
use gatepost::config;
use gatepost::metrics::Metrics;
use gatepost::sasl::{Credentials, Mechanism, Verdict};
use gatepost::store::{Actor, DEFAULT_ORGANIZATION, NewPassword, Store};
use tokio::runtime::{Builder, Runtime};

pub fn bench(criterion: &mut Criterion) {
    let runtime = runtime();
    let gate = LazyCell::new(Gate::new);

    let mut group = criterion.benchmark_group("verification");
    group.bench_function("cached", |bencher| {
        runtime.block_on(gate.log_in());
        // The loop runs inside the runtime, as sessions do.
        bencher.iter_custom(|logins| {
            runtime.block_on(async {
                let started = WallTime.start();
                for _ in 0..logins {
                    gate.log_in().await;
                }
                WallTime.end(started)
            })
        });
    });
    group.sample_size(50);
    group.bench_function("cold", |bencher| {
        bencher.iter_batched(
            || gate.forget(),
            |()| runtime.block_on(gate.log_in()),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

/// The verifying half of the daemon with its default settings, and one credential issued as by the command line.
struct Gate {
    authenticator: Authenticator,
    store: Arc<Store>,
    issued: Issued,
    peer: Peer,
    _directory: tempfile::TempDir,
}

impl Gate {
    fn new() -> Gate {
        let auth = config::Auth::default();
        let cost = Cost {
            memory_kib: auth.memory_kib,
            iterations: auth.iterations,
            lanes: auth.lanes,
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&directory.path().join("gatepost.db")).expect("a new store");
        let store = Arc::new(store);
        let new = New {
            organization: DEFAULT_ORGANIZATION,
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let issued =
            issue(&store, store.by(&Actor::system("bench")), cost, new).expect("a credential");
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let hasher = Hasher::start(cost, auth.workers, auth.queue, metrics.clone());
        let pending = config::LastUsed::default().pending;
        let noted = Arc::new(ActivityBatch::new(pending, metrics.clone()));
        let (known, none) = (metrics.clone(), Defaults::default());
        let quotas = Quotas::new(store.clone(), noted.clone(), known, none);
        let authenticator = Authenticator::new(
            store.clone(),
            hasher.expect("threads that hash"),
            noted,
            Arc::new(quotas),
            metrics,
            auth.cache_entries,
            auth.refusal_delay,
        );
        Gate {
            authenticator,
            store,
            issued,
            peer: Peer {
                address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 25)),
                tls: Some("TLSv1.3"),
                helo: "client.example.net".into(),
            },
            _directory: directory,
        }
    }

    /// One login from its decoded claim to its verdict.
    async fn log_in(&self) {
        let credentials = Credentials {
            mechanism: Mechanism::Plain,
            username: self.issued.credential.username.clone(),
            password: self.issued.password.clone(),
            authzid: None,
        };
        let verdict = self.authenticator.verify(credentials, &self.peer).await;
        assert!(matches!(verdict, Verdict::Accept(_)), "{verdict:?}");
    }

    /// Stores the same hash again as if it were a new password's: the next login has to hash.
    fn forget(&self) {
        let username = &self.issued.credential.username;
        let login = self.store.lookup(username).expect("a readable store");
        let login = login.expect("the credential");
        let same = NewPassword {
            hash: &login.password_hash,
            tag: login.tag,
            overlap: gatepost::store::Overlap::Nothing,
        };
        self.store
            .by(&Actor::system("bench"))
            .set_password(username.as_str().into(), same)
            .expect("a writable store");
    }
}
