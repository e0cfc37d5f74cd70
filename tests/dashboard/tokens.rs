//! Tokens, by hand.

use super::{Dashboard, with_and_without_scripts};
use crate::support::browser::Scripts;

with_and_without_scripts!(a_token_is_shown_once_and_takes_its_sessions_with_it);

fn a_token_is_shown_once_and_takes_its_sessions_with_it(scripts: Scripts) {
    let dashboard = Dashboard::start();
    dashboard
        .daemon
        .succeed(&["organization", "create", "acme"]);
    let visit = dashboard.visit_signed_in(scripts);
    visit.open("/tokens");
    let offered: Vec<_> = visit.texts("#scope option");
    assert_eq!(offered.len(), 7, "{offered:?}");
    assert_eq!(offered[0], "Choose", "nothing is chosen by itself");
    visit.fill("#new-token [name=name]", "Deploy");
    visit.choose("#scope", "org:acme:admin");
    let secret = visit.submit_for_token("#new-token button");
    let mut holder = dashboard.plain_signed_in(&secret);
    holder.get("/organizations/acme/credentials").expect(200);

    let tokens = || dashboard.number("SELECT count(*) FROM admin_tokens");
    let before = tokens();
    visit.reload();
    assert!(!visit.source().contains(&secret));
    visit.examine();
    assert_eq!(tokens(), before);
    visit.open("/tokens");
    let table = visit.text("#tokens");
    assert!(
        table.contains("Deploy") && table.contains("org:acme:admin"),
        "{table}"
    );

    let id = dashboard.daemon.json(&["token", "list"]);
    let id = id
        .as_array()
        .unwrap()
        .iter()
        .find(|token| token["name"] == "Deploy")
        .unwrap()["id"]
        .clone();
    visit.submit(&format!(
        "a[href='/tokens/{}/revoke']",
        id.as_str().unwrap()
    ));
    assert!(!visit.has("#own"));
    visit.submit("#revoke");
    visit.told();
    assert_eq!(visit.path(), "/tokens");
    let away = holder.get("/organizations/acme/credentials").location();
    assert!(away.starts_with("/sign-in"), "{away}");
    let mut again = dashboard.plain();
    again
        .submit("/sign-in", "/sign-in", &[("token", &secret)])
        .expect(401);
}

#[test]
fn whoever_revokes_their_own_token_is_told_so_and_signed_out() {
    let dashboard = Dashboard::start();
    let mut own = dashboard.plain_signed_in(&dashboard.token);
    let id = dashboard.daemon.json(&["token", "list"])[0]["id"].clone();
    let page = format!("/tokens/{}/revoke", id.as_str().unwrap());
    assert!(own.get(&page).expect(200).body.contains("id=\"own\""));
    let away = own.submit(&page, &page, &[]);
    assert_eq!(away.location(), "/sign-in?left=revoked");
    assert!(own.get("/").location().starts_with("/sign-in"));
}

#[test]
fn revoking_ones_own_token_signs_out() {
    let dashboard = Dashboard::start();
    let mut own = dashboard.plain_signed_in(&dashboard.token);
    own.get("/").expect(200);
    dashboard
        .daemon
        .succeed(&["token", "revoke", "instance:admin"]);
    assert!(own.get("/").location().starts_with("/sign-in"));
    let change = own.post("/organizations", &[("slug", "late")]);
    change.expect(401);
    assert_eq!(
        dashboard.number("SELECT count(*) FROM organizations"),
        Some(1)
    );
}
