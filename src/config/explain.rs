//! Puts figment's errors into words that name the cause and the remedy.

use figment::error::{Actual, Error, Kind};

use super::error::{Key, Problem};

/// Says what `error` means to whoever wrote the configuration.
pub(super) fn explain(error: Error) -> Problem {
    let key = Key::from(error.path);
    let message = match error.kind {
        Kind::MissingField(name) => {
            let key = key.child(&name);
            let message = format!("missing; {}", remedy_for_missing(&key));
            return Problem::new(key, message);
        }
        Kind::UnknownField(name, known) => explain_unknown(&name, known),
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("found {}, but {expected} is needed", describe(&found))
        }
        Kind::Message(message) => message,
        other => other.to_string(),
    };
    Problem::new(key, message)
}

fn explain_unknown(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .min()
        // With more than two slips, or another first letter, a suggestion is a guess.
        .filter(|(distance, candidate)| *distance <= 2 && name.get(..1) == candidate.get(..1));
    let suggestion = match nearest {
        Some((_, candidate)) => format!("did you mean {candidate:?}? "),
        None => String::new(),
    };
    format!(
        "unknown key; {suggestion}known keys here: {}",
        known.join(", ")
    )
}

fn remedy_for_missing(key: &Key) -> String {
    match key.to_string().as_str() {
        "hostname" => {
            "the system's own name is not a domain: write hostname = \"mail.example.org\""
                .to_owned()
        }
        _ => format!(
            "write {} = ... here, as config.toml.example shows",
            key.steps().last().map_or("", String::as_str)
        ),
    }
}

fn describe(found: &Actual) -> String {
    match found {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(number) => number.to_string(),
        Actual::Signed(number) => number.to_string(),
        Actual::Float(number) => number.to_string(),
        Actual::Str(text) => format!("{text:?}"),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// How many characters to insert, delete or replace until `from` reads `to` (Levenshtein).
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.chars().count()]
}
