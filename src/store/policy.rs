//! Limits and rules in their columns: JSON, or NULL where there are none.

use rusqlite::Row;
use rusqlite::types::{FromSqlError, Type};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a column. What cannot be understood is an error, never the same as no limit.
pub(super) fn read<T: DeserializeOwned + Default>(row: &Row, column: usize) -> rusqlite::Result<T> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(T::default()),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
        }),
    }
}

/// What is written into a column.
pub(super) fn written<T: Serialize + Default + PartialEq>(
    value: &T,
) -> Result<Option<String>, rusqlite::Error> {
    if *value == T::default() {
        return Ok(None);
    }
    let text = serde_json::to_string(value).map_err(FromSqlError::other);
    Ok(Some(text?))
}
