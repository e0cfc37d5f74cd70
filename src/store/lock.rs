//! One daemon for a store: a lock on a file beside it, `gatepost.db.lock`.
//!
//! The kernel drops the lock with the process, also at kill -9. The file stays, and says which daemon has the lock and which
//! file that daemon has open. The store's own file is never locked or opened here: closing it would drop SQLite's locks.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::place::FileId;
use super::{StoreError, backup, file, now};

/// How long a start waits for a daemon that is on its way out: the one before a restart, or one that the watchdog killed.
const PATIENCE: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(50);

/// The longest content that is read.
const LONGEST: u64 = 4096;

/// Held by the daemon as long as it lives.
#[derive(Debug)]
pub struct DaemonLock {
    file: File,
    store: PathBuf,
    holder: String,
    was_overwritten: bool,
}

/// Which daemon has the lock.
#[derive(Debug)]
pub struct Holder {
    /// Its process id, host and start, for people. In a container the process id is that of the container.
    pub words: String,
    /// Its process id, where it runs on this host and not in a container.
    pub pid: Option<u32>,
    /// Whether the file at the store's path is the one that the daemon has open; `None` where that is unknown.
    pub is_at_path: Option<bool>,
}

impl DaemonLock {
    /// Takes the lock for the store at `path`, and waits a few seconds for it.
    ///
    /// # Errors
    /// Another daemon keeps it, the lock file cannot be written, or a daemon used the store and its file is gone.
    pub fn take(path: &Path) -> Result<DaemonLock, StoreError> {
        require_not_gone(path)?;
        let begun = Instant::now();
        let file = loop {
            if let Some(file) = try_take(path)? {
                break file;
            }
            if begun.elapsed() > PATIENCE {
                return Err(StoreError::Served {
                    path: path.to_owned(),
                    by: holder(path).map_or_else(|| "unknown".to_owned(), |holder| holder.words),
                });
            }
            thread::sleep(PAUSE);
        };
        let was_overwritten = value(&content(&file), OVERWRITTEN).is_some();
        let lock = DaemonLock {
            file,
            store: path.to_owned(),
            holder: myself(),
            was_overwritten,
        };
        Ok(lock)
    }

    /// Prepares what an earlier process left for [`super::Store::open`]. A write-ahead log beside a file that is not in WAL
    /// mode belongs to a file that was there before: it is set aside, and its new path returned.
    ///
    /// # Errors
    /// It cannot be set aside, or the store was overwritten while in use and is damaged now.
    pub fn prepare(&self) -> Result<Option<PathBuf>, StoreError> {
        let aside = match is_without_log(&self.store) {
            true => set_log_aside(&self.store)?,
            false => None,
        };
        if self.was_overwritten && aside.is_none() {
            super::Store::check_thoroughly(&self.store)?;
        }
        Ok(aside)
    }

    /// Writes down which file the daemon has open.
    ///
    /// # Errors
    /// The lock file cannot be written.
    pub fn record(&self, id: FileId) -> Result<(), StoreError> {
        self.write(&format!("{}{STORE} {id}\n", self.holder))
    }

    /// Writes down that the store was overwritten while it was in use, for the next start.
    pub(super) fn note_overwritten(&self) -> Result<(), StoreError> {
        self.write(&format!("{}{OVERWRITTEN} yes\n", self.holder))
    }

    fn write(&self, text: &str) -> Result<(), StoreError> {
        let written = self
            .file
            .set_len(0)
            .and_then(|()| self.file.write_all_at(text.as_bytes(), 0));
        written.map_err(|error| StoreError::Io {
            path: lock_path(&self.store),
            detail: error.to_string(),
        })
    }
}

const PID: &str = "pid";
const HOST: &str = "host";
const SINCE: &str = "since";
const STORE: &str = "store";
const OVERWRITTEN: &str = "overwritten";

fn myself() -> String {
    let mut text = String::new();
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let since = jiff::Timestamp::from_millisecond(now()).unwrap_or_default();
    // Writing into a String does not fail.
    let _ = writeln!(
        text,
        "{PID} {}\n{HOST} {host}\n{SINCE} {since:.0}",
        std::process::id()
    );
    text
}

/// Refuses a store whose file is gone although a daemon served from it: an empty one in its place would refuse every login.
pub(super) fn require_not_gone(path: &Path) -> Result<(), StoreError> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let lock = lock_path(path);
    let served = File::open(&lock).is_ok_and(|file| value(&content(&file), STORE).is_some());
    match served {
        true => Err(StoreError::Gone {
            path: path.to_owned(),
            lock,
        }),
        false => Ok(()),
    }
}

/// The daemon that serves from the store at `path`, if there is one and this user may ask.
pub(super) fn holder(path: &Path) -> Option<Holder> {
    let file = File::open(lock_path(path)).ok()?;
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => {}
        _ => return None,
    }
    let text = content(&file);
    let part = |key| super::plain(value(&text, key).unwrap_or("unknown"));
    let open = value(&text, STORE).map(str::to_owned);
    let here = rustix::system::uname();
    let is_here = value(&text, HOST) == Some(&*here.nodename().to_string_lossy());
    Some(Holder {
        pid: value(&text, PID)
            .filter(|_| is_here)
            .and_then(|pid| pid.parse().ok()),
        words: format!(
            "process {} on {} since {}",
            part(PID),
            part(HOST),
            part(SINCE)
        ),
        is_at_path: open.map(|open| FileId::of(path).is_ok_and(|id| id.to_string() == open)),
    })
}

/// The locked file; `None` while another process has the lock, or where the file was replaced meanwhile.
pub(super) fn try_take(path: &Path) -> Result<Option<File>, StoreError> {
    let lock = lock_path(path);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(&lock, flags, Mode::RUSR | Mode::WUSR);
    let file = File::from(opened.map_err(|error| file::explain(&lock, error))?);
    let metadata = file.metadata().map_err(|error| failed(&lock, &error))?;
    if !metadata.is_file() || metadata.nlink() > 1 {
        return Err(StoreError::NotAFile { path: lock });
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(failed(&lock, &error.into())),
    }
    file::give_to_owner_of_directory(path, &file);
    let is_still_there = FileId::of(&lock).is_ok_and(|id| id == FileId::from(&metadata));
    Ok(is_still_there.then_some(file))
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        detail: error.to_string(),
    }
}

fn lock_path(store: &Path) -> PathBuf {
    backup::beside(store, ".lock")
}

fn content(mut file: &File) -> String {
    let mut text = Vec::new();
    // An unreadable file says nothing.
    let _ = file.by_ref().take(LONGEST).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// Whether the file is an SQLite database that is not in WAL mode. To be asked before this process opens the store.
fn is_without_log(path: &Path) -> bool {
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    // https://sqlite.org/fileformat.html: 18 and 19 are the write and read version, 2 for WAL.
    read.is_ok() && header.starts_with(b"SQLite format 3\0") && header[18..] == [1, 1]
}

/// Renames the write-ahead log of the store at `path`, where it holds anything, and its index.
pub(super) fn set_log_aside(path: &Path) -> Result<Option<PathBuf>, StoreError> {
    let log = backup::beside(path, "-wal");
    if !fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        return Ok(None);
    }
    let aside = |of: &Path| backup::beside(of, &format!(".stale-{}", now()));
    let index = backup::beside(path, "-shm");
    let kept = aside(&log);
    backup::rename(&log, &kept).map_err(|error| failed(&log, &error))?;
    match backup::rename(&index, &aside(&index)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&index, &error)),
        _ => Ok(Some(kept)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fixture;
    use super::*;

    #[test]
    fn a_lock_is_had_once_and_names_its_holder() {
        let store = Fixture::new();
        let lock = DaemonLock::take(&store.path()).unwrap();
        lock.record(store.id()).unwrap();
        assert!(try_take(&store.path()).unwrap().is_none());
        let holder = holder(&store.path()).unwrap();
        let pid = std::process::id().to_string();
        assert!(holder.words.contains(&pid), "{}", holder.words);
        assert_eq!(holder.is_at_path, Some(true));
        drop(lock);
        assert!(super::holder(&store.path()).is_none());
        DaemonLock::take(&store.path()).unwrap();
    }

    #[test]
    fn a_lock_that_is_released_in_time_is_waited_for() {
        let store = Fixture::new();
        let lock = DaemonLock::take(&store.path()).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| DaemonLock::take(&store.path()));
            thread::sleep(PAUSE * 4);
            assert!(!second.is_finished());
            drop(lock);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_refused() {
        let store = Fixture::new();
        let precious = store.beside("precious");
        fs::write(&precious, "mine").unwrap();
        std::os::unix::fs::symlink(&precious, lock_path(&store.path())).unwrap();
        assert!(DaemonLock::take(&store.path()).is_err());
        fs::remove_file(lock_path(&store.path())).unwrap();
        fs::hard_link(&precious, lock_path(&store.path())).unwrap();
        assert!(DaemonLock::take(&store.path()).is_err());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
    }

    #[test]
    fn a_store_that_is_gone_is_not_made_anew() {
        let store = Fixture::new();
        DaemonLock::take(&store.path())
            .unwrap()
            .record(store.id())
            .unwrap();
        let (path, _directory) = store.close();
        fs::remove_file(&path).unwrap();
        for error in [
            super::super::Store::open(&path).map(drop).unwrap_err(),
            super::super::Store::check(&path).map(drop).unwrap_err(),
            DaemonLock::take(&path).map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Gone { .. }), "{error}");
        }
        assert!(!path.exists());
        fs::remove_file(lock_path(&path)).unwrap();
        super::super::Store::open(&path).unwrap();
    }

    #[test]
    fn the_log_of_another_file_is_set_aside_and_its_own_is_not() {
        let store = Fixture::new();
        let copy = store.beside("backup.db");
        super::super::Store::back_up(&store.path(), &copy).unwrap();
        let log = backup::beside(&store.path(), "-wal");
        let stale = fs::read(&log).unwrap();
        let (path, _directory) = store.close();
        fs::write(&log, &stale).unwrap();
        let lock = DaemonLock::take(&path).unwrap();
        assert_eq!(lock.prepare().unwrap(), None, "a store after kill -9");
        fs::copy(&copy, &path).unwrap();
        let aside = lock.prepare().unwrap().unwrap();
        assert_eq!(fs::read(aside).unwrap(), stale);
        assert!(!log.exists());
    }
}
