//! What may be stored as a name: slugs and the free names that people give. And how what others chose is shown.

use super::StoreError;
use super::text::composed;

/// The organization that is always there, for whoever needs only one.
pub const DEFAULT_ORGANIZATION: &str = "default";

/// How long a username may be, in octets; SASL has no longer ones.
const LONGEST_USERNAME: usize = 255;

const LONGEST_SLUG: usize = 63;
const LONGEST_NAME: usize = 200;

/// Accepts `[a-z0-9-]{1,63}`.
///
/// # Errors
/// [`StoreError::Invalid`] with what a slug is.
pub fn check_slug(slug: &str) -> Result<(), StoreError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=LONGEST_SLUG).contains(&slug.len()) && slug.bytes().all(allowed) {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "organization {slug:?}: a slug is 1 to {LONGEST_SLUG} lower-case letters, digits and hyphens"
    )))
}

/// Accepts up to 200 characters, none of them a control character: names are printed on terminals and in logs.
///
/// # Errors
/// [`StoreError::Invalid`] with what a name is.
pub fn check_name(name: Option<&str>) -> Result<(), StoreError> {
    let Some(name) = name else { return Ok(()) };
    if composed(name).chars().count() > LONGEST_NAME {
        return Err(StoreError::Invalid(format!(
            "the name is longer than {LONGEST_NAME} characters"
        )));
    }
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(StoreError::Invalid(format!(
            "name {name:?}: a name needs a visible character and has no control characters"
        )));
    }
    Ok(())
}

/// Accepts what clients can send and people can read: up to 255 octets without control characters, and no space at either
/// end. The spelling is up to whoever chose it.
///
/// # Errors
/// [`StoreError::Invalid`] with what a username is.
pub fn check_username(username: &str) -> Result<(), StoreError> {
    let is_plain = !username.is_empty() && plain(username) == username;
    if is_plain && username.trim() == username && username.len() <= LONGEST_USERNAME {
        return Ok(());
    }
    Err(StoreError::Invalid(format!(
        "a username has 1 to {LONGEST_USERNAME} octets, no control characters, and no space at its ends"
    )))
}

/// Text that clients or other people chose, safe to show: control and invisible characters are
/// spelled out.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if is_invisible(character) {
            plain.extend(character.escape_unicode());
        } else {
            plain.push(character);
        }
    }
    plain
}

/// A name in an answer for people: as [`plain`] has it, and in quotes where blanks at its ends would
/// be overlooked.
pub fn shown(name: &str) -> String {
    let text = plain(name);
    match name.is_empty() || name.trim() != name {
        true => format!("\"{text}\""),
        false => text,
    }
}

/// Whether a character commands a terminal, turns the text around it, or cannot be seen, so that two
/// names look alike. Variation selectors stay: they choose how the character before them looks.
pub fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_text_cannot_command_the_terminal() {
        assert_eq!(plain("\u{1b}[2Jhi\u{202e}"), "\\u{1b}[2Jhi\\u{202e}");
        assert_eq!(plain("Büro \u{1f5a8}\u{fe0f}"), "Büro \u{1f5a8}\u{fe0f}");
        assert_eq!(
            plain("a\u{200b}b\u{2060}\u{feff}"),
            "a\\u{200b}b\\u{2060}\\u{feff}"
        );
    }

    #[test]
    fn slugs_are_short_and_plain() {
        for good in ["a", "default", "acme-2", &"x".repeat(63)] {
            assert!(check_slug(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "Acme",
            "acme corp",
            "acme_corp",
            "äcme",
            "a/b",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(check_slug(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn usernames_keep_their_spelling_within_bounds() {
        for good in [
            "smtp_a",
            "Info@Example.TEST",
            "jürgen",
            "a b",
            &"x".repeat(255),
        ] {
            assert!(check_username(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " a",
            "a ",
            "a\tb",
            "a\u{202e}b",
            "a\0",
            &"ü".repeat(128),
        ] {
            assert!(check_username(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_bounded_and_printable() {
        for good in [
            None,
            Some("Drucker im Büro"),
            Some("\u{1f5a8}"),
            Some(&*"ü".repeat(200)),
        ] {
            assert!(check_name(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "  ",
            "two\nlines",
            "\u{1b}[2J",
            "nul\0",
            &"x".repeat(201),
        ] {
            assert!(check_name(Some(bad)).is_err(), "{bad:?}");
        }
    }
}
