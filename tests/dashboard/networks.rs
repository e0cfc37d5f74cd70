//! Whom failed logins came from, and how to have that forgotten.

use super::{Dashboard, with_and_without_scripts};
use crate::support::browser::Scripts;
use crate::support::client::Client;
use crate::support::site::Credential;

with_and_without_scripts!(a_ban_is_seen_explained_and_ended);

/// One wrong password after the other from 127.0.1.7; whether the connection was let in each time.
fn guess(dashboard: &Dashboard, credential: &Credential) -> bool {
    (0..10).all(|number| {
        let from = "127.0.1.7".parse().unwrap();
        let mut client = Client::dial_from(from, dashboard.daemon.submission).expect("connect");
        let Some(greeting) = client.try_reply() else {
            return false;
        };
        greeting.expect("220");
        let mut client = client.starttls();
        client.expect("EHLO client.example", "250");
        client.auth_plain(&Credential {
            username: credential.username.clone(),
            password: format!("sk_{number:032}"),
        });
        true
    })
}

fn a_ban_is_seen_explained_and_ended(scripts: Scripts) {
    let dashboard = Dashboard::start_with(|config| {
        let quick = config.text("auth", "refusal_delay", "10ms");
        quick.guarded()
    });
    let credential = dashboard.daemon.create();
    let visit = dashboard.visit_signed_in(scripts);
    visit.open("/guard");
    assert!(visit.has("#empty"), "{}", visit.source());
    assert!(guess(&dashboard, &credential) && !guess(&dashboard, &credential));
    visit.open("/guard");
    assert!(visit.text("#total").contains("One network is banned"));
    let row = "tr[data-network='127.0.1.7/32']";
    let text = visit.text(row);
    for word in ["Banned", "10.0", "closed before anything is said"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    visit.examine();
    visit.submit(&format!("{row} button"));
    assert_eq!(
        visit.told(),
        "Nothing is held against 127.0.1.7/32 any more."
    );
    assert!(!visit.has(row) && guess(&dashboard, &credential));

    let organizations = dashboard.token_for("org:default:admin");
    let mut plain = dashboard.plain_signed_in(&organizations);
    plain.get("/guard").expect(403);
    assert!(!plain.get("/").expect(200).body.contains("\"/guard\""));
    let reader = dashboard.token_for("instance:read");
    let mut plain = dashboard.plain_signed_in(&reader);
    assert!(
        !plain
            .get("/guard")
            .expect(200)
            .body
            .contains("/guard/clear")
    );
}
