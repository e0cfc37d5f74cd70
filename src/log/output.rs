//! The log output: standard error, or the journal's socket.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use super::queue::Lines;

/// The journal's socket for structured lines.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// The pause before retrying a non-blocking output; another process may have made a shared terminal
/// or pipe non-blocking.
const PAUSE: Duration = Duration::from_millis(20);

pub enum Output {
    /// A datagram per line, in the journal's format.
    Journal(UnixDatagram),
    Stream(File),
}

impl Output {
    /// Connects to the journal.
    ///
    /// # Errors
    /// No journal is listening.
    pub fn journal() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // The journal ignores an empty datagram.
        socket.send_to(&[], SOCKET)?;
        Ok(Self::Journal(socket))
    }

    /// Opens standard error under a new descriptor, so that no lock is shared with other writers.
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn standard_error() -> io::Result<Self> {
        let descriptor = io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self::Stream(descriptor.into()))
    }

    /// Writes lines, however long the output takes. Returns how many were written.
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

/// Sends to the current journal, which may have restarted.
fn send(socket: &UnixDatagram, line: &[u8]) -> bool {
    loop {
        match socket.send_to(line, SOCKET) {
            Ok(_) => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

/// Writes as much as possible and returns the number of octets written.
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
