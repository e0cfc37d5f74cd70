//! The floor, as a process of its own.

use std::process::Command;

use super::{Kind, Peer, daemon};
use crate::ports;
use crate::site::Site;

pub fn start(site: &Site) -> Peer {
    let address = ports::free_address();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .arg("relay")
        .args([address, site.sink.address].map(|address| address.to_string()))
        .arg(site.path(""));
    let process = daemon(command, &site.room(Kind::Floor.name()));
    let version = "rustls and aws-lc-rs, as in Gatepost".to_owned();
    Peer::new(Kind::Floor, address, None, version, vec![process], site)
}
