//! The promises of verification, against a real store.

use super::*;
use crate::auth::guard::Prefix;
use crate::auth::issue::{self, Issued, New};
use crate::auth::password::Cost;
use crate::metrics::StoreOperation;
use crate::sasl::{Mechanism, Secret};
use crate::store::{
    Actor, CredentialEdit, CredentialStatus, Effect, Narrowing, NarrowingKey, NewCredential,
    Object, Overlap, RefusedLogin,
};
use std::net::IpAddr;

const CHEAP: Cost = Cost {
    memory_kib: 64,
    iterations: 1,
    lanes: 1,
};

/// Takes longer than a timer may be late.
const SLOW: Cost = Cost {
    memory_kib: 19_456,
    iterations: 8,
    lanes: 1,
};

struct Site {
    authenticator: Arc<Authenticator>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    noted: Arc<ActivityBatch>,
    directory: tempfile::TempDir,
}

const FILE: &str = "gatepost.db";

impl Site {
    fn new() -> Self {
        Self::with(CHEAP, Duration::ZERO)
    }

    fn with(cost: Cost, delay: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join(FILE)).unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let hasher = Hasher::start(cost, 1, 100, metrics.clone()).unwrap();
        let last_used = Arc::new(ActivityBatch::new(100, metrics.clone()));
        let authenticator = Authenticator::new(
            store.clone(),
            hasher,
            last_used.clone(),
            Arc::new(Quotas::new(
                store.clone(),
                last_used.clone(),
                metrics.clone(),
                quota::Defaults::default(),
            )),
            metrics.clone(),
            100,
            delay,
        );
        Self {
            authenticator: Arc::new(authenticator),
            store,
            metrics,
            noted: last_used,
            directory,
        }
    }

    /// With a guard that counts failures.
    fn guarded() -> Self {
        Self::guarded_with(Duration::ZERO)
    }

    fn guarded_with(delay: Duration) -> Self {
        let mut site = Self::with(CHEAP, delay);
        let settings = Settings {
            enabled: true,
            threads: 2,
            queue: 100,
            ..Settings::off()
        };
        let guard = Guard::new(settings, site.metrics.clone());
        let authenticator = Arc::get_mut(&mut site.authenticator).unwrap();
        authenticator.guard = Arc::new(guard);
        site
    }

    fn issue(&self) -> Issued {
        issue::issue(&self.store, self.store.by(&tester()), CHEAP, NEW).unwrap()
    }

    fn rotate(&self, username: &str, overlap_until: Option<i64>) -> Issued {
        let actor = tester();
        let editor = self.store.by(&actor);
        let overlap = overlap_until.map_or(Overlap::Nothing, Overlap::Until);
        issue::rotate(&self.store, editor, CHEAP, username.into(), overlap).unwrap()
    }

    /// Revokes the credential in memory, and not in the file.
    fn revoke_unwritten(&self, username: &str) -> NarrowingKey {
        let narrowing = Narrowing {
            object: Object::Credential(username.to_owned()),
            effect: Effect::Revoke,
            base: self.store.stored_login(username).unwrap().map(Arc::new),
        };
        let key = narrowing.key();
        self.store.obey(narrowing);
        key
    }

    fn set_status(&self, username: &str, status: CredentialStatus) {
        let edit = CredentialEdit {
            status: Some(status),
            ..CredentialEdit::default()
        };
        let actor = tester();
        self.store
            .by(&actor)
            .edit_credential(username.into(), edit)
            .unwrap();
    }

    /// The time that unknown clients wait for a hash.
    fn set_permit_timeout(&mut self, patience: Duration) {
        let authenticator = Arc::get_mut(&mut self.authenticator).unwrap();
        authenticator.permit_timeout = patience;
    }

    /// A login with the credential from `address`.
    fn trust(&self, address: [u8; 4], key: i64) {
        let guard = self.authenticator.guard();
        guard.accepted(&guard.attempt(address.into()), key);
    }

    /// The number of rows read for verdicts.
    fn lookups(&self) -> u64 {
        let seconds = self.metrics.store_seconds.of(StoreOperation::Lookup);
        seconds.get_sample_count()
    }

    fn key(&self, username: &str) -> i64 {
        self.store.lookup(username).unwrap().unwrap().key
    }

    /// A credential with a human-chosen password, which has no tag.
    fn import(&self, username: &str, password: &str) {
        self.import_at(CHEAP, username, password);
    }

    fn import_at(&self, cost: Cost, username: &str, password: &str) {
        let hash = crate::auth::password::hash(&Secret::new(password), cost).unwrap();
        let new = NewCredential {
            username,
            password_hash: &hash,
            tag: None,
            organization: "default",
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        self.store.by(&tester()).create_credential(new).unwrap();
    }

    async fn verify(&self, username: &str, password: impl Into<Vec<u8>>) -> Verdict {
        self.authenticator
            .verify(claim(username, password), &peer())
            .await
    }

    async fn verify_from(
        &self,
        address: impl Into<IpAddr>,
        username: &str,
        password: impl Into<Vec<u8>>,
    ) -> Verdict {
        let peer = Peer {
            address: address.into(),
            ..peer()
        };
        let claim = claim(username, password);
        self.authenticator.verify(claim, &peer).await
    }

    async fn log_in(&self, issued: &Issued) -> Verdict {
        self.verify(&issued.credential.username, issued.password.expose())
            .await
    }

    /// The verdicts after an argon2, from the cache, and before either.
    fn paths(&self) -> [u64; 3] {
        let text = String::from_utf8(self.metrics.render().unwrap()).unwrap();
        ["argon2", "cache", "early"].map(|path| {
            let series = format!("gatepost_auth_path_total{{path=\"{path}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&series));
            line.map_or(0, |count| count.parse().unwrap())
        })
    }
}

const NEW: New = New {
    organization: "default",
    name: None,
    expires_at: None,
    limits: None,
    rules: None,
};

fn tester() -> Actor {
    Actor::system("tests")
}

fn claim(username: &str, password: impl Into<Vec<u8>>) -> Credentials {
    Credentials {
        mechanism: Mechanism::Plain,
        username: username.into(),
        password: Secret::new(password),
        authzid: None,
    }
}

fn peer() -> Peer {
    Peer {
        address: "203.0.113.7".parse().unwrap(),
        tls: Some("TLSv1.3"),
        helo: "client.test".into(),
    }
}

fn is_accepted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Accept(_))
}

/// Rejections leave time for a poll, and polls never pause.
fn unhurried() -> Site {
    let site = Site::with(CHEAP, Duration::from_millis(500));
    let (store, polls) = (site.store.clone(), site.authenticator.store_poller());
    tokio::spawn(async move {
        loop {
            polls.ask(&store).unwrap();
            tokio::task::yield_now().await;
        }
    });
    site
}

#[tokio::test]
async fn a_name_that_is_refused_again_and_again_is_looked_up_once() {
    let site = unhurried();
    let issued = site.issue();
    let username = &issued.credential.username;
    let nobody = "smtp_0123456789abcdef";
    for lookups in [2, 2] {
        let (wrong, unknown) = tokio::join!(
            site.verify(username, "sk_wrong"),
            site.verify(nobody, "sk_wrong")
        );
        assert_eq!(wrong, Verdict::Reject(Reason::WrongPassword));
        assert_eq!(unknown, Verdict::Reject(Reason::Unknown));
        assert_eq!(site.lookups(), lookups);
    }
    assert!(is_accepted(&site.log_in(&issued).await));
    assert_eq!(site.lookups(), 3);
    // A username that people chose is looked up each time.
    for lookups in [4, 5] {
        let unknown = site.verify("info", "secret").await;
        assert_eq!(unknown, Verdict::Reject(Reason::Unknown));
        assert_eq!(site.lookups(), lookups);
    }
}

#[tokio::test]
async fn what_another_process_has_just_written_is_no_reason_to_refuse() {
    let site = unhurried();
    let [guessed, cached] = [site.issue(), site.issue()];
    assert!(is_accepted(&site.log_in(&cached).await));
    let name = &guessed.credential.username;
    let wrong = site.verify(name, "sk_wrong").await;
    assert_eq!(wrong, Verdict::Reject(Reason::WrongPassword));
    let elsewhere = Site {
        store: Arc::new(Store::open(&site.directory.path().join(FILE)).unwrap()),
        ..site
    };
    for issued in [guessed, cached] {
        let rotated = elsewhere.rotate(&issued.credential.username, None);
        assert!(is_accepted(&elsewhere.log_in(&rotated).await));
    }
}

#[tokio::test]
async fn a_hot_login_costs_no_argon2_and_neither_does_a_wrong_one() {
    let site = Site::new();
    let issued = site.issue();
    assert!(is_accepted(&site.log_in(&issued).await));
    assert_eq!(site.paths(), [1, 0, 0]);
    assert!(is_accepted(&site.log_in(&issued).await));
    assert_eq!(site.paths(), [1, 1, 0]);
    let wrong = site.verify(&issued.credential.username, "sk_wrong").await;
    assert_eq!(wrong, Verdict::Reject(Reason::WrongPassword));
    assert_eq!(site.paths(), [1, 2, 0]);
}

#[tokio::test]
async fn guesses_never_reach_argon2() {
    let site = Site::new();
    let issued = site.issue();
    let guess = site.verify(&issued.credential.username, "sk_guess").await;
    assert_eq!(guess, Verdict::Reject(Reason::WrongPassword));
    let unknown = site.verify("smtp_nobody", "sk_guess").await;
    assert_eq!(unknown, Verdict::Reject(Reason::Unknown));
    assert_eq!(site.paths(), [0, 0, 2]);
}

#[tokio::test]
async fn a_rotated_password_dies_at_once() {
    let site = Site::new();
    let old = site.issue();
    let username = &old.credential.username;
    assert!(is_accepted(&site.log_in(&old).await));
    let new = site.rotate(username, None);
    assert!(!is_accepted(&site.log_in(&old).await));
    assert!(is_accepted(&site.log_in(&new).await));
    assert!(!is_accepted(&site.log_in(&old).await));
}

#[tokio::test]
async fn revoking_deleting_and_renewing_bite_a_hot_login() {
    let site = Site::new();
    let issued = site.issue();
    let username = &issued.credential.username;
    assert!(is_accepted(&site.log_in(&issued).await));
    site.set_status(username, CredentialStatus::Revoked);
    assert_eq!(site.log_in(&issued).await, Verdict::Reject(Reason::Revoked));
    site.set_status(username, CredentialStatus::Active);
    assert!(is_accepted(&site.log_in(&issued).await));
    site.store
        .by(&tester())
        .delete_credential(username.as_str().into())
        .unwrap();
    assert_eq!(site.log_in(&issued).await, Verdict::Reject(Reason::Unknown));
}

#[tokio::test]
async fn other_changes_do_not_cost_a_hot_login_its_entry() {
    let site = Site::new();
    let (one, other) = (site.issue(), site.issue());
    assert!(is_accepted(&site.log_in(&one).await));
    site.set_status(&other.credential.username, CredentialStatus::Revoked);
    assert!(is_accepted(&site.log_in(&one).await));
    assert_eq!(site.paths(), [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_one_password_costs_one_argon2() {
    let site = Site::new();
    let issued = site.issue();
    let logins: Vec<_> = (0..200)
        .map(|_| {
            let authenticator = site.authenticator.clone();
            let claim = claim(&issued.credential.username, issued.password.expose());
            tokio::spawn(async move { authenticator.verify(claim, &peer()).await })
        })
        .collect();
    for login in logins {
        assert!(is_accepted(&login.await.unwrap()));
    }
    assert_eq!(site.metrics.argon2.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_in_flight_say_nothing_about_the_right_one() {
    let site = Site::new();
    site.import("printer", "chosen");
    let logins: Vec<_> = (0..40)
        .map(|number| {
            let authenticator = site.authenticator.clone();
            let right = number % 4 == 0;
            let claim = claim("printer", if right { "chosen" } else { "wrong" });
            let login = async move { authenticator.verify(claim, &peer()).await };
            (right, tokio::spawn(login))
        })
        .collect();
    for (right, login) in logins {
        assert_eq!(is_accepted(&login.await.unwrap()), right);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_old_password_is_accepted_after_its_rotation_was_acknowledged() {
    let site = Site::new();
    let mut current = site.issue();
    for _ in 0..100 {
        let racing: Vec<_> = (0..4)
            .map(|_| {
                let authenticator = site.authenticator.clone();
                let claim = claim(&current.credential.username, current.password.expose());
                tokio::spawn(async move { authenticator.verify(claim, &peer()).await })
            })
            .collect();
        let next = site.rotate(&current.credential.username, None);
        assert!(!is_accepted(&site.log_in(&current).await));
        for login in racing {
            login.await.unwrap();
        }
        // A racing login must not have left the old password behind either.
        assert!(!is_accepted(&site.log_in(&current).await));
        assert!(is_accepted(&site.log_in(&next).await));
        current = next;
    }
}

#[tokio::test]
async fn an_authorization_identity_is_rejected() {
    let site = Site::new();
    let issued = site.issue();
    let mut claim = claim(&issued.credential.username, issued.password.expose());
    claim.authzid = Some("boss".into());
    let verdict = site.authenticator.verify(claim, &peer()).await;
    assert_eq!(verdict, Verdict::Reject(Reason::ActsForAnother));
}

#[tokio::test]
async fn a_cheap_hash_is_renewed_behind_the_login() {
    let dearer = Cost {
        memory_kib: 128,
        ..CHEAP
    };
    let site = Site::with(dearer, Duration::ZERO);
    let issued = site.issue();
    let username = &issued.credential.username;
    assert!(is_accepted(&site.log_in(&issued).await));
    // The rehash runs after the answer and ends with a new hash in the row.
    while !site
        .store
        .lookup(username)
        .unwrap()
        .unwrap()
        .password_hash
        .contains("m=128,")
    {
        tokio::task::yield_now().await;
    }
    site.store.advance_epoch();
    assert!(is_accepted(&site.log_in(&issued).await));
}

#[tokio::test(start_paused = true)]
async fn every_refusal_takes_the_same_time() {
    let site = Site::with(CHEAP, Duration::from_secs(1));
    let issued = site.issue();
    site.set_status(&issued.credential.username, CredentialStatus::Revoked);
    for (username, password) in [
        ("smtp_nobody", "x"),
        (issued.credential.username.as_str(), "x"),
    ] {
        let asked = tokio::time::Instant::now();
        assert!(!is_accepted(&site.verify(username, password).await));
        let took = asked.elapsed().as_millis();
        assert!((800..=1201).contains(&took), "{took} ms");
    }
}

#[tokio::test]
async fn during_an_overlap_both_passwords_are_right_and_a_wrong_one_costs_nothing() {
    let site = Site::new();
    let old = site.issue();
    let username = old.credential.username.clone();
    assert!(is_accepted(&site.log_in(&old).await));
    let new = site.rotate(&username, Some(crate::clock::now_ms() + 60_000));
    for _ in 0..2 {
        assert!(is_accepted(&site.log_in(&new).await));
        assert!(is_accepted(&site.log_in(&old).await));
    }
    let [argon2, cached, _] = site.paths();
    assert_eq!((argon2, cached), (3, 2));
    let wrong = site.verify(&username, "sk_wrong").await;
    assert_eq!(wrong, Verdict::Reject(Reason::WrongPassword));
    assert_eq!(site.paths()[0], 3);
    site.rotate(&username, None);
    for stale in [&old, &new] {
        assert!(!is_accepted(&site.log_in(stale).await));
    }
}

#[tokio::test]
async fn an_overlap_that_is_ended_early_is_over() {
    let site = Site::new();
    let old = site.issue();
    let username = old.credential.username.clone();
    let new = site.rotate(&username, Some(crate::clock::now_ms() + 60_000));
    assert!(is_accepted(&site.log_in(&old).await));
    let end = CredentialEdit {
        end_overlap: true,
        ..CredentialEdit::default()
    };
    let actor = tester();
    let editor = site.store.by(&actor);
    editor
        .edit_credential(username.as_str().into(), end)
        .unwrap();
    assert_eq!(
        site.log_in(&old).await,
        Verdict::Reject(Reason::PreviousPassword)
    );
    assert!(is_accepted(&site.log_in(&new).await));
}

#[tokio::test]
async fn a_password_from_before_a_rotation_is_recognized_and_costs_nothing() {
    let site = Site::new();
    let first = site.issue();
    let username = first.credential.username.clone();
    let second = site.rotate(&username, None);
    let rotated_at = second.credential.rotated_at;
    let previous = Verdict::Reject(Reason::PreviousPassword);
    assert_eq!(site.log_in(&first).await, previous);
    assert_eq!(site.paths(), [0, 0, 1], "cold");
    assert!(is_accepted(&site.log_in(&second).await));
    assert_eq!(site.log_in(&first).await, previous);
    let wrong = site.verify(&username, "sk_wrong").await;
    assert_eq!(wrong, Verdict::Reject(Reason::WrongPassword));
    assert_eq!(site.paths(), [1, 2, 1], "cached");
    let third = site.rotate(&username, None);
    for _ in 0..2 {
        assert_eq!(site.log_in(&first).await, previous);
        assert_eq!(site.log_in(&second).await, previous);
        assert!(is_accepted(&site.log_in(&third).await));
    }
    assert_eq!(site.paths()[0], 2);
    let noted = site.noted.refusals(&site.store, &username).unwrap();
    let mut told: Vec<_> = noted
        .iter()
        .map(|refusal| (refusal.reason.as_str(), refusal.count))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [("previous_password", 6), ("wrong_password", 1)]);
    let latest = noted.iter().find(|refusal| refusal.retired_at.is_some());
    assert_eq!(latest.unwrap().retired_at, third.credential.rotated_at);
    assert!(rotated_at <= third.credential.rotated_at);
}

#[tokio::test]
async fn a_chosen_password_is_not_recognized_after_its_rotation() {
    let site = Site::new();
    site.import("printer", "hunter2");
    site.rotate("printer", None);
    let refused = site.verify("printer", "hunter2").await;
    assert_eq!(refused, Verdict::Reject(Reason::WrongPassword));
}

#[tokio::test]
async fn uses_of_the_previous_password_in_an_overlap_are_counted() {
    let site = Site::new();
    let old = site.issue();
    let username = old.credential.username.clone();
    assert!(is_accepted(&site.log_in(&old).await));
    let new = site.rotate(&username, Some(crate::clock::now_ms() + 60_000));
    let used = || {
        let mut credential = site.store.credential(username.as_str()).unwrap();
        site.noted.update(&mut credential);
        credential
            .previous_used
            .map(|used| (used.address, used.count))
    };
    assert!(is_accepted(&site.log_in(&new).await));
    assert_eq!(used(), None);
    for _ in 0..3 {
        assert!(is_accepted(&site.log_in(&old).await));
    }
    let told = Some(("203.0.113.7".to_owned(), 3));
    assert_eq!(used(), told);
    site.noted.flush(&site.store);
    assert_eq!(used(), told);
    assert!(is_accepted(&site.log_in(&old).await));
    assert_eq!(used().unwrap().1, 4);
    let last = crate::clock::now_ms();
    while crate::clock::now_ms() == last {
        tokio::task::yield_now().await; // a use counts for the rotation before it
    }
    site.rotate(&username, Some(crate::clock::now_ms() + 60_000));
    assert_eq!(used().unwrap().1, 4, "the overlap is kept");
    site.noted.flush(&site.store);
    assert_eq!(used().unwrap().1, 4);
    site.rotate(&username, None);
    site.noted.flush(&site.store);
    assert_eq!(used(), None);
}

#[tokio::test]
async fn uses_of_the_present_password_are_counted_in_an_overlap_until_the_next_rotation() {
    let site = Site::new();
    let first = site.issue();
    let username = first.credential.username.clone();
    let used = || {
        let mut credential = site.store.credential(username.as_str()).unwrap();
        site.noted.update(&mut credential);
        credential.current_used.map(|used| used.count)
    };
    assert!(is_accepted(&site.log_in(&first).await));
    assert_eq!(used(), None, "there is no overlap");
    let second = site.rotate(&username, Some(crate::clock::now_ms() + 60_000));
    assert!(is_accepted(&site.log_in(&first).await));
    assert_eq!(used(), None);
    for _ in 0..2 {
        assert!(is_accepted(&site.log_in(&second).await));
    }
    assert_eq!(used(), Some(2));
    site.noted.flush(&site.store);
    assert_eq!(used(), Some(2));
    let last = crate::clock::now_ms();
    while crate::clock::now_ms() == last {
        tokio::task::yield_now().await;
    }
    let third = site.rotate(&username, Some(crate::clock::now_ms() + 60_000));
    assert_eq!(used(), None);
    let refused = site.log_in(&second).await;
    assert_eq!(refused, Verdict::Reject(Reason::PreviousPassword));
    assert!(is_accepted(&site.log_in(&first).await));
    assert!(is_accepted(&site.log_in(&third).await));
    assert_eq!(used(), Some(1));
}

#[tokio::test]
async fn every_refusal_is_noted_by_its_name() {
    let site = Site::new();
    let issued = site.issue();
    let username = issued.credential.username.clone();
    site.verify("smtp_nobody", "x").await;
    let mut boss = claim(&username, issued.password.expose());
    boss.authzid = Some("boss".into());
    site.authenticator.verify(boss, &peer()).await;
    site.set_status(&username, CredentialStatus::Revoked);
    site.log_in(&issued).await;
    let reasons = |found: Vec<RefusedLogin>| {
        let mut reasons: Vec<_> = found.into_iter().map(|refusal| refusal.reason).collect();
        reasons.sort_unstable();
        reasons
    };
    for _ in 0..2 {
        let own = site.noted.refusals(&site.store, &username).unwrap();
        assert_eq!(reasons(own), ["acts_for_another", "revoked"]);
        let unknown = site.noted.unknown_refusals(&site.store).unwrap();
        assert_eq!(unknown.len(), 1);
        assert_eq!(unknown[0].username, "smtp_nobody");
        site.noted.flush(&site.store);
    }
}

#[tokio::test]
async fn a_chosen_password_is_right_during_its_overlap_too() {
    let site = Site::new();
    site.import("printer", "hunter2");
    let new = site.rotate("printer", Some(crate::clock::now_ms() + 60_000));
    assert!(is_accepted(&site.verify("printer", "hunter2").await));
    assert!(is_accepted(&site.log_in(&new).await));
    let hashed = site.paths()[0];
    let wrong = site.verify("printer", "hunter3").await;
    assert_eq!(wrong, Verdict::Reject(Reason::WrongPassword));
    assert!(is_accepted(&site.verify("printer", "hunter2").await));
    assert_eq!(site.paths()[0], hashed, "neither costs an argon2");
}

#[tokio::test]
async fn an_unwritten_revocation_rejects_a_cached_password() {
    let site = Site::new();
    let issued = site.issue();
    let username = &issued.credential.username;
    assert!(is_accepted(&site.log_in(&issued).await));
    let unwritten = site.revoke_unwritten(username);
    assert_eq!(site.log_in(&issued).await, Verdict::Reject(Reason::Revoked));
    site.store.disobey(&[unwritten]);
    assert!(is_accepted(&site.log_in(&issued).await));
}

const OWNERS: [u8; 4] = [192, 0, 2, 7];

#[tokio::test]
async fn thousands_of_hostile_tries_do_not_keep_the_owner_out() {
    let site = Site::guarded();
    let issued = site.issue();
    let (username, password) = (&issued.credential.username, issued.password.expose());
    assert!(is_accepted(
        &site.verify_from(OWNERS, username, password).await
    ));
    for number in 0..10_000_u32 {
        // Hundreds of networks, among them the owner's neighbours and the owner's own address.
        let from = match number % 10 {
            0 => OWNERS,
            1 => [192, 0, 2, (number % 250) as u8],
            _ => (0x0a00_0000 + number % 500 * 0x0100).to_be_bytes(),
        };
        let wrong = site
            .verify_from(from, username, format!("sk_{number}"))
            .await;
        assert!(!is_accepted(&wrong));
        if number % 100 == 0 {
            site.store.advance_epoch();
            let verdict = site.verify_from(OWNERS, username, password).await;
            assert!(is_accepted(&verdict), "{number}: {verdict:?}");
        }
    }
    assert_eq!(site.paths()[0], 1, "no guess was hashed");
    let banned = site.verify_from([10, 0, 2, 0], username, "sk_").await;
    assert_eq!(banned, Verdict::Throttled(Throttled::Guard));
    // The cached password works where every other login is turned away.
    let there = site.verify_from([10, 0, 2, 0], username, password).await;
    assert!(is_accepted(&there), "{there:?}");
}

#[tokio::test]
async fn a_banned_client_gets_one_answer_and_costs_no_look_up() {
    let site = Site::guarded();
    let issued = site.issue();
    let revoked = site.issue();
    site.set_status(&revoked.credential.username, CredentialStatus::Revoked);
    let from = [203, 0, 113, 9];
    for number in 0..10 {
        site.verify_from(from, "smtp_nobody", format!("sk_{number}"))
            .await;
    }
    let looked_up = || {
        site.metrics
            .store_seconds
            .of(StoreOperation::Lookup)
            .get_sample_count()
    };
    let before = looked_up();
    for username in [
        &issued.credential.username,
        &revoked.credential.username,
        "smtp_nobody",
    ] {
        let verdict = site.verify_from(from, username, "sk_other").await;
        assert_eq!(verdict, Verdict::Throttled(Throttled::Guard), "{username}");
    }
    assert_eq!(looked_up(), before);
    let counted = site.metrics.logins(BARRED, Throttled::Guard.as_str());
    assert_eq!(counted.get(), 3);
}

#[tokio::test]
async fn the_consequences_do_not_reveal_which_usernames_exist() {
    let site = Site::guarded();
    let known = site.issue();
    let revoked = site.issue();
    site.set_status(&revoked.credential.username, CredentialStatus::Revoked);
    site.import("printer", "hunter2");
    let names = [
        &known.credential.username,
        &revoked.credential.username,
        "printer",
        "smtp_nobody",
    ];
    for (network, username) in (1..).zip(names) {
        for number in 1..=11 {
            let from = [203, 0, network, 9];
            let verdict = site
                .verify_from(from, username, format!("sk_{number}"))
                .await;
            let is_barred = verdict == Verdict::Throttled(Throttled::Guard);
            assert_eq!(is_barred, number >= 10, "{username}, {number}: {verdict:?}");
            assert!(is_barred || matches!(verdict, Verdict::Reject(_)));
        }
    }
}

#[tokio::test]
async fn the_right_password_of_a_revoked_credential_is_no_attack() {
    let site = Site::guarded();
    for _ in 0..20 {
        let issued = site.issue();
        let username = &issued.credential.username;
        site.set_status(username, CredentialStatus::Revoked);
        let verdict = site.log_in(&issued).await;
        assert_eq!(verdict, Verdict::Reject(Reason::Revoked));
    }
    assert_eq!(site.authenticator.guard().list(), []);
}

#[tokio::test]
async fn where_nothing_tells_that_it_is_right_a_revoked_password_counts_once_a_day() {
    let site = Site::guarded();
    site.import("printer", "hunter2");
    site.set_status("printer", CredentialStatus::Revoked);
    for _ in 0..20 {
        let imported = site.verify_from([10, 0, 0, 1], "printer", "hunter2").await;
        assert_eq!(imported, Verdict::Reject(Reason::Revoked));
    }
    let charges = site.authenticator.guard().list();
    let scores: Vec<_> = charges.iter().map(|charge| charge.score).collect();
    assert_eq!(scores, [1.0; 2]);
}

#[tokio::test]
async fn the_same_wrong_password_is_hashed_once_until_the_credential_changes() {
    let site = Site::guarded();
    site.import("printer", "hunter2");
    for _ in 0..5 {
        let verdict = site.verify_from(OWNERS, "printer", "hunter3").await;
        assert_eq!(verdict, Verdict::Reject(Reason::WrongPassword));
    }
    assert_eq!(site.paths()[0], 1);
    let hash = crate::auth::password::hash(&Secret::new("hunter3"), CHEAP).unwrap();
    let edit = crate::store::NewPassword {
        hash: &hash,
        tag: None,
        overlap: Overlap::Nothing,
    };
    let actor = tester();
    site.store
        .by(&actor)
        .set_password("printer".into(), edit)
        .unwrap();
    assert!(is_accepted(
        &site.verify_from(OWNERS, "printer", "hunter3").await
    ));
}

#[tokio::test]
async fn a_hundred_guesses_close_an_imported_password_to_unknown_clients() {
    let site = Site::guarded();
    site.import("printer", "hunter2");
    assert!(is_accepted(
        &site.verify_from(OWNERS, "printer", "hunter2").await
    ));
    // Only until the owner comes back.
    for number in 0..99_u8 {
        site.verify_from([10, 0, number, 1], "printer", format!("guess {number}"))
            .await;
    }
    assert!(is_accepted(
        &site.verify_from(OWNERS, "printer", "hunter2").await
    ));
    for number in 0..100_u8 {
        site.verify_from([10, 1, number, 1], "printer", format!("other {number}"))
            .await;
    }
    let stranger = site.verify_from([10, 2, 0, 1], "printer", "hunter2").await;
    assert_eq!(stranger, Verdict::Reject(Reason::WrongPassword));
    site.store.advance_epoch();
    let stranger = site.verify_from([10, 3, 0, 1], "printer", "hunter2").await;
    assert_eq!(stranger, Verdict::Reject(Reason::WrongPassword));
    assert!(is_accepted(
        &site.verify_from(OWNERS, "printer", "hunter2").await
    ));
    let stranger = site.verify_from([10, 2, 0, 1], "printer", "hunter2").await;
    assert!(is_accepted(&stranger), "the owner's login ended that");
}

#[tokio::test]
async fn guesses_at_a_chosen_password_do_not_close_a_generated_password() {
    let site = Site::guarded();
    site.import("printer", "hunter2");
    let guess = async |network: u8| {
        for number in 0..100_u8 {
            let from = [10, network, number, 1];
            site.verify_from(from, "printer", format!("guess {network} {number}"))
                .await;
        }
    };
    guess(0).await;
    let stranger = site.verify_from([10, 9, 0, 1], "printer", "hunter2").await;
    assert_eq!(stranger, Verdict::Reject(Reason::WrongPassword));
    // The old password stays right for a while, and can still be guessed at.
    let rotated = site.rotate("printer", Some(crate::clock::now_ms() + 3_600_000));
    guess(1).await;
    for network in 0..3 {
        let stranger = site.verify_from([10, 8, network, 1], "printer", "hunter2");
        assert_eq!(stranger.await, Verdict::Reject(Reason::WrongPassword));
        let from = [10, 7, network, 1];
        let stranger = site.verify_from(from, "printer", rotated.password.expose());
        assert!(is_accepted(&stranger.await), "{network}");
        guess(2 + network).await;
    }
    let rotated = site.rotate("printer", None);
    let from = [10, 6, 0, 1];
    let stranger = site.verify_from(from, "printer", rotated.password.expose());
    assert!(is_accepted(&stranger.await));
}

#[tokio::test]
async fn a_closed_password_is_not_looked_at_and_guesses_at_it_count_as_at_any_name() {
    let site = Site::guarded();
    site.import("printer", "hunter2");
    site.trust(OWNERS, site.key("printer"));
    let close = async |round: u8| {
        for number in 0..100_u8 {
            let from = [10, 0, number, 1];
            site.verify_from(from, "printer", format!("guess {round} {number}"))
                .await;
        }
    };
    close(0).await;
    // Without a cache entry, then with one.
    for round in 0..2 {
        let before = site.paths()[0];
        let right = [10, 9, round, 1];
        for _ in 0..3 {
            let verdict = site.verify_from(right, "printer", "hunter2").await;
            assert_eq!(verdict, Verdict::Reject(Reason::WrongPassword));
        }
        let mut heard = Vec::new();
        for (network, name) in [(20, "printer"), (30, "nobody")] {
            let mut verdicts = Vec::new();
            for number in 0..11 {
                let guess = format!("other {round} {number}");
                let verdict = site.verify_from([10, network, round, 1], name, guess).await;
                verdicts.push(said(&verdict));
            }
            heard.push(verdicts);
        }
        assert_eq!(heard[0], heard[1]);
        assert_eq!((heard[0][8], heard[0][9], heard[0][10]), (535, 421, 421));
        assert_eq!(site.paths()[0], before);
        let charges = site.authenticator.guard().list();
        let own = Prefix::client(right.into());
        let own = charges.iter().find(|charge| charge.network == own);
        assert_eq!(own.unwrap().score, 1.0);
        assert!(is_accepted(
            &site.verify_from(OWNERS, "printer", "hunter2").await
        ));
        close(1 + round).await;
    }
}

/// The code of the reply.
fn said(verdict: &Verdict) -> u16 {
    match verdict {
        Verdict::Accept(_) => 235,
        Verdict::Throttled(_) => 421,
        Verdict::Reject(_) => 535,
        Verdict::Unavailable(_) => 454,
    }
}

/// Usernames that people chose, one for each reason of a rejection, and an unknown one.
fn chosen_names(site: &Site) -> [&'static str; 8] {
    let names = [
        "cold", "hot", "revoked", "expired", "denied", "closed", "rotated",
    ];
    for name in names {
        site.import(name, "hunter2");
    }
    site.set_status("revoked", CredentialStatus::Revoked);
    let edit = CredentialEdit {
        expires_at: Some(Some(1)),
        ..CredentialEdit::default()
    };
    let actor = tester();
    let editor = site.store.by(&actor);
    editor.edit_credential("expired".into(), edit).unwrap();
    site.revoke_unwritten("denied");
    let target = crate::auth::guard::Target::of(&site.store.lookup("closed").unwrap().unwrap());
    for _ in 0..100 {
        site.authenticator.guard().guessed(target);
    }
    site.rotate("rotated", None);
    [
        "cold", "hot", "revoked", "expired", "denied", "closed", "rotated", "nobody",
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_clients_without_permits_get_the_same_reply_for_every_username_and_no_sooner() {
    const DELAY: Duration = Duration::from_millis(10);
    let site = Site::guarded_with(DELAY);
    let names = chosen_names(&site);
    assert!(is_accepted(
        &site.verify_from(OWNERS, "hot", "hunter2").await
    ));
    for (network, name) in (1..).zip(names) {
        // A client with an earlier login is not banned.
        let from = [10, network, 0, 1];
        site.trust(from, 999);
        let tries: Vec<_> = (0..14)
            .map(|number| {
                let authenticator = site.authenticator.clone();
                let claim = claim(name, format!("guess {number}"));
                let peer = Peer {
                    address: from.into(),
                    ..peer()
                };
                tokio::spawn(async move {
                    let asked = tokio::time::Instant::now();
                    let verdict = authenticator.verify(claim, &peer).await;
                    assert!(asked.elapsed() >= DELAY * 8 / 10, "{verdict:?}");
                    said(&verdict)
                })
            })
            .collect();
        let mut heard = Vec::new();
        for one in tries {
            heard.push(one.await.unwrap());
        }
        heard.sort_unstable();
        let mut expected = [454; 14];
        expected[4..].fill(535);
        assert_eq!(heard, expected, "{name}");
    }
}

#[tokio::test]
async fn an_unknown_client_without_permits_is_banned_in_the_end() {
    let mut site = Site::guarded();
    site.set_permit_timeout(Duration::ZERO);
    let names = chosen_names(&site);
    // A hash that takes an hour.
    site.authenticator
        .guard()
        .record_hash_time(Duration::from_secs(3600));
    site.verify_from([10, 99, 0, 1], "nobody", "hunter2").await;
    for (network, name) in (1..).zip(names) {
        let mut heard = Vec::new();
        // Few enough that an office may come again and again, each client with the right password.
        for number in 0..50 {
            let verdict = site.verify_from([10, network, 0, 1], name, format!("guess {number}"));
            heard.push(said(&verdict.await));
        }
        assert_eq!(heard, [[454; 49].as_slice(), &[421]].concat(), "{name}");
    }
    // Counts for any password, and nothing at a client with an earlier login.
    site.trust([10, 98, 0, 1], 999);
    for number in 0..20 {
        for (network, password) in [(97, "hunter2".to_owned()), (98, format!("guess {number}"))] {
            let verdict = site
                .verify_from([10, network, 0, 1], "nobody", password)
                .await;
            assert_eq!(said(&verdict), 454);
        }
    }
    let charges = site.authenticator.guard().list();
    let score = |network| {
        let own = Prefix::client([10, network, 0, 1].into());
        let own = charges.iter().find(|charge| charge.network == own);
        own.map(|charge| charge.score)
    };
    assert_eq!((score(97), score(98)), (Some(4.0), None));
}

#[tokio::test]
async fn a_guess_counts_even_if_the_client_does_not_wait() {
    let mut site = Site::guarded();
    let cost = Cost {
        memory_kib: 19_456,
        iterations: 1,
        lanes: 1,
    };
    site.import_at(cost, "printer", "hunter2");
    site.set_permit_timeout(Duration::ZERO);
    let mut unheard = 0;
    for number in 0..100_u8 {
        // Until the guess is hashed: the permit before may not be free yet.
        for round in (0..250_u8).cycle() {
            let guess = format!("guess {number}");
            let verdict = site.verify_from([10, round, number, 1], "printer", guess);
            unheard += usize::from(said(&verdict.await) == 454);
            if site.metrics.argon2.get() > number.into() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while site.metrics.argon2_in_flight.get() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(unheard > 10, "{unheard}");
    site.set_permit_timeout(Duration::from_secs(5));
    let stranger = site.verify_from([11, 1, 0, 1], "printer", "hunter2").await;
    assert_eq!(stranger, Verdict::Reject(Reason::WrongPassword));
}

#[tokio::test]
async fn a_right_password_is_trusted_though_its_hash_took_too_long() {
    let mut site = Site::guarded();
    let settings = Settings {
        enabled: true,
        threads: 9, // so that nobody waits for the turn before
        queue: 100,
        ..Settings::off()
    };
    let guard = Arc::new(Guard::new(settings, site.metrics.clone()));
    let authenticator = Arc::get_mut(&mut site.authenticator).unwrap();
    (authenticator.guard, authenticator.permit_timeout) = (guard.clone(), Duration::ZERO);
    for name in ["printer", "fenced"] {
        site.import_at(SLOW, name, "hunter2");
    }
    let rules = crate::policy::RulesChange {
        networks: Some(Some(vec!["10.0.1.0/24".parse().unwrap()])),
        ..Default::default()
    };
    let edit = CredentialEdit {
        rules: Some(&rules),
        ..CredentialEdit::default()
    };
    let actor = tester();
    let editor = site.store.by(&actor);
    editor.edit_credential("fenced".into(), edit).unwrap();
    for (hashed, (from, name, password, is_trusted)) in (1..).zip([
        ([10, 0, 0, 1], "printer", "hunter3", false),
        ([10, 0, 0, 2], "printer", "hunter2", true),
        ([10, 0, 2, 3], "fenced", "hunter2", false),
        ([10, 0, 1, 4], "fenced", "hunter2", true),
    ]) {
        // Drops the cache entry, if any.
        site.set_status(name, CredentialStatus::Revoked);
        site.set_status(name, CredentialStatus::Active);
        let verdict = site.verify_from(from, name, password).await;
        assert_eq!(verdict, Verdict::Unavailable(Outage::Busy), "{from:?}");
        let is_over = || match is_trusted {
            true => guard.attempt(from.into()).trusts(site.key(name)),
            false => {
                site.metrics.argon2.get() == hashed && site.metrics.argon2_in_flight.get() == 0
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while !is_over() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(waited.await.is_ok(), "{from:?}");
        let trusts = guard.attempt(from.into()).trusts(site.key(name));
        assert_eq!(trusts, is_trusted, "{from:?}");
    }
}

#[tokio::test]
async fn an_unusable_hash_looks_like_an_unknown_username_to_unknown_clients() {
    let site = Site::guarded();
    let new = NewCredential {
        username: "printer",
        password_hash: "nonsense",
        tag: None,
        organization: "default",
        name: None,
        expires_at: None,
        limits: None,
        rules: None,
    };
    site.store.by(&tester()).create_credential(new).unwrap();
    for (network, name) in [(1, "printer"), (2, "nobody")] {
        for _ in 0..2 {
            let verdict = site.verify_from([10, network, 0, 1], name, "hunter2").await;
            assert_eq!(said(&verdict), 535, "{name}");
        }
    }
    // A password that was not compared is not remembered as wrong.
    assert_eq!(site.metrics.argon2.get(), 2);
    site.trust(OWNERS, site.key("printer"));
    let owner = site.verify_from(OWNERS, "printer", "hunter2").await;
    assert_eq!(owner, Verdict::Unavailable(Outage::Hash));
}

#[tokio::test]
async fn a_hash_that_takes_too_long_answers_the_next_try() {
    let mut site = Site::guarded();
    site.import_at(SLOW, "printer", "hunter2");
    site.set_permit_timeout(Duration::from_millis(5));
    for (network, name, password, verdict) in [
        (1, "printer", "hunter2", 235),
        (2, "printer", "hunter3", 535),
        (3, "nobody", "hunter2", 535),
    ] {
        let from = [10, 0, network, 1];
        // Drops the cache entry, and keeps the hash slow.
        site.set_status("printer", CredentialStatus::Revoked);
        site.set_status("printer", CredentialStatus::Active);
        let first = site.verify_from(from, name, password).await;
        assert_eq!(first, Verdict::Unavailable(Outage::Busy), "{name}");
        let mut heard = 454;
        // From one address after another, because each has ten tries only.
        for number in 1..=250 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            let from = [10, number, network, 1];
            heard = said(&site.verify_from(from, name, password).await);
            if heard != 454 {
                break;
            }
        }
        assert_eq!(heard, verdict, "{name}, {password}");
    }
    assert_eq!(site.metrics.argon2.get(), 2, "each once");
}
