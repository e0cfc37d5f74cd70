//! What is shipped for the system around Gatepost: the units, and the certificates' deploy hook.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn shipped(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("read what is shipped")
}

const UNITS: [&str; 8] = [
    "gatepost.service",
    "gatepost.socket",
    "gatepost-submissions.socket",
    "gatepost-web.socket",
    "gatepost-metrics.socket",
    "gatepost-admin.socket",
    "gatepost-auth.socket",
    "gatepost-proxy.socket",
];

/// The units in a root directory of their own, as an administrator would install them, with the
/// program under test as their program.
fn installed() -> TempDir {
    let root = tempfile::tempdir().expect("tempdir");
    let units = root.path().join("etc/systemd/system");
    fs::create_dir_all(units.join("gatepost.service.d")).expect("make directories");
    for unit in UNITS {
        let text = shipped(&format!("systemd/{unit}"));
        let text = text.replace("/usr/local/bin/gatepost", env!("CARGO_BIN_EXE_gatepost"));
        fs::write(units.join(unit), text).expect("install a unit");
    }
    root
}

fn install_drop_in(root: &TempDir) {
    let path = "etc/systemd/system/gatepost.service.d/10-tcp-upstream.conf";
    fs::write(
        root.path().join(path),
        shipped("systemd/10-tcp-upstream.conf"),
    )
    .expect("install");
}

/// The verdict of `systemd-analyze security`, and whether the exposure is at most `tenths`.
fn exposure(root: &TempDir, tenths: u32) -> (String, bool) {
    let output = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true"])
        .arg(format!("--threshold={tenths}"))
        .arg(format!("--root={}", root.path().display()))
        .arg("gatepost.service")
        .output()
        .expect("run systemd-analyze");
    let report = String::from_utf8_lossy(&output.stdout);
    let verdict = report
        .lines()
        .find(|line| line.contains("Overall exposure"));
    let verdict = verdict.unwrap_or_else(|| panic!("no verdict: {output:?}"));
    (verdict.to_owned(), output.status.success())
}

#[test]
fn the_unit_is_as_closed_as_it_is_said_to_be() {
    let root = installed();
    let (verdict, within) = exposure(&root, 2);
    assert!(within && verdict.contains(": 0.2 SAFE"), "{verdict}");
}

#[test]
fn the_unit_with_an_upstream_over_tcp_is_as_closed_as_it_is_said_to_be() {
    let root = installed();
    install_drop_in(&root);
    let (verdict, within) = exposure(&root, 10);
    assert!(within && verdict.contains(": 1.0 OK"), "{verdict}");
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let root = installed();
    install_drop_in(&root);
    let units = root.path().join("etc/systemd/system");
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(UNITS.map(|u| units.join(u)))
        .output()
        .expect("run systemd-analyze");
    // It says what it ignores and still succeeds.
    assert!(output.status.success(), "{output:?}");
    assert!(
        output.stdout.is_empty() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// Every value of `key` in a unit, in order.
fn values(unit: &str, key: &str) -> Vec<String> {
    let unit = shipped(&format!("systemd/{unit}"));
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

/// The first TOML block of the guide after `heading`.
fn guide_toml(heading: &str) -> toml_edit::ImDocument<String> {
    let guide = shipped("docs/src/guide/by-hand.md");
    let (_, rest) = guide.split_once(heading).expect(heading);
    let (_, block) = rest.split_once("```toml\n").expect("a block of TOML");
    let (block, _) = block.split_once("```").expect("its end");
    toml_edit::ImDocument::parse(block.to_owned()).expect("TOML")
}

#[test]
fn the_configuration_in_the_guide_leaves_the_addresses_to_the_socket_units() {
    let config = guide_toml("## 4. Configuration");
    for section in ["listener", "admin", "metrics", "dovecot_auth"] {
        assert!(config.get(section).is_none(), "{section}");
    }
    // Inside the unit, nothing else may be opened on the network.
    let upstream = config["upstream"]["address"].as_str().expect("an address");
    assert!(upstream.starts_with("unix:/var/spool/postfix/public/"));
    for (unit, name) in [
        ("gatepost.socket", "submission"),
        ("gatepost-submissions.socket", "submissions"),
        ("gatepost-web.socket", "admin"),
        ("gatepost-metrics.socket", "metrics"),
        ("gatepost-admin.socket", "admin"),
        ("gatepost-auth.socket", "auth"),
        ("gatepost-proxy.socket", "proxy"),
    ] {
        assert_eq!(values(unit, "FileDescriptorName"), [name], "{unit}");
        // A limit of the one or the other kind would close the ports for good.
        assert_eq!(values(unit, "StartLimitIntervalSec"), ["0"], "{unit}");
        assert_eq!(values(unit, "TriggerLimitIntervalSec"), ["0"], "{unit}");
    }
    assert_eq!(values("gatepost-auth.socket", "SocketMode"), ["0660"]);
    assert_eq!(values("gatepost-auth.socket", "SocketUser"), ["postfix"]);
    let guide = shipped("docs/src/guide/by-hand.md");
    assert!(guide.contains("smtpd_sasl_path=private/gatepost"));
}

/// A place for the hook to work on, with a systemctl that only notes what it is asked.
struct Hook {
    directory: TempDir,
}

impl Hook {
    fn new(active: bool) -> Hook {
        let directory = tempfile::tempdir().expect("tempdir");
        let hook = Hook { directory };
        for folder in ["bin", "etc", "live/mail.example.test", "live/other.test"] {
            fs::create_dir_all(hook.path(folder)).expect("make a directory");
        }
        let answer = if active {
            "exit 0"
        } else {
            "case $* in *is-active*) exit 3 ;; esac"
        };
        let systemctl = hook.path("bin/systemctl");
        let noted = hook.path("asked");
        fs::write(
            &systemctl,
            format!("#!/bin/sh\necho \"$*\" >>{}\n{answer}\n", noted.display()),
        )
        .expect("write systemctl");
        fs::set_permissions(&systemctl, PermissionsExt::from_mode(0o755)).expect("chmod");
        for (name, text) in [("fullchain.pem", "chain"), ("privkey.pem", "key")] {
            fs::write(hook.path("live/mail.example.test").join(name), text).expect("write");
            // As certbot's archive has the key.
            let mode = PermissionsExt::from_mode(0o600);
            fs::set_permissions(hook.path("live/mail.example.test").join(name), mode)
                .expect("chmod");
        }
        hook
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, variables: &[(&str, &Path)]) -> Output {
        let group = Command::new("id")
            .arg("-gn")
            .output()
            .expect("run id")
            .stdout;
        let path = std::env::var("PATH").expect("a PATH");
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/certbot-deploy-hook.sh"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("CERTIFICATE_NAME", "mail.example.test")
            .env("CERTIFICATE_DIRECTORY", self.path("etc"))
            .env("CERTIFICATE_GROUP", String::from_utf8_lossy(&group).trim())
            .envs(variables.iter().copied())
            .output()
            .expect("run the hook")
    }

    /// File names, modes and contents in the directory that Gatepost reads.
    fn handed_over(&self) -> Vec<(String, u32, String)> {
        let mut files: Vec<_> = fs::read_dir(self.path("etc"))
            .expect("read the directory")
            .map(|entry| {
                let path = entry.expect("an entry").path();
                let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o7777;
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, mode, fs::read_to_string(&path).expect("read"))
            })
            .collect();
        files.sort();
        files
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.path("asked")).unwrap_or_default()
    }
}

fn pair() -> Vec<(String, u32, String)> {
    let file = |name: &str, mode, text: &str| (name.to_owned(), mode, text.to_owned());
    vec![
        file("fullchain.pem", 0o644, "chain"),
        file("privkey.pem", 0o640, "key"),
    ]
}

#[test]
fn the_hook_hands_a_certificate_of_certbot_over_and_reloads() {
    let hook = Hook::new(true);
    let output = hook.run(&[("RENEWED_LINEAGE", &hook.path("live/mail.example.test"))]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(hook.handed_over(), pair());
    assert!(
        hook.asked().ends_with("reload gatepost.service\n"),
        "{}",
        hook.asked()
    );
}

#[test]
fn the_hook_hands_a_certificate_of_lego_over_and_reloads() {
    let hook = Hook::new(true);
    let output = hook.run(&[
        ("LEGO_CERT_DOMAIN", Path::new("mail.example.test")),
        (
            "LEGO_CERT_PATH",
            &hook.path("live/mail.example.test/fullchain.pem"),
        ),
        (
            "LEGO_CERT_KEY_PATH",
            &hook.path("live/mail.example.test/privkey.pem"),
        ),
    ]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(hook.handed_over(), pair());
    assert!(
        hook.asked().ends_with("reload gatepost.service\n"),
        "{}",
        hook.asked()
    );
}

#[test]
fn the_hook_reloads_nothing_that_does_not_run() {
    let hook = Hook::new(false);
    let output = hook.run(&[("RENEWED_LINEAGE", &hook.path("live/mail.example.test"))]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(hook.handed_over(), pair());
    assert!(!hook.asked().contains("reload"), "{}", hook.asked());
}

#[test]
fn the_hook_leaves_other_certificates_alone() {
    let hook = Hook::new(true);
    let output = hook.run(&[("RENEWED_LINEAGE", &hook.path("live/other.test"))]);
    assert!(output.status.success(), "{output:?}");
    assert!(hook.handed_over().is_empty() && hook.asked().is_empty());
}

#[test]
fn the_hook_changes_nothing_when_half_of_the_pair_is_missing() {
    let hook = Hook::new(true);
    hook.run(&[("RENEWED_LINEAGE", &hook.path("live/mail.example.test"))]);
    fs::write(hook.path("live/mail.example.test/fullchain.pem"), "newer").expect("write");
    fs::remove_file(hook.path("live/mail.example.test/privkey.pem")).expect("remove");
    let output = hook.run(&[("RENEWED_LINEAGE", &hook.path("live/mail.example.test"))]);
    assert!(
        !output.status.success() && !output.stderr.is_empty(),
        "{output:?}"
    );
    assert_eq!(hook.handed_over(), pair());
}
