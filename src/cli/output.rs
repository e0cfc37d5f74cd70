//! How commands speak: tables and sentences for people, one JSON document for programs, and the question before a deletion.

use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use super::CliError;
use super::log::stderr_is_the_journal;

pub(super) use crate::store::{plain, shown};

/// How long [`remark`] waits for a standard error that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes `text` and a line feed to standard output.
///
/// # Errors
/// Standard output takes no more: [`CliError::Closed`] where its reader is gone.
pub(super) fn print(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}")
        .and_then(|()| output.flush())
        .map_err(unprinted)
}

/// Prints the text of clap: `--help` and `--version` to standard output, errors to standard
/// error. Returns the exit code.
///
/// # Errors
/// As [`print`].
pub(super) fn print_usage(usage: &clap::Error) -> Result<u8, CliError> {
    let printed = usage.print().and_then(|()| io::stdout().flush());
    if !usage.use_stderr() {
        printed.map_err(unprinted)?;
    }
    Ok(u8::try_from(usage.exit_code()).unwrap_or(2))
}

fn unprinted(error: io::Error) -> CliError {
    match error.kind() {
        ErrorKind::BrokenPipe => CliError::Closed,
        _ => CliError::Io(format!("cannot write to standard output: {error}")),
    }
}

/// Writes an error to standard error. The journal reads the level of each line from its beginning
/// (sd-daemon(3)): an error before the log starts would else be one line among many.
pub(super) fn complain(text: &str) {
    let level = match stderr_is_the_journal() {
        Some(true) => "<3>",
        _ => "",
    };
    let text = format!("gatepost: {text}");
    let lines: Vec<_> = text.lines().map(|line| format!("{level}{line}")).collect();
    remark(&lines.join("\n"));
}

/// Writes `text` and a line feed to standard error. A standard error that takes nothing keeps the
/// program for a moment only, and one that fails loses the text.
pub(super) fn remark(text: &str) {
    let line = format!("{text}\n");
    let (done, written) = mpsc::channel();
    let writing = thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        let _ = done.send(());
    });
    if writing.is_ok() {
        let _ = written.recv_timeout(PATIENCE);
    }
}

/// Says something on standard error beside an answer, if that is open.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "gatepost: {text}");
}

/// A whole answer as a JSON document.
pub(super) fn document(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(|error| CliError::Io(error.to_string()))
}

/// A table without lines: easy on the eye, on grep and on awk.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.to_vec());
    table.add_rows(rows);
    let lines = table.lines();
    // Every cell is padded by a space on both sides; at the edges that is only in the way.
    lines
        .map(|line| line.trim().to_owned())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Text as one part of a path: usernames that were not made here may hold anything.
pub(super) fn path_part(text: &str) -> String {
    let Ok(encoded) = askama::filters::urlencode_strict(text);
    encoded.to_string()
}

/// A name, or a dash where there is none.
pub(super) fn name(name: Option<&str>) -> String {
    name.map_or_else(|| "-".to_owned(), shown)
}

/// A stored time for people, to the minute.
pub(super) fn minute(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => "?".to_owned(), // outside jiff's years; somebody wrote it by hand
    }
}

/// 100 years in seconds. A time as long ago says more than the number of days since.
const CENTURY: i64 = 36_525 * 86_400;

/// How long before `now` a stored time was, in its largest unit.
pub(super) fn ago(ms: i64, now: Timestamp) -> String {
    let seconds = now.as_millisecond().saturating_sub(ms) / 1_000;
    let (count, unit) = match seconds {
        CENTURY.. => return minute(ms),
        ..=0 => return "just now".to_owned(), // also when another machine's clock is ahead
        1..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// Asks the person at the terminal to confirm a deletion by typing `answer`, which is described as `what`. `warning` says
/// what would be lost.
///
/// # Errors
/// They typed something else, or there is no terminal to ask at.
pub(super) fn confirm(warning: &str, what: &str, answer: &str) -> Result<(), CliError> {
    let input = io::stdin();
    if !input.is_terminal() {
        return Err(CliError::Refused(format!(
            "{warning} There is no terminal to confirm it at: pass --yes if you mean it"
        )));
    }
    // To standard error: standard output may be a pipe that takes the JSON.
    ask(
        &mut input.lock(),
        &mut io::stderr(),
        &format!("{warning} Type {what} to confirm: "),
        answer,
    )
}

fn ask(
    input: &mut impl BufRead,
    output: &mut impl Write,
    question: &str,
    answer: &str,
) -> Result<(), CliError> {
    let mut typed = String::new();
    write!(output, "{question}")
        .and_then(|()| output.flush())
        .and_then(|()| input.read_line(&mut typed))
        .map_err(|error| CliError::Io(format!("cannot ask for confirmation: {error}")))?;
    if typed.trim() == answer {
        return Ok(());
    }
    Err(CliError::Refused(
        "not confirmed, nothing was deleted".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_largest_unit() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let told = |seconds: i64| ago((1_800_000_000 - seconds) * 1_000, now);
        assert_eq!(told(-5), "just now");
        assert_eq!(told(0), "just now");
        assert_eq!(told(1), "1 second ago");
        assert_eq!(told(59), "59 seconds ago");
        assert_eq!(told(60), "1 minute ago");
        assert_eq!(told(3 * 60 + 59), "3 minutes ago");
        assert_eq!(told(2 * 3_600), "2 hours ago");
        assert_eq!(told(400 * 86_400), "400 days ago");
        assert_eq!(told(1_800_000_000 + 3_155_760_000), "1869-12-31 00:00 UTC");
    }

    #[test]
    fn times_for_people_are_to_the_minute() {
        assert_eq!(minute(1_800_000_000_123), "2027-01-15 08:00 UTC");
        assert_eq!(minute(i64::MAX), "?");
    }

    #[test]
    fn a_table_has_one_line_for_each_row_and_no_trailing_space() {
        let rows = [
            vec!["Printer".to_owned(), "x".to_owned()],
            vec!["-".to_owned(), "y".to_owned()],
        ];
        assert_eq!(
            table(&["Name", "Username"], rows),
            "Name     Username\nPrinter  x\n-        y"
        );
    }

    #[test]
    fn only_the_right_answer_confirms() {
        let answered = |typed: &str| ask(&mut typed.as_bytes(), &mut Vec::new(), "Gone!", "a1b2");
        assert!(answered("a1b2\n").is_ok());
        for typed in ["", "\n", "y\n", "A1B2\n", "a1b\n"] {
            assert!(
                matches!(answered(typed), Err(CliError::Refused(_))),
                "{typed:?}"
            );
        }
    }
}
