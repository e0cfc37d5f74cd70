//! What is known of what was sent before, against a real store.

use super::*;
use crate::policy::Setting;
use crate::store::{Actor, NewCredential};

struct Site {
    quotas: Quotas,
    _directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join("gatepost.db")).unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let noted = Arc::new(NotedBatch::new(100, metrics.clone()));
        let quotas = Quotas::new(store, noted, metrics, Defaults::default());
        Self {
            quotas,
            _directory: directory,
        }
    }

    fn organization(&self, slug: &str) {
        let actor = Actor::system("tests");
        let editor = self.quotas.store.by(&actor);
        editor.create_organization(slug, None).unwrap();
    }

    fn credential(&self, username: &str, organization: &str) -> i64 {
        let new = NewCredential {
            username,
            password_hash: "$hash",
            tag: None,
            organization,
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let actor = Actor::system("tests");
        let editor = self.quotas.store.by(&actor);
        editor.create_credential(new).unwrap().key
    }

    fn sent(&self, key: i64, messages: u64) {
        let usage = Usage {
            messages,
            ..Usage::default()
        };
        self.quotas.noted.sent(key, Moment::now().ms(), &usage);
    }

    fn in_a_day(&self, organization: &str) -> Option<u64> {
        let mut limits = Limits::default();
        limits.set(Limit::MessagesPerDay, Some(Setting::Number(100)));
        let uses = self.quotas.uses_of_organization(organization, &limits);
        uses.unwrap()[0].used
    }
}

#[test]
fn an_organization_counts_what_waits_and_cannot_be_written() {
    let site = Site::new();
    site.organization("acme");
    site.organization("other");
    let (one, two) = (
        site.credential("smtp_a", "acme"),
        site.credential("smtp_b", "acme"),
    );
    let others = site.credential("smtp_c", "other");
    site.sent(one, 1);
    site.quotas.noted.flush(&site.quotas.store);
    site.quotas
        .store
        .shell("CREATE TRIGGER full BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'full'); END");
    site.sent(one, 2);
    site.sent(two, 4);
    site.sent(others, 8);
    assert_eq!(site.in_a_day("acme"), Some(7));
    // Nothing is lost of it, and nothing counts twice, once it can be written.
    site.quotas.store.shell("DROP TRIGGER full");
    assert_eq!(site.in_a_day("other"), Some(8));
    site.quotas.noted.flush(&site.quotas.store);
    let since = |slug| {
        let of = UsageOf::Organization(slug);
        let rows = site.quotas.store.usage(of, Span::Day, 0, i64::MAX).unwrap();
        rows.iter().map(|(_, usage)| usage.messages).sum::<u64>()
    };
    assert_eq!((since("acme"), since("other")), (7, 8));
    assert_eq!(site.in_a_day("acme"), Some(7));
}

#[tokio::test]
async fn a_message_too_large_is_told_by_each_limit_that_says_so() {
    let site = Site::new();
    let key = site.credential("smtp_a", "default");
    let of = |octets| {
        let mut limits = Limits::default();
        limits.set(Limit::MessageSize, Some(Setting::Number(octets)));
        limits
    };
    let told = |quotas: &Quotas| {
        let text = String::from_utf8(quotas.metrics.render().unwrap()).unwrap();
        let limits = text.lines().filter(|line| {
            line.starts_with("gatepost_limit_refusals_total{") && line.contains("message_size")
        });
        let told = limits.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        told.collect::<Vec<_>>()
    };
    let quotas = Arc::new(site.quotas);
    let mut counts = Vec::new();
    for (own, organization, report) in [(10, 5, true), (10, 5, false), (5, 10, true)] {
        let rules = match report {
            true => r#"{"report":["limits"]}"#,
            false => "{}",
        };
        let policy = Policy {
            limits: of(own),
            organization_limits: of(organization),
            rules: serde_json::from_str(rules).unwrap(),
            ..Policy::default()
        };
        let identity = Arc::new(Identity {
            key,
            username: "smtp_a".into(),
            organization: "default".into(),
            policy: Arc::new(policy),
        });
        let session = quotas.enter(&identity, quotas.store.epoch()).await;
        session.unwrap_or_else(|_| panic!("no session")).sized(11);
        counts.push(told(&quotas));
    }
    // Refused by the credential's and by the organization's, then reported.
    assert_eq!(counts, [[0, 1, 1], [0, 2, 1], [0, 3, 2]]);
}
