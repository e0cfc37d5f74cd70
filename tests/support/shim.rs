//! A disk that misbehaves on demand: the syncs of the store's files stall, or fail, in one process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::eventually;

/// The trigger files of one process's syncs. The disk works until [`Shim::stall`] or
/// [`Shim::fail`].
pub struct Shim {
    triggers: TempDir,
}

impl Shim {
    pub fn new() -> Shim {
        Shim {
            triggers: tempfile::tempdir().expect("a directory for the triggers"),
        }
    }

    /// The preloaded library, compiled at the first call.
    pub fn build() -> &'static Path {
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        LIBRARY.get_or_init(|| {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/shim.c");
            let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shim.so");
            // Renamed into place: another test process may have the library loaded.
            let fresh = library.with_extension(std::process::id().to_string());
            let built = Command::new("cc")
                .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
                .args([&fresh, &source])
                .arg("-ldl")
                .status();
            assert!(built.expect("run cc").success(), "shim.c is not compiled");
            fs::rename(&fresh, &library).expect("put the shim in place");
            library
        })
    }

    /// The same command, with the syncs of its process under these triggers.
    pub fn preload(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", Shim::build())
            .env("SHIM_TRIGGERS", self.triggers.path());
        command
    }

    /// Every sync of the store's files waits from now on.
    pub fn stall(&self) {
        self.set("stall");
    }

    /// Waits until a sync has begun to wait.
    pub fn wait_until_stalled(&self) {
        let mark = self.triggers.path().join("stalled");
        eventually("a sync stalls", || mark.exists().then_some(()));
    }

    /// Syncs that wait go on, and later ones do not wait.
    pub fn resume(&self) {
        self.unset("stall");
        let _ = fs::remove_file(self.triggers.path().join("stalled"));
    }

    /// Every sync of the store's files fails with EIO from now on.
    pub fn fail(&self) {
        self.set("fail");
    }

    /// Syncs work again.
    pub fn mend(&self) {
        self.unset("fail");
    }

    fn set(&self, trigger: &str) {
        fs::write(self.triggers.path().join(trigger), "").expect("set a trigger");
    }

    fn unset(&self, trigger: &str) {
        let _ = fs::remove_file(self.triggers.path().join(trigger));
    }
}

impl Drop for Shim {
    /// A process that outlives the test by a moment must not wait for ever.
    fn drop(&mut self) {
        self.unset("stall");
    }
}
