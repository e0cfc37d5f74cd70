//! Postfix's own state: whether its master runs, and options in master.cf that fell to another service.

use std::fs;
use std::path::Path;

use super::finding::Finding;

const CHECK: &str = "postfix";

/// The types of a service in master.cf (master(5)).
const TYPES: [&str; 5] = ["fifo", "inet", "pass", "unix", "unix-dgram"];

/// The columns before the command.
const COLUMNS: usize = 7;

/// Whether master runs with this queue directory; `None` where that cannot be seen.
pub fn runs(queue: &Path) -> Option<bool> {
    let text = match fs::read_to_string(queue.join("pid/master.pid")) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    let name = fs::read_to_string(format!("/proc/{}/comm", text.trim()));
    Some(name.is_ok_and(|name| name.trim() == "master"))
}

/// That it does not run.
pub fn down() -> Finding {
    Finding::problem(CHECK, "Postfix does not run", "systemctl start postfix")
        .explaining(super::causes::SERVICE)
}

/// Options of a service that is commented out, which Postfix takes for those of the one before it.
#[derive(Debug, Eq, PartialEq)]
struct Fallen {
    /// The service that is commented out.
    of: String,
    /// The service that has them now.
    to: String,
    first: usize,
    last: usize,
}

/// Looks through the master.cf in `directory`.
pub fn examine(directory: &Path) -> Vec<Finding> {
    let file = directory.join("master.cf");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let judge = |fallen: Fallen| {
        let Fallen {
            of,
            to,
            first,
            last,
        } = fallen;
        let port = match to.as_str() {
            "smtp" | "25" => ", port 25, which does not take mail from outside any more".to_owned(),
            _ => String::new(),
        };
        let found = format!(
            "the service {of} is commented out, but not its options: they belong to {to} now{port} ({}, lines {first} to {last})",
            file.display()
        );
        Finding::problem(
            CHECK,
            found,
            "put a # before those lines, too; then: postfix reload",
        )
    };
    fallen(&text).into_iter().map(judge).collect()
}

fn fallen(text: &str) -> Vec<Fallen> {
    let mut all: Vec<Fallen> = Vec::new();
    let (mut service, mut commented): (Option<&str>, Option<&str>) = (None, None);
    for (index, line) in text.lines().enumerate() {
        if let Some(comment) = line.trim_start().strip_prefix('#') {
            let mut words = comment.trim_start_matches('#').split_whitespace();
            let (name, kind) = (words.next(), words.next());
            if kind.is_some_and(|kind| TYPES.contains(&kind)) && words.count() > COLUMNS - 3 {
                commented = name;
            }
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        if !line.starts_with([' ', '\t']) {
            (service, commented) = (line.split_whitespace().next(), None);
            continue;
        }
        let (Some(to), Some(of)) = (service, commented) else {
            continue;
        };
        match all.last_mut() {
            Some(open) if open.of == of && open.to == to => open.last = index + 1,
            _ => all.push(Fallen {
                of: of.to_owned(),
                to: to.to_owned(),
                first: index + 1,
                last: index + 1,
            }),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_below_a_commented_service_fall_to_the_one_before() {
        let good = "smtp inet n - y - - smtpd\n  -o a=b\n#submission inet n - y - - smtpd\n#  -o c=d\n# a note\npickup unix n - y 60 1 pickup\n  -o e=f\n";
        assert_eq!(fallen(good), []);
        let bad = "smtp      inet  n       -       y       -       -       smtpd\n#submission inet n - y - - smtpd\n  -o c=d\n\n#  -o x=y\n  -o e=f\n# smtps inet n - y - - smtpd\n\t-o g=h\npickup unix n - y 60 1 pickup\n";
        let fell = |of: &str, first, last| Fallen {
            of: of.to_owned(),
            to: "smtp".to_owned(),
            first,
            last,
        };
        assert_eq!(fallen(bad), [fell("submission", 3, 6), fell("smtps", 8, 8)]);
        // A sentence about a service is none.
        let note = "smtp inet n - y - - smtpd\n# the unix socket is below\n  -o a=b\n";
        assert_eq!(fallen(note), []);
    }
}
