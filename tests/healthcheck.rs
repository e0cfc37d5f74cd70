//! `gatepost healthcheck`, as a container engine runs it: one line, and 0 or 1.

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::site::Config;
use crate::support::upstream::Upstream;

/// The exit code, and the line on either output.
fn check(daemon: &Gatepost) -> (Option<i32>, String) {
    let output = daemon.run(&["healthcheck"]);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("UTF-8");
    assert_eq!(text.lines().count(), 1, "{text}");
    (output.status.code(), text.trim().to_owned())
}

#[test]
fn it_exits_with_0_only_while_mail_gets_through() {
    let upstream = Upstream::start();
    let directory = tempfile::tempdir().expect("tempdir");
    let socket = directory.path().join("admin.sock");
    let config = Config::for_upstream(upstream.address);
    let config = config.text("admin", "socket", socket.to_str().expect("UTF-8"));
    let daemon = Gatepost::start(config);
    eventually("the first look at the upstream", || {
        (check(&daemon) == (Some(0), "ready".to_owned())).then_some(())
    });
    drop(upstream);
    let credential = daemon.create();
    let mut client = Client::submissions(&daemon);
    client.expect("EHLO client.test", "250");
    client.auth_plain(&credential).expect("454");
    let (code, line) = check(&daemon);
    assert_eq!(code, Some(1), "{line}");
    assert!(
        line.contains("the upstream does not take sessions"),
        "{line}"
    );

    let site = daemon.site();
    daemon.kill();
    let output = site.run(&["healthcheck"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("cannot reach Gatepost at"), "{text}");
}

#[test]
fn it_names_what_is_missing_in_the_configuration() {
    let upstream = Upstream::start();
    let daemon = Gatepost::start(Config::for_upstream(upstream.address));
    let (code, line) = check(&daemon);
    assert_eq!(code, Some(1), "{line}");
    assert!(line.contains("set socket in [admin]"), "{line}");
    let output = daemon.run(&["healthcheck", "--config", "/nonexistent.toml"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
