//! Usernames that differ from another one only in case.

use rusqlite::{Connection, OptionalExtension as _};

use super::error::Stop;
use super::{Store, StoreError};

/// The most index lookups for one username. Names that share a beginning in several spellings cost
/// one for each spelling and letter.
const LOOKUPS: usize = 400;

/// A credential whose username differs only in case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OtherCase {
    /// As it is stored.
    pub username: String,
    /// The slug of its organization.
    pub organization: String,
}

impl Store {
    /// Finds for each username a credential that has it, or has it in another case. Meant for
    /// explanations: no login waits for this.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn in_any_case(&self, usernames: &[&str]) -> Result<Vec<Option<OtherCase>>, StoreError> {
        self.read(|connection| {
            let found = usernames.iter().map(|username| find(connection, username));
            found.collect()
        })
    }

    /// Counts usernames with upper-case letters that are not as long as a generated one, and names
    /// one. No login finds them where case is folded.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn with_upper_case(&self) -> Result<Option<(u64, String)>, StoreError> {
        self.read(|connection| {
            let (count, example) = connection.query_row(
                "SELECT count(*), min(username) FROM credentials
                 WHERE username GLOB '*[A-Z]*' AND NOT (username GLOB 'smtp_*' AND length(username) = 21)",
                [],
                |row| Ok((super::count(row, 0)?, row.get::<_, Option<String>>(1)?)),
            )?;
            Ok(example.map(|example| (count, example)))
        })
    }
}

fn find(connection: &Connection, wanted: &str) -> Result<Option<OtherCase>, Stop> {
    let Some(username) = spelling(connection, wanted)? else {
        return Ok(None);
    };
    let mut statement = connection.prepare_cached(
        "SELECT o.slug FROM credentials c JOIN organizations o ON o.key = c.organization
         WHERE c.username = ?1",
    )?;
    let organization = statement.query_row([&username], |row| row.get(0));
    let organization: Option<String> = organization.optional()?;
    Ok(organization.map(|organization| OtherCase {
        username,
        organization,
    }))
}

/// Walks the index letter by letter, in both cases of each, along beginnings that exist. So no index
/// without regard to case is needed, which every change of a username would have to renew.
fn spelling(connection: &Connection, wanted: &str) -> Result<Option<String>, Stop> {
    let mut exact = connection.prepare_cached("SELECT 1 FROM credentials WHERE username = ?1")?;
    if exact.exists([wanted])? {
        return Ok(Some(wanted.to_owned()));
    }
    let mut range = connection.prepare_cached(
        "SELECT username FROM credentials WHERE username >= ?1 AND username < ?2
         ORDER BY username LIMIT 2",
    )?;
    let folded = in_one_case(wanted);
    // A letter may have another length in the other case, so each beginning has its own rest.
    let mut beginnings = vec![(String::new(), wanted)];
    for _ in 0..LOOKUPS {
        let Some((begin, rest)) = beginnings.pop() else {
            return Ok(None);
        };
        let end = format!("{begin}\u{10ffff}");
        let rows = range.query_map([&begin, &end], |row| row.get(0))?;
        let rows: Vec<String> = rows.collect::<Result<_, _>>()?;
        let is_wanted = |row: &&String| in_one_case(row) == folded;
        if let Some(found) = rows.iter().find(is_wanted) {
            return Ok(Some(found.clone()));
        }
        let mut letters = rest.chars();
        let (2.., Some(next)) = (rows.len(), letters.next()) else {
            continue;
        };
        let mut spellings = vec![
            next.to_string(),
            next.to_uppercase().to_string(),
            next.to_lowercase().to_string(),
        ];
        spellings.sort_unstable();
        spellings.dedup();
        let longer = spellings.into_iter();
        beginnings.extend(longer.map(|letter| (format!("{begin}{letter}"), letters.as_str())));
    }
    Ok(None)
}

/// Equal for texts that differ only in case. Only the upper case tells that σ is ς.
fn in_one_case(text: &str) -> String {
    let upper = text.chars().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, named};

    #[test]
    fn a_username_is_found_in_any_case() {
        let store = Fixture::new();
        for username in [
            "v_plain",
            "v_plainer",
            "V_other",
            "Jörg@Example.TEST",
            "smtp_AbCdEfGhIjKlMnOp",
            "smtp_AbCdEfGhIjKlMnOq",
            "SMTP_x",
            "a",
            "A",
            "принтер",
            "ПРИНТЕР-2",
            "ПРИНТЕР-3",
            "ΟΔΥΣΣΕΥΣ",
            "straße",
            "ı",
        ] {
            store.create_credential(named(username)).unwrap();
        }
        let found = |username| {
            let found = store.in_any_case(&[username]).unwrap().remove(0);
            found.map(|found| found.username)
        };
        for (wanted, expected) in [
            ("V_Plain", Some("v_plain")),
            ("v_PLAINER", Some("v_plainer")),
            ("v_OTHER", Some("V_other")),
            ("jörg@example.test", Some("Jörg@Example.TEST")),
            ("smtp_abcdefghijklmnoq", Some("smtp_AbCdEfGhIjKlMnOq")),
            ("Smtp_X", Some("SMTP_x")),
            ("a", Some("a")),
            ("A", Some("A")),
            ("", None),
            ("v_plai", None),
            ("v_plainers", None),
            ("JÖRG@example.test", Some("Jörg@Example.TEST")),
            ("Joerg@example.test", None),
            ("ПРИНТЕР", Some("принтер")),
            ("принтер-2", Some("ПРИНТЕР-2")),
            ("οδυσσευσ", Some("ΟΔΥΣΣΕΥΣ")),
            ("STRASSE", Some("straße")),
            ("i", None),
            ("\u{10ffff}", None),
        ] {
            assert_eq!(found(wanted).as_deref(), expected, "{wanted}");
        }
    }

    #[test]
    fn usernames_with_upper_case_are_counted_without_generated_ones() {
        let store = Fixture::new();
        for username in ["v_plain", "smtp_AbCdEfGhIjKlMnOp", "ü"] {
            store.create_credential(named(username)).unwrap();
        }
        assert_eq!(store.with_upper_case().unwrap(), None);
        for username in ["V_plain", "smtp_A"] {
            store.create_credential(named(username)).unwrap();
        }
        let found = store.with_upper_case().unwrap();
        assert_eq!(found, Some((2, "V_plain".to_owned())));
    }

    #[test]
    fn many_spellings_of_one_name_are_looked_at_up_to_a_bound() {
        let store = Fixture::new();
        for n in 0..512_u32 {
            let letter = |place: u32| match (n >> place) & 1 {
                0 => 'x',
                _ => 'X',
            };
            let username: String = (0..9).map(letter).collect();
            store.create_credential(named(&username)).unwrap();
        }
        let found = store.in_any_case(&["xxxxxxxxxx", "xXxXxXxXx"]).unwrap();
        assert_eq!(found[0], None);
        assert!(found[1].is_some());
    }
}
