//! All that the store holds, so that two moments can be compared.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::Value;

use crate::support::site::Site;

/// What may differ although nothing was changed: the uses of credentials and of tokens, and what the guard learns of networks,
/// are written when there is time.
const NOTED: [&str; 4] = ["last_used", "penalties", "trusted_networks", "usage"];
const NOTED_OF_TOKENS: &str = "last_used_";

/// The rows of each table.
#[derive(Debug, PartialEq)]
pub struct Snapshot(BTreeMap<String, Vec<Vec<Value>>>);

impl Snapshot {
    /// As it is now, to somebody who knows nothing of Gatepost.
    pub fn of(site: &Site) -> Snapshot {
        let connection = Connection::open(site.store()).expect("open the store");
        let tables =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let mut all = BTreeMap::new();
        for table in names(&connection, tables) {
            if NOTED.contains(&table.as_str()) {
                continue;
            }
            let columns = format!("SELECT name FROM pragma_table_info('{table}')");
            let mut columns = names(&connection, &columns);
            columns.retain(|column| !column.starts_with(NOTED_OF_TOKENS));
            let sql = format!("SELECT {} FROM {table} ORDER BY 1", columns.join(", "));
            let mut statement = connection.prepare(&sql).expect("a table");
            let row = |row: &rusqlite::Row| {
                let values = (0..columns.len()).map(|column| row.get(column));
                values.collect::<rusqlite::Result<Vec<Value>>>()
            };
            let rows = statement.query_map([], row).expect("rows");
            all.insert(table, rows.map(|row| row.expect("a row")).collect());
        }
        Snapshot(all)
    }
}

fn names(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).expect("the schema");
    let names = statement.query_map([], |row| row.get(0)).expect("names");
    names.map(|name| name.expect("a name")).collect()
}
