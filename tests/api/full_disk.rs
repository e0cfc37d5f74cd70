//! A store on a file system of one mebibyte that has run full: what is to be refused is refused all the same.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{DEFAULT, Served};
use crate::support::eventually;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Credential, Site};
use crate::support::upstream::Upstream;

/// In a mount namespace of its own: nobody else sees the small file system.
const START: &str = "mount -t tmpfs -o size=1m none \"$1\" && shift && exec \"$@\"";

impl Served {
    /// Served from a store on a small file system, with its command line there as well.
    fn on_a_small_disk(upstream: &Upstream) -> (Served, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let (address, config) = Served::config(upstream);
        let config = config.text("admin", "socket", socket.to_str().unwrap());
        let site = Arc::new(Site::new(config));
        let store = site.store().parent().unwrap().to_str().unwrap().to_owned();
        let words = ["unshare", "--mount", "sh", "-c", START, "sh", &store];
        let daemon = Gatepost::serve_behind(&site, &words.map(str::to_owned));
        let mut served = Served {
            daemon,
            address,
            token: String::new(),
        };
        let create = [
            "token",
            "create",
            "--name",
            "t",
            "--scope",
            "instance:admin",
        ];
        let token = served.there(&[&create[..], &["--json"]].concat());
        served.token = token["secret"].as_str().unwrap().to_owned();
        (served, directory)
    }

    /// Runs a command where the daemon's store is.
    fn there(&self, arguments: &[&str]) -> Value {
        let mut command = self.daemon.command_behind(&self.daemon.prefix(), arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        self.daemon.secrets.remember_shown(&output.stdout);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn create_there(&self) -> Credential {
        let made = self.there(&["credential", "create", "--json"]);
        Credential::from_json(made.to_string().as_bytes())
    }

    /// The directory of the store, seen from outside its namespace.
    fn disk(&self) -> PathBuf {
        let [.., pid] = self.daemon.prefix();
        let store = self.daemon.store();
        let inside = store.parent().unwrap().strip_prefix("/").unwrap();
        Path::new("/proc").join(pid).join("root").join(inside)
    }
}

/// Takes the last octet there is.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("ballast");
    let mut file = std::fs::File::create(&path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&[0].repeat(size)).is_ok() {}
    }
    path
}

#[test]
fn a_revocation_bites_on_a_full_disk_and_is_written_when_there_is_room() {
    let upstream = Upstream::start();
    let (served, _directory) = Served::on_a_small_disk(&upstream);
    let [by_api, by_command] = [(); 2].map(|()| served.create_there());
    for credential in [&by_api, &by_command] {
        assert!(served.log_in(credential).starts_with("235"));
    }
    let ballast = fill(&served.disk());

    let patch = format!("PATCH {DEFAULT}/{}", by_api.username);
    // Only the revocation counts before it is written.
    let change = Some(json!({ "status": "revoked", "name": "Lost" }));
    let answer = served.by(&served.token, &patch, change).expect(507);
    assert_eq!(answer.body["code"], "effective-not-durable");
    assert!(served.log_in(&by_api).starts_with("535 5.7.8"));
    let log = ["revoked, but that cannot be written yet", &by_api.username];
    served.daemon.wait_for_log(&log);
    let made = served.by(&served.token, &format!("POST {DEFAULT}"), None);
    assert_eq!(made.expect(507).body["code"], "store-full");

    let revoke = ["credential", "revoke", &by_command.username];
    let mut command = served
        .daemon
        .command_behind(&served.daemon.prefix(), &revoke);
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{error}");
    assert!(error.contains("refused from now on"), "{error}");
    assert!(served.log_in(&by_command).starts_with("535 5.7.8"));

    std::fs::remove_file(ballast).unwrap();
    for credential in [&by_api, &by_command] {
        let show = ["credential", "show", &credential.username, "--json"];
        eventually("the revocation is written", || {
            (served.there(&show)["status"] == "revoked").then_some(())
        });
        assert_eq!(served.there(&show)["name"], Value::Null);
        assert!(served.log_in(credential).starts_with("535 5.7.8"));
    }
}

#[test]
fn what_is_enabled_again_is_not_revoked_by_what_waited_to_be_written() {
    let upstream = Upstream::start();
    let (served, _directory) = Served::on_a_small_disk(&upstream);
    let [enabled, revoked] = [(); 2].map(|()| served.create_there());
    let ballast = fill(&served.disk());
    for credential in [&enabled, &revoked] {
        let patch = format!("PATCH {DEFAULT}/{}", credential.username);
        let change = Some(json!({ "status": "revoked" }));
        served.by(&served.token, &patch, change).expect(507);
    }

    served.there(&["credential", "enable", &enabled.username, "--json"]);
    assert!(served.log_in(&enabled).starts_with("235"));

    std::fs::remove_file(ballast).unwrap();
    let status = |credential: &Credential| {
        served.there(&["credential", "show", &credential.username, "--json"])["status"].clone()
    };
    eventually("the other's revocation is written", || {
        (status(&revoked) == "revoked").then_some(())
    });
    assert_eq!(status(&enabled), "active");
    assert!(served.log_in(&enabled).starts_with("235"));
}
