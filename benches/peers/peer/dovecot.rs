//! Dovecot, as a submission proxy and as what Postfix asks about passwords.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use super::{Kind, Peer, daemon, program, version};
use crate::ports;
use crate::site::{Credential, Site};

/// One that proxies.
pub fn start(site: &Site) -> Peer {
    let directory = site.room(Kind::Dovecot.name());
    let [starttls, implicit] = std::array::from_fn(|_| ports::free_address());
    let services = format!(
        "protocols = submission\n\
         ssl = yes\n\
         ssl_cert = <{}\n\
         ssl_key = <{}\n\
         service submission-login {{\n\
         \x20 chroot =\n\
         \x20 inet_listener submission {{\n    port = {}\n  }}\n\
         \x20 inet_listener submissions {{\n    port = {}\n    ssl = yes\n  }}\n\
         \x20 service_count = 0\n\
         \x20 process_min_avail = 2\n\
         \x20 process_limit = 2\n\
         \x20 client_limit = 8000\n\
         \x20 vsz_limit = 2G\n\
         }}\n",
        site.path("certificate.pem").display(),
        site.path("key.pem").display(),
        starttls.port(),
        implicit.port(),
    );
    let upstream = site.sink.address;
    let proxied = format!("proxy=y host={} port={}", upstream.ip(), upstream.port());
    let process = run(site, &directory, &services, &proxied);
    Peer::new(
        Kind::Dovecot,
        implicit,
        Some(starttls),
        release(),
        vec![process],
        site,
    )
}

/// A Dovecot that answers Postfix on this socket, and does nothing else.
pub fn start_for_postfix(site: &Site, directory: &Path, socket: &Path) -> Child {
    let services = format!(
        "protocols =\n\
         ssl = no\n\
         service auth {{\n\
         \x20 unix_listener {} {{\n    mode = 0660\n    user = postfix\n    group = postfix\n  }}\n\
         }}\n",
        socket.display(),
    );
    run(site, directory, &services, "nologin=")
}

/// What Dovecot calls itself.
pub fn release() -> String {
    format!("dovecot {}", version("dovecot", "--version"))
}

fn run(site: &Site, directory: &Path, services: &str, fields: &str) -> Child {
    let users = directory.join("users");
    fs::write(&users, passwords(site, fields)).expect("a file of passwords");
    // Its login processes are of a user who owns nothing.
    make_readable(&users);
    let path = directory.join("dovecot.conf");
    let base = directory.display();
    let configuration = format!(
        "base_dir = {base}/run\n\
         state_dir = {base}/state\n\
         log_path = {base}/log\n\
         listen = 127.0.0.1\n\
         hostname = mail.example.test\n\
         auth_mechanisms = plain login\n\
         auth_username_format = %u\n\
         auth_cache_size = 10M\n\
         passdb {{\n  driver = passwd-file\n  args = scheme=ARGON2ID username_format=%u {users}\n}}\n\
         userdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home=/nonexistent\n}}\n\
         service anvil {{\n  client_limit = 20000\n}}\n\
         service auth {{\n  client_limit = 20000\n  vsz_limit = 1G\n}}\n\
         {services}",
        users = users.display(),
    );
    fs::write(&path, configuration).expect("a configuration");
    let mut command = program("dovecot");
    command.arg("-F").arg("-c").arg(path);
    daemon(command, directory)
}

/// Those who log in have theirs in the clear, to its advantage: its cache spares it no hash, so that nothing but argon2id would
/// be seen. The others have the very hashes that Gatepost stores.
fn passwords(site: &Site, fields: &str) -> String {
    let mut text = String::new();
    for Credential {
        username, password, ..
    } in site.warm.iter()
    {
        writeln!(text, "{username}:{{PLAIN}}{password}::::::{fields}").expect("a line");
    }
    for Credential { username, hash, .. } in site.cold.iter() {
        writeln!(text, "{username}:{{ARGON2ID}}{hash}::::::{fields}").expect("a line");
    }
    text
}

fn make_readable(path: &PathBuf) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a mode");
}
