//! One installation: a directory with a configuration, a certificate and a store, and the command
//! line used on it.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tempfile::TempDir;

use super::secrets::Secrets;
use super::{ports, tls};

/// The name the daemon greets with.
pub const HOSTNAME: &str = "mail.example.test";

/// The configuration of a test: cheap passwords and quick refusals unless those are the subject.
pub struct Config {
    tables: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
    drain_timeout: &'static str,
    proxy_from: Vec<String>,
    has_listeners: bool,
}

impl Config {
    /// A configuration that hands over to `upstream` (`127.0.0.1:PORT` or `unix:/path`).
    pub fn for_upstream(upstream: impl Display) -> Config {
        Config::cheap(true)
            .text("upstream", "address", &upstream.to_string())
            .text("upstream", "identity", "xclient")
    }

    /// A configuration without listeners: Postfix keeps its own and asks at `listen`.
    pub fn for_verdicts(listen: &str) -> Config {
        Config::cheap(false).text("dovecot_auth", "listen", listen)
    }

    /// A configuration without any address; the service manager hands in what is served.
    pub fn for_nothing() -> Config {
        Config::cheap(false)
    }

    /// Leaves `[[listener]]` out.
    pub fn without_listeners(mut self) -> Config {
        self.has_listeners = false;
        self
    }

    fn cheap(has_listeners: bool) -> Config {
        Config {
            tables: BTreeMap::new(),
            drain_timeout: "10s",
            proxy_from: Vec::new(),
            has_listeners,
        }
        .number("auth", "memory_kib", 64)
        .number("auth", "iterations", 1)
        .text("auth", "refusal_delay", "20ms")
    }

    /// Sets a string, which is also how durations and addresses are written.
    pub fn text(self, table: &'static str, key: &'static str, value: &str) -> Config {
        self.raw(table, key, format!("{value:?}"))
    }

    /// Sets an integer.
    pub fn number(self, table: &'static str, key: &'static str, value: u64) -> Config {
        self.raw(table, key, value.to_string())
    }

    /// Sets true or false.
    pub fn flag(self, table: &'static str, key: &'static str, value: bool) -> Config {
        self.raw(table, key, value.to_string())
    }

    /// How long SIGTERM waits for transactions.
    pub fn drain_timeout(mut self, timeout: &'static str) -> Config {
        self.drain_timeout = timeout;
        self
    }

    /// From which addresses both listeners expect a PROXY header.
    pub fn proxy_from(mut self, addresses: &[&str]) -> Config {
        self.proxy_from = addresses.iter().map(ToString::to_string).collect();
        self
    }

    /// A configuration that hands over to any of these.
    pub fn for_upstreams(upstreams: &[SocketAddr]) -> Config {
        let addresses: Vec<_> = upstreams.iter().map(SocketAddr::to_string).collect();
        Config::for_upstream("").address(format!("{addresses:?}"))
    }

    /// Sets where the upstream is, in TOML.
    pub fn address(self, toml: String) -> Config {
        self.raw("upstream", "address", toml)
    }

    /// Sets `tls.others` to these pairs of files.
    pub fn others(self, pairs: &[(PathBuf, PathBuf)]) -> Config {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(certificate, key)| format!("{{ certificate = {certificate:?}, key = {key:?} }}"))
            .collect();
        self.raw("tls", "others", format!("[{}]", pairs.join(", ")))
    }

    /// Watches loopback as any other network, as clients of tests come from there.
    pub fn guarded(self) -> Config {
        self.raw("guard", "exempt", "[]".to_owned())
    }

    fn metrics(&self) -> Option<SocketAddr> {
        let address = self.tables.get("metrics")?.get("listen")?;
        address.trim_matches('"').parse().ok()
    }

    /// Sets a value in TOML.
    pub fn raw(mut self, table: &'static str, key: &'static str, value: String) -> Config {
        self.tables.entry(table).or_default().insert(key, value);
        self
    }

    fn to_toml(&self, submission: SocketAddr, submissions: SocketAddr) -> String {
        let drain = self.drain_timeout;
        let mut toml = format!("hostname = {HOSTNAME:?}\ndrain_timeout = {drain:?}\n");
        let listeners = [("submission", submission), ("submissions", submissions)];
        let listeners = listeners.into_iter().filter(|_| self.has_listeners);
        for (kind, address) in listeners {
            write!(
                toml,
                "\n[[listener]]\nkind = \"{kind}\"\naddress = \"{address}\"\nproxy_from = {:?}\n",
                self.proxy_from
            )
            .unwrap();
        }
        for (table, keys) in &self.tables {
            write!(toml, "\n[{table}]\n").unwrap();
            keys.iter()
                .for_each(|(key, value)| writeln!(toml, "{key} = {value}").unwrap());
        }
        toml
    }
}

/// What `credential create` and `rotate` hand out.
#[derive(Clone, Debug)]
pub struct Credential {
    pub username: String,
    pub password: String,
}

impl Credential {
    /// The SASL PLAIN message in base64.
    pub fn plain(&self) -> String {
        STANDARD.encode(format!("\0{}\0{}", self.username, self.password))
    }

    /// The same name with a well-formed password that was never given out.
    pub fn with_wrong_password(&self) -> Credential {
        let password = "sk_00000000000000000000000000000000".to_owned();
        Credential {
            username: self.username.clone(),
            password,
        }
    }

    /// Reads the document `--json` printed.
    pub fn from_json(document: &[u8]) -> Credential {
        let value: Value = serde_json::from_slice(document).expect("one JSON document on stdout");
        let text = |key: &str| value[key].as_str().expect(key).to_owned();
        Credential {
            username: text("username"),
            password: text("password"),
        }
    }
}

/// An installation in a directory of its own, removed on drop. All it has put out by then is searched
/// for the secrets it handed out.
pub struct Site {
    pub submission: SocketAddr,
    pub submissions: SocketAddr,
    /// Where `/metrics` is served, if it is.
    pub metrics: Option<SocketAddr>,
    /// What was handed out, and what must not show it.
    pub secrets: Secrets,
    directory: TempDir,
}

impl Site {
    /// Writes configuration and certificate; the store appears with the first command.
    pub fn new(config: Config) -> Site {
        let directory = tempfile::Builder::new()
            .prefix("gatepost-")
            .tempdir()
            .expect("tempdir");
        let site = Site {
            submission: ports::free_address(),
            submissions: ports::free_address(),
            metrics: config.metrics(),
            secrets: Secrets::default(),
            directory,
        };
        site.renew_certificate();
        std::fs::create_dir(site.path("store")).expect("a directory for the store");
        let mut config = config.text("store", "path", site.store().to_str().unwrap());
        if config.tables.contains_key("upstream") {
            let path = |name| site.path(name).to_str().unwrap().to_owned();
            config = config
                .text("tls", "certificate", &path("certificate.pem"))
                .text("tls", "key", &path("key.pem"));
        }
        let toml = config.to_toml(site.submission, site.submissions);
        std::fs::write(site.config(), toml).expect("write the configuration");
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn config(&self) -> PathBuf {
        self.path("config.toml")
    }

    pub fn store(&self) -> PathBuf {
        self.path("store").join("gatepost.db")
    }

    /// Replaces the pair on disk.
    pub fn renew_certificate(&self) -> CertificateDer<'static> {
        tls::write_certificate(self.directory.path())
    }

    /// `gatepost --config FILE ARGUMENTS…`, ready to run or to spawn and kill.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_behind(&[], arguments)
    }

    /// The same behind the words of a program that starts it.
    pub fn command_behind(&self, prefix: &[String], arguments: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_gatepost").to_owned();
        let words = [prefix, &[binary]].concat();
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a subcommand to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().expect("run gatepost");
        let command = arguments.join(" ");
        let shows = matches!(
            arguments,
            ["credential", "create" | "rotate", ..] | ["token", "create", ..]
        );
        if shows {
            self.secrets.remember_shown(&output.stdout);
        } else {
            self.secrets
                .note(format!("stdout of {command}"), &output.stdout);
        }
        self.secrets
            .note(format!("stderr of {command}"), &output.stderr);
        output
    }

    /// Runs a subcommand that must succeed; its stdout.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8 on stdout")
    }

    /// Runs a subcommand with `--json` and reads the one document it prints.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let stdout = self.succeed(&[arguments, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error} in {stdout:?}"))
    }

    /// `credential create`.
    #[track_caller]
    pub fn create(&self) -> Credential {
        self.hand_out(&["credential", "create"])
    }

    /// `credential rotate`.
    #[track_caller]
    pub fn rotate(&self, credential: &Credential) -> Credential {
        self.hand_out(&["credential", "rotate", &credential.username])
    }

    #[track_caller]
    fn hand_out(&self, arguments: &[&str]) -> Credential {
        let stdout = self.succeed(&[arguments, &["--json"]].concat());
        Credential::from_json(stdout.as_bytes())
    }

    /// Notes a password that nothing of this site's may show.
    pub fn remember(&self, credential: &Credential) {
        self.secrets.remember(credential);
    }

    /// A change by "another process": a connection that knows nothing of Gatepost.
    #[track_caller]
    pub fn sql(&self, statement: &str, username: &str) {
        let connection = rusqlite::Connection::open(self.store()).expect("open the store");
        connection
            .busy_timeout(super::PATIENCE)
            .expect("set a timeout");
        let changed = connection.execute(statement, [username]).expect(statement);
        assert_eq!(changed, 1, "{statement} for {username}");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.secrets.assert_kept(self.directory.path());
        }
    }
}
