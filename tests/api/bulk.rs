//! One change of many credentials.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, DEFAULT, Served};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::lock::Lock;
use crate::support::site::Credential;
use crate::support::upstream::Upstream;

const BULK: &str = "POST /api/v1/organizations/default/bulk";

impl Served {
    /// Takes over so many credentials, named `user0` and so on.
    fn import(&self, count: usize) {
        let path = self.daemon.path("store").join("passwd");
        let hash = "{SSHA}lhdKKw2V93yeauI6QYSjBrzk2jaq4uO0";
        let lines: String = (0..count).map(|n| format!("user{n}:{hash}\n")).collect();
        fs::write(&path, lines).unwrap();
        let import = ["import", "--format", "dovecot", path.to_str().unwrap()];
        self.daemon.succeed(&import);
    }

    fn bulk(&self, change: Value) -> Answer {
        self.admin(BULK, Some(change))
    }

    fn status_of(&self, credential: &Credential) -> Value {
        let get = format!("GET {DEFAULT}/{}", credential.username);
        let found = self.admin(&get, None);
        found.body["status"].clone()
    }

    fn number(&self, select: &str) -> i64 {
        let store = rusqlite::Connection::open(self.daemon.store()).unwrap();
        store.query_row(select, [], |row| row.get(0)).unwrap()
    }

    fn records(&self, action: &str) -> i64 {
        self.number(&format!(
            "SELECT count(DISTINCT object) FROM audit_log WHERE action = '{action}'"
        ))
    }
}

fn counts(answer: &Answer) -> [i64; 4] {
    ["selected", "done", "unchanged", "failed"].map(|key| answer.body[key].as_i64().expect(key))
}

#[test]
fn each_of_a_filter_is_changed_with_a_record_of_its_own() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let used = served.daemon.create();
    served.import(450);
    served.daemon.succeed(&["organization", "create", "acme"]);
    let foreign = ["credential", "create", "--org", "acme"];
    let foreign = served.daemon.json(&foreign);
    served.log_in(&used).expect("235");

    // Also before that login is written.
    let since = format!("{:.3}", jiff::Timestamp::now());
    served.log_in(&used).expect("235");
    let unused = json!({ "unused_since": since, "text": used.username });
    let none = json!({ "action": "revoke", "filter": unused, "dry_run": true });
    assert_eq!(counts(&served.bulk(none).expect(200)), [0, 0, 0, 0]);

    let ahead = json!({ "unused_since": "2999-01-01T00:00:00Z" });
    let all = json!({ "action": "revoke", "filter": ahead });
    served.bulk(all).problem(422, "invalid");
    let unused = json!({ "unused_since": "0s", "text": "user" });
    let mut revoke = json!({ "action": "revoke", "filter": unused, "dry_run": true });
    let preview = served.bulk(revoke.clone()).expect(200);
    assert_eq!(counts(&preview), [450, 0, 0, 0]);
    assert_eq!(served.records("credential.revoke"), 0);
    revoke["dry_run"] = json!(false);
    let done = served.bulk(revoke.clone()).expect(200);
    assert_eq!(counts(&done), [450, 450, 0, 0]);
    assert_eq!(done.body["more"], false);
    assert_eq!(served.records("credential.revoke"), 450);
    let again = served.bulk(revoke).expect(200);
    assert_eq!(counts(&again), [0, 0, 0, 0], "nothing is left to revoke");
    assert_eq!(served.status_of(&used), "active");

    let chosen = json!(["user1", "user2", "user2", "nobody", foreign["username"]]);
    let enable = json!({ "action": "enable", "usernames": chosen });
    let done = served.bulk(enable.clone()).expect(200);
    assert_eq!(counts(&done), [4, 2, 0, 2]);
    for (failure, username) in [(0, "nobody"), (1, foreign["username"].as_str().unwrap())] {
        let failure = &done.body["failures"][failure];
        assert_eq!(failure["username"], username);
        assert!(failure["reason"].as_str().unwrap().contains(username));
    }
    assert_eq!(served.records("credential.enable"), 2);
    let again = served.bulk(enable).expect(200);
    assert_eq!(counts(&again), [4, 0, 2, 2]);

    // A filter narrows usernames.
    let expire = json!({
        "action": "expire", "expires_at": "2020-01-01T00:00:00Z",
        "usernames": ["user1", "user3"], "filter": { "status": "active" },
    });
    assert_eq!(counts(&served.bulk(expire).expect(200)), [1, 1, 0, 0]);
    let never = json!({ "action": "expire", "expires_at": null, "usernames": ["user1", "user3"] });
    assert_eq!(counts(&served.bulk(never).expect(200)), [2, 1, 1, 0]);

    let delete = json!({ "action": "delete", "filter": { "status": "revoked" } });
    assert_eq!(counts(&served.bulk(delete).expect(200)), [448, 448, 0, 0]);
    assert_eq!(served.records("credential.delete"), 448);
    assert_eq!(served.number("SELECT count(*) FROM credentials"), 4);
}

#[test]
fn the_most_credentials_of_one_change_are_written_before_it_is_answered() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    served.import(20_001);
    let used = served.daemon.create();
    let revoke = json!({ "action": "revoke", "filter": { "text": "user" } });
    let mut request = served.begin(BULK, &revoke);
    // Mail goes on meanwhile.
    eventually("some are revoked", || {
        let mut client = Client::logged_in(&served.daemon, &used);
        client
            .send_message(b"Subject: x\r\n\r\nx\r\n")
            .expect("250");
        client.expect("QUIT", "221");
        let revoked = "SELECT count(*) FROM credentials WHERE status = 'revoked'";
        (served.number(revoked) > 0).then_some(())
    });
    request
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    let mut answer = vec![0; 4_096];
    let length = request.read(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("\"selected\":20000,\"more\":true,"),
        "{answer}"
    );
    assert_eq!(served.records("credential.revoke"), 20_000);
    let rest = json!({ "action": "revoke", "filter": {} , "dry_run": true });
    assert_eq!(counts(&served.bulk(rest).expect(200)), [2, 0, 0, 0]);
}

#[test]
fn a_malformed_or_foreign_change_of_many_is_refused_whole() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let one = served.daemon.create();
    let own = served.token_named("own", "org:default:admin");
    let reader = served.token_named("reader", "org:default:read");
    served.daemon.succeed(&["organization", "create", "acme"]);
    let foreign = served.token_named("foreign", "org:acme:admin");
    let revoke = json!({ "action": "revoke", "usernames": [one.username] });
    for token in [&reader, &foreign] {
        served.by(token, BULK, Some(revoke.clone())).expect(403);
    }
    served.by("", BULK, Some(revoke.clone())).expect(401);
    for wrong in [
        json!({ "action": "revoke" }),
        json!({ "action": "rename", "usernames": [one.username] }),
        json!({ "action": "expire", "usernames": [one.username] }),
        json!({ "action": "revoke", "usernames": [one.username], "expires_at": null }),
        json!({ "action": "revoke", "filter": { "state": "active" } }),
        json!({ "action": "revoke", "usernames": vec!["x"; 20_001] }),
    ] {
        served.bulk(wrong.clone()).problem(422, "invalid");
    }
    let nowhere = "POST /api/v1/organizations/nowhere/bulk";
    served.admin(nowhere, Some(revoke.clone())).expect(404);
    served.log_in(&one).expect("235");
    let done = served.by(&own, BULK, Some(revoke)).expect(200);
    assert_eq!(counts(&done), [1, 1, 0, 0]);
    served.log_in(&one).expect("535 5.7.8");
}

#[test]
fn a_deletion_by_command_keeps_what_was_not_confirmed_or_has_changed_since() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let [deleted, changed] = [(); 2].map(|()| served.daemon.create());
    let delete = served
        .daemon
        .command(&["credential", "delete", "--status", "active"]);
    let words = std::iter::once(delete.get_program()).chain(delete.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().expect("UTF-8")).collect();
    // The question needs a terminal.
    let mut terminal = Command::new("script")
        .args(["-qec", &words.join(" "), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run script");
    let mut output = terminal.stdout.take().expect("a pipe");
    let mut told = String::new();
    while !told.ends_with("to confirm: ") {
        let mut letter = [0];
        output.read_exact(&mut letter).expect(&told);
        told.push(char::from(letter[0]));
    }
    assert!(
        told.contains("This deletes 2 credentials for good."),
        "{told}"
    );
    served
        .daemon
        .succeed(&["credential", "revoke", &changed.username]);
    let new = served.daemon.create();
    let mut input = terminal.stdin.take().expect("a pipe");
    input.write_all(b"2\n").expect("answer");
    let mut rest = Vec::new();
    output.read_to_end(&mut rest).expect("the end");
    let rest = String::from_utf8_lossy(&rest);
    let expected = "Deleted 1 credential. Left 1 credential, no longer as confirmed.";
    assert!(rest.contains(expected), "{rest}");
    assert!(terminal.wait().expect("an end").success());
    for (credential, status) in [(&changed, json!("revoked")), (&new, json!("active"))] {
        assert_eq!(served.status_of(credential), status);
    }
    assert_eq!(
        served.status_of(&deleted),
        json!(404),
        "the problem says so"
    );
}

#[test]
fn many_are_refused_at_once_while_the_store_is_locked_and_written_later() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let [one, other] = [(); 2].map(|()| served.daemon.create());
    served.import(2_500);
    let lock = Lock::take(&served.daemon.store());
    let began = Instant::now();
    let revoke = json!({ "action": "revoke", "filter": {} });
    let answer = served.bulk(revoke).problem(507, "effective-not-durable");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("2502 credentials"), "{detail}");
    for credential in [&one, &other] {
        served.log_in(credential).expect("535 5.7.8");
        assert_eq!(served.status_of(credential), "revoked");
    }
    served
        .daemon
        .wait_for_log(&["the changes count, but they cannot be written yet"]);
    // Access is given back where the store can be written, and only there.
    let enable = json!({ "action": "enable", "usernames": [one.username] });
    let refused = served.bulk(enable.clone());
    assert!(refused.status >= 500, "{}", refused.body);
    served.log_in(&one).expect("535 5.7.8");
    drop(lock);
    let revoked = "SELECT count(*) FROM credentials WHERE status = 'revoked'";
    eventually("all are written", || {
        (served.number(revoked) == 2_502).then_some(())
    });
    assert_eq!(served.records("credential.revoke"), 2_502);
    let records = "SELECT count(*) FROM audit_log WHERE action = 'credential.revoke'";
    assert_eq!(served.number(records), 2_502, "one for each");
    let done = served.bulk(enable).expect(200);
    assert_eq!(counts(&done), [1, 1, 0, 0]);
    served.log_in(&one).expect("235");
    served.log_in(&other).expect("535 5.7.8");
}

#[test]
fn sessions_end_only_if_asked_for() {
    let upstream = Upstream::start();
    let served = Served::start(&upstream);
    let [one, other] = [(); 2].map(|()| served.daemon.create());
    let mut sessions =
        [&one, &other].map(|own| crate::support::client::Client::logged_in(&served.daemon, own));
    let mut revoke = json!({ "action": "revoke", "usernames": [one.username] });
    served.bulk(revoke.clone()).expect(200);
    sessions[0].expect("NOOP", "250");
    revoke["usernames"] = json!([other.username]);
    revoke["disconnect"] = json!(true);
    served.bulk(revoke).expect(200);
    sessions[1].reply().expect("421 4.7.0");
    let ended = "SELECT count(*) FROM audit_log WHERE action LIKE '%disconnect%'";
    assert_eq!(served.number(ended), 1);
}

#[test]
fn a_command_changes_many_also_while_the_store_is_locked() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let socket = socket.to_str().unwrap();
    let served = Served::start_with(&upstream, |config| config.text("admin", "socket", socket));
    let [one, other] = [(); 2].map(|()| served.daemon.create());
    served.log_in(&one).expect("235");
    let revoke = ["credential", "revoke", "--unused-since", "0s", "--json"];
    let done = served.daemon.succeed(&revoke);
    assert!(
        done.contains(&other.username) || done.contains(&one.username),
        "{done}"
    );
    served.log_in(&other).expect("535 5.7.8");
    served
        .daemon
        .succeed(&["credential", "enable", "--org", "default"]);
    for credential in [&one, &other] {
        served.log_in(credential).expect("235");
    }
    let lock = Lock::take(&served.daemon.store());
    let revoke = ["credential", "revoke", "--org", "default"];
    let output = served.daemon.command(&revoke).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{error}");
    assert!(
        error.contains("2 credentials are refused from now on"),
        "{error}"
    );
    for credential in [&one, &other] {
        served.log_in(credential).expect("535 5.7.8");
    }
    drop(lock);
    let revoked = "SELECT count(*) FROM credentials WHERE status = 'revoked'";
    eventually("both are written", || {
        (served.number(revoked) == 2).then_some(())
    });
}
