//! Values that are written as text, each read by a parser of its own.

use std::fmt;
use std::path::PathBuf;

use serde::de::{Deserializer, Error, Visitor};

/// Deserializes text through `parse`, whose error says cause and remedy; `expected` describes the
/// value to whoever wrote something that is not text.
///
/// Enums come this way too: figment lets serde take a number for a variant's index.
pub(super) fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor { expected, parse })
}

/// Deserializes a path that is not empty.
pub(super) fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    parsed(deserializer, "a path", |text| match text {
        "" => Err("the path is empty; name a file".to_owned()),
        _ => Ok(PathBuf::from(text)),
    })
}

/// As [`path`], for a key that may be left out.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    path(deserializer).map(Some)
}

struct TextVisitor<T> {
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}
