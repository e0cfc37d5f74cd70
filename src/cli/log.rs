//! Where log lines go, and in which form.

use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

use super::journal::Journal;

/// Logs from here on. A journal that is not there is no reason to keep mail waiting: the lines go
/// to standard error then, and the first of them says so.
pub fn start(log: &Log) {
    let begun = match log.format {
        LogFormat::Journald => match Journal::connect() {
            Ok(journal) => tracing_subscriber::registry()
                .with(journal)
                .with(filter(log))
                .try_init(),
            Err(error) => {
                let begun = start_text(log);
                tracing::warn!(
                    %error,
                    "log.format is \"journald\", but no journal listens at /run/systemd/journal/socket; \
                     logging text to standard error instead: start systemd-journald, or set log.format to \"text\""
                );
                begun
            }
        },
        LogFormat::Json => tracing_subscriber::fmt()
            .with_env_filter(filter(log))
            .with_writer(|| Lines)
            .json()
            .flatten_event(true)
            .finish()
            .try_init(),
        LogFormat::Text => start_text(log),
    };
    if let Err(error) = begun {
        eprintln!("gatepost: no log: {error}");
    }
}

fn start_text(log: &Log) -> Result<(), TryInitError> {
    tracing_subscriber::fmt()
        .with_env_filter(filter(log))
        .with_writer(|| Lines)
        .with_ansi(io::stderr().is_terminal())
        .finish()
        .try_init()
}

/// Standard error, to which each line goes in one write. The library's own would have sessions on different threads wait for
/// each other's writes.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stderr().as_fd(), line)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The level was parsed with the configuration.
fn filter(log: &Log) -> EnvFilter {
    EnvFilter::new(&log.level)
}
