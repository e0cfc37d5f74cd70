//! Plays the files of `dialogs/` to the built binary: whole, byte by byte, and at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::client::Client;
use crate::support::dialog::{Dialog, Step, matches};
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::{Config, Credential};
use crate::support::upstream::Upstream;

/// Makes a test of each file, so that a failure names it.
macro_rules! dialogs {
    ($($name:ident),* $(,)?) => {
        const PLAYED: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { play(stringify!($name)); })*
    };
}

dialogs! {
    answered_by_the_gate,
    auth_authzid_of_another,
    auth_authzid_of_oneself,
    auth_bad_base64,
    auth_before_tls,
    auth_cancelled,
    auth_login,
    auth_login_initial_response,
    auth_long_password,
    auth_malformed_plain,
    auth_over_long_response,
    auth_plain_challenge,
    auth_plain_initial_response,
    auth_refused,
    auth_twice,
    auth_unknown_mechanism,
    auth_upstream_down,
    bare_newline_in_command,
    ehlo_argument,
    errors_before_a_message,
    forbidden_commands,
    mail_before_auth,
    malformed_recipients,
    nul_in_command,
    over_long_line,
    pipelined_behind_auth,
    pipelined_behind_refused_auth,
    quit,
    starttls,
    starttls_argument,
    too_many_errors,
    too_many_malformed_recipients,
    too_many_refusals,
    unknown_command,
}

#[test]
fn every_dialog_is_played() {
    let names: BTreeSet<_> = files()
        .into_iter()
        .filter(|name| !read(name, "", "").is_for_the_core_only())
        .collect();
    let played = PLAYED.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(
        names, played,
        "the list in tests/dialogs.rs and the files differ"
    );
}

/// How a client's bytes are cut into writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
    Commands,
    Bytes,
    Everything,
}

fn play(name: &str) {
    let upstream = Upstream::start();
    let nobody = ports::free_address();
    let refuses = read(name, "", "")
        .steps
        .contains(&Step::Upstream { taken: false });
    let address = if refuses { nobody } else { upstream.address };
    let gatepost = Gatepost::start(Config::for_upstream(address));
    let Credential { username, password } = gatepost.create();
    let dialog = read(name, &username, &password);
    for manner in [Manner::Commands, Manner::Bytes, Manner::Everything] {
        if manner != Manner::Everything || dialog.pipelinable {
            eprintln!("--- {name}: {manner:?}");
            converse(&gatepost, &dialog, manner);
        }
    }
}

fn converse(gatepost: &Gatepost, dialog: &Dialog, manner: Manner) {
    let first = &dialog.steps[0];
    let server = if *first == Step::Tls {
        gatepost.submissions
    } else {
        gatepost.submission
    };
    let mut client = Client::dial(server).expect("connect");
    let last_tls = dialog
        .steps
        .iter()
        .rposition(|step| *step == Step::Tls)
        .unwrap_or(0);
    let mut all_said = false;
    for (at, step) in dialog.steps.iter().enumerate() {
        eprintln!("{step:?}");
        match step {
            Step::Client(bytes) if manner == Manner::Bytes => {
                bytes.chunks(1).for_each(|byte| client.write(byte));
            }
            Step::Client(_) if manner == Manner::Everything && at > last_tls => {
                if !std::mem::replace(&mut all_said, true) {
                    client.write(&all_said_from(&dialog.steps[at..]));
                }
            }
            Step::Client(bytes) => client.write(bytes),
            Step::Closed => client.expect_close(),
            Step::Line(pattern) => {
                let line = client
                    .line()
                    .unwrap_or_else(|| panic!("closed before {pattern:?}"));
                assert!(
                    matches(pattern, &line),
                    "expected {pattern:?}, got {line:?}"
                );
            }
            Step::Reply(start) => drop(client.reply().expect(start)),
            Step::Tls => client = client.over_tls(),
            // Decided by the real verification and the real hand-over here.
            Step::Forwarded | Step::Upstream { .. } | Step::Verdict(_) => {}
        }
    }
}

pub fn all_said_from(steps: &[Step]) -> Vec<u8> {
    let said = steps.iter().filter_map(|step| match step {
        Step::Client(bytes) => Some(bytes.as_slice()),
        _ => None,
    });
    said.collect::<Vec<_>>().concat()
}

pub fn read(name: &str, username: &str, password: &str) -> Dialog {
    let file = directory().join(name).with_extension("txt");
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    Dialog::parse(&text, username, password)
}

/// The name of every dialog.
pub fn files() -> Vec<String> {
    let files = std::fs::read_dir(directory()).expect("the dialogs");
    files
        .map(|file| file.expect("a dialog").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs")
}
