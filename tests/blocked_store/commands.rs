//! Commands that change something have the running Gatepost obey before they return.

use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::Blocked;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::site::{Config, Credential, Site};

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn no_login_behind_a_command_goes_by_the_time_before_it() {
    let blocked = Blocked::start();
    let daemon = &blocked.served.daemon;
    let credential = blocked.create();
    let name = &credential.username;
    for round in 0..30 {
        blocked.accepts(&credential);
        // Connected already, so that its login is all there is behind the command.
        let mut client = Client::submissions(daemon);
        client.expect("EHLO commands.example.test", "250");
        let revoked = daemon.run(&["credential", "revoke", name]);
        client.auth_plain(&credential).expect("535 5.7.8");
        assert!(revoked.status.success(), "{round}: {revoked:?}");
        assert_eq!(stderr(&revoked), "", "the running Gatepost confirmed it");
        daemon.succeed(&["credential", "enable", name]);
        client.auth_plain(&credential).expect("235");
    }
    let renewed = daemon.rotate(&credential);
    blocked.refuses(&credential);
    blocked.accepts(&renewed);
    daemon.succeed(&["organization", "suspend", "default"]);
    blocked.refuses(&renewed);
    daemon.succeed(&["organization", "activate", "default"]);
    blocked.accepts(&renewed);
    daemon.succeed(&["credential", "rules", name, "--networks", "192.0.2.0/24"]);
    blocked.refuses(&renewed);
    daemon.succeed(&["credential", "rules", name, "--networks", "any"]);
    blocked.accepts(&renewed);
    daemon.succeed(&["credential", "delete", name, "--yes"]);
    blocked.refuses(&renewed);
}

/// Every command that changes something.
fn changes(site: &Site, credential: &Credential) -> Vec<Vec<String>> {
    let file = site.path("passwd");
    std::fs::write(&file, "imported:{PLAIN}a-long-secret-of-mine\n").unwrap();
    let (name, file) = (&credential.username, file.to_str().unwrap());
    let lines = [
        "organization create acme".to_owned(),
        "organization rename acme Acme".to_owned(),
        "organization limit acme --sessions 5".to_owned(),
        "organization suspend acme".to_owned(),
        "organization activate acme".to_owned(),
        "organization delete acme --yes".to_owned(),
        "credential create".to_owned(),
        format!("credential rename {name} Printer"),
        format!("credential limit {name} --sessions 5"),
        format!("credential rules {name} --networks any"),
        format!("credential expire {name} 2099-01-01"),
        format!("credential rotate {name} --overlap 1h"),
        format!("credential end-overlap {name}"),
        format!("credential rotate {name}"),
        format!("credential revoke {name}"),
        format!("credential enable {name}"),
        format!("credential delete {name} --yes"),
        "token create --name t --scope instance:read".to_owned(),
        "token revoke t".to_owned(),
        format!("import --format dovecot {file}"),
    ];
    let words = |line: &String| line.split(' ').map(str::to_owned).collect();
    lines.iter().map(words).collect()
}

#[test]
fn every_change_says_where_no_gatepost_confirms_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let config = Config::for_upstream("127.0.0.1:1");
    let config = config.text("admin", "socket", socket.to_str().unwrap());
    let site = Arc::new(Site::new(config));
    let credential = site.create();
    for words in changes(&site, &credential) {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let output = site.run(&[&words[..], &["--json"]].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
        let document: Result<Value, _> = serde_json::from_slice(&output.stdout);
        assert!(document.is_ok(), "{words:?}");
        let said = stderr(&output);
        assert_eq!(said.lines().count(), 1, "{words:?}: {said}");
        assert!(said.contains("no running Gatepost answers"), "{said}");
    }
    for words in [
        &["credential", "list"][..],
        &["organization", "list"],
        &["organization", "limit", "default"],
        &["token", "list"],
    ] {
        let output = site.run(words);
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
}

#[test]
fn a_gatepost_that_hangs_does_not_hang_a_command() {
    let blocked = Blocked::start();
    let credential = blocked.create();
    let daemon = &blocked.served.daemon;
    daemon.freeze();
    let begun = Instant::now();
    let revoked = daemon.run(&["credential", "revoke", &credential.username]);
    let took = begun.elapsed();
    daemon.signal(Signal::CONT);
    assert!(revoked.status.success(), "{revoked:?}");
    let said = stderr(&revoked);
    assert!(said.contains("did not confirm"), "{said}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    eventually("it sees the change all the same", || {
        let reply = blocked.served.log_in(&credential);
        reply.starts_with("535 5.7.8").then_some(())
    });
}

#[test]
fn a_command_that_cannot_write_has_the_running_gatepost_refuse_at_once() {
    let blocked = Blocked::start();
    let daemon = &blocked.served.daemon;
    daemon.succeed(&["organization", "create", "acme"]);
    let other = blocked.create_in("acme");
    let [revoked, deleted, rotated] = [(); 3].map(|()| blocked.create());
    for credential in [&other, &revoked, &deleted, &rotated] {
        blocked.accepts(credential);
    }
    let lock = blocked.lock();
    let change = |words: &[&str], credential: &Credential| {
        let begun = Instant::now();
        let output = daemon.run(words);
        let (took, said) = (begun.elapsed(), stderr(&output));
        blocked.refuses(credential);
        assert_eq!(output.status.code(), Some(74), "{words:?}: {said}");
        assert!(said.contains("from now on"), "{words:?}: {said}");
        assert!(took < Duration::from_secs(4), "{words:?} took {took:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    change(&["credential", "revoke", &revoked.username], &revoked);
    change(
        &["credential", "delete", &deleted.username, "--yes"],
        &deleted,
    );
    let shown = change(&["credential", "rotate", &rotated.username], &rotated);
    assert_eq!(shown, "", "no password is shown that is not stored");
    change(&["organization", "suspend", "acme"], &other);
    lock.commit();
    let status = || {
        blocked
            .served
            .admin("GET /api/v1/status", None)
            .expect(200)
            .body
    };
    eventually("all are written", || {
        (status()["revocations_not_durable"] == 0).then_some(())
    });
    for credential in [&other, &revoked, &deleted, &rotated] {
        blocked.refuses(credential);
    }
    assert_eq!(blocked.shown(&revoked)["status"], json!("revoked"));
    let again = daemon.rotate(&rotated);
    blocked.accepts(&again);
}
