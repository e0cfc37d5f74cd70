//! HAProxy takes TLS off and passes the client's address on by a PROXY header. The sink looks at the passwords.

use std::fs;

use super::{Kind, Peer, daemon, program, version};
use crate::ports;
use crate::site::Site;

pub fn start(site: &Site) -> Peer {
    let directory = site.room(Kind::Haproxy.name());
    let address = ports::free_address();
    let configuration = format!(
        "global\n\
         \x20 maxconn 8192\n\
         \x20 ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n\
         \x20 mode tcp\n\
         \x20 timeout connect 5s\n\
         \x20 timeout client 300s\n\
         \x20 timeout server 300s\n\
         listen submissions\n\
         \x20 bind {address} ssl crt {}\n\
         \x20 server sink {} send-proxy\n",
        site.path("pair.pem").display(),
        site.sink.address,
    );
    let path = directory.join("haproxy.cfg");
    fs::write(&path, configuration).expect("a configuration");
    let mut command = program("haproxy");
    command.arg("-db").arg("-f").arg(path);
    let process = daemon(command, &directory);
    Peer::new(
        Kind::Haproxy,
        address,
        None,
        version("haproxy", "-v"),
        vec![process],
        site,
    )
}
