//! A systemd-journald of our own: in a mount namespace, where its socket has the name that every
//! program knows, with its files in a directory that can be read from outside.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::eventually;
use super::site::Site;

/// Reads neither the kernel's log nor the system's settings, and keeps nothing of the system's.
const START: &str = "set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal /run/log/journal
mount --bind \"$1\" /run/log/journal
if [ -e /dev/kmsg ]; then mount --bind /dev/null /dev/kmsg; fi
exec /lib/systemd/systemd-journald";

/// A running journald. Killed on drop, and its namespace with it.
pub struct Journal {
    child: Child,
    directory: PathBuf,
}

impl Journal {
    /// Keeps its files in `site`'s directory.
    pub fn start(site: &Site) -> Journal {
        let directory = site.path("journal");
        std::fs::create_dir(&directory).expect("a directory for the journal");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", START, "sh"]);
        let child = command.arg(&directory).stderr(Stdio::null()).spawn();
        let journal = Journal {
            child: child.expect("start journald"),
            directory,
        };
        eventually("journald listens", || {
            let seen = |path: &str| journal.inside(&["test", "-S", path]);
            seen("/run/systemd/journal/socket").then_some(())
        });
        journal
    }

    /// The words that run a program where this journal is the system's.
    pub fn prefix(&self) -> [String; 4] {
        let target = self.child.id().to_string();
        ["nsenter", "--mount", "--target", &target].map(str::to_owned)
    }

    /// The entries of the program under test.
    pub fn entries(&self) -> Vec<Value> {
        let mut command = Command::new("journalctl");
        command.arg("-D").arg(&self.directory);
        let output = command
            .args(["-o", "json", "--all", "_COMM=gatepost"])
            .output();
        let output = output.expect("run journalctl");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("an entry"))
            .collect()
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn inside(&self, command: &[&str]) -> bool {
        let [program, arguments @ ..] = &self.prefix();
        let mut nsenter = Command::new(program);
        let status = nsenter.args(arguments).args(command).status();
        status.expect("run nsenter").success()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Fails where it died by itself, which the test has noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
