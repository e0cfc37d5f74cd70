//! Whose logins are tried in a siege, rightly or not.

use std::fs;
use std::sync::Arc;

use rusqlite::params;

use crate::load::{Attempt, returning_address};
use crate::site::{Credential, Site};

/// What somebody might choose.
const CHOSEN: &str = "correct horse battery staple";

/// How many imported credentials are attacked that nobody logs in by.
const COLD: usize = 20;

/// How many addresses the owners of imported credentials have between them.
const ADDRESSES: usize = 100;

/// One way to be refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    Unknown,
    Malformed,
    /// A wrong password for a name that others log in by, so that its right one is remembered.
    Cached,
    /// One for a name that was imported with a password that people chose: a guess at it can cost an argon2id.
    Cold,
    Revoked,
    Expired,
    /// Allowed from other networks only.
    Network,
}

impl Offence {
    pub const ALL: [Offence; 7] = [
        Offence::Unknown,
        Offence::Malformed,
        Offence::Cached,
        Offence::Cold,
        Offence::Revoked,
        Offence::Expired,
        Offence::Network,
    ];

    /// For the table.
    pub const fn title(self) -> &'static str {
        match self {
            Offence::Unknown => "unknown names",
            Offence::Malformed => "malformed passwords",
            Offence::Cached => "wrong, on a cached name",
            Offence::Cold => "wrong, on a cold name that was imported",
            Offence::Revoked => "right, but revoked",
            Offence::Expired => "right, but expired",
            Offence::Network => "right, but from another network",
        }
    }
}

/// The names of a siege.
pub struct Names {
    warm: Arc<Vec<Credential>>,
    cold: Vec<Credential>,
    revoked: Arc<Vec<Credential>>,
    expired: Arc<Vec<Credential>>,
    elsewhere: Vec<Credential>,
    /// Imported, and used before from where they come back from, so trusted there; but nothing is remembered of their
    /// passwords.
    pub returning: Arc<Vec<Credential>>,
}

impl Names {
    /// Makes them, and at least so many that come back. Before Gatepost starts, because it reads who is trusted then.
    pub fn make(site: &Site, returning: usize) -> Names {
        let returning = returning.next_multiple_of(ADDRESSES);
        let mut imported = import(site, returning + COLD);
        let cold = imported.split_off(returning);
        trust(site, &imported);
        let elsewhere = site.create(1);
        for Credential { username, .. } in &elsewhere {
            let rules = [
                "credential",
                "rules",
                username,
                "--networks",
                "192.0.2.0/24",
            ];
            site.gatepost(&rules);
        }
        Names {
            warm: Arc::clone(&site.warm),
            cold,
            revoked: Arc::clone(&site.revoked),
            expired: Arc::clone(&site.expired),
            elsewhere,
            returning: Arc::new(imported),
        }
    }

    /// What attackers offer who offend in these ways in turn: which attempt on whose name, one as often as the other.
    pub fn offers(&self, offences: &[Offence]) -> (Vec<Attempt>, Vec<Credential>) {
        let rounds = self.warm.len().max(self.cold.len());
        let offers = (0..rounds).flat_map(|round| {
            offences.iter().map(move |&offence| {
                let (attempt, names) = self.of(offence);
                (attempt, names[round % names.len()].clone())
            })
        });
        offers.unzip()
    }

    fn of(&self, offence: Offence) -> (Attempt, &[Credential]) {
        match offence {
            Offence::Unknown => (Attempt::Unknown, &self.warm),
            Offence::Malformed => (Attempt::Malformed, &self.warm),
            Offence::Cached => (Attempt::Wrong, &self.warm),
            Offence::Cold => (Attempt::Wrong, &self.cold),
            Offence::Revoked => (Attempt::Right, &self.revoked),
            Offence::Expired => (Attempt::Right, &self.expired),
            Offence::Network => (Attempt::Right, &self.elsewhere),
        }
    }
}

/// Credentials from elsewhere, all with one password, which is hashed once.
fn import(site: &Site, count: usize) -> Vec<Credential> {
    let username = |number| format!("user{number}@example.test");
    take(site, &format!("{}:{{PLAIN}}{CHOSEN}::::::\n", username(0)));
    let query = "SELECT password_hash FROM credentials WHERE username = ?1";
    let row = site.store();
    let hash: String = row
        .query_row(query, [username(0)], |row| row.get(0))
        .expect("a hash");
    let lines = (1..count).map(|number| format!("{}:{{ARGON2ID}}{hash}::::::\n", username(number)));
    take(site, &lines.collect::<String>());
    let credential = |number| Credential {
        username: username(number),
        password: CHOSEN.to_owned(),
        hash: hash.clone(),
    };
    (0..count).map(credential).collect()
}

fn take(site: &Site, lines: &str) {
    let path = site.path("passwd");
    fs::write(&path, lines).expect("a file to import");
    let path = path.to_str().expect("a path in ASCII");
    let report = site.gatepost(&["import", "--format", "dovecot", "--json", path]);
    let report: serde_json::Value = serde_json::from_slice(&report).expect("a report");
    let taken = report["taken"].as_array().map_or(0, Vec::len);
    assert_eq!(taken, lines.lines().count(), "{report}");
}

/// As if each had logged in from its address before Gatepost was started anew.
fn trust(site: &Site, credentials: &[Credential]) {
    let mut store = site.store();
    let now = gatepost::clock::now_ms();
    let transaction = store.transaction().expect("a transaction");
    let statement = "INSERT INTO trusted_networks (credential, network, at)
         SELECT key, ?2, ?3 FROM credentials WHERE username = ?1";
    for (number, credential) in (0..).zip(credentials) {
        let network = format!("{}/32", returning_address(number % ADDRESSES as u64));
        let added = transaction.execute(statement, params![credential.username, network, now]);
        assert_eq!(added.expect("a trusted network"), 1);
    }
    transaction.commit().expect("a commit");
}
