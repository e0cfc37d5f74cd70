//! The dashboard on the unix socket: whoever may open that still signs in, because a browser that somebody forwards it to
//! sends what any page tells it to.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::Dashboard;
use crate::support::PATIENCE;

#[test]
fn nobody_is_signed_in_by_the_socket_alone() {
    let folder = tempfile::tempdir().expect("tempdir");
    let socket = folder.path().join("admin.sock");
    let path = socket.to_str().expect("UTF-8");
    let dashboard = Dashboard::start_with(|config| config.text("admin", "socket", path));
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(&socket).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n";
        let sent = match request.starts_with("POST") {
            true => format!("{head}{form}\r\nslug=acme"),
            false => format!("{head}\r\n"),
        };
        stream.write_all(sent.as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let overview = ask("GET /").to_ascii_lowercase();
    assert!(overview.starts_with("http/1.1 303 "), "{overview}");
    assert!(
        overview.contains("\r\nlocation: /sign-in?next=%2f\r\n"),
        "{overview}"
    );
    assert!(ask("GET /sign-in").contains("id=\"token\""));
    let before = dashboard.changes();
    assert!(ask("POST /organizations").starts_with("HTTP/1.1 401 "));
    assert_eq!(dashboard.changes(), before);
}
