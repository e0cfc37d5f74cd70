//! What can go wrong with the store, each fault with the thing, the cause and the next step.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;
use thiserror::Error;

use super::{Placement, file};

/// A refused or failed operation on the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The name is taken.
    #[error("there is already {kind} {name:?}: choose another name")]
    AlreadyExists {
        /// What it would have been.
        kind: Kind,
        /// Its username or slug.
        name: String,
    },
    /// The audit log is not what was recorded.
    #[error(
        "store {}: the audit log is broken at record {seq}: {what}; compare with a backup to see what was changed",
        path.display()
    )]
    AuditBroken {
        /// The store.
        path: PathBuf,
        /// The first record that is wrong or missing.
        seq: i64,
        /// What is wrong.
        what: String,
    },
    /// The audit log can be changed, or could be for a while.
    #[error(
        "store {}: the audit log is not protected: {what}; its records may have been changed: compare with a backup or a \
         kept head, find out which program did it, then make the trigger again as schema.sql has it",
        path.display()
    )]
    AuditUnguarded {
        /// The store.
        path: PathBuf,
        /// Which trigger is not as it was made.
        what: String,
    },
    /// Another process holds the write lock for longer than the busy timeout.
    #[error(
        "store {}: another process keeps it locked; let it finish (an open sqlite3 transaction?) and try again",
        path.display()
    )]
    Busy {
        /// The store.
        path: PathBuf,
    },
    /// The thing is not any more what the change was meant for.
    #[error(
        "{kind} {name:?} was changed by somebody else in the meantime: read it again and decide anew"
    )]
    Changed {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// SQLite or a row in it makes no sense.
    #[error(
        "store {}: the file is damaged ({detail}); stop Gatepost and restore it from a backup",
        path.display()
    )]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file that is open is not the one at the store's path.
    #[error("store {}: {placement}", path.display())]
    Displaced {
        /// The store.
        path: PathBuf,
        /// Where the open file is.
        placement: Placement,
    },
    /// An SQLite database with somebody else's tables in it.
    #[error(
        "store {}: this database belongs to another program; it was left as it is, point store.path to another file",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// No space left, or the quota is used up.
    #[error(
        "store {}: the disk is full; free some space and try again, nothing was changed",
        path.display()
    )]
    Full {
        /// The store.
        path: PathBuf,
    },
    /// A daemon served from the store, and its file is not there.
    #[error(
        "store {}: its file is gone, although Gatepost served from it; an empty one would refuse every login: put a backup in \
         its place (gatepost restore FILE), or remove {} to begin with an empty store",
        path.display(),
        lock.display()
    )]
    Gone {
        /// The store.
        path: PathBuf,
        /// The file that says so.
        lock: PathBuf,
    },
    /// Another process has the store open.
    #[error("store {} is in use: stop Gatepost first (systemctl stop gatepost.service gatepost.socket)", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// The caller's value cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// The operating system or SQLite failed. After a commit the outcome is unknown until the store is opened again.
    #[error("store {}: {detail}; check the disk and the system log", path.display())]
    Io {
        /// The store.
        path: PathBuf,
        /// The cause as SQLite or the system tells it.
        detail: String,
    },
    /// The directory that should hold the store is not there.
    #[error(
        "store directory {} does not exist: create it, owned by the user that runs Gatepost, or correct store.path",
        directory.display()
    )]
    MissingDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// The store was written by a newer Gatepost.
    #[error(
        "store {}: its schema version is {found}, this Gatepost knows up to {known}; it was left as it is, \
         run the newer Gatepost or restore a backup made before the upgrade",
        path.display()
    )]
    NewerSchema {
        /// The store.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version this build understands.
        known: i64,
    },
    /// Some other kind of file.
    #[error(
        "store {}: the file is not an SQLite database; it was left as it is, point store.path to another file",
        path.display()
    )]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A directory, device or socket.
    #[error("store {} is not a regular file: point store.path to a file", path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// The organization still has credentials.
    #[error(
        "organization {slug:?} still has {credentials} credential(s): delete them first, or with it by --force"
    )]
    NotEmpty {
        /// The organization.
        slug: String,
        /// How many credentials it has.
        credentials: u64,
    },
    /// There is nothing of that name.
    #[error("there is no {kind} {name:?}: `gatepost {kind} list` shows those there are")]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// The username or slug.
        name: String,
    },
    /// The key of a request that is carried out once came with another request.
    #[error(
        "this Idempotency-Key was used for another request, and nothing was changed: repeat that one as it was, or take a new key"
    )]
    KeyReused,
    /// A request that is carried out once was made twice.
    #[error("this request was already carried out: it made {made}")]
    Repeated {
        /// The id of what was made.
        made: String,
        /// What that is, if it is still there.
        found: Option<Made>,
    },
    /// A deleted organization had this slug, and the audit log still tells of it.
    #[error(
        "organization {slug:?} was deleted, and the audit log still has its records: take another slug"
    )]
    SlugUsed {
        /// The slug.
        slug: String,
    },
    /// Reading took longer than the caller allowed.
    #[error("this takes too long to find: ask for less")]
    TooMuch,
    /// The token by which a change was asked for was revoked, or expired, before the change was made.
    #[error("the token is not valid any more, and nothing was changed")]
    TokenInvalid,
    /// The SQLite library can damage a database in WAL mode that several connections write.
    #[error(
        "SQLite {found} is too old, its WAL can lose data: build Gatepost with 3.51.3 or newer"
    )]
    OldLibrary {
        /// The library's version.
        found: &'static str,
    },
    /// The file or its directory may not be used by this user.
    #[error(
        "store: permission denied for {}: run as the user that owns it, or correct its owner and mode",
        path.display()
    )]
    PermissionDenied {
        /// The file or directory that refused.
        path: PathBuf,
    },
    /// `default` must stay.
    #[error("organization {slug:?} cannot be deleted: it holds the credentials made without --org")]
    Protected {
        /// The organization.
        slug: String,
    },
    /// Another daemon serves from the store.
    #[error(
        "store {}: another Gatepost serves from it ({by}); two would let through twice the limits: stop the other one, or give \
         each a store.path of its own",
        path.display()
    )]
    Served {
        /// The store.
        path: PathBuf,
        /// Which one it is.
        by: String,
    },
    /// The file, its directory or its file system cannot be written.
    #[error(
        "store {}: the file or its directory is read-only; make both writable for the user that runs Gatepost",
        path.display()
    )]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },
}

/// What a name names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A credential, by username.
    Credential,
    /// An organization, by slug.
    Organization,
    /// An admin token, by name or id.
    Token,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Credential => "credential",
            Kind::Organization => "organization",
            Kind::Token => "token",
        })
    }
}

/// Something that was made once, as it is found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Made {
    /// A credential.
    Credential {
        /// The slug of its organization.
        organization: String,
        /// Its username.
        username: String,
    },
    /// An organization, by its slug.
    Organization(String),
    /// An admin token, which is found by its id.
    Token,
}

/// Who has to act on a [`StoreError`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Who set up Gatepost: the configured path or the build is wrong. Exit code 78.
    Configuration,
    /// Who looks after the machine: disk, permissions, locks. Exit code 74.
    Machine,
    /// Who asked: the request was refused or names nothing. Exit code 1.
    Request,
}

impl StoreError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::AlreadyExists { .. }
            | Self::Changed { .. }
            | Self::InUse { .. }
            | Self::Invalid(_)
            | Self::KeyReused
            | Self::NotEmpty { .. }
            | Self::NotFound { .. }
            | Self::Repeated { .. }
            | Self::SlugUsed { .. }
            | Self::TokenInvalid
            | Self::TooMuch
            | Self::Protected { .. } => Fault::Request,
            Self::Foreign { .. }
            | Self::Gone { .. }
            | Self::MissingDirectory { .. }
            | Self::NewerSchema { .. }
            | Self::NotADatabase { .. }
            | Self::NotAFile { .. }
            | Self::OldLibrary { .. } => Fault::Configuration,
            Self::AuditBroken { .. }
            | Self::AuditUnguarded { .. }
            | Self::Busy { .. }
            | Self::Corrupt { .. }
            | Self::Displaced { .. }
            | Self::Full { .. }
            | Self::Io { .. }
            | Self::PermissionDenied { .. }
            | Self::ReadOnly { .. }
            | Self::Served { .. } => Fault::Machine,
        }
    }

    pub(super) fn already_exists(kind: Kind, name: &str) -> StoreError {
        let name = name.to_owned();
        StoreError::AlreadyExists { kind, name }
    }

    /// There is nothing of that name.
    pub fn not_found(kind: Kind, name: &str) -> StoreError {
        let name = name.to_owned();
        StoreError::NotFound { kind, name }
    }

    /// Says what SQLite's complaint about the store at `path` means.
    pub(super) fn from_sqlite(path: &Path, error: rusqlite::Error) -> StoreError {
        let path_buf = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                file::diagnose(path, &error)
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Busy { path: path_buf }
            }
            Some(ErrorCode::DiskFull) => Self::Full { path: path_buf },
            Some(ErrorCode::OperationInterrupted) => Self::TooMuch,
            Some(ErrorCode::NotADatabase) => Self::NotADatabase { path: path_buf },
            Some(ErrorCode::ReadOnly) => Self::ReadOnly { path: path_buf },
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt {
                path: path_buf,
                detail: error.to_string(),
            },
            Some(_) => Self::Io {
                path: path_buf,
                detail: error.to_string(),
            },
            // The library answered, but with a value that the schema rules out.
            None => Self::Corrupt {
                path: path_buf,
                detail: error.to_string(),
            },
        }
    }
}

/// Why work on a connection stopped: told by SQLite, which does not know the path, or decided by us.
#[derive(Debug)]
pub(super) enum Stop {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl Stop {
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            Stop::Sqlite(error) => StoreError::from_sqlite(path, error),
            Stop::Store(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Stop {
        Stop::Sqlite(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Stop {
        Stop::Store(error)
    }
}
