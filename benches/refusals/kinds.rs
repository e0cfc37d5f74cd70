//! The kinds of refusals, and claims that meet with them.

use std::fmt::Write as _;

use crate::support::client::Client;
use crate::support::site::{Credential, Site};

/// So many guesses at one imported name, well below those that close it to strangers.
const GUESSES: usize = 50;

/// One kind of refusal.
pub struct Kind {
    pub name: &'static str,
    claims: Claims,
}

enum Claims {
    /// These names with a password that is another one each time.
    Guesses(Vec<Credential>),
    /// The right password.
    Right(Credential),
    /// A name of Gatepost's own that nobody has, another one each time.
    Unknown,
    /// A name as people choose them.
    UnknownChosen,
}

impl Kind {
    /// What to offer the time after `number` others.
    pub fn claim(&self, number: usize) -> Credential {
        let username = match &self.claims {
            Claims::Guesses(names) => names[number % names.len()].username.clone(),
            Claims::Right(credential) => return credential.clone(),
            Claims::Unknown => format!("smtp_{number:016}"),
            Claims::UnknownChosen => format!("user{number}@example.test"),
        };
        let password = format!("sk_{number:032}");
        Credential { username, password }
    }
}

/// Makes the credentials, with enough names for `samples` refusals of each kind, twice.
pub fn prepare(site: &Site, samples: usize) -> Vec<Kind> {
    let many = 2 * samples / GUESSES + 1;
    let imported = import(site, many);
    let (cold, hot) = imported.split_at(many);
    let (wrong, warm) = (site.create(), site.create());
    // Each from an address of its own, since strangers there are put off after ten hashes.
    for (number, owner) in hot.iter().chain([&warm]).enumerate() {
        let address = format!("127.0.{}.{}", number / 250, 2 + number % 250);
        Client::logged_in_from(&address, site, owner);
    }
    let right = |words: &[&str], more: &[&str]| {
        let credential = site.create();
        let username = credential.username.as_str();
        site.succeed(&[words, &[username], more].concat());
        Claims::Right(credential)
    };
    let expired = site.create();
    let expire = "UPDATE credentials SET expires_at = 1 WHERE username = ?";
    site.sql(expire, &expired.username);
    let kind = |name, claims| Kind { name, claims };
    vec![
        kind("unknown", Claims::Unknown),
        kind("wrong", Claims::Guesses(vec![wrong])),
        kind("wrong, cached", Claims::Guesses(vec![warm])),
        kind("revoked", right(&["credential", "revoke"], &[])),
        kind("expired", Claims::Right(expired)),
        kind(
            "refused by network",
            right(&["credential", "rules"], &["--networks", "10.0.0.0/8"]),
        ),
        kind("unknown, chosen name", Claims::UnknownChosen),
        kind("wrong, imported", Claims::Guesses(cold.to_vec())),
        kind("wrong, imported and cached", Claims::Guesses(hot.to_vec())),
    ]
}

/// Twice as many names as `many`, taken over with passwords that people chose.
fn import(site: &Site, many: usize) -> Vec<Credential> {
    let credentials: Vec<_> = (0..2 * many)
        .map(|number| Credential {
            username: format!("owner{number}@example.test"),
            password: format!("hunter{number}"),
        })
        .collect();
    let mut text = "username,password\n".to_owned();
    for Credential { username, password } in &credentials {
        writeln!(text, "{username},{{PLAIN}}{password}").expect("text grows");
    }
    let path = site.path("users.csv");
    std::fs::write(&path, text).expect("write a file");
    let path = path.to_str().expect("a path in UTF-8");
    site.succeed(&["import", "--format", "csv", path]);
    credentials
}
