//! Postfix's own settings, as `postconf` tells them, for what the wire cannot show.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::finding::Finding;
use super::program;
use crate::config::{Endpoint, ListenerKind};

/// Where postconf is; sbin is not on every user's PATH.
const PROGRAMS: [&str; 2] = ["postconf", "/usr/sbin/postconf"];

/// How long postconf may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Parameters may name each other; nobody needs more steps than this.
const DEPTH: usize = 8;

/// What is known of the service that sessions are handed over to.
pub enum Settings {
    /// All of it.
    Known(Service),
    /// This machine's Postfix has no such service.
    NoService {
        /// Its configuration directory.
        directory: String,
        /// The address of another service that grants XCLIENT, and so is meant for Gatepost.
        other: Option<Endpoint>,
    },
    /// Nothing, for this reason.
    Unknown(String),
}

/// The service and what applies to it.
pub struct Service {
    /// Its name in master.cf.
    pub name: String,
    kind: String,
    is_public: bool,
    /// Whether its smtpd sees nothing but Postfix's queue directory.
    pub chroot: bool,
    own: BTreeMap<String, String>,
    main: BTreeMap<String, String>,
}

/// A release of Postfix.
pub type Version = (u32, u32, u32);

impl Settings {
    /// The service at `upstream`, in what postconf says. `is_named`: that it is said of the
    /// configuration that the caller named, which may be that of another machine.
    pub fn of(upstream: &Endpoint, answers: &Result<Answers, String>, is_named: bool) -> Self {
        let local = match upstream {
            Endpoint::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Endpoint::Unix(_) => true,
        };
        match answers {
            _ if !local && !is_named => Self::Unknown(format!("{upstream} is not on this machine")),
            Ok(answers) => Self::parse(upstream, answers),
            Err(reason) => Self::Unknown(reason.clone()),
        }
    }

    /// Every smtpd of this Postfix that listens on the network.
    pub fn smtpds(answers: &Answers) -> Vec<Self> {
        let main = answers.main();
        let rows = answers.services.lines().filter_map(Row::parse);
        let smtpds = rows.filter(|row| row.kind == "inet" && row.command == "smtpd");
        smtpds
            .map(|row| Self::Known(Service::new(&row, answers, main.clone())))
            .collect()
    }

    fn parse(upstream: &Endpoint, answers: &Answers) -> Self {
        let main = answers.main();
        let queue = PathBuf::from(main.get("queue_directory").cloned().unwrap_or_default());
        let found = answers
            .services
            .lines()
            .filter_map(|line| Row::parse(line).filter(|row| row.is_at(upstream, &queue)))
            .max_by_key(|row| row.name.contains(':'));
        let Some(row) = found else {
            let directory = main.get("config_directory").cloned().unwrap_or_default();
            let rows = answers.services.lines().filter_map(Row::parse);
            let mut others = rows
                .map(|row| Service::new(&row, answers, main.clone()))
                .filter(|service| service.own.contains_key("smtpd_authorized_xclient_hosts"));
            return Self::NoService {
                directory,
                other: others.find_map(|service| service.endpoint()),
            };
        };
        Self::Known(Service::new(&row, answers, main))
    }

    /// The service, if all of it is known.
    pub fn service(&self) -> Option<&Service> {
        match self {
            Self::Known(service) => Some(service),
            Self::NoService { .. } | Self::Unknown(_) => None,
        }
    }

    /// That `what` could not be told, because the settings are not known.
    pub fn untold(&self, check: &'static str, what: &str) -> Finding {
        let found = format!("{what} could not be told: {}", self.reason());
        let next = "look at what postconf and postconf -P say on the machine of that Postfix, or name its configuration here: --postfix DIRECTORY";
        Finding {
            next: Some(next.to_owned()),
            ..Finding::unknown(check, found)
        }
    }

    /// Why not.
    fn reason(&self) -> String {
        match self {
            Self::Known(_) => String::new(),
            Self::NoService { directory, .. } => {
                format!("{directory}/master.cf has no service that is it")
            }
            Self::Unknown(reason) => reason.clone(),
        }
    }

    /// How the reader finds the service, and what makes a change to it count.
    pub fn add_to_service(&self) -> String {
        match self {
            Self::Known(service) => {
                let directory = service.main.get("config_directory");
                let directory = directory.map_or("", String::as_str);
                format!(
                    "add to the service {} in {directory}/master.cf, then: postfix reload",
                    service.name
                )
            }
            Self::NoService { .. } | Self::Unknown(_) => {
                "add to the service that Gatepost hands over to, in master.cf, then: postfix reload"
                    .to_owned()
            }
        }
    }
}

impl Service {
    fn new(row: &Row, answers: &Answers, main: BTreeMap<String, String>) -> Self {
        let prefix = format!("{}/{}/", row.name, row.kind);
        let own = parameters(&answers.own)
            .filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.to_owned(), value)))
            .collect();
        Self {
            name: row.name.to_owned(),
            kind: row.kind.to_owned(),
            is_public: row.private == "n",
            chroot: row.chroot == "y",
            own,
            main,
        }
    }

    /// The address at which this machine reaches it.
    pub fn endpoint(&self) -> Option<Endpoint> {
        if self.kind == "unix" {
            let directory = if self.is_public { "public" } else { "private" };
            let path = self.queue_directory().join(directory).join(&self.name);
            return Some(Endpoint::Unix(path));
        }
        let (host, port) = host_and_port(&self.name);
        let ip = match host.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() => ip,
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        Some(Endpoint::Tcp(SocketAddr::new(ip, port?)))
    }

    /// How a mail program begins TLS there; `None` where Postfix offers none.
    pub fn tls(&self) -> Option<ListenerKind> {
        let level = self.value("smtpd_tls_security_level").unwrap_or_default();
        match level.as_str() {
            _ if self.is_on("smtpd_tls_wrappermode") => Some(ListenerKind::Submissions),
            "may" | "encrypt" => Some(ListenerKind::Submission),
            _ => None,
        }
    }

    /// What applies to this service, with what it names put in. `None` is a parameter that this
    /// Postfix does not know.
    pub fn value(&self, name: &str) -> Option<String> {
        Some(self.expand(self.raw(name)?, DEPTH))
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value == "yes")
    }

    /// Which release it is.
    pub fn version(&self) -> Option<Version> {
        version(self.raw("mail_version")?)
    }

    /// Where Postfix has its sockets.
    pub fn queue_directory(&self) -> PathBuf {
        PathBuf::from(self.value("queue_directory").unwrap_or_default())
    }

    fn raw(&self, name: &str) -> Option<&str> {
        let value = self.own.get(name).or_else(|| self.main.get(name));
        value.map(String::as_str)
    }

    /// `$name`, `${name}` and `$(name)`; anything more is left as it is.
    fn expand(&self, value: &str, depth: usize) -> String {
        let Some((before, rest)) = value.split_once('$').filter(|_| depth > 0) else {
            return value.to_owned();
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let inner = rest.strip_prefix(['{', '(']);
        let text = inner.unwrap_or(rest);
        let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
        let (name, mut after) = text.split_at(end);
        if inner.is_some() {
            match after.strip_prefix(['}', ')']) {
                Some(closed) => after = closed,
                None => return value.to_owned(),
            }
        }
        let named = self.raw(name).unwrap_or_default();
        let named = self.expand(named, depth - 1);
        format!("{before}{named}{}", self.expand(after, depth))
    }
}

/// What postconf says.
pub struct Answers {
    /// Every parameter of main.cf, or its default.
    main: String,
    /// The same with all that they name put in.
    expanded: String,
    /// The lines of master.cf.
    services: String,
    /// The parameters that they set.
    own: String,
}

impl Answers {
    /// Asks postconf, with the configuration in `directory` or where postconf looks by itself.
    pub fn read(directory: Option<&Path>) -> Result<Self, String> {
        let ask = |option: &[&str]| {
            let directory = directory.map(|directory| directory.display().to_string());
            let named: Vec<_> = directory.iter().flat_map(|path| ["-c", path]).collect();
            program::output(&PROGRAMS, &[&named, option].concat(), PATIENCE)
        };
        Ok(Self {
            main: ask(&[])?,
            expanded: ask(&["-x"])?,
            services: ask(&["-M"])?,
            own: ask(&["-P"])?,
        })
    }

    /// The directory of main.cf and master.cf.
    pub fn directory(&self) -> PathBuf {
        self.path("config_directory")
    }

    /// The directory of Postfix's sockets.
    pub fn queue_directory(&self) -> PathBuf {
        self.path("queue_directory")
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(self.main().get(name).cloned().unwrap_or_default())
    }

    fn main(&self) -> BTreeMap<String, String> {
        let mut main: BTreeMap<_, _> = parameters(&self.main).collect();
        // What depends on a condition is left to postconf, which does not know the service.
        main.extend(
            parameters(&self.expanded)
                .filter(|(name, _)| {
                    let raw = main.get(name).map_or("", String::as_str);
                    raw.contains("${{") || raw.contains('?')
                })
                .collect::<Vec<_>>(),
        );
        main
    }
}

/// A line of master.cf.
struct Row<'a> {
    name: &'a str,
    kind: &'a str,
    private: &'a str,
    chroot: &'a str,
    command: &'a str,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (name, kind) = (fields.next()?, fields.next()?);
        let (private, _, chroot) = (fields.next()?, fields.next()?, fields.next()?);
        let (_, _, command) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            name,
            kind,
            private,
            chroot,
            command,
        })
    }

    fn is_at(&self, upstream: &Endpoint, queue: &Path) -> bool {
        match upstream {
            Endpoint::Tcp(address) => self.kind == "inet" && self.listens_at(*address),
            Endpoint::Unix(path) => {
                let directory = if self.private == "n" {
                    "public"
                } else {
                    "private"
                };
                self.kind == "unix" && *path == queue.join(directory).join(self.name)
            }
        }
    }

    fn listens_at(&self, address: SocketAddr) -> bool {
        let (host, port) = host_and_port(self.name);
        let is_host = match host.parse::<IpAddr>() {
            Ok(ip) => ip == address.ip() || ip.is_unspecified(),
            Err(_) => host.is_empty() || host == "localhost" && address.ip().is_loopback(),
        };
        is_host && port == Some(address.port())
    }
}

/// The parts of the name of a service on the network.
fn host_and_port(name: &str) -> (&str, Option<u16>) {
    let (host, port) = name.rsplit_once(':').unwrap_or(("", name));
    let port = match port {
        "smtp" => Some(25),
        "submission" => Some(587),
        "smtps" | "submissions" => Some(465),
        number => number.parse().ok(),
    };
    (host.trim_matches(['[', ']']), port)
}

/// Lines of the form `name = value`.
fn parameters(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    })
}

/// "3.7.11"; a snapshot ("3.12-20260101") counts as its release's first.
fn version(text: &str) -> Option<Version> {
    let release = text.split('-').next()?;
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    Some((major, minor, numbers.next().unwrap_or(Some(0))?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SERVICES: &str = "\
smtp       inet  n       -       y       -       -       smtpd
127.0.0.1:10025 inet n   -       n       -       -       smtpd -o mynetworks=
[::1]:10025 inet  n       -       y       -       -       smtpd
submit     unix  n       -       n       -       -       smtpd
cleanup    unix  n       -       y       -       0       cleanup
";

    const MAIN: &str = "config_directory = /etc/postfix\nqueue_directory = /var/spool/postfix\n\
        mail_version = 3.7.11\nmynetworks = 10.0.0.0/8\nexclusions = $mynetworks, ${other} $(none)x\n\
        other = b\nself = $self\nrelay = ${{$level} <level {1} ? {} : {$other}}\n";

    const EXPANDED: &str = "relay = expanded\nexclusions = not asked for\n";

    fn read(upstream: &str, own: &str) -> Settings {
        parse(upstream, MAIN, own)
    }

    fn parse(upstream: &str, main: &str, own: &str) -> Settings {
        let answers = Answers {
            main: main.to_owned(),
            expanded: EXPANDED.to_owned(),
            services: SERVICES.to_owned(),
            own: own.to_owned(),
        };
        Settings::parse(&upstream.parse().unwrap(), &answers)
    }

    /// Settings as one that the other judges are tried with.
    pub fn with(version: &str, own: &[(&str, &str)]) -> Settings {
        let row = |(name, value): &(&str, &str)| format!("127.0.0.1:10025/inet/{name} = {value}\n");
        let own: String = own.iter().map(row).collect();
        let main = MAIN.replace("3.7.11", version);
        parse("127.0.0.1:10025", &main, &own)
    }

    #[test]
    fn the_service_is_found_by_where_it_listens() {
        for (upstream, name, chroot) in [
            ("127.0.0.1:10025", "127.0.0.1:10025", false),
            ("[::1]:10025", "[::1]:10025", true),
            ("127.0.0.1:25", "smtp", true),
            ("unix:/var/spool/postfix/public/submit", "submit", false),
        ] {
            let settings = read(upstream, "");
            let service = settings.service().unwrap();
            assert_eq!((service.name.as_str(), service.chroot), (name, chroot));
        }
        for upstream in [
            "127.0.0.1:26",
            "127.0.0.2:10025",
            "unix:/var/spool/postfix/private/submit",
        ] {
            assert!(matches!(read(upstream, ""), Settings::NoService { .. }));
        }
    }

    #[test]
    fn what_the_service_says_comes_first_also_inside_of_values() {
        let own = "127.0.0.1:10025/inet/mynetworks =\n[::1]:10025/inet/other = c\n";
        let settings = read("127.0.0.1:10025", own);
        let service = settings.service().unwrap();
        assert_eq!(service.value("mynetworks").as_deref(), Some(""));
        assert_eq!(service.value("exclusions").as_deref(), Some(", b x"));
        assert_eq!(service.value("self").as_deref(), Some("$self"));
        assert_eq!(service.value("relay").as_deref(), Some("expanded"));
        assert_eq!(service.value("unheard_of"), None);
        assert_eq!(service.version(), Some((3, 7, 11)));
    }

    #[test]
    fn releases_are_read() {
        assert_eq!(version("3.12-20260101"), Some((3, 12, 0)));
        assert_eq!(version("3.9.1"), Some((3, 9, 1)));
        assert_eq!(version("3.x"), None);
    }

    #[test]
    fn another_machines_postfix_is_not_asked_about() {
        let upstream = "192.0.2.1:10025".parse().unwrap();
        let settings = Settings::of(&upstream, &Err("not asked".to_owned()), false);
        assert!(settings.reason().contains("not on this machine"));
    }
}
