//! Reads a dialog file: what a client says, what it must hear, and what is decided elsewhere.
//! The format is described in `dialogs/README`. Needs nothing of the rest of the suite, so that a
//! unit test of the pure core can be fed from the same files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// One file.
#[derive(Debug)]
pub struct Dialog {
    /// Whether what the client says after the last `tls` may go out as a single write.
    pub pipelinable: bool,
    /// In the order of the file.
    pub steps: Vec<Step>,
}

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `c -> …`: the client's bytes, CRLF included.
    Client(Vec<u8>),
    /// `closed`: the server closes.
    Closed,
    /// `forwarded`: the command before goes upstream; the reply behind is the upstream's.
    Forwarded,
    /// `c <- …`: exactly one line of a reply; `*` stands for anything.
    Line(String),
    /// `c <~ …`: a whole reply of any number of lines whose last line begins so.
    Reply(String),
    /// `tls`: the handshake.
    Tls,
    /// `upstream ok|fail`: how the hand-over ends that the core asks for now.
    Upstream { taken: bool },
    /// `verdict accept|reject|unavailable`: the answer to the verification the core asks for now.
    Verdict(Verdict),
}

/// What the verification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Reject,
    Unavailable,
}

impl Dialog {
    /// Parses `text`, in which `$username` and `$password` become those of a valid credential.
    /// Panics with the line where the file is wrong.
    pub fn parse(text: &str, username: &str, password: &str) -> Dialog {
        let text = text
            .replace("$username", username)
            .replace("$password", password);
        let mut dialog = Dialog {
            pipelinable: false,
            steps: Vec::new(),
        };
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            match line {
                "pipelinable" => dialog.pipelinable = true,
                line => dialog.steps.push(Step::parse(line)),
            }
        }
        dialog
    }

    /// Whether a store must fail on cue, which only the core's test can arrange.
    pub fn is_for_the_core_only(&self) -> bool {
        self.steps.contains(&Step::Verdict(Verdict::Unavailable))
    }
}

impl Step {
    fn parse(line: &str) -> Step {
        match line {
            "closed" => Step::Closed,
            "forwarded" => Step::Forwarded,
            "tls" => Step::Tls,
            "upstream fail" => Step::Upstream { taken: false },
            "upstream ok" => Step::Upstream { taken: true },
            "verdict accept" => Step::Verdict(Verdict::Accept),
            "verdict reject" => Step::Verdict(Verdict::Reject),
            "verdict unavailable" => Step::Verdict(Verdict::Unavailable),
            line => match line.split_at_checked(5) {
                Some(("c -> ", said)) => Step::Client([expand(said), b"\r\n".to_vec()].concat()),
                Some(("c <- ", heard)) => Step::Line(text_of(heard)),
                Some(("c <~ ", heard)) => Step::Reply(heard.to_owned()),
                _ => panic!("not a line of a dialog: {line}"),
            },
        }
    }
}

/// Whether `text` is what `pattern` describes, where `*` stands for anything.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len())
                .filter(|&at| text.is_char_boundary(at))
                .any(|at| matches(rest, &text[at..]))
        }),
    }
}

fn text_of(pattern: &str) -> String {
    String::from_utf8(expand(pattern)).expect("a pattern is text")
}

/// Resolves `\r`, `\n`, `\0` and `\\`, `{base64:TEXT}` and `{repeat:COUNT:TEXT}`.
fn expand(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '{']) {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        if rest[at..].starts_with('{') {
            let end = at + closing(&rest[at..]).expect("a brace that closes");
            bytes.extend(call(&rest[at + 1..end]));
            rest = &rest[end + 1..];
        } else {
            bytes.push(match rest.as_bytes().get(at + 1) {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                other => panic!("unknown escape {other:?} in {text}"),
            });
            rest = &rest[at + 2..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Where the brace that `text` begins with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.find(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        letter == '}' && depth == 0
    })
}

fn call(function: &str) -> Vec<u8> {
    match function.split_once(':') {
        Some(("base64", text)) => STANDARD.encode(expand(text)).into_bytes(),
        Some(("repeat", argument)) => {
            let (count, text) = argument.split_once(':').expect("{repeat:COUNT:TEXT}");
            expand(text).repeat(count.parse().expect("a count"))
        }
        _ => panic!("unknown function {{{function}}}"),
    }
}
