//! The wall clock of a process, set by libfaketime; the steady clock stays the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A wall clock that the processes which are started with it read.
pub struct WallClock {
    file: PathBuf,
}

impl WallClock {
    /// Shows the right time until it is set.
    pub fn new(file: PathBuf) -> WallClock {
        let clock = WallClock { file };
        clock.ahead_by(0);
        clock
    }

    /// Sets it so many seconds ahead of the machine's, in every process at once.
    pub fn ahead_by(&self, seconds: i64) {
        self.write(&format!("{seconds:+}"));
    }

    /// Sets it to a day and a time of day in UTC, from which it goes on in each process.
    pub fn start_at(&self, time: &str) {
        self.write(&format!("@{time}"));
    }

    fn write(&self, text: &str) {
        let new = self.file.with_extension("new");
        fs::write(&new, text).expect("write the clock");
        fs::rename(&new, &self.file).expect("set the clock");
    }

    /// Has a process read this clock.
    pub fn give(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .env("TZ", "UTC");
        command
    }
}

/// Debian's libfaketime for programs with threads, wherever this architecture has it.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("list /usr/lib");
    let library = Path::new("faketime/libfaketimeMT.so.1");
    let paths = folders.map(|folder| folder.expect("an entry").path().join(library));
    let mut found = paths.filter(|path| path.exists());
    found.next().expect("libfaketime (Debian: faketime)")
}
