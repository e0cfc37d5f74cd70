//! What limits and rules add to a login, and to a message to one recipient, all limits being set and none reached.

use std::sync::Arc;

use criterion::{Criterion, Throughput};
use gatepost::auth::ActivityBatch;
use gatepost::auth::quota::{Defaults, Quotas};
use gatepost::metrics::Metrics;
use gatepost::policy::{Limit, Limits, Policy, Setting};
use gatepost::sasl::Identity;
use gatepost::store::{DEFAULT_ORGANIZATION, Store, Usage};
use tokio::runtime::Builder;

const SENT: Usage = Usage {
    messages: 1,
    recipients: 1,
    bytes: 1000,
    accepted: 0,
    refused: 0,
};

pub fn bench(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&directory.path().join("gatepost.db")).expect("a new store");
    let store = Arc::new(store);
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let noted = Arc::new(ActivityBatch::new(1000, metrics.clone()));
    let quotas = Quotas::new(store.clone(), noted, metrics, Defaults::default());
    let quotas = Arc::new(quotas);
    let runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let identity = identity();
    let enter = || runtime.block_on(quotas.enter(&identity, store.epoch()));
    let entered = enter();
    let mut allowance = entered.expect("a session");

    let mut group = criterion.benchmark_group("limits");
    group.throughput(Throughput::Elements(1));
    group.bench_function("login", |bencher| {
        bencher.iter(|| enter().expect("a session"));
    });
    group.bench_function("message", |bencher| {
        bencher.iter(|| {
            allowance
                .reserve_message(b"<sender@example.org>", Some(1000))
                .expect("no limit reached");
            allowance.mail_answered(true);
            allowance.reserve_recipient().expect("no limit reached");
            allowance.recipient_answered(true);
            allowance.next_message();
            allowance.note(&SENT);
            allowance.transaction_over(true);
        });
    });
    group.finish();
}

/// A credential with every limit and a list of senders, in an organization with every limit.
fn identity() -> Arc<Identity> {
    let mut limits = Limits::default();
    for limit in Limit::ALL {
        limits.set(limit, Some(Setting::Number(1_000_000_000)));
    }
    let rules = r#"{"senders":["example.com","example.net","example.org"]}"#;
    let policy = Policy {
        limits: limits.clone(),
        organization_limits: limits,
        rules: serde_json::from_str(rules).expect("rules"),
        ..Policy::default()
    };
    Arc::new(Identity {
        key: 1,
        username: "smtp_SNAlkhvz0Yju9UbS".into(),
        organization: DEFAULT_ORGANIZATION.into(),
        policy: Arc::new(policy),
    })
}
