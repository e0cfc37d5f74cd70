//! nginx's mail proxy. Whether a password is right it asks a backend that costs next to nothing, and that is not counted.

use std::fs;

use super::{Kind, Peer, daemon, program, version};
use crate::ports;
use crate::site::Site;

/// How it is set up.
pub enum Setting {
    /// As Debian has it.
    Default,
    /// Larger buffers, ready for bulk.
    Tuned,
}

pub fn start(site: &Site, setting: Setting) -> Peer {
    let (kind, tuning) = match setting {
        Setting::Default => (Kind::Nginx, ""),
        Setting::Tuned => (
            Kind::NginxTuned,
            "  proxy_buffer 16k;\n  ssl_session_tickets off;\n",
        ),
    };
    let directory = site.room(kind.name());
    let [starttls, implicit] = std::array::from_fn(|_| ports::free_address());
    let configuration = format!(
        "load_module /usr/lib/nginx/modules/ngx_mail_module.so;\n\
         daemon off;\n\
         worker_processes auto;\n\
         pid nginx.pid;\n\
         error_log error.log;\n\
         worker_rlimit_nofile 20000;\n\
         events {{ worker_connections 16384; }}\n\
         mail {{\n\
         \x20 server_name mail.example.test;\n\
         \x20 auth_http {}/;\n\
         \x20 smtp_auth plain login;\n\
         \x20 smtp_capabilities PIPELINING \"SIZE 52428800\" 8BITMIME ENHANCEDSTATUSCODES;\n\
         \x20 ssl_certificate {};\n\
         \x20 ssl_certificate_key {};\n\
         \x20 ssl_protocols TLSv1.2 TLSv1.3;\n\
         {tuning}\
         \x20 server {{ listen {implicit} ssl backlog=4096; protocol smtp; }}\n\
         \x20 server {{ listen {starttls} backlog=4096; protocol smtp; starttls on; }}\n\
         }}\n",
        site.backend,
        site.path("certificate.pem").display(),
        site.path("key.pem").display(),
    );
    let path = directory.join("nginx.conf");
    fs::write(&path, configuration).expect("a configuration");
    let mut command = program("nginx");
    command
        .arg("-p")
        .arg(&directory)
        .arg("-e")
        .arg(directory.join("error.log"))
        .arg("-c")
        .arg(path);
    let process = daemon(command, &directory);
    Peer::new(
        kind,
        implicit,
        Some(starttls),
        version("nginx", "-v"),
        vec![process],
        site,
    )
}
