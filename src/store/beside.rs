//! A small file beside the store that survives a restart of Gatepost: how the clocks were related.
//!
//! It is written without a flush to the disk, since it says nothing about another start of the
//! machine.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::file::give_to_owner_of_directory;

/// No record is longer, in bytes.
const LONGEST: u64 = 16_384;

/// Where the record of the store at `path` is.
pub(super) fn record_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-clock");
    name.into()
}

/// The record of the store at `path`; empty if there is none that can be read.
pub(super) fn read(path: &Path) -> String {
    let mut text = String::new();
    let found = open(&record_of(path), OpenOptions::new().read(true));
    match found.and_then(|file| file.take(LONGEST).read_to_string(&mut text)) {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

/// Replaces the record of the store at `path`.
pub(super) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let record = record_of(path);
    let mut name = record.clone().into_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    // What a write that was cut short has left.
    let _ = std::fs::remove_file(&new);
    let mut options = OpenOptions::new();
    let mut file = open(&new, options.write(true).create_new(true).mode(0o600))?;
    file.write_all(text.as_bytes())?;
    give_to_owner_of_directory(&new, &file);
    std::fs::rename(&new, &record)
}

fn open(path: &Path, options: &mut OpenOptions) -> std::io::Result<File> {
    let no_follow = OFlags::NOFOLLOW.bits() as i32;
    options.custom_flags(no_follow).open(path)
}
