//! The promises of the guard, by whole logins against a real store.

use super::*;
use crate::clock::driven::Driven;
use crate::store::{Actor, CredentialEdit, CredentialStatus, NewCredential, Noted, Usage};

const OWNER: i64 = 1;
const ANOTHER: i64 = 2;

fn settings() -> Settings {
    Settings {
        enabled: true,
        exempt: vec!["192.0.2.99".parse().unwrap()],
        connections: ConnectionLimits {
            total: 100,
            per_client: 16,
            per_network: 64,
        },
        handshakes: 8,
        threads: 2,
        queue: 10,
    }
}

fn guard() -> Guard {
    Guard::new(settings(), Arc::new(Metrics::new().unwrap()))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn in_network(network: u8, host: u8) -> IpAddr {
    IpAddr::from([198, 51, network, host])
}

fn fail(guard: &Guard, from: IpAddr, credential: Option<i64>, mark: u32) -> Outcome {
    let attempt = guard.attempt(from);
    guard.refused(&attempt, Reason::WrongPassword, credential, mark)
}

fn succeed(guard: &Guard, from: IpAddr, credential: i64) {
    guard.accepted(&guard.attempt(from), credential);
}

#[test]
fn a_client_that_guesses_is_slowed_and_banned() {
    let guard = guard();
    let from = address("203.0.113.7");
    let slowness: Vec<_> = (1..=9)
        .map(|mark| {
            let follows = fail(&guard, from, Some(OWNER), mark);
            assert!(!follows.barred && guard.admit(from).is_ok());
            follows.slowness
        })
        .collect();
    assert_eq!(slowness, [1, 1, 1, 1, 2, 4, 8, 15, 15]);
    assert!(fail(&guard, from, None, 10).barred);
    assert_eq!(guard.admit(from).err(), Some(Shed::Banned));
    let attempt = guard.attempt(from);
    assert!(attempt.is_barred_for_all() && attempt.is_barred_for(Some(OWNER)));
    let neighbour = address("203.0.113.8");
    assert!(guard.admit(neighbour).is_ok() && !guard.attempt(neighbour).is_barred());
    let mapped = address("::ffff:203.0.113.7");
    assert_eq!(guard.admit(mapped).err(), Some(Shed::Banned));
}

#[test]
fn unknown_names_count_as_wrong_passwords_do() {
    let guard = guard();
    let [known, unknown] = ["203.0.113.7", "198.51.100.7"].map(address);
    for mark in 1..=10 {
        let attempt = guard.attempt(unknown);
        let other = guard.refused(&attempt, Reason::Unknown, None, mark);
        assert_eq!(other, fail(&guard, known, Some(OWNER), mark));
    }
}

#[test]
fn ipv6_is_counted_by_the_subscriber() {
    let guard = guard();
    for mark in 0..10 {
        fail(
            &guard,
            address(&format!("2001:db8:1:2::{mark}")),
            None,
            mark,
        );
    }
    assert!(guard.admit(address("2001:db8:1:2:ffff::1")).is_err());
    assert!(guard.admit(address("2001:db8:1:3::1")).is_ok());
}

#[test]
fn a_guessing_network_is_slowed_and_barred_except_for_known_clients() {
    let guard = guard();
    let owners = in_network(100, 200);
    succeed(&guard, owners, OWNER);
    for host in 1..=30 {
        let follows = fail(&guard, in_network(100, host), None, 1000 + u32::from(host));
        let expected = if host < 15 { 1 } else { 3 };
        assert_eq!(follows.slowness, expected, "{host}");
    }
    let client = guard.attempt(in_network(100, 201));
    assert!(client.is_barred_for_all() && client.is_barred_for(Some(OWNER)));
    assert!(guard.admit(in_network(100, 201)).is_ok(), "connections are");
    let owner = guard.attempt(owners);
    assert!(!owner.is_barred_for_all() && !owner.is_barred_for(Some(OWNER)));
    assert!(owner.is_barred_for(Some(ANOTHER)) && owner.is_barred_for(None));
    assert!(!guard.attempt(in_network(101, 1)).is_barred());
}

#[test]
fn a_client_with_a_login_is_not_banned() {
    let guard = guard();
    let from = address("203.0.113.7");
    succeed(&guard, from, OWNER);
    for mark in 0..500 {
        let follows = fail(&guard, from, Some(ANOTHER), mark);
        assert!(!follows.barred && follows.slowness <= 17);
    }
    let place = guard.admit(from);
    assert!(place.is_ok());
    // The owner may fail ten times as often.
    let own = fail(&guard, from, Some(OWNER), 9_999);
    assert_eq!((own.slowness, own.barred), (15, false));
    let fresh = address("203.0.114.7");
    succeed(&guard, fresh, OWNER);
    let slowness: Vec<_> = (0..60)
        .map(|mark| fail(&guard, fresh, Some(OWNER), mark).slowness)
        .collect();
    assert_eq!((slowness[48], slowness[49], slowness[59]), (1, 2, 4));
}

#[test]
fn a_login_ends_the_ban_of_a_client() {
    let guard = guard();
    let from = address("203.0.113.7");
    for mark in 0..10 {
        fail(&guard, from, None, mark);
    }
    assert!(guard.admit(from).is_err());
    // By an open session with a cached password.
    succeed(&guard, from, OWNER);
    assert!(guard.admit(from).is_ok() && !guard.attempt(from).is_barred());
    let banned = guard.metrics.guard_banned.of(Scope::Address);
    assert_eq!(banned.get(), 1);
    guard.update_gauges(steady_ms());
    assert_eq!(banned.get(), 0);
}

#[test]
fn a_forgotten_device_causes_no_ban() {
    let guard = guard();
    let from = address("203.0.113.7");
    for _ in 0..1000 {
        assert_eq!(fail(&guard, from, Some(OWNER), 7), Outcome::default());
    }
    for mark in 0..100 {
        let mut attempt = guard.attempt(from);
        attempt.mark_benign(true);
        let follows = guard.refused(&attempt, Reason::Revoked, Some(OWNER), mark);
        assert_eq!(follows, Outcome::default());
    }
    let [penalty_view] = &guard.list()[..1] else {
        panic!("one client")
    };
    assert!(penalty_view.score <= 1.0, "{penalty_view:?}");
}

#[test]
fn nonsense_bans_after_fifty() {
    let guard = guard();
    let from = address("203.0.113.7");
    for _ in 0..49 {
        guard.protocol_noise(from);
    }
    assert!(guard.admit(from).is_ok());
    guard.protocol_noise(from);
    assert_eq!(guard.admit(from).err(), Some(Shed::Banned));
}

#[test]
fn clients_whose_address_is_unknown_are_slowed_down_together_and_never_banned() {
    let exempt = ["0.0.0.0/8", "::"].map(|network| network.parse().unwrap());
    let settings = Settings {
        exempt: exempt.to_vec(),
        ..settings()
    };
    let guard = Guard::new(settings, Arc::new(Metrics::new().unwrap()));
    for from in ["0.0.0.0", "::ffff:0.0.0.0", "::"].map(address) {
        let mut slowest = 0;
        for mark in 0..100 {
            let follows = fail(&guard, from, None, mark);
            assert!(!follows.barred, "{from}");
            slowest = follows.slowness;
        }
        assert!(slowest > 15, "{from}: {slowest}");
        let attempt = guard.attempt(from);
        guard.accepted(&attempt, 7);
        assert!(!guard.attempt(from).trusts(7) && !guard.attempt(from).is_barred());
    }
    let follows = fail(&guard, address("198.51.100.1"), None, 1);
    assert_eq!(follows, Outcome::default());
}

#[test]
fn the_exempt_are_never_counted() {
    let guard = guard();
    let from = address("192.0.2.99");
    for mark in 0..100 {
        let follows = fail(&guard, from, None, mark);
        assert_eq!(follows, Outcome::default());
        guard.protocol_noise(from);
    }
    let places: Vec<_> = (0..200).map(|_| guard.admit(from)).collect();
    assert!(places.iter().all(|place| matches!(place, Ok(None))));
    assert_eq!(guard.list(), []);
    let off = Settings {
        enabled: false,
        ..settings()
    };
    let off = Guard::new(off, Arc::new(Metrics::new().unwrap()));
    for mark in 0..100 {
        assert_eq!(
            fail(&off, address("203.0.113.7"), None, mark),
            Outcome::default()
        );
    }
}

#[test]
fn connections_are_shed_by_place_and_in_all() {
    let guard = guard();
    let from = |host| in_network(100, host);
    let client: Vec<_> = (0..16).map(|_| guard.admit(from(1)).unwrap()).collect();
    assert_eq!(guard.admit(from(1)).err(), Some(Shed::PerAddress));
    let network: Vec<_> = (2..50)
        .map(|host| guard.admit(from(host)).unwrap())
        .collect();
    assert_eq!(guard.admit(from(60)).err(), Some(Shed::PerNetwork));
    let rest: Vec<_> = (0..11)
        .map(|number| guard.admit(in_network(number, 1)).unwrap())
        .collect();
    assert_eq!(
        guard.admit(in_network(99, 1)).err(),
        Some(Shed::Unauthenticated)
    );
    succeed(&guard, from(60), OWNER);
    assert!(guard.admit(from(60)).is_ok());
    drop((client, network, rest));
    assert!(guard.admit(in_network(99, 1)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn handshakes_are_bounded_with_a_share_for_known_clients() {
    let guard = guard();
    let [known, client] = ["203.0.113.7", "198.51.100.7"].map(address);
    succeed(&guard, known, OWNER);
    let soon = std::time::Duration::from_secs(1);
    let mut under_way = Vec::new();
    for _ in 0..6 {
        under_way.push(guard.handshake(client).await);
    }
    assert!(
        tokio::time::timeout(soon, guard.handshake(client))
            .await
            .is_err()
    );
    for _ in 0..2 {
        under_way.push(guard.handshake(known).await);
    }
    assert!(
        tokio::time::timeout(soon, guard.handshake(known))
            .await
            .is_err()
    );
    under_way.remove(0);
    under_way.push(guard.handshake(client).await);
}

#[test]
fn a_hundred_thousand_networks_fit_into_bounded_memory() {
    let guard = guard();
    let banned = address("203.0.113.7");
    for mark in 0..10 {
        fail(&guard, banned, None, mark);
    }
    for number in 0..100_000_u32 {
        let from = IpAddr::from((0x0a00_0000 + number * 7).to_be_bytes());
        fail(&guard, from, None, number);
    }
    assert!(guard.clients.len() <= CLIENTS && guard.networks.len() <= NETWORKS);
    assert_eq!(guard.admit(banned).err(), Some(Shed::Banned));
}

/// A store with the credential [`OWNER`].
struct Disk {
    store: Store,
    _directory: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
        let new = NewCredential {
            username: "smtp_a",
            password_hash: "$hash",
            tag: None,
            organization: "default",
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let key = store.by(&tester()).create_credential(new).unwrap().key;
        assert_eq!(key, OWNER);
        Self {
            store,
            _directory: directory,
        }
    }

    fn load(&self) -> Guard {
        self.load_with(settings())
    }

    fn load_with(&self, settings: Settings) -> Guard {
        Guard::load(settings, Arc::new(Metrics::new().unwrap()), &self.store).unwrap()
    }

    fn set_status(&self, status: CredentialStatus) {
        let edit = CredentialEdit {
            status: Some(status),
            ..CredentialEdit::default()
        };
        let actor = tester();
        let editor = self.store.by(&actor);
        editor.edit_credential("smtp_a".into(), edit).unwrap();
    }
}

fn tester() -> crate::store::Actor {
    crate::store::Actor::system("tests")
}

#[test]
fn bans_scores_and_trust_survive_a_restart() {
    let disk = Disk::new();
    let [banned, slowed, owners] = ["203.0.113.7", "198.51.100.7", "192.0.2.7"].map(address);
    let guard = disk.load();
    for mark in 0..10 {
        fail(&guard, banned, None, mark);
    }
    for mark in 0..7 {
        fail(&guard, slowed, None, mark);
    }
    succeed(&guard, owners, OWNER);
    guard.write(&disk.store);
    let restarted = disk.load();
    assert_eq!(restarted.admit(banned).err(), Some(Shed::Banned));
    assert_eq!(fail(&restarted, slowed, None, 99).slowness, 15);
    assert!(restarted.attempt(owners).trusts(OWNER));
    assert!(!restarted.attempt(slowed).trusts(OWNER));
    let networks = |guard: &Guard| -> Vec<_> {
        guard
            .list()
            .into_iter()
            .map(|penalty_view| penalty_view.network)
            .collect()
    };
    assert_eq!(networks(&restarted), networks(&guard));
    let shown = stored(&disk.store).unwrap();
    assert_eq!((shown[0].status(), shown.len()), (Status::Banned, 4));
}

#[test]
fn what_is_cleared_is_cleared_here_and_after_a_restart() {
    let disk = Disk::new();
    let guard = disk.load();
    let [one, other] = ["203.0.113.7", "203.0.113.8"].map(address);
    for mark in 0..10 {
        fail(&guard, one, None, mark);
        fail(&guard, other, None, 100 + mark);
    }
    guard.write(&disk.store);
    let clear = |text: &str| {
        let target = text.parse().unwrap();
        guard.clear(target, &disk.store, &tester()).unwrap()
    };
    assert_eq!(clear("198.51.100.0/24"), 0);
    assert_eq!(clear("203.0.113.7"), 2, "its own and the network's");
    assert!(guard.admit(one).is_ok() && guard.admit(other).is_err());
    assert!(disk.load().admit(one).is_ok() && disk.load().admit(other).is_err());
    assert_eq!(clear("203.0.113.0/24"), 1);
    assert!(guard.admit(other).is_ok() && disk.load().admit(other).is_ok());
    assert_eq!(guard.list(), []);
}

#[test]
fn trust_ends_where_it_is_cleared() {
    let disk = Disk::new();
    let guard = disk.load();
    let [thief, owners, new] = ["203.0.113.7", "203.0.114.7", "203.0.113.8"].map(address);
    succeed(&guard, thief, OWNER);
    succeed(&guard, owners, OWNER);
    guard.write(&disk.store);
    succeed(&guard, new, OWNER);
    let target = "203.0.113.0/24".parse().unwrap();
    guard.clear(target, &disk.store, &tester()).unwrap();
    guard.write(&disk.store);
    for guard in [guard, disk.load()] {
        assert!(guard.attempt(owners).trusts(OWNER));
        for gone in [thief, new] {
            assert!(!guard.attempt(gone).trusts(OWNER));
            let client = Prefix::client(gone);
            assert!(!guard.trust.knows_client(client, steady_ms()), "{gone}");
        }
    }
}

#[test]
fn trust_ends_with_the_credential_that_earned_it() {
    let disk = Disk::new();
    let guard = disk.load();
    let [from, later] = ["203.0.113.7", "203.0.113.8"].map(address);
    let knows = |guard: &Guard, from| {
        let client = Prefix::client(from);
        guard.trust.knows(OWNER, client, steady_ms())
            || guard.trust.knows_client(client, steady_ms())
    };
    succeed(&guard, from, OWNER);
    guard.write(&disk.store);
    assert!(knows(&guard, from) && knows(&disk.load(), from));
    succeed(&guard, later, OWNER);
    disk.set_status(CredentialStatus::Revoked);
    assert!(!knows(&disk.load(), from));
    guard.write(&disk.store);
    disk.set_status(CredentialStatus::Active);
    guard.write(&disk.store);
    for guard in [&guard, &disk.load()] {
        assert!(!knows(guard, from) && !knows(guard, later));
    }
    succeed(&guard, from, OWNER);
    guard.write(&disk.store);
    assert!(knows(&guard, from));
    let deleted = disk.store.by(&tester()).delete_credential("smtp_a".into());
    deleted.unwrap();
    guard.write(&disk.store);
    assert!(!knows(&guard, from));
}

#[test]
fn a_loaded_penalty_does_not_affect_an_exempt_client() {
    let disk = Disk::new();
    let guard = disk.load();
    let banned = address("203.0.113.7");
    for mark in 0..10 {
        fail(&guard, banned, None, mark);
    }
    guard.write(&disk.store);
    assert_eq!(disk.load().list().len(), 2);
    let exempting = |network: &str| Settings {
        exempt: vec![network.parse().unwrap()],
        ..settings()
    };
    let off = Settings {
        enabled: false,
        ..settings()
    };
    for (settings, left) in [
        (off, 0),
        (exempting("203.0.112.0/23"), 0),
        // The neighbours still count together.
        (exempting("203.0.113.7/32"), 1),
        (exempting("203.0.113.0/25"), 1),
    ] {
        let guard = disk.load_with(settings);
        assert_eq!(guard.list().len(), left);
        let shown = guard.penalties_of("203.0.113.7".parse().unwrap());
        assert!(
            shown
                .iter()
                .all(|penalty_view| penalty_view.banned_until.is_none())
        );
        assert_eq!(guard.metrics.guard_banned.of(Scope::Address).get(), 0);
        assert!(guard.admit(banned).is_ok());
    }
    let off = disk.load_with(Settings {
        enabled: false,
        ..settings()
    });
    let target = "203.0.113.7".parse().unwrap();
    assert_eq!(off.clear(target, &disk.store, &tester()).unwrap(), 2);
    assert_eq!(disk.load().list(), []);
}

#[test]
fn what_cannot_be_written_waits_on() {
    let disk = Disk::new();
    let guard = disk.load();
    let from = address("203.0.113.7");
    for mark in 0..10 {
        fail(&guard, from, None, mark);
    }
    succeed(&guard, address("192.0.2.7"), OWNER);
    let (rows, trusted) = guard.changes(steady_ms());
    assert_eq!((rows.len(), trusted.len()), (2, 1));
    let nothing = guard.changes(steady_ms());
    assert!(nothing.0.is_empty() && nothing.1.is_empty());
    guard.put_back(rows, trusted, steady_ms());
    guard.write(&disk.store);
    assert!(disk.load().admit(from).is_err());
    assert!(disk.load().attempt(address("192.0.2.7")).trusts(OWNER));
}

#[test]
fn ten_thousand_bans_survive_a_stop() {
    let disk = Disk::new();
    let guard = disk.load();
    let banned = |number: u32| IpAddr::from((0x0a00_0000 + number * 256).to_be_bytes());
    for number in 0..10_000 {
        for mark in 0..10 {
            fail(&guard, banned(number), None, mark);
        }
    }
    guard.write_all(&disk.store);
    let restarted = disk.load();
    let forgotten = (0..10_000).filter(|number| restarted.admit(banned(*number)).is_ok());
    assert_eq!(forgotten.count(), 0);
    assert!(guard.changes(steady_ms()).0.is_empty());
}

#[test]
fn bans_are_written_before_scores() {
    let guard = guard();
    let from = |number: u32| IpAddr::from((0x0a00_0000 + number * 256).to_be_bytes());
    for number in 0..10_000 {
        fail(&guard, from(number), None, number);
    }
    for number in (0..10_000).step_by(20) {
        for mark in 0..9 {
            fail(&guard, from(number), None, 20_000 + mark);
        }
    }
    let (rows, _) = guard.changes(steady_ms());
    let bans = rows.iter().filter(|row| row.banned_until.is_some());
    assert_eq!((bans.count(), rows.len()), (500, 2 * 4_096));
}

#[test]
fn what_is_wanted_is_found_as_in_the_list() {
    let guard = guard();
    for number in 0..4 {
        for mark in 0..10 {
            fail(&guard, in_network(100 + number / 2, number), None, mark);
        }
    }
    for (text, found) in [
        ("198.51.100.1", 2),
        ("198.51.100.9", 1),
        ("192.0.2.1", 0),
        ("198.51.101.0/24", 3),
        ("198.51.0.0/16", 6),
    ] {
        let target: ClearTarget = text.parse().unwrap();
        let networks = |penalties: Vec<PenaltyView>| {
            penalties
                .into_iter()
                .map(|penalty_view| penalty_view.network)
        };
        let listed = networks(guard.list()).filter(|network| target.includes(*network));
        let among: Vec<_> = networks(guard.penalties_of(target)).collect();
        assert_eq!(among, listed.collect::<Vec<_>>(), "{text}");
        assert_eq!(among.len(), found, "{text}");
    }
}

/// Bans a client.
fn ban(guard: &Guard, address: IpAddr) {
    for mark in 0..10 {
        guard.refused(&guard.attempt(address), Reason::Unknown, None, mark);
    }
    assert!(is_banned(guard, address));
}

fn is_banned(guard: &Guard, address: IpAddr) -> bool {
    guard.attempt(address).is_barred()
}

#[test]
fn a_ban_lasts_as_long_whatever_the_wall_clock_does() {
    const BAN: i64 = 15 * 60_000;
    const DAY: i64 = 24 * 3_600_000;
    let address = IpAddr::from([192, 0, 2, 1]);
    // The clock's step after the ban, over a restart if any, and the step after the restart.
    for (step, restarts, back) in [
        (2 * DAY, false, true),
        (-2 * DAY, false, true),
        (40 * DAY, true, false),
        (-40 * DAY, true, false),
        (2 * DAY, true, true),
        (-2 * DAY, true, true),
    ] {
        let clocks = Driven::at(1_800_000_000_000);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gatepost.db");
        let store = Store::open(&path).unwrap();
        // Keeps the relation of the clocks.
        let actor = Actor::system("tests");
        let new = NewCredential {
            username: "smtp_a",
            password_hash: "$hash",
            tag: None,
            organization: "default",
            name: None,
            expires_at: None,
            limits: None,
            rules: None,
        };
        let key = store.by(&actor).create_credential(new).unwrap().key;
        let mut guard = guard();
        ban(&guard, address);
        clocks.pass(1_000);
        let usage = Usage::default();
        let noted = Noted {
            usage: vec![((key, clocks.wall() / 3_600_000), usage)],
            ..Noted::default()
        };
        store.flush(&noted).unwrap();
        guard.write(&store);
        clocks.step(step);
        if restarts {
            clocks.restart();
            let store = Store::open(&path).unwrap();
            guard = Guard::load(settings(), Arc::new(Metrics::new().unwrap()), &store).unwrap();
        }
        if back {
            clocks.step(-step);
        }
        let shown = guard.list();
        let until = shown
            .iter()
            .find_map(|penalty_view| penalty_view.banned_until)
            .unwrap();
        assert!((0..=BAN).contains(&(until - clocks.wall())), "{step}");
        clocks.pass(BAN - 2_000);
        assert!(is_banned(&guard, address), "{step} {restarts} {back}");
        clocks.pass(2_000);
        assert!(!is_banned(&guard, address), "{step} {restarts} {back}");
    }
}

#[test]
fn a_ban_from_a_time_that_nothing_explains_lasts_no_longer_than_a_ban() {
    let clocks = Driven::at(1_800_000_000_000);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("gatepost.db")).unwrap();
    store.shell(
        "INSERT INTO penalties (network, score, at, bans, banned_until) VALUES
         ('192.0.2.1/32', 10, 1900000000000, 1, 9000000000000000000),
         ('192.0.2.2/32', 10, 1900000000000, 1, 1900000001000),
         ('192.0.2.3/32', 10, -9223372036854775808, 1, 9000000000000000000),
         ('192.0.2.4/32', 10, 1700000000000, 1, 1700000900000)",
    );
    let metrics = Arc::new(Metrics::new().unwrap());
    let guard = Guard::load(settings(), metrics, &store).unwrap();
    let banned = || -> Vec<_> {
        let hosts = 1..=4;
        hosts
            .filter(|host| is_banned(&guard, IpAddr::from([192, 0, 2, *host])))
            .collect()
    };
    assert_eq!(banned(), [1, 2, 3]);
    clocks.pass(1_000);
    assert_eq!(banned(), [1, 3]);
    clocks.pass(15 * 60_000);
    assert_eq!(banned(), Vec::<u8>::new());
}
