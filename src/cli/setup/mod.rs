//! `gatepost setup`: puts Gatepost in front of this machine's Postfix, or behind it, and takes that
//! back.
//!
//! `machine` reads the facts, the questions below turn them into answers, `plan` computes each file
//! and edit, and `apply` carries the plan out or takes it back.

mod apply;
mod machine;
mod plan;
mod postfix;

use std::fs;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;

use self::apply::Contents;
use self::machine::{Logins, Machine, holder, pair_in};
use self::plan::{Answers, DIRECTORY, Mode, Plan, by_hand};
use super::output::{print, shown};
use super::running::{Answer, Running};
use super::{CliError, actor, credential, doctor, invoke};
use crate::auth::issue::{New, issue};
use crate::config::{Config, DEFAULT_PATH, Hostname};
use crate::daemon;
use crate::net::certificates::{Certificate, Pair};
use crate::store::{DEFAULT_ORGANIZATION, Store};

/// The time that a program of Postfix's or systemd's has.
const PATIENCE: Duration = Duration::from_secs(60);

/// The text below `--help`.
pub const AFTER_HELP: &str = "\
Asks at most four questions, each with the answer that setup found; --yes takes those answers, passwords that cannot be \
imported end then. A second run changes nothing. Setup takes its changes back by itself if doctor finds a problem \
afterwards. It refuses a machine that it does not understand, and says what to do by hand.";

/// How to set Gatepost up.
#[derive(Args, Debug)]
pub struct SetupOptions {
    /// The name that mail programs connect to [default: myhostname of Postfix]
    #[arg(long, value_name = "NAME")]
    hostname: Option<Hostname>,
    /// Who listens on 587 and 465 [default: front]
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<Mode>,
    /// A directory of certbot's, "kept" for the pair in /etc/gatepost, "postfix" for Postfix's own,
    /// or "self-signed" [default: the first of these that names the host]
    #[arg(long, value_name = "CERTIFICATE")]
    certificate: Option<String>,
    /// The Dovecot passwd-file with today's users, or "none" [default: the file that Dovecot reads]
    #[arg(long, value_name = "FILE")]
    import: Option<String>,
    /// Take the answers that setup found, without asking
    #[arg(long)]
    yes: bool,
    /// Print every change, and make none
    #[arg(long, conflicts_with = "undo")]
    dry_run: bool,
    /// Take setup back: master.cf as before, units stopped; the store stays
    #[arg(long)]
    undo: bool,
}

/// Sets Gatepost up, or takes that back.
///
/// # Errors
/// The machine is not understood, a question is not answered, or a step failed; a first setup is
/// taken back then.
pub fn run(options: &SetupOptions) -> Result<(), CliError> {
    let machine = Machine::read()?;
    if options.undo {
        apply::undo(&machine.postfix)?;
        return print(
            "Postfix is as it was before setup, and Gatepost is stopped.\nThe store stays in /var/lib/gatepost, the configuration is /etc/gatepost/config.toml.undone.",
        );
    }
    let (answers, choice, import) = Questions::new(options)?.ask(&machine)?;
    let plan = Plan::new(&machine.postfix, &answers)?;
    machine.require_ready(answers.mode)?;
    require_unchanged(&plan)?;
    let master = machine.postfix.edited(&plan.edits)?;
    let now = fs::read_to_string(machine.postfix.file("master.cf")?)?;
    let pair = choice.as_ref().map(|choice| choice.contents(&answers));
    let pair = pair.transpose()?.flatten();
    let is_in_place = apply::is_in_place(&plan, pair.as_ref(), master == now);
    if is_in_place {
        print("Gatepost is set up already, nothing is to be changed.")?;
    } else {
        show(&machine, &plan, &master, choice.as_ref())?;
        preview(import.as_deref())?;
    }
    if options.dry_run {
        return print("Nothing was changed.");
    }
    let is_first = !apply::is_done();
    let mut done = match is_in_place {
        true => Ok(()),
        false => apply::apply(&plan, &machine.postfix, &master, pair.as_ref()),
    };
    if let Some(file) = import.filter(|_| done.is_ok()) {
        let file = file.to_string_lossy();
        done = invoke(&["import", "--format", "dovecot", &file]);
    }
    match done.and_then(|()| invoke(&["doctor"])) {
        Ok(()) if is_first => hand_over(&answers),
        Ok(()) => Ok(()),
        Err(error) if is_first => Err(taken_back(&machine, &error)),
        Err(error) => Err(CliError::Refused(format!(
            "{error}\nto take setup back: gatepost setup --undo"
        ))),
    }
}

/// Takes a first setup back that failed.
fn taken_back(machine: &Machine, cause: &CliError) -> CliError {
    match apply::undo(&machine.postfix) {
        Ok(()) => CliError::Refused(format!(
            "{cause}\nSetup took its changes back: Postfix is as it was before. Mend the cause and run setup again."
        )),
        Err(error) => CliError::Io(format!(
            "{cause}\nTaking the changes back failed, too: {error}\nThe files as they were before are in /etc/gatepost/before-setup."
        )),
    }
}

/// Refuses to replace a file that is not setup's.
fn require_unchanged(plan: &Plan) -> Result<(), CliError> {
    for file in &plan.files {
        let path = file.path.display();
        if fs::read(&file.path).is_ok_and(|text| text != file.text.as_bytes()) {
            return Err(CliError::Refused(match apply::is_done() {
                true => format!(
                    "{path} is not as setup would write it now, and setup replaces no file. Change it by hand and run gatepost doctor; or begin anew: gatepost setup --undo"
                ),
                false => format!(
                    "{path} is there already, and setup replaces no file. Move it away and run setup again, or go on by hand and run gatepost doctor"
                ),
            }));
        }
    }
    Ok(())
}

/// Prints the plan: new files, the difference in `master.cf`, and notes.
fn show(
    machine: &Machine,
    plan: &Plan,
    master: &str,
    choice: Option<&Choice>,
) -> Result<(), CliError> {
    for file in plan.files.iter().filter(|file| !file.path.exists()) {
        let (path, text) = (file.path.display(), indented(&file.text));
        match text.lines().count() > 20 {
            true => print(&format!("Writes {path}."))?,
            false => print(&format!("Writes {path}:\n{text}"))?,
        }
    }
    if let Some(choice) = choice {
        print(&format!("Certificate: {}", choice.words()))?;
    }
    let path = machine.postfix.file("master.cf")?;
    let difference = difference(&path, master)?;
    if !difference.is_empty() {
        print(&format!(
            "Changes in {}:\n{}",
            path.display(),
            indented(&difference)
        ))?;
    }
    for note in &plan.notes {
        print(&format!("Note: {note}"))?;
    }
    if let Logins::Elsewhere(source) = &machine.logins {
        print(&format!(
            "Note: today's passwords, from {source}, cannot be imported and end. Each user needs a credential: gatepost credential create"
        ))?;
    }
    for (port, purpose) in [(8587, "the dashboard"), (9587, "the metrics")] {
        if let Some(holder) = holder(port).filter(|holder| holder != "systemd") {
            print(&format!(
                "Note: port {port} of {purpose} is taken by {holder}. Mail flows without it; gatepost doctor says how to move it."
            ))?;
        }
    }
    Ok(())
}

/// The unified difference between a file and a new text.
fn difference(path: &Path, text: &str) -> Result<String, CliError> {
    let mut copy = tempfile::NamedTempFile::new()?;
    copy.write_all(text.as_bytes())?;
    let name = path.display();
    let mut diff = Command::new("diff");
    diff.args(["-u", &format!("--label={name}"), &format!("--label={name}")])
        .args([path, copy.path()])
        .stdin(Stdio::null());
    let output = diff
        .output()
        .map_err(|error| CliError::Io(format!("diff: {error}")))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("    {line}")).collect();
    lines.join("\n")
}

/// Shows the outcome of an import, on an empty store of its own.
fn preview(import: Option<&Path>) -> Result<(), CliError> {
    let Some(file) = import else { return Ok(()) };
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("config.toml");
    let store = directory.path().join("store.db");
    fs::write(
        &config,
        format!(
            "hostname = \"localhost\"\n[store]\npath = \"{}\"\n",
            store.display()
        ),
    )?;
    print(&format!("Imports {}:", file.display()))?;
    let (config, file) = (config.to_string_lossy(), file.to_string_lossy());
    invoke(&[
        "--config",
        &config,
        "import",
        "--dry-run",
        "--format",
        "dovecot",
        &file,
    ])
}

/// Makes the first credential and token, and prints the next steps.
fn hand_over(answers: &Answers) -> Result<(), CliError> {
    let path = Path::new(DEFAULT_PATH);
    let config = Config::load(path)?;
    let store = Store::open(&config.store.path)?;
    let actor = actor::of_process();
    let new = New {
        organization: DEFAULT_ORGANIZATION,
        name: Some("First credential"),
        expires_at: None,
        limits: None,
        rules: None,
    };
    let issued = issue(&store, store.by(&actor), daemon::cost(&config), new)?;
    let username = &issued.credential.username;
    let text = format!("\n{}", credential::created(&issued, false)?);
    // Generated from ASCII in `auth::issue`.
    let password = str::from_utf8(issued.password.expose()).unwrap_or_default();
    let host = &answers.hostname;
    let text = format!(
        "{text}\n\nSend a message with it (apt install swaks):\n  swaks --server {host}:587 --tls --auth PLAIN --auth-user {username} --auth-password {password} --from you@example.org --to you@example.org\n"
    );
    Answer::from(text)
        .shows_a_secret(format!(
            "{} was created, but its password could not be shown: gatepost credential rotate {username}",
            shown(username)
        ))
        .print_and_tell(&Running::of(&config, path.to_owned()))?;
    let name = ["--name", "First token", "--scope", "instance:admin"];
    invoke(&[&["token", "create"][..], &name].concat())?;
    print(&format!(
        "\nDashboard, where that token signs in: http://127.0.0.1:8587/ (from elsewhere: ssh -L 8587:127.0.0.1:8587 {host})\nTo take everything back: gatepost setup --undo"
    ))
}

/// The certificate that clients see.
enum Choice {
    /// The pair that is in Gatepost's directory already.
    Kept,
    /// A directory of certbot's.
    Lineage(PathBuf),
    /// Postfix's own, copied once.
    Postfix(Pair),
    /// A self-signed certificate, for trying.
    SelfSigned,
}

impl Choice {
    /// The contents of its files, unless they are in place.
    fn contents(&self, answers: &Answers) -> Result<Option<Contents>, CliError> {
        Ok(Some(match self {
            Choice::Kept => return Ok(None),
            Choice::Lineage(directory) => Contents::read(&pair_in(directory))?,
            Choice::Postfix(pair) => Contents::read(pair)?,
            Choice::SelfSigned => Contents::self_signed(&answers.hostname)?,
        }))
    }

    fn words(&self) -> String {
        match self {
            Choice::Kept => format!("the one in {DIRECTORY}"),
            Choice::Lineage(directory) => format!(
                "a copy of {}, renewed by the hook whenever certbot renews",
                directory.display()
            ),
            Choice::Postfix(pair) => format!(
                "a copy of {}; copy it again whenever it is renewed",
                pair.certificate.display()
            ),
            Choice::SelfSigned => {
                "a new self-signed one, for trying: mail programs warn about it".to_owned()
            }
        }
    }
}

/// The questions, and the source of their answers.
struct Questions<'a> {
    options: &'a SetupOptions,
    is_asking: bool,
}

impl<'a> Questions<'a> {
    fn new(options: &'a SetupOptions) -> Result<Self, CliError> {
        let is_asking = !options.yes && !options.dry_run;
        if is_asking && !io::stdin().is_terminal() {
            return Err(CliError::Refused(
                "there is no terminal to ask at: pass --yes to take the answers that setup finds, or --dry-run to see them".to_owned(),
            ));
        }
        Ok(Questions { options, is_asking })
    }

    fn ask(
        &self,
        machine: &Machine,
    ) -> Result<(Answers, Option<Choice>, Option<PathBuf>), CliError> {
        let hostname = match &self.options.hostname {
            Some(hostname) => hostname.clone(),
            None => {
                let name =
                    self.text("The name that mail programs connect to", &machine.hostname)?;
                name.parse().map_err(|error| {
                    CliError::Refused(format!("{name}: {error}; pass --hostname NAME"))
                })?
            }
        };
        let hostname = hostname.as_str();
        let mode = match self.options.mode {
            Some(mode) => mode,
            None => {
                let found = match machine.mode {
                    Some(Mode::Behind) => "behind",
                    Some(Mode::Front) | None => "front",
                };
                match &*self.text("Gatepost in front of Postfix, or behind it", found)? {
                    "front" => Mode::Front,
                    "behind" => Mode::Behind,
                    other => {
                        let error = format!("{other} is neither front nor behind");
                        return Err(CliError::Refused(error));
                    }
                }
            }
        };
        let choice = match mode {
            Mode::Front => Some(self.certificate(machine, hostname)?),
            Mode::Behind => None,
        };
        let answers = Answers {
            hostname: hostname.to_owned(),
            mode,
            lineage: match &choice {
                Some(Choice::Lineage(directory)) => Some(directory.clone()),
                _ => None,
            },
            has_ipv6: machine.has_ipv6,
        };
        Ok((answers, choice, self.import(machine)?))
    }

    fn certificate(&self, machine: &Machine, hostname: &str) -> Result<Choice, CliError> {
        let is_for = |pair: &Pair| machine::is_for(pair, hostname);
        let kept = pair_in(Path::new(DIRECTORY));
        let found = match machine.lineage_for(hostname) {
            Some(directory) => directory.display().to_string(),
            None if is_for(&kept) => "kept".to_owned(),
            None if machine.postfix_pair.as_ref().is_some_and(is_for) => "postfix".to_owned(),
            None => "self-signed".to_owned(),
        };
        let question = "Certificate: a directory of certbot's, kept, postfix or self-signed";
        let answer = match &self.options.certificate {
            Some(answer) => answer.clone(),
            None => self.text(question, &found)?,
        };
        let (choice, pair) = match &*answer {
            "self-signed" if is_for(&kept) => return Ok(Choice::Kept),
            "self-signed" => return Ok(Choice::SelfSigned),
            "kept" => (Choice::Kept, kept),
            "postfix" => {
                let pair = machine.postfix_pair.clone().ok_or_else(|| {
                    CliError::Refused(
                        "Postfix has no certificate: pass --certificate with another one"
                            .to_owned(),
                    )
                })?;
                (Choice::Postfix(pair.clone()), pair)
            }
            directory => {
                let directory = PathBuf::from(directory);
                let pair = pair_in(&directory);
                (Choice::Lineage(directory), pair)
            }
        };
        Certificate::load(&pair).map_err(|error| CliError::Config(error.to_string()))?;
        Ok(choice)
    }

    fn import(&self, machine: &Machine) -> Result<Option<PathBuf>, CliError> {
        let answer = match (&self.options.import, &machine.logins) {
            (Some(answer), _) => answer.clone(),
            (None, Logins::None) => "none".to_owned(),
            (None, Logins::PasswdFile(file)) => {
                let found = file.display().to_string();
                self.text("The Dovecot passwd-file of today's users, or none", &found)?
            }
            (None, Logins::Elsewhere(source)) if self.is_asking => {
                let question = format!(
                    "Today's passwords, from {source}, cannot be imported and end. Go on (yes or no)"
                );
                match &*self.text(&question, "no")? {
                    "yes" => "none".to_owned(),
                    _ => return Err(by_hand("The passwords of today's users stay")),
                }
            }
            (None, Logins::Elsewhere(_)) => "none".to_owned(),
        };
        Ok((answer != "none").then(|| answer.into()))
    }

    /// Asks for a text; Enter takes the one that was found.
    fn text(&self, question: &str, found: &str) -> Result<String, CliError> {
        if !self.is_asking {
            return Ok(found.to_owned());
        }
        let mut typed = String::new();
        let mut terminal = io::stderr();
        write!(terminal, "{question} [{found}]: ")?;
        terminal.flush()?;
        if io::stdin().lock().read_line(&mut typed)? == 0 {
            return Err(CliError::Refused(
                "no answer, nothing was changed".to_owned(),
            ));
        }
        Ok(match typed.trim() {
            "" => found.to_owned(),
            answer => answer.to_owned(),
        })
    }
}

/// Runs a program to its end. Returns its output.
///
/// # Errors
/// The program is not installed, or failed, with its own words.
fn run_program(name: &str, arguments: &[&str]) -> Result<String, CliError> {
    let programs = [name, &format!("/usr/sbin/{name}")];
    doctor::program::output(&programs, arguments, PATIENCE).map_err(CliError::Io)
}
