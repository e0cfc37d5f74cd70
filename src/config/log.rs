//! `[log]`: what is logged, and in which form.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::text;

/// The log, on standard error unless the journal is asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// One line for people, one JSON object for programs, or the journal. `None` for the journal
    /// where standard error is the journal's, else text.
    pub format: Option<LogFormat>,
    /// An [`EnvFilter`] directive that is known to parse.
    #[serde(deserialize_with = "level")]
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: None,
            level: "info".to_owned(),
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// To the systemd journal, with each field by its name.
    Journald,
    /// A JSON object for each line.
    Json,
    /// Text with `key=value` fields.
    Text,
}

impl FromStr for LogFormat {
    /// What is wrong with the text, and what to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "journald" => Ok(Self::Journald),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(format!("unknown value {text:?}; use {FORMATS}")),
        }
    }
}

const FORMATS: &str = "\"text\", \"json\" or \"journald\"";

impl<'de> Deserialize<'de> for LogFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, FORMATS, str::parse)
    }
}

const LEVELS: &str = "\"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\", or target=level, with commas between";

fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::parsed(deserializer, LEVELS, |text| {
        // The filter takes any bare word for a target, so a slip like "inof" would silence the rest.
        let is_known = |directive: &str| {
            directive.contains('=') || directive.trim().parse::<LevelFilter>().is_ok()
        };
        if text.split(',').all(is_known) && EnvFilter::builder().parse(text).is_ok() {
            return Ok(text.to_owned());
        }
        Err(format!("{text:?} is not a level; use {LEVELS}"))
    })
}
