//! kill -9, on the command line and on the daemon, while credentials change.

use std::collections::BTreeMap;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;

const KILLED_DAEMONS: u32 = 40;
const KILLED_COMMANDS_PER_DAEMON: u32 = 4;

/// What is known of one credential from the acknowledgements alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Active,
    Revoked,
    /// A command on it was killed before it answered: either outcome is right.
    Undecided,
}

/// What the store must hold, kept outside of it.
#[derive(Default)]
struct Ledger {
    credentials: BTreeMap<String, (Credential, Known)>,
    acknowledged: u32,
}

impl Ledger {
    fn note(&mut self, credential: Credential, known: Known) {
        self.acknowledged += u32::from(known != Known::Undecided);
        self.credentials
            .insert(credential.username.clone(), (credential, known));
    }

    /// Some credential that is surely active, a different one from call to call.
    fn active(&self, turn: u32) -> Option<Credential> {
        let active: Vec<_> = self
            .credentials
            .values()
            .filter(|(_, known)| *known == Known::Active)
            .collect();
        let index = turn as usize % active.len().max(1);
        active.get(index).map(|(credential, _)| credential.clone())
    }
}

#[test]
fn no_acknowledged_change_is_lost_in_200_kills() {
    const { assert!(KILLED_DAEMONS * (KILLED_COMMANDS_PER_DAEMON + 1) == 200) };
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let mut ledger = Ledger::default();
    let usual = usual_duration(&site, &mut ledger);
    let mut turn = 0;
    for _ in 0..KILLED_DAEMONS {
        let daemon = Gatepost::serve(&site);
        for _ in 0..KILLED_COMMANDS_PER_DAEMON {
            turn += 1;
            change(&site, &mut ledger, turn, |child| child.wait().map(drop));
            // Spread over all of a command's life and a little beyond.
            let patience = usual * (turn * 7 % 13) / 10;
            change(&site, &mut ledger, turn + 1, |child| {
                std::thread::sleep(patience);
                child.kill()
            });
        }
        if let Some(credential) = ledger.active(turn) {
            Client::logged_in(&site, &credential);
        }
        daemon.kill();
    }
    verify(&site, &ledger);
}

/// One change, of which `end` decides how its process ends. Complete output is the
/// acknowledgement, also of one that was killed an instant later.
fn change(
    site: &Site,
    ledger: &mut Ledger,
    turn: u32,
    end: impl FnOnce(&mut std::process::Child) -> std::io::Result<()>,
) {
    let subject = ledger.active(turn).filter(|_| !turn.is_multiple_of(3));
    let username = subject
        .as_ref()
        .map(|credential| credential.username.clone());
    let arguments = match &username {
        None => vec!["credential", "create", "--json"],
        Some(username) if turn % 3 == 1 => vec!["credential", "rotate", username, "--json"],
        Some(username) => vec!["credential", "revoke", username, "--json"],
    };
    let mut command = site.command(&arguments);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    end(&mut child).expect("wait or kill");
    let output = child.wait_with_output().expect("reap");
    match (acknowledgement(&output), arguments[1]) {
        (Some(_), "revoke") => ledger.note(subject.expect("a subject"), Known::Revoked),
        (Some(document), _) => {
            let credential = Credential::from_json(document.to_string().as_bytes());
            site.remember(&credential);
            ledger.note(credential, Known::Active);
        }
        (None, _) => {
            assert_eq!(
                output.status.code(),
                None,
                "{arguments:?} failed by itself: {output:?}"
            );
            subject
                .into_iter()
                .for_each(|subject| ledger.note(subject, Known::Undecided));
        }
    }
}

fn acknowledgement(output: &Output) -> Option<Value> {
    serde_json::from_slice(&output.stdout).ok()
}

/// How long a command takes here, from a few that are let live.
fn usual_duration(site: &Site, ledger: &mut Ledger) -> Duration {
    const FEW: u32 = 5;
    let start = Instant::now();
    (0..FEW).for_each(|_| ledger.note(site.create(), Known::Active));
    start.elapsed() / FEW
}

/// Asks the store by command and the daemon by login.
fn verify(site: &Arc<Site>, ledger: &Ledger) {
    let connection = rusqlite::Connection::open(site.store()).expect("open the store");
    let sound: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("check the store");
    assert_eq!(sound, "ok");
    let gatepost = Gatepost::serve(site);
    let list = gatepost.json(&["credential", "list"]).to_string();
    // Every command that was let live has answered; the killed ones may have.
    assert!(ledger.acknowledged >= KILLED_DAEMONS * KILLED_COMMANDS_PER_DAEMON);
    for (credential, known) in ledger.credentials.values() {
        assert!(
            list.contains(&credential.username),
            "{known:?} and lost: {credential:?}"
        );
        let expected = match known {
            Known::Active => "235 2.7.0",
            Known::Revoked => "535 5.7.8",
            Known::Undecided => continue,
        };
        let mut client = Client::submissions(&gatepost);
        client.expect("EHLO client.example", "250");
        let reply = client.auth_plain(credential);
        assert!(
            reply.starts_with(expected),
            "{known:?} but {reply:?}: {credential:?}"
        );
    }
}

#[test]
fn last_used_is_at_most_one_flush_old_after_a_kill() {
    const FLUSH: Duration = Duration::from_millis(500);
    let upstream = Upstream::start();
    let config =
        Config::for_upstream(upstream.address).text("last_used", "flush_interval", "500ms");
    let site = Arc::new(Site::new(config));
    let credential = site.create();
    let daemon = Gatepost::serve(&site);
    let start = Instant::now();
    let mut last_login = SystemTime::now();
    while start.elapsed() < FLUSH * 4 {
        last_login = SystemTime::now();
        Client::logged_in(&site, &credential);
    }
    daemon.kill();
    let shown = site.json(&["credential", "show", &credential.username]);
    let last_used = time_of(&shown["last_used"]["at"]);
    // One interval, and as much again for the flush itself on a busy machine.
    let age = last_login.duration_since(last_used).unwrap_or_default();
    assert!(age <= FLUSH * 2, "{age:?} old: {shown}");
}

/// A time as the command line prints it: RFC 3339.
fn time_of(value: &Value) -> SystemTime {
    let time = value
        .as_str()
        .and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let millis = time.and_then(|time| u64::try_from(time.as_millisecond()).ok());
    let millis = millis.unwrap_or_else(|| panic!("not a time: {value}"));
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}
