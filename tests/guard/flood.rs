//! Thousands of guesses at one name, while its owner goes on logging in.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::{Client, Reply};
use crate::support::site::{Credential, Site};

use super::{Guarded, guess, import, log_in};

const TRIES: usize = 10_000;
const ATTACKERS: usize = 32;

/// So many guesses are answered on one connection, until its address is banned.
const ON_ONE: usize = 10;

const OWNERS: &str = "127.0.1.7";

/// Refusals come quickly, and only a ban ends a session of guesses.
fn besieged() -> Guarded {
    Guarded::start_with(|config| {
        config
            .text("auth", "refusal_delay", "2ms")
            .number("limits", "auth_failures", 100)
            .number("limits", "errors", 100)
    })
}

#[test]
fn ten_thousand_guesses_do_not_lock_the_owner_out() {
    let guarded = besieged();
    let owner = guarded.daemon.create();
    besiege(&guarded.daemon, &owner);
    // No guess is hashed, so these are the owner's.
    let hashed = guarded.counted("gatepost_auth_path_total{path=\"argon2\"}");
    assert!(hashed > 2.0, "{hashed} hashes");
    assert_eq!(guarded.against("127.0.1.7/32"), None);
    assert_eq!(guarded.against("127.0.1.0/24").unwrap()["state"], "banned");
    // From somewhere new, the owner is nobody's prisoner either.
    let new = log_in(&guarded.daemon, "127.0.77.7", &owner);
    new.unwrap().expect("235");
}

#[test]
fn ten_thousand_guesses_at_an_imported_name_do_not_lock_the_owner_out() {
    let guarded = besieged();
    let owner = import(&guarded.daemon, "printer@example.test", "hunter2");
    besiege(&guarded.daemon, &owner);
    assert_eq!(guarded.against("127.0.1.7/32"), None);
    assert_eq!(guarded.against("127.0.1.0/24").unwrap()["state"], "banned");
}

/// Guesses at the owner's password until there were [`TRIES`], from hundreds of networks, the owner's among them, while the
/// owner logs in again and again.
fn besiege(site: &Site, owner: &Credential) {
    log_in(site, OWNERS, owner).unwrap().expect("235");
    let (tries, connections) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..ATTACKERS {
            scope.spawn(|| {
                while tries.load(Ordering::Relaxed) < TRIES {
                    let number = connections.fetch_add(1, Ordering::Relaxed);
                    tries.fetch_add(attack(site, owner, number), Ordering::Relaxed);
                }
            });
        }
        let mut logins = 0;
        while tries.load(Ordering::Relaxed) < TRIES {
            let reply = log_in(site, OWNERS, owner).expect("the owner is let in");
            reply.expect("235");
            logins += 1;
            // Not by what is remembered: the hash has to be computed again.
            if logins % 3 == 0 {
                let bump = "UPDATE credentials SET version = version + 1 WHERE username = ?";
                site.sql(bump, &owner.username);
            }
            thread::sleep(Duration::from_millis(100));
        }
        assert!(logins > 5, "only {logins} logins");
    });
}

/// Guesses on one connection for as long as they are answered; how many.
fn attack(site: &Site, owner: &Credential, number: usize) -> usize {
    let from = match number % 20 {
        0 => format!("127.0.1.{}", 10 + number / 20 % 200),
        _ => format!("127.{}.{}.9", 2 + number / 250, number % 250),
    };
    let from = from.parse().expect("an address");
    let client = Client::dial_from(from, site.submissions).expect("connect");
    // A network that is barred is let in, and an address that is banned is none of these.
    let mut client = client.over_tls();
    client.reply().expect("220");
    client.expect("EHLO client.example", "250");
    for tried in 1..=ON_ONE {
        let reply = client.auth_plain(&guess(owner, number * ON_ONE + tried));
        if is_last(&reply) {
            return tried;
        }
    }
    ON_ONE
}

/// Whether the connection is closed behind this refusal.
fn is_last(reply: &Reply) -> bool {
    let refused = ["535 5.7.8", "454 4.7.0"];
    if refused.iter().any(|start| reply.starts_with(start)) {
        return false;
    }
    assert!(reply.starts_with("421 4.7.0"), "{reply:?}");
    true
}
