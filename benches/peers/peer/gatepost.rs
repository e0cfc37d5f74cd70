//! Gatepost, as its defaults have it, with metrics and the administration on.

use std::fs;
use std::path::PathBuf;

use super::{Kind, Peer, daemon};
use crate::affinity;
use crate::ports;
use crate::program;
use crate::site::Site;

/// In what a Gatepost differs from its defaults.
pub struct Setup {
    /// Connections at a time.
    pub connections: u32,
    /// Sections of the configuration that are not here.
    pub sections: String,
    /// Its store, if it is not the site's.
    pub store: Option<PathBuf>,
    /// On how many cores it runs, if not on all.
    pub cores: Option<usize>,
}

impl Default for Setup {
    /// The limit of connections alone is raised.
    fn default() -> Setup {
        Setup {
            connections: 8192,
            sections: String::new(),
            store: None,
            cores: None,
        }
    }
}

pub fn start(site: &Site, setup: &Setup) -> Peer {
    let directory = site.room(Kind::Gatepost.name());
    let [starttls, implicit, metrics] = std::array::from_fn(|_| ports::free_address());
    let store = setup.store.clone();
    let configuration = format!(
        "hostname = \"mail.example.test\"\n\
         [[listener]]\nkind = \"submission\"\naddress = \"{starttls}\"\n\
         [[listener]]\nkind = \"submissions\"\naddress = \"{implicit}\"\n\
         [tls]\ncertificate = {:?}\nkey = {:?}\n\
         [upstream]\naddress = \"{}\"\n\
         [store]\npath = {:?}\n\
         [admin]\nsocket = {:?}\n\
         [metrics]\nlisten = \"{metrics}\"\n\
         [limits]\nconnections = {}\n{}",
        site.path("certificate.pem"),
        site.path("key.pem"),
        site.sink.address,
        store.unwrap_or_else(|| site.path("store/gatepost.db")),
        directory.join("admin.sock"),
        setup.connections,
        setup.sections,
    );
    let path = directory.join("config.toml");
    fs::write(&path, configuration).expect("a configuration");
    let mut command = program::command();
    command.arg("--config").arg(path).arg("serve");
    let process = affinity::on_first(setup.cores, || daemon(command, &directory));
    let version = program::version();
    Peer::new(
        Kind::Gatepost,
        implicit,
        Some(starttls),
        version,
        vec![process],
        site,
    )
}
