//! A real Postfix with a directory, a queue and ports of its own. The system's instance is never
//! touched: every process started here is told its configuration directory.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::site::Config;
use super::{eventually, ports, tls};

/// Which kind of socket connects Postfix and Gatepost, both ways.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    Tcp,
    Unix,
}

/// A Postfix that accepts mail for `example.test` from whoever is authenticated, and delivers it
/// into one Maildir.
pub struct Postfix {
    /// Where Postfix itself listens for clients and asks Gatepost for the verdict only.
    pub direct: SocketAddr,
    /// The same with TLS from the first byte.
    pub direct_tls: SocketAddr,
    /// Where it expects a PROXY header, and takes mail from [`Postfix::FRIEND`] alone.
    pub proxied: SocketAddr,
    handover: SocketAddr,
    auth: SocketAddr,
    sockets: Sockets,
    settings: String,
    directory: TempDir,
    master: Option<Child>,
}

impl Postfix {
    /// Whom the service behind a PROXY header takes mail from.
    pub const FRIEND: &str = "127.0.0.7";

    pub fn start(sockets: Sockets) -> Postfix {
        Postfix::start_with(sockets, "")
    }

    /// The same with further lines for main.cf, which outweigh the usual ones.
    pub fn start_with(sockets: Sockets, settings: &str) -> Postfix {
        assert!(
            rustix::process::geteuid().is_root(),
            "Postfix starts as root only: use sudo"
        );
        // Not under TMPDIR: the user postfix must be able to walk there.
        let directory = tempfile::Builder::new()
            .prefix("gatepost-postfix-")
            .tempdir_in("/tmp");
        let mut postfix = Postfix {
            direct: ports::free_address(),
            direct_tls: ports::free_address(),
            proxied: ports::free_address(),
            handover: ports::free_address(),
            auth: ports::free_address(),
            sockets,
            settings: settings.to_owned(),
            directory: directory.expect("tempdir"),
            master: None,
        };
        postfix.lay_out();
        postfix.restart();
        postfix
    }

    /// For `[upstream] address`.
    pub fn upstream(&self) -> String {
        match self.sockets {
            Sockets::Tcp => self.handover.to_string(),
            Sockets::Unix => format!("unix:{}", self.path("queue/public/submit").display()),
        }
    }

    /// Where to speak to the service Gatepost hands over to, as one who came past Gatepost.
    pub fn behind_gatepost(&self) -> SocketAddr {
        assert!(
            self.sockets == Sockets::Tcp,
            "the service listens on a unix socket"
        );
        self.handover
    }

    /// The authentication socket Postfix will ask at, which is Gatepost's to open.
    pub fn auth_address(&self) -> SocketAddr {
        self.auth
    }

    /// For `[dovecot_auth] listen`.
    pub fn auth(&self) -> String {
        match self.sockets {
            Sockets::Tcp => self.auth.to_string(),
            Sockets::Unix => format!("unix:{}", self.path("queue/private/gatepost").display()),
        }
    }

    /// Has Gatepost open the authentication socket where Postfix may ask, and Postfix alone.
    pub fn asks(&self, config: Config) -> Config {
        let config = config.text("dovecot_auth", "listen", &self.auth());
        match self.sockets {
            Sockets::Tcp => config.flag("dovecot_auth", "trusted", true),
            Sockets::Unix => config.text("dovecot_auth", "group", "postfix"),
        }
    }

    /// Ends all of its processes; the queue stays.
    pub fn stop(&mut self) {
        let Some(mut master) = self.master.take() else {
            return;
        };
        // master passes the signal on to its process group, which the tests are not part of.
        kill_process(Pid::from_child(&master), Signal::TERM).expect("signal master");
        master.wait().expect("reap master");
        eventually("Postfix gives its ports back", || {
            [self.direct, self.direct_tls, self.proxied, self.handover]
                .iter()
                .all(|&address| TcpListener::bind(address).is_ok())
                .then_some(())
        });
    }

    /// Starts what [`Postfix::stop`] ended. Does not connect: an smtpd that cannot reach the
    /// authentication socket dies, and master then refuses the service for a minute.
    pub fn restart(&mut self) {
        let started = self.log().matches("daemon started").count();
        let master = Command::new("/usr/lib/postfix/sbin/master")
            .args(["-d", "-c"])
            .arg(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        self.master = Some(master.expect("start Postfix's master"));
        eventually("Postfix starts", || {
            (self.log().matches("daemon started").count() > started).then_some(())
        });
    }

    /// All of the mail log so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.path("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits for a log line that holds every one of `parts`, and returns it.
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        eventually(&format!("{parts:?} in the mail log"), || {
            let log = self.log();
            log.lines()
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(String::from)
        })
    }

    /// Waits for the message that holds `marker` and returns it as delivered, with LF line ends.
    pub fn wait_for_message(&self, marker: &str) -> Vec<u8> {
        let marker = marker.as_bytes();
        eventually("a message is delivered", || {
            let messages = std::fs::read_dir(self.path("mail/box/new")).ok()?;
            let mut texts = messages.filter_map(|entry| std::fs::read(entry.ok()?.path()).ok());
            texts.find(|text| text.windows(marker.len()).any(|window| window == marker))
        })
    }

    /// The certificate of the services that speak TLS, which is its own authority.
    pub fn certificate(&self) -> PathBuf {
        self.path("certificate.pem")
    }

    /// Where its main.cf and master.cf are.
    pub fn configuration(&self) -> &Path {
        self.directory.path()
    }

    /// Restarts it with another main.cf.
    pub fn with_main_cf(&mut self, change: impl FnOnce(String) -> String) {
        self.edit("main.cf", change);
    }

    /// Restarts it with other options for the service Gatepost hands over to.
    pub fn with_options(&mut self, change: impl FnOnce(String) -> String) {
        let next = format!("\n{} inet", self.direct);
        self.edit("master.cf", |text| {
            let (own, others) = text.split_once(&next).expect("a service behind it");
            format!("{}{next}{others}", change(own.to_owned()))
        });
    }

    /// Restarts it with another master.cf.
    pub fn with_master_cf(&mut self, change: impl FnOnce(String) -> String) {
        self.edit("master.cf", change);
    }

    fn edit(&mut self, file: &str, change: impl FnOnce(String) -> String) {
        self.stop();
        let path = self.path(file);
        let text = std::fs::read_to_string(&path).expect("read the configuration");
        std::fs::write(&path, change(text)).expect("write the configuration");
        self.restart();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn lay_out(&self) {
        set_mode(self.directory.path(), 0o755);
        tls::write_certificate(self.directory.path());
        std::fs::write(self.path("main.cf"), self.main_cf()).expect("write main.cf");
        std::fs::write(self.path("master.cf"), self.master_cf()).expect("write master.cf");
        let postfix = Some(id_of("/etc/passwd", "postfix"));
        let postdrop = Some(id_of("/etc/group", "postdrop"));
        for directory in ["queue", "queue/pid"] {
            make_directory(&self.path(directory), 0o755);
        }
        for name in PRIVATE_QUEUES {
            let directory = self.path("queue").join(name);
            make_directory(&directory, 0o700);
            chown(&directory, postfix, None).expect("give a queue to postfix");
        }
        for (name, mode) in [("queue/public", 0o710), ("queue/maildrop", 0o730)] {
            make_directory(&self.path(name), mode);
            chown(self.path(name), postfix, postdrop).expect("give a queue to postdrop");
        }
        make_directory(&self.path("data"), 0o700);
        chown(self.path("data"), postfix, None).expect("give the data to postfix");
        make_directory(&self.path("mail"), 0o700);
        chown(self.path("mail"), Some(NOBODY), Some(NOBODY)).expect("give the mail to nobody");
    }

    fn main_cf(&self) -> String {
        let directory = self.directory.path().display();
        format!(
            "compatibility_level = 3.6\n\
             queue_directory = {directory}/queue\n\
             data_directory = {directory}/data\n\
             maillog_file = {directory}/log\n\
             maillog_file_prefixes = {directory}\n\
             myhostname = postfix.example.test\n\
             inet_interfaces = {loopback}\n\
             inet_protocols = ipv4\n\
             mydestination =\n\
             mynetworks =\n\
             alias_maps =\n\
             in_flow_delay = 0\n\
             smtpd_peername_lookup = no\n\
             smtpd_tls_cert_file = {directory}/certificate.pem\n\
             smtpd_tls_key_file = {directory}/key.pem\n\
             virtual_mailbox_domains = example.test\n\
             virtual_mailbox_base = {directory}/mail\n\
             virtual_mailbox_maps = static:box/\n\
             virtual_uid_maps = static:{NOBODY}\n\
             virtual_gid_maps = static:{NOBODY}\n\
             default_transport = discard\n\
             {settings}",
            loopback = Ipv4Addr::LOCALHOST,
            settings = self.settings,
        )
    }

    fn master_cf(&self) -> String {
        let sasl = match self.sockets {
            Sockets::Tcp => format!("inet:{}", self.auth),
            Sockets::Unix => "private/gatepost".to_owned(),
        };
        let handover = match self.sockets {
            Sockets::Tcp => format!("{} inet n - n", self.handover),
            Sockets::Unix => "submit unix n - n".to_owned(),
        };
        format!(
            "{handover} - - smtpd\n\
             {}  -o syslog_name=postfix/gatepost\n\
             \x20 -o smtpd_authorized_xclient_hosts=127.0.0.1\n\
             \x20 -o smtpd_tls_security_level=none\n\
             {} inet n - n - - smtpd\n\
             {}  -o syslog_name=postfix/direct\n\
             \x20 -o smtpd_tls_security_level=may\n\
             \x20 -o smtpd_tls_auth_only=yes\n\
             {} inet n - n - - smtpd\n\
             {}  -o syslog_name=postfix/direct-tls\n\
             \x20 -o smtpd_tls_wrappermode=yes\n\
             {} inet n - n - - smtpd\n\
             \x20 -o syslog_name=postfix/proxied\n\
             \x20 -o smtpd_upstream_proxy_protocol=haproxy\n\
             \x20 -o mynetworks={}\n\
             \x20 -o smtpd_relay_restrictions=permit_mynetworks,reject\n\
             \x20 -o smtpd_recipient_restrictions=permit_mynetworks,reject\n\
             {INTERNAL_SERVICES}",
            submission_options(&sasl),
            self.direct,
            submission_options(&sasl),
            self.direct_tls,
            submission_options(&sasl),
            self.proxied,
            Self::FRIEND,
        )
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- Postfix's log\n{}---", self.log());
        }
        self.stop();
    }
}

/// What both services share, and what the manual tells an administrator to write.
fn submission_options(sasl_path: &str) -> String {
    format!(
        "  -o smtpd_sasl_auth_enable=yes -o smtpd_sasl_type=dovecot -o smtpd_sasl_path={sasl_path}\n\
         \x20 -o smtpd_relay_restrictions=permit_sasl_authenticated,reject\n\
         \x20 -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n\
         \x20 -o smtpd_client_connection_count_limit=0\n\
         \x20 -o smtpd_client_connection_rate_limit=0\n\
         \x20 -o smtpd_client_message_rate_limit=0\n\
         \x20 -o smtpd_client_recipient_rate_limit=0\n\
         \x20 -o mynetworks=\n"
    )
}

const PRIVATE_QUEUES: [&str; 11] = [
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
    "saved", "trace",
];

const INTERNAL_SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
";

/// Who owns what nobody should: the Maildir belongs to neither root nor postfix.
const NOBODY: u32 = 65_534;

fn make_directory(path: &Path, mode: u32) {
    std::fs::create_dir(path).expect("create a directory");
    set_mode(path, mode);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set a mode");
}

/// The numeric id of `name` in a file of the form of passwd(5) and group(5).
fn id_of(file: &str, name: &str) -> u32 {
    let text = std::fs::read_to_string(file).expect("read the user database");
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = fields.into_iter().find(|fields| fields[0] == name);
    entry.unwrap_or_else(|| panic!("no {name} in {file}: is Postfix installed?"))[2]
        .parse()
        .expect("a numeric id")
}
