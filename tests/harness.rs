//! The suite's own tools, tried without Gatepost. Where these fail, look at the machine first.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use rustix::process::test_kill_process;
use serde_json::json;

use crate::postfix::{assert_delivered, hard_message};
use crate::support::auth_client::{AuthClient, refuse_everybody_at};
use crate::support::axe;
use crate::support::browser::{Browser, NARROW, Scripts, WIDE};
use crate::support::client::Client;
use crate::support::dialog::{Dialog, Step, matches};
use crate::support::postfix::{Postfix, Sockets};
use crate::support::shim::Shim;
use crate::support::upstream::{Act, BODY, Upstream};
use crate::support::{eventually, ports};

const XCLIENT: &str = "XCLIENT ADDR=127.0.0.7 PORT=40000 NAME=[UNAVAILABLE] \
    REVERSE_NAME=[UNAVAILABLE] HELO=client.example PROTO=ESMTP";

fn greeted(address: std::net::SocketAddr) -> Client {
    let mut client = Client::dial(address).expect("connect");
    client.reply().expect("220");
    client
}

#[test]
fn a_postfix_of_our_own_takes_a_session_over_and_delivers() {
    let postfix = Postfix::start(Sockets::Tcp);
    refuse_everybody_at(postfix.auth_address());
    let mut client = greeted(postfix.behind_gatepost());
    assert!(client.expect("EHLO gatepost", "250").offers("XCLIENT"));
    client.expect(&format!("{XCLIENT} LOGIN=smtp_harness"), "220");
    client.expect("EHLO client.example", "250");
    let message = hard_message("harness");
    client.send_message(&message).expect("250");
    client.expect("QUIT", "221");
    assert_delivered(&postfix, "harness", &message);
    postfix.wait_for_log(&["sasl_username=smtp_harness", "[127.0.0.7]"]);
}

#[test]
fn a_postfix_of_our_own_relays_for_nobody_without_a_login() {
    let postfix = Postfix::start(Sockets::Tcp);
    refuse_everybody_at(postfix.auth_address());
    let mut client = greeted(postfix.behind_gatepost());
    client.expect("EHLO gatepost", "250");
    client.expect(XCLIENT, "220");
    client.expect("EHLO client.example", "250");
    client.expect("MAIL FROM:<sender@example.test>", "250");
    client.expect("RCPT TO:<box@example.test>", "554 5.7.1");
    client.expect("RCPT TO:<box@elsewhere.example>", "554 5.7.1");
}

#[test]
fn a_postfix_of_our_own_listens_on_a_unix_socket() {
    let postfix = Postfix::start(Sockets::Unix);
    let upstream = postfix.upstream();
    let path = upstream.strip_prefix("unix:").expect("a unix socket");
    std::os::unix::net::UnixStream::connect(path).expect("connect");
}

#[test]
fn a_postfix_of_our_own_comes_back_after_a_stop() {
    let mut postfix = Postfix::start(Sockets::Tcp);
    refuse_everybody_at(postfix.auth_address());
    greeted(postfix.behind_gatepost()).expect("QUIT", "221");
    postfix.stop();
    assert!(Client::dial(postfix.behind_gatepost()).is_err());
    postfix.restart();
    greeted(postfix.behind_gatepost()).expect("QUIT", "221");
}

#[test]
fn a_postfix_of_our_own_asks_the_authentication_socket_inside_tls() {
    let postfix = Postfix::start(Sockets::Tcp);
    refuse_everybody_at(postfix.auth_address());
    let mut client = greeted(postfix.direct).starttls();
    assert!(client.expect("EHLO client.example", "250").offers("AUTH"));
    client.expect(
        &format!("AUTH PLAIN {}", STANDARD.encode("\0user\0password")),
        "535 5.7.8",
    );
}

#[test]
fn the_authentication_client_and_its_stub_understand_each_other() {
    let address = crate::support::ports::free_address();
    refuse_everybody_at(address);
    let mut client = AuthClient::over_tcp(address);
    assert!(
        client
            .handshake
            .contains(&"MECH\tPLAIN\tplaintext".to_owned())
    );
    assert_eq!(client.ask("AUTH\t7\tPLAIN\tservice=smtp"), "FAIL\t7");
}

#[test]
fn the_upstream_records_and_misbehaves() {
    let upstream = Upstream::start();
    upstream.on("NOOP", Act::Reply("450 4.2.1 not now"));
    upstream.on(BODY, Act::Close);
    let mut client = greeted(upstream.address);
    client.expect("EHLO gatepost", "250");
    client.expect(&format!("{XCLIENT} LOGIN=smtp_harness"), "220");
    client.expect("NOOP", "450");
    client.begin_message();
    client.write(b"a line\r\n");
    client.expect_close();
    let session = upstream.wait_for("that ended", |session| session.ended);
    assert_eq!(session.unfinished, b"a line\r\n");
    assert!(session.bodies.is_empty());
    assert_eq!(upstream.handed_over().len(), 1);
}

#[test]
fn a_dialog_says_what_its_file_says() {
    let text = "# why\npipelinable\ntls\nc -> A {base64:\\0$username}\\n\nc <~ 250\nclosed\n";
    let dialog = Dialog::parse(text, "me", "secret");
    assert!(dialog.pipelinable);
    let said = Step::Client(b"A AG1l\n\r\n".to_vec());
    assert_eq!(
        dialog.steps,
        [Step::Tls, said, Step::Reply("250".to_owned()), Step::Closed]
    );
    assert!(matches("250 * done", "250 2.0.0 well done"));
    assert!(!matches("250 * done", "250 done"));
}

/// A page with a script, a form that leads back to it, and nothing wrong.
const PAGE: &str = "<!doctype html><html lang=en><title>Page</title>\
    <meta name=viewport content='width=device-width'><link rel=icon href='data:,'>\
    <main><h1>written</h1><script>document.querySelector('h1').textContent = 'changed'</script>\
    <form><label>Name <input name=n></label> <button>Go</button></form></main></html>";

/// Serves one page under every path, as long as the tests run.
fn serve(page: &'static str, policy: &'static str) -> SocketAddr {
    let address = ports::free_address();
    let listener = TcpListener::bind(address).expect("bind");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || -> std::io::Result<()> {
                for line in BufReader::new(socket.try_clone()?).lines() {
                    if line?.is_empty() {
                        break;
                    }
                }
                let head = format!(
                    "Content-Security-Policy: {policy}\r\nContent-Length: {}",
                    page.len()
                );
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n{head}"
                );
                socket.write_all(format!("{head}\r\n\r\n{page}").as_bytes())
            });
        }
    });
    address
}

#[test]
fn a_browser_of_our_own_does_what_a_person_does() {
    let page = serve(PAGE, "");
    for (scripts, heading) in [(Scripts::Run, "changed"), (Scripts::Blocked, "written")] {
        let browser = Browser::start(scripts);
        browser.go(&format!("http://{page}/"));
        assert_eq!(browser.text("h1"), heading);
        assert_eq!(browser.title(), "Page");
        browser.fill("input", "typed");
        browser.follow("button");
        assert!(browser.url().ends_with("/?n=typed"), "{}", browser.url());
        browser.press("\u{e004}keyed");
        assert_eq!(browser.value("input"), "keyed");
        browser.enter();
        assert!(browser.url().ends_with("/?n=keyed"), "{}", browser.url());
        browser.back();
        assert!(browser.url().ends_with("/?n=typed"), "{}", browser.url());
        assert_eq!(browser.complaints(), [""; 0]);
        for (look, width, dark) in [(NARROW.dark(), 360, true), (WIDE, 1440, false)] {
            browser.look(look);
            let seen = "return [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]";
            assert_eq!(browser.run(seen, json!([])), json!([width, dark]));
        }
    }
}

#[test]
fn a_browser_of_our_own_complains() {
    let browser = Browser::start(Scripts::Run);
    let complaint = |page: &'static str, policy: &'static str| {
        browser.go(&format!("http://{}/", serve(page, policy)));
        browser.complaints().join("\n")
    };
    assert!(complaint(PAGE, "script-src 'self'").contains("Content Security Policy"));
    let faulty = "<!doctype html><link rel=icon href='data:,'><script>nothing.like_it</script>";
    assert!(complaint(faulty, "").contains("ReferenceError"));
    let lacking = "<!doctype html><link rel=icon href='data:,'><img src=http://127.0.0.1:9/x.png>";
    assert!(complaint(lacking, "").contains("ERR_"));
}

#[test]
fn a_browser_of_our_own_ends_with_the_test_that_failed() {
    let pid = std::sync::Mutex::new(None);
    let failed = std::panic::catch_unwind(|| {
        let browser = Browser::start(Scripts::Run);
        *pid.lock().unwrap() = Some(browser.pid());
        browser.go(&format!("http://{}/", serve(PAGE, "")));
        browser.text("h2")
    });
    assert!(failed.is_err());
    let pid = pid.into_inner().unwrap().expect("it had started");
    eventually("chromium is gone", || {
        test_kill_process(pid).is_err().then_some(())
    });
}

#[test]
fn a_browser_of_our_own_ends_with_the_tests() {
    let folder = tempfile::tempdir().expect("tempdir");
    let mut tests = Command::new(std::env::current_exe().expect("the tests"));
    tests.args(["--exact", "harness::a_browser_of_our_own_complains"]);
    let output = tests.env("TMPDIR", folder.path()).output();
    let output = output.expect("run a test");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{output:?}");
    eventually("nothing is left of its browser", || {
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        (left == 0 && !runs_from(folder.path())).then_some(())
    });
}

/// Whether a process was told of this folder.
fn runs_from(folder: &Path) -> bool {
    let folder = folder.to_str().expect("UTF-8").as_bytes();
    let mut processes = std::fs::read_dir("/proc").expect("the processes");
    processes.any(|process| {
        let words = std::fs::read(process.expect("a process").path().join("cmdline"));
        memmem::find(&words.unwrap_or_default(), folder).is_some()
    })
}

#[test]
fn axe_finds_what_bars_a_reader() {
    let browser = Browser::start(Scripts::Run);
    browser.go(&format!(
        "http://{}/",
        serve(PAGE, "default-src 'none'; script-src 'self'")
    ));
    assert_eq!(axe::findings(&browser), [json!(null); 0]);
    let nameless =
        "<!doctype html><html lang=en><title>Page</title><main><h1>Page</h1><input></main></html>";
    browser.go(&format!("http://{}/", serve(nameless, "")));
    let bars = axe::bars(&browser);
    let rules: Vec<_> = bars.iter().map(|one| &one["rule"]).collect();
    assert_eq!(rules, ["label"]);
}

#[test]
fn the_shim_stalls_and_fails_the_syncs_of_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("gatepost.db");
    let shim = Shim::new();
    let write = |statement: &str| {
        let mut command = shim.preload(Command::new("sqlite3"));
        command.arg(&store).arg(statement);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    assert!(write("CREATE TABLE t (x)").wait().unwrap().success());
    shim.stall();
    let mut stalled = write("INSERT INTO t VALUES (1)");
    shim.wait_until_stalled();
    assert!(stalled.try_wait().unwrap().is_none());
    shim.resume();
    assert!(stalled.wait().unwrap().success());
    shim.fail();
    let failed = write("INSERT INTO t VALUES (2)");
    let output = failed.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("I/O"), "{error}");
    shim.mend();
    assert!(write("INSERT INTO t VALUES (3)").wait().unwrap().success());
}
