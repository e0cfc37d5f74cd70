//! Listening sockets that a test holds and hands to a daemon, as systemd does (sd_listen_fds(3)).

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Opens what a `.socket` unit would. The daemon could not open it a second time.
pub fn listen(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).expect("listen for the daemon")
}

/// The same program, started with these sockets as its descriptors 3 and up; what it prints is
/// added to the file `log`. At most three, which is how many a child can be given without unsafe
/// code: as standard input, output and error, that a shell then moves.
pub fn hand_in(command: &Command, log: &Path, sockets: Vec<OwnedFd>) -> Command {
    const MOVE: &str = r#"exec 3<&0 4<&1 5<&2 0</dev/null 1>>"$LOG" 2>&1
        export LISTEN_PID=$$
        exec "$@""#;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", MOVE, "sh"])
        .arg(command.get_program())
        .args(command.get_args())
        .env("LOG", log)
        .env("LISTEN_FDS", sockets.len().to_string());
    let mut places = sockets.into_iter().map(Stdio::from);
    shell.stdin(places.next().unwrap_or_else(Stdio::null));
    shell.stdout(places.next().unwrap_or_else(Stdio::null));
    shell.stderr(places.next().unwrap_or_else(Stdio::null));
    assert!(places.next().is_none(), "three sockets at most");
    shell
}
