//! The dashboard to whoever is not a browser, or is one that another site leads.

use super::forged::csrf;
use super::page::Page;
use super::{Dashboard, LIST};
use crate::support::site::Credential;

/// What a page may load, run and be put into.
const POLICY: [&str; 7] = [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
];

#[track_caller]
fn has_the_headers(path: &str, page: &Page) {
    let policy = page.header("content-security-policy").unwrap_or_default();
    let policy: Vec<_> = policy.split(';').map(str::trim).collect();
    for directive in POLICY {
        assert!(
            policy.contains(&directive),
            "{path} lacks {directive}: {policy:?}"
        );
    }
    assert!(
        !policy.iter().any(|directive| directive.contains("unsafe")),
        "{path}: {policy:?}"
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
        ("content-type", "text/html; charset=utf-8"),
    ] {
        let own: Vec<_> = page.headers(name).collect();
        assert_eq!(own, [value], "{name} on {path}");
    }
}

/// Every page that one may look at.
pub fn pages_of(dashboard: &Dashboard, credential: &Credential) -> Vec<String> {
    let page = dashboard.page_of(credential);
    let mut pages: Vec<_> = [
        "/",
        "/organizations",
        "/organizations/default",
        "/organizations/default/import",
        LIST,
        "/sessions",
        "/guard",
        "/audit",
        "/tokens",
    ]
    .map(str::to_owned)
    .into();
    pages.push(format!("{LIST}/new"));
    pages.extend(["", "/rotate", "/revoke", "/delete"].map(|end| format!("{page}{end}")));
    pages
}

#[test]
fn every_page_has_the_headers_that_keep_it_ours() {
    let dashboard = Dashboard::start();
    let credential = dashboard.daemon.create();
    let mut plain = dashboard.plain();
    has_the_headers("/sign-in", &plain.get("/sign-in").expect(200));
    plain.sign_in(&dashboard.token);
    for path in pages_of(&dashboard, &credential) {
        has_the_headers(&path, &plain.get(&path).expect(200));
    }
    has_the_headers("/nothing", &plain.get("/nothing").expect(404));
    has_the_headers(
        "a refused change",
        &plain.post("/organizations", &[]).expect(403),
    );
    let wrong = plain.submit("/organizations", "/organizations", &[("slug", "No Slug")]);
    has_the_headers("a wrong field", &wrong.expect(422));
    let shown = plain.submit(&format!("{LIST}/new"), &format!("{LIST}/new"), &[]);
    has_the_headers("a password", &shown.expect(200));
}

#[test]
fn assets_are_kept_by_their_version_and_everything_else_is_not() {
    let dashboard = Dashboard::start();
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let page = plain.get("/").expect(200);
    for (name, kind) in [
        ("dashboard.css", "text/css"),
        ("dashboard.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ] {
        let start = format!("/assets/{name}?v=");
        let at = page
            .body
            .find(&start)
            .unwrap_or_else(|| panic!("{name} is not used"));
        let path = page.body[at..].split('"').next().unwrap();
        let asset = plain.get(path).expect(200);
        let content = asset.header("content-type").expect("a type");
        assert!(content.starts_with(kind), "{content}");
        assert_eq!(asset.header("x-content-type-options"), Some("nosniff"));
        let kept = asset.header("cache-control").expect("a cache-control");
        assert!(kept.contains("immutable"), "{name}: {kept}");
    }
    plain.get("/assets/other.css").expect(404);
}

#[test]
fn what_cannot_be_is_told_on_a_page() {
    let dashboard = Dashboard::start();
    let credential = dashboard.daemon.create();
    let page = dashboard.page_of(&credential);
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    for path in [
        "/nothing",
        "/organizations/nobody",
        "/organizations/nobody/credentials",
        &format!("{LIST}/smtp_0000000000000000"),
        &format!("{page}/nothing"),
        "/organizations/%00",
    ] {
        let answer = plain.get(path);
        let status = answer.status;
        assert!([400, 404].contains(&status), "{path}: {status}");
        assert!(
            answer.body.contains("id=\"problem\""),
            "{path}: {}",
            answer.body
        );
        assert!(
            answer.body.contains("href=\"/\""),
            "the way on is missing on {path}"
        );
    }
    let csrf = csrf(&mut plain);
    let before = dashboard.changes();
    for (path, name, value) in [
        (format!("{page}/expiry"), "expires_at", "tomorrow"),
        (format!("{page}/expiry"), "expires_at", "2026-02-30T10:00"),
        (format!("{page}/rename"), "name", "\u{1b}[2J"),
        (format!("{page}/delete"), "confirm", "nope"),
        (format!("{LIST}/new"), "name", &"x".repeat(201)),
        ("/organizations".to_owned(), "slug", "default"),
        ("/tokens".to_owned(), "scope", "everything"),
    ] {
        let answer = plain.post(
            &path,
            &[
                ("csrf", &csrf),
                (name, value),
                ("name", "x"),
                ("offset", "0"),
            ],
        );
        let status = answer.status;
        assert!(
            [409, 422].contains(&status),
            "{path} {name}={value}: {status} {}",
            answer.body
        );
        let error = format!("id=\"{name}-error\"");
        assert!(
            answer.body.contains(&error),
            "{path} {name}={value}: {}",
            answer.body
        );
    }
    for overlap in ["", "-1", "7", "99999999999999999999"] {
        let fields = [("csrf", csrf.as_str()), ("overlap", overlap)];
        plain.post(&format!("{page}/rotate"), &fields).expect(422);
    }
    for query in [
        "page=0",
        "page=-1",
        "page=x",
        "page=99999999999999999999",
        "status=gone",
        "sort=password_hash",
        "dir=up",
        "unused=x",
    ] {
        let answer = plain.get(&format!("{LIST}?{query}"));
        assert!(
            [200, 400, 404, 422].contains(&answer.status),
            "{query}: {}",
            answer.status
        );
    }
    let large = "x".repeat(100_000);
    let answer = plain.post("/organizations", &[("csrf", &csrf), ("slug", &large)]);
    assert!([413, 422].contains(&answer.status), "{}", answer.status);
    assert_eq!(dashboard.changes(), before);

    let mut stranger = dashboard.plain();
    let answer = stranger
        .post("/organizations", &[("slug", "taken")])
        .expect(401);
    assert!(answer.body.contains("id=\"problem\""));
}

#[test]
fn a_busy_store_is_told_on_a_page() {
    let dashboard = Dashboard::start();
    let mut plain = dashboard.plain_signed_in(&dashboard.token);
    let csrf = csrf(&mut plain);
    let other = dashboard.store();
    other
        .execute_batch("BEGIN IMMEDIATE")
        .expect("lock the store");
    let answer = plain
        .post("/organizations", &[("csrf", &csrf), ("slug", "acme")])
        .expect(503);
    assert!(answer.body.contains("id=\"problem\""), "{}", answer.body);
    assert!(answer.header("retry-after").is_some());
    has_the_headers("a busy store", &answer);
    other.execute_batch("ROLLBACK").expect("unlock the store");
    plain
        .post("/organizations", &[("csrf", &csrf), ("slug", "acme")])
        .location();
}
