//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// A configuration that can not be used. Its text is one line: the place, the key, cause and remedy.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ConfigError {
    /// A variable is wrong.
    #[error("environment {variable}: {message}")]
    Environment {
        /// The variable's whole name.
        variable: String,
        /// The key, the cause and the remedy.
        message: String,
    },
    /// The file can not be read, or lacks something that has no line.
    #[error("{}: {message}", path.display())]
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The key if there is one, the cause and the remedy.
        message: String,
    },
    /// A line of the file is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file, as it was named.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key, the cause and the remedy.
        message: String,
    },
}

impl ConfigError {
    /// The exit status of every command that meets this error: `EX_CONFIG` of sysexits.h.
    pub const EXIT_CODE: u8 = 78;
}

/// Where a value stands in the tree of keys; steps into a list are its indices.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Key(Vec<String>);

impl Key {
    /// The key reached by `steps` from the root.
    pub(super) fn new<'a>(steps: impl IntoIterator<Item = &'a str>) -> Self {
        Self(steps.into_iter().map(str::to_owned).collect())
    }

    /// The key called `name` inside of this one.
    pub(super) fn child(&self, name: &str) -> Self {
        Self::new(self.0.iter().map(String::as_str).chain([name]))
    }

    /// The steps from the root.
    pub(super) fn steps(&self) -> &[String] {
        &self.0
    }
}

impl From<Vec<String>> for Key {
    fn from(steps: Vec<String>) -> Self {
        Self(steps)
    }
}

impl fmt::Display for Key {
    /// As a reader of the file would say it: `listener[0].kind`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, step) in self.0.iter().enumerate() {
            if depth > 0 && step.parse::<usize>().is_ok() {
                write!(f, "[{step}]")?;
            } else if depth > 0 {
                write!(f, ".{step}")?;
            } else {
                f.write_str(step)?;
            }
        }
        Ok(())
    }
}

/// A mistake whose place in file or environment is still to be found.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) key: Key,
    /// The cause and the remedy.
    pub(super) message: String,
}

impl Problem {
    /// `message` says what is wrong with `key` and what to write instead.
    pub(super) fn new(key: Key, message: impl Into<String>) -> Self {
        Self {
            key,
            message: message.into(),
        }
    }
}
