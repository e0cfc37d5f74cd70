//! Under systemd: sockets that it holds, and what it is told. The tests are the service manager:
//! they set the environment that sd_listen_fds(3) and sd_notify(3) describe.

use std::fs::File;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::activation::{hand_in, listen};
use crate::support::auth_client::AuthClient;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Site};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually, ports};

/// The daemon of `site`, with the test's own descriptors handed in.
fn serve_on<const N: usize>(site: &Arc<Site>, sockets: [&TcpListener; N]) -> Gatepost {
    let copies = sockets.map(|socket| OwnedFd::from(socket.try_clone().expect("share a socket")));
    Gatepost::launch(site, |command| {
        hand_in(&command, &site.path("log"), copies.into())
    })
}

/// Starts the daemon with a socket it must not take; its exit code and its log.
fn refused(site: &Site, socket: impl Into<OwnedFd>) -> (Option<i32>, String) {
    let log = site.path("log");
    let mut command = hand_in(&site.command(&["serve"]), &log, vec![socket.into()]);
    let mut child = command.spawn().expect("run gatepost");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("ask for the child") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("kill gatepost");
            child.wait().expect("reap gatepost");
            panic!("it was not refused");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let log = std::fs::read_to_string(log).expect("read the log");
    (status.code(), log)
}

#[test]
fn sockets_handed_in_are_known_by_their_addresses() {
    let upstream = Upstream::start();
    let metrics = ports::free_address();
    let config = Config::for_upstream(upstream.address);
    let config = config.text("metrics", "listen", &metrics.to_string());
    let site = Arc::new(Site::new(config));
    let [submission, submissions, scraped] =
        [site.submission, site.submissions, metrics].map(listen);
    // Not in the order of the configuration.
    let gatepost = serve_on(&site, [&scraped, &submissions, &submission]);
    let credential = gatepost.create();
    Client::logged_in(&gatepost, &credential);
    Client::submission(&gatepost).expect("EHLO client.example", "250");
    let body = Command::new("curl")
        .args(["--silent", "--fail", &format!("http://{metrics}/metrics")])
        .output()
        .expect("run curl");
    assert!(body.status.success(), "{body:?}");
}

#[test]
fn sockets_handed_in_are_known_by_their_names_where_no_address_is_configured() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(
        Config::for_upstream(upstream.address).without_listeners(),
    ));
    let metrics = ports::free_address();
    let sockets = [metrics, site.submissions, site.submission].map(listen);
    let gatepost = Gatepost::launch(&site, |command| {
        let sockets = sockets.map(OwnedFd::from).into();
        let mut command = hand_in(&command, &site.path("log"), sockets);
        command.env("LISTEN_FDNAMES", "metrics:submissions:submission");
        command
    });
    Client::logged_in(&gatepost, &gatepost.create());
    Client::submissions(&gatepost).expect("QUIT", "221");
    let scraped = Command::new("curl")
        .args(["--silent", "--fail", &format!("http://{metrics}/metrics")])
        .output()
        .expect("run curl");
    assert!(scraped.status.success(), "{scraped:?}");
}

#[test]
fn the_administration_and_the_auth_socket_are_known_by_their_names() {
    let site = Arc::new(Site::new(Config::for_nothing()));
    let directory = tempfile::tempdir().expect("tempdir");
    let [admin, auth] = ["admin", "auth"].map(|name| directory.path().join(name));
    let [bound, asked] = [&admin, &auth].map(|path| UnixListener::bind(path).expect("bind"));
    let _gatepost = Gatepost::launch(&site, |command| {
        let sockets = vec![OwnedFd::from(bound), OwnedFd::from(asked)];
        let mut command = hand_in(&command, &site.path("log"), sockets);
        command.env("LISTEN_FDNAMES", "admin:auth");
        command
    });
    let answer = AuthClient::over_unix(&auth).ask("AUTH\t7\tPLAIN\tservice=smtp");
    assert!(answer.starts_with("CONT\t7"), "{answer}");
    let ready = Command::new("curl")
        .args(["--silent", "--fail", "--unix-socket"])
        .arg(&admin)
        .arg("http://localhost/readyz")
        .output()
        .expect("run curl");
    assert_eq!(String::from_utf8_lossy(&ready.stdout), "ready\n");
}

#[test]
fn an_administration_in_clear_text_on_a_network_is_refused() {
    let site = Site::new(Config::for_nothing());
    let socket = TcpListener::bind("0.0.0.0:0").expect("listen on every address");
    let mut command = hand_in(
        &site.command(&["serve"]),
        &site.path("log"),
        vec![socket.into()],
    );
    let status = command.env("LISTEN_FDNAMES", "admin").status();
    assert_eq!(status.expect("run gatepost").code(), Some(78));
    let log = std::fs::read_to_string(site.path("log")).expect("read the log");
    assert!(log.contains("over the network in clear text"), "{log}");
}

#[test]
fn without_any_address_the_start_says_where_clients_could_come_from() {
    let site = Site::new(Config::for_nothing());
    let output = site.run(&["serve"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("start gatepost.socket"), "{stderr}");
}

#[test]
fn a_start_that_fails_ends_later_where_clients_wait_at_sockets() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    std::fs::write(site.path("key.pem"), "no key").expect("spoil the key");
    let start = Instant::now();
    let (code, log) = refused(&site, listen(site.submission));
    assert_eq!(code, Some(78), "{log}");
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn an_error_before_the_log_starts_has_its_level_for_the_journal() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("stderr");
    let errors = File::create(&path).expect("create");
    let file = errors.metadata().expect("metadata");
    let stream = format!("{}:{}", file.dev(), file.ino());
    let mut serve = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    serve.args(["--config", "/nowhere/config.toml", "serve"]);
    let status = serve.env("JOURNAL_STREAM", stream).stderr(errors).status();
    assert_eq!(status.expect("run gatepost").code(), Some(78));
    let text = std::fs::read_to_string(path).expect("read");
    assert!(text.contains("/nowhere/config.toml"), "{text}");
    assert!(text.lines().all(|line| line.starts_with("<3>")), "{text}");
    // Without the journal, a line is for people.
    let output = serve
        .env("JOURNAL_STREAM", "1:1")
        .stderr(Stdio::piped())
        .output();
    let text = output.expect("run gatepost").stderr;
    assert!(text.starts_with(b"gatepost: "), "{text:?}");
}

#[test]
fn a_taken_address_of_metrics_and_administration_does_not_stop_mail() {
    let upstream = Upstream::start();
    let [metrics, tcp] = [ports::free_address(), ports::free_address()];
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("admin");
    let config = Config::for_upstream(upstream.address)
        .text("metrics", "listen", &metrics.to_string())
        .text("admin", "listen", &tcp.to_string())
        .text("admin", "socket", path.to_str().expect("UTF-8"));
    let taken = [metrics, tcp].map(listen);
    let gatepost = Gatepost::start(config);
    Client::logged_in(&gatepost, &gatepost.create());
    let ask = |page: &str| {
        let output = Command::new("curl")
            .args(["--silent", "--unix-socket"])
            .arg(&path)
            .arg(format!("http://localhost{page}"))
            .output();
        String::from_utf8(output.expect("run curl").stdout).expect("UTF-8")
    };
    let ready = ask("/readyz");
    for (kind, address) in [("metrics", metrics), ("admin", tcp)] {
        let warning = format!("warning: {kind} is not served at {address}");
        assert!(
            ready.starts_with("ready\n") && ready.contains(&warning),
            "{ready}"
        );
        let log = gatepost.log();
        assert!(
            log.contains(&format!("cannot listen on {address}")),
            "{log}"
        );
    }
    let status = ask("/api/v1/status");
    assert_eq!(
        status.matches("\"fault\":\"cannot listen on").count(),
        2,
        "{status}"
    );
    let doctor = gatepost.site().run(&["doctor"]);
    let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(found.contains(&metrics.to_string()), "{found}");

    drop(taken);
    eventually("the addresses are taken once they are free", || {
        (ask("/readyz") == "ready\n").then_some(())
    });
    for address in [metrics, tcp] {
        TcpStream::connect(address).expect("connect");
    }
}

#[test]
fn what_is_not_handed_in_is_opened() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let submissions = listen(site.submissions);
    let gatepost = serve_on(&site, [&submissions]);
    Client::submission(&gatepost).expect("QUIT", "221");
    Client::submissions(&gatepost).expect("QUIT", "221");
}

#[test]
fn the_auth_socket_can_be_handed_in() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("auth");
    let config = Config::for_upstream("127.0.0.1:1");
    let config = config.text(
        "dovecot_auth",
        "listen",
        &format!("unix:{}", path.display()),
    );
    let site = Arc::new(Site::new(config));
    let socket = UnixListener::bind(&path).expect("bind");
    // Asked before anybody serves it: the handshake waits for the daemon.
    let asking = {
        let path = path.clone();
        std::thread::spawn(move || AuthClient::over_unix(&path).ask("AUTH\t7\tPLAIN\tservice=smtp"))
    };
    let _gatepost = Gatepost::launch(&site, |command| {
        let socket = OwnedFd::from(socket.try_clone().expect("share the socket"));
        hand_in(&command, &site.path("log"), vec![socket])
    });
    let answer = asking.join().expect("an answer");
    assert!(
        answer.starts_with("CONT\t7") || answer.starts_with("FAIL\t7"),
        "{answer}"
    );
}

#[test]
fn an_auth_socket_that_is_handed_in_open_to_all_is_not_believed() {
    let directory = tempfile::tempdir().expect("tempdir");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    let path = directory.path().join("auth");
    let listen = format!("unix:{}", path.display());
    let config = || {
        Config::for_upstream("127.0.0.1:1")
            .guarded()
            .text("auth", "refusal_delay", "10ms")
            .text("last_used", "flush_interval", "100ms")
            .text("dovecot_auth", "listen", &listen)
    };
    for (mode, network) in [(0o666, "0.0.0.0/32"), (0o660, "127.0.1.9/32")] {
        let site = Arc::new(Site::new(config()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixListener::bind(&path).expect("bind");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("chmod");
        let gatepost = Gatepost::launch(&site, |command| {
            hand_in(&command, &site.path("log"), vec![OwnedFd::from(socket)])
        });
        let warning = "every local user can connect to the auth socket";
        assert_eq!(gatepost.log().contains(warning), mode == 0o666);
        let wrong = gatepost.create().with_wrong_password().plain();
        let asked = format!("AUTH\t1\tPLAIN\tservice=smtp\trip=127.0.1.9\tresp={wrong}");
        assert_eq!(AuthClient::over_unix(&path).ask(&asked), "FAIL\t1");
        eventually("the guard's list is written", || {
            let list = gatepost.json(&["guard", "list"]);
            let mut list = list.as_array().expect("a list").iter();
            list.any(|entry| entry["network"] == network).then_some(())
        });
    }
}

#[test]
fn a_socket_nobody_configured_is_refused_by_name() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    let stranger = ports::free_address();
    let (code, log) = refused(&site, listen(stranger));
    assert_eq!(code, Some(78), "{log}");
    assert!(
        log.contains(&format!("not configured: {stranger}; ")),
        "{log}"
    );

    let path = site.path("stranger.sock");
    let (code, log) = refused(&site, UnixListener::bind(&path).expect("bind"));
    assert_eq!(code, Some(78), "{log}");
    let named = format!("not configured: unix:{}; ", path.display());
    assert!(log.contains(&named), "{log}");
}

#[test]
fn what_does_not_listen_is_refused() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    let listener = listen(site.submission);
    // What Accept=yes would hand in, from the very address that is configured.
    let _client = TcpStream::connect(site.submission).expect("connect");
    let (connection, _) = listener.accept().expect("accept");
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("bind");
    for socket in [OwnedFd::from(connection), datagrams.into()] {
        let (code, log) = refused(&site, socket);
        assert_eq!(code, Some(78), "{log}");
        assert!(
            log.contains("socket 1 of those handed in by LISTEN_FDS is not"),
            "{log}"
        );
    }
}

#[test]
fn an_address_that_a_socket_unit_holds_otherwise_is_named_in_the_hint() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    let _held = listen(site.submission);
    let output = site.run(&["serve"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains(&site.submission.to_string()), "{stderr}");
    assert!(stderr.contains(".socket unit"), "{stderr}");
}

#[test]
fn the_first_client_starts_the_daemon() {
    let upstream = Upstream::start();
    let site = Site::new(Config::for_upstream(upstream.address));
    let serve = site.command(&["serve"]);
    let mut activate = Command::new("systemd-socket-activate")
        .args([
            "--listen".to_owned(),
            site.submission.to_string(),
            "--listen".to_owned(),
            site.submissions.to_string(),
        ])
        .arg(serve.get_program())
        .args(serve.get_args())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start systemd-socket-activate");
    let mut client = eventually("somebody listens", || Client::dial(site.submission).ok());
    let greeting = client.reply();
    // It has become the daemon.
    activate.kill().expect("kill gatepost");
    activate.wait().expect("reap gatepost");
    greeting.expect("220");
}

/// Connects as often as it can, and reads the first reply.
fn knock(site: &Site, stop: &AtomicBool, answered: &AtomicU32) {
    while !stop.load(Ordering::Relaxed) {
        let mut client = Client::dial(site.submission).expect("not refused");
        let reply = client.reply();
        assert!(
            reply.starts_with("220") || reply.starts_with("421 4.3.2"),
            "{reply:?}"
        );
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn ten_restarts_refuse_nobody() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let [submission, submissions] = [site.submission, site.submissions].map(listen);
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| knock(&site, &stop, &answered)))
            .collect();
        for _ in 0..10 {
            let gatepost = serve_on(&site, [&submission, &submissions]);
            let credential = gatepost.create();
            let mut idle = Client::logged_in(&gatepost, &credential);
            let before = answered.load(Ordering::Relaxed);
            eventually("clients are served", || {
                (answered.load(Ordering::Relaxed) > before + 10).then_some(())
            });
            gatepost.signal(Signal::TERM);
            let stopping = Instant::now();
            idle.reply().expect("421 4.3.2");
            assert!(gatepost.wait().success());
            // Nobody was in a transaction, so nothing was waited for.
            assert!(
                stopping.elapsed() < Duration::from_secs(2),
                "{:?}",
                stopping.elapsed()
            );
        }
        stop.store(true, Ordering::Relaxed);
        // Who waits in the backlog now would wait for ever.
        let last = serve_on(&site, [&submission, &submissions]);
        for client in clients {
            client.join().expect("every connection was answered");
        }
        drop(last);
    });
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let mut gatepost = Gatepost::launch(&site, |command| command);
    gatepost.signal(Signal::HUP);
    let reloading = gatepost.wait_for_state("RELOADING=1");
    let begun = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
        .expect("when the reload began");
    begun.parse::<u64>().expect("microseconds");
    let addresses = format!(
        "STATUS=submission {}, submissions {}",
        site.submission, site.submissions
    );
    gatepost.wait_for_state(&addresses);
    gatepost.wait_for_state("READY=1");

    std::fs::write(site.path("key.pem"), "no key").expect("spoil the key");
    gatepost.signal(Signal::HUP);
    gatepost.wait_for_state("RELOADING=1");
    let spoilt = site.path("key.pem").display().to_string();
    let told = eventually("the status says so", || {
        let states = gatepost.states().join("\n");
        states.contains(&spoilt).then_some(states)
    });
    assert!(
        told.contains(&format!("{addresses}; the old certificate: ")),
        "{told}"
    );

    gatepost.signal(Signal::TERM);
    gatepost.wait_for_state("STOPPING=1");
    assert!(gatepost.wait().success());
}

/// How long the service manager waits in these tests, in microseconds; it is told three times as
/// often.
const WATCHDOG_USEC: &str = "900000";

fn watched(site: &Arc<Site>) -> Gatepost {
    Gatepost::launch(site, |mut command| {
        command.env("WATCHDOG_USEC", WATCHDOG_USEC);
        command
    })
}

#[test]
fn the_watchdog_is_fed_while_everything_turns_also_without_an_upstream() {
    let config = Config::for_upstream("127.0.0.1:1");
    // No loop has anything to do of its own for longer than the watchdog waits.
    let site = Arc::new(Site::new(config.text("last_used", "flush_interval", "1h")));
    let mut gatepost = watched(&site);
    let start = Instant::now();
    for _ in 0..5 {
        gatepost.wait_for_state("WATCHDOG=1");
    }
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    assert!(!gatepost.log().contains("not everything turns"));
}

#[test]
fn the_watchdog_starves_while_a_loop_is_stuck() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address);
    let site = Arc::new(Site::new(config.text(
        "last_used",
        "flush_interval",
        "50ms",
    )));
    let mut gatepost = watched(&site);
    let credential = gatepost.create();
    let store = rusqlite::Connection::open(gatepost.store()).expect("open the store");
    store
        .execute_batch("BEGIN IMMEDIATE")
        .expect("lock the store");
    Client::logged_in(&gatepost, &credential);
    // The store lets the flush wait for five seconds, and the watchdog's rounds go on meanwhile.
    let starved = |gatepost: &Gatepost| {
        let line = "not everything turns";
        gatepost.log().matches(line).count()
    };
    eventually("a round without an answer", || {
        (starved(&gatepost) >= 1).then_some(())
    });
    assert!(
        gatepost
            .log()
            .contains("silent=\"writing what logins noted\""),
        "{}",
        gatepost.log()
    );
    gatepost.states();
    let rounds = starved(&gatepost);
    eventually("two more", || {
        (starved(&gatepost) >= rounds + 2).then_some(())
    });
    let told = gatepost.states();
    assert!(told.is_empty(), "{told:?}");
    store.execute_batch("ROLLBACK").expect("unlock the store");
    gatepost.wait_for_state("WATCHDOG=1");
}

#[test]
fn a_watchdog_for_somebody_else_is_not_fed() {
    let site = Arc::new(Site::new(Config::for_upstream("127.0.0.1:1")));
    let gatepost = Gatepost::launch(&site, |mut command| {
        command
            .env("WATCHDOG_USEC", "30000")
            .env("WATCHDOG_PID", "1");
        command
    });
    // Takes as long as several rounds would.
    gatepost.create();
    gatepost.signal(Signal::TERM);
    let mut told = String::new();
    eventually("it stops", || {
        told += &gatepost.states().join("");
        told.contains("STOPPING=1").then_some(())
    });
    assert!(!told.contains("WATCHDOG"), "{told}");
}
