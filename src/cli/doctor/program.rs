//! Runs another program and waits for its output, with a limit.

use std::io;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The output of the first of `programs` that is installed, or the reason why there is none.
pub fn output(programs: &[&str], arguments: &[&str], limit: Duration) -> Result<String, String> {
    for program in programs {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        let (done, output) = mpsc::channel();
        thread::spawn(move || {
            // The receiver is gone if the program took too long.
            let _ = done.send(command.output());
        });
        let output = output.recv_timeout(limit);
        match output.map_err(|_| format!("{program} does not answer"))? {
            Ok(output) if output.status.success() => {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr);
                let fatal = words.lines().find(|line| line.contains("fatal:"));
                let last = words.lines().rev().find(|line| !line.trim().is_empty());
                return Err(match (fatal, last) {
                    (Some(fatal), _) => fatal.to_owned(),
                    (None, Some(last)) => format!("{program} failed: {last}"),
                    (None, None) => format!("{program} failed"),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{program}: {error}")),
        }
    }
    let name = programs.first().unwrap_or(&"");
    Err(format!("{name} is not on this machine"))
}
