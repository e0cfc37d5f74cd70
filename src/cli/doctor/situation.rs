//! The circumstances that keep Gatepost from running, or would at its next start. They are gathered
//! without a connection: one more client would only make a failing service fail again.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;

use super::account::{Account, Want};
use super::causes::{RESTART, START};
use super::finding::{Finding, Level};
use super::ports::{self, Process};
use super::service::{Service, Socket};
use crate::config::{Config, Endpoint, Target};
use crate::daemon;
use crate::net::certificates::Certificate;

/// The facts.
#[derive(Default)]
pub struct Situation {
    /// The unit, where systemd runs it.
    pub service: Option<Service>,
    /// Whether a Gatepost serves from this store.
    pub runs: bool,
    /// The files that its user may not read.
    pub closed: Vec<Closed>,
    /// A certificate that cannot be used, as words.
    pub unusable: Option<String>,
    /// A store that its user cannot write.
    pub store: Option<StoreFault>,
    /// The addresses that another process has.
    pub taken: Vec<Taken>,
    /// The addresses that no socket unit has, and that the service may not open.
    pub missing: Vec<(Purpose, SocketAddr)>,
    /// The socket units that are needed and not active.
    pub closed_sockets: Vec<(String, String)>,
    /// The socket units that failed and that mail does not need.
    pub failed_sockets: Vec<FailedSocket>,
    /// An upstream on a network that the service does not have.
    pub beyond: Option<String>,
    /// The socket of an upstream that the user may not use.
    pub closed_upstream: Option<Closed>,
}

/// A file that the user of the service may not read.
pub struct Closed {
    /// What it is for: `config`, `certificate` or `upstream`.
    pub check: &'static str,
    /// The file.
    pub file: PathBuf,
    /// The file itself, or the directory on its path that keeps the user out.
    pub at: PathBuf,
    /// The user.
    pub user: String,
    /// Whether the unit hides the directory.
    pub is_hidden: bool,
}

/// Why the store cannot be written.
pub enum StoreFault {
    /// The user may not write this file or directory.
    Closed {
        /// The file or directory.
        at: PathBuf,
        /// The user.
        user: String,
    },
    /// The file system is mounted read-only.
    ReadOnly {
        /// The store's directory.
        directory: PathBuf,
    },
}

/// An address that another process has.
pub struct Taken {
    /// What Gatepost wants it for.
    pub purpose: Purpose,
    /// The address.
    pub address: SocketAddr,
    /// The process, if this user may see it.
    pub by: Option<Process>,
}

/// A socket unit that failed, as another process has its address or had it then.
pub struct FailedSocket {
    /// Its name.
    pub unit: String,
    /// Its purpose, which is not mail.
    pub purpose: Purpose,
    /// Its address.
    pub address: SocketAddr,
    /// The processes that have the address now; `None` if no process has.
    pub holders: Option<Vec<Process>>,
}

/// What an address is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// `[admin] listen`.
    Admin,
    /// `[dovecot_auth] listen`.
    AuthSocket,
    /// A `[[listener]]`.
    Listener,
    /// `[metrics] listen`.
    Metrics,
}

impl Purpose {
    /// Whether mail flows without it.
    fn is_aside(self) -> bool {
        matches!(self, Self::Admin | Self::Metrics)
    }

    fn check(self, other: &'static str) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Metrics => "metrics",
            Self::AuthSocket | Self::Listener => other,
        }
    }
}

/// As the configuration names it.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "[admin] listen",
            Self::AuthSocket => "[dovecot_auth] listen",
            Self::Listener => "[[listener]]",
            Self::Metrics => "[metrics] listen",
        })
    }
}

impl Situation {
    /// Gathers the facts about the Gatepost with this configuration, which was read from `path`. `pid`
    /// is the process that serves from the store, where that is known.
    pub fn gather(
        config: &Config,
        path: &Path,
        service: Option<Service>,
        pid: Option<u32>,
        runs: bool,
    ) -> Self {
        let pid = pid.or(service.as_ref().and_then(|service| service.pid));
        let account = pid.and_then(Account::of_process);
        let account = account.or_else(|| Account::of_service(service.as_ref()?));
        let addresses = addresses(config);
        let mut situation = Self {
            runs,
            ..Self::default()
        };
        if let Some(account) = &account {
            situation.closed = closed(config, path, account);
            situation.closed_upstream = closed_upstream(config, account);
        }
        if let Some(service) = service.as_ref().filter(|service| service.hides_homes) {
            let hidden = files(config, path)
                .into_iter()
                .filter_map(|(check, file)| hidden(check, file, service));
            situation.closed.extend(hidden);
        }
        situation.store = store_fault(&config.store.path, account.as_ref());
        if !runs {
            let pairs = config.tls.as_ref().map(daemon::pairs).unwrap_or_default();
            let mut loaded = pairs.iter().map(Certificate::load);
            situation.unusable = loaded.find_map(|loaded| Some(loaded.err()?.to_string()));
        }
        let handed_in = |address: &SocketAddr| {
            let service = service.as_ref();
            service.is_some_and(|service| service.hands_in(&address.to_string()))
        };
        for (purpose, address) in &addresses {
            let Some(holders) = ports::holders(*address) else {
                continue;
            };
            let is_own = |process: &Process| {
                Some(process.pid) == pid || process.pid == 1 && handed_in(address)
            };
            // Where this user sees no process, a running Gatepost is believed to have the address.
            if holders.iter().any(is_own) || holders.is_empty() && (runs || handed_in(address)) {
                continue;
            }
            situation.taken.push(Taken {
                purpose: *purpose,
                address: *address,
                by: holders.into_iter().next(),
            });
        }
        if let Some(service) = &service {
            let failed = service.sockets.iter().filter_map(FailedSocket::find);
            situation.failed_sockets = failed
                .filter(|socket| addresses.iter().all(|(_, own)| *own != socket.address))
                .collect();
            if service.has_no_network {
                situation.missing = addresses;
                situation.missing.retain(|(_, address)| !handed_in(address));
                situation.beyond = config.upstream.as_ref().and_then(|upstream| {
                    let beyond =
                        |target: &&Target| !matches!(target, Target::Endpoint(Endpoint::Unix(_)));
                    Some(upstream.address.iter().find(beyond)?.to_string())
                });
            }
            let needed = service.sockets.iter().filter(|socket| {
                let listeners = config.listeners.iter();
                let mut own = listeners.map(|listener| listener.address.to_string());
                socket.active != "active" && own.any(|own| socket.listens.contains(&own))
            });
            situation.closed_sockets = needed
                .map(|socket| (socket.name.clone(), socket.active.clone()))
                .collect();
        }
        situation.service = service;
        situation
    }

    /// Judges the facts. A finding that keeps Gatepost from starting explains all that follows.
    pub fn judge(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for closed in &self.closed {
            let Closed {
                check,
                file,
                at,
                user,
                is_hidden,
            } = closed;
            let (file, place) = (file.display(), at.display());
            if *is_hidden {
                findings.push(self.stops(
                    check,
                    format!("{file} is hidden from the service: its unit has ProtectHome="),
                    format!("put a copy into /etc/gatepost, and name that in config.toml; then: {RESTART}"),
                ));
                continue;
            }
            let through = match file.to_string() == place.to_string() {
                true => String::new(),
                false => format!(", as it may not enter {place}"),
            };
            let right = if through.is_empty() { "640" } else { "g+x" };
            findings.push(self.stops(
                check,
                format!("{user}, the user that Gatepost runs as, may not read {file}{through}"),
                format!("chgrp {user} {place} && chmod {right} {place}"),
            ));
        }
        if let Some(words) = &self.unusable {
            findings.push(self.stops(
                "certificate",
                words.clone(),
                format!("gatepost check; then: {RESTART}"),
            ));
        }
        match &self.store {
            Some(StoreFault::ReadOnly { directory }) => findings.push(self.stops(
                "store",
                format!(
                    "{} is mounted read-only: no change and no last use can be written",
                    directory.display()
                ),
                "mount it writable again (dmesg says why it is not)".to_owned(),
            )),
            Some(StoreFault::Closed { at, user }) => {
                let parent = at.parent().unwrap_or(at).display();
                findings.push(self.stops(
                    "store",
                    format!(
                        "{user}, the user that Gatepost runs as, may not write {}",
                        at.display()
                    ),
                    format!("chown -R {user}: {parent}"),
                ));
            }
            None => {}
        }
        findings.extend(self.taken.iter().map(|taken| self.judge_taken(taken)));
        findings.extend(self.failed_sockets.iter().map(FailedSocket::judge));
        for (purpose, address) in &self.missing {
            let found = format!(
                "{purpose} {address} is in no .socket unit, and the service may not open it itself"
            );
            let next = format!(
                "systemctl edit gatepost.socket: [Socket], ListenStream={address}; then: systemctl daemon-reload && {RESTART}"
            );
            findings.push(match purpose.is_aside() {
                true => Finding::warning(purpose.check("sockets"), found, next),
                false => self.stops("sockets", found, next),
            });
        }
        let is_taken = self
            .taken
            .iter()
            .any(|taken| taken.purpose == Purpose::Listener);
        for (name, state) in self
            .closed_sockets
            .iter()
            .filter(|_| !is_taken && !self.gives_up())
        {
            let found = format!("{name} is {state}: its ports are closed");
            findings.push(Finding::problem("sockets", found, RESTART).explaining(START));
        }
        if let Some(address) = &self.beyond {
            let found = format!(
                "the unit gives Gatepost no network, and its upstream is {address}: every login gets 454"
            );
            let next = format!(
                "install the drop-in 10-tcp-upstream.conf, or use Postfix's unix socket; then: systemctl daemon-reload && {RESTART}"
            );
            findings.push(Finding::problem("network", found, next).explaining(&[
                "login",
                "identity",
                "pipelining",
            ]));
        }
        if let Some(Closed { at, user, .. }) = &self.closed_upstream {
            let found = format!(
                "{user}, the user that Gatepost runs as, may not use {}, on the way to its upstream: every login gets 454",
                at.display()
            );
            let next = format!(
                "SupplementaryGroups=postdrop in the unit (systemctl edit gatepost); then: systemctl daemon-reload && {RESTART}"
            );
            findings.push(Finding::problem("network", found, next).explaining(&[
                "login",
                "identity",
                "pipelining",
            ]));
        }
        findings.extend(self.judge_service());
        findings
    }

    /// Whether a connection could start a service that is bound to fail.
    pub fn is_hands_off(&self) -> bool {
        let fails = self.service.as_ref().is_some_and(Service::fails);
        let is_blocked = || {
            self.judge()
                .iter()
                .any(|found| found.level == Level::Problem && found.explains == START)
        };
        !self.is_serving() && (fails || self.service.is_some() && is_blocked())
    }

    fn is_serving(&self) -> bool {
        self.service.as_ref().map_or(self.runs, Service::runs)
    }

    fn gives_up(&self) -> bool {
        self.service.as_ref().is_some_and(Service::is_given_up)
    }

    /// A finding that lets no Gatepost start; one that runs goes on.
    fn stops(&self, check: &'static str, found: String, next: String) -> Finding {
        match self.runs {
            true => Finding::warning(
                check,
                format!("{found}; the running Gatepost goes on, the next start fails"),
                next,
            ),
            false => Finding::problem(check, found, next).explaining(START),
        }
    }

    fn judge_taken(&self, taken: &Taken) -> Finding {
        let Taken {
            purpose,
            address,
            by,
        } = taken;
        let holder = holder(by.as_ref());
        let found = format!("{purpose} {address} is taken by {holder}");
        let is_postfix = by.as_ref().is_some_and(|process| process.name == "master");
        let next = match is_postfix {
            true => format!(
                "that is Postfix: comment out its service on port {} in master.cf, with all of its -o lines; then: postfix reload && {RESTART}",
                address.port()
            ),
            false => {
                format!("stop that process, or give Gatepost another address; then: {RESTART}")
            }
        };
        match (purpose.is_aside(), self.runs) {
            (true, _) => Finding::warning(purpose.check("ports"), found, next),
            (false, true) => Finding::problem("ports", found, next).explaining(&["listener"]),
            (false, false) => Finding::problem("ports", found, next).explaining(START),
        }
    }

    fn judge_service(&self) -> Option<Finding> {
        let service = self.service.as_ref().filter(|service| !service.runs())?;
        let words = service.last_words.as_ref();
        let words = words.map_or(String::new(), |words| format!(": {words}"));
        if service.is_given_up() {
            let found = format!(
                "Gatepost failed to start too often, and systemd closed its ports (service-start-limit-hit){words}"
            );
            let next = format!("mend that; then: {RESTART}");
            return Some(Finding::problem("daemon", found, next).explaining(START));
        }
        service.fails().then(|| {
            let found = format!("Gatepost does not start{words}");
            let next =
                format!("mend that (journalctl -u gatepost -n 50 has all of it); then: {RESTART}");
            Finding::problem("daemon", found, next).explaining(START)
        })
    }
}

/// The process that has an address, in words.
fn holder(process: Option<&Process>) -> String {
    match process {
        Some(process) => format!("{} (process {})", process.name, process.pid),
        None => "another process (root sees which)".to_owned(),
    }
}

impl FailedSocket {
    fn find(socket: &Socket) -> Option<FailedSocket> {
        let purpose = match socket.descriptors.as_str() {
            "admin" => Purpose::Admin,
            "metrics" => Purpose::Metrics,
            _ => return None,
        };
        let mut addresses = socket.listens.iter().filter_map(|text| text.parse().ok());
        let address = addresses.next().filter(|_| socket.active == "failed")?;
        Some(FailedSocket {
            unit: socket.name.clone(),
            purpose,
            address,
            holders: ports::holders(address),
        })
    }

    fn judge(&self) -> Finding {
        let FailedSocket { unit, address, .. } = self;
        let restart = format!("systemctl restart {unit} gatepost");
        let (cause, next) = match &self.holders {
            None => ("the address is free now".to_owned(), restart),
            Some(holders) => (
                format!("the address is taken by {}", holder(holders.first())),
                format!(
                    "stop that process, or give the unit another address: systemctl edit {unit}; then: {restart}"
                ),
            ),
        };
        let check = self.purpose.check("sockets");
        let found =
            format!("{unit} failed, and {address} is not served: {cause}; mail flows without it");
        Finding::warning(check, found, next)
    }
}

/// Every TCP address that Gatepost listens on.
fn addresses(config: &Config) -> Vec<(Purpose, SocketAddr)> {
    let listeners = config.listeners.iter();
    let mut all: Vec<_> = listeners
        .map(|listener| (Purpose::Listener, listener.address))
        .collect();
    if let Some(Endpoint::Tcp(address)) = config.dovecot_auth.as_ref().map(|socket| &socket.listen)
    {
        all.push((Purpose::AuthSocket, *address));
    }
    let admin = config.admin.as_ref().and_then(|admin| admin.listen);
    all.extend(admin.map(|address| (Purpose::Admin, address)));
    let metrics = config.metrics.as_ref().and_then(|metrics| metrics.listen);
    all.extend(metrics.map(|address| (Purpose::Metrics, address)));
    all
}

/// Every file that is read at the start.
fn files(config: &Config, path: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut files = vec![("config", path.to_owned())];
    for pair in config.tls.as_ref().map(daemon::pairs).unwrap_or_default() {
        files.extend([("certificate", pair.certificate), ("certificate", pair.key)]);
    }
    files
}

/// A file below the directories that the unit hides.
fn hidden(check: &'static str, file: PathBuf, service: &Service) -> Option<Closed> {
    let real = file.canonicalize().unwrap_or_else(|_| file.clone());
    let home = ["/home", "/root"]
        .into_iter()
        .find(|home| real.starts_with(home))?;
    Some(Closed {
        check,
        file,
        at: home.into(),
        user: service.user.clone(),
        is_hidden: true,
    })
}

/// The first unix socket of the upstream that this user may not use.
fn closed_upstream(config: &Config, account: &Account) -> Option<Closed> {
    config.upstream.as_ref()?.address.iter().find_map(|target| {
        let Target::Endpoint(Endpoint::Unix(path)) = target else {
            return None;
        };
        Some(Closed {
            check: "upstream",
            file: path.clone(),
            at: account.is_kept_out(path, Want::Write)?,
            user: account.name.clone(),
            is_hidden: false,
        })
    })
}

fn closed(config: &Config, path: &Path, account: &Account) -> Vec<Closed> {
    let closed = |(check, file): (&'static str, PathBuf)| {
        let at = account.is_kept_out(&file, Want::Read)?;
        Some(Closed {
            check,
            file,
            at,
            user: account.name.clone(),
            is_hidden: false,
        })
    };
    let mut closed: Vec<_> = files(config, path).into_iter().filter_map(closed).collect();
    // One directory is one cause.
    closed.dedup_by(|one, other| one.at == other.at);
    closed
}

fn store_fault(path: &Path, account: Option<&Account>) -> Option<StoreFault> {
    let directory = path.parent()?;
    let mounted = rustix::fs::statvfs(directory).ok()?;
    if mounted.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Some(StoreFault::ReadOnly {
            directory: directory.to_owned(),
        });
    }
    let account = account?;
    let beside = |end: &str| PathBuf::from(format!("{}{end}", path.display()));
    let files = [
        directory.to_owned(),
        path.to_owned(),
        beside("-wal"),
        beside("-shm"),
        beside(".lock"),
    ];
    let at = files
        .iter()
        .find_map(|file| account.is_kept_out(file, Want::Write))?;
    Some(StoreFault::Closed {
        at,
        user: account.name.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(active: &str, result: &str) -> Service {
        Service {
            active: active.to_owned(),
            result: result.to_owned(),
            last_words: Some("the cause".to_owned()),
            ..Service::default()
        }
    }

    fn taken(purpose: Purpose, name: &str) -> Taken {
        Taken {
            purpose,
            address: "127.0.0.1:587".parse().unwrap(),
            by: Some(Process {
                pid: 7,
                name: name.to_owned(),
            }),
        }
    }

    fn closed(check: &'static str) -> Closed {
        Closed {
            check,
            file: "/etc/gatepost/x".into(),
            at: "/etc/gatepost/x".into(),
            user: "gatepost".to_owned(),
            is_hidden: false,
        }
    }

    #[test]
    fn a_failed_socket_that_mail_does_not_need_is_named_with_its_next_step() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = |descriptors: &str, active: &str| Socket {
            name: "gatepost-metrics.socket".to_owned(),
            active: active.to_owned(),
            listens: vec![address.to_string()],
            descriptors: descriptors.to_owned(),
            ..Socket::default()
        };
        let failed = FailedSocket::find(&socket("metrics", "failed")).unwrap();
        let situation = Situation {
            failed_sockets: vec![failed],
            ..Situation::default()
        };
        let findings = situation.judge();
        let [finding] = &findings[..] else {
            panic!("{findings:?}")
        };
        assert_eq!((finding.level, finding.check), (Level::Warning, "metrics"));
        let own = format!(
            "taken by {}",
            holder(ports::holders(address).unwrap().first())
        );
        for part in ["gatepost-metrics.socket", &own, "mail flows"] {
            assert!(finding.found.contains(part), "{part}: {}", finding.found);
        }
        let next = finding.next.as_deref().unwrap();
        assert!(next.ends_with("systemctl restart gatepost-metrics.socket gatepost"));
        drop(listener);
        let freed = FailedSocket::find(&socket("admin", "failed"))
            .unwrap()
            .judge();
        assert!(freed.found.contains("free now") && freed.check == "admin");
        assert!(FailedSocket::find(&socket("metrics", "active")).is_none());
        assert!(FailedSocket::find(&socket("submission", "failed")).is_none());
    }

    /// Each situation, with the first finding: its level, its check, and a part of its words or step.
    #[test]
    fn each_situation_has_one_finding() {
        use Level::{Problem, Warning};
        let with = |change: fn(&mut Situation)| {
            let mut situation = Situation::default();
            change(&mut situation);
            situation
        };
        let address = || "127.0.0.1:2525".parse().unwrap();
        type Case = (fn(&mut Situation), Level, &'static str, &'static str);
        let cases: [Case; 19] = [
            (
                |s| {
                    s.closed.push(Closed {
                        is_hidden: true,
                        ..closed("certificate")
                    })
                },
                Problem,
                "certificate",
                "ProtectHome",
            ),
            (
                |s| s.closed_upstream = Some(closed("upstream")),
                Problem,
                "network",
                "SupplementaryGroups=postdrop",
            ),
            (
                |s| s.closed.push(closed("config")),
                Problem,
                "config",
                "may not read",
            ),
            (
                |s| {
                    s.runs = true;
                    s.closed.push(closed("config"))
                },
                Warning,
                "config",
                "the next start fails",
            ),
            (
                |s| s.closed.push(closed("certificate")),
                Problem,
                "certificate",
                "chgrp gatepost",
            ),
            (
                |s| {
                    s.runs = true;
                    s.closed.push(closed("certificate"))
                },
                Warning,
                "certificate",
                "goes on",
            ),
            (
                |s| s.unusable = Some("no such file".into()),
                Problem,
                "certificate",
                "no such file",
            ),
            (
                |s| {
                    s.store = Some(StoreFault::ReadOnly {
                        directory: "/s".into(),
                    })
                },
                Problem,
                "store",
                "read-only",
            ),
            (
                |s| {
                    s.store = Some(StoreFault::Closed {
                        at: "/s/gatepost.db".into(),
                        user: "gatepost".into(),
                    })
                },
                Problem,
                "store",
                "chown -R gatepost: /s",
            ),
            (
                |s| {
                    s.runs = true;
                    s.store = Some(StoreFault::ReadOnly {
                        directory: "/s".into(),
                    })
                },
                Warning,
                "store",
                "read-only",
            ),
            (
                |s| s.taken.push(taken(Purpose::Listener, "master")),
                Problem,
                "ports",
                "that is Postfix",
            ),
            (
                |s| s.taken.push(taken(Purpose::Listener, "nginx")),
                Problem,
                "ports",
                "taken by nginx (process 7)",
            ),
            (
                |s| {
                    s.runs = true;
                    s.taken.push(taken(Purpose::Metrics, "nginx"))
                },
                Warning,
                "metrics",
                "taken by nginx",
            ),
            (
                |s| s.taken.push(taken(Purpose::Admin, "nginx")),
                Warning,
                "admin",
                "taken by nginx",
            ),
            (
                |s| {
                    s.missing
                        .push((Purpose::Listener, "127.0.0.1:2525".parse().unwrap()))
                },
                Problem,
                "sockets",
                "ListenStream=127.0.0.1:2525",
            ),
            (
                |s| {
                    s.closed_sockets
                        .push(("gatepost.socket".into(), "failed".into()))
                },
                Problem,
                "sockets",
                "gatepost.socket is failed",
            ),
            (
                |s| {
                    s.runs = true;
                    s.beyond = Some("127.0.0.1:25".into())
                },
                Problem,
                "network",
                "tcp-upstream.conf",
            ),
            (
                |s| s.service = Some(service("failed", "start-limit-hit")),
                Problem,
                "daemon",
                "service-start-limit-hit): the cause",
            ),
            (
                |s| s.service = Some(service("activating", "exit-code")),
                Problem,
                "daemon",
                "does not start: the cause",
            ),
        ];
        for (change, level, check, part) in cases {
            let findings = with(change).judge();
            let [finding] = &findings[..] else {
                panic!("{findings:?}")
            };
            let words = format!(
                "{} {}",
                finding.found,
                finding.next.as_deref().unwrap_or_default()
            );
            assert_eq!((finding.level, finding.check), (level, check), "{words}");
            assert!(words.contains(part), "{words}");
        }
        let aside = Situation {
            missing: vec![(Purpose::Metrics, address())],
            ..Situation::default()
        };
        assert_eq!(aside.judge()[0].level, Warning);
        assert!(Situation::default().judge().is_empty());
    }

    #[test]
    fn a_service_that_is_bound_to_fail_is_not_connected_to() {
        let situation = |service, taken| Situation {
            service: Some(service),
            taken,
            ..Situation::default()
        };
        assert!(situation(service("failed", "exit-code"), Vec::new()).is_hands_off());
        assert!(!situation(service("active", "success"), Vec::new()).is_hands_off());
        let stopped = || service("inactive", "success");
        assert!(!situation(stopped(), Vec::new()).is_hands_off());
        assert!(situation(stopped(), vec![taken(Purpose::Listener, "master")]).is_hands_off());
        let mut given_up = stopped();
        given_up.sockets.push(Socket {
            result: "service-start-limit-hit".to_owned(),
            ..Socket::default()
        });
        assert!(situation(given_up, Vec::new()).is_hands_off());
        assert!(!Situation::default().is_hands_off());
    }
}
