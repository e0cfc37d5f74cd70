//! `gatepost demo` and `gatepost check`: what somebody tries first.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use crate::support::PATIENCE;
use crate::support::auth_client::AuthClient;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::{Act, Upstream};

const SESSIONS: usize = 2_000;
const THREADS: usize = 8;

/// A running demo, and what it prints line by line.
struct Demo {
    child: Child,
    lines: Receiver<String>,
    submission: SocketAddr,
    credential: Credential,
    /// The dashboard with its sign-in.
    link: String,
}

impl Demo {
    fn start() -> Demo {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        let mut child = command
            .arg("demo")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the demo");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        // A reader of its own: a full pipe would stop the demo.
        thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let mut link = String::new();
        let swaks = loop {
            let line = lines
                .recv_timeout(PATIENCE)
                .expect("the demo prints a swaks line");
            if let Some((_, address)) = line.split_once("xdg-open ") {
                address.clone_into(&mut link);
            }
            if line.contains("swaks --server ") {
                break line;
            }
        };
        let after = |option: &str| {
            let rest = swaks
                .split_once(option)
                .unwrap_or_else(|| panic!("{option} in {swaks}"))
                .1;
            rest.split_whitespace()
                .next()
                .unwrap()
                .trim_matches(['\'', '"'])
                .to_owned()
        };
        let credential = Credential {
            username: after("--auth-user "),
            password: after("--auth-password "),
        };
        let submission = after("--server ").parse().expect("an address");
        Demo {
            child,
            lines,
            submission,
            credential,
            link,
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().expect("kill the demo");
        self.child.wait().expect("reap the demo");
    }
}

/// A session of its own with the demo, over STARTTLS and authenticated.
fn session(submission: SocketAddr, credential: &Credential) -> Client {
    let mut client = Client::dial(submission).expect("connect");
    client.reply().expect("220");
    let mut client = client.starttls();
    client.log_in(credential);
    client
}

#[test]
fn demo_send_shows_its_steps_and_succeeds() {
    let output = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["demo", "--send"])
        .output();
    let output = output.expect("run the demo");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for step in [
        "220", "EHLO", "TLS", "AUTH", "235", "MAIL", "RCPT", "DATA", "250", "QUIT",
    ] {
        assert!(stdout.contains(step), "no {step} in\n{stdout}");
    }
}

#[test]
fn demo_prints_each_message_it_captures() {
    let demo = Demo::start();
    session(demo.submission, &demo.credential)
        .send_message(b"Subject: captured\r\n\r\nhello\r\n")
        .expect("250");
    loop {
        let line = demo
            .lines
            .recv_timeout(PATIENCE)
            .expect("a line for the message");
        let by = line.contains(&demo.credential.username) && line.contains("127.0.0.1");
        // The lines to paste name the credential too, but with its password.
        if by && !line.contains(&demo.credential.password) {
            return;
        }
    }
}

#[test]
fn demo_lines_can_be_pasted() {
    let demo = Demo::start();
    let mut swaks = Command::new("swaks");
    swaks.args([
        "--server",
        &demo.submission.to_string(),
        "--tls",
        "--auth",
        "PLAIN",
    ]);
    swaks.args(["--auth-user", &demo.credential.username]);
    swaks.args(["--auth-password", &demo.credential.password]);
    swaks.args(["--from", "sender@example.test", "--to", "box@example.test"]);
    let output = swaks.output().expect("run swaks");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn two_thousand_sessions_run_without_one_error() {
    let demo = Demo::start();
    let message = b"Subject: load\r\n\r\n".to_vec();
    let message = [
        message,
        b"0123456789abcdef0123456789abcdef0123456789abcd\r\n".repeat(85),
    ]
    .concat();
    let (submission, credential) = (demo.submission, &demo.credential);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..SESSIONS / THREADS {
                    let mut client = session(submission, credential);
                    client.send_message(&message).expect("250");
                    client.expect("QUIT", "221");
                    client.expect_close();
                }
            });
        }
    });
}

fn check(site: &Site) -> (Output, String) {
    let output = site.run(&["check"]);
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn check_passes_a_working_site_line_by_line() {
    let upstream = Upstream::start();
    let (output, text) = check(&Site::new(Config::for_upstream(upstream.address)));
    assert_eq!(output.status.code(), Some(0), "{text}");
    for subject in ["config", "certificate", "store", "upstream"] {
        let found = text
            .lines()
            .any(|line| line.to_lowercase().contains(subject));
        assert!(found, "no line about the {subject} in\n{text}");
    }
}

#[test]
fn check_names_what_is_wrong() {
    let deaf = Upstream::start();
    let (output, text) = {
        let site = Site::new(Config::for_upstream(deaf.address));
        drop(deaf);
        check(&site)
    };
    assert_ne!(
        output.status.code(),
        Some(0),
        "the upstream is down:\n{text}"
    );
    assert!(text.contains("upstream"), "{text}");

    let upstream = Upstream::start();
    upstream.on("EHLO", Act::Reply("250 upstream.example.test"));
    let (output, text) = check(&Site::new(Config::for_upstream(upstream.address)));
    assert_ne!(
        output.status.code(),
        Some(0),
        "XCLIENT is not granted:\n{text}"
    );
    assert!(text.contains("XCLIENT"), "{text}");

    let upstream = Upstream::start();
    let (site, other) = (
        Site::new(Config::for_upstream(upstream.address)),
        Site::new(Config::for_upstream(upstream.address)),
    );
    std::fs::copy(other.path("key.pem"), site.path("key.pem")).expect("copy a key");
    let (output, text) = check(&site);
    assert_ne!(
        output.status.code(),
        Some(0),
        "the key is another's:\n{text}"
    );
    assert!(text.contains("key.pem"), "{text}");
}

#[test]
fn check_lends_postfix_the_auth_socket_and_takes_it_back() {
    let directory = tempfile::tempdir().expect("tempdir");
    // As /run/gatepost: made with the service, and gone with it.
    let absent = directory.path().join("gatepost");
    let path = absent.join("auth");
    // An smtpd that closes the connection where it finds no auth socket, and here even so.
    let smtpd = TcpListener::bind("127.0.0.1:0").expect("bind");
    let config = Config::for_upstream(smtpd.local_addr().expect("an address"));
    let config = config.text(
        "dovecot_auth",
        "listen",
        &format!("unix:{}", path.display()),
    );
    let asking = std::thread::spawn(move || {
        let _client = smtpd.accept().expect("accept");
        AuthClient::over_unix(&path).handshake
    });
    check(&Site::new(config));
    let handshake = asking.join().expect("the auth socket was there");
    assert!(!handshake.is_empty());
    assert!(!absent.exists());
}

/// The answer's head to a GET with an optional cookie.
fn visit(address: &str, path: &str, cookie: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("connect to the dashboard");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nCookie: {cookie}\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn demo_prints_a_dashboard_link_that_signs_in_once() {
    let demo = Demo::start();
    let link = demo.link.strip_prefix("http://").expect("a link");
    let (address, path) = link.split_at(link.find('/').expect("a path"));
    let wrong = visit(address, "/sign-in/once/wrong", "");
    assert!(
        wrong.contains("location: /sign-in\r\n") && !wrong.contains("set-cookie"),
        "{wrong}"
    );
    let answer = visit(address, path, "");
    let cookie = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: ")?.split(';').next())
        .unwrap_or_else(|| panic!("no cookie in {answer}"));
    let page = visit(address, "/organizations/default/credentials", cookie);
    for name in ["Office printer", "Web shop", "Old laptop", "Demo"] {
        assert!(page.contains(name), "{name} is not in {page}");
    }
    let again = visit(address, path, "");
    assert!(
        again.contains("location: /sign-in\r\n") && !again.contains("set-cookie"),
        "{again}"
    );
}

#[test]
fn a_daemon_that_serves_has_no_sign_in_link() {
    let upstream = Upstream::start();
    let address = ports::free_address();
    let config = Config::for_upstream(upstream.address);
    let config = config.text("admin", "listen", &address.to_string());
    let gatepost = Gatepost::start(config);
    for code in ["", "x", &"A".repeat(43)] {
        let answer = visit(&address.to_string(), &format!("/sign-in/once/{code}"), "");
        assert!(
            answer.contains(" 303 ") && !answer.contains("set-cookie"),
            "{answer}"
        );
    }
    drop(gatepost);
}
