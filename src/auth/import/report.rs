//! The report of an import: accepted lines, and skipped lines with reasons.

use std::collections::HashMap;

use serde::Serialize;

use crate::store::plain;

/// The most line numbers in a reason.
const LISTED: usize = 10;

/// The result for each line that is no comment.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The slug of the organization.
    pub(crate) organization: String,
    pub(crate) dry_run: bool,
    /// Lines that became credentials, or would have.
    pub(crate) taken: Vec<Taken>,
    /// Skipped lines.
    pub(crate) left: Vec<Left>,
    /// Usernames in several lines.
    pub(crate) repeated: Vec<Repeated>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Taken {
    /// From 1; in a JSON document the position in the list.
    pub(crate) line: usize,
    /// In its stored form.
    pub(crate) username: String,
    /// The name of the scheme.
    pub(crate) scheme: &'static str,
}

/// A skipped line.
#[derive(Debug, Serialize)]
pub(crate) struct Left {
    /// As in [`Taken`].
    pub(crate) line: usize,
    /// Control characters are escaped; `None` if uncertain.
    pub(crate) username: Option<String>,
    /// For people.
    pub(crate) reason: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Repeated {
    /// In its stored form.
    pub(crate) username: String,
    /// All lines.
    pub(crate) lines: Vec<usize>,
}

impl Left {
    pub(super) fn new(line: usize, username: Option<String>, reason: String) -> Left {
        Left {
            line,
            username: username.as_deref().map(plain),
            reason,
        }
    }
}

/// The lines of each username.
#[derive(Default)]
pub(super) struct Repetitions(HashMap<String, Repetition>);

#[derive(Default)]
struct Repetition {
    lines: Vec<usize>,
    /// The line that counts.
    first: Option<usize>,
    /// Lines that are valid but for the first.
    others: Vec<(usize, String)>,
    /// Whether the spelling differs.
    differs: bool,
}

impl Repetitions {
    /// Notes a line. Returns whether the line is the first valid one for its stored username.
    pub(super) fn add(&mut self, stored: &str, spelled: &str, line: usize, usable: bool) -> bool {
        let own = self.0.entry(stored.to_owned()).or_default();
        own.lines.push(line);
        own.differs |= stored != spelled;
        match (usable, own.first) {
            (true, Some(_)) => own.others.push((line, spelled.to_owned())),
            (true, None) => own.first = Some(line),
            (false, _) => {}
        }
        usable && own.first == Some(line)
    }

    /// Reports usernames in several lines, and skips all lines but one.
    pub(super) fn tell(self, report: &mut Report) {
        let repeated = self.0.into_iter().filter(|(_, own)| own.lines.len() > 1);
        for (username, own) in repeated {
            let same = match own.differs {
                true => "the same username apart from case",
                false => "the same username",
            };
            let first = own.first.unwrap_or_default();
            let reason = format!(
                "lines {} have {same}; only line {first} counts",
                list(&own.lines)
            );
            for (line, spelled) in own.others {
                let left = Left::new(line, Some(spelled), reason.clone());
                report.left.push(left);
            }
            report.repeated.push(Repeated {
                username: plain(&username),
                lines: own.lines,
            });
        }
        report
            .repeated
            .sort_by_key(|repeated| repeated.lines.first().copied());
    }
}

/// "2, 3 and 9".
fn list(lines: &[usize]) -> String {
    let listed = lines.iter().take(LISTED).map(ToString::to_string);
    let mut listed: Vec<_> = listed.collect();
    let last = match lines.len().saturating_sub(LISTED) {
        0 => listed.pop().unwrap_or_default(),
        more => format!("{more} more"),
    };
    format!("{} and {last}", listed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lines_are_listed_in_part() {
        assert_eq!(list(&[2, 3]), "2 and 3");
        assert_eq!(list(&[2, 3, 9]), "2, 3 and 9");
        let many: Vec<_> = (1..=15).collect();
        assert_eq!(list(&many), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 5 more");
    }
}
