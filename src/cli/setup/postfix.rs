//! Postfix's configuration as `postconf` prints it, and a new `master.cf` made by `postconf` from a
//! list of edits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::CliError;
use super::super::doctor::master;
use super::run_program;

/// A service of `master.cf`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// The first field, such as `submission` or `192.0.2.1:587`.
    pub name: String,
    /// `inet` or `unix`.
    pub kind: String,
    /// Whether the service runs in a chroot: `y`, `n` or `-`.
    pub chroot: String,
    /// The limit of processes, or `-`.
    pub processes: String,
    /// The program with its arguments other than `-o`, such as `smtpd`.
    pub command: String,
    /// The `-o` options by name.
    pub options: BTreeMap<String, String>,
}

impl Service {
    /// The name as `postconf -M` takes it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.name, self.kind)
    }

    /// The address without its port; empty where Postfix takes those of `inet_interfaces`.
    pub fn host(&self) -> &str {
        let host = self.name.rsplit_once(':').map_or("", |(host, _)| host);
        host.trim_matches(['[', ']'])
    }

    /// The port on which clients submit mail, if the service listens on one.
    pub fn submission_port(&self) -> Option<u16> {
        let port = self.name.rsplit(':').next()?;
        match port {
            _ if self.kind != "inet" => None,
            "submission" | "587" => Some(587),
            "submissions" | "smtps" | "ssmtp" | "urd" | "465" => Some(465),
            _ => None,
        }
    }
}

/// The settings of `main.cf` and the services of `master.cf`.
#[derive(Debug)]
pub struct Postfix {
    /// The parameters and their defaults, with `$names` replaced.
    main: BTreeMap<String, String>,
    /// The services of `master.cf`.
    pub services: Vec<Service>,
}

impl Postfix {
    /// Reads the configuration that `postconf` reads.
    pub fn read() -> Result<Postfix, CliError> {
        let main = run_program("postconf", &["-x"])?;
        let services = run_program("postconf", &["-M"])?;
        let options = run_program("postconf", &["-P"])?;
        Ok(Postfix::parse(&main, &services, &options))
    }

    /// The same from the output of `postconf -x`, `postconf -M` and `postconf -P`.
    pub fn parse(main: &str, services: &str, options: &str) -> Postfix {
        let options: Vec<_> = assignments(options).collect();
        let service = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [name, kind, _, _, chroot, _, processes, command @ ..] = &fields[..] else {
                return None;
            };
            let prefix = format!("{name}/{kind}/");
            let own = |(key, value): &(String, String)| {
                Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
            };
            let command = command.iter().take_while(|word| **word != "-o");
            let command: Vec<_> = command.copied().collect();
            Some(Service {
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
                chroot: (*chroot).to_owned(),
                processes: (*processes).to_owned(),
                command: command.join(" "),
                options: options.iter().filter_map(own).collect(),
            })
        };
        Postfix {
            main: assignments(main).collect(),
            services: services.lines().filter_map(service).collect(),
        }
    }

    /// A parameter of `main.cf`, or its default; empty if this Postfix does not know the parameter.
    pub fn value(&self, name: &str) -> &str {
        self.main.get(name).map_or("", String::as_str)
    }

    /// A parameter as a service has it.
    pub fn value_for<'a>(&'a self, service: &'a Service, name: &str) -> &'a str {
        let own = service.options.get(name);
        own.map_or_else(|| self.value(name), String::as_str)
    }

    /// Whether its master runs.
    pub fn runs(&self) -> bool {
        master::runs(Path::new(self.value("queue_directory"))) != Some(false)
    }

    /// The services on 587 and 465.
    pub fn submission(&self) -> Vec<&Service> {
        let services = self.services.iter();
        let submission = services.filter(|service| service.submission_port().is_some());
        submission.collect()
    }

    /// The path of `master.cf` or `main.cf`, behind any symbolic link.
    pub fn file(&self, name: &str) -> Result<PathBuf, CliError> {
        let path = Path::new(self.value("config_directory")).join(name);
        fs::canonicalize(&path)
            .map_err(|error| CliError::Io(format!("{}: {error}", path.display())))
    }

    /// The text of `master.cf` after `edits`. The file itself stays as it is: `postconf` edits a
    /// copy.
    pub fn edited(&self, edits: &[Edit]) -> Result<String, CliError> {
        let copy = tempfile::tempdir()?;
        for name in ["main.cf", "master.cf"] {
            fs::copy(self.file(name)?, copy.path().join(name))?;
        }
        let directory = copy.path().to_string_lossy();
        for edit in edits {
            let (option, argument) = match edit {
                Edit::Service { key, entry } => ("-Me", format!("{key}={entry}")),
                Edit::Option { key, name, value } => ("-Pe", format!("{key}/{name}={value}")),
                Edit::CommentOut { key } => ("-M#", key.clone()),
            };
            run_program("postconf", &["-c", &directory, option, &argument])?;
        }
        Ok(fs::read_to_string(copy.path().join("master.cf"))?)
    }
}

/// A change to `master.cf`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Edit {
    /// Add the service `key` with the line `entry`.
    Service { key: String, entry: String },
    /// Set an option of a service.
    Option {
        key: String,
        name: &'static str,
        value: &'static str,
    },
    /// Comment the service out.
    CommentOut { key: String },
}

/// Lines of the form `name = value`.
fn assignments(text: &str) -> impl Iterator<Item = (String, String)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_their_options_addresses_and_ports() {
        let services = "smtp       inet  n       -       y       -       -       smtpd\n\
            submission inet  n       -       y       -       50      smtpd -v -o syslog_name=postfix/submission\n\
            [2001:db8::1]:smtps inet n - n - - smtpd\n\
            pickup     unix  n       -       y       60      1       pickup\n";
        let options = "submission/inet/smtpd_milters = inet:a:1 inet:b:2\n";
        let postfix = Postfix::parse("", services, options);
        let found = &postfix.services;
        let ports: Vec<_> = found.iter().map(Service::submission_port).collect();
        assert_eq!(ports, [None, Some(587), Some(465), None]);
        let hosts: Vec<_> = found.iter().map(Service::host).collect();
        assert_eq!(hosts, ["", "", "2001:db8::1", ""]);
        let submission = &found[1];
        assert_eq!(submission.command, "smtpd -v");
        assert_eq!((&*submission.chroot, &*submission.processes), ("y", "50"));
        assert_eq!(submission.options["smtpd_milters"], "inet:a:1 inet:b:2");
        assert_eq!(found[2].key(), "[2001:db8::1]:smtps/inet");
    }
}
