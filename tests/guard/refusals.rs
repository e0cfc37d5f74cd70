//! Whatever the reason, a stranger hears the same and no sooner.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::Reply;
use crate::support::site::{Credential, Site};

use super::{Guarded, greeted, guess, import, log_in};

const DELAY: Duration = Duration::from_millis(300);
/// A refusal may come earlier than that by a fifth.
const SOONEST: Duration = Duration::from_millis(240);

/// Claims that are refused, one for each reason: names of Gatepost's own, and such as people choose.
fn refused(site: &Site) -> Vec<(&'static str, Credential)> {
    let chosen = |name: &str| import(site, name, "hunter2");
    let edit = |credential: Credential, words: &[&str]| {
        let words: Vec<_> = ["credential"].iter().chain(words).copied().collect();
        site.succeed(&words);
        credential
    };
    let unknown = |username: &str| Credential {
        username: username.to_owned(),
        password: "hunter2".to_owned(),
    };
    let (revoked, expired, network) = (site.create(), site.create(), site.create());
    let (names, wrong) = (
        [&revoked, &expired, &network].map(|one| one.username.clone()),
        site.create(),
    );
    site.sql(
        "UPDATE credentials SET expires_at = 1 WHERE username = ?",
        &names[1],
    );
    let warm = site.create();
    let (cold, hot, closed) = (chosen("cold"), chosen("hot"), chosen("closed"));
    for (credential, from) in [(&warm, "127.9.1.1"), (&hot, "127.9.2.1")] {
        log_in(site, from, credential).unwrap().expect("235");
    }
    vec![
        ("unknown", unknown("smtp_0123456789abcdef")),
        ("wrong", guess(&wrong, 1)),
        ("wrong, cached", guess(&warm, 1)),
        ("revoked", edit(revoked, &["revoke", &names[0]])),
        ("expired", expired),
        (
            "network",
            edit(network, &["rules", &names[2], "--networks", "10.0.0.0/8"]),
        ),
        ("unknown, chosen", unknown("nobody@example.test")),
        ("wrong, imported", guess(&cold, 1)),
        ("wrong, imported and cached", guess(&hot, 1)),
        ("revoked, imported", edit(closed, &["revoke", "closed"])),
    ]
}

#[test]
fn every_reason_sounds_the_same_and_none_is_told_sooner() {
    let guarded = Guarded::start_with(|config| {
        let delay = format!("{}ms", DELAY.as_millis());
        config.text("auth", "refusal_delay", &delay)
    });
    let site = guarded.daemon.site();
    let claims = refused(&site);
    let ask = |address: &str, claim: &Credential| -> Reply {
        let mut client = greeted(&site, address).expect("nobody is banned");
        let asked = Instant::now();
        let reply = client.auth_plain(claim);
        assert!(
            asked.elapsed() >= SOONEST,
            "{:?}: {reply:?}",
            asked.elapsed()
        );
        reply
    };
    let expected = ask("127.1.0.1", &claims[0].1);
    let expected = expected.expect("535 5.7.8");
    for (number, (reason, claim)) in (1..).zip(&claims) {
        assert_eq!(
            ask(&format!("127.1.{number}.1"), claim),
            expected,
            "{reason}"
        );
    }
    let heard: Vec<_> = thread::scope(|scope| {
        let asked = (1..).zip(&claims).flat_map(|(number, (reason, claim))| {
            (1..=3).map(move |host| (reason, claim, format!("127.2.{number}.{host}")))
        });
        let asked: Vec<_> = asked
            .map(|(reason, claim, address)| (reason, scope.spawn(move || ask(&address, claim))))
            .collect();
        let heard = asked.into_iter();
        heard
            .map(|(reason, reply)| (reason, reply.join().unwrap()))
            .collect()
    });
    for (reason, reply) in heard {
        assert_eq!(reply, expected, "{reason}");
    }
}

#[test]
fn strangers_beyond_their_turns_hear_the_same_of_a_name_that_nobody_has() {
    let guarded = Guarded::start_with(|config| config.text("auth", "refusal_delay", "50ms"));
    let site = guarded.daemon.site();
    let (known, imported) = (
        site.create(),
        import(&site, "printer@example.test", "hunter2"),
    );
    let nobody = Credential {
        username: "nobody@example.test".to_owned(),
        ..imported.clone()
    };
    let heard = [(1, &imported), (2, &nobody)].map(|(network, name)| {
        let from = format!("127.3.{network}.1");
        // Nobody is banned where somebody logs in.
        log_in(&site, &from, &known).unwrap().expect("235");
        let mut heard: Vec<_> = thread::scope(|scope| {
            let tries: Vec<_> = (0..13)
                .map(|number| {
                    let (site, from) = (&site, &from);
                    scope.spawn(move || {
                        let mut client = greeted(site, from).expect("nobody is banned");
                        let asked = Instant::now();
                        let reply = client.auth_plain(&guess(name, number));
                        assert!(asked.elapsed() >= Duration::from_millis(40), "{reply:?}");
                        reply.lines[0].clone()
                    })
                })
                .collect();
            let heard = tries.into_iter();
            heard.map(|one| one.join().unwrap()).collect()
        });
        heard.sort_unstable();
        heard
    });
    assert_eq!(heard[0], heard[1]);
    let put_off = heard[0].iter().filter(|line| line.starts_with("454 4.7.0"));
    assert_eq!(put_off.count(), 3, "{heard:?}");
    let list: Vec<Value> = guarded.listed();
    assert!(
        list.iter().all(|charge| charge["state"] != "banned"),
        "{list:?}"
    );
}
