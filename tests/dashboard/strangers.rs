//! What somebody sends by hand whose token does not allow it.

use super::forged::{actions, csrf, filled};

#[test]
fn no_form_does_more_than_the_token_allows() {
    let (dashboard, credential, mut live) = filled();
    dashboard
        .daemon
        .succeed(&["organization", "create", "other"]);
    let all = actions(&dashboard, &credential);
    for scope in ["org:other:admin", "org:default:read", "instance:read"] {
        let mut plain = dashboard.plain_signed_in(&dashboard.token_for(scope));
        let csrf = csrf(&mut plain);
        let before = dashboard.changes();
        for (path, fields) in all.iter().filter(|(path, _)| path != "/sign-out") {
            let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
            let once = [("csrf", csrf.as_str()), ("once", "0")];
            let fields: Vec<_> = once.into_iter().chain(fields).collect();
            let answer = plain.post(path, &fields);
            let is_refused = matches!(answer.status, 403 | 404 | 422);
            assert!(is_refused, "{scope} at {path}: {}", answer.status);
        }
        for path in ["/sessions", "/audit"] {
            if scope == "org:other:admin" {
                plain
                    .get(&format!("{path}?organization=default"))
                    .expect(403);
            }
        }
        assert_eq!(dashboard.changes(), before, "{scope}");
    }
    dashboard.accepts(&credential);
    live.expect("NOOP", "250");
}

#[test]
fn an_organization_does_not_lift_its_own_suspension() {
    let (dashboard, ..) = filled();
    let mut plain = dashboard.plain_signed_in(&dashboard.token_for("org:acme:admin"));
    let csrf = csrf(&mut plain);
    let before = dashboard.changes();
    for (action, confirm) in [("activate", ""), ("suspend", ""), ("delete", "acme")] {
        let path = format!("/organizations/acme/{action}");
        let fields = [("csrf", csrf.as_str()), ("confirm", confirm)];
        plain.post(&path, &fields).expect(403);
    }
    assert_eq!(dashboard.changes(), before);
    // What is its own to change it may change.
    let renamed = plain.post(
        "/organizations/acme/rename",
        &[("csrf", &csrf), ("name", "Acme")],
    );
    assert_eq!(renamed.location(), "/organizations/acme");
}
