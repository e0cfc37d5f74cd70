//! The JSON document of an export.

use std::io::{BufRead, Read as _};

use serde_json::{Map, Value};

use super::ImportError;
use super::csv::{COLUMNS, record};
use super::record::Read;

/// The longest document, in octets; the document is read at once.
const LONGEST: u64 = 128 * 1024 * 1024;

/// Reads the credentials for the organization with this slug.
///
/// # Errors
/// The document cannot be read, or is no export.
pub(super) fn read(input: impl BufRead, slug: &str) -> Result<Vec<Read>, ImportError> {
    let mut text = Vec::new();
    input.take(LONGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(ImportError::File(format!(
            "it has more than {LONGEST} octets; divide it"
        )));
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let not_so = |detail: String| ImportError::File(detail);
    // An error of serde_json may repeat part of a password.
    let list: Vec<Map<String, Value>> = serde_json::from_slice(text).map_err(|error| {
        not_so(format!(
            "it is not a JSON list of objects (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    let records = list.into_iter().map(|object| one(&object, slug));
    records.collect()
}

fn one(object: &Map<String, Value>, slug: &str) -> Result<Read, ImportError> {
    if let Some(unknown) = object.keys().find(|key| !COLUMNS.contains(&key.as_str())) {
        return Err(ImportError::File(format!(
            "the key {unknown:?} is not known; known are {}",
            COLUMNS.join(", ")
        )));
    }
    let cell = |column: usize| {
        let value = object.get(COLUMNS[column]);
        value.and_then(Value::as_str).unwrap_or_default()
    };
    Ok(record(cell, slug))
}
