//! Postfix takes the message itself, asks Dovecot about the password, and passes the message on to the sink from its queue.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Kind, Peer, daemon, dovecot, program};
use crate::ports;
use crate::site::Site;

pub fn start(site: &Site) -> Peer {
    let root = rustix::process::geteuid().is_root();
    assert!(
        root,
        "Postfix starts as root only: use sudo, or leave it out"
    );
    let directory = site.room(Kind::Postfix.name());
    let [starttls, implicit] = std::array::from_fn(|_| ports::free_address());
    lay_out(&directory);
    let write = |name: &str, text: String| {
        fs::write(directory.join(name), text).expect("a configuration");
    };
    write("main.cf", main_cf(site, &directory));
    write(
        "master.cf",
        format!(
            "{implicit} inet n - n - - smtpd\n\
             \x20 -o smtpd_tls_wrappermode=yes\n\
             {starttls} inet n - n - - smtpd\n\
             {SERVICES}"
        ),
    );
    let room = site.room("postfix-dovecot");
    let asked = dovecot::start_for_postfix(site, &room, &directory.join("queue/private/auth"));
    let mut command = Command::new("/usr/lib/postfix/sbin/master");
    // It signals its process group when it ends.
    command.args(["-d", "-c"]).arg(&directory).process_group(0);
    let master = daemon(command, &directory);
    let version = format!("postfix {}, {}", mail_version(), dovecot::release());
    Peer::new(
        Kind::Postfix,
        implicit,
        Some(starttls),
        version,
        vec![master, asked],
        site,
    )
}

fn mail_version() -> String {
    let output = program("postconf")
        .args(["-d", "-h", "mail_version"])
        .output();
    let output = output.expect("postconf");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn main_cf(site: &Site, directory: &Path) -> String {
    let directory = directory.display();
    let upstream = site.sink.address;
    format!(
        "compatibility_level = 3.6\n\
         queue_directory = {directory}/queue\n\
         data_directory = {directory}/data\n\
         maillog_file = {directory}/log\n\
         maillog_file_prefixes = {directory}\n\
         myhostname = mail.example.test\n\
         inet_interfaces = 127.0.0.1\n\
         inet_protocols = ipv4\n\
         mydestination =\n\
         mynetworks =\n\
         alias_maps =\n\
         local_header_rewrite_clients =\n\
         message_size_limit = 52428800\n\
         default_process_limit = 400\n\
         relayhost = [{}]:{}\n\
         smtp_helo_name = relay.example.test\n\
         smtpd_peername_lookup = no\n\
         smtpd_tls_cert_file = {}\n\
         smtpd_tls_key_file = {}\n\
         smtpd_tls_security_level = may\n\
         smtpd_tls_auth_only = yes\n\
         smtpd_sasl_auth_enable = yes\n\
         smtpd_sasl_type = dovecot\n\
         smtpd_sasl_path = private/auth\n\
         smtpd_relay_restrictions = permit_sasl_authenticated,reject\n\
         smtpd_recipient_restrictions = permit_sasl_authenticated,reject\n\
         smtpd_client_connection_count_limit = 0\n\
         smtpd_client_connection_rate_limit = 0\n\
         smtpd_client_message_rate_limit = 0\n\
         smtpd_client_recipient_rate_limit = 0\n",
        upstream.ip(),
        upstream.port(),
        site.path("certificate.pem").display(),
        site.path("key.pem").display(),
    )
}

fn lay_out(directory: &Path) {
    let postfix = Some(id_of("/etc/passwd", "postfix"));
    let postdrop = Some(id_of("/etc/group", "postdrop"));
    let make = |name: &str, mode: u32| -> PathBuf {
        let path = directory.join(name);
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        path
    };
    make("queue", 0o755);
    make("queue/pid", 0o755);
    for name in PRIVATE_QUEUES {
        let path = make(&format!("queue/{name}"), 0o700);
        chown(path, postfix, None).expect("a queue of postfix's");
    }
    for (name, mode) in [("queue/public", 0o710), ("queue/maildrop", 0o730)] {
        chown(make(name, mode), postfix, postdrop).expect("a queue of postdrop's");
    }
    chown(make("data", 0o700), postfix, None).expect("data of postfix's");
}

const PRIVATE_QUEUES: [&str; 11] = [
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
    "saved", "trace",
];

const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
smtp unix - - n - - smtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";

/// The numeric id of `name` in a file of the form of passwd(5) and group(5).
fn id_of(file: &str, name: &str) -> u32 {
    let text = fs::read_to_string(file).expect("the user database");
    let mut lines = text.lines().map(|line| line.split(':'));
    let id = lines.find_map(|mut fields| {
        let found = fields.next() == Some(name);
        found.then(|| fields.nth(1)?.parse().ok())?
    });
    id.unwrap_or_else(|| panic!("no {name} in {file}: benches/peers/run installs Postfix"))
}
