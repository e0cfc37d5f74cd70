//! A log that cannot be written costs its lines and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Read as _, pipe};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::prometheus::served;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::prometheus::get;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;
use crate::support::{eventually, ports, refused_soon, within};

const DROPPED: &str = "gatepost_log_lines_dropped_total";

/// The time that SIGTERM may take: the drain timeout, which nothing here uses up, and five seconds.
const END: Duration = Duration::from_secs(5);

/// A daemon with so many lines to log that they fill any pipe soon, and where its metrics and its
/// administration are.
struct Noisy {
    upstream: Upstream,
    site: Arc<Site>,
    metrics: SocketAddr,
    admin: SocketAddr,
}

impl Noisy {
    fn new(format: &str) -> Noisy {
        let upstream = Upstream::start();
        let (metrics, admin) = (ports::free_address(), ports::free_address());
        let config = Config::for_upstream(upstream.address)
            .text("metrics", "listen", &metrics.to_string())
            .text("admin", "listen", &admin.to_string())
            .text("log", "format", format)
            .text("log", "level", "trace");
        Noisy {
            upstream,
            site: Arc::new(Site::new(config)),
            metrics,
            admin,
        }
    }

    /// Serves with its log going to `log`.
    fn serve(&self, log: impl Into<Stdio>) -> Gatepost {
        Gatepost::launch(&self.site, |mut command| {
            command.stderr(log);
            command
        })
    }

    fn dropped(&self) -> f64 {
        served(self.metrics, DROPPED).expect(DROPPED)
    }

    /// Has lines logged until some are dropped.
    fn until_lines_are_dropped(&self) {
        within(Duration::from_secs(60), "lines are dropped", || {
            drop(Client::submissions(&self.site));
            (self.dropped() > 0.0).then_some(())
        });
    }

    fn ready(&self) -> String {
        get(self.admin, "/readyz")
    }

    fn attempt(&self, credential: &Credential) -> crate::support::client::Reply {
        let mut client = Client::submissions(&self.site);
        client.expect("EHLO client.example", "250");
        client.auth_plain(credential)
    }

    /// Asserts the facts that hold whether lines can be written or not.
    fn assert_serves(&self, gatepost: Gatepost) {
        let credential = gatepost.create();
        let mut in_flight = Client::logged_in(&gatepost, &credential);
        in_flight.begin_message();
        self.until_lines_are_dropped();

        let begun = Instant::now();
        self.attempt(&credential).expect("235");
        assert!(begun.elapsed() < Duration::from_secs(2));
        let wrong = credential.with_wrong_password();
        self.attempt(&wrong).expect("535 5.7.8");
        assert!(self.ready().contains("log lines are dropped"));
        assert!(self.ready().starts_with("ready"), "{}", self.ready());
        gatepost.succeed(&["credential", "revoke", &credential.username]);
        refused_soon(|| self.attempt(&credential));
        in_flight.write(b"Subject: x\r\n\r\nhello\r\n.\r\n");
        in_flight.reply().expect("250");

        // Tasks of its own go on as well: each renewal is noticed.
        for _ in 0..2 {
            let renewed = gatepost.renew_certificate();
            gatepost.signal(Signal::HUP);
            eventually("the new certificate is shown", || {
                let client = Client::dial(gatepost.submissions).expect("connect");
                (client.over_tls().certificate() == renewed).then_some(())
            });
        }
        drop(in_flight);
        let begun = Instant::now();
        gatepost.signal(Signal::TERM);
        assert!(gatepost.wait().success());
        assert!(begun.elapsed() < END, "{:?}", begun.elapsed());
        let shown = self
            .site
            .json(&["credential", "show", &credential.username]);
        assert!(!shown["last_used"].is_null(), "{shown}");
        assert!(!self.upstream.handed_over().is_empty());
    }
}

fn full() -> File {
    let full = OpenOptions::new().write(true).open("/dev/full");
    full.expect("open /dev/full")
}

/// A pipe that nothing is read from.
fn unread() -> (PipeReader, PipeWriter) {
    pipe().expect("a pipe")
}

#[test]
fn a_pipe_that_is_never_read_delays_nothing() {
    for format in ["text", "json"] {
        let noisy = Noisy::new(format);
        let (_reader, writer) = unread();
        noisy.assert_serves(noisy.serve(writer));
    }
}

#[test]
fn a_pipe_whose_reader_is_gone_ends_nothing() {
    let noisy = Noisy::new("text");
    let (reader, writer) = unread();
    drop(reader);
    noisy.assert_serves(noisy.serve(writer));
}

#[test]
fn a_full_disk_under_the_log_ends_nothing() {
    let noisy = Noisy::new("json");
    noisy.assert_serves(noisy.serve(full()));
}

/// Runs a program where `$1` is the journal's socket.
const WITH_SOCKET: &str = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
    ln -s \"$0\" /run/systemd/journal/socket && exec \"$@\"";

#[test]
fn a_journal_that_stalls_or_is_gone_delays_nothing() {
    for is_gone in [false, true] {
        let noisy = Noisy::new("journald");
        let socket = noisy.site.path("journal.sock");
        let journal = UnixDatagram::bind(&socket).expect("bind the journal's socket");
        let words = ["unshare", "--mount", "sh", "-c", WITH_SOCKET];
        let mut prefix = words.map(str::to_owned).to_vec();
        prefix.push(socket.to_str().unwrap().to_owned());
        let gatepost = Gatepost::serve_behind(&noisy.site, &prefix);
        let kept = (!is_gone).then_some(journal);
        noisy.assert_serves(gatepost);
        drop(kept);
    }
}

#[test]
fn dropped_lines_are_reported_once_the_log_can_be_written_again() {
    let noisy = Noisy::new("text");
    let (mut reader, writer) = unread();
    let gatepost = noisy.serve(writer);
    noisy.until_lines_are_dropped();
    let log = Arc::new(Mutex::new(Vec::new()));
    let into = log.clone();
    let reading = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        loop {
            match reader.read(&mut piece).expect("read the log") {
                0 => break,
                count => into.lock().unwrap().extend_from_slice(&piece[..count]),
            }
        }
    });
    let text = || String::from_utf8(log.lock().unwrap().clone()).expect("UTF-8");
    let report = eventually("the report", || {
        let log = text();
        let mut lines = log
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines
            .find(|line| line.contains("were dropped"))
            .map(str::to_owned)
    });
    let dropped = noisy.dropped();
    assert!(
        report.contains(&format!(" dropped={dropped} total={dropped}")),
        "{report}"
    );
    eventually("all is well", || (noisy.ready() == "ready\n").then_some(()));
    gatepost.signal(Signal::TERM);
    assert!(gatepost.wait().success());
    reading.join().expect("the reader");
    let log = text();
    assert_eq!(log.matches("were dropped").count(), 1);
    assert!(log.ends_with("stopped\n"), "the last lines are written");
    // Nothing was cut where lines were dropped.
    let own = log.lines().filter(|line| line.contains(" gatepost::"));
    assert!(own.clone().all(|line| line.starts_with("20")), "{own:?}");
}

/// Runs a command with its standard output or standard error at `place`; its exit code and what it
/// wrote to the other one.
fn run(site: &Site, arguments: &[&str], place: &str, output: Stdio) -> (Option<i32>, String) {
    let mut command = site.command(arguments);
    match place {
        "stdout" => command.stdout(output).stderr(Stdio::piped()),
        _ => command.stderr(output).stdout(Stdio::piped()),
    };
    let done = command.output().expect("run gatepost");
    let mut words = done.stdout;
    words.extend(done.stderr);
    (done.status.code(), String::from_utf8(words).expect("UTF-8"))
}

fn closed() -> PipeWriter {
    unread().1
}

/// Commands that print, of all kinds.
const COMMANDS: [&[&str]; 10] = [
    &["--help"],
    &["--version"],
    &["credential", "--help"],
    &["credential", "list"],
    &["credential", "list", "--json"],
    &["organization", "list"],
    &["token", "list"],
    &["audit", "list"],
    &["refusals", "list"],
    &["store", "check"],
];

#[test]
fn a_command_that_cannot_print_says_so_and_one_that_is_not_read_is_silent() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    site.create();
    for arguments in COMMANDS {
        let (code, words) = run(&site, arguments, "stdout", full().into());
        assert_eq!(code, Some(74), "{arguments:?}: {words}");
        assert_eq!(
            words,
            "gatepost: cannot write to standard output: No space left on device (os error 28)\n",
            "{arguments:?}"
        );
        let (code, words) = run(&site, arguments, "stdout", closed().into());
        assert_eq!((code, words.as_str()), (Some(141), ""), "{arguments:?}");
    }
    // A check finds faults here, and still ends for want of a reader.
    for arguments in [&["check"][..], &["doctor"]] {
        let (code, words) = run(&site, arguments, "stdout", full().into());
        assert_eq!(code, Some(74), "{arguments:?}: {words}");
        let (code, words) = run(&site, arguments, "stdout", closed().into());
        assert_eq!((code, words.as_str()), (Some(141), ""), "{arguments:?}");
    }
}

#[test]
fn an_error_that_cannot_be_printed_keeps_its_exit_code() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    site.create();
    std::fs::remove_file(site.path("key.pem")).expect("remove the key");
    for (arguments, expected) in [
        (&["credential", "show", "smtp_0000000000000000"][..], 1),
        (&["credential", "explode"], 2),
        (&["serve"], 78),
    ] {
        for output in [full().into(), Stdio::from(closed())] {
            let (code, words) = run(&site, arguments, "stderr", output);
            assert_eq!(
                (code, words.as_str()),
                (Some(expected), ""),
                "{arguments:?}"
            );
        }
    }
}

#[test]
fn a_secret_that_cannot_be_shown_is_an_error() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    let credential = site.create();
    let rotate = ["credential", "rotate", &credential.username];
    let token = [
        "token",
        "create",
        "--name",
        "lost",
        "--scope",
        "instance:admin",
    ];
    for (arguments, next) in [
        (
            &["credential", "create"][..],
            "gatepost credential rotate smtp_",
        ),
        (
            &["credential", "create", "--json"],
            "gatepost credential rotate smtp_",
        ),
        (&rotate, "gatepost credential rotate smtp_"),
        (&token, "gatepost token revoke lost"),
    ] {
        for output in [full().into(), Stdio::from(closed())] {
            let (code, words) = run(&site, arguments, "stdout", output);
            assert_eq!(code, Some(74), "{arguments:?}: {words}");
            assert!(
                words.contains("could not be shown") && words.contains(next),
                "{arguments:?}: {words}"
            );
            assert!(!words.contains("sk_") && !words.contains("gp_"), "{words}");
        }
    }
}

#[test]
fn a_shell_sees_no_panic_behind_head() {
    let site = Site::new(Config::for_upstream("127.0.0.1:1"));
    (0..3).for_each(|_| drop(site.create()));
    let gatepost = env!("CARGO_BIN_EXE_gatepost");
    let config = site.config();
    let script = format!(
        "{gatepost} --config {} credential list | head -1; {gatepost} --help | head -1",
        config.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output();
    let output = output.expect("run sh");
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 2, "{text}");
}
