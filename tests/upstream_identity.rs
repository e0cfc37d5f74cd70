//! How an upstream learns whose session it gets, by each of the ways there are; and that nothing
//! passes where it cannot.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::relay::delivered;
use crate::support::auth_client::refuse_everybody_at;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::{Config, Credential, HOSTNAME, Site};
use crate::support::upstream::{Act, Upstream};

const OFFER: &str = "250-upstream.example.test\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n\
    250-8BITMIME\r\n250 AUTH PLAIN LOGIN";

fn client_from(gatepost: &Site, address: &str) -> Client {
    let client = Client::dial_from(address.parse().unwrap(), gatepost.submissions).unwrap();
    let mut client = client.over_tls();
    client.reply().expect("220");
    client.expect("EHLO client.example", "250");
    client
}

/// The login of a right password must be 454, and the upstream must not have heard of any mail.
#[track_caller]
fn assert_not_handed_over(gatepost: &Gatepost, credential: &Credential, log: &str) {
    let mut client = client_from(gatepost, Postfix::FRIEND);
    client.auth_plain(credential).expect("454 4.7.0");
    client.expect("MAIL FROM:<sender@example.test>", "530");
    gatepost.wait_for_log(&["did not take a session over", log]);
}

/// A file that holds a password, outside of every site: what a site says must not show it.
struct PasswordFile {
    directory: TempDir,
}

impl PasswordFile {
    fn new(password: &str) -> Self {
        let directory = TempDir::new().expect("tempdir");
        fs::write(directory.path().join("password"), format!("{password}\n")).expect("write");
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("password")
    }
}

fn with_account(config: Config, username: &str, file: &PasswordFile) -> Config {
    config
        .text("upstream", "identity", "login")
        .text("upstream", "username", username)
        .text("upstream", "password_file", file.path().to_str().unwrap())
}

fn proxied(address: impl std::fmt::Display, version: u64) -> Config {
    Config::for_upstream(address)
        .text("upstream", "identity", "proxy")
        .number("upstream", "proxy_version", version)
}

#[test]
fn a_proxy_header_of_either_version_tells_a_real_postfix_the_client() {
    let postfix = Postfix::start(Sockets::Tcp);
    for version in [1, 2] {
        let gatepost = Gatepost::start(proxied(postfix.proxied, version));
        assert!(
            !gatepost.log().contains("does not answer yet"),
            "{}",
            gatepost.log()
        );
        let credential = gatepost.create();
        let mut client = client_from(&gatepost, Postfix::FRIEND);
        client.auth_plain(&credential).expect("235");
        let marker = format!("proxied-{version}");
        let message = format!("Subject: {marker}\r\n\r\nhello\r\n");
        client.send_message(message.as_bytes()).expect("250");
        let message = postfix.wait_for_message(&format!("Subject: {marker}"));
        let text = String::from_utf8_lossy(&message);
        assert!(text.contains(&format!("[{}]", Postfix::FRIEND)), "{text}");
        // Only that address may send there, so the header is what it goes by.
        let mut stranger = client_from(&gatepost, "127.0.0.8");
        stranger.auth_plain(&credential).expect("235");
        stranger.expect("MAIL FROM:<sender@example.test>", "250");
        stranger.expect("RCPT TO:<box@example.test>", "554 5.7.1");
        let checked = gatepost.succeed(&["check"]);
        assert!(
            checked.contains(&format!("a PROXY header of version {version}")),
            "{checked}"
        );
    }
}

#[test]
fn a_postfix_that_expects_no_proxy_header_gets_no_session() {
    let postfix = Postfix::start(Sockets::Tcp);
    refuse_everybody_at(postfix.auth_address());
    for version in [1, 2] {
        let gatepost = Gatepost::start(proxied(postfix.behind_gatepost(), version));
        let credential = gatepost.create();
        assert_not_handed_over(&gatepost, &credential, "at ");
        let output = gatepost.run(&["check"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.contains("smtpd_upstream_proxy_protocol=haproxy"),
            "{said}"
        );
        assert_eq!(output.status.code(), Some(74));
    }
    assert!(
        !postfix.log().contains("sasl_username"),
        "{}",
        postfix.log()
    );
}

#[test]
fn a_postfix_that_waits_for_a_proxy_header_gets_no_session_without() {
    let postfix = Postfix::start(Sockets::Tcp);
    let config = Config::for_upstream(postfix.proxied).text("upstream", "handoff_timeout", "500ms");
    let gatepost = Gatepost::start(config);
    let credential = gatepost.create();
    assert_not_handed_over(&gatepost, &credential, "at greeting");
}

#[test]
fn an_account_of_our_own_logs_in_at_a_real_postfix_over_tls() {
    let postfix = Postfix::start(Sockets::Tcp);
    // Somebody else's gate, whose credential we have.
    let theirs = Config::for_upstream(postfix.upstream());
    let theirs = Gatepost::start(theirs.text("dovecot_auth", "listen", &postfix.auth()));
    let account = theirs.create();
    let file = PasswordFile::new(&account.password);
    for (tls, address) in [
        ("starttls", postfix.direct),
        ("implicit", postfix.direct_tls),
    ] {
        let config = with_account(Config::for_upstream(address), &account.username, &file)
            .text("upstream", "tls", tls)
            .text(
                "upstream",
                "tls_ca",
                postfix.certificate().to_str().unwrap(),
            );
        let gatepost = Gatepost::start(config);
        gatepost.remember(&account);
        let mut client = client_from(&gatepost, Postfix::FRIEND);
        client.auth_plain(&gatepost.create()).expect("235");
        let message = format!("Subject: by-account-{tls}\r\n\r\nhello\r\n");
        client.send_message(message.as_bytes()).expect("250");
        postfix.wait_for_message(&format!("Subject: by-account-{tls}"));
        let login = format!("sasl_username={}", account.username);
        postfix.wait_for_log(&["client=", "[127.0.0.1]", "sasl_method=PLAIN", &login]);
        let checked = gatepost.succeed(&["check"]);
        assert!(
            checked.contains("over verified TLS and lets every account in (1 of 1)"),
            "{checked}"
        );
    }
}

#[test]
fn a_refused_account_is_454_and_its_password_stays_out_of_the_log() {
    let upstream = Upstream::start();
    upstream.on("EHLO", Act::Reply(OFFER));
    // A server that says the command again.
    upstream.on(
        "AUTH PLAIN",
        Act::Reply("535 5.7.8 no: AUTH PLAIN AGdhdGUAaHVudGVyMg=="),
    );
    let file = PasswordFile::new("hunter2");
    let config = with_account(Config::for_upstream(upstream.address), "gate", &file);
    let gatepost = Gatepost::start(config);
    let credential = gatepost.create();
    assert_not_handed_over(
        &gatepost,
        &credential,
        "at auth: it answered the login of \"gate\" with 535",
    );
    let log = gatepost.log();
    assert!(
        !log.contains("AGdhdGU") && !log.contains("hunter2"),
        "{log}"
    );
    assert!(
        !upstream
            .sessions()
            .iter()
            .any(|session| session.heard("MAIL"))
    );
    let output = gatepost.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("check the username and its password_file"),
        "{said}"
    );
    assert!(!said.contains("AGdhdGU"), "{said}");
}

#[test]
fn an_upstream_that_takes_no_account_of_ours_gets_no_session() {
    let file = PasswordFile::new("hunter2");
    for offer in ["250-x\r\n250 SIZE 0", "250-x\r\n250 AUTH CRAM-MD5 GSSAPI"] {
        let upstream = Upstream::start();
        upstream.on("EHLO", Act::Reply(offer));
        let config = with_account(Config::for_upstream(upstream.address), "gate", &file);
        let gatepost = Gatepost::start(config);
        assert_not_handed_over(
            &gatepost,
            &gatepost.create(),
            "neither AUTH PLAIN nor AUTH LOGIN",
        );
        assert!(
            !upstream
                .sessions()
                .iter()
                .any(|session| session.heard("AUTH"))
        );
    }
}

#[test]
fn an_upstream_that_knows_login_only_is_logged_in_by_that() {
    let upstream = Upstream::start();
    upstream.on("EHLO", Act::Reply("250-x\r\n250 AUTH LOGIN"));
    upstream.on("AUTH LOGIN", Act::Reply("334 VXNlcm5hbWU6"));
    upstream.on("Z2F0ZQ==", Act::Reply("334 UGFzc3dvcmQ6"));
    upstream.on("aHVudGVyMg==", Act::Reply("235 2.7.0 in"));
    let file = PasswordFile::new("hunter2");
    let config = with_account(Config::for_upstream(upstream.address), "gate", &file);
    let gatepost = Gatepost::start(config);
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client
        .send_message(b"Subject: x\r\n\r\nhello\r\n")
        .expect("250");
    let session = upstream.wait_for("with the message", delivered);
    assert!(session.heard(&format!("EHLO {HOSTNAME}")), "{session:?}");
    assert!(!session.heard("EHLO client.example"), "{session:?}");
}

#[test]
fn each_organization_has_its_own_account_or_the_common_one_or_none() {
    let upstream = Upstream::start();
    upstream.on("EHLO", Act::Reply(OFFER));
    upstream.on("AUTH PLAIN", Act::Reply("235 2.7.0 in"));
    let file = PasswordFile::new("hunter2");
    let path = file.path();
    let path = path.to_str().unwrap();
    let own = "upstream.organizations.acme";
    let config = Config::for_upstream(upstream.address)
        .text("upstream", "identity", "login")
        .text(own, "username", "acme-account")
        .text(own, "password_file", path);
    let gatepost = Gatepost::start(config);
    gatepost.succeed(&["organization", "create", "acme"]);
    let created = gatepost.json(&["credential", "create", "--org", "acme"]);
    let created = Credential::from_json(created.to_string().as_bytes());
    Client::logged_in(&gatepost, &created);
    let plain = |username: &str| {
        let account = Credential {
            username: username.into(),
            password: "hunter2".into(),
        };
        format!("AUTH PLAIN {}", account.plain())
    };
    upstream.wait_for("of acme", |session| session.heard(&plain("acme-account")));
    // Nobody is sent under another's name.
    let before = upstream.sessions().len();
    assert_not_handed_over(&gatepost, &gatepost.create(), "no account for \"default\"");
    assert_eq!(upstream.sessions().len(), before, "dialled in vain");

    let config = with_account(Config::for_upstream(upstream.address), "common", &file)
        .text(own, "username", "acme-account")
        .text(own, "password_file", path);
    let gatepost = Gatepost::start(config);
    Client::logged_in(&gatepost, &gatepost.create());
    upstream.wait_for("of the others", |session| session.heard(&plain("common")));
}

#[test]
fn a_trusted_upstream_is_told_nothing() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address)
        .text("upstream", "identity", "none")
        .flag("upstream", "trusted", true);
    let gatepost = Gatepost::start(config);
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    client
        .send_message(b"Subject: x\r\n\r\nhello\r\n")
        .expect("250");
    client.expect("QUIT", "221");
    let session = upstream.wait_for("with the message", delivered);
    let hello = format!("EHLO {HOSTNAME}");
    let expected = [
        &hello,
        "MAIL FROM:<sender@example.test>",
        "RCPT TO:<box@example.test>",
        "DATA",
        "QUIT",
    ];
    assert_eq!(session.commands, expected);
    let checked = gatepost.succeed(&["check"]);
    assert!(
        checked.contains("and is told nothing of the clients"),
        "{checked}"
    );
}

#[test]
fn a_password_that_cannot_be_read_ends_the_start() {
    let file = PasswordFile::new("");
    let missing = file.path().with_file_name("none");
    for (path, cause) in [
        (file.path(), "the password is empty"),
        (missing, "No such file"),
    ] {
        let config = Config::for_upstream("127.0.0.1:1")
            .text("upstream", "identity", "login")
            .text("upstream", "username", "gate")
            .text("upstream", "password_file", path.to_str().unwrap());
        let site = Site::new(config);
        let output = site.run(&["serve"]);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains(cause) && said.contains(path.to_str().unwrap()),
            "{said}"
        );
        let output = site.run(&["check"]);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains(cause),
            "{output:?}"
        );
    }
}
