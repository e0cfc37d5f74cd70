//! Exim and OpenSMTPD as Debian packs them, unpacked instead of installed, because Debian lets only
//! one MTA be installed and that is Postfix. Each runs in a mount namespace where the paths it was
//! built with are its own, so that it neither needs nor touches anything of the system's.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::site::{Credential, Site};
use super::{eventually, ports};

/// The first word is a directory for files, the second holds the programs. The command behind them
/// runs in a mount namespace with the users and the paths that both MTAs were built for.
/// Name servers are not asked: OpenSMTPD would wait for one after some sixty clients.
/// Both MTAs start themselves again as their own users, so the programs are mounted into the
/// directory for files, which every user can reach, also where the checkout is private.
const STAGE: &str = r#"set -e
directory=$1
programs=$2
shift 2
{ cat /etc/passwd
printf '%s:x:%s:%s::/:/bin/false\n' opensmtpd 64001 64001 opensmtpq 64002 64002 Debian-exim 64003 64003
} >"$directory/passwd"
{ cat /etc/group
printf '%s:x:%s:\n' opensmtpd 64001 opensmtpq 64002 Debian-exim 64003
} >"$directory/group"
mount --bind "$directory/passwd" /etc/passwd
mount --bind "$directory/group" /etc/group
mkdir "$directory/programs"
mount --bind "$programs" "$directory/programs"
for place in /run /var/lib /var/spool; do mount -t tmpfs none "$place"; done
echo 'lookup file' >"$directory/resolv.conf"
resolver=$(readlink -m /etc/resolv.conf)
case $resolver in /run/*) install -D /dev/null "$resolver" ;; esac
mount --bind "$directory/resolv.conf" "$resolver"
mkdir -p /var/lib/opensmtpd/empty
mkdir -m 711 /var/spool/smtpd
install -d -o Debian-exim -g Debian-exim /var/spool/exim "$directory/log"
exec "$@""#;

/// An MTA that relays all it takes to another server. Stopped on drop.
pub struct Peer {
    pub address: SocketAddr,
    child: Child,
    stage: Stage,
}

impl Peer {
    /// Whom OpenSMTPD takes mail from; it believes PROXY headers about who that is.
    pub const FRIEND: &str = "127.0.0.7";
    /// The one account Exim takes mail from.
    pub const ACCOUNT: [&str; 2] = ["gate", "hunter2"];

    /// An OpenSMTPD that expects a PROXY header of version 2.
    pub fn opensmtpd(next: SocketAddr) -> Peer {
        let address = ports::free_address();
        let stage = Stage::new();
        let configuration = format!(
            "listen on {} port {} proxy-v2 hostname opensmtpd.example.test\n\
             action \"next\" relay host smtp+notls://{next}\n\
             match from src {} for any action \"next\"\n",
            address.ip(),
            address.port(),
            Self::FRIEND,
        );
        let path = stage.write("smtpd.conf", 0o600, &configuration);
        let command = stage.command("smtpd", &["-d", "-f", &path]);
        Peer::started(address, command, stage)
    }

    /// An Exim that wants a login by PLAIN.
    pub fn exim(next: SocketAddr) -> Peer {
        let address = ports::free_address();
        let stage = Stage::new();
        let [username, password] = Self::ACCOUNT;
        let configuration = format!(
            "{}\
             daemon_smtp_ports = {}\n\
             acl_smtp_rcpt = rcpt\n\
             acl_smtp_data = data\n\
             begin acl\n\
             rcpt:\n  accept authenticated = *\n  deny\n\
             data:\n  accept\n\
             {}\
             begin authenticators\n\
             plain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n  \
             server_condition = ${{if and{{{{eq{{$auth2}}{{{username}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}\n  \
             server_set_id = $auth2\n",
            stage.exim_main(),
            address.port(),
            exim_delivery(next, "  hosts_avoid_tls = *\n"),
        );
        let path = stage.write("exim.conf", 0o644, &configuration);
        let arguments = ["-C", &path, "-bdf", "-oP", "/run/exim.pid"];
        let command = stage.command("exim4", &arguments);
        Peer::started(address, command, stage)
    }

    /// All it has said.
    pub fn log(&self) -> String {
        self.stage.log()
    }

    fn started(address: SocketAddr, mut command: Command, stage: Stage) -> Peer {
        let mut child = command.spawn().expect("start the peer");
        eventually("the peer listens", || {
            if let Some(status) = child.try_wait().expect("ask for the child") {
                panic!("the peer ended with {status}:\n{}", stage.log());
            }
            TcpStream::connect(address).ok()
        });
        Peer {
            address,
            child,
            stage,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its other processes end with it. Fails where it ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the peer's log\n{}---", self.stage.log());
        }
    }
}

/// Has Exim send `message`, which has LF line ends, through `site` by STARTTLS and AUTH PLAIN.
pub fn send_by_exim(site: &Site, credential: &Credential, message: &[u8]) {
    let stage = Stage::new();
    let configuration = format!(
        "{}\
         {}\
         begin authenticators\n\
         plain:\n  driver = plaintext\n  public_name = PLAIN\n  client_send = ^{}^{}\n",
        stage.exim_main(),
        exim_delivery(
            site.submission,
            "  hosts_require_tls = *\n  hosts_require_auth = *\n  tls_verify_certificates =\n"
        ),
        credential.username,
        credential.password,
    );
    let path = stage.write("exim.conf", 0o644, &configuration);
    let mut command = stage.command(
        "exim4",
        // Delivered before it ends; a dot alone is text.
        &[
            "-C",
            &path,
            "-odi",
            "-oi",
            "-f",
            "sender@example.test",
            "box@example.test",
        ],
    );
    let mut child = command.stdin(Stdio::piped()).spawn().expect("start Exim");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(message).expect("hand the message to Exim");
    drop(input);
    let status = child.wait().expect("Exim ends");
    let log = stage.log();
    assert!(status.success() && log.contains("Completed"), "{log}");
}

/// Where one of them has its files.
struct Stage(TempDir);

impl Stage {
    fn new() -> Stage {
        let directory = tempfile::Builder::new().prefix("gatepost-peer-").tempdir();
        let directory = directory.expect("tempdir");
        // Their users have to walk there.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Stage(directory)
    }

    /// Exim reads its configuration again as its user, OpenSMTPD reads none that others could read.
    fn write(&self, name: &str, mode: u32, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("write a configuration");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.to_str().expect("UTF-8").to_owned()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let log = std::fs::File::create(self.0.path().join("output")).expect("create a log");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", STAGE, "sh"]);
        command.args([self.0.path(), &unpacked(program)]);
        command.arg(self.program(program)).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log);
        command
    }

    /// The path of a program inside the namespace.
    fn program(&self, name: &str) -> PathBuf {
        self.0.path().join("programs").join(name)
    }

    fn exim_main(&self) -> String {
        format!(
            "exim_path = {}\n\
             spool_directory = /var/spool/exim\n\
             log_file_path = {}/log/%s\n\
             primary_hostname = exim.example.test\n\
             local_interfaces = 127.0.0.1\n\
             tls_advertise_hosts =\n\
             keep_environment =\n",
            self.program("exim4").display(),
            self.0.path().display(),
        )
    }

    fn log(&self) -> String {
        let files = ["output", "log/main", "log/reject", "log/panic"];
        let texts = files.map(|file| std::fs::read(self.0.path().join(file)).unwrap_or_default());
        String::from_utf8_lossy(&texts.concat()).into_owned()
    }
}

/// All mail goes to `next`, as it is.
fn exim_delivery(next: SocketAddr, transport: &str) -> String {
    format!(
        "begin routers\n\
         next:\n  driver = manualroute\n  route_list = * {}::{}\n  self = send\n  transport = next\n\
         begin transports\n\
         next:\n  driver = smtp\n  hosts_try_chunking =\n{transport}\
         begin retry\n\
         * * F,1h,1m\n",
        next.ip(),
        next.port(),
    )
}

/// The directory where `tests/run` unpacks this program.
fn unpacked(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let directory = target.join("peers/usr/sbin");
    assert!(
        directory.join(name).exists(),
        "{name} is missing in {directory:?}: ./tests/run unpacks it there"
    );
    directory
}
