//! `gatepost doctor` at a real Postfix: well, and in every trap that somebody fell into.

use std::fmt::Write as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        Examined::from(run(site, postfix, &["--json"]))
    }

    fn from(output: Output) -> Examined {
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

    /// The one problem, which is about `check` and stands first.
    #[track_caller]
    fn only(&self, check: &str, part: &str) -> &Value {
        let found = self.found("problem", check, part);
        let problems = self.findings().iter();
        let problems = problems.filter(|found| found["level"] == "problem");
        assert_eq!(problems.count(), 1, "{:#}", self.document);
        assert_eq!(&self.findings()[0], found);
        found
    }

    /// That `check` is as it should be, and its words hold `part`.
    #[track_caller]
    fn found_ok(&self, check: &str, part: &str) {
        let mut findings = self.findings().iter();
        let fits = |found: &Value| {
            let words = found["found"].as_str().expect("words");
            found["level"] == "ok" && found["check"] == check && words.contains(part)
        };
        assert!(findings.any(fits), "{check}: {part}\n{:#}", self.document);
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
    run_as(site, postfix, more, |arguments| site.command(arguments))
}

/// The same as the program that `command` makes of the arguments.
fn run_as(
    site: &Site,
    postfix: Option<&Path>,
    more: &[&str],
    command: impl FnOnce(&[&str]) -> Command,
) -> Output {
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
    let output = command(&arguments).output().expect("run the doctor");
    // Nobody but the doctor knows the password, but how it looks.
    for said in [&output.stdout, &output.stderr] {
        site.secrets.note("doctor".to_owned(), said);
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
    let below = text
        .strip_prefix("warning  limits ")
        .expect("the warning first");
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
    let xclient = examined.found("problem", "xclient", "does not offer XCLIENT");
    // Another cause, and no more than these: failed logins and hand-overs only follow.
    examined.found("problem", "sasl", "ignores XCLIENT's login");
    let complaints = examined.complaints();
    assert_eq!(complaints[..2], ["problem sasl", "problem xclient"]);
    assert!(!complaints[2..].iter().any(|bad| bad.starts_with("problem")));
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
    let sasl = examined.only("sasl", "ignores XCLIENT's login");
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
    let site = Arc::new(Site::new(Config::for_upstream(postfix.upstream())));
    let gatepost = Gatepost::serve(&site);
    let examined = examine(&gatepost, &postfix);
    let sasl = examined.only("sasl", "no [dovecot_auth]");
    let added = lines(sasl, "config.toml").join("\n");
    gatepost.kill();
    let text = std::fs::read_to_string(site.config()).unwrap();
    let added = format!("{added}\ntrusted = true");
    std::fs::write(site.config(), format!("{text}\n{added}\n")).unwrap();
    let gatepost = Gatepost::serve(&site);
    // The service is held back for a minute, unless Postfix is restarted.
    postfix.with_options(|own| own);
    examine(&gatepost, &postfix).assert_well();

    // The other side is wrong.
    postfix.with_options(|own| own.replace("smtpd_sasl_path=inet:", "smtpd_sasl_path=private/"));
    let examined = examine(&gatepost, &postfix);
    let sasl = examined.only("sasl", "smtpd asks for a login at private/");
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
    let found = examined.only("restrictions", "ends in reject");
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
    examined.only("upstream", "it did not answer in time");

    // No service of this Postfix is meant for Gatepost.
    let mut postfix = postfix(Sockets::Tcp);
    postfix.with_options(|own| own.replace("-o smtpd_authorized_xclient_hosts=127.0.0.1", ""));
    drop(upstream);
    let examined = examine(&gatepost, &postfix);
    let found = examined.only("upstream", "at connect");
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
    let own = format!("{address} is taken by");
    let found = examined.only("ports", &own)["found"].as_str().unwrap();
    assert!(
        found.ends_with(&format!("(process {})", std::process::id())),
        "{found}"
    );
    let logins = examined.findings().iter();
    let logins = logins.filter(|found| found["check"] == "login");
    assert!(logins.clone().count() == 2 && logins.clone().all(|found| found["level"] == "ok"));
}

#[test]
fn what_cannot_be_told_is_said_so_and_is_no_failure() {
    let upstream = Upstream::start();
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let nowhere = gatepost.path("nowhere");
    let examined = Examined::of(&gatepost, Some(&nowhere));
    assert_eq!(examined.code, 0, "{:#}", examined.document);
    assert_eq!(examined.document["well"], false);
    assert_eq!(examined.complaints(), ["unknown settings"]);
    let text = run(&gatepost, Some(&nowhere), &[]).stdout;
    let text = String::from_utf8(text).expect("UTF-8");
    let end = "\nNo problem was found, but 1 check could not be made.\n";
    assert!(
        text.ends_with(end) && !text.contains("Mail can flow"),
        "{text}"
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
    // The envelope waits for an upstream that says nothing, so the credential is there for a while.
    upstream.on("MAIL", Act::Silence);
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

#[test]
fn a_postfix_that_is_down_is_one_problem() {
    let mut postfix = postfix(Sockets::Unix);
    let gatepost = Gatepost::start(config(&postfix));
    postfix.stop();
    examine(&gatepost, &postfix).only("postfix", "does not run");
    postfix.restart();
    examine(&gatepost, &postfix).assert_well();
}

#[test]
fn an_upstream_that_is_written_wrong_is_named_with_the_right_one() {
    let postfix = postfix(Sockets::Unix);
    let wrong = format!("{}ted", postfix.upstream());
    let gatepost = Gatepost::start(config(&postfix).text("upstream", "address", &wrong));
    let examined = examine(&gatepost, &postfix);
    let found = examined.only("upstream", "at connect");
    let right = format!("address = {:?}", postfix.upstream());
    assert_eq!(lines(found, "config.toml"), ["[upstream]", &right]);
}

#[test]
fn an_auth_socket_that_smtpd_cannot_use_is_one_problem() {
    let mut postfix = postfix(Sockets::Unix);
    let gatepost = Gatepost::start(config(&postfix).text("dovecot_auth", "group", "root"));
    let examined = examine(&gatepost, &postfix);
    examined.only("sasl", "which runs as postfix");
    gatepost.kill();

    // In a directory that smtpd with chroot does not see.
    let directory = tempfile::tempdir_in("/tmp").expect("a directory");
    let socket = directory.path().join("auth");
    let own = config(&postfix).text(
        "dovecot_auth",
        "listen",
        &format!("unix:{}", socket.display()),
    );
    let gatepost = Gatepost::start(own);
    postfix.with_options(|own| {
        let path = format!("smtpd_sasl_path={}", socket.display());
        own.replace("submit unix n - n", "submit unix n - y")
            .replace("smtpd_sasl_path=private/gatepost", &path)
    });
    examine(&gatepost, &postfix).only("sasl", "confined to Postfix's directory");
}

#[test]
fn restrictions_of_main_cf_that_refuse_every_client_are_named() {
    let mut postfix = Postfix::start_with(
        Sockets::Tcp,
        "smtpd_client_restrictions = permit_mynetworks, reject_unknown_client_hostname\n",
    );
    postfix.with_options(|own| own + STRICT);
    let gatepost = Gatepost::start(config(&postfix));
    let examined = examine(&gatepost, &postfix);
    let found = examined.only(
        "restrictions",
        "smtpd_client_restrictions refuses every client",
    );
    let line = lines(found, "master.cf").join("");
    assert_eq!(line, "-o smtpd_client_restrictions=");
    postfix.with_options(|own| format!("{own}\n  {line}"));
    examine(&gatepost, &postfix).assert_well();

    // Of a kind that the settings do not show: the envelope does.
    postfix.with_options(|own| {
        own.replace(
            &line,
            "-o smtpd_client_restrictions=check_client_access,static:reject",
        )
    });
    examine(&gatepost, &postfix).only("identity", "Client host rejected");
}

#[test]
fn options_of_a_commented_out_service_are_found_where_they_fell() {
    let mut postfix = postfix(Sockets::Tcp);
    let gatepost = Gatepost::start(config(&postfix));
    let port = crate::support::ports::free_address();
    postfix.with_master_cf(|text| {
        text + &format!(
            "{port} inet n - n - - smtpd\n#submission inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n"
        )
    });
    let examined = examine(&gatepost, &postfix);
    let part =
        format!("submission is commented out, but not its options: they belong to {port} now");
    let next = examined.only("postfix", &part)["next"].as_str().unwrap();
    assert!(next.starts_with("put a # before those lines"), "{next}");
}

#[test]
fn a_certificate_that_ends_in_five_days_is_a_warning() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let mut params = CertificateParams::new(["mail.example.test".to_owned()]).expect("a name");
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(5 * 24);
    let end = end.strftime("%Y %m %d").to_string();
    let numbers: Vec<u16> = end.split(' ').map(|part| part.parse().unwrap()).collect();
    let small = |number: u16| u8::try_from(number).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(numbers[0].into(), small(numbers[1]), small(numbers[2]));
    tls::write_certificate_of(&site.path(""), params);
    let gatepost = Gatepost::serve(&site);
    Examined::of(&gatepost, None).found("warning", "certificate", "expires in 4 days");
}

/// A systemd in which the unit of Gatepost is as `service` says: commands that answer as systemctl and
/// journalctl do.
struct Systemd {
    path: String,
}

impl Systemd {
    fn new(site: &Site, service: &str, sockets: &str, journal: &str) -> Systemd {
        let bin = site.path("bin");
        std::fs::create_dir_all(&bin).expect("a directory");
        let write = |name: &str, text: &str| std::fs::write(bin.join(name), text).expect("write");
        let command = format!("gatepost serve --config {}", site.config().display());
        write(
            "service",
            &format!(
                "LoadState=loaded\nExecStart={{ path=gatepost ; argv[]={command} ; ignore_errors=no }}\n\
                 TriggeredBy=gatepost.socket\n{service}\n"
            ),
        );
        write("socket", &format!("Id=gatepost.socket\n{sockets}\n"));
        write("journal", journal);
        let own = bin.display();
        let script = |name: &str, text: String| {
            write(name, &format!("#!/bin/sh\n{text}\n"));
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(bin.join(name), mode).expect("an executable");
        };
        script(
            "systemctl",
            format!(
                "case \"$*\" in *gatepost.service*) cat {own}/service;; *) cat {own}/socket;; esac"
            ),
        );
        script("journalctl", format!("cat {own}/journal"));
        let path = std::env::var("PATH").expect("PATH");
        Systemd {
            path: format!("{own}:{path}"),
        }
    }

    fn examine(&self, site: &Site) -> Examined {
        Examined::from(run_as(site, None, &["--json"], |arguments| {
            let mut command = site.command(arguments);
            command.env("PATH", &self.path);
            command
        }))
    }
}

/// Listens as systemd does for a service, and notices who connects.
fn awaiting(address: SocketAddr) -> TcpListener {
    let listener = TcpListener::bind(address).expect("listen");
    listener.set_nonblocking(true).expect("do not wait");
    listener
}

#[test]
fn a_service_that_fails_is_explained_without_a_connection() {
    let upstream = Upstream::start();
    let site = Site::new(Config::for_upstream(upstream.address));
    let listeners = [awaiting(site.submission), awaiting(site.submissions)];
    let journal =
        "Starting gatepost.service - Gatepost\ngatepost: the cause\ngatepost.service: Failed\n";
    let sockets = format!(
        "ActiveState=failed\nResult=service-start-limit-hit\nListen={} (Stream)\nListen={} (Stream)",
        site.submission, site.submissions
    );
    let failed = "ActiveState=failed\nResult=start-limit-hit\nNRestarts=20\nMainPID=0\nUser=root";
    // The ports are closed then, and here a stand-in for systemd's would notice a connection.
    let examined = Systemd::new(&site, failed, &sockets, journal).examine(&site);
    let found = examined.found("problem", "ports", "is taken by");
    let next = found["next"].as_str().unwrap();
    let reset = "systemctl reset-failed gatepost.socket gatepost && systemctl restart gatepost.socket gatepost";
    assert!(next.ends_with(reset), "{next}");
    for listener in &listeners {
        let error = listener.accept().map(drop).expect_err("no connection");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
    drop(listeners);
    let examined = Systemd::new(&site, failed, &sockets, journal).examine(&site);
    let found = examined.only("daemon", "service-start-limit-hit): gatepost: the cause");
    assert!(
        found["next"].as_str().unwrap().ends_with(reset),
        "{found:#}"
    );

    let failing = "ActiveState=activating\nSubState=auto-restart\nResult=exit-code\nNRestarts=2\nMainPID=0\nUser=root";
    let waiting = sockets
        .replace("failed", "active")
        .replace("service-start-limit-hit", "success");
    let examined = Systemd::new(&site, failing, &waiting, journal).examine(&site);
    examined.only("daemon", "does not start: gatepost: the cause");
}

#[test]
fn files_that_the_services_user_cannot_use_are_named_with_the_user() {
    let upstream = Upstream::start();
    let site = Site::new(Config::for_upstream(upstream.address));
    // So that only what is tried keeps the user out.
    let open = |path: &Path, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("set a mode");
    };
    let store = site.path("store");
    site.succeed(&["credential", "list"]);
    for (path, mode) in [
        (site.path(""), 0o755),
        (site.config(), 0o644),
        (site.path("certificate.pem"), 0o644),
        (site.path("key.pem"), 0o644),
        (store.clone(), 0o777),
        (site.store(), 0o666),
    ] {
        open(&path, mode);
    }
    for entry in std::fs::read_dir(&store).expect("the store") {
        open(&entry.expect("a file").path(), 0o666);
    }
    let failed = "ActiveState=failed\nResult=exit-code\nMainPID=0\nUser=nobody";
    let sockets = "ActiveState=active\nResult=success";
    let examine = || Systemd::new(&site, failed, sockets, "gatepost: no\n").examine(&site);
    examine().only("daemon", "does not start");
    open(&site.config(), 0o600);
    examine().only(
        "config",
        "nobody, the user that Gatepost runs as, may not read",
    );
    open(&site.config(), 0o644);
    open(&site.path("key.pem"), 0o600);
    examine().only("certificate", "key.pem");
    open(&site.path("key.pem"), 0o644);
    open(&site.store(), 0o644);
    let examined = examine();
    let next = examined.only("store", "may not write")["next"]
        .as_str()
        .unwrap();
    assert!(next.starts_with("chown -R nobody: "), "{next}");
}

#[test]
fn a_store_on_a_file_system_that_is_read_only_is_named() {
    let upstream = Upstream::start();
    let site = Site::new(Config::for_upstream(upstream.address));
    site.succeed(&["credential", "list"]);
    let store = site.path("store").display().to_string();
    let mount =
        format!("mount --bind {store} {store} && mount -o remount,ro,bind {store} && exec \"$@\"");
    let prefix = ["unshare", "--mount", "sh", "-c", &mount, "sh"].map(str::to_owned);
    let output = run_as(&site, None, &["--json"], |arguments| {
        site.command_behind(&prefix, arguments)
    });
    Examined::from(output).only("store", "is mounted read-only");
}

#[test]
fn ports_that_another_process_has_are_named_with_it() {
    let upstream = Upstream::start();
    let metrics = awaiting("127.0.0.1:0".parse().unwrap());
    let address = metrics.local_addr().unwrap();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let gatepost = Gatepost::serve(&site);
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(
        site.config(),
        format!("{text}[metrics]\nlisten = \"{address}\"\n"),
    )
    .unwrap();
    let examined = Examined::of(&site, None);
    assert_eq!(examined.code, 0);
    let holder = format!("process {}", std::process::id());
    examined.found("warning", "metrics", &holder);
    gatepost.kill();
    std::fs::write(site.config(), text).unwrap();

    let _taken = awaiting(site.submission);
    let examined = Examined::of(&site, None);
    examined.only(
        "ports",
        &format!("[[listener]] {} is taken by", site.submission),
    );
    examined.only("ports", &holder);
    let checked = site.run(&["check"]);
    let checked = String::from_utf8(checked.stdout).expect("UTF-8");
    assert!(
        checked.contains("FAIL  ports") && checked.contains(&holder),
        "{checked}"
    );
}

#[test]
fn what_the_unit_lacks_is_named() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let closed = "MainPID=0\nUser=root\nPrivateNetwork=yes\nRestrictAddressFamilies=AF_UNIX";
    let sockets = |of: &[SocketAddr]| {
        let listens: Vec<_> = of
            .iter()
            .map(|one| format!("\nListen={one} (Stream)"))
            .collect();
        format!("ActiveState=active\nResult=success{}", listens.join(""))
    };
    let failed = format!("ActiveState=failed\nResult=exit-code\n{closed}");
    let journal = "gatepost: cannot listen\n";
    let examined =
        Systemd::new(&site, &failed, &sockets(&[site.submissions]), journal).examine(&site);
    let missing = examined.found("problem", "sockets", &site.submission.to_string());
    let next = missing["next"].as_str().unwrap();
    assert!(
        next.contains(&format!("ListenStream={}", site.submission)),
        "{next}"
    );
    examined.found("problem", "network", "the unit gives Gatepost no network");
    let checks = examined.complaints();
    let problems = checks.iter().filter(|bad| bad.starts_with("problem"));
    assert_eq!(problems.count(), 2, "{checks:?}");

    // It runs, and cannot reach its upstream.
    let _gatepost = Gatepost::serve(&site);
    let active = format!("ActiveState=active\nResult=success\n{closed}");
    let both = sockets(&[site.submission, site.submissions]);
    let examined = Systemd::new(&site, &active, &both, "").examine(&site);
    let next = examined.only("network", &upstream.address.to_string());
    assert!(next["next"].as_str().unwrap().contains("tcp-upstream.conf"));
}

#[test]
fn without_systemd_no_step_names_it() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let examined = Examined::of(&site, None);
    examined.only("daemon", "Gatepost does not run");
    let gatepost = Gatepost::serve(&site);
    site.renew_certificate();
    let shown = Examined::of(&gatepost, None);
    drop(upstream);
    let down = Examined::of(&gatepost, None);
    for examined in [examined, shown, down] {
        let text = examined.document.to_string();
        assert!(
            !text.contains("systemctl") && !text.contains("journalctl"),
            "{text}"
        );
    }
}

#[test]
fn a_postfix_that_keeps_its_listeners_is_examined_through_them() {
    let mut postfix = Postfix::start(Sockets::Unix);
    let own = postfix.asks(Config::for_verdicts(&postfix.auth()));
    let site = Arc::new(Site::new(own));
    let examined = examine_site(&site, &postfix);
    examined.only("daemon", "Gatepost does not run");

    let gatepost = Gatepost::serve(&site);
    let examined = examine_site(&site, &postfix);
    examined.assert_well();
    let direct = postfix.direct.to_string();
    examined.found_ok("login", &direct);
    examined.found_ok("identity", "");
    let rows = gatepost.json(&["credential", "list"]);
    assert_eq!(rows, Value::Array(Vec::new()));

    postfix.with_master_cf(|text| {
        text.replace(
            "smtpd_sasl_path=private/gatepost",
            "smtpd_sasl_path=private/auth",
        )
    });
    let examined = examine_site(&site, &postfix);
    let found = examined.only("sasl", "asks for logins at private/auth");
    assert_eq!(
        lines(found, "master.cf"),
        ["-o smtpd_sasl_path=private/gatepost"]
    );
    postfix.stop();
    examine_site(&site, &postfix).found("problem", "sasl", "private/auth");
    postfix.with_master_cf(|text| text.replace("private/auth", "private/gatepost"));
    postfix.stop();
    examine_site(&site, &postfix).only("postfix", "does not run");
}

fn examine_site(site: &Site, postfix: &Postfix) -> Examined {
    // Postfix shows its own certificate.
    Examined::of(site, Some(postfix.configuration()))
}

#[test]
fn a_gatepost_that_hangs_is_one_problem_and_costs_no_long_wait() {
    let postfix = postfix(Sockets::Tcp);
    let site = Arc::new(Site::new(config(&postfix)));
    let socket = site.path("admin.sock");
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(
        site.config(),
        format!("{text}[admin]\nsocket = {socket:?}\n"),
    )
    .unwrap();
    let gatepost = Gatepost::serve(&site);
    examine(&gatepost, &postfix).assert_well();
    gatepost.freeze();
    let begun = Instant::now();
    examine(&gatepost, &postfix).only("daemon", "Gatepost runs and does not answer");
    let took = begun.elapsed();
    gatepost.signal(Signal::CONT);
    // Three seconds, and two more for a machine that is busy.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn an_upstream_that_the_services_user_cannot_reach_is_named() {
    let postfix = postfix(Sockets::Unix);
    let site = Site::new(config(&postfix));
    let failed = "ActiveState=failed\nResult=exit-code\nMainPID=0\nUser=nobody";
    let systemd = Systemd::new(&site, failed, "ActiveState=active\nResult=success", "");
    let examined = systemd.examine(&site);
    let found = examined.found("problem", "network", "may not use");
    let next = found["next"].as_str().unwrap();
    assert!(next.starts_with("SupplementaryGroups=postdrop"), "{next}");
}
