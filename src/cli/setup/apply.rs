//! Carries the plan out, and takes it back.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::super::CliError;
use super::machine::{holder, pair_in};
use super::plan::{DIRECTORY, Mode, NewFile, Plan};
use super::postfix::Postfix;
use super::run_program;
use crate::daemon;
use crate::net::certificates::Pair;

/// The files as they were before setup, for `--undo`.
const SAVED: &str = "/etc/gatepost/before-setup";

/// The `master.cf` that setup wrote; a later change shows by it.
const WRITTEN: &str = "/etc/gatepost/before-setup/master.cf.written";

/// The list of the files that setup made and `--undo` removes.
const MADE: &str = "/etc/gatepost/before-setup/made";

/// The time that Postfix has to leave the ports.
const PATIENCE: Duration = Duration::from_secs(10);

/// The units of the ports, which stay Postfix's where Gatepost is behind.
const PORTS: [&str; 2] = ["gatepost.socket", "gatepost-submissions.socket"];

/// The other units without which no mail flows; the service starts those of web and metrics.
const OTHERS: [&str; 3] = [
    "gatepost-admin.socket",
    "gatepost-auth.socket",
    "gatepost.service",
];

/// The units that mail does not need.
const ASIDE: [&str; 2] = ["gatepost-web.socket", "gatepost-metrics.socket"];

/// The contents of a certificate's files, chain and key.
pub struct Contents(Vec<u8>, Zeroizing<Vec<u8>>);

impl Contents {
    /// Reads the pair.
    pub fn read(pair: &Pair) -> Result<Contents, CliError> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|error| CliError::Io(format!("{}: {error}", path.display())))
        };
        Ok(Contents(read(&pair.certificate)?, read(&pair.key)?.into()))
    }

    /// Makes a self-signed pair.
    pub fn self_signed(hostname: &str) -> Result<Contents, CliError> {
        let made = rcgen::generate_simple_self_signed([hostname.to_owned()])
            .map_err(|error| CliError::Io(format!("cannot make a certificate: {error}")))?;
        let key = made.signing_key.serialize_pem().into_bytes().into();
        Ok(Contents(made.cert.pem().into_bytes(), key))
    }

    /// Whether Gatepost's copy is the same.
    pub fn is_in_place(&self) -> bool {
        Contents::read(&pair_in(Path::new(DIRECTORY)))
            .is_ok_and(|own| own.0 == self.0 && *own.1 == *self.1)
    }
}

/// Whether setup has run and was not taken back.
pub fn is_done() -> bool {
    Path::new(SAVED).join("master.cf").exists()
}

/// Whether everything that the plan has is in place.
pub fn is_in_place(plan: &Plan, pair: Option<&Contents>, is_master: bool) -> bool {
    let is_running = |unit: &&str| {
        let state = run_program("systemctl", &["is-active", unit]);
        state.is_ok()
    };
    let mut files = plan.files.iter();
    is_master
        && is_done()
        && files.all(NewFile::is_in_place)
        && pair.is_none_or(Contents::is_in_place)
        && units(plan.mode).iter().all(is_running)
}

/// Carries out `plan`, in which `master.cf` becomes `master`.
///
/// # Errors
/// A step failed; the steps before it stand.
pub fn apply(
    plan: &Plan,
    postfix: &Postfix,
    master: &str,
    pair: Option<&Contents>,
) -> Result<(), CliError> {
    save(postfix)?;
    for file in &plan.files {
        if !file.is_in_place() {
            make(&file.path, file.text.as_bytes(), file.mode)?;
        }
    }
    if let Some(pair) = pair.filter(|pair| !pair.is_in_place()) {
        let own = pair_in(Path::new(DIRECTORY));
        make(&own.key, &pair.1, 0o640)?;
        make(&own.certificate, &pair.0, 0o644)?;
    }
    run_program("systemctl", &["daemon-reload"])?;
    if plan.mode == Mode::Behind {
        run_program("systemctl", &[&["mask"][..], &PORTS].concat())?;
    }
    let units = units(plan.mode);
    run_program("systemctl", &[&["enable"][..], &units, &ASIDE].concat())?;
    let path = postfix.file("master.cf")?;
    if fs::read_to_string(&path)? != master {
        // Before the file itself: --undo is sure to know it.
        write(Path::new(WRITTEN), master.as_bytes(), 0o600, None)?;
        replace(&path, master.as_bytes())?;
        run_program("postfix", &["check"])?;
        run_program("postfix", &["reload"])?;
    }
    if plan.mode == Mode::Front && run_program("systemctl", &["is-active", PORTS[0]]).is_err() {
        await_ports()?;
    }
    run_program("systemctl", &[&["start"][..], &units].concat())?;
    Ok(())
}

/// The units without which no mail flows.
fn units(mode: Mode) -> Vec<&'static str> {
    match mode {
        Mode::Front => [&PORTS[..], &OTHERS].concat(),
        Mode::Behind => OTHERS.to_vec(),
    }
}

/// Waits until Postfix has left 587 and 465.
fn await_ports() -> Result<(), CliError> {
    let start = Instant::now();
    let taken = || {
        let mut ports = [587, 465].into_iter();
        ports.find_map(|port| Some((port, holder(port)?)))
    };
    while let Some((port, holder)) = taken() {
        if start.elapsed() > PATIENCE {
            return Err(CliError::Io(format!(
                "port {port} is still taken by {holder}"
            )));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Keeps `main.cf` and `master.cf` as they were before the first setup.
fn save(postfix: &Postfix) -> Result<(), CliError> {
    if is_done() {
        return Ok(());
    }
    let saved = Path::new(SAVED);
    fs::create_dir_all(saved)?;
    fs::set_permissions(saved, Permissions::from_mode(0o700))?;
    for name in ["main.cf", "master.cf"] {
        let before = fs::read(postfix.file(name)?)?;
        write(&saved.join(name), &before, 0o600, None)?;
    }
    Ok(())
}

/// Takes setup back: `master.cf` as it was before, the units stopped, the files removed. The store
/// stays, and the configuration as `config.toml.undone`.
///
/// # Errors
/// Setup did not run here, `master.cf` was changed since, or a step failed.
pub fn undo(postfix: &Postfix) -> Result<(), CliError> {
    if !is_done() {
        return Err(CliError::Refused(
            "there is nothing to undo: setup has changed nothing on this machine".to_owned(),
        ));
    }
    let saved = Path::new(SAVED).join("master.cf");
    let path = postfix.file("master.cf")?;
    let before = fs::read(&saved)?;
    let now = fs::read(&path)?;
    let is_changed = now != before;
    if is_changed && fs::read(WRITTEN).ok().as_ref() != Some(&now) {
        return Err(CliError::Refused(format!(
            "{0} was changed after setup, and --undo would lose that. Nothing was changed. By hand: compare it with {1} (diff -u {1} {0}), take the service submit out and uncomment the services before, then: postfix reload, and systemctl disable --now 'gatepost*.socket' gatepost.service",
            path.display(),
            saved.display(),
        )));
    }
    let all = [&PORTS[..], &OTHERS, &ASIDE].concat();
    run_program("systemctl", &[&["disable", "--now"][..], &all].concat())?;
    run_program("systemctl", &[&["unmask"][..], &PORTS].concat())?;
    if is_changed {
        replace(&path, &before)?;
    }
    for file in fs::read_to_string(MADE).unwrap_or_default().lines() {
        let file = Path::new(file);
        if file.ends_with("config.toml") && file.exists() {
            fs::rename(file, file.with_extension("toml.undone"))?;
        }
        remove(file)?;
        // The directory of a drop-in; one with other drop-ins stays.
        if let Some(directory) = file.parent().filter(|at| at.extension().is_some()) {
            let _ = fs::remove_dir(directory);
        }
    }
    run_program("systemctl", &["daemon-reload"])?;
    if is_changed && postfix.runs() {
        run_program("postfix", &["reload"])?;
    }
    fs::remove_dir_all(SAVED)?;
    Ok(())
}

impl NewFile {
    /// Whether the file is there with this text.
    fn is_in_place(&self) -> bool {
        fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }
}

/// Writes a file of the plan, and notes it for `--undo` if it is a new one.
fn make(path: &Path, content: &[u8], mode: u32) -> Result<(), CliError> {
    let made = fs::read_to_string(MADE).unwrap_or_default();
    if !path.exists() {
        let made = format!("{made}{}\n", path.display());
        write(Path::new(MADE), made.as_bytes(), 0o600, None)?;
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let group = match path.starts_with(DIRECTORY) {
        true => Some(daemon::group_id("gatepost")?),
        false => None,
    };
    write(path, content, mode, group)
}

/// Replaces a file of Postfix's, which keeps its owner and mode.
fn replace(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let before = fs::metadata(path)?;
    let mode = before.mode() & 0o7777;
    write(path, content, mode, Some(before.gid()))
}

/// Writes a file of root's with this mode and group, complete or not at all.
fn write(path: &Path, content: &[u8], mode: u32, group: Option<u32>) -> Result<(), CliError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    let permissions = Permissions::from_mode(mode);
    file.as_file().set_permissions(permissions)?;
    chown(file.path(), Some(0), group)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn remove(path: &Path) -> Result<(), CliError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
