//! `[store]`: where credentials are kept.

use std::path::PathBuf;

use serde::Deserialize;

use super::text;

/// The SQLite database.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// The database file; a relative path starts at the working directory.
    #[serde(deserialize_with = "text::path")]
    pub path: PathBuf,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/gatepost/gatepost.db"),
        }
    }
}
