//! The language of the source: comments name their subjects, and lines fit the page.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The parts of the project with plain comments. A part that joins the list stays on it.
const PLAIN: &[&str] = &[
    "src/clock",
    "src/daemon",
    "src/dovecot",
    "src/edge",
    "src/lifecycle",
    "src/lib.rs",
    "src/log",
    "src/metrics",
    "src/net",
    "src/policy",
    "src/sasl",
    "src/sessions.rs",
    "src/smtp",
];

const PRONOUNS: &[&str] = &[
    "it",
    "its",
    "that",
    "this",
    "these",
    "those",
    "what",
    "which",
    "who",
    "whoever",
    "whom",
    "whose",
    "one",
    "ones",
    "nobody",
    "somebody",
    "everybody",
    "anybody",
    "they",
    "them",
    "their",
];

/// Pronouns per hundred words.
const MOST_PRONOUNS: usize = 5;

const BANNED: &[&str] = &[
    "whoever",
    "nobody",
    "somebody",
    "everybody",
    "anybody",
    "those who",
];

const MOST_COLUMNS: usize = 100;

/// A shorter doc comment only repeats the name of its item.
const LEAST_DOC_WORDS: usize = 4;

#[test]
fn comments_are_plain() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut offences = Vec::new();
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for part in PLAIN {
        for path in sources(&root.join(part)) {
            let text = fs::read_to_string(&path).expect("read the source");
            let place = path.strip_prefix(root).expect("below the root").display();
            let blocks = Comment::all(&text);
            for block in &blocks {
                let words = block.words();
                let (pronouns, all) = counts.entry(part).or_default();
                *all += words.len();
                *pronouns += words.iter().filter(|word| is_in(PRONOUNS, word)).count();
                let faults = block.faults(&words);
                offences.extend(faults.map(|fault| format!("{place}:{}: {fault}", block.line)));
            }
        }
    }
    for (part, (pronouns, all)) in counts {
        if pronouns * 100 > all * MOST_PRONOUNS {
            offences.push(format!(
                "{part}: {pronouns} pronouns in {all} words of comments, more than {MOST_PRONOUNS} %"
            ));
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn an_offending_comment_is_found() {
    let text = "\
        let a = \"// text\";\n\
        /// Counts.\n\
        struct B; // Whoever calls.\n\
        // Those\n// who wait.\n";
    let faults: Vec<_> = Comment::all(text)
        .iter()
        .flat_map(|block| {
            let faults: Vec<_> = block.faults(&block.words()).collect();
            faults.into_iter().map(move |fault| (block.line, fault))
        })
        .collect();
    let expected = [
        (2, "a doc comment of fewer than 4 words"),
        (3, "says `whoever`"),
        (4, "says `those who`"),
    ];
    assert_eq!(
        faults,
        expected.map(|(line, fault)| (line, fault.to_owned()))
    );
}

/// Consecutive comment lines of a single kind, or the comment behind a line of code.
struct Comment {
    line: usize,
    is_doc: bool,
    lines: Vec<String>,
    columns: usize,
}

impl Comment {
    fn all(text: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let mut open: Option<&str> = None;
        for (number, line) in text.lines().enumerate() {
            let Some((code, comment)) = split(line) else {
                open = None;
                continue;
            };
            let kind = ["///", "//!", "//"]
                .into_iter()
                .find(|kind| comment.starts_with(kind))
                .unwrap_or_default();
            let words = comment[kind.len()..].to_owned();
            let columns = line.chars().count();
            let is_whole_line = code.trim().is_empty();
            match found.last_mut() {
                Some(last) if is_whole_line && open == Some(kind) => {
                    last.lines.push(words);
                    last.columns = last.columns.max(columns);
                }
                _ => found.push(Self {
                    line: number + 1,
                    is_doc: kind != "//",
                    lines: vec![words],
                    columns,
                }),
            }
            open = is_whole_line.then_some(kind);
        }
        found
    }

    /// The words outside code spans, in lower case.
    fn words(&self) -> Vec<String> {
        let text = self.lines.join(" ");
        let prose: String = text.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        prose
            .split(|letter: char| !letter.is_ascii_alphabetic() && letter != '\'')
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect()
    }

    fn faults(&self, words: &[String]) -> impl Iterator<Item = String> {
        let prose = format!(" {} ", words.join(" "));
        let banned = BANNED
            .iter()
            .filter(move |noun| prose.contains(&format!(" {noun} ")));
        let banned = banned.map(|noun| format!("says `{noun}`"));
        // A code span is a word here: `[`name`] in Unix milliseconds` says something.
        let count = self
            .lines
            .iter()
            .flat_map(|line| line.split_whitespace())
            .count();
        let is_short = self.is_doc && count < LEAST_DOC_WORDS;
        let short =
            is_short.then(|| format!("a doc comment of fewer than {LEAST_DOC_WORDS} words"));
        let is_wide = self.columns > MOST_COLUMNS;
        let wide = is_wide.then(|| format!("a comment line of more than {MOST_COLUMNS} columns"));
        banned.chain(short).chain(wide)
    }
}

/// Splits a line before its comment. A `//` behind an open quotation mark is text.
fn split(line: &str) -> Option<(&str, &str)> {
    let at = line
        .match_indices("//")
        .map(|(at, _)| at)
        .find(|&at| line[..at].ends_with(char::is_whitespace) || at == 0)?;
    let (code, comment) = line.split_at(at);
    (code.matches('"').count() % 2 == 0).then_some((code, comment))
}

fn is_in(list: &[&str], word: &str) -> bool {
    list.contains(&word)
}

/// The Rust files of a part, in no particular order.
fn sources(part: &Path) -> Vec<PathBuf> {
    if part.is_file() {
        return vec![part.to_owned()];
    }
    let entries = fs::read_dir(part).expect("read the source");
    entries
        .map(|entry| entry.expect("read the source").path())
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
