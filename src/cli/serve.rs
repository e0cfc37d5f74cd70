//! `gatepost serve`: the daemon.

use std::io::{self, IsTerminal as _};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Log, LogFormat};
use crate::daemon::Daemon;

use super::CliError;

/// Threads that may wait for SQLite at a time; the store has fewer connections than this.
const BLOCKING_THREADS: usize = 16;

/// Serves until SIGTERM.
pub fn run(config: &Config) -> Result<(), CliError> {
    start_log(&config.log);
    limits();
    if config.admin.is_some() {
        tracing::warn!("[admin] is configured, but this version does not serve it yet");
    }
    runtime()?.block_on(async {
        let daemon = Daemon::new(config)?;
        daemon.run(std::future::pending()).await?;
        Ok(())
    })
}

/// No core dump, since passwords are in memory for a moment; and as many connections as the
/// system allows. Under systemd the unit has said so already, and may forbid asking.
fn limits() {
    let core = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, core);
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            ..files
        },
    );
}

/// The runtime that everything serves on.
pub fn runtime() -> Result<Runtime, io::Error> {
    Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
}

/// Logs to standard error from here on.
pub fn start_log(log: &Log) {
    // The level was parsed with the configuration.
    let filter = EnvFilter::new(&log.level);
    let writer = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let begun = match log.format {
        LogFormat::Json => writer.json().flatten_event(true).try_init(),
        LogFormat::Text => writer.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    if let Err(error) = begun {
        eprintln!("gatepost: no log: {error}");
    }
}
