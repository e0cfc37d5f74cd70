//! The session's cookie, and what it takes to get one.

use std::net::Ipv4Addr;

use super::Dashboard;
use super::plain::Plain;

#[test]
fn the_cookie_is_nobodys_but_the_sessions() {
    let dashboard = Dashboard::start();
    let name = format!("gatepost-{}", dashboard.address.port());
    let mut plain = dashboard.plain();
    let entered = plain
        .submit("/sign-in", "/sign-in", &[("token", &dashboard.token)])
        .expect(303);
    let cookie = entered
        .headers("set-cookie")
        .find(|cookie| cookie.starts_with(&format!("{name}=")));
    let cookie = cookie
        .unwrap_or_else(|| panic!("no session in {}", entered.head))
        .to_owned();
    let attributes: Vec<_> = cookie
        .split("; ")
        .skip(1)
        .map(str::to_ascii_lowercase)
        .collect();
    for wanted in ["httponly", "samesite=strict", "path=/"] {
        assert!(
            attributes.iter().any(|own| own == wanted),
            "{wanted} in {cookie}"
        );
    }
    assert!(
        !attributes
            .iter()
            .any(|own| own == "secure" || own.starts_with("domain")),
        "{cookie}"
    );
    let session = plain.cookies[&name].clone();
    assert!(
        session.len() >= 22,
        "too short to be unguessable: {session}"
    );
    let mut folder = vec![dashboard.daemon.path("store")];
    while let Some(path) = folder.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
            assert!(
                memchr::memmem::find(&bytes, session.as_bytes()).is_none(),
                "the session lies in the store"
            );
        }
    }
    assert!(!dashboard.daemon.log().contains(&session));

    let mut second = dashboard.plain_signed_in(&dashboard.token);
    plain.submit("/", "/sign-out", &[]).location();
    second.get("/").expect(200);
    let mut thief = dashboard.plain();
    for worthless in [
        session.as_str(),
        "",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        thief.cookies.insert(name.clone(), worthless.to_owned());
        assert!(
            thief.get("/").location().starts_with("/sign-in"),
            "{worthless:?} is worth something"
        );
    }

    // One that was put into the browser beforehand does not become a session.
    let mut fixed = dashboard.plain();
    let planted = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";
    fixed.cookies.insert(name.clone(), planted.to_owned());
    fixed.sign_in(&dashboard.token);
    assert_ne!(fixed.cookies[&name], planted);
    let first = fixed.cookies[&name].clone();
    fixed.submit("/", "/sign-out", &[]).location();
    fixed.sign_in(&dashboard.token);
    assert_ne!(fixed.cookies[&name], first);
}

#[test]
fn signing_in_leads_nowhere_else() {
    let dashboard = Dashboard::start();
    for next in [
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "/%09/evil.example",
        "/\t/evil.example",
        "evil",
    ] {
        let encoded: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        let mut plain = dashboard.plain();
        let from = format!("/sign-in?next={encoded}");
        let entered = plain.submit(
            &from,
            "/sign-in",
            &[("token", &dashboard.token), ("next", next)],
        );
        let location = entered.location();
        let inside = location.starts_with('/')
            && !location[1..].starts_with(['/', '\\'])
            && !location.contains(char::is_control);
        assert!(inside, "{next:?} leads to {location:?}");
    }
    let mut plain = dashboard.plain();
    let entered = plain.submit(
        "/sign-in?next=%2Faudit%3Faction%3Dtoken.",
        "/sign-in",
        &[("token", &dashboard.token)],
    );
    assert_eq!(entered.location(), "/audit?action=token.");
}

#[test]
fn wrong_tokens_are_held_off_by_address() {
    let dashboard = Dashboard::start();
    let mut plain = dashboard.plain();
    plain.address = Ipv4Addr::new(127, 0, 0, 9);
    let wrong = dashboard.token.replace("gp_", "gp_x");
    let try_it =
        |plain: &mut Plain, token: &str| plain.submit("/sign-in", "/sign-in", &[("token", token)]);
    for _ in 0..10 {
        try_it(&mut plain, &wrong).expect(401);
    }
    let held_off = try_it(&mut plain, &wrong).expect(429);
    assert!(held_off.header("retry-after").is_some());
    assert!(held_off.body.contains("token-error"));
    // Those wrong ones count for the API, too: it is one door.
    let bearer = format!("Authorization: Bearer {wrong}");
    let mut headers = plain.usual_headers();
    headers.push(bearer);
    plain.send("GET /api/v1/status", &headers, &[]).expect(429);
    try_it(&mut dashboard.plain(), &wrong).expect(401);
    try_it(&mut plain, &dashboard.token).location();
}
