//! The command line: what may be typed, and what a failure exits with. One file a subcommand.

mod actor;
mod audit;
mod bulk;
mod check;
mod containment;
mod credential;
mod demo;
mod doctor;
mod explain;
mod export;
mod generate;
mod guard;
mod healthcheck;
mod import;
mod journal;
mod log;
mod organization;
mod output;
mod progress;
mod refusals;
mod remote;
mod running;
mod serve;
mod sessions;
mod setup;
mod store;
mod time;
mod token;

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use crate::auth::issue::IssueError;
use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::daemon::{self, DaemonError, Sockets};
use crate::store::{Fault, Store, StoreError};

use self::remote::Remote;
use self::running::Running;

/// The gate in front of Postfix: TLS, SMTP AUTH against its own credentials, hand-over by XCLIENT
#[derive(Debug, Parser)]
#[command(name = "gatepost", version = env!("PROGRAM_VERSION"), arg_required_else_help = true)]
struct Arguments {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See who changed what, verify the log, shorten it
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Copy the store to a new file, also while Gatepost runs
    Backup {
        /// The file to write; it must not exist
        file: PathBuf,
    },
    /// Check configuration, certificate, store and upstream, without serving
    Check,
    /// Make, list, rotate, revoke, expire and delete credentials
    #[command(subcommand)]
    Credential(credential::CredentialCommand),
    /// Try it out: everything temporary, on this machine alone
    Demo {
        /// Send one message through it, show every step, and exit
        #[arg(long)]
        send: bool,
    },
    /// Go through the running system as a mail program would, and say what to mend and how
    #[command(after_help = doctor::AFTER_HELP)]
    Doctor(doctor::DoctorOptions),
    /// Say what would become of a login, and why, without its password
    Explain(explain::ExplainOptions),
    /// Write credentials as CSV or JSON
    #[command(after_help = export::AFTER_HELP)]
    Export(export::ExportOptions),
    /// Write man pages, completions for the shells and the pages of the reference
    #[command(hide = true)]
    Generate {
        /// The directory to write into
        directory: PathBuf,
    },
    /// See which networks failed logins came from, and have that forgotten
    #[command(subcommand)]
    Guard(guard::GuardCommand),
    /// Say in one line whether mail gets through; exit 0 if it does, else 1
    Healthcheck,
    /// Take over credentials from a Dovecot passwd-file, from CSV or from an export
    #[command(after_help = import::AFTER_HELP)]
    Import(import::ImportOptions),
    /// Make, list, rename, suspend and delete organizations
    #[command(subcommand)]
    Organization(organization::OrganizationCommand),
    /// See why logins were refused
    #[command(subcommand)]
    Refusals(refusals::RefusalsCommand),
    /// Put a backup in place of the store, while Gatepost is stopped
    Restore {
        /// What `gatepost backup` wrote
        file: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Serve until SIGTERM; SIGHUP loads the certificate again
    Serve,
    /// See who is logged in now, and end that
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// Put Gatepost in front of this machine's Postfix, or take that back
    #[command(after_help = setup::AFTER_HELP)]
    Setup(setup::SetupOptions),
    /// Check the store thoroughly
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Make, list and revoke the tokens of the administration
    #[command(subcommand)]
    Token(token::TokenCommand),
}

/// How long a start that fails lasts at least where the service manager holds the sockets. It would
/// start Gatepost at once again for a client that waits, and give up after a few starts.
const SHORTEST_FAILURE: Duration = Duration::from_secs(2);

/// Runs the command line. A failure goes to standard error and into the exit code.
pub fn main() -> ExitCode {
    let start = Instant::now();
    let is_held = Sockets::are_handed_in();
    let outcome = match Arguments::try_parse() {
        Ok(arguments) => run(arguments).map(|()| 0),
        Err(usage) => output::print_usage(&usage),
    };
    let code = outcome.unwrap_or_else(|error| {
        if !matches!(error, CliError::Closed) {
            output::complain(&error.to_string());
        }
        if is_held {
            thread::sleep(SHORTEST_FAILURE.saturating_sub(start.elapsed()));
        }
        error.exit_code()
    });
    ExitCode::from(code)
}

/// Carries out what was typed.
///
/// # Errors
/// With the code to exit with, and words that name the thing, the cause and the next step.
fn run(arguments: Arguments) -> Result<(), CliError> {
    let path = arguments.config;
    match arguments.command {
        Command::Audit(command) => {
            let config = Config::load(&path)?;
            let store = Store::open(&config.store.path)?;
            audit::run(command, &store, &actor::of_process())
        }
        Command::Backup { file } => store::back_up(&Config::load(&path)?.store.path, &file),
        Command::Check => check::run(&path),
        Command::Credential(command) => match reach(path)? {
            Reach::Store(opened, running) => {
                let (config, store) = *opened;
                let cost = daemon::cost(&config);
                credential::run(command, &store, cost, &actor::of_process(), &running)
            }
            Reach::Daemon(remote) => remote.credential(command),
        },
        Command::Demo { send } => demo::run(send),
        Command::Doctor(options) => doctor::run(&options, &path),
        Command::Explain(options) => {
            let config = Config::load(&path)?;
            let running = Running::of(&config, path);
            explain::run(&options, &config, &running)
        }
        Command::Export(options) => {
            let config = Config::load(&path)?;
            let store = Store::open(&config.store.path)?;
            export::run(&options, &store, &actor::of_process())
        }
        Command::Generate { directory } => generate::run(&directory),
        Command::Guard(command) => {
            let config = Config::load(&path)?;
            guard::run(
                command,
                &Running::of(&config, path),
                &Store::open(&config.store.path)?,
                &actor::of_process(),
            )
        }
        Command::Healthcheck => healthcheck::run(path),
        Command::Import(options) => {
            let config = Config::load(&path)?;
            let store = Store::open(&config.store.path)?;
            import::run(
                &options,
                &store,
                daemon::cost(&config),
                config.auth.username_case.folds(),
                &actor::of_process(),
                &Running::of(&config, path),
            )
        }
        Command::Organization(command) => match reach(path)? {
            Reach::Store(opened, running) => {
                organization::run(command, &opened.1, &actor::of_process(), &running)
            }
            Reach::Daemon(remote) => remote.organization(command),
        },
        Command::Refusals(command) => {
            let config = Config::load(&path)?;
            let store = Store::open(&config.store.path)?;
            refusals::run(command, &store, &Running::of(&config, path))
        }
        Command::Restore { file, yes } => {
            let config = Config::load(&path)?;
            store::restore(&config.store.path, &file, yes, &actor::of_process())
        }
        Command::Serve => serve::run(&Config::load(&path)?),
        Command::Sessions(command) => {
            let running = match readable(&path)? {
                Ok(config) => Running::of(&config, path),
                Err(_) => Running::unread(path),
            };
            sessions::run(command, &running)
        }
        Command::Setup(options) => setup::run(&options),
        Command::Store(command) => store::run(command, &Config::load(&path)?.store.path),
        Command::Token(command) => match reach(path)? {
            Reach::Store(opened, running) => {
                token::run(command, &opened.1, &actor::of_process(), &running)
            }
            Reach::Daemon(remote) => remote.token(command),
        },
    }
}

/// The way to the credentials.
enum Reach {
    /// This user may open the store.
    Store(Box<(Config, Store)>, Running),
    /// Only the running Gatepost may.
    Daemon(Remote),
}

/// The configuration at `path`, or the error that this user may not read it.
fn readable(path: &Path) -> Result<Result<Config, CliError>, CliError> {
    let error = match Config::load(path) {
        Ok(config) => return Ok(Ok(config)),
        Err(error) => error.into(),
    };
    match File::open(path) {
        Err(opening) if opening.kind() == ErrorKind::PermissionDenied => Ok(Err(error)),
        _ => Err(error),
    }
}

/// Finds the way to the credentials of the configuration at `path`.
fn reach(path: PathBuf) -> Result<Reach, CliError> {
    let config = match readable(&path)? {
        Ok(config) => config,
        Err(denied) => return Ok(Reach::Daemon(Remote::new(Running::unread(path), denied))),
    };
    let opened = Store::open(&config.store.path);
    let running = Running::of(&config, path);
    match opened {
        Ok(store) => Ok(Reach::Store(Box::new((config, store)), running)),
        Err(error @ StoreError::PermissionDenied { .. }) => {
            Ok(Reach::Daemon(Remote::new(running, error.into())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Carries out another command of this program in this process.
///
/// # Errors
/// As [`run`].
fn invoke(words: &[&str]) -> Result<(), CliError> {
    let words = std::iter::once("gatepost").chain(words.iter().copied());
    let arguments = Arguments::try_parse_from(words);
    run(arguments.map_err(|error| CliError::Refused(error.to_string()))?)
}

/// Why a command failed; each variant is an exit code (sysexits.h, where it has one).
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// 141: the reader of standard output is gone, as behind `| head`. A program that the system
    /// ends for that has the same code, and has no more to say.
    #[error("the reader of standard output is gone")]
    Closed,
    /// 78: the configuration, or what it names, cannot be used.
    #[error("{0}")]
    Config(String),
    /// 74: the system did not do what it was asked.
    #[error("{0}")]
    Io(String),
    /// 1: refused, or not found.
    #[error("{0}")]
    Refused(String),
}

impl CliError {
    /// What the process exits with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Closed => 141,
            Self::Config(_) => ConfigError::EXIT_CODE,
            Self::Io(_) => 74,
            Self::Refused(_) => 1,
        }
    }
}

impl CliError {
    /// The error of a secret that could not be printed. It is not silent even where the reader is
    /// gone: `unshown` names the new object and the next step.
    fn of_a_secret(self, unshown: &str) -> Self {
        Self::Io(format!("{unshown} ({self})"))
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match error.fault() {
            Fault::Configuration => Self::Config(error.to_string()),
            Fault::Machine => Self::Io(error.to_string()),
            Fault::Request => Self::Refused(error.to_string()),
        }
    }
}

impl From<IssueError> for CliError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Hash(error) => Self::Config(error.to_string()),
            IssueError::Store(error) => error.into(),
        }
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        match error {
            DaemonError::Store(error) => error.into(),
            DaemonError::Group { .. }
            | DaemonError::Incomplete
            | DaemonError::Exposed { .. }
            | DaemonError::NoListener
            | DaemonError::Tls(_)
            | DaemonError::Upstream(_)
            | DaemonError::Passed { .. }
            | DaemonError::Unconfigured { .. } => Self::Config(error.to_string()),
            DaemonError::Bind { .. } | DaemonError::Metrics(_) | DaemonError::System(_) => {
                Self::Io(error.to_string())
            }
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}
