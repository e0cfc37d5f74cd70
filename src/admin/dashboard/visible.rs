//! How text gets into a page: as HTML, and with control and invisible characters spelled out, so that
//! a name cannot pass for another one or turn the text around it.

use std::fmt;

use askama::filters::{Escaper, Html};

use crate::store::is_invisible;

/// What askama.toml names for every page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: fmt::Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_spelled_out) {
            let (before, from) = rest.split_at(at);
            Html.write_escaped_str(&mut dest, before)?;
            let mut characters = from.chars();
            if let Some(character) = characters.next() {
                write!(dest, "{}", character.escape_unicode())?;
            }
            rest = characters.as_str();
        }
        Html.write_escaped_str(dest, rest)
    }
}

/// Lines to paste have line ends of their own; elsewhere HTML shows them as spaces.
fn is_spelled_out(character: char) -> bool {
    character != '\n' && is_invisible(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_spelled_out_and_markup_is_text() {
        let mut page = String::new();
        let text = "a\u{202e}<b>\u{200b}&\u{1b}\nz\u{feff}";
        Visible.write_escaped_str(&mut page, text).unwrap();
        assert_eq!(
            page,
            "a\\u{202e}&#60;b&#62;\\u{200b}&#38;\\u{1b}\nz\\u{feff}"
        );
    }
}
