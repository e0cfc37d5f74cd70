//! Comma-separated values (RFC 4180) with the column names in the first line.

use super::record::{Offered, Read, Record};
use super::time::expiry;

/// All columns. The first two are required; the columns after the fourth belong to an export.
pub(crate) const COLUMNS: [&str; 10] = [
    "username",
    "password",
    "name",
    "expires",
    "organization",
    "status",
    "created",
    "last_used",
    "last_used_from",
    "uses",
];

/// The number of columns for files of other programs.
const FOREIGN: usize = 4;

/// The place of each column in the file.
pub(super) struct Columns {
    places: [Option<usize>; COLUMNS.len()],
    count: usize,
}

/// A quote is not closed; the rest of the line is ambiguous.
#[derive(Debug)]
pub(super) struct Unclosed;

impl Columns {
    /// Reads the first line.
    ///
    /// # Errors
    /// The mistake in the line.
    pub(super) fn read(line: &str) -> Result<Columns, String> {
        let known = || format!("known are {}", COLUMNS[..FOREIGN].join(", "));
        check_separator(line)?;
        let cells = cells(line).map_err(|Unclosed| "a quote is not closed".to_owned())?;
        let mut places = [None; COLUMNS.len()];
        for (place, cell) in cells.iter().enumerate() {
            let name = cell.trim().to_ascii_lowercase();
            let Some(column) = COLUMNS.iter().position(|known| *known == name) else {
                // The first line may be a credential, so the message does not repeat the text.
                return Err(format!(
                    "column {} is not known; the first line names the columns, {}",
                    place + 1,
                    known()
                ));
            };
            if places[column].replace(place).is_some() {
                return Err(format!("the column {name} is there twice"));
            }
        }
        if places[0].is_none() || places[1].is_none() {
            let export = match places[0].is_some() && places[4].is_some() {
                true => "; an export has passwords only with --with-hashes",
                false => "",
            };
            return Err(format!(
                "username and password must be there; {}{export}",
                known()
            ));
        }
        Ok(Columns {
            places,
            count: cells.len(),
        })
    }

    /// Reads a line for the organization with this slug; `None` for an empty line.
    ///
    /// # Errors
    /// A quote is not closed.
    pub(super) fn record(&self, line: &str, slug: &str) -> Result<Option<Read>, Unclosed> {
        if line.trim().is_empty() {
            return Ok(None);
        }
        let cells = cells(line)?;
        if cells.len() != self.count {
            let reason = format!("it has {} columns and not {}", cells.len(), self.count);
            return Ok(Some(Err((None, reason))));
        }
        let is_export = self.places[4].is_some() && self.places[5].is_some();
        let cell = |column: usize| {
            let text = self.places[column].map_or("", |place| cells[place].as_str());
            match is_export {
                true => original(text),
                false => text,
            }
        };
        Ok(Some(record(cell, slug)))
    }
}

/// Joins the cells of [`COLUMNS`] to a record.
pub(super) fn record<'a>(cell: impl Fn(usize) -> &'a str, slug: &str) -> Read {
    let username = cell(0).to_owned();
    let given = |column: usize| Some(cell(column).trim()).filter(|text| !text.is_empty());
    let read = || {
        if let Some(other) = given(4).filter(|other| *other != slug) {
            // Only a slug is repeated: the cell of another file may hold anything.
            return Err(match crate::store::check_slug(other) {
                Ok(()) => {
                    format!("it belongs to the organization {other}: import it with --org {other}")
                }
                Err(_) => "it belongs to another organization".to_owned(),
            });
        }
        if given(5).is_some_and(|status| status != "active") {
            return Err("it is revoked, and would be active here".to_owned());
        }
        Ok(Record {
            username: username.clone(),
            password: Offered::read(cell(1))?,
            name: given(2).map(str::to_owned),
            expires_at: match given(3) {
                Some(text) => expiry(text)?.0,
                None => None,
            },
        })
    };
    let record = read();
    record.map_err(|reason| (Some(username), reason))
}

/// Reverts the export's protection of cells that a spreadsheet would compute.
fn original(text: &str) -> &str {
    text.strip_prefix('\'').unwrap_or(text)
}

/// Spreadsheets of many countries write semicolons, and some programs write tabs.
fn check_separator(line: &str) -> Result<(), String> {
    let separators = [(';', "semicolons"), ('\t', "tabs"), ('|', "vertical bars")];
    let mut used = separators.into_iter();
    match used.find(|(separator, _)| line.contains(*separator)) {
        Some((_, name)) if !line.contains(',') => Err(format!(
            "the columns are separated by {name}: separate them by commas, and put cells that hold a comma into double quotes (spreadsheets: save as CSV with commas)"
        )),
        _ if line.contains('\r') => {
            Err("the lines end with CR alone: end them with LF or CRLF".to_owned())
        }
        _ => Ok(()),
    }
}

fn cells(line: &str) -> Result<Vec<String>, Unclosed> {
    let mut cells = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (cell, behind) = match text.strip_prefix('"') {
            Some(quoted) => quoted_cell(quoted)?,
            None => match text.split_once(',') {
                Some((cell, behind)) => (cell.to_owned(), Some(behind)),
                None => (text.to_owned(), None),
            },
        };
        cells.push(cell);
        rest = behind;
    }
    Ok(cells)
}

/// Two quotes stand for one. Nothing may stand between the closing quote and the comma.
fn quoted_cell(text: &str) -> Result<(String, Option<&str>), Unclosed> {
    let mut cell = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let (before, behind) = rest.split_once('"').ok_or(Unclosed)?;
        cell.push_str(before);
        match behind.chars().next() {
            Some('"') => {
                cell.push('"');
                rest = &behind[1..];
            }
            Some(',') => return Ok((cell, Some(&behind[1..]))),
            None => return Ok((cell, None)),
            Some(_) => return Err(Unclosed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_as_spreadsheets_do() {
        let read = |line| cells(line).ok();
        let of = |cells: &[&str]| Some(cells.iter().map(|cell| (*cell).to_owned()).collect());
        assert_eq!(read("a,b,"), of(&["a", "b", ""]));
        assert_eq!(read("\"a,\"\"b\"\"\",c"), of(&["a,\"b\"", "c"]));
        assert_eq!(read("\"\""), of(&[""]));
        assert_eq!(read("a\"b,c"), of(&["a\"b", "c"]));
        for unclosed in ["\"a", "\"a\"b,c", "a,\""] {
            assert_eq!(read(unclosed), None, "{unclosed}");
        }
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let columns = Columns::read("Name, password,username,expires").unwrap();
        let record = |line| columns.record(line, "default").ok().unwrap().unwrap();
        let full = record("\"Printer, 2nd floor\",{PLAIN}secret,prn@x,2999-01-01")
            .ok()
            .unwrap();
        assert_eq!(full.name.as_deref(), Some("Printer, 2nd floor"));
        assert_eq!(
            (full.username.as_str(), full.expires_at.is_some()),
            ("prn@x", true)
        );
        let bare = record(",{PLAIN}secret,prn@x,").ok().unwrap();
        assert_eq!((bare.name, bare.expires_at), (None, None));
        let (username, reason) = record("x,{PLAIN}secret,prn@x,2001-01-01").err().unwrap();
        assert_eq!(username.as_deref(), Some("prn@x"));
        assert!(reason.contains("is over"), "{reason}");
        let (username, _) = record("{PLAIN}secret,prn@x").err().unwrap();
        assert_eq!(username, None);
        for wrong in [
            "",
            "username",
            "username,password,disabled",
            "username,username,password",
            "\"username",
        ] {
            assert!(Columns::read(wrong).is_err(), "{wrong}");
        }
    }
}
