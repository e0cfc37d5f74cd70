//! Names that people write in any script: one spelling of each, and a form for search and order.

use std::borrow::Cow;

use rusqlite::{Connection, params};
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

/// The composed spelling (NFC). A name that one keyboard composes and another one does not is
/// stored alike.
pub fn composed(text: &str) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfc().collect()),
    }
}

/// The form that search and order compare: without case, accents and width. `STRASSE` equals
/// `Straße`, and all of `I`, `İ`, `ı` and `i` are one letter.
pub(super) fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let plain = text.nfkd().filter(|letter| !is_accent(*letter));
    // Only the upper case tells that ß is SS, and only the lower case that ẞ is ß.
    let lower = plain.flat_map(char::to_lowercase);
    let upper = lower.flat_map(char::to_uppercase);
    let lower = upper.flat_map(char::to_lowercase);
    // An upper-case letter can bring an accent of its own.
    let mut spelled = String::with_capacity(text.len());
    for letter in lower.nfkd().filter(|letter| !is_accent(*letter)) {
        match plain_spelling(letter) {
            Some(plain) => spelled.push_str(plain),
            None => spelled.push(letter),
        }
    }
    composed(&spelled).into_owned()
}

/// The plain spelling of a lower-case letter that Unicode does not decompose: letters with a
/// stroke, and two letters in one.
fn plain_spelling(letter: char) -> Option<&'static str> {
    Some(match letter {
        'æ' => "ae",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ł' => "l",
        'ø' => "o",
        'œ' => "oe",
        'ŧ' => "t",
        'þ' => "th",
        _ => return None,
    })
}

/// Whether a character only adds to the letter before, as far as letters are read without it: the
/// marks of Greek, Latin and Cyrillic. Those of other scripts are vowels, or make another letter.
fn is_accent(character: char) -> bool {
    matches!(
        character,
        '\u{300}'..='\u{36f}'
            | '\u{483}'..='\u{487}'
            | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}'
            | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}

/// How many names one transaction folds at most. A change by another program may have left more.
const FOLDED_AT_ONCE: u32 = 10_000;

/// Writes the key by which a name sorts, for each name with letters beyond ASCII that has none yet.
/// Returns how many it wrote.
pub(super) fn fill_name_keys(transaction: &Connection) -> rusqlite::Result<usize> {
    let mut without = transaction.prepare_cached(
        "SELECT key, name FROM credentials
         WHERE name_key IS NULL AND name GLOB '*[^ -~]*' LIMIT ?1",
    )?;
    let rows = without.query_map([FOLDED_AT_ONCE], |row| {
        // Another program may have written octets that are no UTF-8.
        let name = String::from_utf8_lossy(row.get_ref(1)?.as_bytes()?);
        Ok((row.get(0)?, folded(&name)))
    })?;
    let rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>()?;
    let mut set =
        transaction.prepare_cached("UPDATE credentials SET name_key = ?2 WHERE key = ?1")?;
    for (key, name_key) in &rows {
        set.execute(params![key, name_key])?;
    }
    Ok(rows.len())
}

/// A text to search for.
#[derive(Debug)]
pub(super) struct Needle(String);

impl Needle {
    pub(super) fn new(text: &str) -> Needle {
        Needle(folded(text))
    }

    /// The text in the form that search compares.
    pub(super) fn folded(&self) -> &str {
        &self.0
    }

    /// Whether a username or a name holds the text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        folded(text).contains(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_ignores_case_accents_and_width_in_every_script() {
        for (text, wanted) in [
            ("Принтер Офис", "принтер"),
            ("принтер", "ПРИНТЕР"),
            ("Hauptstraße", "STRASSE"),
            ("HAUPTSTRASSE", "straße"),
            ("GRO\u{1e9e}", "gross"),
            ("İstanbul", "istanbul"),
            ("ISPARTA", "ısparta"),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσεύς"),
            ("Étage 2", "etage"),
            ("e\u{301}tage", "étage"),
            ("Ｐｒｉｎｔｅｒ", "printer"),
            ("ﾌﾟﾘﾝﾀ", "プリンタ"),
            ("ﬁliale", "FILIALE"),
            ("Łódź", "lodz"),
            ("Øresund", "ORESUND"),
            ("Æsir œuvre", "aesir oeuvre"),
            ("Đura, Þór", "dura, thor"),
            ("한국 프린터", "프린터"),
        ] {
            assert!(Needle::new(wanted).is_in(text), "{wanted} in {text}");
        }
        for (text, wanted) in [("कि", "कु"), ("は", "ば"), ("Офис", "office")] {
            assert!(!Needle::new(wanted).is_in(text), "{wanted} in {text}");
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        assert_eq!(composed("e\u{301}tage"), "étage");
        assert_eq!(composed("\u{212b}"), "Å");
        assert!(matches!(composed("étage"), Cow::Borrowed(_)));
        // What only looks alike stays.
        assert_eq!(composed("Ｐ ﬁ"), "Ｐ ﬁ");
    }
}
