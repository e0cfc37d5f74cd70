//! Whether Postfix believes in line ends that Gatepost does not let through (SMTP smuggling).

use super::finding::Finding;
use super::settings::Settings;

const CHECK: &str = "newlines";

const BELIEVES: &str = "takes a bare LF for a line's end; Gatepost lets none through, but others \
    that reach the service could smuggle messages";

const AND_CANNOT: &str = "is too old to be told not to take a bare LF for a line's end; Gatepost \
    lets none through, but others that reach the service could smuggle messages";

/// What Postfix makes of a bare LF.
pub fn judge(settings: &Settings) -> Finding {
    let Some(service) = settings.service() else {
        return settings.untold(CHECK, "whether Postfix takes a bare LF for a line's end");
    };
    let next = || settings.add_to_service();
    let forbidden = service.value("smtpd_forbid_bare_newline");
    match forbidden.as_deref() {
        None => Finding::warning(
            CHECK,
            format!("this Postfix {AND_CANNOT}"),
            "update Postfix to a release that knows smtpd_forbid_bare_newline",
        ),
        Some("no") => Finding::warning(
            CHECK,
            format!("smtpd_forbid_bare_newline=no: Postfix {BELIEVES}"),
            next(),
        )
        .with_lines("master.cf", vec!["-o smtpd_forbid_bare_newline=yes".into()]),
        Some(value) => {
            let exempt = service.value("smtpd_forbid_bare_newline_exclusions");
            match exempt.filter(|exempt| !exempt.is_empty()) {
                Some(exempt) => Finding::warning(
                    CHECK,
                    format!("smtpd_forbid_bare_newline={value}, but not for {exempt}: from there a bare LF is taken for a line's end"),
                    next(),
                )
                .with_lines(
                    "master.cf",
                    vec!["-o smtpd_forbid_bare_newline_exclusions=".into()],
                ),
                None => Finding::ok(
                    CHECK,
                    format!("smtpd_forbid_bare_newline={value}, for everybody"),
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::settings::tests::with;
    use super::*;

    #[test]
    fn a_bare_newline_is_to_be_forbidden_for_everybody() {
        let judged = |own: &[(&str, &str)]| {
            let finding = judge(&with("3.9.0", own));
            (finding.level, finding.lines.concat())
        };
        let forbid = |value| ("smtpd_forbid_bare_newline", value);
        let exempt = |value| ("smtpd_forbid_bare_newline_exclusions", value);
        let none = ("mynetworks", "");
        for (own, level, line) in [
            (vec![], Level::Warning, ""),
            (
                vec![forbid("no")],
                Level::Warning,
                "-o smtpd_forbid_bare_newline=yes",
            ),
            (
                vec![forbid("normalize"), exempt("$mynetworks")],
                Level::Warning,
                "-o smtpd_forbid_bare_newline_exclusions=",
            ),
            (
                vec![forbid("normalize"), exempt("$mynetworks"), none],
                Level::Ok,
                "",
            ),
        ] {
            assert_eq!(judged(&own), (level, line.to_owned()), "{own:?}");
        }
    }
}
