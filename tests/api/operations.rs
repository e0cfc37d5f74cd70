//! Every operation that the served OpenAPI document names, ready to be asked for. One that is added to the API is in it by
//! itself, or says what it lacks here.

use serde_json::{Value, json};

use super::{Answer, Served, issued};
use crate::support::client::Client;

impl Served {
    /// Asks with the token for everything.
    #[track_caller]
    pub fn admin(&self, request: &str, body: Option<Value>) -> Answer {
        self.by(&self.token, request, body)
    }

    /// The id and the secret of a new token.
    pub fn token_and_id(&self, name: &str, scope: &str) -> (String, String) {
        let create = ["token", "create", "--name", name, "--scope", scope];
        let made = self.daemon.json(&create);
        let text = |key: &str| made[key].as_str().expect(key).to_owned();
        (text("id"), text("secret"))
    }
}

/// Something that can be asked for.
pub struct Operation {
    /// Its `operationId`.
    pub id: String,
    pub method: String,
    path: String,
    /// What may stand in its query.
    pub queries: Vec<String>,
    /// Whether it takes If-Match.
    pub is_conditional: bool,
    needs_query: bool,
    takes_body: bool,
}

/// What operations can be about: an organization and one of everything that is its own.
#[derive(Clone)]
pub struct Things {
    pub slug: String,
    pub username: String,
    /// The token's id.
    pub token: String,
    /// The live session's id.
    pub session: String,
}

impl Things {
    /// Fills an organization that has nothing yet. The session lives as long as the client.
    pub fn in_organization(served: &Served, slug: &str) -> (Things, Client) {
        let name = json!({ "name": format!("Printer of {slug}") });
        let make = format!("POST /api/v1/organizations/{slug}/credentials");
        let credential = issued(&served.admin(&make, Some(name)).expect(201));
        let client = Client::logged_in(&served.daemon, &credential);
        let username = credential.username;
        let list = format!("GET /api/v1/sessions?credential={username}");
        let sessions = served.admin(&list, None).expect(200).body;
        let session = sessions["items"][0]["id"].as_str().expect("a session");
        let scope = format!("org:{slug}:read");
        let (token, _) = served.token_and_id(&format!("token of {slug}"), &scope);
        let things = Things {
            slug: slug.to_owned(),
            username,
            token,
            session: session.to_owned(),
        };
        (things, client)
    }
}

impl Operation {
    /// All there are, in an order in which each finds what it is about although those before it were carried out.
    pub fn all(served: &Served) -> Vec<Operation> {
        let document = served.by("", "GET /api/v1/openapi.json", None);
        let document = document.expect(200).body;
        let mut all = Vec::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, description) in methods.as_object().expect("methods") {
                all.push(Operation::described(path, method, description));
            }
        }
        assert!(all.len() > 20, "{document}");
        all.sort_by_key(Operation::turn);
        all
    }

    fn described(path: &str, method: &str, description: &Value) -> Operation {
        let parameters = description["parameters"].as_array();
        let parameters = parameters.into_iter().flatten();
        let is_conditional = parameters.clone().any(|found| found["name"] == "If-Match");
        let queries: Vec<_> = parameters.filter(|found| found["in"] == "query").collect();
        let name = |found: &&Value| found["name"].as_str().expect("a name").to_owned();
        Operation {
            id: description["operationId"].as_str().expect("an id").into(),
            method: method.to_ascii_uppercase(),
            path: path.to_owned(),
            queries: queries.iter().map(name).collect(),
            is_conditional,
            needs_query: queries.iter().any(|found| found["required"] == true),
            takes_body: description["requestBody"].is_object(),
        }
    }

    /// Looking comes first, then what ends sessions, and what deletes comes last, beginning with what lies deepest.
    fn turn(&self) -> (usize, usize) {
        let is_about_sessions = self.path.contains("/sessions");
        let turn = match self.method.as_str() {
            "GET" => 0,
            "DELETE" if is_about_sessions => 1,
            "POST" => 2,
            "PATCH" => 3,
            "DELETE" => 4,
            other => panic!("when is {other} {} to be tried?", self.path),
        };
        (turn, usize::MAX - self.path.len())
    }

    /// Whether its path names something: `slug`, `username` or `id`.
    pub fn names(&self, what: &str) -> bool {
        self.path.contains(&format!("{{{what}}}"))
    }

    /// Whether it changes nothing.
    pub fn only_looks(&self) -> bool {
        self.method == "GET" || self.path == "/api/v1/changes"
    }

    /// The request line, about these things.
    pub fn request(&self, about: &Things) -> String {
        let id = match self.path.split('/').nth(3) {
            Some("sessions") => &about.session,
            Some("tokens") => &about.token,
            _ => "an id of what?",
        };
        let path = self.path.replace("{slug}", &about.slug).replace("{id}", id);
        let path = path.replace("{username}", &about.username);
        assert!(!path.contains('{'), "what is to be filled into {path}?");
        assert!(!path.contains('?'), "whose id is to be filled into {path}?");
        let query = match self.id.as_str() {
            "delete_organization" => "?force=true&disconnect=true".to_owned(),
            "delete_credential" => "?disconnect=true".to_owned(),
            "explain" => format!("?username={}&from=192.0.2.7", about.username),
            "clear_guard" => "?network=192.0.2.0/24".to_owned(),
            "disconnect_sessions" => format!("?credential={}", about.username),
            other => {
                assert!(!self.needs_query, "what query does {other} need?");
                String::new()
            }
        };
        format!("{} {path}{query}", self.method)
    }

    /// The body, if it takes one: one that changes something.
    pub fn body(&self, about: &Things) -> Option<Value> {
        let body = match self.id.as_str() {
            "create_organization" => json!({ "slug": "made-here" }),
            "edit_organization" => {
                json!({ "name": "changed", "status": "suspended", "disconnect": true })
            }
            "create_credential" => json!({ "name": "made here" }),
            "edit_credential" => {
                json!({ "name": "changed", "status": "revoked", "disconnect": true })
            }
            "import_credentials" => {
                let text = format!("imported-to-{}:{{PLAIN}}hunter2", about.slug);
                json!({ "format": "dovecot", "text": text })
            }
            "change_credentials" => {
                json!({ "action": "revoke", "usernames": [about.username], "disconnect": true })
            }
            "rotate_credential" => json!({ "overlap": 60, "disconnect": true }),
            "create_token" => {
                json!({ "name": "made here", "scope": format!("org:{}:read", about.slug) })
            }
            other => {
                assert!(!self.takes_body, "what body does {other} take?");
                return None;
            }
        };
        Some(body)
    }
}
