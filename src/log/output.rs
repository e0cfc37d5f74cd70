//! Where lines go: standard error, or the journal's socket.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use super::queue::Lines;

/// Where the journal takes lines in its own form.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// How long an output is left alone that takes nothing now and does not wait either: another
/// process that has the same terminal or pipe may have made it so.
const PAUSE: Duration = Duration::from_millis(20);

/// Where lines go.
pub enum Output {
    /// One datagram for each line, in the journal's own form.
    Journal(UnixDatagram),
    /// Lines of text.
    Stream(File),
}

impl Output {
    /// The journal.
    ///
    /// # Errors
    /// No journal listens.
    pub fn journal() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // The journal ignores an empty datagram.
        socket.send_to(&[], SOCKET)?;
        Ok(Self::Journal(socket))
    }

    /// Standard error, by a descriptor of its own: no lock is shared with anything else that
    /// writes there.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn standard_error() -> io::Result<Self> {
        let descriptor = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self::Stream(descriptor.into()))
    }

    /// Writes lines, for as long as that takes. Returns how many got out.
    pub(super) fn write(&mut self, lines: &Lines) -> usize {
        match self {
            Self::Journal(socket) => {
                let sent = lines.iter().filter(|line| send(socket, line));
                sent.count()
            }
            Self::Stream(stream) => lines.whole(write(stream, lines.bytes())),
        }
    }
}

/// Sends to whichever journal listens now: it may have been restarted.
fn send(socket: &UnixDatagram, line: &[u8]) -> bool {
    loop {
        match socket.send_to(line, SOCKET) {
            Ok(_) => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Writes as much as can be written; how many octets that is.
fn write(stream: &mut File, bytes: &[u8]) -> usize {
    let mut done = 0;
    while done < bytes.len() {
        match stream.write(&bytes[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    done
}
