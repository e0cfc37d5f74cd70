//! What nginx asks whether a password is right: the least HTTP server that can say so. One thread, and not counted as
//! part of nginx.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::site::Credential;

/// Starts it. It ends with the process.
pub fn start(
    address: SocketAddr,
    upstream: SocketAddr,
    credentials: &[Credential],
) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    let passwords: HashMap<String, String> = credentials
        .iter()
        .map(|credential| (credential.username.clone(), credential.password.clone()))
        .collect();
    let accepted = format!(
        "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: {}\r\nAuth-Port: {}\r\n\r\n",
        upstream.ip(),
        upstream.port()
    );
    let passwords = Arc::new(passwords);
    std::thread::Builder::new()
        .name("backend".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever goes away unanswered asks again.
                let _ = answer(stream, &passwords, &accepted);
            }
        })?;
    Ok(())
}

fn answer(
    mut stream: TcpStream,
    passwords: &HashMap<String, String>,
    accepted: &str,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 2048];
    let mut length = 0;
    while memchr::memmem::find(&request[..length], b"\r\n\r\n").is_none() {
        match stream.read(&mut request[length..])? {
            0 => return Ok(()),
            read => length += read,
        }
    }
    let text = String::from_utf8_lossy(&request[..length]);
    let header = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name))
    };
    let username = header("Auth-User: ").unwrap_or_default();
    let password = header("Auth-Pass: ").unwrap_or_default();
    let right = passwords
        .get(username)
        .is_some_and(|right| right == password);
    if right {
        stream.write_all(accepted.as_bytes())
    } else {
        stream.write_all(
            b"HTTP/1.0 200 OK\r\nAuth-Status: Invalid login or password\r\nAuth-Wait: 1\r\n\r\n",
        )
    }
}
