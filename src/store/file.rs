//! The store's file as the file system sees it. Its bytes are SQLite's alone: closing any other descriptor of the file
//! would drop the locks that SQLite holds on it in this process, so nothing here ever opens it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, Uid, access, chownat, fchown, mknodat,
};
use rustix::io::Errno;

use super::StoreError;
use super::place::FileId;

/// Makes sure that there is a file at `path`: an empty one, mode 0600, if need be. SQLite takes that for an empty database.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    match mknodat(CWD, path, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0) {
        Ok(()) => {
            if let Ok(owner) = directory(path).metadata() {
                let (uid, gid) = owner_ids(&owner);
                // The name may be a link by now, put there by the owner of the directory.
                let _ = chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            }
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(explain(path, error)),
    }
}

/// The file at `path`.
pub(super) fn id(path: &Path) -> Result<FileId, StoreError> {
    FileId::of(path).map_err(|error| StoreError::Io {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

/// Whether something is at `path`. That its directory is missing is an error: then no store could be made there.
pub(super) fn exists(path: &Path) -> Result<bool, StoreError> {
    let directory = directory(path);
    if !directory.is_dir() {
        return Err(StoreError::MissingDirectory { directory });
    }
    match access(path, Access::EXISTS) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => match access(&directory, Access::WRITE_OK) {
            Ok(()) => Ok(false),
            Err(error) => Err(explain(&directory, error)),
        },
        Err(error) => Err(explain(path, error)),
    }
}

/// What stands in the way, when SQLite only says that it cannot open the file at `path` or one beside it.
pub(super) fn diagnose(path: &Path, error: &rusqlite::Error) -> StoreError {
    let directory = directory(path);
    if !directory.is_dir() {
        return StoreError::MissingDirectory { directory };
    }
    if path.exists() && !path.is_file() {
        return StoreError::NotAFile {
            path: path.to_owned(),
        };
    }
    let wanted = Access::READ_OK | Access::WRITE_OK;
    for place in [path, &directory] {
        if let Err(error) = access(place, wanted) {
            return explain(place, error);
        }
    }
    StoreError::Io {
        path: path.to_owned(),
        detail: error.to_string(),
    }
}

/// The directory that holds the store; SQLite makes its `-wal` and `-shm` files there.
pub(super) fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn explain(path: &Path, error: Errno) -> StoreError {
    let path = path.to_owned();
    match error {
        Errno::ACCESS | Errno::PERM => {
            let refusing = if path.exists() {
                path
            } else {
                directory(&path)
            };
            StoreError::PermissionDenied { path: refusing }
        }
        Errno::DQUOT | Errno::NOSPC => StoreError::Full { path },
        Errno::NOENT | Errno::NOTDIR => StoreError::MissingDirectory {
            directory: directory(&path),
        },
        Errno::ROFS => StoreError::ReadOnly { path },
        other => StoreError::Io {
            path,
            detail: io::Error::from(other).to_string(),
        },
    }
}

/// A store first made by root (`sudo gatepost credential create`) must not lock out the daemon, whose directory it is.
/// SQLite does the same with the files it makes beside it. Other users cannot, and need not; and where root may not do it,
/// the daemon's own "permission denied" names the file.
pub(super) fn give_to_owner_of_directory(path: &Path, file: &File) {
    if let Ok(owner) = directory(path).metadata() {
        let (uid, gid) = owner_ids(&owner);
        let _ = fchown(file, uid, gid);
    }
}

fn owner_ids(owner: &Metadata) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    (Some(uid), Some(gid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_file_is_private_and_belongs_to_the_owner_of_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gatepost.db");
        create(&path).unwrap();
        let (file, parent) = (
            path.metadata().unwrap(),
            directory.path().metadata().unwrap(),
        );
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert_eq!(file.uid(), parent.uid());
    }

    #[test]
    fn an_existing_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        std::fs::write(&path, "shopping").unwrap();
        create(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "shopping");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = create(Path::new("/nonexistent/gatepost.db")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("directory /nonexistent does not exist"),
            "{error}"
        );
    }

    #[test]
    fn a_full_disk_a_read_only_disk_and_a_refusal_are_told_apart() {
        let at = |error| explain(Path::new("/nonexistent/gatepost.db"), error);
        assert!(matches!(at(Errno::NOSPC), StoreError::Full { .. }));
        assert!(matches!(at(Errno::DQUOT), StoreError::Full { .. }));
        assert!(matches!(at(Errno::ROFS), StoreError::ReadOnly { .. }));
        let StoreError::PermissionDenied { path } = at(Errno::ACCESS) else {
            panic!()
        };
        assert_eq!(
            path,
            Path::new("/nonexistent"),
            "the directory refused, not the file"
        );
    }

    #[test]
    fn a_bare_file_name_lies_in_the_working_directory() {
        assert_eq!(directory(Path::new("gatepost.db")), Path::new("."));
    }
}
