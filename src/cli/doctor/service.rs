//! systemd's view of Gatepost: its unit, its sockets and its last words. A container has none.

use std::path::Path;
use std::time::Duration;

use super::program;
use crate::config::DEFAULT_PATH;

/// The unit.
const UNIT: &str = "gatepost.service";

/// The time that systemctl and journalctl have.
const PATIENCE: Duration = Duration::from_millis(800);

/// The log lines that are read.
const LINES: &str = "30";

/// The properties that are read of the service, and of its sockets.
const OF_SERVICE: &str = "--property=LoadState,ActiveState,SubState,Result,NRestarts,MainPID,ExecStart,\
    User,Group,SupplementaryGroups,PrivateNetwork,RestrictAddressFamilies,ProtectHome,TriggeredBy";
const OF_SOCKET: &str = "--property=Id,ActiveState,Result,Listen,FileDescriptorName";

/// The unit as systemd describes it.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// `active`, `activating`, `inactive`, `failed`, …
    pub active: String,
    /// `success`, `exit-code`, `start-limit-hit`, …
    pub result: String,
    /// How often systemd started it again by itself.
    pub restarts: u32,
    /// The process, if it runs.
    pub pid: Option<u32>,
    /// The user; empty for root.
    pub user: String,
    /// The group, if it is not the user's own.
    pub group: String,
    /// Further groups.
    pub groups: Vec<String>,
    /// Whether it may open no network socket of its own.
    pub has_no_network: bool,
    /// Whether it sees no file below `/home` and `/root`.
    pub hides_homes: bool,
    /// The units that hand sockets in.
    pub sockets: Vec<Socket>,
    /// The last log line that says why it ended.
    pub last_words: Option<String>,
}

/// A socket unit.
#[derive(Clone, Debug, Default)]
pub struct Socket {
    /// Its name.
    pub name: String,
    /// As of the service.
    pub active: String,
    /// As of the service.
    pub result: String,
    /// The addresses, as systemd writes them.
    pub listens: Vec<String>,
    /// The name of its descriptors.
    pub descriptors: String,
}

impl Service {
    /// The unit that serves from the configuration at `config`. `None` where systemd does not run or
    /// has no such unit.
    pub fn read(config: &Path) -> Option<Self> {
        let text = systemctl(&["show", UNIT, OF_SERVICE]).ok()?;
        let mut service = Self::parse(&text, config)?;
        let triggers = property(&text, "TriggeredBy");
        let names: Vec<_> = triggers.split_whitespace().collect();
        if !names.is_empty() {
            let arguments = [&["show", OF_SOCKET][..], &names].concat();
            let text = systemctl(&arguments).unwrap_or_default();
            service.sockets = text.split("\n\n").filter_map(Socket::parse).collect();
        }
        if !service.runs() {
            let log = program::output(
                &["journalctl"],
                &["-u", UNIT, "-n", LINES, "-o", "cat", "--no-pager", "-q"],
                PATIENCE,
            );
            service.last_words = last_words(&log.unwrap_or_default());
        }
        Some(service)
    }

    fn parse(text: &str, config: &Path) -> Option<Self> {
        let value = |name| property(text, name);
        if value("LoadState") != "loaded" || !serves(value("ExecStart"), config) {
            return None;
        }
        let families = value("RestrictAddressFamilies");
        let is_restricted = !families.is_empty() && !families.starts_with('~');
        Some(Self {
            active: value("ActiveState").to_owned(),
            result: value("Result").to_owned(),
            restarts: value("NRestarts").parse().unwrap_or_default(),
            pid: value("MainPID").parse().ok().filter(|pid| *pid != 0),
            user: value("User").to_owned(),
            group: value("Group").to_owned(),
            groups: value("SupplementaryGroups")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            has_no_network: value("PrivateNetwork") == "yes"
                || is_restricted && !families.contains("AF_INET"),
            hides_homes: matches!(value("ProtectHome"), "yes" | "tmpfs"),
            ..Self::default()
        })
    }

    /// The addresses of the sockets that are handed in by this name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let own = self
            .sockets
            .iter()
            .filter(move |socket| socket.descriptors == name && socket.active != "inactive");
        own.flat_map(|socket| socket.listens.iter().map(String::as_str))
    }

    /// Whether it serves.
    pub fn runs(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }

    /// Whether systemd gave it, or one of its sockets, up.
    pub fn is_given_up(&self) -> bool {
        let gave_up = |result: &str| {
            matches!(
                result,
                "start-limit-hit" | "service-start-limit-hit" | "trigger-limit-hit"
            )
        };
        gave_up(&self.result) || self.sockets.iter().any(|socket| gave_up(&socket.result))
    }

    /// Whether its last start failed, so that a connection would only make it fail again.
    pub fn fails(&self) -> bool {
        let is_ended = matches!(self.result.as_str(), "success" | "");
        self.active == "failed"
            || self.is_given_up()
            || !self.runs() && (!is_ended || self.restarts > 0)
    }

    /// Whether a socket unit has this address (`587` alone stands for any).
    pub fn hands_in(&self, address: &str) -> bool {
        let mut listens = self.sockets.iter().flat_map(|socket| &socket.listens);
        listens.any(|own| own == address)
    }
}

impl Socket {
    fn parse(text: &str) -> Option<Self> {
        let name = property(text, "Id");
        let listens = text.lines().filter_map(|line| line.strip_prefix("Listen="));
        (!name.is_empty()).then(|| Self {
            name: name.to_owned(),
            active: property(text, "ActiveState").to_owned(),
            result: property(text, "Result").to_owned(),
            descriptors: property(text, "FileDescriptorName").to_owned(),
            listens: listens
                .map(|listen| listen.split(" (").next().unwrap_or(listen).to_owned())
                .collect(),
        })
    }
}

fn systemctl(arguments: &[&str]) -> Result<String, String> {
    program::output(&["systemctl"], arguments, PATIENCE)
}

/// The value in the first line `name=value`.
fn property<'a>(text: &'a str, name: &str) -> &'a str {
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_default()
}

/// Whether the command of the unit reads this configuration.
fn serves(command: &str, config: &Path) -> bool {
    let mut words = command
        .split([' ', '='])
        .skip_while(|word| *word != "--config");
    let named = words.nth(1).unwrap_or(DEFAULT_PATH);
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(Path::new(named)) == real(config)
}

/// The last line that Gatepost itself wrote about its end: systemd's own lines do not say why.
fn last_words(log: &str) -> Option<String> {
    let systemd = [
        "gatepost.service:",
        "Started ",
        "Starting ",
        "Stopped ",
        "Stopping ",
        "Failed to start ",
        "Scheduled restart",
    ];
    let own = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !systemd.iter().any(|start| line.starts_with(start))
    };
    log.lines()
        .rev()
        .find(own)
        .map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nNRestarts=3\n\
        MainPID=0\nExecStart={ path=/usr/bin/gatepost ; argv[]=/usr/bin/gatepost serve --config /tmp/other.toml ; ignore_errors=no }\n\
        User=gatepost\nSupplementaryGroups=postdrop ssl-cert\nPrivateNetwork=no\nRestrictAddressFamilies=AF_UNIX\n";

    #[test]
    fn the_unit_of_this_configuration_is_read() {
        assert!(Service::parse(SHOWN, Path::new(DEFAULT_PATH)).is_none());
        let service = Service::parse(SHOWN, Path::new("/tmp/other.toml")).unwrap();
        assert!(service.fails() && !service.runs() && !service.is_given_up());
        assert!(service.has_no_network && service.pid.is_none());
        assert_eq!(service.groups, ["postdrop", "ssl-cert"]);
        let running = SHOWN
            .replace("failed", "active")
            .replace("AF_UNIX", "AF_UNIX AF_INET");
        let running = Service::parse(&running, Path::new("/tmp/other.toml")).unwrap();
        assert!(running.runs() && !running.fails() && !running.has_no_network);
    }

    #[test]
    fn sockets_and_last_words_are_read() {
        let socket = "Id=gatepost.socket\nActiveState=failed\nResult=service-start-limit-hit\nListen=0.0.0.0:587 (Stream)\nListen=/run/a (Stream)\n";
        let service = Service {
            sockets: Socket::parse(socket).into_iter().collect(),
            active: "inactive".to_owned(),
            ..Service::default()
        };
        assert!(service.is_given_up() && service.fails());
        assert!(service.hands_in("0.0.0.0:587") && service.hands_in("/run/a"));
        assert!(!service.hands_in("0.0.0.0:465"));
        let log = "Starting Gatepost\ngatepost: the cause\ngatepost.service: Main process exited\nFailed to start gatepost.service\n";
        assert_eq!(last_words(log).as_deref(), Some("gatepost: the cause"));
    }
}
