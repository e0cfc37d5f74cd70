//! What a token does not let one do, its pages do not offer.

use super::{Dashboard, LIST};
use crate::support::browser::Scripts;
use crate::support::client::Client;
use crate::support::site::Credential;

fn in_acme(dashboard: &Dashboard) -> Credential {
    let create = ["credential", "create", "--org", "acme"];
    let document = dashboard.daemon.json(&create);
    Credential::from_json(document.to_string().as_bytes())
}

#[test]
fn an_organizations_token_sees_that_organization_only() {
    let dashboard = Dashboard::start();
    dashboard
        .daemon
        .succeed(&["organization", "create", "acme"]);
    let (own, other) = (in_acme(&dashboard), dashboard.daemon.create());
    let _live = [&own, &other].map(|credential| Client::logged_in(&dashboard.daemon, credential));
    let visit = dashboard.visit(Scripts::Run);
    visit.sign_in(&dashboard.token_for("org:acme:admin"));
    for path in ["/", "/organizations", "/sessions", "/audit", "/tokens"] {
        visit.open(path);
        let source = visit.source();
        assert!(
            !source.contains(&other.username),
            "{path} shows another's credential"
        );
        assert!(
            !source.contains("/organizations/default"),
            "{path} shows another organization"
        );
        assert!(
            !source.contains("instance:admin"),
            "{path} shows another's token"
        );
    }
    assert_eq!(
        visit.texts("#scope option"),
        ["Choose", "org:acme:admin", "org:acme:read"]
    );
    visit.open("/");
    assert!(!visit.has("#health"));
    visit.open("/sessions");
    assert_eq!(visit.count("#sessions tbody tr"), 1);
    visit.open("/organizations/acme/credentials");
    assert!(visit.has(&format!("tr[data-username={}]", own.username)));
    visit.submit("#new");
    let made = visit.submit_for_credential("#create");
    dashboard.accepts(&made);

    let mut plain = dashboard.plain_signed_in(&dashboard.token_for("org:acme:admin"));
    let page = dashboard.page_of(&other);
    for path in [
        "/organizations/default",
        "/refusals",
        LIST,
        &page,
        &format!("{LIST}/new"),
        &format!("{page}/rotate"),
        &format!("{page}/revoke"),
        &format!("{page}/delete"),
    ] {
        let status = plain.get(path).status;
        assert!([403, 404].contains(&status), "{path}: {status}");
    }
    // Not even under the name of its own organization.
    let crossed = format!("/organizations/acme/credentials/{}", other.username);
    plain.get(&crossed).expect(404);
    let hidden = plain.get("/organizations/acme/credentials/new").expect(200);
    let hidden = hidden.hidden("/organizations/acme/credentials/new");
    let csrf = hidden
        .iter()
        .find(|(name, _)| name == "csrf")
        .unwrap()
        .1
        .clone();
    let before = dashboard.changes();
    for path in [
        format!("{LIST}/new"),
        format!("{page}/revoke"),
        format!("{page}/rotate"),
        format!("{crossed}/revoke"),
        format!("{crossed}/rotate"),
        format!("{page}/rename"),
        "/organizations".to_owned(),
        "/organizations/default/suspend".to_owned(),
        "/organizations/default/rename".to_owned(),
    ] {
        let answer = plain.post(
            &path,
            &[
                ("csrf", &csrf),
                ("name", "taken"),
                ("slug", "taken"),
                ("overlap", "0"),
            ],
        );
        assert!(
            [403, 404].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
    }
    assert_eq!(dashboard.changes(), before);
    dashboard.accepts(&other);
}

#[test]
fn a_token_that_may_only_read_sees_no_form_that_changes() {
    let dashboard = Dashboard::start();
    dashboard
        .daemon
        .succeed(&["organization", "create", "acme"]);
    let own = in_acme(&dashboard);
    let _live = Client::logged_in(&dashboard.daemon, &own);
    for scope in ["instance:read", "org:acme:read"] {
        let visit = dashboard.visit(Scripts::Run);
        visit.sign_in(&dashboard.token_for(scope));
        let page = format!("/organizations/acme/credentials/{}", own.username);
        for path in [
            "/",
            "/organizations",
            "/organizations/acme",
            "/organizations/acme/credentials",
            &page,
            "/sessions",
            "/audit",
            "/tokens",
        ] {
            visit.open(path);
            let posts = visit.count("form[method=post]:not(#sign-out)");
            assert_eq!(posts, 0, "{scope} on {path}: {}", visit.source());
        }
        for path in ["/organizations/acme/credentials", &page] {
            visit.open(path);
            for link in ["#new", "#to-rotate", "#to-revoke", "#to-delete"] {
                assert!(!visit.has(link), "{link} on {path}");
            }
        }
        let csrf = visit.attribute("#sign-out [name=csrf]", "value");
        let session = visit.cookies();
        let mut plain = dashboard.plain();
        for cookie in session {
            let text = |key: &str| cookie[key].as_str().unwrap().to_owned();
            plain.cookies.insert(text("name"), text("value"));
        }
        let before = dashboard.changes();
        for path in [
            "/organizations/acme/credentials/new",
            &format!("{page}/revoke"),
            &format!("{page}/rotate"),
            &format!("{page}/rename"),
            &format!("{page}/delete"),
            "/organizations",
            "/organizations/acme/suspend",
            "/tokens",
        ] {
            let last = &own.username[own.username.len() - 4..];
            let fields = [
                ("csrf", csrf.as_str()),
                ("name", "changed"),
                ("slug", "changed"),
                ("overlap", "0"),
                ("confirm", last),
                ("scope", "org:acme:read"),
            ];
            plain.post(path, &fields).expect(403);
        }
        assert_eq!(dashboard.changes(), before);
        dashboard.accepts(&own);
    }
}
