//! The daemon under test as a child process.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::site::{Config, Site};
use super::{PATIENCE, eventually, within};

/// A running `gatepost serve`. Killed on drop, after which its log is searched for panics.
pub struct Gatepost {
    child: Child,
    notify: UnixDatagram,
    site: Arc<Site>,
}

impl Gatepost {
    /// A new site and its daemon, serving.
    pub fn start(config: Config) -> Gatepost {
        Gatepost::serve(&Arc::new(Site::new(config)))
    }

    /// Starts the daemon of `site` and waits until it says that it serves.
    pub fn serve(site: &Arc<Site>) -> Gatepost {
        Gatepost::launch(site, |command| command)
    }

    /// The same, started by the program that `prefix` names, which must become the daemon (exec).
    pub fn serve_behind(site: &Arc<Site>, prefix: &[String]) -> Gatepost {
        Gatepost::started_by(site, Gatepost::command(site, prefix))
    }

    /// As [`Gatepost::serve`], started as `arrange` makes of the usual command.
    pub fn launch(site: &Arc<Site>, arrange: impl FnOnce(Command) -> Command) -> Gatepost {
        Gatepost::started_by(site, arrange(Gatepost::command(site, &[])))
    }

    fn started_by(site: &Arc<Site>, mut command: Command) -> Gatepost {
        let socket = site.path("notify.sock");
        // Left by the daemon's predecessor where a test restarts it.
        let _ = std::fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).expect("bind the notify socket");
        let child = command.env("NOTIFY_SOCKET", &socket).spawn();
        let child = child.expect("start gatepost");
        let mut gatepost = Gatepost {
            child,
            notify,
            site: Arc::clone(site),
        };
        gatepost.wait_for_state("READY=1");
        gatepost
    }

    fn command(site: &Site, prefix: &[String]) -> Command {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(site.path("log"));
        let log = log.expect("open the log");
        let mut command = site.command_behind(prefix, &["serve"]);
        command
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log);
        command
    }

    /// Notes what the daemon tells Prometheus, if it is still there to be asked.
    fn note_metrics(&self) {
        let Some(address) = self.site.metrics else {
            return;
        };
        let Ok(mut socket) = TcpStream::connect(address) else {
            return;
        };
        let mut answer = Vec::new();
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        // It may be ending just now; what it said until then counts.
        let _ = socket.set_read_timeout(Some(PATIENCE));
        let _ = socket.write_all(request.as_bytes());
        let _ = socket.read_to_end(&mut answer);
        self.site.secrets.note("/metrics", &answer);
    }

    /// Waits until the daemon tells its service manager `state`; all that it says with it.
    pub fn wait_for_state(&mut self, state: &str) -> String {
        let step = Duration::from_millis(50);
        self.notify
            .set_read_timeout(Some(step))
            .expect("set a timeout");
        let start = Instant::now();
        let mut message = [0; 4096];
        loop {
            // A timeout is a chance to notice that the daemon died instead.
            if let Ok(length) = self.notify.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]);
                if text.lines().any(|line| line == state) {
                    return text.into_owned();
                }
            } else if let Some(status) = self.child.try_wait().expect("ask for the child") {
                panic!(
                    "gatepost ended with {status} before {state}:\n{}",
                    self.log()
                );
            }
            assert!(
                start.elapsed() < PATIENCE,
                "no {state} from gatepost:\n{}",
                self.log()
            );
        }
    }

    /// What the daemon told its service manager and nobody has waited for yet.
    pub fn states(&self) -> Vec<String> {
        self.notify.set_nonblocking(true).expect("do not wait");
        let mut message = [0; 4096];
        let states = std::iter::from_fn(|| {
            let length = self.notify.recv(&mut message).ok()?;
            Some(String::from_utf8_lossy(&message[..length]).into_owned())
        });
        let states = states.collect();
        self.notify.set_nonblocking(false).expect("wait again");
        states
    }

    /// The words that run a program in the daemon's mount namespace.
    pub fn prefix(&self) -> [String; 4] {
        let target = self.child.id().to_string();
        ["nsenter", "--mount", "--target", &target].map(str::to_owned)
    }

    /// The site, for when the daemon is gone.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("signal gatepost");
    }

    /// Stops the daemon in its tracks until [`Signal::CONT`]. The signal alone stops a thread that
    /// runs on another core only after a moment.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_stopped = |stat: &str| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        eventually("every thread is stopped", || {
            let mut tasks = std::fs::read_dir(&tasks).expect("the daemon's threads");
            let all = tasks.all(|task| {
                let stat = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
                // One that ended between the two is as still as it gets.
                stat.map_or(true, |stat| is_stopped(&stat))
            });
            all.then_some(())
        });
    }

    /// Waits for the daemon to end by itself, no longer than a promise allows; it stays here to be
    /// asked for its log.
    pub fn ends_within(&mut self, limit: Duration) -> ExitStatus {
        within(limit, "gatepost ends", || {
            self.child.try_wait().expect("ask for the child")
        })
    }

    /// Waits for the daemon to end by itself.
    pub fn wait(mut self) -> ExitStatus {
        eventually("gatepost ends", || {
            self.child.try_wait().expect("ask for the child")
        })
    }

    /// kill -9, and gone when this returns.
    pub fn kill(mut self) {
        self.child.kill().expect("kill gatepost");
        self.child.wait().expect("reap gatepost");
    }

    /// All the daemon wrote so far, also in earlier lives on this site.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.site.path("log")).unwrap()).into_owned()
    }

    /// Waits for a log line that holds every one of `parts`, and returns it.
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        eventually(&format!("a log line with {parts:?}"), || {
            let log = self.log();
            log.lines()
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(String::from)
        })
    }
}

impl Deref for Gatepost {
    type Target = Site;
    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Drop for Gatepost {
    fn drop(&mut self) {
        self.note_metrics();
        // Both fail where the test already waited for its end; there is nothing left to kill then.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{log}---");
        } else {
            assert!(!log.contains("panicked at"), "the daemon panicked:\n{log}");
        }
    }
}
