//! Text as a literal of the language that it is pasted into: usernames that were imported may hold
//! anything that means something there.

use std::fmt::Write as _;

use crate::store::is_invisible;

/// As one word of a POSIX shell.
pub(super) fn shell(text: &str) -> String {
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "_./@:+,=%-".contains(c);
    if !text.is_empty() && text.chars().all(is_harmless) {
        return text.to_owned();
    }
    if !text.contains(is_invisible) {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    // Between single quotes there is nothing but the character itself.
    let mut word = String::from("\"$(printf -- '");
    for character in text.chars() {
        match character {
            '%' => word.push_str("%%"),
            '\\' => word.push_str("\\\\"),
            '\'' => word.push_str("\\047"),
            _ if is_invisible(character) => {
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(word, "\\{byte:03o}");
                }
            }
            _ => word.push(character),
        }
    }
    word + "')\""
}

/// As a string of Python.
pub(super) fn python(text: &str) -> String {
    literal(text, "\"\\", |character| match u32::from(character) {
        code @ ..=0xffff => format!("\\u{code:04x}"),
        code => format!("\\U{code:08x}"),
    })
}

/// As a string of JavaScript, which is one of JSON.
pub(super) fn javascript(text: &str) -> String {
    literal(text, "\"\\", |character| {
        let units = character.encode_utf16(&mut [0; 2]).to_vec();
        units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
    })
}

/// As a string of PHP.
pub(super) fn php(text: &str) -> String {
    literal(text, "\"\\$", |character| {
        format!("\\u{{{:x}}}", u32::from(character))
    })
}

/// In double quotes: `special` characters behind a backslash, and what cannot be seen by its number.
fn literal(text: &str, special: &str, by_number: impl Fn(char) -> String) -> String {
    let mut literal = String::from('"');
    for character in text.chars() {
        if is_invisible(character) {
            literal.push_str(&by_number(character));
            continue;
        }
        if special.contains(character) {
            literal.push('\\');
        }
        literal.push(character);
    }
    literal.push('"');
    literal
}

/// As a value in an environment file, the way that shells, systemd and Docker Compose read it; `None`
/// if it cannot be written there.
pub(super) fn environment(text: &str) -> Option<String> {
    if text.contains(is_invisible) {
        return None;
    }
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "_./@:+,=%-".contains(c);
    if text.chars().all(is_harmless) {
        return Some(text.to_owned());
    }
    if !text.contains('\'') {
        return Some(format!("'{text}'"));
    }
    Some(literal(text, "\"\\$`", |_| String::new()))
}

/// As the username of a line `KEY USERNAME:PASSWORD` in a lookup table of Postfix, which knows no
/// quotes; `None` if it cannot be written there.
pub(super) fn postfix(text: &str) -> Option<&str> {
    let is_possible = !text.contains(is_invisible)
        && !text.contains(':')
        && !text.starts_with(char::is_whitespace)
        && !text.is_empty();
    is_possible.then_some(text)
}

/// As the user of a URL.
pub(super) fn url(text: &str) -> String {
    let Ok(encoded) = askama::filters::urlencode_strict(text);
    encoded.to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use std::process::Command;

    use super::*;

    /// Names that mean something in at least one of the languages.
    pub(in crate::admin::dashboard) const HOSTILE: [&str; 16] = [
        "o'brien",
        "a\"b",
        "$(touch /tmp/pwned)",
        "`touch /tmp/pwned`",
        "back\\slash\\",
        "\\n\\x41\\u0041",
        "100% %s %n",
        "two words",
        "--help",
        "-",
        "$HOME ${HOME}",
        "a;b|c&d<e>f#g!h*i?j~k",
        "{{7*7}} {$x} ${x}",
        "ünï 🖨",
        "left\u{202e}right\u{200b}zero\u{feff}'\"%\\",
        "line\u{2028}\u{85}\tend",
    ];

    /// The words that `program` prints for this code, each with a NUL behind it.
    fn said(program: &str, option: &str, code: &str) -> Vec<String> {
        let output = Command::new(program).args([option, code]).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{code}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let words = said.split_terminator('\0').map(str::to_owned);
        words.collect()
    }

    fn all(quoted: fn(&str) -> String, between: &str) -> String {
        HOSTILE.map(quoted).join(between)
    }

    #[test]
    fn every_language_reads_the_name_that_was_written() {
        let code = format!("printf '%s\\0' {}", all(shell, " "));
        assert_eq!(said("sh", "-c", &code), HOSTILE);
        assert_eq!(said("bash", "-c", &code), HOSTILE);
        let names = all(python, ", ");
        let code = format!(
            "import sys\nfor name in [{names}]: sys.stdout.buffer.write(name.encode() + b'\\0')"
        );
        assert_eq!(said("python3", "-c", &code), HOSTILE);
        let names = all(javascript, ", ");
        let code = format!("for (const name of [{names}]) process.stdout.write(name + '\\0')");
        assert_eq!(said("node", "-e", &code), HOSTILE);
        let names: Vec<String> = serde_json::from_str(&format!("[{names}]")).unwrap();
        assert_eq!(names, HOSTILE);
        let possible: Vec<_> = HOSTILE
            .into_iter()
            .filter(|name| environment(name).is_some())
            .collect();
        assert_eq!(possible.len(), HOSTILE.len() - 2);
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = possible
            .iter()
            .enumerate()
            .map(|(number, name)| format!("NAME{number}={}\n", environment(name).unwrap()));
        std::fs::write(file.path(), lines.collect::<String>()).unwrap();
        let names: String = (0..possible.len())
            .map(|number| format!(" \"$NAME{number}\""))
            .collect();
        let code = format!(". {}; printf '%s\\0'{names}", file.path().display());
        assert_eq!(said("sh", "-c", &code), possible);
    }

    #[test]
    fn php_expands_nothing_in_a_name() {
        assert_eq!(php("a$b\"c\\d"), r#""a\$b\"c\\d""#);
        assert_eq!(php("{$x} \u{202e}"), r#""{\$x} \u{202e}""#);
    }

    #[test]
    fn plain_names_stay_as_they_are() {
        assert_eq!(shell("smtp_a"), "smtp_a");
        assert_eq!(python("smtp_a"), "\"smtp_a\"");
        assert_eq!(environment("info@example.org").unwrap(), "info@example.org");
        assert_eq!(postfix("o'brien"), Some("o'brien"));
        for impossible in ["a:b", " a", "a\nb", "a\u{202e}b"] {
            assert_eq!(postfix(impossible), None);
        }
    }
}
