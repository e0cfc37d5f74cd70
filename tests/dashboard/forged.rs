//! What another site would send with the browser of somebody who is signed in.

use super::http::pages_of;
use super::plain::Plain;
use super::{Dashboard, LIST};
use crate::support::client::Client;
use crate::support::site::Credential;

/// Every path that changes something when it is posted to, with fields that would do it.
pub fn actions(
    dashboard: &Dashboard,
    credential: &Credential,
) -> Vec<(String, Vec<(&'static str, String)>)> {
    let page = dashboard.page_of(credential);
    let last = credential.username[credential.username.len() - 4..].to_owned();
    let token = dashboard.daemon.json(&["token", "list"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut looking = dashboard.plain_signed_in(&dashboard.token);
    let sessions = looking.get("/sessions").expect(200).actions();
    let disconnect = sessions.into_iter().find(|to| to.ends_with("/disconnect"));
    let disconnect = disconnect.expect("a live session");
    let one = |name, value: &str| vec![(name, value.to_owned())];
    vec![
        ("/sign-out".to_owned(), vec![]),
        ("/organizations".to_owned(), one("slug", "taken")),
        (
            "/organizations/default/rename".to_owned(),
            one("name", "Taken"),
        ),
        (
            "/organizations/default/limits".to_owned(),
            one("limit_sessions", "1"),
        ),
        ("/organizations/default/suspend".to_owned(), vec![]),
        ("/organizations/acme/activate".to_owned(), vec![]),
        (
            "/organizations/acme/delete".to_owned(),
            one("confirm", "acme"),
        ),
        (format!("{LIST}/new"), one("name", "Taken")),
        (
            "/organizations/default/import".to_owned(),
            vec![
                ("action", "import".to_owned()),
                ("text", "taken:{PLAIN}hunter2".to_owned()),
            ],
        ),
        (format!("{page}/rename"), one("name", "Taken")),
        (
            format!("{page}/expiry"),
            one("expires_at", "2031-01-01T00:00"),
        ),
        (format!("{page}/limits"), one("limit_sessions", "1")),
        (format!("{page}/rules"), one("senders", "example.org")),
        (format!("{page}/rotate"), one("overlap", "0")),
        (format!("{page}/revoke"), vec![]),
        (format!("{page}/enable"), vec![]),
        (format!("{page}/end-overlap"), vec![]),
        (format!("{page}/delete"), one("confirm", &last)),
        (disconnect, vec![]),
        (
            "/tokens".to_owned(),
            vec![
                ("name", "taken".to_owned()),
                ("scope", "instance:read".to_owned()),
            ],
        ),
        (format!("/tokens/{token}/revoke"), vec![]),
    ]
}

/// A dashboard with something to change under each of [`actions`].
pub fn filled() -> (Dashboard, Credential, Client) {
    let dashboard = Dashboard::start();
    dashboard
        .daemon
        .succeed(&["organization", "create", "acme"]);
    dashboard
        .daemon
        .succeed(&["organization", "suspend", "acme"]);
    let credential = dashboard.daemon.create();
    let rotate = [
        "credential",
        "rotate",
        &credential.username,
        "--overlap",
        "1h",
    ];
    let credential = Credential::from_json(dashboard.daemon.json(&rotate).to_string().as_bytes());
    let live = Client::logged_in(&dashboard.daemon, &credential);
    (dashboard, credential, live)
}

pub fn csrf(plain: &mut Plain) -> String {
    let hidden = plain.get("/").expect(200).hidden("/sign-out");
    let csrf = hidden.into_iter().find(|(name, _)| name == "csrf");
    csrf.expect("a csrf field").1
}

#[test]
fn no_change_is_made_without_the_forms_own_secret() {
    let (dashboard, credential, mut live) = filled();
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let right = csrf(&mut plain);
    let mut another = dashboard.plain_signed_in(&dashboard.token);
    let anothers = csrf(&mut another);
    assert_ne!(right, anothers, "a secret of the session's own");
    let before = dashboard.changes();
    let mut flipped = right.clone();
    let last = flipped.pop();
    flipped.push(if last == Some('A') { 'B' } else { 'A' });
    for (path, fields) in actions(&dashboard, &credential) {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let wrongs = [
            None,
            Some(""),
            Some("0"),
            Some(flipped.as_str()),
            Some(anothers.as_str()),
        ];
        for wrong in wrongs {
            let csrf = wrong.map(|csrf| ("csrf", csrf));
            let all: Vec<_> = csrf.into_iter().chain(fields.iter().copied()).collect();
            let answer = plain.post(&path, &all);
            assert_eq!(answer.status, 403, "{path} with {wrong:?}: {}", answer.body);
        }
        // The right one, but said in the query.
        let answer = plain.post(&format!("{path}?csrf={right}"), &fields);
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
    }
    plain.get(LIST).expect(200);
    assert_eq!(dashboard.changes(), before);
    dashboard.accepts(&credential);
    live.expect("NOOP", "250");
    // And that it was the secret: with it, the least of them is done.
    let renamed = plain.post(
        &format!("{}/rename", dashboard.page_of(&credential)),
        &[("csrf", &right), ("name", "Mine")],
    );
    renamed.location();
    assert!(dashboard.changes() > before);
}

#[test]
fn nobody_signs_in_without_the_forms_own_secret() {
    let dashboard = Dashboard::start();
    // A page of another site has the browser send no cookie at all.
    for empty in [&[][..], &[("csrf", "")]] {
        let fields: Vec<_> = empty
            .iter()
            .copied()
            .chain([("token", &*dashboard.token)])
            .collect();
        dashboard.plain().post("/sign-in", &fields).expect(403);
    }
    let mut plain = dashboard.plain();
    plain.get("/sign-in").expect(200);
    for wrong in ["", "wrong"] {
        let refused = plain.post(
            "/sign-in",
            &[("csrf", wrong), ("token", &dashboard.token), ("next", "/")],
        );
        refused.expect(403);
    }
    let refused = plain.post("/sign-in", &[("token", &dashboard.token)]);
    refused.expect(403);
    assert!(plain.get("/").location().starts_with("/sign-in"));
}

#[test]
fn what_another_site_sends_is_not_carried_out() {
    let (dashboard, credential, _live) = filled();
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let csrf = csrf(&mut plain);
    let host = format!("Host: {}", dashboard.address);
    let before = dashboard.changes();
    for foreign in [
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for (path, fields) in actions(&dashboard, &credential) {
            let mut all = vec![("csrf", csrf.as_str())];
            all.extend(fields.iter().map(|(name, value)| (*name, value.as_str())));
            let headers = [host.clone(), foreign.to_owned()];
            let answer = plain.send(&format!("POST {path}"), &headers, &all);
            assert_eq!(answer.status, 403, "{path} with {foreign}: {}", answer.body);
        }
    }
    for foreign in ["evil.example", "gatepost.evil.example:80"] {
        let headers = [
            format!("Host: {foreign}"),
            format!("Origin: http://{foreign}"),
        ];
        for request in [
            "GET /",
            "GET /sign-in",
            "POST /organizations",
            "POST /sign-in",
        ] {
            let answer = plain.send(request, &headers, &[("csrf", &csrf), ("slug", "taken")]);
            assert!(
                [403, 421].contains(&answer.status),
                "{request}: {} {}",
                answer.status,
                answer.body
            );
        }
    }
    assert_eq!(dashboard.changes(), before);
    plain.get("/").expect(200);
}

#[test]
fn looking_changes_nothing() {
    let (dashboard, credential, mut live) = filled();
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let csrf = csrf(&mut plain);
    let before = dashboard.changes();
    for (path, fields) in actions(&dashboard, &credential) {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("csrf", &csrf);
        query.extend_pairs(fields);
        let path = format!("{path}?{}", query.finish());
        for method in ["GET", "HEAD"] {
            let answer = plain.send(&format!("{method} {path}"), &plain.usual_headers(), &[]);
            assert!(
                [200, 404, 405].contains(&answer.status),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    plain.get("/").expect(200);
    for path in pages_of(&dashboard, &credential) {
        plain.get(&path).expect(200);
        for method in ["PUT", "PATCH", "DELETE"] {
            let answer = plain.send(&format!("{method} {path}"), &plain.usual_headers(), &[]);
            assert!(
                [403, 404, 405].contains(&answer.status),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    assert_eq!(dashboard.changes(), before);
    dashboard.accepts(&credential);
    live.expect("NOOP", "250");
}
