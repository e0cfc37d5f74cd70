//! Every page as a person sees it: pictures at both widths, in light and dark, into `target/screenshots`; and as a person
//! finds it who does not see it.

use std::ops::Deref;

use serde_json::json;

use super::visit::Visit;
use super::{Dashboard, LIST};
use crate::support::axe;
use crate::support::browser::{Look, NARROW, Scripts, WIDE};
use crate::support::client::Client;
use crate::support::site::Credential;

/// What is wider than the box that it can be moved to and fro in. Only code that is to be pasted may be.
const CUT: &str = "const boxes = [...document.querySelectorAll('main *:not(pre)')];
    const moves = one => ['auto', 'scroll'].includes(getComputedStyle(one).overflowX);
    return boxes.filter(one => moves(one) && one.scrollWidth > one.clientWidth)
        .map(one => one.outerHTML.slice(0, 200))";

/// Somebody who looks at pages, and what they found wrong with them.
struct Viewer<'a> {
    visit: Visit<'a>,
    faults: Vec<String>,
}

impl<'a> Viewer<'a> {
    fn new(dashboard: &'a Dashboard) -> Viewer<'a> {
        Viewer {
            visit: dashboard.visit(Scripts::Run),
            faults: Vec::new(),
        }
    }

    /// Looks in all ways at the page that they are on, and keeps pictures of it under a name. Axe, which takes long, looks
    /// once at either width and in either scheme.
    #[track_caller]
    fn show(&mut self, name: &str) {
        for (look, by_axe) in [
            (WIDE, true),
            (WIDE.dark(), false),
            (NARROW.dark(), true),
            (NARROW, false),
        ] {
            self.visit.look(look);
            let Look { width, scheme, .. } = look;
            let dark = if scheme == "dark" { "-dark" } else { "" };
            self.visit.picture(&format!("{name}-{width}{dark}"));
            let wide = "return document.documentElement.scrollWidth";
            let wide = self.visit.run(wide, json!([])).as_u64();
            if wide > Some(width.into()) {
                self.faults
                    .push(format!("{name} is {wide:?} wide at {width}"));
            }
            let cut = self.visit.run(CUT, json!([]));
            for cut in cut.as_array().expect("a list") {
                self.faults
                    .push(format!("{name} cuts off {cut} at {width}"));
            }
            if by_axe {
                let barred = axe::bars(&self.visit).into_iter();
                let barred = barred.map(|one| format!("{name}-{width}{dark}: {one:#}"));
                self.faults.extend(barred);
            }
        }
        self.visit.look(WIDE);
        self.faults.extend(self.visit.complaints());
    }

    fn end(self) {
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
    }
}

impl<'a> Deref for Viewer<'a> {
    type Target = Visit<'a>;
    fn deref(&self) -> &Visit<'a> {
        &self.visit
    }
}

/// Name, and what SQL makes of the row with this username.
const CREDENTIALS: [(&str, &str); 12] = [
    (
        "Web shop",
        "UPDATE credentials SET created_at = created_at - 31536000000 WHERE username = ?",
    ),
    (
        "Invoices",
        "UPDATE credentials SET expires_at = (unixepoch() + 3 * 86400) * 1000 WHERE username = ?",
    ),
    (
        "Printer, second floor",
        "UPDATE credentials SET created_at = created_at - 8640000000 WHERE username = ?",
    ),
    (
        "Nextcloud",
        "UPDATE credentials SET created_at = created_at - 864000000 WHERE username = ?",
    ),
    (
        "Monitoring",
        "UPDATE credentials SET created_at = created_at - 86400000 WHERE username = ?",
    ),
    (
        "Old web shop",
        "UPDATE credentials SET status = 'revoked', revoked_at = created_at WHERE username = ?",
    ),
    (
        "Newsletter",
        "UPDATE credentials SET previous_hash = password_hash, rotated_at = created_at,
        previous_until = (unixepoch() + 7200) * 1000 WHERE username = ?",
    ),
    (
        "Trial of last spring",
        "UPDATE credentials SET expires_at = (unixepoch() - 86400) * 1000 WHERE username = ?",
    ),
    (
        "Tickets with a name that goes on for longer than anybody would have thought sensible",
        "UPDATE credentials SET name = name WHERE username = ?",
    ),
    (
        "Scanner",
        "UPDATE credentials SET name = name WHERE username = ?",
    ),
    (
        "Wiki",
        "UPDATE credentials SET name = name WHERE username = ?",
    ),
    ("", "UPDATE credentials SET name = NULL WHERE username = ?"),
];

/// What each did in the last 30 days, of which the n-th did most.
const USAGE: &str = "WITH RECURSIVE hours(back) AS (SELECT 0 UNION ALL SELECT back + 1 FROM hours WHERE back < 719)
    INSERT INTO usage SELECT organization, key, unixepoch() / 3600 - back, (back * 7919 + key * 31) % (3 + key * 2), 0, 0,
        (back * 31 + key) % 5, iif((back + key * 7) % 37 = 0, 1 + back % 4, 0)
    FROM credentials, hours WHERE back % 24 BETWEEN 2 AND 20";

const LAST_USED: &str = "INSERT OR IGNORE INTO last_used (credential, at, address, tls, mechanism, helo, count) SELECT key, (unixepoch() - key * key * 5000) * 1000, '192.0.2.' || key,
    iif(key % 4 = 0, NULL, 'TLSv1.3'), 'PLAIN', 'host' || key || '.example', key * 1234 FROM credentials WHERE key % 5 <> 4";

const REFUSALS: &str = "INSERT INTO refusals SELECT username, iif(key = 1, 'previous_password', 'wrong_password'),
    '192.0.2.' || key, key, unixepoch() * 1000 - 86400000, unixepoch() * 1000 - 240000 * key, key, iif(key = 1, unixepoch() * 1000 - 259200000, NULL)
    FROM credentials";

const BREACHES: &str = "INSERT INTO breaches SELECT key, reason, party, action, unixepoch() * 1000 - 86400000,
    unixepoch() * 1000 - 180000 * place, count FROM credentials, (SELECT 1 AS place, 'messages_per_day' AS reason,
    'organization' AS party, 'refused' AS action, 12 AS count UNION SELECT 2, 'senders', 'credential', 'reported', 340)";

const UNKNOWN: &str = "INSERT INTO refusals (username, reason, address, first_at, at, count)
    VALUES ('info@example.org', 'unknown', '192.0.2.99', unixepoch() * 1000 - 9000, unixepoch() * 1000, 7)";

/// A dashboard with plausible things in it; the first credential is the one to look at.
fn furnished() -> (Dashboard, Vec<Credential>) {
    let dashboard = Dashboard::start();
    let run = |arguments: &[&str]| dashboard.daemon.succeed(arguments);
    run(&["organization", "create", "acme", "--name", "Acme GmbH"]);
    run(&[
        "organization",
        "create",
        "globex",
        "--name",
        "Globex Corporation",
    ]);
    run(&["organization", "suspend", "globex"]);
    for scope in ["instance:read", "org:acme:admin", "org:acme:read"] {
        dashboard.token_for(scope);
    }
    let made = CREDENTIALS.map(|(name, change)| {
        let create = [
            "credential",
            "create",
            "--name",
            if name.is_empty() { "x" } else { name },
        ];
        let document = dashboard.daemon.json(&create);
        let credential = Credential::from_json(document.to_string().as_bytes());
        dashboard.daemon.sql(change, &credential.username);
        credential
    });
    let store = dashboard.store();
    for fill in [USAGE, LAST_USED, REFUSALS, BREACHES, UNKNOWN] {
        store.execute(fill, []).expect(fill);
    }
    (dashboard, made.into())
}

#[test]
fn every_page_of_what_there_is() {
    let (dashboard, made) = furnished();
    let _live = [&made[0], &made[0], &made[3]].map(|one| Client::logged_in(&dashboard.daemon, one));
    let page = dashboard.page_of(&made[0]);
    let mut viewer = Viewer::new(&dashboard);
    viewer.open("/sign-in");
    viewer.show("sign-in");
    viewer.sign_in(&dashboard.token);
    for (name, path) in [
        ("overview", "/"),
        ("credentials", LIST),
        (
            "credentials-found-none",
            &format!("{LIST}?q=nothing-like-it"),
        ),
        ("credentials-none", "/organizations/acme/credentials"),
        ("credential", &page),
        ("credential-revoked", &dashboard.page_of(&made[5])),
        ("credential-overlap", &dashboard.page_of(&made[6])),
        ("credential-expired", &dashboard.page_of(&made[7])),
        ("credential-new", &format!("{LIST}/new")),
        ("credential-rotate", &format!("{page}/rotate")),
        ("credential-revoke", &format!("{page}/revoke")),
        ("credential-delete", &format!("{page}/delete")),
        ("organizations", "/organizations"),
        ("organization", "/organizations/acme"),
        ("organization-suspended", "/organizations/globex"),
        ("sessions", "/sessions"),
        ("refusals", "/refusals"),
        ("guard", "/guard"),
        ("audit", "/audit"),
        ("tokens", "/tokens"),
        ("not-found", "/nothing"),
    ] {
        viewer.open(path);
        viewer.show(name);
    }
    viewer.end();
}

#[test]
fn every_page_that_comes_of_doing_something() {
    let (dashboard, made) = furnished();
    let _live = Client::logged_in(&dashboard.daemon, &made[0]);
    let page = dashboard.page_of(&made[0]);
    let mut viewer = Viewer::new(&dashboard);
    viewer.open("/sign-in");
    viewer.fill("#token", "gp_wrong");
    viewer.submit("#sign-in");
    viewer.show("sign-in-wrong");
    viewer.sign_in(&dashboard.token);

    viewer.open(LIST);
    for credential in &made[1..4] {
        viewer.click(&format!("tr[data-username={}] input", credential.username));
    }
    viewer.submit("#bulk button[value=expire]");
    viewer.show("bulk-expire");
    viewer.open(LIST);
    viewer.click("#bulk [name=all]");
    viewer.submit("#bulk button[value=delete]");
    viewer.submit("#confirmed");
    viewer.show("bulk-delete-wrong");

    viewer.open(&format!("{LIST}/new"));
    viewer.fill("main [name=name]", "Ticket system");
    viewer.submit_for_credential("#create");
    viewer.show("credential-created");
    viewer.reload();
    viewer.examine();
    viewer.show("credential-created-again");
    viewer.open(&format!("{page}/rotate"));
    viewer.submit_for_credential("#rotate");
    viewer.show("credential-rotated");
    viewer.open(&format!("{page}/delete"));
    viewer.fill("[name=confirm]", "nope");
    viewer.submit("#delete");
    viewer.show("credential-delete-wrong");
    viewer.open(&format!("{page}/revoke"));
    viewer.submit("#revoke");
    viewer.show("credential-revoke-done");
    viewer.open("/organizations");
    viewer.fill("#new-organization [name=slug]", "default");
    viewer.submit("#new-organization button");
    viewer.show("organizations-wrong");
    viewer.open("/tokens");
    viewer.fill("#new-token [name=name]", "Deployment");
    viewer.choose("#scope", "instance:read");
    viewer.submit_for_token("#new-token button");
    viewer.show("token-created");
    viewer.open("/tokens");
    viewer.submit("#tokens a[href$='/revoke']");
    viewer.show("token-revoke");

    let other = dashboard.store();
    viewer.open("/organizations");
    viewer.fill("#new-organization [name=slug]", "initech");
    other
        .execute_batch("BEGIN IMMEDIATE")
        .expect("lock the store");
    viewer.submit("#new-organization button");
    other.execute_batch("ROLLBACK").expect("unlock the store");
    viewer.show("store-busy");
    viewer.open("/");

    viewer.submit("#sign-out button");
    viewer.show("sign-in-after-sign-out");
    viewer.sign_in(&dashboard.token_for("org:globex:read"));
    viewer.open("/organizations/globex");
    viewer.show("organization-read-only");
    viewer.open(LIST);
    viewer.show("forbidden");
    viewer.open("/");
    viewer.submit("#sign-out button");
    viewer.sign_in(&dashboard.token);
    viewer.open(&format!("{LIST}/new"));
    dashboard
        .daemon
        .succeed(&["token", "revoke", "instance:admin"]);
    viewer.submit("#create");
    viewer.show("signed-out");
    viewer.end();
}
