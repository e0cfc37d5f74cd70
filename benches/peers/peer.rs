//! The programs that are measured, each started on loopback in a directory of its own.

mod dovecot;
mod floor;
pub mod gatepost;
mod haproxy;
mod nginx;
mod postfix;

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use self::gatepost::Setup;
use crate::site::Site;
use crate::usage::{self, Usage};

/// How long one may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which program, and how it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Floor,
    Gatepost,
    Haproxy,
    Nginx,
    NginxTuned,
    Dovecot,
    Postfix,
}

impl Kind {
    /// All, in the order in which they are reported.
    pub const ALL: [Kind; 7] = [
        Kind::Floor,
        Kind::Gatepost,
        Kind::Haproxy,
        Kind::Nginx,
        Kind::NginxTuned,
        Kind::Dovecot,
        Kind::Postfix,
    ];

    /// The name for the command line and the raw results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Floor => "floor",
            Kind::Gatepost => "gatepost",
            Kind::Haproxy => "haproxy",
            Kind::Nginx => "nginx",
            Kind::NginxTuned => "nginx-tuned",
            Kind::Dovecot => "dovecot",
            Kind::Postfix => "postfix",
        }
    }

    /// What it is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Floor => "bare relay loop over rustls",
            Kind::Gatepost => "Gatepost",
            Kind::Haproxy => "HAProxy, TLS only",
            Kind::Nginx => "nginx mail",
            Kind::NginxTuned => "nginx mail, tuned",
            Kind::Dovecot => "Dovecot submission proxy",
            Kind::Postfix => "Postfix smtpd + Dovecot SASL",
        }
    }

    /// Whether it looks at passwords itself.
    pub fn authenticates(self) -> bool {
        !matches!(self, Kind::Floor | Kind::Haproxy)
    }

    /// By how much less than the others it is given to do, so that a round ends.
    pub fn patience(self) -> u64 {
        match self {
            Kind::Postfix => 10,
            Kind::Dovecot => 3,
            _ => 1,
        }
    }

    /// Idle sessions that it can hold at most: Postfix has a process for each.
    pub fn idle(self, wanted: u64) -> u64 {
        match self {
            Kind::Postfix => wanted.min(200),
            _ => wanted,
        }
    }

    /// Starts it.
    pub fn start(self, site: &Site) -> Peer {
        match self {
            Kind::Floor => floor::start(site),
            Kind::Gatepost => gatepost::start(site, &Setup::default()),
            Kind::Haproxy => haproxy::start(site),
            Kind::Nginx => nginx::start(site, nginx::Setting::Default),
            Kind::NginxTuned => nginx::start(site, nginx::Setting::Tuned),
            Kind::Dovecot => dovecot::start(site),
            Kind::Postfix => postfix::start(site),
        }
    }
}

/// A running program. It is ended when dropped.
pub struct Peer {
    pub kind: Kind,
    /// Where TLS begins at once.
    pub implicit: SocketAddr,
    /// Where it begins by STARTTLS, if that is offered.
    pub starttls: Option<SocketAddr>,
    /// What it says about itself.
    pub version: String,
    /// The program and what it leans on.
    processes: Vec<Child>,
    directory: PathBuf,
}

impl Peer {
    fn new(
        kind: Kind,
        implicit: SocketAddr,
        starttls: Option<SocketAddr>,
        version: String,
        processes: Vec<Child>,
        site: &Site,
    ) -> Peer {
        let mut peer = Peer {
            kind,
            implicit,
            starttls,
            version,
            processes,
            directory: site.path(kind.name()),
        };
        for address in [Some(implicit), starttls].into_iter().flatten() {
            peer.wait_for(address);
        }
        peer
    }

    fn wait_for(&mut self, address: SocketAddr) {
        let name = self.kind.name();
        let started = Instant::now();
        while let Err(error) = TcpStream::connect(address) {
            for process in &mut self.processes {
                if let Ok(Some(status)) = process.try_wait() {
                    panic!("{name} ended with {status}: {}", self.output());
                }
            }
            let late = started.elapsed() > PATIENCE;
            assert!(!late, "{name}: {error}: {}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has said on its standard streams.
    fn output(&self) -> String {
        std::fs::read_to_string(self.directory.join("output")).unwrap_or_default()
    }

    /// Its process, for who wants to look into it.
    pub fn id(&self) -> u32 {
        self.processes[0].id()
    }

    /// What it and its helpers have used so far.
    pub fn usage(&self, with_memory: bool) -> Usage {
        let usages = self
            .processes
            .iter()
            .map(|process| usage::of(process.id(), with_memory));
        usages.fold(Usage::default(), |sum, usage| Usage {
            cpu: sum.cpu + usage.cpu,
            memory_kib: sum.memory_kib + usage.memory_kib,
            processes: sum.processes + usage.processes,
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let id = Pid::from_child(process);
            let mut started = STARTED.lock().expect("nobody panics with it");
            started.retain(|&other| other != id);
            drop(started);
            let _ = kill_process(id, Signal::TERM);
            let asked = Instant::now();
            while let Ok(None) = process.try_wait() {
                if asked.elapsed() > PATIENCE {
                    eprintln!("{} does not end and is killed", self.kind.name());
                    let _ = process.kill();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A program of the system, which may live in sbin and is then not on every user's PATH.
fn program(name: &str) -> Command {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let paths = places.map(|place| Path::new(place).join(name));
    let found = paths.iter().find(|path| path.exists());
    let found = found.unwrap_or_else(|| panic!("no {name}: benches/peers/run installs it"));
    let mut command = Command::new(found);
    command.stdin(Stdio::null());
    command
}

/// Starts a daemon that stays in the foreground; what it says goes into a file beside its configuration.
fn daemon(mut command: Command, directory: &Path) -> Child {
    let log = File::create(directory.join("output")).expect("a file for its output");
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log);
    let process = command.spawn();
    let process = process.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut started = STARTED.lock().expect("nobody panics with it");
    started.push(Pid::from_child(&process));
    process
}

/// What is ended if this process is told to end.
static STARTED: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends what was started when somebody interrupts this, because it would go on for ever, and removes its directory.
pub fn watch_for_signals(directory: PathBuf) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let wait = async {
        let mut ended = signal(SignalKind::terminate()).expect("a signal");
        let mut interrupted = signal(SignalKind::interrupt()).expect("a signal");
        tokio::select! {
            _ = ended.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    std::thread::spawn(move || {
        runtime.block_on(wait);
        for &process in STARTED.lock().expect("nobody panics with it").iter() {
            let _ = kill_process(process, Signal::TERM);
        }
        // What still ends may still write.
        std::thread::sleep(Duration::from_secs(1));
        let _ = std::fs::remove_dir_all(&directory);
        std::process::exit(1);
    });
}

/// The first line that a program prints with this argument, on either stream.
fn version(name: &str, argument: &str) -> String {
    let output = program(name).arg(argument).output().expect("a version");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().trim().to_owned()
}
