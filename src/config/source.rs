//! The layers a configuration is made of, and the place in them where a mistake was written.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use figment::providers::{Format, Serialized, Toml};
use figment::{Figment, Metadata};
use toml_edit::{ImDocument, Item, TableLike, TomlError};

use super::environment::{self, Environment};
use super::error::{ConfigError, Key, Problem};
use super::{Config, DEFAULT_PATH, Hostname, explain};

/// Reads the file at `path`.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |message: String| ConfigError::File {
        path: path.to_owned(),
        message,
    };
    let bytes = fs::read(path).map_err(|error| {
        failed(match error.kind() {
            ErrorKind::NotFound => format!(
                "no such file; gatepost reads {DEFAULT_PATH} unless --config is given; \
                 copy config.toml.example there"
            ),
            ErrorKind::IsADirectory => "is a directory; name the file in it".to_owned(),
            ErrorKind::PermissionDenied => {
                "permission denied; let the user that gatepost runs as read it".to_owned()
            }
            _ => format!("can not be read: {error}"),
        })
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let line = line_at(error.as_bytes(), error.utf8_error().valid_up_to());
        let message = "not UTF-8; save the file as UTF-8".to_owned();
        ConfigError::Line {
            path: path.to_owned(),
            line,
            message,
        }
    })
}

/// All layers put together.
pub(super) struct Sources<'a> {
    path: &'a Path,
    /// The file once more, since figment does not remember lines.
    document: ImDocument<&'a str>,
    layers: Figment,
}

impl<'a> Sources<'a> {
    /// Lays `environment` over the file's `text`, and that over the defaults. Those stand with
    /// their sections, except for the one that the system has to be asked for.
    ///
    /// figment gets the text that was read rather than the file's name: the lines reported are then
    /// those of the values used, even if the file changes meanwhile.
    pub(super) fn new(
        path: &'a Path,
        text: &'a str,
        environment: Environment,
    ) -> Result<Self, ConfigError> {
        let document = ImDocument::parse(text).map_err(|error| syntax_error(path, text, &error))?;
        let mut layers = Figment::new();
        if let Some(name) = Hostname::of_system() {
            layers = layers.merge(Serialized::default("hostname", name.as_str()));
        }
        let layers = layers.merge(Toml::string(text)).merge(environment);
        Ok(Self {
            path,
            document,
            layers,
        })
    }

    /// Turns the layers into their types.
    pub(super) fn extract(&self) -> Result<Config, ConfigError> {
        self.layers.extract().map_err(|error| {
            // A key that is missing is looked for in the file, whoever else wrote into its section.
            let from_environment = !error.missing() && is_environment(error.metadata.as_ref());
            self.place(explain::explain(error), from_environment)
        })
    }

    /// Finds where the value was written that `problem` is about.
    pub(super) fn locate(&self, problem: Problem) -> ConfigError {
        let metadata = self.layers.find_metadata(&problem.key.steps().join("."));
        let from_environment = is_environment(metadata);
        self.place(problem, from_environment)
    }

    fn place(&self, problem: Problem, from_environment: bool) -> ConfigError {
        let Problem { key, message } = problem;
        let message = format!("{key}: {message}");
        if from_environment {
            return ConfigError::Environment {
                variable: environment::variable(&key),
                message,
            };
        }
        let path = self.path.to_owned();
        match self.line_of(&key) {
            Some(line) => ConfigError::Line {
                path,
                line,
                message,
            },
            None => ConfigError::File { path, message },
        }
    }

    /// The line of `key`, or else of the innermost table around it.
    fn line_of(&self, key: &Key) -> Option<usize> {
        let mut table: &dyn TableLike = self.document.as_table();
        let mut span = None;
        let mut steps = key.steps().iter();
        while let Some((name, item)) = steps.next().and_then(|step| table.get_key_value(step)) {
            span = name.span().or(span);
            if let Item::ArrayOfTables(tables) = item {
                let index = steps.next().and_then(|step| step.parse().ok());
                let Some(element) = index.and_then(|index| tables.get(index)) else {
                    break;
                };
                span = element.span().or(span);
                table = element;
            } else if let Some(inner) = item.as_table_like() {
                table = inner;
            } else {
                break;
            }
        }
        span.map(|span| line_at(self.document.raw().as_bytes(), span.start))
    }
}

fn is_environment(metadata: Option<&Metadata>) -> bool {
    metadata.is_some_and(|metadata| metadata.name == environment::LAYER)
}

fn syntax_error(path: &Path, text: &str, error: &TomlError) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    ConfigError::Line {
        path: path.to_owned(),
        line: line_at(text.as_bytes(), start),
        message: format!("not TOML: {}", error.message().trim().replace('\n', "; ")),
    }
}

fn line_at(text: &[u8], offset: usize) -> usize {
    1 + text
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}
