//! What the doctor finds, and how it is told: line by line to people, as one document to programs.

use serde::Serialize;

use super::super::CliError;
use super::super::output::{document, note, plain, print};
use super::super::progress::Progress;
use super::causes;
use super::service::Service;

/// How bad it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Could not be told from here.
    Unknown,
    /// Mail flows; something else will not be as expected.
    Warning,
    /// Mail of somebody's does not flow.
    Problem,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at; stable, for programs.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is the case, and what comes of it.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Where `lines` belong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'static str>,
    /// The exact lines to add there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// The checks that fail because of this problem.
    #[serde(skip)]
    pub explains: &'static [&'static str],
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            found: found.into(),
            next: None,
            file: None,
            lines: Vec::new(),
            explains: &[],
        }
    }

    /// Could not be told, for this reason.
    pub fn unknown(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Unknown,
            ..Self::ok(check, found)
        }
    }

    /// Not as it should be, and mail flows all the same.
    pub fn warning(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            next: Some(next.into()),
            ..Self::ok(check, found)
        }
    }

    /// Keeps mail from flowing.
    pub fn problem(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            level: Level::Problem,
            next: Some(next.into()),
            ..Self::ok(check, found)
        }
    }

    /// With the lines that mend it, if there are any.
    pub fn with_lines(self, file: &'static str, lines: Vec<String>) -> Self {
        match lines.is_empty() {
            true => self,
            false => Self {
                file: Some(file),
                lines,
                ..self
            },
        }
    }

    /// With the checks that fail because of it.
    pub fn explaining(self, explains: &'static [&'static str]) -> Self {
        Self { explains, ..self }
    }

    /// The same for people. What others chose is made safe for a terminal.
    fn text(&self) -> String {
        const INDENT: &str = "\n                      ";
        let level = self.level.as_str();
        let mut text = format!("{level:<8} {:<12} {}", self.check, plain(&self.found));
        if let Some(next) = &self.next {
            text += &format!("{INDENT}next: {}", plain(next));
        }
        for line in &self.lines {
            text += &format!("{INDENT}  {}", plain(line));
        }
        text
    }
}

/// The findings so far.
pub struct Report {
    json: bool,
    progress: Progress,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Document<'a> {
    well: bool,
    findings: &'a [Finding],
}

impl Report {
    /// Prints one document with `json`, otherwise text.
    pub fn new(json: bool) -> Self {
        Self {
            json,
            progress: Progress::begin("Examining"),
            findings: Vec::new(),
        }
    }

    /// Adds a finding. All are printed at the end, causes first.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// [`Report::add`] for several.
    pub fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    /// Says on standard error why the examination takes long.
    pub fn wait(&self, reason: &str) {
        self.progress.aside(|| note(reason));
    }

    /// Whether a problem that was found makes this check fail, so that it need not be tried.
    pub fn explains(&self, check: &str) -> bool {
        let mut problems = self.findings.iter();
        problems.any(|found| found.level == Level::Problem && found.explains.contains(&check))
    }

    /// Whether anything was found about `check`.
    pub fn has(&self, check: &str) -> bool {
        self.findings.iter().any(|found| found.check == check)
    }

    /// How many keep mail from flowing.
    fn problems(&self) -> usize {
        self.count(Level::Problem)
    }

    fn count(&self, level: Level) -> usize {
        let of_level = self.findings.iter().filter(|found| found.level == level);
        of_level.count()
    }

    /// Prints the findings. The next steps are those for a Gatepost that this unit of systemd runs, or
    /// none does.
    ///
    /// # Errors
    /// Something keeps mail from flowing, or standard output is closed.
    pub fn finish(mut self, service: Option<&Service>) -> Result<(), CliError> {
        self.progress.stop();
        self.findings = causes::sift(self.findings, service);
        let problems = self.problems();
        if self.json {
            print(&document(&Document {
                well: problems == 0 && self.count(Level::Unknown) == 0,
                findings: &self.findings,
            })?)?;
        } else {
            let texts: Vec<_> = self.findings.iter().map(Finding::text).collect();
            print(&texts.join("\n"))?;
        }
        let keep = match problems {
            0 => return self.farewell(),
            1 => "1 problem keeps".to_owned(),
            _ => format!("{problems} problems keep"),
        };
        Err(CliError::Refused(format!("{keep} mail from flowing")))
    }

    fn farewell(&self) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        let (warnings, unknown) = (self.count(Level::Warning), self.count(Level::Unknown));
        let mut text = match unknown {
            0 => "Mail can flow.".to_owned(),
            1 => "No problem was found, but 1 check could not be made.".to_owned(),
            _ => format!("No problem was found, but {unknown} checks could not be made."),
        };
        if warnings > 0 {
            text += &format!(" Warnings: {warnings}.");
        }
        print(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_has_its_next_step_and_its_lines_below_it() {
        let lines = vec!["-o a=b".to_owned()];
        let finding = Finding::problem("limits", "bad\u{1b}[2J", "add to master.cf:")
            .with_lines("master.cf", lines);
        assert_eq!(
            finding.text(),
            "PROBLEM  limits       bad\\u{1b}[2J\n                      next: add to master.cf:\n                        -o a=b"
        );
        assert_eq!(
            Finding::ok("xclient", "fine").text(),
            "ok       xclient      fine"
        );
    }

    #[test]
    fn only_problems_are_a_failure() {
        let mut report = Report::new(true);
        report.add(Finding::warning("a", "b", "c"));
        report.add(Finding::unknown("a", "b"));
        assert_eq!(report.problems(), 0);
        report.add(Finding::problem("a", "b", "c"));
        assert_eq!(report.problems(), 1);
    }
}
