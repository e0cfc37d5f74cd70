//! The triggers that keep the audit log append-only, compared with those that Gatepost makes.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::super::schema::SCHEMA;

/// Which trigger is missing, another or one too many, in words; `None` where all are as they were made.
pub(super) fn fault(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let mut found = triggers(connection)?;
    let reference = Connection::open_in_memory()?;
    reference.execute_batch(SCHEMA)?;
    for (name, made) in triggers(&reference)? {
        match found.remove(&name) {
            None => return Ok(Some(format!("the trigger {name} is missing"))),
            Some(sql) if sql != made => {
                return Ok(Some(format!("the trigger {name} was changed")));
            }
            Some(_) => {}
        }
    }
    let another = found.into_keys().next();
    Ok(another.map(|name| format!("the trigger {name:?} is not one of Gatepost's")))
}

/// The triggers of the log, by name, each with spaces for line ends.
pub(super) fn triggers(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let sql = "SELECT name, sql FROM sqlite_schema
               WHERE type = 'trigger' AND tbl_name IN ('audit_log', 'audit_anchor')";
    let mut statement = connection.prepare(sql)?;
    let row = |row: &rusqlite::Row| {
        let sql: String = row.get(1)?;
        let words: Vec<_> = sql.split_whitespace().collect();
        Ok((row.get(0)?, words.join(" ")))
    };
    statement.query_map([], row)?.collect()
}
