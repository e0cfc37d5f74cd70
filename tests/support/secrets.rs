//! Every secret a site hands out, and everything it puts out afterwards: the one must not be found
//! in the other.

use std::path::Path;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::site::Credential;

/// What secrets begin with, and how many letters and digits follow.
const SHAPES: [(&str, usize); 2] = [("sk_", 32), ("gp_", 40)];

/// How usernames look.
const USERNAME: (&str, usize) = ("smtp_", 16);

/// The secrets of one site and what it has put out.
#[derive(Default)]
pub struct Secrets {
    /// Each in every form that it has on the wire, with the one people know.
    known: Mutex<Vec<(String, Vec<String>)>>,
    outputs: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Secrets {
    /// Nothing may show this password, alone or with its username.
    pub fn remember(&self, credential: &Credential) {
        let secret = &credential.password;
        let forms = vec![secret.clone(), STANDARD.encode(secret), credential.plain()];
        let mut known = self.known.lock().unwrap();
        if !known.iter().any(|(_, known)| *known == forms) {
            known.push((secret.clone(), forms));
        }
    }

    /// Notes the secrets in the output of a command that is there to show them once.
    pub fn remember_shown(&self, output: &[u8]) {
        let text = String::from_utf8_lossy(output);
        let username = shaped(&text, USERNAME).next().unwrap_or_default();
        for password in SHAPES.into_iter().flat_map(|shape| shaped(&text, shape)) {
            self.remember(&Credential {
                username: username.to_owned(),
                password: password.to_owned(),
            });
        }
    }

    /// Notes what the site said to the outside, to be searched at its end: secrets handed out later
    /// must not be in it either.
    pub fn note(&self, what: impl Into<String>, output: &[u8]) {
        let output = (what.into(), output.to_vec());
        self.outputs.lock().unwrap().push(output);
    }

    /// Panics where `bytes` betray a secret.
    pub fn assert_none_in(&self, what: &str, bytes: &[u8]) {
        for (secret, forms) in self.known.lock().unwrap().iter() {
            for form in forms {
                let found = memchr::memmem::find(bytes, form.as_bytes());
                assert!(found.is_none(), "{what} shows the secret {secret}");
            }
        }
    }

    /// Searches all that was noted, and every file below `directory`.
    pub fn assert_kept(&self, directory: &Path) {
        for (what, output) in self.outputs.lock().unwrap().iter() {
            self.assert_none_in(what, output);
        }
        let mut folders = vec![directory.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("read the site's directory") {
                let path = entry.expect("read the site's directory").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() {
                    // A journal of SQLite's may go away meanwhile.
                    let bytes = std::fs::read(&path).unwrap_or_default();
                    self.assert_none_in(&path.display().to_string(), &bytes);
                }
            }
        }
    }
}

/// The words in `text` that have this shape.
fn shaped<'a>(text: &'a str, (start, length): (&str, usize)) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(move |(at, start)| {
        let word = &text[at..];
        let rest = &word[start.len()..];
        let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric());
        (end.unwrap_or(rest.len()) == length).then(|| &word[..start.len() + length])
    })
}
