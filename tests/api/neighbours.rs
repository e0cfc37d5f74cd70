//! An organization's token neither sees nor touches anything of another organization, and a reader's changes nothing.

use serde_json::{Value, json};

use super::Served;
use super::operations::{Operation, Things};
use super::snapshot::Snapshot;
use crate::support::client::Client;
use crate::support::upstream::Upstream;

/// Query parameters that name nobody.
const NAMELESS: [&str; 14] = [
    "action",
    "after",
    "by",
    "disconnect",
    "expires_within",
    "force",
    "from",
    "limit",
    "network",
    "sender",
    "since",
    "status",
    "until",
    "unused_since",
];

/// What only a token for the instance may look at.
const OF_THE_INSTANCE: [&str; 3] = ["get_status", "list_guard", "unknown_refusals"];

/// Changes nothing, and is carried out only for an administrator of the instance.
const OF_AN_ADMINISTRATOR: &str = "obey_changes";

/// Nobody's sessions are meant, so it is refused whoever asks: the one request that is not about the organization it names.
const WHOSE: &str = "DELETE /api/v1/sessions";

/// Two organizations with everything that one can have.
struct Neighbours {
    served: Served,
    own: Things,
    foreign: Things,
    sessions: [Client; 2],
    _upstream: Upstream,
}

impl Neighbours {
    fn start() -> Neighbours {
        let upstream = Upstream::start();
        let served = Served::start(&upstream);
        served.daemon.succeed(&["organization", "create", "acme"]);
        let name = json!({ "name": "Name of default" });
        let rename = "PATCH /api/v1/organizations/default";
        served.admin(rename, Some(name)).expect(200);
        let (own, one) = Things::in_organization(&served, "acme");
        let (foreign, other) = Things::in_organization(&served, "default");
        Neighbours {
            served,
            own,
            foreign,
            sessions: [one, other],
            _upstream: upstream,
        }
    }

    /// All by which the foreign organization and what it has could be known.
    fn foreign_words(&self) -> Vec<String> {
        let Things {
            username,
            token,
            session,
            ..
        } = &self.foreign;
        let shown = |path: &str| self.served.admin(&format!("GET {path}"), None).expect(200);
        let organization = shown("/api/v1/organizations/default");
        let credential = shown(&format!("/api/v1/credentials/{username}"));
        let id = |answer: &Value| answer["id"].as_str().unwrap().to_owned();
        let ids = [&organization, &credential].map(|answer| id(&answer.body));
        let names = ["Name of default", "Printer of default", "token of default"];
        let mut words = [username, token, session].map(String::clone).to_vec();
        words.extend(ids);
        words.extend(names.map(str::to_owned));
        words
    }

    /// Nothing was changed since `before`, and nobody was disconnected.
    fn expect_unchanged(&mut self, before: &Snapshot) {
        assert_eq!(Snapshot::of(&self.served.daemon), *before);
        for session in &mut self.sessions {
            session.expect("NOOP", "250");
        }
    }
}

/// What has the form of a name but is nobody's.
fn nobody() -> Things {
    Things {
        slug: "nowhere".to_owned(),
        username: "smtp_0000000000000000".to_owned(),
        token: "01900000-0000-7000-8000-000000000001".to_owned(),
        session: "01900000-0000-7000-8000-000000000002".to_owned(),
    }
}

/// The ways to ask for an operation that name `things`, within their organization or, if `own` has one, within that.
fn asked_about(operation: &Operation, things: &Things, own: &Things) -> Vec<String> {
    let mut requests = vec![operation.request(things)];
    if operation.id == "disconnect_sessions" {
        requests.push(WHOSE.to_owned());
    }
    if operation.names("slug") && operation.names("username") {
        requests.push(operation.request(&Things {
            slug: own.slug.clone(),
            ..things.clone()
        }));
    }
    for query in operation.queries.iter().map(String::as_str) {
        let value = match query {
            "organization" => &things.slug,
            "actor" => &things.token,
            "credential" | "object" | "text" => &things.username,
            "username" => continue, // the request has it anyhow
            other if NAMELESS.contains(&other) => continue,
            other => panic!("whom does {other} name in {}?", operation.id),
        };
        let within = match operation.only_looks() {
            true => own,
            false => things,
        };
        let request = operation.request(within);
        let path = request.split('?').next().unwrap_or_default();
        requests.push(format!("{path}?{query}={value}"));
    }
    requests
}

/// An answer without the names that were in the question.
fn nameless(body: &Value, things: &Things) -> String {
    let Things {
        slug,
        username,
        token,
        session,
    } = things;
    [slug, username, token, session]
        .iter()
        .fold(body.to_string(), |text, name| text.replace(*name, "NAME"))
}

#[test]
fn an_organizations_token_neither_sees_nor_touches_another_organization() {
    let mut neighbours = Neighbours::start();
    let (served, own, foreign) = (&neighbours.served, &neighbours.own, &neighbours.foreign);
    let tokens = ["org:acme:admin", "org:acme:read"].map(|scope| served.token_for(scope));
    let words = neighbours.foreign_words();
    let before = Snapshot::of(&served.daemon);
    for operation in &Operation::all(served) {
        let asked = asked_about(operation, foreign, own);
        let in_vain = asked_about(operation, &nobody(), own);
        for (request, in_vain) in asked.iter().zip(&in_vain) {
            for token in &tokens {
                let answer = served.by(token, request, operation.body(foreign));
                let said = format!("{}{}", answer.head, answer.body);
                for word in words.iter().filter(|word| !request.contains(*word)) {
                    assert!(!said.contains(word), "{word} to {request}: {said}");
                }
                let nothing = served.by(token, in_vain, operation.body(&nobody()));
                assert_eq!(answer.status, nothing.status, "{request}: {said}");
                match answer.status {
                    403 | 404 => assert_eq!(
                        nameless(&answer.body, foreign),
                        nameless(&nothing.body, &nobody()),
                        "{request}: it can be told from what does not exist"
                    ),
                    // A list, or what is their own, filtered by a name: nothing foreign is in it.
                    200 => assert!(operation.only_looks(), "{request}"),
                    400 => assert_eq!(request, WHOSE, "{said}"),
                    status => panic!("{status} to {request}: {said}"),
                }
            }
        }
    }
    neighbours.expect_unchanged(&before);
}

#[test]
fn what_is_its_own_an_organizations_token_sees() {
    let neighbours = Neighbours::start();
    let (served, own) = (&neighbours.served, &neighbours.own);
    let token = served.token_for("org:acme:admin");
    for (list, name) in [
        ("organizations", &own.slug),
        ("organizations/acme/credentials", &own.username),
        ("sessions", &own.session),
        ("tokens", &own.token),
        ("audit", &own.username),
    ] {
        let answer = served.by(&token, &format!("GET /api/v1/{list}"), None);
        let told = answer.expect(200).body.to_string();
        assert!(told.contains(name), "{list}: {told}");
    }
    let make = "POST /api/v1/organizations/acme/credentials";
    served.by(&token, make, None).expect(201);
    let narrower = json!({ "name": "n", "scope": "org:acme:read" });
    let made = served.by(&token, "POST /api/v1/tokens", Some(narrower));
    made.expect(201);
}

#[test]
fn no_body_reaches_further_than_the_token() {
    let mut neighbours = Neighbours::start();
    let served = &neighbours.served;
    let tokens = ["org:acme:admin", "org:acme:read"].map(|scope| served.token_for(scope));
    let patches = [
        json!({ "name": "intruder" }),
        json!({ "status": "suspended" }),
        json!({ "disconnect": true }),
        json!({ "status": "suspended", "disconnect": true }),
    ];
    let foreign = ["default", "nowhere"].map(|slug| format!("PATCH /api/v1/organizations/{slug}"));
    let mut attempts = Vec::new();
    for request in &foreign {
        attempts.extend(
            patches
                .iter()
                .map(|patch| (request.as_str(), patch.clone())),
        );
    }
    // Not even the state its own organization is in is a token's to change, nor may it make one that may do more.
    let itself = "PATCH /api/v1/organizations/acme";
    attempts.push((itself, json!({ "status": "suspended" })));
    attempts.push((itself, json!({ "status": "active", "disconnect": true })));
    for scope in [
        "org:default:admin",
        "org:default:read",
        "org:nowhere:read",
        "instance:admin",
        "instance:read",
    ] {
        let token = json!({ "name": "intruder", "scope": scope });
        attempts.push(("POST /api/v1/tokens", token));
    }
    let before = Snapshot::of(&served.daemon);
    for (request, body) in attempts {
        for token in &tokens {
            let answer = served.by(token, request, Some(body.clone()));
            let told = (answer.status, &answer.body["code"]);
            assert_eq!(told, (403, &json!("forbidden")), "{request} {body}");
        }
    }
    neighbours.expect_unchanged(&before);
}

#[test]
fn a_readers_token_changes_nothing_anywhere() {
    let mut neighbours = Neighbours::start();
    let (served, own) = (&neighbours.served, &neighbours.own);
    let tokens = ["org:acme:read", "instance:read"].map(|scope| (scope, served.token_for(scope)));
    let before = Snapshot::of(&served.daemon);
    for operation in &Operation::all(served) {
        for (request, (scope, token)) in asked_about(operation, own, own)
            .iter()
            .flat_map(|request| tokens.iter().map(move |token| (request, token)))
        {
            let answer = served.by(token, request, operation.body(own));
            let is_kept_back = !operation.only_looks()
                || operation.id == OF_AN_ADMINISTRATOR
                || (OF_THE_INSTANCE.contains(&operation.id.as_str()) && *scope != "instance:read");
            let expected = if is_kept_back { 403 } else { 200 };
            assert_eq!(answer.status, expected, "{request} by {scope}");
        }
    }
    neighbours.expect_unchanged(&before);
}
