//! `gatepost doctor` at a real Postfix: well, and in every trap that somebody fell into.

use std::fmt::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, date_time_ymd};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::gatepost::Gatepost;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::{Config, Site};
use crate::support::upstream::{Act, Upstream};
use crate::support::{eventually, tls};

/// What the manual has, beside what every test's Postfix does.
const STRICT: &str = "\n  -o smtpd_forbid_bare_newline=yes";

fn postfix(sockets: Sockets) -> Postfix {
    let mut postfix = Postfix::start(sockets);
    postfix.with_options(|own| own + STRICT);
    postfix
}

fn config(postfix: &Postfix) -> Config {
    let config = Config::for_upstream(postfix.upstream());
    postfix.asks(config)
}

/// An examination: its exit code and its one document.
struct Examined {
    code: i32,
    document: Value,
}

impl Examined {
    fn of(site: &Site, postfix: Option<&Path>) -> Examined {
        let output = run(site, postfix, &["--json"]);
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let document = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!(
                "{error} in {text:?}, {}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        Examined {
            code: output.status.code().expect("an exit code"),
            document,
        }
    }

    fn findings(&self) -> &[Value] {
        self.document["findings"].as_array().expect("a list")
    }

    /// All that is not as it should be.
    fn complaints(&self) -> Vec<String> {
        let bad = self
            .findings()
            .iter()
            .filter(|found| found["level"] != "ok");
        bad.map(|found| format!("{} {}", found["level"], found["check"]).replace('"', ""))
            .collect()
    }

    #[track_caller]
    fn assert_well(&self) {
        assert_eq!(self.code, 0, "{:#}", self.document);
        assert_eq!(self.document["well"], true, "{:#}", self.document);
        assert!(self.complaints().is_empty(), "{:#}", self.document);
    }

    /// The finding about `check` of this level, whose words hold `part`; and the exit code that
    /// belongs to it.
    #[track_caller]
    fn found(&self, level: &str, check: &str, part: &str) -> &Value {
        let fits = |found: &&Value| {
            let words = found["found"].as_str().expect("words");
            found["level"] == level && found["check"] == check && words.contains(part)
        };
        let found = self.findings().iter().find(fits);
        let found = found.unwrap_or_else(|| panic!("{level} {check}: {part}\n{:#}", self.document));
        assert!(!found["next"].as_str().expect("a next step").is_empty());
        if level == "problem" {
            assert_eq!(
                (self.code, &self.document["well"]),
                (1, &Value::Bool(false))
            );
        }
        found
    }
}

/// The lines that a finding says to add.
fn lines(finding: &Value, file: &str) -> Vec<String> {
    assert_eq!(finding["file"], file, "{finding:#}");
    let lines = finding["lines"].as_array().expect("lines").iter();
    lines
        .map(|line| line.as_str().expect("a line").to_owned())
        .collect()
}

fn run(site: &Site, postfix: Option<&Path>, more: &[&str]) -> Output {
    let ca = site.path("ca.pem");
    // Made once: what is trusted does not change with what is shown.
    if !ca.exists() {
        std::fs::copy(site.path("certificate.pem"), &ca).expect("copy the certificate");
    }
    let mut arguments = vec!["doctor", "--ca", ca.to_str().unwrap()];
    if let Some(postfix) = postfix {
        arguments.extend(["--postfix", postfix.to_str().unwrap()]);
    }
    arguments.extend(more);
    let output = site.run(&arguments);
    // Nobody but the doctor knows the password, but how it looks.
    for said in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(said).contains("sk_"), "{output:?}");
    }
    output
}

fn examine(gatepost: &Gatepost, postfix: &Postfix) -> Examined {
    Examined::of(gatepost, Some(postfix.configuration()))
}

/// How many rows each table of the store has.
fn rows(site: &Site) -> Vec<(String, i64)> {
    let connection = rusqlite::Connection::open(site.store()).expect("open the store");
    let mut tables = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        .expect("read the schema");
    let names = tables.query_map([], |row| row.get::<_, String>(0));
    let names: Vec<_> = names.expect("tables").map(Result::unwrap).collect();
    let count = |name: String| {
        let count = format!("SELECT count(*) FROM {name}");
        let count = connection.query_row(&count, [], |row| row.get(0));
        (name, count.expect("a count"))
    };
    names.into_iter().map(count).collect()
}

#[test]
fn a_healthy_site_is_all_well_and_nothing_is_left_of_the_examination() {
    for sockets in [Sockets::Tcp, Sockets::Unix] {
        let postfix = postfix(sockets);
        // Written at once, so that what was used shows in the store before it is deleted.
        let gatepost =
            Gatepost::start(config(&postfix).text("last_used", "flush_interval", "50ms"));
        let before = rows(&gatepost);
        let examined = examine(&gatepost, &postfix);
        examined.assert_well();
        let checks: Vec<_> = examined
            .findings()
            .iter()
            .map(|found| &found["check"])
            .collect();
        for check in [
            "config",
            "listener",
            "login",
            "identity",
            "pipelining",
            "credential",
            "certificate",
            "upstream",
            "xclient",
            "ipv6",
            "sasl",
            "limits",
            "newlines",
        ] {
            assert!(checks.iter().any(|found| *found == check), "no {check}");
        }

        let audit = gatepost.json(&["audit", "list"]);
        let actions: Vec<_> = audit
            .as_array()
            .expect("a list")
            .iter()
            .map(|record| {
                (
                    record["action"].as_str().unwrap(),
                    record["object"].as_str().unwrap(),
                )
            })
            .collect();
        let [("credential.delete", deleted), ("credential.create", made)] = actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(deleted, made);
        let after: Vec<_> = rows(&gatepost)
            .into_iter()
            .map(|(name, count)| match name.as_str() {
                "audit_log" => (name, count - 2),
                _ => (name, count),
            })
            .collect();
        assert_eq!(after, before);

        // The login as it was on the wire, as far as it is known here: what precedes the password.
        let start = STANDARD.encode(&format!("\0{made}\0sk_").as_bytes()[..24]);
        let log = gatepost.log() + &postfix.log();
        assert!(log.contains(made), "the login is logged");
        assert!(!log.contains(&start) && !log.contains("sk_"));
        assert!(!postfix.log().contains("from=<"), "a message was sent");
    }
}

#[test]
fn people_get_a_line_for_each_finding_and_below_it_what_to_do() {
    let mut postfix = postfix(Sockets::Tcp);
    let gatepost = Gatepost::start(config(&postfix));
    let directory = postfix.configuration().to_owned();
    let output = run(&gatepost, Some(&directory), &[]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.ends_with("\nMail can flow.\n"), "{text}");
    assert!(
        text.lines()
            .rev()
            .skip(1)
            .all(|line| line.starts_with("ok ")),
        "{text}"
    );

    postfix.with_options(|own| own.replace("connection_count_limit=0", "connection_count_limit=9"));
    let output = run(&gatepost, Some(&directory), &[]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.ends_with("\nMail can flow. Warnings: 1.\n"), "{text}");
    let below = text.split_once("\nwarning  limits ").expect("a warning").1;
    let next = format!(
        "next: add to the service {} in {}/master.cf, then: postfix reload\n",
        postfix.upstream(),
        directory.display()
    );
    assert!(below.contains(&next), "{text}");
    assert!(
        below.contains("  -o smtpd_client_connection_count_limit=0\n"),
        "{text}"
    );
}

#[test]
fn what_master_cf_lacks_is_named_and_following_the_lines_mends_it() {
    let mut postfix = Postfix::start(Sockets::Tcp);
    let drop = |own: String, options: &[&str]| {
        options.iter().fold(own, |own, option| {
            let without = own.replace(option, "");
            assert_ne!(without, own, "{option} was there");
            without
        })
    };
    postfix.with_options(|own| {
        drop(
            own,
            &[
                "-o smtpd_authorized_xclient_hosts=127.0.0.1",
                "-o smtpd_client_connection_count_limit=0",
                "-o smtpd_sasl_auth_enable=yes",
                "-o smtpd_sasl_type=dovecot",
            ],
        )
    });
    let gatepost = Gatepost::start(config(&postfix));
    let follow = |postfix: &mut Postfix, findings: &[&Value]| {
        let mut added = String::new();
        for line in findings.iter().flat_map(|found| lines(found, "master.cf")) {
            write!(added, "\n  {line}").unwrap();
        }
        postfix.with_options(|own| own + &added);
    };

    let examined = examine(&gatepost, &postfix);
    examined.found("problem", "login", "454");
    let xclient = examined.found("problem", "xclient", "does not offer XCLIENT");
    assert_eq!(
        lines(xclient, "master.cf"),
        ["-o smtpd_authorized_xclient_hosts=127.0.0.1"]
    );
    follow(&mut postfix, &[xclient]);

    // Now logins get through to where they are ignored.
    let examined = examine(&gatepost, &postfix);
    assert!(
        !examined
            .complaints()
            .iter()
            .any(|bad| bad.ends_with("xclient"))
    );
    examined.found("problem", "identity", "Access denied");
    let sasl = examined.found("problem", "sasl", "ignores XCLIENT's login");
    let limits = examined.found(
        "warning",
        "limits",
        "smtpd_client_connection_count_limit=50",
    );
    let newlines = examined.found("warning", "newlines", "smtpd_forbid_bare_newline=no");
    follow(&mut postfix, &[sasl, limits, newlines]);

    examine(&gatepost, &postfix).assert_well();
}

#[test]
fn a_missing_auth_socket_silences_the_service_until_the_lines_are_followed() {
    let mut postfix = postfix(Sockets::Tcp);
    // Several checks wait as long as this for an smtpd that does not come.
    let config = Config::for_upstream(postfix.upstream());
    let config = config.text("upstream", "handoff_timeout", "3s");
    let site = Arc::new(Site::new(config));
    let gatepost = Gatepost::serve(&site);
    let examined = examine(&gatepost, &postfix);
    examined.found("problem", "upstream", "at greeting");
    let sasl = examined.found("problem", "sasl", "no [dovecot_auth]");
    let added = lines(sasl, "config.toml").join("\n");
    gatepost.kill();
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(site.config(), format!("{text}\n{added}\n")).unwrap();
    let gatepost = Gatepost::serve(&site);
    // The service is held back for a minute, unless Postfix is restarted.
    postfix.with_options(|own| own);
    examine(&gatepost, &postfix).assert_well();

    // The other side is wrong.
    postfix.with_options(|own| own.replace("smtpd_sasl_path=inet:", "smtpd_sasl_path=private/"));
    let examined = examine(&gatepost, &postfix);
    let sasl = examined.found("problem", "sasl", "smtpd asks for a login at private/");
    assert_eq!(
        lines(sasl, "master.cf"),
        [format!("-o smtpd_sasl_path=inet:{}", postfix.auth())]
    );
}

#[test]
fn a_postfix_without_ipv6_is_a_problem_only_with_ipv6_listeners() {
    let mut postfix = postfix(Sockets::Tcp);
    let site = Arc::new(Site::new(config(&postfix)));
    let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("an IPv6 loopback");
    let address: SocketAddr = listener.local_addr().unwrap();
    drop(listener);
    let text = std::fs::read_to_string(site.config()).unwrap();
    let more = format!("\n[[listener]]\nkind = \"submissions\"\naddress = \"{address}\"\n");
    std::fs::write(site.config(), text + &more).unwrap();
    let gatepost = Gatepost::serve(&site);

    let examined = examine(&gatepost, &postfix);
    examined.found("problem", "login", &address.to_string());
    let found = examined.found("problem", "ipv6", "501");
    let added = lines(found, "main.cf").join("\n");
    postfix.with_main_cf(|text| text.replace("inet_protocols = ipv4", &added));
    examine(&gatepost, &postfix).assert_well();
}

#[test]
fn what_smtpd_cannot_start_with_is_named() {
    let mut postfix = postfix(Sockets::Tcp);
    postfix.with_options(|own| {
        own.replace(
            "permit_sasl_authenticated,reject",
            "permit_sasl_authenticated",
        )
    });
    let config = config(&postfix).text("upstream", "handoff_timeout", "1s");
    let gatepost = Gatepost::start(config);
    let examined = examine(&gatepost, &postfix);
    examined.found("problem", "upstream", "at greeting");
    let found = examined.found("problem", "restrictions", "ends in reject");
    assert_eq!(lines(found, "master.cf").len(), 2);
}

#[test]
fn a_service_that_says_nothing_or_is_not_there_is_told() {
    let upstream = Upstream::start();
    upstream.on("<greeting>", Act::Silence);
    let config =
        Config::for_upstream(upstream.address).text("upstream", "handoff_timeout", "300ms");
    let gatepost = Gatepost::start(config);
    let examined = Examined::of(&gatepost, None);
    examined.found("problem", "upstream", "it did not answer in time");
    examined.found("problem", "login", "454");

    let postfix = postfix(Sockets::Tcp);
    drop(upstream);
    let examined = examine(&gatepost, &postfix);
    let found = examined.found("problem", "upstream", "at connect");
    assert!(lines(found, "master.cf")[0].ends_with(" inet n - n - - smtpd"));
}

#[test]
fn certificates_that_mail_programs_refuse_are_told() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let directory = site.path("");
    let ca = site.path("ca.pem");
    let show = |names: &[&str], years: (i32, i32)| {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        tls::write_certificate_of(&directory, params);
        std::fs::copy(site.path("certificate.pem"), &ca).expect("trust it");
        let gatepost = Gatepost::serve(&site);
        let examined = Examined::of(&gatepost, None);
        gatepost.kill();
        examined
    };
    let right = "mail.example.test";
    show(&["www.example.test"], (2020, 4000)).found(
        "problem",
        "certificate",
        "not for mail.example.test but for www.example.test",
    );
    show(&[right], (2020, 2021)).found("problem", "certificate", "expired on 2021-01-01");
    let fine = show(&[right], (2020, 4000));
    assert!(
        !fine
            .complaints()
            .iter()
            .any(|bad| bad.contains("certificate"))
    );
    assert_eq!(fine.code, 0);

    // Nobody was told to trust the next one, and then the file is another one than what is shown.
    site.renew_certificate();
    let gatepost = Gatepost::serve(&site);
    Examined::of(&gatepost, None).found("warning", "certificate", "signed by itself");
    site.renew_certificate();
    Examined::of(&gatepost, None).found("warning", "certificate", "another one than in");
}

#[test]
fn a_listener_that_is_down_is_told_from_a_gatepost_that_is_down() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let gatepost = Gatepost::serve(&site);
    // Written after the start.
    let text = std::fs::read_to_string(site.config()).unwrap();
    let more = "\n[[listener]]\nkind = \"submission\"\naddress = \"127.0.0.1:1\"\n";
    std::fs::write(site.config(), text + more).unwrap();
    let examined = Examined::of(&site, None);
    examined.found("problem", "listener", "127.0.0.1:1: cannot connect");
    let logins = examined
        .findings()
        .iter()
        .filter(|found| found["check"] == "login");
    assert!(logins.clone().count() == 2 && logins.clone().all(|found| found["level"] == "ok"));

    gatepost.kill();
    let examined = Examined::of(&site, None);
    examined.found("problem", "daemon", "does not run");
    assert!(
        !examined
            .findings()
            .iter()
            .any(|found| found["check"] == "login")
    );
    assert_eq!(site.json(&["credential", "list"]), Value::Array(Vec::new()));
}

#[test]
fn a_listener_that_somebody_else_has_is_told() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let gatepost = Gatepost::serve(&site);
    other.on(
        "EHLO",
        Act::Reply("250-postfix.example.test\r\n250 PIPELINING"),
    );
    let text = std::fs::read_to_string(site.config()).unwrap();
    let address = other.address;
    let more = format!("\n[[listener]]\nkind = \"submission\"\naddress = \"{address}\"\n");
    std::fs::write(site.config(), text + &more).unwrap();
    let examined = Examined::of(&gatepost, None);
    examined.found("problem", "listener", &address.to_string());
}

#[test]
fn what_cannot_be_told_is_said_so_and_is_no_failure() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let nowhere = gatepost.path("nowhere");
    let examined = Examined::of(&gatepost, Some(&nowhere));
    assert_eq!(examined.code, 0, "{:#}", examined.document);
    assert_eq!(
        examined.complaints(),
        ["unknown sasl", "unknown limits", "unknown newlines"]
    );
}

#[test]
fn a_broken_configuration_is_one_document_too() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    std::fs::write(site.config(), "nonsense = 1\n").unwrap();
    let examined = Examined::of(&site, None);
    assert_eq!(examined.code, 78);
    assert_eq!(examined.complaints(), ["problem config"]);
}

#[test]
fn an_interrupted_examination_deletes_its_credential() {
    let upstream = Upstream::start();
    // The login waits for an upstream that says nothing, so the credential is there for a while.
    upstream.on("<greeting>", Act::Silence);
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let list = || {
        gatepost
            .json(&["credential", "list"])
            .as_array()
            .unwrap()
            .len()
    };
    for signal in [Signal::INT, Signal::TERM] {
        let mut command: Command = gatepost.command(&["doctor"]);
        let doctor = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let doctor = doctor.expect("start the doctor");
        eventually("the credential is made", || (list() == 1).then_some(()));
        kill_process(Pid::from_child(&doctor), signal).expect("signal the doctor");
        let output = doctor.wait_with_output().expect("reap the doctor");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("interrupted"), "{error}");
        assert_eq!(list(), 0, "{signal:?}");
    }
}

#[test]
fn a_postfix_that_is_told_of_clients_otherwise_is_examined_too() {
    let mut postfix = postfix(Sockets::Tcp);
    let proxied = Config::for_upstream(postfix.proxied)
        .text("upstream", "identity", "proxy")
        .text("dovecot_auth", "listen", &postfix.auth());
    let examined = examine(&Gatepost::start(proxied), &postfix);
    examined.found("warning", "newlines", "smtpd_forbid_bare_newline=no");
    let identity = examined.found("problem", "identity", "Access denied");
    let next = identity["next"].as_str().unwrap();
    assert!(next.contains("is told no login"), "{next}");
    assert!(!examined.complaints().contains(&"warning limits".to_owned()));

    // Told nothing, it takes all clients for one; and an organization's own upstream counts as well.
    postfix.with_options(|own| own.replace("connection_count_limit=0", "connection_count_limit=9"));
    let acme = "upstream.organizations.acme";
    let untold = config(&postfix)
        .text("upstream", "identity", "none")
        .flag("upstream", "trusted", true)
        .flag(acme, "trusted", true)
        .text(acme, "address", "nowhere.invalid:25");
    let examined = examine(&Gatepost::start(untold), &postfix);
    let limits = "smtpd_client_connection_count_limit=9 holds for all clients together";
    examined.found("warning", "limits", limits);
    examined.found("problem", "upstream", "nowhere.invalid:25 has no address");
}
