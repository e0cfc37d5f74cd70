//! Search in the usernames and names of many credentials. The table `search_blocks` holds the
//! folded text of up to 256 credentials a row, because reading a million rows of `credentials`
//! takes more than a second.

use memchr::memchr_iter;
use memchr::memmem::Finder;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::error::Stop;
use super::text::{Needle, folded};

/// How many blocks one transaction writes at most. A change by another program may have left more.
const BLOCKS_AT_ONCE: u32 = 256;

/// Writes the blocks whose credentials have changed. Returns how many it wrote.
pub(super) fn write_blocks(transaction: &Connection) -> Result<usize, Stop> {
    let mut changed = transaction.prepare_cached(
        "SELECT organization, block FROM search_blocks WHERE text IS NULL LIMIT ?1",
    )?;
    let rows = changed.query_map([BLOCKS_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(i64, i64)> = rows.collect::<Result<_, _>>()?;
    let mut write = transaction.prepare_cached(
        "UPDATE search_blocks SET places = ?3, text = ?4 WHERE organization = ?1 AND block = ?2",
    )?;
    let mut remove = transaction
        .prepare_cached("DELETE FROM search_blocks WHERE organization = ?1 AND block = ?2")?;
    for &(organization, block) in &rows {
        let (places, text) = block_of(transaction, organization, block)?;
        match places.is_empty() {
            true => remove.execute([organization, block])?,
            false => write.execute(params![organization, block, places, text])?,
        };
    }
    Ok(rows.len())
}

/// The keys of all credentials, or of an organization's, whose username or name holds the text,
/// in ascending order.
pub(super) fn keys(
    connection: &Connection,
    organization: Option<i64>,
    needle: &Needle,
) -> Result<Vec<i64>, Stop> {
    let within = match organization {
        Some(_) => "organization = ?1",
        None => "?1 IS NULL",
    };
    let mut blocks = connection.prepare_cached(&format!(
        "SELECT organization, block, places, text FROM search_blocks WHERE {within}"
    ))?;
    let mut rows = blocks.query([organization])?;
    let wanted = needle.folded().replace('\n', " ");
    let finder = Finder::new(&wanted);
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let block: i64 = row.get(1)?;
        match (row.get_ref(2)?, row.get_ref(3)?) {
            (ValueRef::Blob(places), ValueRef::Text(text)) => {
                find(&finder, block, places, text, &mut keys);
            }
            _ => {
                let (places, text) = block_of(connection, row.get(0)?, block)?;
                find(&finder, block, &places, text.as_bytes(), &mut keys);
            }
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// Appends the key of each credential in a block whose lines hold the text.
fn find(finder: &Finder, block: i64, places: &[u8], text: &[u8], keys: &mut Vec<i64>) {
    let (mut line, mut counted, mut latest) = (0, 0, None);
    for at in finder.find_iter(text) {
        line += memchr_iter(b'\n', &text[counted..at]).count();
        counted = at;
        let number = line / 2;
        if latest != Some(number) {
            latest = Some(number);
            keys.extend(
                places
                    .get(number)
                    .map(|place| block << 8 | i64::from(*place)),
            );
        }
    }
}

/// The places and the text of a block, from the credentials themselves.
fn block_of(
    connection: &Connection,
    organization: i64,
    block: i64,
) -> Result<(Vec<u8>, String), Stop> {
    let mut statement = connection.prepare_cached(
        "SELECT key, username, name FROM credentials
         WHERE organization = ?1 AND key BETWEEN ?2 AND ?3 ORDER BY key",
    )?;
    let first = block << 8;
    let mut rows = statement.query([organization, first, first | 0xff])?;
    let (mut places, mut text) = (Vec::new(), String::new());
    while let Some(row) = rows.next()? {
        let [.., place] = row.get::<_, i64>(0)?.to_be_bytes();
        places.push(place);
        for column in [1, 2] {
            text.push_str(&line(row, column)?);
            text.push('\n');
        }
    }
    Ok((places, text))
}

/// A column as a line of a block. Another program may have written anything.
fn line(row: &Row, column: usize) -> Result<String, Stop> {
    let text = match row.get_ref(column)? {
        ValueRef::Text(text) => String::from_utf8_lossy(text),
        _ => return Ok(String::new()),
    };
    Ok(folded(&text).replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};
    use super::*;

    /// The usernames that a search for `text` finds, in an organization or in all.
    fn found(store: &Fixture, organization: Option<&str>, text: &str) -> String {
        let found = store.read(|connection| {
            let organization = match organization {
                Some(slug) => Some(super::super::organizations::key(connection, slug)?),
                None => None,
            };
            let mut usernames = Vec::new();
            for key in keys(connection, organization, &Needle::new(text))? {
                let sql = "SELECT username FROM credentials WHERE key = ?1";
                usernames.push(connection.query_row(sql, [key], |row| row.get::<_, String>(0))?);
            }
            Ok(usernames.join(" "))
        });
        found.unwrap()
    }

    fn unwritten(store: &Fixture) -> i64 {
        store.count("SELECT count(*) FROM search_blocks WHERE text IS NULL")
    }

    #[test]
    fn a_search_finds_every_change_at_once() {
        let store = Fixture::new();
        store.create_organization("acme", None).unwrap();
        for number in 0..600 {
            store
                .create_credential(named(&format!("smtp_{number:03}")))
                .unwrap();
        }
        assert_eq!(
            (unwritten(&store), found(&store, None, "_300")),
            (0, "smtp_300".into())
        );
        store.rename_credential("smtp_300", Some("Büro")).unwrap();
        assert_eq!(found(&store, Some("default"), "BURO"), "smtp_300");
        // What another program does is found before and after Gatepost has written the blocks.
        store.shell(
            "UPDATE credentials SET name = 'Lager' WHERE username = 'smtp_301';
             UPDATE credentials SET organization = 2 WHERE username = 'smtp_302';
             DELETE FROM credentials WHERE username = 'smtp_303'",
        );
        for is_written in [false, true] {
            assert_eq!(unwritten(&store) == 0, is_written);
            assert_eq!(found(&store, None, "lager"), "smtp_301");
            assert_eq!(found(&store, Some("acme"), "smtp"), "smtp_302");
            assert_eq!(found(&store, Some("default"), "smtp_302"), "");
            assert_eq!(found(&store, None, "smtp_303"), "");
            store.rename_credential("smtp_000", Some("x")).unwrap();
        }
        let counts = "SELECT count(*) FROM organizations o WHERE credentials
            <> (SELECT count(*) FROM credentials c WHERE c.organization = o.key)";
        assert_eq!(store.count(counts), 0);
        store.shell("DELETE FROM credentials");
        store.create_organization("other", None).unwrap();
        assert_eq!(store.count("SELECT count(*) FROM search_blocks"), 0);
    }

    #[test]
    fn a_text_lies_within_one_username_or_name() {
        let store = Fixture::new();
        for username in ["smtp_a", "smtp_b"] {
            store.create_credential(named(username)).unwrap();
            store.rename_credential(username, Some("printer")).unwrap();
        }
        for text in ["a\nprinter", "printer\nsmtp", "aprinter"] {
            assert_eq!(found(&store, None, text), "", "{text:?}");
        }
        assert_eq!(found(&store, None, "r"), "smtp_a smtp_b");
    }

    #[test]
    fn octets_that_are_no_text_stop_no_change() {
        let store = Fixture::new();
        store.create_credential(named("smtp_a")).unwrap();
        store.shell("UPDATE credentials SET name = CAST(X'FF41' AS TEXT)");
        store.create_credential(named("smtp_b")).unwrap();
        assert_eq!(found(&store, None, "\u{fffd}a"), "smtp_a");
    }
}
