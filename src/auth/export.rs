//! Credentials as CSV and JSON, in the form that [`super::import`] reads.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::store::Credential;

use super::import::COLUMNS;

/// The CSV line with the column names.
pub(crate) fn csv_header(with_hashes: bool) -> String {
    let names = columns(with_hashes).map(str::to_owned);
    line(names)
}

/// The CSV line of a credential.
pub(crate) fn csv_line(credential: &Credential, hash: Option<&str>) -> String {
    let values = values(credential, hash);
    let cells = columns(hash.is_some()).map(|column| match &values[column] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    line(cells)
}

/// An object of the JSON document.
pub(crate) fn json_object(credential: &Credential, hash: Option<&str>) -> Value {
    Value::Object(values(credential, hash))
}

fn columns(with_hashes: bool) -> impl Iterator<Item = &'static str> {
    let columns = COLUMNS.into_iter();
    columns.filter(move |column| with_hashes || *column != "password")
}

/// A value for each of the columns.
fn values(credential: &Credential, hash: Option<&str>) -> Map<String, Value> {
    let used = credential.last_used.as_ref();
    let mut values = Map::new();
    for column in columns(hash.is_some()) {
        let value = match column {
            "username" => json!(credential.username),
            "password" => json!(hash),
            "name" => json!(credential.name),
            "expires" => json!(credential.expires_at.map(time)),
            "organization" => json!(credential.organization),
            "status" => json!(credential.status.as_str()),
            "created" => json!(time(credential.created_at)),
            "last_used" => json!(credential.latest_use().map(time)),
            "last_used_from" => json!(used.map(|used| used.address.as_str())),
            "uses" => json!(used.map_or(0, |used| used.count)),
            _ => Value::Null,
        };
        values.insert(column.to_owned(), value);
    }
    values
}

/// RFC 3339 to the millisecond, in UTC.
fn time(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    format!("{time:.3}")
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<_> = cells.map(|text| cell(&text)).collect();
    format!("{}\r\n", cells.join(","))
}

/// A cell that no spreadsheet computes, quoted where necessary (RFC 4180).
fn cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\'']);
    let mark = if is_formula { "'" } else { "" };
    let needs_quotes = text.contains([',', '"', ';', '\r', '\n', '\t']) || text.trim() != text;
    match needs_quotes {
        true => format!("\"{mark}{}\"", text.replace('"', "\"\"")),
        false => format!("{mark}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_each_is_read_back() {
        for (text, expected) in [
            ("ann", "ann"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("=1+1", "'=1+1"),
            ("+49,1", "\"'+49,1\""),
            ("-x", "'-x"),
            ("@x", "'@x"),
            ("\tx", "\"'\tx\""),
            ("'x", "''x"),
            (" x", "\" x\""),
            ("", ""),
        ] {
            assert_eq!(cell(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_password_is_a_column_only_with_hashes() {
        let header = csv_header(false);
        assert!(!header.contains("password") && header.ends_with("\r\n"));
        assert!(csv_header(true).starts_with("username,password,name,expires,"));
    }
}
