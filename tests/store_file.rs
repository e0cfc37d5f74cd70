//! The store's file under a running daemon: removed, replaced, written over, and wanted by a second daemon.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::prometheus::wait_for_series;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, eventually, ports, within};

/// "Within seconds".
const SOON: Duration = Duration::from_secs(5);

const IN_PLACE: &str = "gatepost_store_in_place";

/// A daemon whose store has one credential in a backup, and another one beside it.
struct Served {
    daemon: Gatepost,
    site: Arc<Site>,
    admin: SocketAddr,
    metrics: SocketAddr,
    backup: PathBuf,
    before: Credential,
    after: Credential,
    upstream: Upstream,
}

impl Served {
    fn start() -> Served {
        let upstream = Upstream::start();
        let (admin, metrics) = (ports::free_address(), ports::free_address());
        let config = Config::for_upstream(upstream.address)
            .text("admin", "listen", &admin.to_string())
            .text("metrics", "listen", &metrics.to_string())
            .text("last_used", "flush_interval", "100ms");
        let site = Arc::new(Site::new(config));
        let daemon = Gatepost::serve(&site);
        let before = site.create();
        let backup = site.path("backup.db");
        site.succeed(&["backup", backup.to_str().unwrap()]);
        let after = site.create();
        let served = Served {
            daemon,
            site,
            admin,
            metrics,
            backup,
            before,
            after,
            upstream,
        };
        eventually("it is ready", || {
            served.ready().contains("200 OK").then_some(())
        });
        assert!(served.accepts(&served.before) && served.accepts(&served.after));
        served
    }

    fn ready(&self) -> String {
        let Ok(mut socket) = TcpStream::connect(self.admin) else {
            return String::new();
        };
        let request = format!(
            "GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        );
        let mut answer = String::new();
        // It may be ending just now.
        let _ = socket.set_read_timeout(Some(PATIENCE));
        let _ = socket.write_all(request.as_bytes());
        let _ = socket.read_to_string(&mut answer);
        answer
    }

    fn accepts(&self, credential: &Credential) -> bool {
        accepts(&self.site, credential)
    }

    fn says_that_it_is_not_ready(&self) {
        within(SOON, "it is not ready", || {
            let answer = self.ready();
            (answer.contains("503") && answer.contains("removed or replaced")).then_some(())
        });
    }

    /// The copy that the daemon saved.
    fn saved(&self) -> PathBuf {
        let directory = self.site.store().parent().unwrap().to_owned();
        eventually("a copy is saved", || {
            let entries = fs::read_dir(&directory).ok()?;
            let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            paths.find(|path| path.to_string_lossy().contains(".saved-"))
        })
    }

    /// Waits for the daemon to end with 74, and starts the next one.
    fn ends_and_starts_anew(self) -> Served {
        let status = self.daemon.wait();
        assert_eq!(status.code(), Some(74));
        Served {
            daemon: Gatepost::serve(&self.site),
            ..self
        }
    }
}

fn accepts(site: &Site, credential: &Credential) -> bool {
    let mut client = Client::submissions(site);
    client.expect("EHLO client.example", "250");
    client.auth_plain(credential).starts_with("235")
}

fn cp(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status();
    assert!(copied.expect("run cp").success());
}

#[test]
fn a_removed_store_keeps_logins_going_and_refuses_changes_and_nothing_is_lost() {
    let served = Served::start();
    fs::remove_file(served.site.store()).expect("remove the store");
    served.says_that_it_is_not_ready();
    wait_for_series(served.metrics, IN_PLACE, 0.0);
    served
        .daemon
        .wait_for_log(&["ERROR", "its file was removed"]);
    assert!(served.accepts(&served.before) && served.accepts(&served.after));
    // No command makes an empty store, which the next start would serve from.
    let refused = served.site.run(&["credential", "create"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("gatepost restore FILE"), "{words}");
    assert!(!served.site.store().exists());
    let doctor = served.site.run(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        doctor.contains("PROBLEM") && doctor.contains("is not the file that the running Gatepost"),
        "{doctor}"
    );
    let saved = served.saved();
    let restore = ["restore", saved.to_str().unwrap(), "--yes"];
    let in_use = served.site.run(&restore);
    assert_eq!(in_use.status.code(), Some(1), "{in_use:?}");
    served.daemon.signal(Signal::TERM);
    let Served {
        daemon,
        site,
        before,
        after,
        upstream: _upstream,
        ..
    } = served;
    assert!(daemon.wait().success());
    let refused = site.run(&["serve"]);
    assert_eq!(refused.status.code(), Some(78), "{refused:?}");
    site.succeed(&restore);
    let _daemon = Gatepost::serve(&site);
    assert!(accepts(&site, &before) && accepts(&site, &after));
}

#[test]
fn a_store_that_is_moved_away_and_back_is_taken_up_again() {
    let served = Served::start();
    let elsewhere = served.site.path("elsewhere.db");
    fs::rename(served.site.store(), &elsewhere).expect("move it away");
    served.says_that_it_is_not_ready();
    fs::rename(&elsewhere, served.site.store()).expect("move it back");
    within(SOON, "it is ready", || {
        served.ready().contains("200 OK").then_some(())
    });
    wait_for_series(served.metrics, IN_PLACE, 1.0);
    served.daemon.wait_for_log(&["back in place"]);
    let another = served.site.create();
    assert!(served.accepts(&another));
}

#[test]
fn a_store_that_another_file_replaces_ends_the_daemon_and_the_next_one_serves_from_that() {
    let served = Served::start();
    let new = served.site.path("new.db");
    cp(&served.backup, &new);
    let begun = Instant::now();
    fs::rename(&new, served.site.store()).expect("replace the store");
    served
        .daemon
        .wait_for_log(&["ERROR", "another file was put in its place"]);
    assert!(begun.elapsed() < SOON);
    let saved = served.saved();
    let served = served.ends_and_starts_anew();
    assert!(served.accepts(&served.before) && !served.accepts(&served.after));
    let Served { daemon, site, .. } = served;
    site.succeed(&["store", "check"]);
    drop(daemon);
    site.succeed(&["restore", saved.to_str().unwrap(), "--yes"]);
    let shown = site.json(&["credential", "list"]).to_string();
    assert!(
        shown.contains(&served.after.username),
        "the copy has what was changed last"
    );
}

#[test]
fn a_backup_copied_over_the_store_is_noticed_and_served_from_after_the_restart() {
    let served = Served::start();
    cp(&served.backup, &served.site.store());
    served
        .daemon
        .wait_for_log(&["ERROR", "wrote over its file"]);
    let served = served.ends_and_starts_anew();
    let set_aside = "write-ahead log of the former one is set aside";
    served.daemon.wait_for_log(&["WARN", set_aside]);
    assert!(served.accepts(&served.before) && !served.accepts(&served.after));
    served.site.succeed(&["store", "check"]);
}

#[test]
fn a_directory_that_is_made_anew_is_noticed() {
    let served = Served::start();
    let directory = served.site.store().parent().unwrap().to_owned();
    fs::remove_dir_all(&directory).expect("remove the directory");
    served.says_that_it_is_not_ready();
    served.daemon.wait_for_log(&["ERROR", "could not be saved"]);
    assert!(served.accepts(&served.after));
    fs::create_dir(&directory).expect("make it again");
    cp(&served.backup, &served.site.store());
    let served = served.ends_and_starts_anew();
    assert!(served.accepts(&served.before) && !served.accepts(&served.after));
}

#[test]
fn a_second_daemon_is_refused_and_is_told_of_the_first() {
    let upstream = Upstream::start();
    let site = Arc::new(Site::new(Config::for_upstream(upstream.address)));
    let first = Gatepost::serve(&site);
    let second = site.run(&["serve"]);
    assert_eq!(second.status.code(), Some(74), "{second:?}");
    let said = [second.stdout, second.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let pid = format!("process {} on ", first.pid());
    assert!(
        said.contains("another Gatepost serves from it") && said.contains(&pid),
        "{said}"
    );
    // Commands are no daemons.
    let credential = site.create();
    assert!(accepts(&site, &credential));
    first.kill();
    let third = Gatepost::serve(&site);
    assert!(accepts(&site, &credential), "kill -9 leaves no lock");
    // As in a restart: the next one begins while the last one drains, and binds its ports once these are free.
    third.signal(Signal::TERM);
    let _fourth = Gatepost::serve(&site);
    assert!(accepts(&site, &credential));
    assert!(third.wait().success());
}
