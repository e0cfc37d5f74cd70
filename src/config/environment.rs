//! The topmost layer: variables such as `GATEPOST_AUTH__QUEUE`.
//!
//! figment's own provider guesses at types, so that a host name of digits would turn into a number.
//! Here every value stays the text it is, and the key it is meant for decides how to read it.

use std::collections::BTreeMap;
use std::ffi::OsString;

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::error::{ConfigError, Key};

/// How figment's metadata names this layer.
pub(super) const LAYER: &str = "environment";

const PREFIX: &str = "GATEPOST_";

/// The variables that begin with `GATEPOST_`, as nested keys.
pub(super) struct Environment(Dict);

impl Environment {
    /// Takes the variables this process was started with.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub(super) fn of_process() -> Result<Self, ConfigError> {
        Self::from_variables(std::env::vars_os())
    }

    /// Takes the variables given.
    ///
    /// # Errors
    ///
    /// Those that can not be a key at all; whether a key exists is seen with the file's keys.
    pub(super) fn from_variables(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut keys = Dict::new();
        // Sorted, so that a section's own name comes before its keys.
        for (name, value) in BTreeMap::from_iter(variables) {
            let variable = name.to_string_lossy();
            let Some(rest) = variable.strip_prefix(PREFIX) else {
                continue;
            };
            insert(&mut keys, rest, value).map_err(|message| ConfigError::Environment {
                variable: variable.to_string(),
                message,
            })?;
        }
        Ok(Self(keys))
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(LAYER)
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

/// The variable that sets `key`.
pub(super) fn variable(key: &Key) -> String {
    format!("{PREFIX}{}", key.steps().join("__").to_ascii_uppercase())
}

fn insert(keys: &mut Dict, name: &str, value: OsString) -> Result<(), String> {
    if name != name.to_ascii_uppercase() {
        return Err("unknown variable; write its name in capitals".to_owned());
    }
    if name == "CONFIG" {
        return Err("unknown variable; name the file with --config".to_owned());
    }
    if name == "LISTENER" || name.starts_with("LISTENER__") {
        return Err(
            "listeners can not be set from the environment; write [[listener]] in the file"
                .to_owned(),
        );
    }
    let value = value
        .into_string()
        .map_err(|_| "the value is not UTF-8; set it as plain text".to_owned())?;
    let name = name.to_ascii_lowercase();
    let Some((section, key)) = name.split_once("__") else {
        keys.insert(name, Value::from(value));
        return Ok(());
    };
    let entry = keys
        .entry(section.to_owned())
        .or_insert_with(|| Value::from(Dict::new()));
    let Value::Dict(_, section_keys) = entry else {
        return Err(format!(
            "{PREFIX}{} is set as well; unset one of the two",
            section.to_ascii_uppercase()
        ));
    };
    section_keys.insert(key.to_owned(), Value::from(value));
    Ok(())
}
