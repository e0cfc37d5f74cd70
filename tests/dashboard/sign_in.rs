//! Coming in and going out.

use super::{Dashboard, LIST, with_and_without_scripts};
use crate::support::browser::Scripts;
use crate::support::site::Config;

use super::visit::Visit;

with_and_without_scripts!(
    a_token_opens_the_dashboard_and_signing_out_closes_it,
    a_wrong_token_is_told_beside_the_field_and_held_off
);

fn a_token_opens_the_dashboard_and_signing_out_closes_it(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit(scripts);
    visit.open("/tokens");
    assert_eq!(visit.path(), "/sign-in?next=%2Ftokens");
    visit.fill("#token", &dashboard.token);
    visit.submit("#sign-in");
    assert_eq!(visit.path(), "/tokens");
    visit.open(LIST);
    visit.submit("#sign-out button");
    assert!(visit.path().starts_with("/sign-in"), "{}", visit.path());
    assert!(visit.text("#notice").contains("signed out"));
    visit.back();
    assert!(
        !visit.has("#sign-out"),
        "the way back shows what was closed"
    );
    for path in [
        "/",
        LIST,
        "/sessions",
        "/audit",
        "/tokens",
        "/organizations",
    ] {
        visit.open(path);
        assert!(visit.path().starts_with("/sign-in"), "{}", visit.path());
    }
}

fn a_wrong_token_is_told_beside_the_field_and_held_off(scripts: Scripts) {
    let dashboard = Dashboard::start();
    let visit = dashboard.visit(scripts);
    let wrong = dashboard.token.replace("gp_", "gp_x");
    visit.open("/sign-in");
    for _ in 0..11 {
        visit.fill("#token", &wrong);
        visit.submit("#sign-in");
        visit.wrong("token");
        assert_eq!(visit.value("#token"), "");
        assert!(!visit.source().contains(&wrong));
    }
    visit.fill("#token", &dashboard.token);
    visit.submit("#sign-in");
    assert!(visit.has("#sign-out"), "a right token is not held off");
}

#[test]
fn under_tls_the_cookie_is_for_this_host_and_never_in_the_clear() {
    let tls = |config: Config| config.flag("admin", "tls", true);
    let dashboard = Dashboard::start_with(tls);
    let visit = Visit::over("https", &dashboard, Scripts::Run);
    visit.sign_in(&dashboard.token);
    let name = format!("__Host-gatepost-{}", dashboard.address.port());
    let cookies = visit.cookies();
    let session = cookies.iter().find(|cookie| cookie["name"] == *name);
    let session = session.unwrap_or_else(|| panic!("no session: {cookies:?}"));
    assert_eq!(session["secure"], true);
    assert_eq!(session["httpOnly"], true);
    assert_eq!(session["sameSite"], "Strict");
    assert_eq!(session["path"], "/");
    visit.open(LIST);
    visit.submit("#sign-out button");
    assert!(visit.cookies().iter().all(|cookie| cookie["name"] != *name));
}
