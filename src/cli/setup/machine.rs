//! The facts that setup decides by, read from the machine before anything changes.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::super::CliError;
use super::super::doctor::{master, ports};
use super::plan::{AUTH_SOCKET, DIRECTORY, Mode, by_hand};
use super::postfix::Postfix;
use super::run_program;
use crate::config::Config;
use crate::net::certificates::{Certificate, Pair};

/// Where certbot keeps a directory for each certificate.
const LINEAGES: &str = "/etc/letsencrypt/live";

/// Where units are installed.
const UNITS: [&str; 3] = [
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/etc/systemd/system",
];

/// The files in which certbot keeps a pair, and Gatepost its copy.
pub fn pair_in(directory: &Path) -> Pair {
    Pair {
        certificate: directory.join("fullchain.pem"),
        key: directory.join("privkey.pem"),
    }
}

/// Where the passwords of today's users are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Logins {
    /// No service on 587 or 465 takes logins, or Gatepost verifies them already.
    None,
    /// A passwd-file of Dovecot's.
    PasswdFile(PathBuf),
    /// A source that cannot be imported, with a description.
    Elsewhere(String),
}

/// The facts.
pub struct Machine {
    pub postfix: Postfix,
    /// The name that mail programs probably use.
    pub hostname: String,
    /// Who listens on 587 and 465, where Gatepost is set up already.
    pub mode: Option<Mode>,
    pub has_ipv6: bool,
    /// The directories of certbot's certificates.
    pub lineages: Vec<PathBuf>,
    /// The certificate that Postfix shows today.
    pub postfix_pair: Option<Pair>,
    pub logins: Logins,
}

impl Machine {
    /// Looks at the machine.
    ///
    /// # Errors
    /// Setup cannot do its work here; the error has the next step.
    pub fn read() -> Result<Machine, CliError> {
        require_programs()?;
        let postfix = Postfix::read()?;
        let configured = Config::load(&Path::new(DIRECTORY).join("config.toml")).ok();
        let hostname = configured.map(|config| config.hostname.to_string());
        Ok(Machine {
            hostname: hostname.unwrap_or_else(|| postfix.value("myhostname").to_owned()),
            mode: mode(&postfix),
            has_ipv6: Path::new("/proc/net/if_inet6").exists(),
            lineages: lineages(Path::new(LINEAGES)),
            postfix_pair: postfix_pair(&postfix),
            logins: logins(&postfix)?,
            postfix,
        })
    }

    /// The certbot lineage whose certificate names `host`.
    pub fn lineage_for(&self, host: &str) -> Option<&PathBuf> {
        let mut lineages = self.lineages.iter();
        lineages.find(|directory| is_for(&pair_in(directory), host))
    }

    /// Refuses where Postfix is not sound today, or where another process has a port that Gatepost
    /// takes.
    pub fn require_ready(&self, mode: Mode) -> Result<(), CliError> {
        if !self.postfix.runs() {
            return Err(CliError::Refused(
                "Postfix does not run: systemctl start postfix, then run setup again".to_owned(),
            ));
        }
        let master = self.postfix.file("master.cf")?;
        let fallen = master.parent().map(master::examine).unwrap_or_default();
        if let Some(finding) = fallen.into_iter().next() {
            let next = finding.next.unwrap_or_default();
            return Err(CliError::Refused(format!("{}: {next}", finding.found)));
        }
        let own = self.postfix.submission();
        let is_postfix = |port| own.iter().any(|one| one.submission_port() == Some(port));
        let taken = |port: &u16| mode == Mode::Front && !is_postfix(*port);
        for port in [587, 465].into_iter().filter(taken) {
            if let Some(holder) = holder(port).filter(|holder| holder != "systemd") {
                return Err(by_hand(&format!(
                    "port {port} is taken by {holder}, which is no service in master.cf; stop {holder} and run setup again"
                )));
            }
        }
        Ok(())
    }
}

/// The name of a process that listens on `port`; systemd has the ports of socket units.
pub fn holder(port: u16) -> Option<String> {
    let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let mut found = any
        .iter()
        .map(|ip: &IpAddr| ports::holders(SocketAddr::new(*ip, port)));
    let holders = found.find_map(|holders| holders)?;
    let name = holders.into_iter().next().map(|process| process.name);
    Some(name.unwrap_or_else(|| "another process".to_owned()))
}

/// Whether the two files are a pair that names `host`.
pub fn is_for(pair: &Pair, host: &str) -> bool {
    Certificate::load(pair).is_ok_and(|certificate| certificate.is_for(host))
}

fn require_programs() -> Result<(), CliError> {
    let refuse = |text: &str| Err(CliError::Refused(text.to_owned()));
    if !rustix::process::geteuid().is_root() {
        return refuse("setup changes files of root's: run it with sudo");
    }
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(by_hand(
            "systemd does not run here, and setup works with its units",
        ));
    }
    let is_installed = |unit: &str| UNITS.iter().any(|at| Path::new(at).join(unit).is_file());
    let needed = [
        "gatepost.service",
        "gatepost.socket",
        "gatepost-auth.socket",
    ];
    if !needed.into_iter().all(is_installed) {
        return refuse(
            "Gatepost's units are not installed: install its package, or copy systemd/ of its source to /etc/systemd/system",
        );
    }
    match run_program("postconf", &["mail_version"]) {
        Ok(_) => Ok(()),
        Err(CliError::Io(error)) if error.contains("is not on this machine") => {
            refuse("Postfix is not installed: apt install postfix, then run setup again")
        }
        Err(error) => Err(by_hand(&error.to_string())),
    }
}

/// Who listens, where the services of Postfix show that setup has run.
fn mode(postfix: &Postfix) -> Option<Mode> {
    let submission = postfix.submission();
    let asks = |path: &str| path == AUTH_SOCKET;
    let mut paths = submission
        .iter()
        .map(|service| postfix.value_for(service, "smtpd_sasl_path"));
    match submission.is_empty() {
        true => None,
        false => paths.any(asks).then_some(Mode::Behind),
    }
}

fn lineages(live: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(live).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.join("fullchain.pem").exists());
    found.sort();
    found
}

fn postfix_pair(postfix: &Postfix) -> Option<Pair> {
    let chain = postfix.value("smtpd_tls_chain_files");
    if let Some(file) = chain.split([' ', ',']).find(|file| !file.is_empty()) {
        let file = PathBuf::from(file);
        return Some(Pair {
            certificate: file.clone(),
            key: file,
        });
    }
    let certificate = postfix.value("smtpd_tls_cert_file");
    let key = postfix.value("smtpd_tls_key_file");
    (certificate.starts_with('/') && key.starts_with('/')).then(|| Pair {
        certificate: certificate.into(),
        key: key.into(),
    })
}

/// Where the submission services of today look passwords up.
fn logins(postfix: &Postfix) -> Result<Logins, CliError> {
    let submission = postfix.submission();
    let mut services = submission.iter();
    let service =
        services.find(|service| postfix.value_for(service, "smtpd_sasl_auth_enable") == "yes");
    let Some(service) = service else {
        return Ok(Logins::None);
    };
    match postfix.value_for(service, "smtpd_sasl_type") {
        "dovecot" if postfix.value_for(service, "smtpd_sasl_path") == AUTH_SOCKET => {
            Ok(Logins::None)
        }
        "dovecot" => Ok(match run_program("doveconf", &["-n"]) {
            Ok(settings) => dovecot_logins(&settings),
            Err(_) => Logins::Elsewhere("a Dovecot that is not on this machine".to_owned()),
        }),
        kind => Ok(Logins::Elsewhere(format!("SASL of type {kind}"))),
    }
}

/// The passwords' source in `doveconf -n`: the one passdb, if there is just one.
fn dovecot_logins(settings: &str) -> Logins {
    let passdbs: Vec<_> = settings
        .split("\npassdb ")
        .skip(1)
        .map(|rest| rest.split("\n}").next().unwrap_or_default())
        .collect();
    let value = |passdb: &str, names: [&str; 2]| {
        passdb.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            names.contains(&key.trim()).then(|| value.trim().to_owned())
        })
    };
    let [passdb] = passdbs[..] else {
        return Logins::Elsewhere(format!("Dovecot with {} passdbs", passdbs.len()));
    };
    // From 2.4 on, a passdb names its driver first and the file as a setting of its own.
    let named = passdb.split(" {").next().unwrap_or_default().trim();
    let driver = value(passdb, ["driver", "passdb_driver"]).unwrap_or_else(|| named.to_owned());
    if driver != "passwd-file" {
        return Logins::Elsewhere(format!("Dovecot's {driver}"));
    }
    let arguments = value(passdb, ["args", "passwd_file_path"]).unwrap_or_default();
    let mut words = arguments.split_whitespace();
    match words.find(|word| word.starts_with('/') && !word.contains('%')) {
        Some(file) => Logins::PasswdFile(file.into()),
        None => Logins::Elsewhere(format!("Dovecot's passwd-file {arguments}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_passwd_file_is_imported() {
        let of = |passdbs: &str| dovecot_logins(&format!("x = y\n{passdbs}z = 1\n"));
        let old = "passdb {\n  args = scheme=SHA512-CRYPT username_format=%u /etc/dovecot/users\n  driver = passwd-file\n}\n";
        let new = "passdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n";
        for one in [old, new] {
            assert_eq!(of(one), Logins::PasswdFile("/etc/dovecot/users".into()));
        }
        for other in [
            "passdb {\n  driver = pam\n}\n".to_owned(),
            "passdb pam {\n}\n".to_owned(),
            "passdb {\n  args = /etc/dovecot/%d/users\n  driver = passwd-file\n}\n".to_owned(),
            format!("{old}{old}"),
            String::new(),
        ] {
            assert!(matches!(of(&other), Logins::Elsewhere(_)), "{other}");
        }
    }
}
