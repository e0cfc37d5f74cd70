//! In which form log lines are written, and where to.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{self, PanicHookInfo};
use std::thread;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};
use crate::log::{self, JOURNAL_SOCKET, Output};
use crate::store::is_invisible;

use super::journal::Journal;
use super::output::complain;

/// Logs from here on. A journal that is not there is no reason to keep mail waiting: the lines go
/// to standard error then, and the first of them says so.
///
/// # Errors
/// The system has no thread or no descriptor left.
pub fn start(log: &Log) -> io::Result<()> {
    panic::set_hook(Box::new(log_panic));
    let begun = match log.format.unwrap_or_else(default_format) {
        LogFormat::Journald => match Output::journal() {
            Ok(journal) => {
                log::start(journal)?;
                tracing_subscriber::registry()
                    .with(Journal)
                    .with(filter(log))
                    .try_init()
            }
            Err(error) => {
                let begun = start_text(log)?;
                tracing::warn!(
                    %error,
                    "log.format is \"journald\", but no journal listens at {JOURNAL_SOCKET}; \
                     logging text to standard error instead: start systemd-journald, or set log.format to \"text\""
                );
                begun
            }
        },
        LogFormat::Json => {
            log::start(Output::standard_error()?)?;
            tracing_subscriber::fmt()
                .with_env_filter(filter(log))
                .with_writer(|| Lines { backslash: r"\\" })
                .log_internal_errors(false)
                .json()
                .flatten_event(true)
                .finish()
                .try_init()
        }
        LogFormat::Text => start_text(log)?,
    };
    if let Err(error) = begun {
        complain(&format!("no log: {error}"));
    }
    Ok(())
}

/// The journal gets levels and fields in its own form, and has its own time for each line.
fn default_format() -> LogFormat {
    match stderr_is_the_journal() {
        Some(true) => LogFormat::Journald,
        _ => LogFormat::Text,
    }
}

/// Whether systemd has connected standard error to the journal (systemd.exec(5), JOURNAL_STREAM).
#[expect(
    clippy::disallowed_methods,
    reason = "JOURNAL_STREAM is an interface of systemd's, no setting"
)]
pub(super) fn stderr_is_the_journal() -> Option<bool> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    let file = file.metadata().ok()?;
    Some(stream == format!("{}:{}", file.dev(), file.ino()))
}

fn start_text(log: &Log) -> io::Result<Result<(), TryInitError>> {
    log::start(Output::standard_error()?)?;
    Ok(tracing_subscriber::fmt()
        .with_env_filter(filter(log))
        .with_writer(|| Lines { backslash: r"\" })
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal())
        .finish()
        .try_init())
}

/// The queue of lines, to which the subscriber writes each line at once.
struct Lines {
    /// How the form of the line writes one.
    backslash: &'static str,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match str::from_utf8(line) {
            Ok(text) => log::write(spelled_out(text, self.backslash).as_bytes()),
            Err(_) => log::write(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The text with the characters spelled out that turn the text around them or cannot be seen. The
/// subscriber has escaped control characters of ASCII, and itself writes line ends and colours.
pub(super) fn spelled_out<'a>(text: &'a str, backslash: &str) -> Cow<'a, str> {
    let is_hidden = |character: char| !character.is_ascii() && is_invisible(character);
    if text.is_ascii() || !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_hidden(character) {
            // Without the backslash of the escape, which stands first.
            true => {
                plain.push_str(backslash);
                plain.extend(character.escape_unicode().skip(1));
            }
            false => plain.push(character),
        }
    }
    Cow::Owned(plain)
}

/// The level was parsed with the configuration.
fn filter(log: &Log) -> EnvFilter {
    EnvFilter::new(&log.level)
}

/// Logs a panic like everything else: the standard hook waits for standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let place = panic.location().map(ToString::to_string);
    let place = place.unwrap_or_default();
    tracing::error!(
        thread = thread.name().unwrap_or_default(),
        why = panic.payload_as_str().unwrap_or_default(),
        "panicked at {place}; this is a fault of Gatepost's, please report it"
    );
}
