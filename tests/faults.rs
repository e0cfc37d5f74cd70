//! A part of the world around the daemon stalls or fails, and five facts hold all the same:
//!
//! 1. a login with the right, cached password succeeds within 2 s;
//! 2. a wrong password is answered 535;
//! 3. a revocation takes effect within 1 s;
//! 4. a message in flight gets the upstream's own answer;
//! 5. SIGTERM ends the process within `drain_timeout` and 5 s.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::auth_client::AuthClient;
use crate::support::client::{Client, stuffed};
use crate::support::faketime::WallClock;
use crate::support::gatepost::Gatepost;
use crate::support::lock::Lock;
use crate::support::shim::Shim;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::{Act, Upstream};

/// A login with a cached password.
const LOGIN_WITHIN: Duration = Duration::from_secs(2);
/// From the request to the answer, after which no login of the credential succeeds.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);
/// `drain_timeout`, which no transaction here needs.
const DRAIN: &str = "2s";
/// `drain_timeout` and 5 s.
const ENDS_WITHIN: Duration = Duration::from_secs(7);

const CREDENTIALS: &str = "/api/v1/organizations/default/credentials";

/// A daemon with what the facts are about, from before the fault.
struct World {
    daemon: Gatepost,
    upstream: Upstream,
    /// The directory of the sockets, which the daemon sees also from its own mount namespace.
    directory: tempfile::TempDir,
    /// A credential whose password the daemon has cached. Its organization has a daily limit.
    cached: Credential,
    /// A credential to revoke, and a session of it.
    victim: Credential,
    session: RefCell<Client>,
    /// A session in the middle of a message.
    in_flight: RefCell<Client>,
    /// Sessions that were greeted and did not log in, for a fault that keeps new ones out.
    greeted: RefCell<Vec<Client>>,
}

impl World {
    /// Starts the daemon as `launch` says.
    fn new(launch: impl FnOnce(&Arc<Site>) -> Gatepost) -> World {
        let upstream = Upstream::start();
        let directory = tempfile::tempdir().expect("tempdir");
        let place = |name: &str| directory.path().join(name).display().to_string();
        let config = Config::for_upstream(upstream.address)
            .text("admin", "socket", &place("admin.sock"))
            .text(
                "dovecot_auth",
                "listen",
                &format!("unix:{}", place("auth.sock")),
            )
            .drain_timeout(DRAIN);
        let site = Arc::new(Site::new(config));
        let daemon = launch(&site);
        let admin = directory.path().join("admin.sock");
        let limits = json!({ "limits": { "messages_per_day": 1000 } });
        let organization = "/api/v1/organizations/default";
        request(&admin, "PATCH", organization, Some(limits)).expect(200);
        let [cached, victim] = [(); 2].map(|()| {
            let created = request(&admin, "POST", CREDENTIALS, None).expect(201);
            let credential = Credential::from_json(created.to_string().as_bytes());
            site.remember(&credential);
            credential
        });
        let mut in_flight = Client::logged_in(&site, &cached);
        in_flight.begin_message();
        in_flight.write(b"Subject: in flight\r\n");
        upstream.wait_for("with a body under way", |session| {
            !session.unfinished.is_empty()
        });
        World {
            session: RefCell::new(Client::logged_in(&site, &victim)),
            in_flight: RefCell::new(in_flight),
            greeted: RefCell::new((0..3).map(|_| Client::submissions(&site)).collect()),
            daemon,
            upstream,
            directory,
            cached,
            victim,
        }
    }

    fn admin(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// A session that may log in: a new one, unless the fault keeps new ones out.
    fn client(&self) -> Client {
        Client::submissions(&self.daemon)
    }

    /// The reply to AUTH in this session, and how long it took.
    fn log_in(mut client: Client, credential: &Credential) -> (String, Duration) {
        let begun = Instant::now();
        client.expect("EHLO client.example", "250");
        let reply = client.auth_plain(credential);
        (reply.lines.join(" "), begun.elapsed())
    }

    /// Asserts the five facts. `client` makes a session that may log in.
    fn five_facts(self, client: impl Fn(&World) -> Client) {
        let (reply, took) = World::log_in(client(&self), &self.cached);
        assert!(reply.starts_with("235 2.7.0"), "a cached login: {reply}");
        assert!(took <= LOGIN_WITHIN, "a cached login took {took:?}");
        self.other_facts(client);
    }

    /// Asserts all facts but the first.
    fn other_facts(self, client: impl Fn(&World) -> Client) {
        let wrong = self.cached.with_wrong_password();
        let (reply, took) = World::log_in(client(&self), &wrong);
        assert!(reply.starts_with("535 5.7.8"), "a wrong password: {reply}");
        assert!(took <= LOGIN_WITHIN, "a wrong password took {took:?}");

        let one = format!("{CREDENTIALS}/{}", self.victim.username);
        let revoke = json!({ "status": "revoked", "disconnect": true });
        let begun = Instant::now();
        let answer = request(&self.admin(), "PATCH", &one, Some(revoke));
        let took = begun.elapsed();
        assert!(took <= REVOKED_WITHIN, "the revocation took {took:?}");
        assert!(matches!(answer.status, 200 | 507), "{}", answer.text);
        let (reply, _) = World::log_in(client(&self), &self.victim);
        assert!(reply.starts_with("535 5.7.8"), "a revoked login: {reply}");
        self.session.borrow_mut().reply().expect("421 4.7.0");

        let mut in_flight = self.in_flight.borrow_mut();
        in_flight.write(&stuffed(b"\r\nlast line\r\n"));
        in_flight.reply().expect("250 2.0.0 Ok: queued as 4242");
        drop(in_flight);

        let World { daemon, .. } = self;
        let begun = Instant::now();
        daemon.signal(Signal::TERM);
        let status = daemon.wait();
        let took = begun.elapsed();
        assert!(took <= ENDS_WITHIN, "SIGTERM took {took:?}");
        assert_ne!(status.code(), Some(101), "the daemon panicked");
    }
}

/// An answer of the administration.
struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        serde_json::from_str(&self.text).expect("JSON")
    }
}

/// Asks the administration on its unix socket, by curl.
fn request(socket: &Path, method: &str, path: &str, body: Option<Value>) -> Answer {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10"])
        .args(["--write-out", "\n%{http_code}", "--request", method])
        .arg("--unix-socket")
        .arg(socket)
        .arg(format!("http://localhost{path}"));
    if let Some(body) = body {
        curl.args(["--header", "Content-Type: application/json"])
            .args(["--data", &body.to_string()]);
    }
    let output = curl.output().expect("run curl");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (text, status) = text.rsplit_once('\n').expect("a status");
    Answer {
        status: status.parse().expect("a number"),
        text: text.to_owned(),
    }
}

#[test]
fn five_facts_hold_while_another_process_locks_the_store() {
    let world = World::new(Gatepost::serve);
    let _lock = Lock::take(&world.daemon.store());
    world.five_facts(World::client);
}

#[test]
fn five_facts_hold_while_a_sync_of_the_store_stalls() {
    let shim = Shim::new();
    let world = World::new(|site| Gatepost::launch(site, |command| shim.preload(command)));
    shim.stall();
    let admin = world.admin();
    // The sync of this change stalls, and no answer comes while it does.
    let change = std::thread::spawn(move || request(&admin, "POST", CREDENTIALS, None));
    shim.wait_until_stalled();
    world.five_facts(World::client);
    shim.resume();
    change.join().expect("curl ends");
}

/// Mounts a file system of one mebibyte where the store lies.
const SMALL_DISK: &str = "mount -t tmpfs -o size=1m none \"$1\" && shift && exec \"$@\"";

#[test]
fn five_facts_hold_while_the_disk_is_full() {
    let world = World::new(|site| {
        let store = site.store().parent().unwrap().display().to_string();
        let words = ["unshare", "--mount", "sh", "-c", SMALL_DISK, "sh", &store];
        Gatepost::serve_behind(site, &words.map(str::to_owned))
    });
    let [.., pid] = world.daemon.prefix();
    let store = world.daemon.store();
    let inside = store.parent().unwrap().strip_prefix("/").unwrap();
    let disk = Path::new("/proc").join(pid).join("root").join(inside);
    let mut ballast = File::create(disk.join("ballast")).expect("create");
    for size in [4096, 1] {
        while ballast.write_all(&[0].repeat(size)).is_ok() {}
    }
    world.five_facts(World::client);
}

/// A daemon that logs into a pipe, and the end to read the log from.
fn logging_into_a_pipe() -> (World, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let world = World::new(|site| {
        Gatepost::launch(site, |mut command| {
            command.stderr(writer);
            command
        })
    });
    (world, reader)
}

#[test]
fn five_facts_hold_while_the_log_is_blocked() {
    let (world, reader) = logging_into_a_pipe();
    // The pipe opened anew is full without making the daemon's end non-blocking.
    let mut pipe = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", reader.as_raw_fd()))
        .expect("open the pipe");
    for size in [4096, 1] {
        while pipe.write_all(&[b'\n'].repeat(size)).is_ok() {}
    }
    drop(pipe);
    world.five_facts(World::client);
    drop(reader);
}

#[test]
fn five_facts_hold_after_the_log_was_closed() {
    let (world, reader) = logging_into_a_pipe();
    drop(reader);
    world.five_facts(World::client);
}

#[test]
fn five_facts_hold_while_descriptors_are_used_up() {
    let world = World::new(|site| {
        let words = ["sh", "-c", "ulimit -n 100; exec \"$@\"", "sh"];
        Gatepost::serve_behind(site, &words.map(str::to_owned))
    });
    let connect = |_| TcpStream::connect(world.daemon.submissions).expect("connect");
    let _clients: Vec<_> = (0..200).map(connect).collect();
    world.five_facts(|world| world.greeted.borrow_mut().pop().expect("a session left"));
}

#[test]
fn five_facts_hold_while_the_upstream_is_silent() {
    let world = World::new(Gatepost::serve);
    world.upstream.on("<greeting>", Act::Silence);
    // No session is handed over now, so the login is one that Postfix asks about.
    let mut socket = AuthClient::over_unix(&world.directory.path().join("auth.sock"));
    let response = world.cached.plain();
    let begun = Instant::now();
    let answer = socket.ask(&format!(
        "AUTH\t1\tPLAIN\tservice=smtp\trip=127.0.0.1\tsecured\tresp={response}"
    ));
    assert!(answer.starts_with("OK\t1\t"), "{answer}");
    assert!(begun.elapsed() <= LOGIN_WITHIN, "{:?}", begun.elapsed());
    world.other_facts(World::client);
}

#[test]
fn five_facts_hold_after_the_wall_clock_jumped() {
    const DAY: i64 = 86_400;
    for days in [-40, 40] {
        let directory = tempfile::tempdir().expect("tempdir");
        let clock = WallClock::new(directory.path().join("clock"));
        let world = World::new(|site| Gatepost::launch(site, |command| clock.give(command)));
        clock.ahead_by(days * DAY);
        world.five_facts(World::client);
    }
}
