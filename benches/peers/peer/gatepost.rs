//! Gatepost, as its defaults have it, with metrics and the administration on.

use std::fs;
use std::process::Command;

use super::{Kind, Peer, daemon};
use crate::ports;
use crate::site::Site;

/// Connections at a time: the one limit that is raised.
const CONNECTIONS: u32 = 8192;

pub fn start(site: &Site) -> Peer {
    let directory = site.room(Kind::Gatepost.name());
    let [starttls, implicit, metrics] = std::array::from_fn(|_| ports::free_address());
    let configuration = format!(
        "hostname = \"mail.example.test\"\n\
         [[listener]]\nkind = \"submission\"\naddress = \"{starttls}\"\n\
         [[listener]]\nkind = \"submissions\"\naddress = \"{implicit}\"\n\
         [tls]\ncertificate = {:?}\nkey = {:?}\n\
         [upstream]\naddress = \"{}\"\n\
         [store]\npath = {:?}\n\
         [admin]\nsocket = {:?}\n\
         [metrics]\nlisten = \"{metrics}\"\n\
         [limits]\nconnections = {CONNECTIONS}\n",
        site.path("certificate.pem"),
        site.path("key.pem"),
        site.sink.address,
        site.path("store/gatepost.db"),
        directory.join("admin.sock"),
    );
    let path = directory.join("config.toml");
    fs::write(&path, configuration).expect("a configuration");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.arg("--config").arg(path).arg("serve");
    let process = daemon(command, &directory);
    let version = format!("gatepost {}", env!("CARGO_PKG_VERSION"));
    Peer::new(
        Kind::Gatepost,
        implicit,
        Some(starttls),
        version,
        vec![process],
        site,
    )
}
